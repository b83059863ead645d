//! gRPC-Web (github.com/grpc/grpc: doc/PROTOCOL-WEB.md), translated for an upstream that speaks gRPC: the trailers go at the
//! end of the body, and with `-text` all of it is in base64.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame};

use super::{
    body::{Cut, RequestBody, ResponseBody},
    client_body::ClientBody,
    exchange::Exchange,
    grpc,
};
use crate::{
    observe::Why,
    upstream::http1::{self, Outgoing, Switch},
};

/// The first byte of what holds trailers.
const TRAILERS: u8 = 0x80;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Web {
    /// The content type of its answers.
    kind: HeaderValue,
    /// The content type that the upstream gets.
    inner: HeaderValue,
    text: bool,
}

impl Web {
    /// `None`: it is not gRPC-Web.
    pub fn of(headers: &HeaderMap) -> Option<Web> {
        let kind = headers.get(header::CONTENT_TYPE)?;
        let rest = kind.as_bytes().strip_prefix(b"application/grpc-web")?;
        let (text, rest) = rest.strip_prefix(b"-text").map_or((false, rest), |rest| (true, rest));
        if !matches!(rest.first(), None | Some(b'+' | b';')) {
            return None;
        }
        let inner = HeaderValue::from_bytes(&[b"application/grpc", rest].concat()).ok()?;
        Some(Web { kind: kind.clone(), inner, text })
    }

    pub fn kind(&self) -> HeaderValue {
        self.kind.clone()
    }

    /// Makes a call of the request.
    pub fn translate(&self, request: &mut Outgoing, body: RequestBody) -> RequestBody {
        request.head.headers.insert(header::CONTENT_TYPE, self.inner.clone());
        request.switch = Switch::Trailers;
        if !self.text {
            return body;
        }
        request.head.headers.remove(header::CONTENT_LENGTH);
        body.decoded()
    }

    /// Makes an answer for the client out of the upstream's, if that is one to a call.
    pub fn answer(self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        let (mut head, body) = response.into_parts();
        if !grpc::is_call(&head.headers) {
            return Response::from_parts(head, body);
        }
        head.headers.insert(header::CONTENT_TYPE, self.kind);
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::TRAILER);
        let body = match body.is_end_stream() {
            // The head says it all.
            true => body,
            false => ResponseBody::Encoded(Box::new(Encoded { inner: body, text: self.text })),
        };
        Response::from_parts(head, body)
    }
}

/// An answer's body with its trailers in it.
pub struct Encoded {
    inner: ResponseBody,
    text: bool,
}

impl Encoded {
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let (came, data) = match frame.into_data() {
            Ok(data) => (data.len(), data),
            Err(frame) => (0, in_body(&frame.into_trailers().unwrap_or_default())),
        };
        let goes = if self.text { Bytes::from(STANDARD.encode(&data)) } else { data };
        if let Some(exchange) = self.exchange() {
            exchange.replace_bytes_out(came as u64, goes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(goes))))
    }

    pub fn exchange(&self) -> Option<&Exchange> {
        self.inner.exchange()
    }

    pub fn ended(&self) -> bool {
        self.inner.is_end_stream()
    }
}

fn in_body(trailers: &HeaderMap) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        http1::field(&mut lines, name.as_str(), value.as_bytes());
    }
    let mut all = BytesMut::with_capacity(5 + lines.len());
    all.put_u8(TRAILERS);
    all.put_u32(lines.len().try_into().unwrap_or(u32::MAX));
    all.put_slice(&lines);
    all.freeze()
}

/// A request's body out of base64, which may be padded wherever the client flushed it.
pub struct Decoded {
    inner: ClientBody,
    base64: Base64,
    again: Option<Bytes>,
    ended: bool,
}

impl Decoded {
    pub fn new(inner: ClientBody) -> Self {
        Decoded { inner, base64: Base64::default(), again: None, ended: false }
    }

    pub fn push_back(&mut self, data: Bytes) {
        self.again = Some(data);
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(data) = self.again.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        loop {
            let frame = match ready!(self.inner.poll_frame(cx)).transpose() {
                Ok(frame) => frame,
                Err(cut) => return Poll::Ready(Some(Err(cut))),
            };
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => match self.base64.decode(&data) {
                    Some(decoded) if decoded.is_empty() => {}
                    Some(decoded) => return Poll::Ready(Some(Ok(Frame::data(decoded)))),
                    None => return Poll::Ready(Some(Err(self.inner.cut(Why::BadRequest)))),
                },
                // gRPC-Web has none in requests.
                Some(Err(_)) => {}
                None if self.base64.whole() => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(Some(Err(self.inner.cut(Why::BadRequest)))),
            }
        }
    }

    /// What is left over may still be an error, so only the end itself says so.
    pub fn is_end_stream(&self) -> bool {
        self.ended && self.again.is_none()
    }
}

/// Base64 that comes in pieces.
#[derive(Debug, Default)]
struct Base64 {
    /// Up to three letters that are no whole group yet.
    rest: Vec<u8>,
}

impl Base64 {
    fn whole(&self) -> bool {
        self.rest.is_empty()
    }

    /// `None`: that is not base64.
    fn decode(&mut self, letters: &[u8]) -> Option<Bytes> {
        self.rest.extend_from_slice(letters);
        let whole = self.rest.len() / 4 * 4;
        let mut decoded = Vec::with_capacity(whole / 4 * 3);
        let mut groups = &self.rest[..whole];
        while !groups.is_empty() {
            // Up to the end of a padded group.
            let end = groups.chunks(4).position(|group| group.ends_with(b"="));
            let (run, left) = groups.split_at(end.map_or(groups.len(), |at| at * 4 + 4));
            STANDARD.decode_vec(run, &mut decoded).ok()?;
            groups = left;
        }
        self.rest.drain(..whole);
        Some(decoded.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let of = |kind: &str| {
            let kind = HeaderValue::from_str(kind).unwrap();
            let web = Web::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]))?;
            Some((web.inner.to_str().unwrap().to_owned(), web.text))
        };
        assert_eq!(of("application/grpc-web"), Some(("application/grpc".into(), false)));
        assert_eq!(of("application/grpc-web+proto"), Some(("application/grpc+proto".into(), false)));
        assert_eq!(of("application/grpc-web-text+proto"), Some(("application/grpc+proto".into(), true)));
        assert_eq!(of("application/grpc-web-text;x=y"), Some(("application/grpc;x=y".into(), true)));
        for other in
            ["application/grpc", "application/grpc-website", "application/grpc-web-texts", "text/plain"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn trailers_are_lines_behind_a_mark_and_a_length() {
        let trailers = HeaderMap::from_iter([
            (grpc::GRPC_STATUS, HeaderValue::from_static("0")),
            (header::ETAG, HeaderValue::from_static("x")),
        ]);
        assert_eq!(&in_body(&trailers)[..], b"\x80\0\0\0\x19grpc-status: 0\r\netag: x\r\n");
    }

    #[test]
    fn what_is_not_base64_is_told() {
        for wrong in ["====", "a===", "ab=c", "a b=", "\0\0\0\0"] {
            assert_eq!(Base64::default().decode(wrong.as_bytes()), None, "{wrong}");
        }
        let mut half = Base64::default();
        assert!(half.decode(b"YQ").is_some_and(|data| data.is_empty()) && !half.whole());
    }

    proptest! {
        #[test]
        fn pieces_with_padding_anywhere_are_decoded(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6),
            cut in 1usize..9,
        ) {
            let text: String = pieces.iter().map(|piece| STANDARD.encode(piece)).collect();
            let mut base64 = Base64::default();
            let mut all = Vec::new();
            for letters in text.as_bytes().chunks(cut) {
                all.extend_from_slice(&base64.decode(letters).unwrap());
            }
            prop_assert!(base64.whole());
            prop_assert_eq!(all, pieces.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Base64::default().decode(&bytes);
        }
    }
}
