//! Conditional requests: RFC 9110 section 13, RFC 9111 section 4.3.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::freshness::http_date;

/// What a client's condition comes to with a stored 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    None,
    /// 304.
    NotModified,
    Modified,
}

/// RFC 9110 section 13.2.2, for GET and HEAD. `stored`: the response's fields.
pub fn condition(request: &HeaderMap, stored: &HeaderMap) -> Condition {
    if request.contains_key(header::IF_NONE_MATCH) {
        let tag = stored.get(header::ETAG).map(HeaderValue::as_bytes);
        let hit = request.get_all(header::IF_NONE_MATCH).iter().any(|line| any_tag(line.as_bytes(), tag));
        return if hit { Condition::NotModified } else { Condition::Modified };
    }
    let Some(since) = request.get(header::IF_MODIFIED_SINCE).and_then(|since| http_date(since.as_bytes()))
    else {
        return Condition::None;
    };
    // RFC 9111 section 4.3.2: without Last-Modified, when it was made.
    let made = stored.get(header::LAST_MODIFIED).or_else(|| stored.get(header::DATE));
    match made.and_then(|made| http_date(made.as_bytes())) {
        Some(made) if made <= since => Condition::NotModified,
        Some(_) => Condition::Modified,
        None => Condition::None,
    }
}

/// Whether a list of entity tags has this one, by weak comparison (RFC 9110 section 8.8.3.2).
fn any_tag(list: &[u8], tag: Option<&[u8]>) -> bool {
    super::directives::elements(list)
        .any(|element| element == b"*" || tag.is_some_and(|tag| opaque(element) == opaque(tag)))
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn is_strong(tag: &[u8]) -> bool {
    tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

/// Whether `If-Range` lets a part of the stored response be sent (RFC 9110 section 13.1.5).
pub fn if_range(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(wanted) = request.get(header::IF_RANGE).map(HeaderValue::as_bytes) else { return true };
    if wanted.starts_with(b"\"") || wanted.starts_with(b"W/") {
        return is_strong(wanted) && stored.get(header::ETAG).is_some_and(|tag| tag.as_bytes() == wanted);
    }
    // A date is a strong validator only if it was long past when it was said (RFC 9110 section 8.8.2.2).
    let at = |name: HeaderName| stored.get(name).and_then(|value| http_date(value.as_bytes()));
    let (Some(wanted), Some(modified)) = (http_date(wanted), at(header::LAST_MODIFIED)) else { return false };
    wanted == modified && at(header::DATE).is_some_and(|date| date - modified >= 1000)
}

/// What tags that are made here begin with: no upstream knows them.
const MADE: &str = "\"gw-";

/// A strong tag of a content, and of what else makes a representation (RFC 9110 section 8.8.3).
pub fn made_tag<'a>(headers: &HeaderMap, pieces: impl Iterator<Item = &'a Bytes>) -> HeaderValue {
    let mut hasher = blake3::Hasher::new();
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
        hasher.update(headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default());
        hasher.update(&[0]);
    }
    for piece in pieces {
        hasher.update(piece);
    }
    let hash = hasher.finalize().to_hex();
    let tag = format!("{MADE}{}\"", &hash[..32]);
    HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"gw-\""))
}

/// Whether a request has conditions that only the upstream can judge.
pub fn is_for_upstream(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Takes the client's conditions out, so that an answer is whole and others can have it too; and puts in whether what
/// is stored still holds.
pub fn revalidate(request: &mut HeaderMap, stored: Option<&HeaderMap>) {
    request.remove(header::IF_NONE_MATCH);
    request.remove(header::IF_MODIFIED_SINCE);
    let Some(stored) = stored else { return };
    for (have, ask) in
        [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)]
    {
        if let Some(value) = stored.get(have).filter(|value| !value.as_bytes().starts_with(MADE.as_bytes())) {
            request.insert(ask, value.clone());
        }
    }
}

/// What describes the content itself, which stays the stored one.
const OF_THE_CONTENT: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    HeaderName::from_static("content-md5"),
    header::CONTENT_RANGE,
    header::ETAG,
];

/// RFC 9111 section 3.2: the stored fields, with what a 304 says anew.
pub fn freshen(stored: &HeaderMap, fresh: &HeaderMap) -> HeaderMap {
    let mut merged = stored.clone();
    for name in fresh.keys().filter(|name| !OF_THE_CONTENT.contains(name)) {
        merged.remove(name);
        for value in fresh.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    // An age of before.
    if !fresh.contains_key(header::AGE) {
        merged.remove(header::AGE);
    }
    merged
}

/// Takes out what a 304 does not have (RFC 9110 section 15.4.5).
pub fn keep_of_not_modified(headers: &mut HeaderMap) {
    let gone: Vec<HeaderName> = headers.keys().filter(|name| !of_not_modified(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

fn of_not_modified(name: &HeaderName) -> bool {
    !matches!(
        *name,
        header::CONTENT_ENCODING
            | header::CONTENT_LANGUAGE
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::ACCEPT_RANGES
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[test]
    fn tags_are_compared_weakly_and_stand_above_dates() {
        let stored = headers(&[("etag", "W/\"a\""), ("last-modified", NEW)]);
        let said = |lines| condition(&headers(lines), &stored);
        assert_eq!(said(&[("if-none-match", "\"b\", \"a\"")]), Condition::NotModified);
        assert_eq!(said(&[("if-none-match", "*")]), Condition::NotModified);
        assert_eq!(said(&[("if-none-match", "\"b\""), ("if-modified-since", NEW)]), Condition::Modified);
        assert_eq!(said(&[("if-modified-since", NEW)]), Condition::NotModified);
        assert_eq!(said(&[("if-modified-since", OLD)]), Condition::Modified);
        assert_eq!(said(&[("if-modified-since", "yesterday")]), Condition::None);
    }

    #[test]
    fn a_part_is_sent_only_of_what_the_client_has_a_part_of() {
        let stored = headers(&[("etag", "\"a\""), ("last-modified", OLD), ("date", NEW)]);
        let sends = |value| if_range(&headers(&[("if-range", value)]), &stored);
        assert!(sends("\"a\"") && sends(OLD));
        assert!(!sends("W/\"a\"") && !sends("\"b\"") && !sends(NEW) && !sends("a"));
        let weak = headers(&[("etag", "W/\"a\"")]);
        assert!(!if_range(&headers(&[("if-range", "W/\"a\"")]), &weak));
    }

    #[test]
    fn a_304_changes_what_it_names_but_for_what_tells_of_the_content() {
        let stored =
            headers(&[("etag", "\"a\""), ("content-length", "5"), ("x", "1"), ("y", "1"), ("age", "9")]);
        let fresh = headers(&[("etag", "\"b\""), ("content-length", "0"), ("x", "2")]);
        let merged = freshen(&stored, &fresh);
        assert_eq!(merged, headers(&[("etag", "\"a\""), ("content-length", "5"), ("x", "2"), ("y", "1")]));
    }
}
