//! Filling in `${…}`. What comes from a request stays as it was sent, so nothing in it can end a field or a line: the
//! parser in front let no control characters through, and a percent-encoded one stays encoded.

use std::borrow::Cow;

use http::{HeaderValue, request};
use serde_json::Value;

use super::caller::Caller;
use crate::config::units::{Part, Template, Variable};

/// The client's request, before anything was changed.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub head: &'a request::Parts,
    pub client: &'a HeaderValue,
    pub id: &'a HeaderValue,
    pub scheme: &'a str,
    /// `None`: the route does not ask.
    pub caller: Option<&'a Caller>,
}

impl<'a> Context<'a> {
    fn host(&self) -> &'a [u8] {
        let host = self.head.headers.get(http::header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
        match host.iter().rposition(|byte| *byte == b':') {
            Some(colon) if !host.ends_with(b"]") => &host[..colon],
            _ => host,
        }
    }

    /// Empty for what is no text, or none that a field can have.
    fn claim(&self, name: &str) -> Cow<'a, [u8]> {
        match self.caller.and_then(|caller| caller.claim(name)) {
            Some(Value::String(text)) if !text.chars().any(char::is_control) => {
                Cow::Borrowed(text.as_bytes())
            }
            Some(plain @ (Value::Bool(_) | Value::Number(_))) => Cow::Owned(plain.to_string().into_bytes()),
            _ => Cow::Borrowed(b""),
        }
    }

    fn variable(&self, variable: &Variable) -> Cow<'a, [u8]> {
        let uri = &self.head.uri;
        Cow::Borrowed(match variable {
            Variable::Host => self.host(),
            Variable::Path => uri.path().as_bytes(),
            Variable::Query => uri.query().unwrap_or_default().as_bytes(),
            Variable::Uri => uri.path_and_query().map_or("/", |uri| uri.as_str()).as_bytes(),
            Variable::Method => self.head.method.as_str().as_bytes(),
            Variable::Scheme => self.scheme.as_bytes(),
            Variable::ClientIp => self.client.as_bytes(),
            Variable::Id => self.id.as_bytes(),
            Variable::ConsumerId => self.caller.map_or(&b""[..], |caller| caller.consumer.as_bytes()),
            Variable::ConsumerTier => {
                self.caller.and_then(|caller| caller.tier.as_deref()).unwrap_or_default().as_bytes()
            }
            Variable::Claim(name) => return self.claim(name),
            Variable::Param { segment, .. } => nth_segment(uri.path(), *segment).as_bytes(),
            Variable::Rest { after } => after_segments(uri.path(), *after).as_bytes(),
            Variable::Header(name) => self.head.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes),
            Variable::QueryParam(name) => query_parameter(uri.query().unwrap_or_default(), name).as_bytes(),
            // Only where there is a regular expression, which fills it in itself.
            Variable::Group(_) => b"",
        })
    }

    /// A field's value. `None` for what is none, which nothing in a request can bring about.
    pub fn value(&self, template: &Template) -> Option<HeaderValue> {
        let mut value = Vec::new();
        for part in &template.parts {
            match part {
                Part::Literal(text) => value.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => value.extend_from_slice(&self.variable(variable)),
            }
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(value)).ok()
    }

    /// A text; what is no UTF-8 in a request is replaced.
    pub fn text(&self, template: &Template) -> String {
        let mut text = String::new();
        for part in &template.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Variable(variable) => text.push_str(&String::from_utf8_lossy(&self.variable(variable))),
            }
        }
        text
    }

    /// A path or a part of one. `group`: what a regular expression's groups took of the path.
    pub fn path(&self, template: &Template, group: impl Fn(usize) -> &'a str) -> String {
        let mut path = String::new();
        for part in &template.parts {
            match part {
                Part::Literal(text) => path.push_str(text),
                Part::Variable(Variable::Group(number)) => path.push_str(group(*number)),
                Part::Variable(Variable::Path) => path.push_str(self.head.uri.path()),
                Part::Variable(variable @ (Variable::Rest { .. } | Variable::Param { .. })) => {
                    path.push_str(&String::from_utf8_lossy(&self.variable(variable)));
                }
                Part::Variable(variable @ (Variable::QueryParam(_) | Variable::Query)) => {
                    encode(&self.variable(variable), b"%", &mut path);
                }
                Part::Variable(variable) => encode(&self.variable(variable), b"", &mut path),
            }
        }
        path
    }
}

/// Percent-encodes what is not a segment's (RFC 3986 section 3.3), but for `keep`: text that is encoded already.
fn encode(bytes: &[u8], keep: &[u8], into: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte) || keep.contains(byte) {
            into.push(char::from(*byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn nth_segment(path: &str, n: usize) -> &str {
    path.strip_prefix('/').unwrap_or(path).split('/').nth(n).unwrap_or_default()
}

/// What follows the first `n` segments, with the slash before it.
fn after_segments(path: &str, n: usize) -> &str {
    path.match_indices('/').nth(n).map_or("", |(at, _)| &path[at..])
}

/// The first value of that (decoded) name, as it was sent.
fn query_parameter<'a>(query: &'a str, name: &str) -> &'a str {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let named = |key: &str| {
        key == name || form_urlencoded::parse(key.as_bytes()).next().is_some_and(|(key, _)| key == name)
    };
    pairs.into_iter().find(|(key, _)| named(key)).map_or("", |(_, value)| value)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::model::{PathPattern, Segment};

    pub fn head(request: http::request::Builder) -> request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    /// Of a request to `/items/{id}/*`.
    fn fill(text: &str, head: &request::Parts) -> String {
        let mut template = Template::parse(text).unwrap();
        let segments = vec![Segment::Literal("items".into()), Segment::Parameter("id".into())];
        template.resolve(&PathPattern { segments, rest: true }, 0).unwrap();
        let (client, id) = (HeaderValue::from_static("192.0.2.1"), HeaderValue::from_static("7"));
        let context = Context { head, client: &client, id: &id, scheme: "http", caller: None };
        context.value(&template).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn variables_are_what_the_client_sent() {
        let head = head(
            http::Request::put("/items/a%2Fb/rest?x=1&y+z=a%0d%0ab&x=2")
                .header("host", "a.test:81")
                .header("x-a", "A"),
        );
        for (text, expected) in [
            ("${host}|${header.host}", "a.test|a.test:81"),
            ("${path}?${query}", "/items/a%2Fb/rest?x=1&y+z=a%0d%0ab&x=2"),
            ("${uri}", "/items/a%2Fb/rest?x=1&y+z=a%0d%0ab&x=2"),
            ("${method} ${scheme} ${client.ip} ${id}", "PUT http 192.0.2.1 7"),
            ("${param.id}", "a%2Fb"),
            ("<${header.x-a}${header.X-B}>", "<A>"),
            ("${query.x} ${query.y z} ${query.none}", "1 a%0d%0ab "),
        ] {
            assert_eq!(fill(text, &head), expected, "{text}");
        }
    }

    #[test]
    fn what_a_star_took_keeps_its_slash() {
        for (path, n, rest) in [
            ("/a/b/c", 1, "/b/c"),
            ("/a", 1, ""),
            ("/a/", 1, "/"),
            ("/", 0, "/"),
            ("/x", 0, "/x"),
            ("/a", 5, ""),
        ] {
            assert_eq!(after_segments(path, n), rest, "{path} {n}");
        }
    }

    #[test]
    fn what_is_put_into_a_path_stays_one_segment() {
        let mut path = String::new();
        encode(b"a/b?c%2e\xff \r\n", b"", &mut path);
        assert_eq!(path, "a%2Fb%3Fc%252e%FF%20%0D%0A");
    }
}
