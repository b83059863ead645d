//! What a gateway has to know of gRPC: its answers in place of an upstream are gRPC statuses, and a call's deadline is
//! its limit.
//!
//! github.com/grpc/grpc: doc/PROTOCOL-HTTP2.md, doc/http-grpc-status-mapping.md.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{body::ResponseBody, exchange::Exchange, own};
use crate::observe::Why;

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether these are a call's fields; or an answer's.
pub fn is_call(headers: &HeaderMap) -> bool {
    let rest = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// `grpc-timeout`: up to eight digits and a unit. What is something else is no limit.
pub fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(GRPC_TIMEOUT)?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// The status of a call that did not get an upstream's answer: DEADLINE_EXCEEDED, or what the HTTP status means.
fn status(why: Why) -> &'static str {
    match (why, why.status().as_u16()) {
        (Why::UpstreamTotalTimeout, _) => "4",
        (Why::Limited, _) => "8",
        (_, 400) => "13",
        (_, 401) => "16",
        (_, 403) => "7",
        (_, 404) => "12",
        (_, 429 | 502 | 503 | 504) => "14",
        _ => "2",
    }
}

/// What ends a call: as trailers, or as the head of an answer without a body.
pub fn end(why: Why) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(GRPC_STATUS, HeaderValue::from_static(status(why)));
    // Printable ASCII without a percent sign, which is as it must be.
    fields.insert(GRPC_MESSAGE, HeaderValue::from_static(why.title()));
    fields
}

/// Answers a call in place of an upstream. `kind`: the content type of its answers.
pub fn refuse(exchange: Exchange, why: Why, kind: HeaderValue) -> Response<ResponseBody> {
    exchange.refuse_with(why, StatusCode::OK);
    let mut fields = end(why);
    fields.insert(header::CONTENT_TYPE, kind);
    own::answer(exchange, StatusCode::OK, fields, Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn calls_are_told_by_their_content_type() {
        for (kind, call) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            assert_eq!(is_call(&with(header::CONTENT_TYPE, kind)), call, "{kind}");
        }
    }

    #[test]
    fn deadlines_are_digits_and_a_unit() {
        let of = |text| deadline(&with(GRPC_TIMEOUT, text));
        assert_eq!(of("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(of("2M"), Some(Duration::from_secs(120)));
        assert_eq!(of("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("7n"), Some(Duration::from_nanos(7)));
        for wrong in ["", "S", "1", "-1S", "1.5S", "100000000S", "1s", "1 S"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_reason_has_a_status_and_a_message_that_needs_no_escape() {
        for why in Why::ALL {
            assert!(why.title().bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'%'), "{why:?}");
        }
        for (why, code) in [
            (Why::UpstreamTotalTimeout, "4"),
            (Why::UpstreamFirstByteTimeout, "14"),
            (Why::NoHealthyTarget, "14"),
            (Why::NoRoute, "12"),
            (Why::BadRequest, "13"),
            (Why::BodyTooLarge, "2"),
        ] {
            assert_eq!(end(why)[GRPC_STATUS], code);
        }
    }
}
