//! `cors`: which pages of other origins may read answers (Fetch standard, section 3.2).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request};

use super::{answer::Answered, compress::add_vary};
use crate::config::model::{self, Origin};

/// What an upstream says of this is not passed on: the config's word alone counts.
const ANSWERS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    methods: Option<HeaderValue>,
    /// `None`: whatever is asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// What one request's answer is to say.
#[derive(Debug)]
pub struct Allowed<'a> {
    cors: &'a Cors,
    /// `None`: the origin is not allowed, or there is none.
    origin: Option<HeaderValue>,
}

impl Cors {
    pub fn new(config: &model::Cors) -> Self {
        let list =
            |names: &[String]| HeaderValue::from_str(&names.join(", ")).ok().filter(|list| !list.is_empty());
        let any_header = config.headers.iter().any(|name| name == "*");
        Cors {
            origins: config.origins.clone(),
            methods: list(&config.methods),
            headers: if any_header {
                None
            } else {
                list(&config.headers).or(Some(HeaderValue::from_static("")))
            },
            expose: list(&config.expose),
            credentials: config.credentials,
            max_age: HeaderValue::from(config.max_age.as_secs()),
        }
    }

    fn any_origin(&self) -> bool {
        self.origins.contains(&Origin::Any)
    }

    pub fn allowed(&self, head: &request::Parts) -> Allowed<'_> {
        let origin = head.headers.get(header::ORIGIN);
        let origin =
            origin.filter(|origin| self.origins.iter().any(|allowed| allowed.takes(origin.as_bytes())));
        let origin = origin.map(|origin| match self.any_origin() {
            true => HeaderValue::from_static("*"),
            false => origin.clone(),
        });
        Allowed { cors: self, origin }
    }

    /// The answer to a preflight, which no upstream sees. For what is not allowed it allows nothing.
    pub fn preflight(&self, head: &request::Parts) -> Option<Answered> {
        preflight_method(&head.method, &head.headers)?;
        let allowed = self.allowed(head);
        let mut headers = HeaderMap::new();
        allowed.apply(&mut headers);
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        add_vary(&mut headers, "access-control-request-headers");
        if allowed.origin.is_some() {
            let asked = || head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone()),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone().or_else(asked)),
                (header::ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone())),
            ] {
                headers.extend(value.filter(|value| !value.is_empty()).map(|value| (name, value)));
            }
        }
        Some(Answered { status: StatusCode::NO_CONTENT, headers, body: bytes::Bytes::new() })
    }
}

/// The method that a preflight asks for. `None`: it is none.
pub fn preflight_method<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    if *method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).map(HeaderValue::as_bytes)
}

impl Origin {
    pub(super) fn takes(&self, origin: &[u8]) -> bool {
        match self {
            Origin::Any => true,
            Origin::Exact(exact) => origin == exact.as_bytes(),
            // Origins are sent in lower case (URL standard), and have no path that could end alike.
            Origin::Under { scheme, suffix } => origin
                .strip_prefix(scheme.as_bytes())
                .and_then(|host| host.strip_suffix(suffix.as_bytes()))
                .and_then(|label| label.strip_suffix(b"."))
                .is_some_and(|label| {
                    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
                    !label.is_empty() && label.iter().all(plain)
                }),
        }
    }
}

impl Allowed<'_> {
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &ANSWERS {
            headers.remove(name);
        }
        // A cache must not give one origin's answer to another, nor that without any.
        if !self.cors.any_origin() {
            add_vary(headers, "origin");
        }
        let Some(origin) = &self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.cors.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.cors.expose {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_whole_or_under_a_name() {
        let under = Origin::Under { scheme: "https://".into(), suffix: "example.com".into() };
        for origin in ["https://a.example.com", "https://a.b.example.com"] {
            assert!(under.takes(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "https://example.com",
            "http://a.example.com",
            "https://aexample.com",
            "https://evil.test/.example.com",
            "https://evil.test:1.example.com",
            "https://.example.com",
            "https://a.example.com:8443",
            "null",
        ] {
            assert!(!under.takes(origin.as_bytes()), "{origin}");
        }
        let exact = Origin::Exact("https://a.test".into());
        assert!(exact.takes(b"https://a.test") && !exact.takes(b"https://a.test.evil"));
        assert!(Origin::Any.takes(b"null"));
    }
}
