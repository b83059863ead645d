//! WebSocket by HTTP/2 (RFC 8441). A client's extended CONNECT is made the GET with `Upgrade` that it is in HTTP/1.1, goes
//! the way of any other, and the upstream's 101 becomes the 200 that opens the stream.

use base64::{Engine, engine::general_purpose::STANDARD};
use h2::ext::Protocol;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request, response};

use crate::request::websocket_accept;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// What is left of an extended CONNECT.
#[derive(Clone)]
pub struct Extended {
    /// Ours, as HTTP/2 has none.
    key: HeaderValue,
}

/// Turns an extended CONNECT for a WebSocket into a request for an upgrade. Any other CONNECT stays what it is, and is
/// refused.
pub fn as_upgrade(request: &mut request::Parts) {
    let websocket = |protocol: &Protocol| protocol.as_str().eq_ignore_ascii_case("websocket");
    if request.method != Method::CONNECT || !request.extensions.get().is_some_and(websocket) {
        return;
    }
    let key = new_key();
    request.method = Method::GET;
    let fields = &mut request.headers;
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, WEBSOCKET);
    fields.insert(header::SEC_WEBSOCKET_KEY, key.clone());
    request.extensions.insert(Extended { key });
}

/// Makes a 101 the 200 that opens a stream.
pub fn opened(head: &mut response::Parts) {
    head.status = StatusCode::OK;
    head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
}

/// Sixteen random bytes, which keep no secret.
fn new_key() -> HeaderValue {
    let random = fastrand::u128(..).to_ne_bytes();
    HeaderValue::try_from(STANDARD.encode(random))
        .unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

impl Extended {
    /// Whether an upstream's 101 is the answer to our key (RFC 6455 section 4.1).
    pub fn accepted(&self, answer: &HeaderMap) -> bool {
        let upgrade = answer.get(header::UPGRADE).map(HeaderValue::as_bytes);
        upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
            && answer
                .get(header::SEC_WEBSOCKET_ACCEPT)
                .is_some_and(|said| said == &*websocket_accept(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_new_each_time() {
        assert_eq!(new_key().len(), 24);
        assert_ne!(new_key(), new_key());
    }
}
