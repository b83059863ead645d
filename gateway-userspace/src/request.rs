//! Parts of requests that more than one module looks at: cookies, query parameters, media types, keys of WebSockets.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};

/// The values of a cookie (RFC 6265 section 4.2.1), in their order.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The first of that name.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    cookies(headers, name).next()
}

/// The answer to a `Sec-WebSocket-Key` (RFC 6455 section 1.3).
pub fn websocket_accept(key: &HeaderValue) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat()))
}

/// The first query parameter of that name, both as they are written.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Takes out what is written as one of these names but for `_` in place of `-`: to those who hand fields on as variables
/// (RFC 3875 section 4.1.18) it is the same.
pub fn remove_twins<'a>(headers: &mut HeaderMap, names: impl Iterator<Item = &'a HeaderName> + Clone) {
    let odd = |name: &&HeaderName| name.as_str().contains('_');
    let is_twin = |odd: &HeaderName| {
        let alike = |(a, b): (u8, u8)| a == b || a == b'_' && b == b'-';
        let mut names = names.clone().map(HeaderName::as_str).filter(|name| name.len() == odd.as_str().len());
        names.any(|name| name != odd.as_str() && odd.as_str().bytes().zip(name.bytes()).all(alike))
    };
    let twins: Vec<HeaderName> = headers.keys().filter(odd).filter(|odd| is_twin(odd)).cloned().collect();
    twins.iter().for_each(|name| drop(headers.remove(name)));
}

/// A host's name, or its address without brackets, and the port if there is one.
pub fn named_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
            (host.trim_matches(['[', ']']), port.parse().ok())
        }
        _ => (authority.trim_matches(['[', ']']), None),
    }
}

/// The target without the query parameters of these names, as an application decodes them. `None`: it has none of them.
pub fn without_parameters<T: AsRef<str>>(uri: &Uri, names: &[T]) -> Option<PathAndQuery> {
    let query = uri.query().filter(|_| !names.is_empty())?;
    let is_one = |pair: &&str| {
        let decoded = form_urlencoded::parse(pair.as_bytes()).next();
        decoded.is_some_and(|(key, _)| names.iter().any(|name| name.as_ref() == key))
    };
    if !query.split('&').any(|pair| is_one(&pair)) {
        return None;
    }
    let left: Vec<&str> = query.split('&').filter(|pair| !is_one(pair)).collect();
    let target = match left.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), left.join("&")),
    };
    // A part of what was one is one.
    PathAndQuery::try_from(target).ok()
}

/// The media type of a `Content-Type`, without its parameters and in lower case.
pub fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `wanted`: "text/html", "text/*" or "*+json", in lower case.
pub fn is_of_type(media_type: &str, wanted: &str) -> bool {
    match (wanted.strip_suffix("/*"), wanted.strip_prefix("*+")) {
        (Some(kind), _) => media_type.split_once('/').is_some_and(|(found, _)| found == kind),
        (_, Some(suffix)) => media_type.rsplit_once('+').is_some_and(|(_, found)| found == suffix),
        _ => media_type == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_of_a_name_are_taken_out_and_nothing_else() {
        let names = ["x-user-id", "x_own"].map(HeaderName::from_static);
        let all = ["x_user_id", "x-user_id", "x-user-id", "x_user-id2", "x_own", "x-own", "user_id"];
        let mut headers: HeaderMap =
            all.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        remove_twins(&mut headers, names.iter());
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["user_id", "x-own", "x-user-id", "x_own", "x_user-id2"]);
    }

    #[test]
    fn a_port_is_told_from_a_name_and_from_an_address() {
        for (authority, told) in [
            ("a.test:8443", ("a.test", Some(8443))),
            ("a.test", ("a.test", None)),
            ("[::1]:80", ("::1", Some(80))),
            ("[2001:db8::1]", ("2001:db8::1", None)),
            ("192.0.2.1:99999", ("192.0.2.1", None)),
            ("", ("", None)),
        ] {
            assert_eq!(named_port(authority), told, "{authority}");
        }
    }

    #[test]
    fn keys_of_websockets_are_answered_as_rfc_6455_says() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(websocket_accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn cookies_are_found_by_their_whole_name_in_any_line() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("aa=0; a=1 ;b"));
        headers.append(header::COOKIE, HeaderValue::from_static(" a=; a=x=y"));
        let found: Vec<&[u8]> = cookies(&headers, "a").collect();
        assert_eq!(found, [&b"1"[..], b"", b"x=y"]);
        assert_eq!((cookie(&headers, "a"), cookie(&headers, "b")), (Some(&b"1"[..]), None));
    }

    #[test]
    fn parameters_go_by_the_name_that_an_application_sees() {
        let without = |uri: &str| without_parameters(&uri.parse().unwrap(), &["v", "key"]);
        let text = |uri: &str| without(uri).map(|target| target.to_string());
        assert_eq!(text("/a?x=1&%6Bey=2&y&v"), Some("/a?x=1&y".into()));
        assert_eq!(text("/a?v=2"), Some("/a".into()));
        assert_eq!(text("/a?x=1&v=2&y=%20&%76=3"), Some("/a?x=1&y=%20".into()));
        assert_eq!((text("/a?x=1&&vv=2"), text("/a?x=1"), text("/a")), (None, None, None));
        assert_eq!((parameter("vv=1&v=2", "v"), parameter("%76=1", "v")), (Some("2"), None));
    }

    #[test]
    fn media_types_are_compared_whole_by_kind_or_by_suffix() {
        assert_eq!(media_type(" Text/HTML ; charset=utf-8"), "text/html");
        for (wanted, is) in
            [("application/*", true), ("*+json", true), ("application/json", false), ("app/*", false)]
        {
            assert_eq!(is_of_type("application/problem+json", wanted), is, "{wanted}");
        }
    }
}
