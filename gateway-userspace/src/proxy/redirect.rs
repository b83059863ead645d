//! What a listener answers before any route is asked: `redirect = "https"`, which sends every request to the same host
//! and path by TLS, and the questions of ACME authorities.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request};

use super::{body::ResponseBody, exchange::Exchange, own, problem};
use crate::observe::Why;

/// `port`: where TLS is.
pub fn to_https(exchange: Exchange, head: &request::Parts, port: u16) -> Response<ResponseBody> {
    let Some(location) = location(head, port) else { return problem::response(exchange, Why::BadRequest) };
    // Only 308 keeps other methods what they are (RFC 9110 section 15.4.9); 301 is what every client knows.
    let status = match head.method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    exchange.answered(status);
    let fields = HeaderMap::from_iter([(header::LOCATION, location)]);
    own::answer(exchange, status, fields, Bytes::new())
}

/// The answer to an ACME authority (RFC 8555 section 8.3).
pub fn prove(exchange: Exchange, proof: &str) -> Response<ResponseBody> {
    exchange.answered(StatusCode::OK);
    let kind = HeaderValue::from_static("application/octet-stream");
    let fields = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    own::answer(exchange, StatusCode::OK, fields, Bytes::copy_from_slice(proof.as_bytes()))
}

/// `None` without a host to send to.
fn location(head: &request::Parts, port: u16) -> Option<HeaderValue> {
    let host = head.headers.get(header::HOST)?.to_str().ok()?;
    let name = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    HeaderValue::from_str(&format!("https://{name}{port}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_path_stay_and_the_port_changes() {
        let to = |host: &str, port| {
            let head = http::Request::get("/a%20b?c=d").header("host", host).body(()).unwrap().into_parts().0;
            location(&head, port).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(to("shop.test:80", 443).as_deref(), Some("https://shop.test/a%20b?c=d"));
        assert_eq!(to("[2001:db8::1]", 8443).as_deref(), Some("https://[2001:db8::1]:8443/a%20b?c=d"));
        assert_eq!(to("[2001:db8::1]:80", 443).as_deref(), Some("https://[2001:db8::1]/a%20b?c=d"));
        let bare = http::Request::get("/").body(()).unwrap().into_parts().0;
        assert_eq!(location(&bare, 443), None);
    }
}
