//! Names of hosts.

use std::net::Ipv4Addr;

use super::super::Text;
use crate::config::{
    model::HostPattern,
    node::Value,
    units::{UnitError, quote},
};

pub(in super::super) static HOST: Text = Text {
    what: "a host name",
    example: "api.example.com",
    pattern: Some("^(\\*\\.)?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$|^\\[[0-9A-Fa-f:.]+\\]$"),
    parse: |text| parse_host(text).map(Value::Host),
};

/// A name that clients ask for by TLS: never an address (RFC 6066 section 3).
pub(in super::super) static SNI_NAME: Text = Text {
    what: "a host name",
    example: "*.example.com",
    pattern: Some("^(\\*\\.)?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$"),
    parse: |text| match parse_host(text)? {
        HostPattern::Exact(name) if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() => {
            let message = format!("expected a host name such as \"*.example.com\", found {}", quote(text));
            Err(UnitError::new(message).hint("clients never ask for an address by name"))
        }
        name => Ok(Value::Text(name.to_string())),
    },
};

fn parse_host(text: &str) -> Result<HostPattern, UnitError> {
    let wrong =
        || UnitError::new(format!("expected a host name such as \"api.example.com\", found {}", quote(text)));
    if text == "*" {
        return Err(wrong().hint("leave `host` out to match every host"));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let v6: std::net::Ipv6Addr = inner.parse().map_err(|_| wrong())?;
        return Ok(HostPattern::Exact(format!("[{v6}]")));
    }
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if let Some(rest) = name.split_once("://") {
        return Err(wrong().hint(format!("leave the scheme out: {}", quote(rest.1))));
    }
    if let Some((host, port)) = name.split_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(wrong().hint(format!("leave the port out: {}", quote(host))));
    }
    if name.contains('*') {
        return Err(wrong().hint("`*` stands for whole labels, and only in front: \"*.example.com\""));
    }
    if let Some(name) = name.strip_suffix('.').filter(|name| !name.is_empty()) {
        return Err(wrong().hint(format!("leave the last dot out: {}", quote(name))));
    }
    if !name.is_ascii() {
        return Err(wrong().hint("write the name in its ASCII form, \"xn--…\" (IDNA)"));
    }
    // RFC 1123 section 2.1 and RFC 1035 section 2.3.4; `_` is in use.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(wrong().hint("labels of letters, digits and `-`, joined by dots"));
    }
    let name = name.to_ascii_lowercase();
    Ok(if wildcard { HostPattern::Wildcard(name) } else { HostPattern::Exact(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint<T>(result: Result<T, UnitError>) -> String {
        result.err().and_then(|error| error.hint).unwrap_or_default()
    }

    #[test]
    fn hosts_are_lower_cased_and_wildcards_only_in_front() {
        assert_eq!(parse_host("API.Example.com"), Ok(HostPattern::Exact("api.example.com".into())));
        assert_eq!(parse_host("*.Example.com"), Ok(HostPattern::Wildcard("example.com".into())));
        assert_eq!(parse_host("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        assert!(hint(parse_host("example.com:80")).contains("\"example.com\""));
        assert!(hint(parse_host("http://example.com")).contains("leave the scheme out"));
        assert!(hint(parse_host("api.*.com")).contains("only in front"));
        assert!(hint(parse_host("*")).contains("leave `host` out"));
        assert!(hint(parse_host("bücher.example")).contains("xn--"));
        for text in ["", ".", "a..b", "-a.b", "a-.b", "a b", "*.", "**.a", "a."] {
            assert!(parse_host(text).is_err(), "{text}");
        }
        assert!(parse_host(&"a.".repeat(150)).is_err());
    }
}
