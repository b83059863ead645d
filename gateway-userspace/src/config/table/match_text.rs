//! Texts that requests are matched by: methods, field names, query names, regular expressions.

use super::Text;
use crate::config::{
    model::Pattern,
    node::Value,
    units::{UnitError, quote},
};

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
}

pub(super) static METHOD: Text = Text {
    what: "a method",
    example: "GET",
    pattern: Some("^[A-Z0-9!#$%&'*+.^_`|~-]+$"),
    parse: |text| {
        let wrong = || UnitError::new(format!("expected a method such as \"GET\", found {}", quote(text)));
        if !is_token(text) {
            return Err(wrong());
        }
        // Methods are case-sensitive (RFC 9110 section 9.1), and all in use are upper case.
        if text.bytes().any(|c| c.is_ascii_lowercase()) {
            return Err(
                wrong().hint(format!("write it in upper case: {}", quote(&text.to_ascii_uppercase())))
            );
        }
        match text {
            "CONNECT" => Err(UnitError::not_supported("the method CONNECT")),
            _ => Ok(Value::Text(text.into())),
        }
    },
};

pub(super) static FIELD_NAME: Text = Text {
    what: "a header field's name",
    example: "x-version",
    pattern: Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
    parse: |text| match is_token(text) {
        true => Ok(Value::Text(text.to_ascii_lowercase())),
        false => Err(UnitError::new(format!(
            "expected a header field's name such as \"x-version\", found {}",
            quote(text)
        ))),
    },
};

pub(super) static QUERY_NAME: Text = Text {
    what: "a query parameter's name",
    example: "version",
    pattern: Some("^.+$"),
    parse: |text| match text.is_empty() {
        false => Ok(Value::Text(text.into())),
        true => Err(UnitError::new("expected a query parameter's name, found \"\"")),
    },
};

pub(super) static STICKY: Text = Text {
    what: "a key",
    example: "cookie:uid",
    pattern: Some("^(ip|(cookie|header):[A-Za-z0-9!#$%&'*+.^_`|~-]+)$"),
    parse: |text| match text.split_once(':') {
        None if text == "ip" => Ok(Value::Text(text.into())),
        Some(("cookie", name)) if is_token(name) => Ok(Value::Text(text.into())),
        Some(("header", name)) if is_token(name) => Ok(Value::Text(text.to_ascii_lowercase())),
        _ => Err(UnitError::new(format!("expected a key such as \"cookie:uid\", found {}", quote(text)))
            .hint("it is \"ip\", or \"cookie:\" or \"header:\" and a name")),
    },
};

pub(super) static MATCHED_VALUE: Text = Text {
    what: "a value",
    example: "v2",
    pattern: None,
    parse: |text| match text.contains(|c: char| c.is_control()) {
        false => Ok(Value::Text(text.into())),
        true => Err(UnitError::new(format!("{} has control characters", quote(text)))),
    },
};

pub(super) static REGEX: Text = Text {
    what: "a regular expression",
    example: "^v[0-9]+$",
    pattern: None,
    parse: |text| match compile(text) {
        Ok(regex) => Ok(Value::Pattern(Pattern { regex })),
        Err(error) => {
            let error = error.to_string();
            // The error's first lines draw the place, which takes more than one line.
            let last = error.lines().last().unwrap_or_default();
            let message =
                format!("{} is no regular expression: {}", quote(text), last.trim_start_matches("error: "));
            Err(UnitError::new(message).hint("the syntax is that of https://docs.rs/regex#syntax"))
        }
    },
};

fn compile(text: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(text).size_limit(1 << 20).nest_limit(50).build()
}
