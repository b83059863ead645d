//! What a request says of the version that it wants, each place for itself. Everything here is a client's: it is looked
//! at in one pass, and nothing of it is kept.

use http::HeaderValue;

use crate::config::{
    model::{PathPattern, Segment},
    units::{Date, Number},
};

/// The segment of a path that stands where the version does, if the path is of this form. `known`: whether it is a word
/// for a version.
pub(super) fn in_path<'a>(
    pattern: &PathPattern,
    path: &'a str,
    known: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let mut left = path.strip_prefix('/').filter(|left| !left.is_empty());
    let mut found = None;
    for segment in &pattern.segments {
        let (text, after) = match left?.split_once('/') {
            Some((text, after)) => (text, Some(after)),
            None => (left?, None),
        };
        match segment {
            Segment::Literal(literal) if literal == text => {}
            Segment::Parameter(_) if !text.is_empty() => {}
            Segment::Version(shape) if shape.takes(text) || known(text) => found = Some(text),
            _ => return None,
        }
        left = after;
    }
    found.filter(|_| pattern.rest || left.is_none())
}

/// The first label of a host.
pub(super) fn in_host(host: &str, known: impl Fn(&str) -> bool) -> Option<&str> {
    let (label, rest) = host.split_once('.')?;
    let numbered = || label.starts_with(['v', 'V']) && Number::parse(label).is_some();
    (!rest.is_empty() && (numbered() || known(label))).then_some(label)
}

/// The values of a query parameter, decoded where that is needed; empty ones say nothing.
pub(super) fn in_query<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = std::borrow::Cow<'a, str>> {
    let encoded = memchr::memchr2(b'%', b'+', query.as_bytes()).is_some();
    query.split('&').filter_map(move |pair| match encoded {
        false => pair.strip_prefix(name)?.strip_prefix('=').map(Into::into),
        true => {
            let (key, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            (key == name && pair.contains('=')).then_some(value)
        }
    })
}

/// A version that `Accept` names, and how much it is wanted, in thousandths.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Acceptable<'a> {
    pub version: &'a str,
    pub weight: u16,
}

/// The versions that the values of `Accept` name (RFC 9110 section 12.5.1): `application/json;version=2`, and
/// `application/vnd.acme.v2+json`. What is no media range is passed over, and so is what is not acceptable at all.
pub(super) fn in_accept(value: &HeaderValue) -> impl Iterator<Item = Acceptable<'_>> {
    let text = if may_name(value.as_bytes()) { value.to_str().unwrap_or_default() } else { "" };
    pieces(text, b',').filter_map(|range| {
        let mut parts = pieces(range, b';').map(str::trim);
        let media = parts.next()?;
        let (mut version, mut weight) = (None, 1000);
        for part in parts {
            let Some((name, value)) = part.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("version") => version = Some(value),
                name if name.eq_ignore_ascii_case("q") => weight = thousandths(value),
                _ => {}
            }
        }
        let version = version.or_else(|| in_vendor_type(media)).filter(|version| !version.is_empty())?;
        (weight > 0).then_some(Acceptable { version, weight })
    })
}

/// Whether any version can be in it: a glance that spares most requests the rest.
fn may_name(accept: &[u8]) -> bool {
    let starts = |at: usize, word: &[u8]| {
        accept.get(at..at + word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word))
    };
    memchr::memchr2_iter(b'v', b'V', accept).any(|at| starts(at, b"version") || starts(at, b"vnd."))
}

/// Splits where `at` stands outside of quotes.
fn pieces(text: &str, at: u8) -> impl Iterator<Item = &str> {
    let mut left = Some(text);
    let quotes = memchr::memchr(b'"', text.as_bytes()).is_some();
    std::iter::from_fn(move || {
        let text = left?;
        if !quotes {
            let end = memchr::memchr(at, text.as_bytes());
            left = end.map(|end| &text[end + 1..]);
            return Some(&text[..end.unwrap_or(text.len())]);
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let ends = byte == at && !quoted;
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            ends
        });
        left = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// `qvalue`; what is none counts as 1.
fn thousandths(text: &str) -> u16 {
    let Some(fraction) = text.strip_prefix("0").map(|rest| rest.strip_prefix('.').unwrap_or(rest)) else {
        return 1000;
    };
    let digit =
        |at: usize| fraction.as_bytes().get(at).map_or(0, |byte| u16::from(byte.wrapping_sub(b'0').min(9)));
    digit(0) * 100 + digit(1) * 10 + digit(2)
}

/// `vnd.acme.v2+json`, `vnd.acme.v1.2+json`, `vnd.acme-v2`, `vnd.acme.2026-06-01+json`.
fn in_vendor_type(media: &str) -> Option<&str> {
    let (_, subtype) = media.split_once('/')?;
    let name = subtype.split_once('+').map_or(subtype, |(name, _)| name);
    let name =
        name.get(..4).filter(|start| start.eq_ignore_ascii_case("vnd.")).and_then(|_| name.get(4..))?;
    if let Some(date) =
        name.len().checked_sub(10).and_then(|at| name.get(at..)).filter(|date| Date::parse(date).is_some())
    {
        return Some(date);
    }
    let starts = |at: &usize| matches!(name.as_bytes()[at - 1], b'.' | b'-');
    let starts = (1..name.len()).filter(starts);
    starts.filter_map(|at| name.get(at..)).find_map(numbered)
}

/// The longest version that a text begins with, after a `v`.
fn numbered(text: &str) -> Option<&str> {
    let digits = text.strip_prefix(['v', 'V'])?;
    let length = digits.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let number = text[..=length].trim_end_matches('.');
    let ends = text[number.len()..].bytes().next().is_none_or(|next| matches!(next, b'.' | b'-'));
    (ends && Number::parse(number).is_some()).then_some(number)
}

/// The path without its segment number `at`.
pub fn path_without(path: &str, at: usize) -> String {
    let mut slashes = path.match_indices('/').map(|(slash, _)| slash).skip(at);
    let start = slashes.next().unwrap_or(path.len());
    let end = slashes.next().unwrap_or(path.len());
    let short = format!("{}{}", &path[..start], &path[end..]);
    if short.is_empty() { "/".into() } else { short }
}

/// The path with `name` as its segment number `at`.
pub fn path_with(path: &str, at: usize, name: &str) -> String {
    let start = path.match_indices('/').map(|(slash, _)| slash).nth(at).unwrap_or(path.len());
    let rest = if &path[start..] == "/" && at == 0 { "" } else { &path[start..] };
    format!("{}/{name}{rest}", &path[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Vec<(String, u16)> {
        let value = HeaderValue::from_str(text).unwrap();
        in_accept(&value).map(|found| (found.version.to_owned(), found.weight)).collect()
    }

    #[test]
    fn accept_names_versions_by_parameter_and_by_vendor_type() {
        for (text, found) in [
            ("application/json;version=2", vec![("2", 1000)]),
            ("application/json; Version = \"1.2\" ; q=0.5", vec![("1.2", 500)]),
            ("application/vnd.acme.v2+json", vec![("v2", 1000)]),
            ("application/vnd.acme.v1.2+json;q=0.25", vec![("v1.2", 250)]),
            ("application/vnd.acme-v3", vec![("v3", 1000)]),
            ("application/vnd.github.v3.raw+json", vec![("v3", 1000)]),
            ("application/vnd.acme.2026-06-01+json", vec![("2026-06-01", 1000)]),
            ("application/vnd.acme.v2+json;version=3", vec![("3", 1000)]),
            ("text/html, application/json;version=1;q=0.9, */*;q=0.1", vec![("1", 900)]),
            ("application/json;version=1, application/json;version=2;q=0", vec![("1", 1000)]),
            ("application/json;note=\"a,b;version=9\";version=1", vec![("1", 1000)]),
            ("application/json;note=\"a\\\",b\";version=1", vec![("1", 1000)]),
            ("application/json, text/*", vec![]),
            ("application/vnd.v8engine+json", vec![]),
            ("application/video.v2+json", vec![]),
            ("application/json;version=", vec![]),
            (";;,;version=3", vec![("3", 1000)]),
            ("", vec![]),
        ] {
            let found: Vec<(String, u16)> = found.into_iter().map(|(v, q)| (v.to_owned(), q)).collect();
            assert_eq!(accept(text), found, "{text}");
        }
    }

    #[test]
    fn a_query_parameter_may_be_encoded_and_may_come_twice() {
        let all = |query: &str| in_query(query, "v").map(|value| value.into_owned()).collect::<Vec<_>>();
        assert_eq!(all("a=1&v=2&vv=3"), ["2"]);
        assert_eq!(all("%76=%32&v=3"), ["2", "3"]);
        assert_eq!(all("v"), Vec::<String>::new());
        assert_eq!(all(""), Vec::<String>::new());
    }

    #[test]
    fn a_segment_is_taken_out_and_put_in() {
        for (long, at, name, short) in [
            ("/v2/items/7", 0, "v2", "/items/7"),
            ("/v2", 0, "v2", "/"),
            ("/api/v2/items", 1, "v2", "/api/items"),
            ("/api/v2", 1, "v2", "/api"),
            ("/api/v2/", 1, "v2", "/api/"),
        ] {
            assert_eq!(path_without(long, at), short);
            assert_eq!(path_with(short, at, name), long);
        }
        assert_eq!(path_without("/v2/", 0), "/");
    }
}
