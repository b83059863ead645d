//! What clients send, as far as we read it ourselves, and what of it goes on.

use http::{HeaderName, HeaderValue, Request, header, request};

use crate::{
    config::{model::JsonLimits, units::normal_path},
    observe::trace::{Parent, context},
    policy::json::Checker,
    proxy::{forwarded_elements, strict},
    request as request_parts,
    upstream::http1::{Outgoing, Switch},
};

/// Values of cookies are those between `NAME=` and the next semicolon, whatever stands around; query parameters that are taken
/// out are gone.
pub fn cookies(bytes: &[u8]) {
    let mut headers = http::HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            headers.append(header::COOKIE, line);
        }
    }
    for name in ["a", "sid", "__Host-s"] {
        let found: Vec<&[u8]> = request_parts::cookies(&headers, name).collect();
        let mut expected = Vec::new();
        for pair in
            headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        {
            let pair = pair.trim_ascii();
            if let Some(at) = pair.iter().position(|byte| *byte == b'=')
                && pair.get(..at) == Some(name.as_bytes())
            {
                expected.extend(pair.get(at + 1..));
            }
        }
        assert_eq!(found, expected, "{name}");
        assert_eq!(request_parts::cookie(&headers, name), expected.first().copied());
    }
    let Ok(uri) = http::Uri::try_from(bytes) else { return };
    if let Some(left) = request_parts::without_parameters(&uri, &["a", "sid"]) {
        let query = left.query().unwrap_or_default();
        assert!(
            form_urlencoded::parse(query.as_bytes()).all(|(name, _)| name != "a" && name != "sid"),
            "{left}"
        );
    }
}

/// What is JSON to us is JSON to another reader, however it is cut.
pub fn json(bytes: &[u8]) {
    let mut whole = Checker::new(JsonLimits { depth: 4096, items: None });
    let taken = whole.read(bytes).and_then(|()| whole.end()).is_ok();
    let mut cut = Checker::new(JsonLimits { depth: 4096, items: None });
    let parts = bytes.chunks(1 + bytes.len() % 5).try_for_each(|part| cut.read(part));
    assert_eq!(parts.and_then(|()| cut.end()).is_ok(), taken);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_eq!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), taken, "{text}");
    let mut narrow = Checker::new(JsonLimits { depth: 2, items: Some(3) });
    assert!(narrow.read(bytes).and_then(|()| narrow.end()).is_err() || taken);
}

/// A path has one form, in which no server finds a dot segment.
pub fn path(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    // The `http` crate lets no bare control character through.
    if path.bytes().any(|byte| byte.is_ascii_control()) {
        return;
    }
    let Some(normal) = normal_path(path) else { return };
    assert_eq!(normal_path(&normal).as_deref(), Some(&*normal), "not the same twice");
    let decoded = decode(normal.as_bytes());
    let dots =
        decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| segment == b"." || segment == b"..");
    assert!(!dots && !decoded.contains(&0), "{normal}");
}

fn decode(path: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = path.get(at) {
        let digits = path.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if byte == b'%' => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// What passes for a host is one to the `http` crate too, and has nothing in it that ends a host.
pub fn host(bytes: &[u8]) {
    if strict::valid_host(bytes) {
        assert!(bytes.is_ascii() && !bytes.iter().any(|byte| b"/\\@?#, \t\r\n\"<>;%".contains(byte)));
        let text = std::str::from_utf8(bytes).unwrap_or("");
        // It wants brackets to hold an address.
        let bracketed = text.starts_with('[');
        assert!(bracketed || text.parse::<http::uri::Authority>().is_ok(), "{text}");
    }
}

/// RFC 7239: what is read is what was there.
pub fn forwarded(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for element in forwarded_elements(text).into_iter().flatten() {
        for value in [element.node, element.proto, element.host].into_iter().flatten() {
            assert!(value.len() <= text.len());
        }
    }
}

/// A head that passes the checks is, as it goes on, one that a strict reader takes, with one host and one length.
pub fn head(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return };
    let Some(mut head) = parts(&parsed) else { return };
    let passes = strict::check_host(&mut head)
        .and_then(|()| strict::normalise_path(&mut head))
        .and_then(|()| strict::check_framing(&head, bytes));
    if passes.is_err() {
        return;
    }
    let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    let lengths = head.headers.get_all(header::CONTENT_LENGTH).iter().count();
    assert!(!chunked || lengths == 0, "two lengths");
    assert!(
        !bytes[..length].split(|byte| *byte == b'\n').any(|line| !line.is_empty() && !line.ends_with(b"\r")),
        "a bare line feed"
    );
    strict::name_host(&mut head.headers, "upstream");
    // hyper gives one of equals.
    if lengths < 2 {
        goes_on(head, chunked);
    }
}

fn parts(parsed: &httparse::Request<'_, '_>) -> Option<request::Parts> {
    let version = if parsed.version == Some(1) { http::Version::HTTP_11 } else { http::Version::HTTP_10 };
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

fn goes_on(head: request::Parts, chunked: bool) {
    let (method, target) = (head.method.clone(), head.uri.to_string());
    let outgoing = Outgoing {
        head,
        switch: Switch::No,
        about: b"via: 1.1 gateway\r\n"[..].into(),
        id: HeaderValue::from_static("1"),
        trace: Some(Parent { trace: 1, span: 2, sampled: None }),
    };
    let mut out = Vec::new();
    outgoing.write(chunked, !chunked, &mut out);
    let mut fields = [httparse::EMPTY_HEADER; 120];
    let mut read = httparse::Request::new(&mut fields);
    assert_eq!(
        read.parse(&out),
        Ok(httparse::Status::Complete(out.len())),
        "{}",
        String::from_utf8_lossy(&out)
    );
    assert_eq!((read.method, read.path), (Some(method.as_str()), Some(&*target)));
    let named =
        |name: &str| read.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    assert_eq!(named("host"), 1, "hosts");
    assert!(named("content-length") + named("transfer-encoding") <= 1, "two lengths");
    assert_eq!(named("connection") + named("upgrade") + named("te") + named("keep-alive"), 0, "hop by hop");
}

/// What is taken of a trace's context says the same when it is said on.
pub fn trace_context(bytes: &[u8]) {
    for name in ["traceparent", "b3", "x-b3-traceid"] {
        let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return };
        let mut headers = http::HeaderMap::new();
        headers.insert(name, value);
        headers.insert("x-b3-spanid", http::HeaderValue::from_static("00000000000000cd"));
        if let (Some(parent), manner) = context::parent(&headers) {
            context::say(&mut headers, parent, manner, true);
            let (again, _) = context::parent(&headers);
            assert_eq!(again.map(|again| (again.trace, again.span)), Some((parent.trace, parent.span)));
        }
    }
}
