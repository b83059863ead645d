//! WebSocket by HTTP/2 (RFC 8441). A client's extended CONNECT is made the GET with `Upgrade` that it is in HTTP/1.1, goes
//! the way of any other, and the upstream's 101 becomes the 200 that opens the stream.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{
    body::ResponseBody,
    connection::ClientState,
    tunnel::{self, Tunnel},
};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// What is left of an extended CONNECT.
#[derive(Clone)]
pub struct Extended {
    stream: OnUpgrade,
    /// Ours, as HTTP/2 has none.
    key: HeaderValue,
}

/// Turns an extended CONNECT for a WebSocket into a request for an upgrade. Any other CONNECT stays what it is, and is
/// refused.
pub fn as_upgrade(request: &mut Request<Incoming>) {
    let websocket = |protocol: &Protocol| protocol.as_str().eq_ignore_ascii_case("websocket");
    if request.method() != Method::CONNECT || !request.extensions().get().is_some_and(websocket) {
        return;
    }
    let stream = hyper::upgrade::on(&mut *request);
    let key = new_key();
    *request.method_mut() = Method::GET;
    let fields = request.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, WEBSOCKET);
    fields.insert(header::SEC_WEBSOCKET_KEY, key.clone());
    request.extensions_mut().insert(Extended { stream, key });
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
            && answer.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|said| said == &*accept(&self.key))
    }

    /// Opens the stream to the client, and carries bytes until one side is done. `head`: the 101's, fit for a client.
    pub fn open(self, head: Response<()>, tunnel: Tunnel, state: &ClientState) -> Response<ResponseBody> {
        state.tunnelled.set(true);
        let stream = self.stream;
        tokio::task::spawn_local(async move {
            // An error is the client's end, and the tunnel's.
            if let Ok(client) = stream.await {
                tunnel::run(tunnel, TokioIo::new(client), Bytes::new()).await;
            }
        });
        let mut response = head.map(|()| ResponseBody::Nothing);
        *response.status_mut() = StatusCode::OK;
        for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
            response.headers_mut().remove(name);
        }
        response
    }
}

fn accept(key: &HeaderValue) -> String {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_as_rfc_6455_says() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(new_key().len(), 24);
        assert_ne!(new_key(), new_key());
    }
}
