//! What of a request's head two readers could take differently, and so is refused: hosts, targets, lengths, line ends.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header, request, uri::PathAndQuery};

use crate::{config::units::normal_path, observe::Why};

/// Exactly one valid `Host` (RFC 9112 section 3.2). An absolute-form target overrides it (section 3.2.2).
pub fn check_host(head: &mut request::Parts) -> Result<(), Why> {
    if head.uri.authority().is_some() {
        make_origin_form(head)?;
    }
    // Section 3.2.4: the asterisk is for OPTIONS only.
    let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let asterisk = head.method == Method::OPTIONS && target == "*";
    if !target.starts_with('/') && !asterisk {
        return Err(Why::BadRequest);
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if valid_host(host.as_bytes()) => Ok(()),
        (None, None) if head.version < http::Version::HTTP_11 => Ok(()),
        _ => Err(Why::BadRequest),
    }
}

fn make_origin_form(head: &mut request::Parts) -> Result<(), Why> {
    if !matches!(head.uri.scheme_str(), Some("http" | "https")) {
        return Err(Why::BadRequest);
    }
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(Why::BadRequest);
    }
    let said = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
    // RFC 9113 section 8.3.1: they must say the same.
    if head.version == http::Version::HTTP_2
        && said.is_some_and(|said| !said.eq_ignore_ascii_case(authority.as_bytes()))
    {
        return Err(Why::BadRequest);
    }
    let host = match said {
        Some(said) if said == authority.as_bytes() => None,
        _ => Some(HeaderValue::from_str(authority).map_err(|_| Why::BadRequest)?),
    };
    // Section 3.2.1: an empty path is sent as "/".
    let path = match head.uri.path_and_query() {
        None => PathAndQuery::from_static("/"),
        Some(query) if query.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", query.as_str())).map_err(|_| Why::BadRequest)?
        }
        Some(path) => path.clone(),
    };
    // The target must still be checked for a second Host, which it does not excuse.
    if head.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Why::BadRequest);
    }
    if let Some(host) = host {
        head.headers.insert(header::HOST, host);
    }
    head.uri = Uri::from(path);
    Ok(())
}

/// Letters, digits, dots, dashes and underscores with an optional port, or a bracketed IPv6 address. What RFC 3986
/// section 3.2.2 allows besides (`%` escapes, sub-delimiters) is no name that is looked up, and is read in many ways.
pub fn valid_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host.ends_with(b"]") => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    let name_fits = match name {
        [b'[', address @ .., b']'] => {
            address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
        }
        _ => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)),
    };
    name_fits
        && !name.is_empty()
        && port.is_none_or(|port| port.len() <= 5 && port.iter().all(u8::is_ascii_digit))
}

/// HTTP/1.0 needs no `Host`, but goes on as HTTP/1.1, which does (RFC 9112 section 3.2): who is asked is then the upstream.
pub fn name_host(headers: &mut HeaderMap, upstream: &str) {
    if !headers.contains_key(header::HOST) {
        let host = HeaderValue::from_str(upstream).ok().filter(|name| valid_host(name.as_bytes()));
        headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("upstream")));
    }
}

/// The path in the one form that routes are matched by and that goes upstream: what two parsers could read differently
/// is refused, and so is what must be escaped in a URI (RFC 3986 section 2), which some do and some refuse.
pub fn normalise_path(head: &mut request::Parts) -> Result<(), Why> {
    if head.uri.path_and_query().is_some_and(|target| !target.as_str().is_ascii()) {
        return Err(Why::BadRequest);
    }
    let normal = normal_path(head.uri.path()).ok_or(Why::BadRequest)?;
    if let Cow::Owned(path) = normal {
        head.uri = with_path(&head.uri, path)?;
    }
    Ok(())
}

/// Another path with the same query.
pub fn with_path(uri: &Uri, mut path: String) -> Result<Uri, Why> {
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let path = PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_| Why::BadRequest)?;
    Ok(Uri::from(path))
}

/// A body's length is told in one way only (RFC 9112 section 6.1 and 6.3). hyper lets Transfer-Encoding override and
/// hides the Content-Length beside it, so the head is looked at as it came. How long that is, with what is before it.
pub fn check_framing(head: &request::Parts, raw: &[u8]) -> Result<usize, Why> {
    let (text, length) = raw_head(raw)?;
    // A target has no fragment (RFC 9112 section 3.2). hyper hides it, and others take it for a part of the path or the host.
    if memchr::memchr2(b'#', b'\n', text).is_some_and(|at| text[at] == b'#') {
        return Err(Why::BadRequest);
    }
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(length) };
    let only_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    let text = text.strip_prefix(head.method.as_str().as_bytes()).ok_or(Why::BadRequest)?;
    let mut names =
        text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').next());
    let has_length = names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"content-length"));
    if only_chunked && !has_length { Ok(length) } else { Err(Why::BadRequest) }
}

/// The head in what came, without empty lines in front, and where what is behind it begins. A bare line feed, which
/// hyper takes for a line's end (RFC 9112 section 2.2 lets it), may be part of a value to whoever passed it on.
fn raw_head(raw: &[u8]) -> Result<(&[u8], usize), Why> {
    let (mut start, mut line) = (0, 0);
    for end in memchr::memchr_iter(b'\n', raw) {
        match raw[line..end] {
            [b'\r'] if line == start => start = end + 1,
            [b'\r'] => return Ok((&raw[start..line], end + 1)),
            [.., b'\r'] => {}
            _ => return Err(Why::BadRequest),
        }
        line = end + 1;
    }
    // It is not known where it came from.
    Err(Why::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(request: http::request::Builder) -> request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_needs_exactly_one_valid_host() {
        let ok = |host: &str| check_host(&mut head(http::Request::get("/").header("host", host))).is_ok();
        assert!(ok("a.example") && ok("a.example:8080") && ok("[2001:db8::1]:80") && ok("10.0.0.1"));
        assert!(
            !ok("")
                && !ok("a b")
                && !ok("a%2fb")
                && !ok("a/b")
                && !ok("a@b")
                && !ok("a:b")
                && !ok("a:123456")
                && !ok("a,b")
        );
        assert!(check_host(&mut head(http::Request::get("/"))).is_err());
        assert!(
            check_host(&mut head(http::Request::get("/").header("host", "a").header("host", "a"))).is_err()
        );
    }

    #[test]
    fn an_absolute_target_overrides_the_host_and_is_sent_in_origin_form() {
        let mut head = head(http::Request::get("http://b.example:81/x?y").header("host", "a"));
        check_host(&mut head).unwrap();
        assert_eq!(head.uri, "/x?y");
        assert_eq!(head.headers["host"], "b.example:81");
        let sent = |target: &str| {
            let mut head = self::head(http::Request::get(target).header("host", "a"));
            check_host(&mut head).map(|()| head.uri.path_and_query().unwrap().to_string())
        };
        assert_eq!(sent("http://b.example").unwrap(), "/");
        assert_eq!(sent("http://b.example?y").unwrap(), "/?y");
    }

    #[test]
    fn a_path_is_normalised_and_its_query_is_left_alone() {
        let mut head = head(http::Request::get("/%7Ea/%2f?b=%7E&c"));
        normalise_path(&mut head).unwrap();
        assert_eq!(head.uri, "/~a/%2F?b=%7E&c");
    }

    #[test]
    fn a_body_has_one_length_only() {
        let chunked = head(http::Request::post("/").header("transfer-encoding", "chunked"));
        let with = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        let ok = |fields: &str| check_framing(&chunked, with(fields).as_bytes()).is_ok();
        assert!(ok("host: a\r\ntransfer-encoding: chunked"));
        assert!(!ok("transfer-encoding: chunked\r\nContent-Length: 4"));
        assert!(!ok("content-length:4\r\ntransfer-encoding: chunked"));
        assert!(check_framing(&chunked, b"").is_err());
        assert!(
            check_framing(&chunked, b"st: a\r\ntransfer-encoding: chunked\r\n\r\n").is_err(),
            "not its beginning"
        );
        let twice = head(http::Request::post("/").header("transfer-encoding", "gzip, chunked"));
        assert!(check_framing(&twice, with("transfer-encoding: gzip, chunked").as_bytes()).is_err());
        assert!(check_framing(&head(http::Request::get("/")), b"").is_err(), "not known");
    }

    #[test]
    fn lines_end_with_both_characters() {
        let get = head(http::Request::get("/"));
        let ok = |raw: &str| check_framing(&get, raw.as_bytes()).is_ok();
        assert!(ok("GET / HTTP/1.1\r\nhost: a\r\n\r\nbody\nof lines\n\n"));
        assert!(ok("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(check_framing(&get, b"\r\nGET / HTTP/1.1\r\n\r\nnext"), Ok(20));
        for raw in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(!ok(raw), "{raw:?}");
        }
    }

    #[test]
    fn targets_are_ascii_and_only_options_asks_for_the_asterisk() {
        let request = |method: Method, target: &str| {
            let mut head = head(http::Request::builder().method(method).uri(target).header("host", "a"));
            check_host(&mut head).and_then(|()| normalise_path(&mut head))
        };
        assert!(request(Method::OPTIONS, "*").is_ok() && request(Method::GET, "*").is_err());
        assert!(request(Method::GET, "/%C3%A9").is_ok());
        assert!(request(Method::GET, "/é").is_err() && request(Method::GET, "/?é").is_err());
    }
}
