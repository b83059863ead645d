//! Heads on their way between HTTP/1.1's form and HTTP/2's (RFC 9113 section 8.2 and 8.3).

use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri,
};

use crate::{
    hpack,
    request::websocket_accept,
    upstream::http1::{Framing, Head, Malformed, Outgoing, Switch, ends_here},
};

/// The request as it goes to a target of that address. `None`: its host is no authority.
pub fn request(outgoing: &Outgoing, scheme: &'static str, address: &str) -> Option<Request<()>> {
    let Outgoing { head, switch, about, id, trace } = outgoing;
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let path = head.uri.path_and_query().cloned().unwrap_or(uri::PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(scheme).authority(host.unwrap_or(address)).path_and_query(path).build();
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri.ok()?;
    let fields = request.headers_mut();
    fields.reserve(head.headers.len() + 8);
    for (name, value) in &head.headers {
        if !ends_here(name) && *name != header::HOST {
            fields.append(name, value.clone());
        }
    }
    if *switch == Switch::Trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    for (name, value) in lines(about) {
        fields.append(name, value);
    }
    fields.insert(HeaderName::from_static("x-request-id"), id.clone());
    if let Some(trace) = trace {
        trace.put(fields);
    }
    hpack::spare_table(fields);
    Some(request)
}

/// As [`request`], for a WebSocket: an extended CONNECT (RFC 8441 section 5). Also the answer to the key, which HTTP/2 does
/// not have. `None`: without a key it is none.
pub fn websocket(
    outgoing: &Outgoing,
    scheme: &'static str,
    address: &str,
) -> Option<(Request<()>, HeaderValue)> {
    let mut request = request(outgoing, scheme, address)?;
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let key = request.headers_mut().remove(header::SEC_WEBSOCKET_KEY)?;
    Some((request, HeaderValue::try_from(websocket_accept(&key)).ok()?))
}

/// A stream that is open: what a 101 says in HTTP/1.1.
pub fn opened(head: &mut Head, accept: HeaderValue) {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
}

/// The fields that are kept as lines for HTTP/1.1.
fn lines(about: &[u8]) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    about.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    })
}

/// An answer's head, or an interim one's. h2 has refused what is of HTTP/1.1 only, and bad lengths.
pub fn answer<T>(response: Response<T>) -> Result<(Head, T), Malformed> {
    let (parts, body) = response.into_parts();
    // RFC 9113 section 8.6.
    if parts.status == StatusCode::SWITCHING_PROTOCOLS || lengths(&parts.headers) > 1 {
        return Err(Malformed);
    }
    let Version::HTTP_2 = parts.version else { return Err(Malformed) };
    let head = Head {
        status: parts.status,
        headers: parts.headers,
        framing: Framing::UntilClose,
        keep_alive: true,
        http2: true,
    };
    Ok((head, body))
}

fn lengths(headers: &HeaderMap) -> usize {
    headers.get_all(header::CONTENT_LENGTH).iter().count()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn sent(request: http::request::Builder, switch: Switch) -> Request<()> {
        let outgoing = Outgoing {
            head: request.body(()).unwrap().into_parts().0,
            switch,
            about: Rc::from(&b"forwarded: for=\"[::1]\"\r\nvia: 1.1 gateway\r\n"[..]),
            id: HeaderValue::from_static("7"),
            trace: None,
        };
        super::request(&outgoing, "http", "10.0.0.1:80").unwrap()
    }

    #[test]
    fn a_request_is_translated_and_what_is_of_http_1_1_only_ends_here() {
        let request = Request::post("/a?b")
            .header("host", "shop.test:81")
            .header("connection", "close, x-a")
            .header("keep-alive", "1")
            .header("proxy-connection", "1")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c")
            .header("te", "trailers, gzip")
            .header("expect", "100-continue")
            .header("x-request-id", "forged")
            .header("via", "1.0 other")
            .header("cookie", "a=1; b=2");
        let sent = sent(request, Switch::Trailers);
        assert_eq!(sent.uri(), "http://shop.test:81/a?b");
        let fields: Vec<String> = sent
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let mut wanted = [
            "via: 1.0 other",
            "via: 1.1 gateway",
            "cookie: a=1; b=2",
            "te: trailers",
            "forwarded: for=\"[::1]\"",
            "x-request-id: 7",
        ];
        let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        fields.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(fields, wanted);
    }

    #[test]
    fn a_websocket_is_opened_by_an_extended_connect() {
        let outgoing = |key: Option<&str>| {
            let fields = [
                ("host", "a"),
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
            ];
            let mut request = Request::get("/ws?a");
            for (name, value) in fields.into_iter().chain(key.map(|key| ("sec-websocket-key", key))) {
                request = request.header(name, value);
            }
            let switch = Switch::Upgrade(HeaderValue::from_static("websocket"));
            let head = request.body(()).unwrap().into_parts().0;
            let (about, id) = (Rc::from(&b""[..]), HeaderValue::from_static("7"));
            Outgoing { head, switch, about, id, trace: None }
        };
        let (request, accept) =
            websocket(&outgoing(Some("dGhlIHNhbXBsZSBub25jZQ==")), "https", "10.0.0.1:80").unwrap();
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            (request.method(), request.uri().to_string().as_str()),
            (&Method::CONNECT, "https://a/ws?a")
        );
        let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["sec-websocket-version", "x-request-id"]);
        assert!(websocket(&outgoing(None), "https", "10.0.0.1:80").is_none());
    }

    #[test]
    fn without_a_host_the_address_is_asked_for() {
        let sent = sent(Request::get("*").method("OPTIONS"), Switch::No);
        assert_eq!((sent.uri().authority().unwrap().as_str(), sent.uri().path()), ("10.0.0.1:80", "*"));
    }

    #[test]
    fn answers_have_one_length_and_are_no_switch() {
        let answer = |status: u16, lengths: &[&str]| {
            let mut response = Response::builder().status(status).version(Version::HTTP_2);
            for length in lengths {
                response = response.header("content-length", *length);
            }
            super::answer(response.body(()).unwrap()).is_ok()
        };
        assert!(answer(200, &["1"]) && answer(204, &[]));
        assert!(!answer(101, &[]) && !answer(200, &["1", "1"]));
    }
}
