//! Checks by grpc.health.v1 (github.com/grpc/grpc: doc/health-checking.md).

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};

use super::{AGENT, Probed, http2};
use crate::{config::model::UpstreamProtocol, upstream::link::dial};

/// Whether a service is SERVING; `Err` says why it is not taken to be.
pub async fn serves(target: &Probed<'_>, service: &str) -> Result<(), String> {
    let (raw, _) = dial(target.addr, target.header, target.tls, UpstreamProtocol::Http2)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let asked = async {
        let request = Request::post(http2::uri(target, "/grpc.health.v1.Health/Check")?)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, AGENT)
            .body(())?;
        http2::ask(raw, request, Some(question(service))).await
    };
    let answer = asked.await.map_err(|error| format!("bad answer: {error}"))?;
    match state(&answer.body) {
        _ if answer.head.status() != 200 => Err(format!("status {}", answer.head.status().as_u16())),
        Some(1) => Ok(()),
        Some(2) => Err("NOT_SERVING".into()),
        Some(other) => Err(format!("serving status {other}")),
        None => Err(failure(answer.head.headers(), &answer.trailers)),
    }
}

/// `HealthCheckRequest { service }` as a message.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        // A varint; names have at most 200 bytes.
        if service.len() >= 0x80 {
            message.put_u8((service.len() & 0x7f) as u8 | 0x80);
            message.put_u8((service.len() >> 7) as u8);
        } else {
            message.put_u8(service.len() as u8);
        }
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse.status`, one byte of a message that is not compressed. Left out it is 0.
fn state(body: &[u8]) -> Option<u8> {
    let (head, message) = body.split_at_checked(5)?;
    match (head, message) {
        ([0, 0, 0, 0, 0], _) => Some(0),
        ([0, 0, 0, 0, length], [0x08, state, ..]) if *length >= 2 && *state < 0x80 => Some(*state),
        _ => None,
    }
}

/// What the call's own end says.
fn failure(head: &HeaderMap, trailers: &HeaderMap) -> String {
    let status = head.get("grpc-status").or(trailers.get("grpc-status"));
    match status.and_then(|status| status.to_str().ok()) {
        Some("5") => "it does not know the service".into(),
        Some("12") => "it has no grpc.health.v1.Health".into(),
        Some(status) => format!("grpc-status {status}"),
        None => "bad answer: no message".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_as_protobuf_writes_them() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "x".repeat(200);
        assert_eq!(&question(&long)[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(state(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(state(b"\0\0\0\0\0"), Some(0));
        let compressed = b"\x01\0\0\0\x02\x08\x01";
        for wrong in [&b""[..], b"\0\0\0\0", compressed, b"\0\0\0\0\x02\x08", b"\0\0\0\0\x02\x10\x01"] {
            assert_eq!(state(wrong), None, "{wrong:?}");
        }
    }
}
