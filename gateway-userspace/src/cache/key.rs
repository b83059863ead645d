//! What makes two requests ask for the same: the key of a stored response.
//!
//! A key is bytes: the parts of the URL, the route, then what else the config names, each ended by a 0, which no part
//! can have in it. The first five always stand in the same places, so that a purge can read them.

use http::{HeaderMap, HeaderValue, header};

use crate::{config::model::KeyPart, request::cookies};

const END: u8 = 0;
/// Of a part that the key does not have.
const NOT_KEYED: u8 = 2;
/// Between several values of one name.
const NEXT: u8 = 1;

/// A request as keys see it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub scheme: &'a str,
    /// As a trusted proxy tells of it, which the upstream is told too.
    pub forwarded_host: Option<&'a str>,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub consumer: Option<&'a str>,
    /// Hash of the method, the body and its type, where there is a body.
    pub body: Option<[u8; 32]>,
}

/// `key = [..]`, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyParts {
    host: bool,
    path: bool,
    query: Query,
    others: Vec<KeyPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Query {
    No,
    Whole,
    /// These parameters, sorted.
    Of(Vec<String>),
}

impl KeyParts {
    pub fn new(parts: &[KeyPart]) -> Self {
        let mut names: Vec<String> = parts
            .iter()
            .filter_map(|part| match part {
                KeyPart::Parameter(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        names.sort();
        let of_url = |part: &&KeyPart| {
            !matches!(part, KeyPart::Host | KeyPart::Path | KeyPart::Query | KeyPart::Parameter(_))
        };
        KeyParts {
            host: parts.contains(&KeyPart::Host),
            path: parts.contains(&KeyPart::Path),
            query: match parts.contains(&KeyPart::Query) {
                true => Query::Whole,
                false if names.is_empty() => Query::No,
                false => Query::Of(names),
            },
            others: parts.iter().filter(of_url).cloned().collect(),
        }
    }

    pub fn has_consumer(&self) -> bool {
        self.others.contains(&KeyPart::Consumer)
    }

    pub fn has_body(&self) -> bool {
        self.others.contains(&KeyPart::Body)
    }

    pub fn has_cookies(&self) -> bool {
        self.others.iter().any(|part| matches!(part, KeyPart::Cookie(_)))
    }

    pub fn has_authorization(&self) -> bool {
        self.others.iter().any(|part| matches!(part, KeyPart::Header(name) if *name == header::AUTHORIZATION))
    }

    /// A key for people: what it is made of.
    pub fn words(&self, key: &[u8]) -> Vec<String> {
        let mut fields = key.split(|byte| *byte == END);
        let mut next = || match fields.next() {
            None | Some([NOT_KEYED]) => None,
            Some(field) => {
                let field = String::from_utf8_lossy(field.strip_suffix(&[NEXT]).unwrap_or(field));
                Some(field.replace('\u{1}', " "))
            }
        };
        let names = ["scheme", "forwarded host", "host", "path", "query", "route"].map(str::to_owned);
        let names = names.into_iter().chain(self.others.iter().map(ToString::to_string));
        let words = names.filter_map(|name| Some((name, next()?)));
        words.filter(|(_, field)| !field.is_empty()).map(|(name, field)| format!("{name} {field}")).collect()
    }

    /// A URL has one key a route.
    pub fn is_of_url(&self) -> bool {
        self.others.is_empty()
    }

    /// Appends the key.
    pub fn write(&self, asked: &Asked<'_>, route: &str, out: &mut Vec<u8>) {
        self.write_url(asked, out);
        part(out, route.as_bytes());
        for other in &self.others {
            match other {
                KeyPart::Header(name) => {
                    values(out, asked.headers.get_all(name).iter().map(HeaderValue::as_bytes))
                }
                KeyPart::Cookie(name) => values(out, cookies(asked.headers, name)),
                KeyPart::Consumer => values(out, asked.consumer.iter().map(|name| name.as_bytes())),
                KeyPart::Body => {
                    let hash = asked.body.map(|hash| blake3::Hash::from(hash).to_hex());
                    values(out, hash.iter().map(|hash| hash.as_bytes()));
                }
                KeyPart::Host | KeyPart::Path | KeyPart::Query | KeyPart::Parameter(_) => {}
            }
        }
    }

    fn write_url(&self, asked: &Asked<'_>, out: &mut Vec<u8>) {
        part(out, asked.scheme.as_bytes());
        part(out, asked.forwarded_host.unwrap_or_default().as_bytes());
        match self.host {
            true => {
                let start = out.len();
                part(out, bare_host(asked.scheme, asked.host).as_bytes());
                out[start..].make_ascii_lowercase();
            }
            false => part(out, &[NOT_KEYED]),
        }
        part(out, if self.path { asked.path.as_bytes() } else { &[NOT_KEYED] });
        match &self.query {
            Query::No => part(out, &[NOT_KEYED]),
            Query::Whole => {
                if let Some(query) = asked.query {
                    out.push(b'?');
                    out.extend_from_slice(query.as_bytes());
                }
                out.push(END);
            }
            Query::Of(names) => {
                for name in names {
                    // All of them, in their order: which one counts is the upstream's to say.
                    let query = asked.query.unwrap_or_default().as_bytes();
                    for (_, value) in form_urlencoded::parse(query).filter(|(found, _)| found == name) {
                        out.extend_from_slice(name.as_bytes());
                        out.push(b'=');
                        // A decoded 0 would end the part.
                        out.extend(form_urlencoded::byte_serialize(value.as_bytes()).flat_map(str::bytes));
                        out.push(NEXT);
                    }
                }
                out.push(END);
            }
        }
    }
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(END);
}

/// None is not the same as an empty one.
fn values<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a [u8]>) {
    for value in values {
        out.extend_from_slice(value);
        out.push(NEXT);
    }
    out.push(END);
}

/// Without the port that the scheme has anyway.
fn bare_host<'a>(scheme: &str, host: &'a str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    host.strip_suffix(port).unwrap_or(host)
}

/// The path in a key, if it has one.
pub fn path_of(key: &[u8]) -> Option<&[u8]> {
    key.split(|byte| *byte == END).nth(3).filter(|path| *path != [NOT_KEYED])
}

/// What a purge names by URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    scheme: Option<String>,
    host: Option<String>,
    /// With the query, if it is named.
    target: String,
    whole: bool,
}

impl Place {
    /// `https://a.example/items?x=1`, or `/items` of any host. `whole`: just that; else everything that begins so.
    pub fn parse(text: &str, whole: bool) -> Option<Place> {
        if text.len() > 8192 || !text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
            return None;
        }
        if text.starts_with('/') {
            return Some(Place { scheme: None, host: None, target: text.to_owned(), whole });
        }
        let (scheme, rest) = text.split_once("://")?;
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.is_empty() {
            return None;
        }
        let host = bare_host(scheme, host).to_ascii_lowercase();
        let target = if target.is_empty() { "/" } else { target };
        Some(Place { scheme: Some(scheme.into()), host: Some(host), target: target.into(), whole })
    }

    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// As [`Place::parse`] reads it.
    pub fn text(&self) -> String {
        match (&self.scheme, &self.host) {
            (Some(scheme), Some(host)) => format!("{scheme}://{host}{}", self.target),
            _ => self.target.clone(),
        }
    }

    /// Whether a stored response is there. What its key does not have is no reason against it: rather too many go.
    pub fn takes(&self, parts: &KeyParts, key: &[u8]) -> bool {
        let mut fields = key.split(|byte| *byte == END);
        let mut next = || fields.next().unwrap_or_default();
        let (scheme, forwarded, host, path, query) = (next(), next(), next(), next(), next());
        if self.scheme.as_ref().is_some_and(|wanted| wanted.as_bytes() != scheme) {
            return false;
        }
        let is_host = |wanted: &String| {
            host == [NOT_KEYED]
                || wanted.as_bytes() == host
                || forwarded.eq_ignore_ascii_case(wanted.as_bytes())
        };
        if !self.host.as_ref().is_none_or(is_host) {
            return false;
        }
        if path == [NOT_KEYED] {
            return true;
        }
        let (wanted_path, wanted_query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        match self.whole {
            true => path == wanted_path.as_bytes() && query == parts.query_of(wanted_query),
            false if wanted_query.is_none() => path.starts_with(wanted_path.as_bytes()),
            false => [path, query].concat().starts_with(self.target.as_bytes()),
        }
    }
}

impl KeyParts {
    /// A query as it stands in a key.
    fn query_of(&self, query: Option<&str>) -> Vec<u8> {
        let headers = HeaderMap::new();
        let asked = Asked {
            scheme: "",
            forwarded_host: None,
            host: "",
            path: "",
            query,
            headers: &headers,
            consumer: None,
            body: None,
        };
        let mut key = Vec::new();
        self.write_url(&asked, &mut key);
        key.split(|byte| *byte == END).nth(4).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[&str]) -> KeyParts {
        KeyParts::new(&parts.iter().map(|part| KeyPart::parse(part).unwrap()).collect::<Vec<_>>())
    }

    fn key(
        parts: &KeyParts,
        url: &str,
        lines: &[(&'static str, &'static str)],
        consumer: Option<&str>,
    ) -> Vec<u8> {
        let uri: http::Uri = url.parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let asked = Asked {
            scheme: uri.scheme_str().unwrap(),
            forwarded_host: None,
            host: uri.authority().unwrap().as_str(),
            path: uri.path(),
            query: uri.query(),
            headers: &headers,
            consumer,
            body: None,
        };
        let mut key = Vec::new();
        parts.write(&asked, "r", &mut key);
        key
    }

    #[test]
    fn what_the_key_names_tells_requests_apart_and_nothing_else_does() {
        let plain = parts(&["host", "path", "query"]);
        let of = |url| key(&plain, url, &[], None);
        assert_eq!(of("http://A.example:80/x"), key(&plain, "http://a.example/x", &[("x", "1")], Some("me")));
        for other in
            ["https://a.example/x", "http://b.example/x", "http://a.example/X", "http://a.example/x?"]
        {
            assert_ne!(of("http://a.example/x"), of(other), "{other}");
        }
        let some = parts(&["path", "query:b", "query:a"]);
        let of = |url| key(&some, url, &[], None);
        assert_eq!(of("http://h/x?a=1&b=2&c=3"), of("http://i/x?b=2&a=1"));
        assert_eq!(of("http://h/x?%61=1"), of("http://h/x?a=1"));
        assert_ne!(of("http://h/x?a=1"), of("http://h/x?a=1&a=2"));
        assert_ne!(of("http://h/x?a="), of("http://h/x"));
        assert_ne!(of("http://h/x?a=1%01b%3D2"), of("http://h/x?a=1&b=2"));
    }

    #[test]
    fn callers_cookies_and_fields_have_keys_of_their_own() {
        let all = parts(&["path", "header:accept-language", "cookie:s", "consumer"]);
        let of = |lines, consumer| key(&all, "http://h/x", lines, consumer);
        let keys = [
            of(&[], None),
            of(&[], Some("a")),
            of(&[], Some("b")),
            of(&[("accept-language", "de")], None),
            of(&[("accept-language", "")], None),
            of(&[("cookie", "s=de")], None),
            of(&[("cookie", "t=1; s=a; s=b")], None),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(of(&[("cookie", "t=1; s=de")], None), of(&[("cookie", "s=de; ts=2")], None));
    }

    #[test]
    fn a_purge_finds_a_url_in_all_its_variants() {
        let all = parts(&["host", "path", "query", "consumer"]);
        let stored = key(&all, "http://a.example/items/1?x=1", &[], Some("me"));
        let takes = |text, whole| Place::parse(text, whole).unwrap().takes(&all, &stored);
        assert!(takes("http://a.example/items/1?x=1", true) && takes("/items/1?x=1", true));
        assert!(!takes("http://a.example/items/1", true) && !takes("http://b.example/items/1?x=1", true));
        assert!(
            takes("http://a.example/items/", false)
                && takes("/items/1?x", false)
                && takes("http://a.example", false)
        );
        assert!(!takes("/item/", false) && !takes("https://a.example/", false));
        assert!(Place::parse("items", true).is_none() && Place::parse("/a b", true).is_none());
        let some = parts(&["path", "query:b"]);
        let stored = key(&some, "http://a.example/x?a=1&b=2", &[], None);
        assert!(Place::parse("http://other.example/x?b=2&z=1", true).unwrap().takes(&some, &stored));
    }
}
