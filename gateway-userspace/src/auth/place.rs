//! Finding a credential in a request, and taking it out.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request};

use crate::{config::model::Whence, request::without_parameters};

/// Where a credential is.
#[derive(Debug)]
pub enum Place {
    /// What follows this scheme in `Authorization`.
    Scheme(&'static str),
    Header(HeaderName),
    Query(String),
    Cookie(String),
}

/// It is there more than once: which of them counts, two readers could see differently.
#[derive(Debug, PartialEq, Eq)]
pub struct Ambiguous;

pub type Sought<'a> = Result<Option<Cow<'a, [u8]>>, Ambiguous>;

impl Place {
    pub fn new(whence: &Whence) -> Self {
        match whence {
            Whence::Bearer => Place::Scheme("bearer"),
            // The config's reader let only names through.
            Whence::Header(name) => {
                HeaderName::from_bytes(name.as_bytes()).map_or(Place::Scheme("bearer"), Place::Header)
            }
            Whence::Query(name) => Place::Query(name.clone()),
            Whence::Cookie(name) => Place::Cookie(name.clone()),
        }
    }

    pub fn find<'a>(&self, head: &'a request::Parts) -> Sought<'a> {
        match self {
            Place::Scheme(scheme) => of_scheme(&head.headers, scheme),
            Place::Header(name) => {
                only(head.headers.get_all(name).iter().map(|v| Cow::Borrowed(v.as_bytes())))
            }
            Place::Query(name) => only(pairs(&head.uri).filter(|pair| key(pair) == *name).map(value)),
            Place::Cookie(name) => only(
                cookies(&head.headers)
                    .filter(|(key, _)| *key == name.as_bytes())
                    .map(|(_, v)| Cow::Borrowed(v)),
            ),
        }
    }

    /// Takes it out, wherever it is.
    pub fn strip(&self, head: &mut request::Parts) {
        match self {
            Place::Scheme(scheme) => {
                if !matches!(of_scheme(&head.headers, scheme), Ok(None)) {
                    head.headers.remove(header::AUTHORIZATION);
                }
            }
            Place::Header(name) => drop(head.headers.remove(name)),
            Place::Query(name) => strip_query(name, &mut head.uri),
            Place::Cookie(name) => strip_cookie(name, &mut head.headers),
        }
    }

    /// Takes it out of what is logged.
    pub fn strip_logged(&self, uri: &mut Uri) {
        if let Place::Query(name) = self {
            strip_query(name, uri);
        }
    }

    /// Whether it is in what is logged of a request.
    pub fn is_logged(&self) -> bool {
        matches!(self, Place::Query(_))
    }
}

fn only<'a>(mut all: impl Iterator<Item = Cow<'a, [u8]>>) -> Sought<'a> {
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Ambiguous),
    }
}

/// RFC 9110 section 11.4: a scheme in any case, spaces, and the credential.
fn of_scheme<'a>(headers: &'a HeaderMap, scheme: &str) -> Sought<'a> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let Some(field) = fields.next() else { return Ok(None) };
    let credential = after_scheme(field, scheme).map(Cow::Borrowed);
    match fields.next() {
        // One of them may be read by one, the other by another.
        Some(_) => Err(Ambiguous),
        None => Ok(credential),
    }
}

fn after_scheme<'a>(field: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (word, rest) = field.split_at_checked(scheme.len())?;
    let rest = word.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)?;
    rest.starts_with(b" ").then(|| rest.trim_ascii())
}

fn pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty())
}

fn key(pair: &str) -> Cow<'_, str> {
    form_urlencoded::parse(pair.as_bytes()).next().map_or(Cow::Borrowed(""), |(key, _)| key)
}

fn value(pair: &str) -> Cow<'_, [u8]> {
    match form_urlencoded::parse(pair.as_bytes()).next() {
        Some((_, Cow::Borrowed(value))) => Cow::Borrowed(value.as_bytes()),
        Some((_, Cow::Owned(value))) => Cow::Owned(value.into_bytes()),
        None => Cow::Borrowed(b""),
    }
}

/// `/a?x=1&key=2` becomes `/a?x=1`.
fn strip_query(name: &str, uri: &mut Uri) {
    if let Some(target) = without_parameters(uri, &[name]) {
        let mut parts = std::mem::take(uri).into_parts();
        parts.path_and_query = Some(target);
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// RFC 6265 section 4.2.1.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|b| *b == b';'));
    pairs.map(|pair| {
        let pair = pair.trim_ascii();
        match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
            None => (pair, &b""[..]),
        }
    })
}

fn strip_cookie(name: &str, headers: &mut HeaderMap) {
    if !cookies(headers).any(|(key, _)| key == name.as_bytes()) {
        return;
    }
    let mut kept = Vec::new();
    for (key, value) in cookies(headers).filter(|(key, _)| *key != name.as_bytes()) {
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(key);
        if !value.is_empty() {
            kept.push(b'=');
            kept.extend_from_slice(value);
        }
    }
    headers.remove(header::COOKIE);
    if let (false, Ok(field)) = (kept.is_empty(), HeaderValue::from_bytes(&kept)) {
        headers.insert(header::COOKIE, field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::get(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn found(place: &Place, head: &request::Parts) -> Result<Option<String>, Ambiguous> {
        place.find(head).map(|found| found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    #[test]
    fn a_credential_is_there_once_or_ambiguous() {
        let is = |text: &str| Ok(Some(text.to_owned()));
        let bearer = Place::Scheme("bearer");
        for (field, expected) in [
            ("Bearer abc", is("abc")),
            ("bEARER   abc", is("abc")),
            ("Bearerabc", Ok(None)),
            ("Basic abc", Ok(None)),
            ("Bearer", Ok(None)),
            // What is left of it is no credential.
            ("Bearer ", is("")),
        ] {
            assert_eq!(found(&bearer, &head("/", &[("authorization", field)])), expected, "{field}");
        }
        let twice = head("/", &[("authorization", "Basic x"), ("authorization", "Bearer y")]);
        assert_eq!(found(&bearer, &twice), Err(Ambiguous));
        let key = Place::Header(HeaderName::from_static("x-key"));
        assert_eq!(found(&key, &head("/", &[("x-key", "1")])), is("1"));
        assert_eq!(found(&key, &head("/", &[("x-key", "1"), ("x-key", "1")])), Err(Ambiguous));
        let query = Place::Query("key".into());
        assert_eq!(found(&query, &head("/?a=1&k%65y=%31+2", &[])), is("1 2"));
        assert_eq!(found(&query, &head("/?key=1&key=2", &[])), Err(Ambiguous));
        assert_eq!(found(&query, &head("/?keys=1", &[])), Ok(None));
        let cookie = Place::Cookie("s".into());
        assert_eq!(found(&cookie, &head("/", &[("cookie", "a=b; s=x=y")])), is("x=y"));
        assert_eq!(found(&cookie, &head("/", &[("cookie", "s=1"), ("cookie", "b=2; s=1")])), Err(Ambiguous));
    }

    #[test]
    fn what_is_taken_out_leaves_the_rest_as_it_is() {
        for (from, to) in [
            ("/a?x=%31&key=2&&y", "/a?x=%31&&y"),
            ("/a?key=2", "/a"),
            ("/a?k%65y=2&key=3&z=", "/a?z="),
            ("/a?keys=1", "/a?keys=1"),
            ("/a", "/a"),
        ] {
            let mut head = head(from, &[]);
            Place::Query("key".into()).strip(&mut head);
            assert_eq!(head.uri.to_string(), to, "{from}");
        }
        for (from, to) in [("a=b; s=1; c", Some("a=b; c")), ("s=1", None), ("a=b", Some("a=b"))] {
            let mut head = head("/", &[("cookie", from)]);
            Place::Cookie("s".into()).strip(&mut head);
            assert_eq!(head.headers.get("cookie").map(|v| v.to_str().unwrap()), to, "{from}");
        }
        for (from, stays) in [("Basic x", true), ("bearer x", false)] {
            let mut head = head("/", &[("authorization", from)]);
            Place::Scheme("bearer").strip(&mut head);
            assert_eq!(head.headers.contains_key("authorization"), stays);
        }
    }
}
