//! A request's body as it comes off a client's connection, whatever that speaks.

use std::{
    error::Error,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use super::connection::ClientState;

pub enum Incoming {
    /// There is none.
    None,
    Http1(hyper::body::Incoming),
    Http2(Box<Stream>),
}

/// Why a body ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The client went away, or took its request back.
    Gone,
    /// It is not what its framing says.
    Malformed,
}

/// A body that comes on a stream of an HTTP/2 connection.
pub struct Stream {
    frames: RecvStream,
    /// Bytes to come, where the head says so. h2 sees to it that it is true.
    left: Option<u64>,
    /// Whose client waits for a 100 (RFC 9110 section 10.1.1).
    asks: Option<Rc<ClientState>>,
}

impl Incoming {
    /// Of a stream that began with this head.
    pub fn of_stream(frames: RecvStream, head: &HeaderMap, state: &Rc<ClientState>) -> Self {
        if frames.is_end_stream() {
            return Incoming::None;
        }
        let length = head.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let asks = |expect: &HeaderValue| expect.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let asks = head.get(header::EXPECT).is_some_and(asks).then(|| state.clone());
        Incoming::Http2(Box::new(Stream { frames, left: length, asks }))
    }
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let data = self.frames.poll_data(cx);
        if let Some(state) = self.asks.take()
            && data.is_pending()
        {
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            state.interim.borrow_mut().push(go_on);
        }
        match ready!(data) {
            Some(Ok(data)) => {
                // The client may send as much again. An error is one of the connection, which tells itself.
                let _ = self.frames.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(broken(&error)))),
            None => {
                let trailers = ready!(self.frames.poll_trailers(cx)).map_err(|error| broken(&error));
                Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
            }
        }
    }
}

/// What h2 found out by itself is what the client should not have sent.
fn broken(error: &h2::Error) -> Broken {
    if error.is_library() { Broken::Malformed } else { Broken::Gone }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Incoming::None => Poll::Ready(None),
            Incoming::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| broken_http1(&error))))
            }
            Incoming::Http2(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Incoming::None => true,
            Incoming::Http1(body) => body.is_end_stream(),
            Incoming::Http2(stream) => stream.frames.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Incoming::None => SizeHint::with_exact(0),
            Incoming::Http1(body) => body.size_hint(),
            Incoming::Http2(stream) => stream.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// Only what hyper finds wrong with the framing is an error of these kinds; any other is one of the socket, or its end.
fn broken_http1(error: &hyper::Error) -> Broken {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Broken::Malformed,
        _ => Broken::Gone,
    }
}
