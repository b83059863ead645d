//! A request's body on its way to a stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use crate::{
    proxy::{Cut, RequestBody},
    upstream::http1::may_trail,
};

/// What is kept to be sent again, if the target refuses the stream.
const KEPT: usize = 64 * 1024;

/// Taken from the client as the target's window allows.
#[derive(Default)]
pub struct Sending {
    stream: Option<SendStream<Bytes>>,
    body: Option<RequestBody>,
    /// What was taken of the body; `None`: too much, or with trailers.
    kept: Option<Vec<Bytes>>,
    size: usize,
    ended: bool,
}

impl Sending {
    pub fn begin(&mut self, stream: SendStream<Bytes>, body: RequestBody) {
        self.ended = body.is_empty();
        self.stream = (!self.ended).then_some(stream);
        self.hold(body);
    }

    /// Keeps a body that is not sent.
    pub fn hold(&mut self, body: RequestBody) {
        (self.body, self.kept, self.size) = (Some(body), Some(Vec::new()), 0);
    }

    /// An answer came: the request is not sent again.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// The whole body again.
    pub fn take_body(&mut self) -> Option<RequestBody> {
        let kept = self.kept.take()?;
        let mut body = self.body.take()?;
        if !kept.is_empty() {
            let mut all = BytesMut::with_capacity(self.size);
            kept.iter().for_each(|piece| all.extend_from_slice(piece));
            body.push_back(all.freeze());
        }
        Some(body)
    }

    /// Sends as much as the target's window takes and the body has. A stream that takes no more is no failure: its
    /// answer tells why.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), Cut> {
        while !self.ended {
            match self.poll_frame(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => (self.ended, self.stream) = (true, None),
                Poll::Ready(Err(cut)) => {
                    if let Some(stream) = &mut self.stream {
                        stream.send_reset(Reason::CANCEL);
                    }
                    self.ended = true;
                    return Err(cut);
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// One frame; false: there is no more.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Cut>> {
        let (Some(stream), Some(body)) = (&mut self.stream, &mut self.body) else {
            return Poll::Ready(Ok(false));
        };
        // One byte is enough to take a whole frame: h2 keeps it until there is room for the rest.
        stream.reserve_capacity(1);
        if stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(0)) => return Poll::Ready(Ok(true)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Ok(false)),
            }
        } else if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Ok(false));
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose()?;
        let last = frame.is_none() || body.is_end_stream();
        let sent = match frame.map(Frame::into_data) {
            None => stream.send_data(Bytes::new(), true),
            Some(Ok(data)) => {
                keep(&mut self.kept, &mut self.size, &data);
                stream.send_data(data, last)
            }
            Some(Err(frame)) => {
                self.kept = None;
                let mut trailers = frame.into_trailers().unwrap_or_default();
                let forbidden: Vec<_> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
                forbidden.iter().for_each(|name| drop(trailers.remove(name)));
                // Whether they went or not, nothing comes after them.
                let _ = stream.send_trailers(trailers);
                return Poll::Ready(Ok(false));
            }
        };
        Poll::Ready(Ok(sent.is_ok() && !last))
    }
}

fn keep(kept: &mut Option<Vec<Bytes>>, size: &mut usize, data: &Bytes) {
    *size += data.len();
    match kept {
        Some(pieces) if *size <= KEPT => pieces.push(data.clone()),
        _ => *kept = None,
    }
}
