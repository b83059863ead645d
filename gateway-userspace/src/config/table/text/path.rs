//! Paths.

use super::super::Text;
use crate::config::{
    model::{PathPattern, Segment},
    node::Value,
    units::{UnitError, normal_path, quote},
};

pub(in super::super) static PATH: Text = Text {
    what: "a path",
    example: "/items/*",
    pattern: Some("^/([^?#\\s*]*|([^?#\\s*]*/)?\\*)$"),
    parse: |text| parse_path(text).map(Value::Path),
};

fn parse_path(text: &str) -> Result<PathPattern, UnitError> {
    let wrong = || UnitError::new(format!("expected a path such as \"/items/*\", found {}", quote(text)));
    check_path(text)?;
    let normal =
        normal_path(text).ok_or_else(|| wrong().hint("a path has no `.` and `..` segments and no `%00`"))?;
    let text = &*normal;
    let mut pattern = PathPattern { segments: Vec::new(), rest: false };
    let segments: Vec<&str> = text[1..].split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            // "/" has no segments; "/items/" ends in an empty one.
            "" if last && index == 0 => {}
            "" if !last => return Err(wrong().hint("a segment between two slashes is never empty")),
            "*" if last => pattern.rest = true,
            name if name.contains('*') => {
                return Err(wrong().hint("`*` is a whole segment, and the last: \"/items/*\""));
            }
            name if name.contains(['{', '}']) => {
                let name = name.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).filter(|name| {
                    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                        && name.starts_with(|c: char| c.is_ascii_alphabetic())
                });
                let name =
                    name.ok_or_else(|| wrong().hint("a parameter is a whole segment: \"/items/{id}\""))?;
                let parameter = Segment::Parameter(name.into());
                if pattern.segments.contains(&parameter) {
                    return Err(wrong().hint(format!("the parameter `{name}` is there twice")));
                }
                pattern.segments.push(parameter);
            }
            literal => pattern.segments.push(Segment::Literal(literal.into())),
        }
    }
    Ok(pattern)
}

/// The path of a health check, query and all.
pub(in super::super) static PROBE_PATH: Text = Text {
    what: "a path",
    example: "/healthz",
    pattern: Some("^/[!-~]*$"),
    parse: |text| {
        check_path(text.split('?').next().unwrap_or_default())?;
        match text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            true => Ok(Value::Text(text.into())),
            false => {
                Err(UnitError::new(format!("expected a path such as \"/healthz\", found {}", quote(text))))
            }
        }
    },
};

/// What holds of every path: RFC 3986 section 3.3, and no dot segments, which clients resolve before they ask.
fn check_path(text: &str) -> Result<(), UnitError> {
    let wrong = || UnitError::new(format!("expected a path such as \"/items/*\", found {}", quote(text)));
    if !text.starts_with('/') {
        return Err(wrong().hint(format!("a path starts with a slash: {}", quote(&format!("/{text}")))));
    }
    if text.contains(['?', '#']) {
        return Err(wrong().hint("a path has no query and no fragment"));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`|".contains(*c)) {
        return Err(wrong().hint(format!("percent-encode {odd:?} as it comes in requests")));
    }
    let encoded = |rest: &str| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    if !text.split('%').skip(1).all(encoded) {
        return Err(wrong().hint("`%` is followed by two hexadecimal digits"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(wrong().hint("a path has no `.` and `..` segments"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint<T>(result: Result<T, UnitError>) -> String {
        result.err().and_then(|error| error.hint).unwrap_or_default()
    }

    #[test]
    fn paths_are_segments_with_whole_parameters() {
        let literal = |text: &str| Segment::Literal(text.into());
        let parameter = |text: &str| Segment::Parameter(text.into());
        let table = [
            ("/", vec![], false),
            ("/*", vec![], true),
            ("/items", vec![literal("items")], false),
            ("/items/", vec![literal("items"), literal("")], false),
            ("/items/*", vec![literal("items")], true),
            ("/%7ea/*", vec![literal("~a")], true),
            ("/a%2fb/{id}/x", vec![literal("a%2Fb"), parameter("id"), literal("x")], false),
        ];
        for (text, segments, rest) in table {
            assert_eq!(parse_path(text), Ok(PathPattern { segments, rest }), "{text}");
        }
        assert!(hint(parse_path("items")).contains("\"/items\""));
        assert!(hint(parse_path("/a/{x}/{x}")).contains("`x` is there twice"));
        assert!(hint(parse_path("/a b")).contains("percent-encode ' '"));
        for text in [
            "",
            "//",
            "/a//b",
            "/a*",
            "/*/a",
            "/{}",
            "/{a}.json",
            "/{a",
            "/a?b",
            "/a#b",
            "/./a",
            "/a/..",
            "/%zz",
            "/ü",
        ] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }
}
