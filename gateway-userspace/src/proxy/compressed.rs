//! A response's body on its way through an encoder. What the upstream has sent so far is flushed whenever it pauses: an
//! event stream's events are not held back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{
    body::{Cut, ResponseBody},
    exchange::Exchange,
};
use crate::{observe::Why, policy::compress::Encoder};

/// So much is passed on before the upstream pauses.
const ENOUGH: usize = 16 * 1024;

pub struct Compressed {
    inner: ResponseBody,
    /// Taken at the end.
    encoder: Option<Encoder>,
    /// Something was written since the last flush.
    unflushed: bool,
    trailers: Option<Frame<Bytes>>,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

impl Compressed {
    pub fn new(inner: ResponseBody, encoder: Encoder) -> Self {
        Compressed { inner, encoder: Some(encoder), unflushed: false, trailers: None }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(self.trailers.take().map(Ok));
            }
            let polled = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => return self.pause(),
                Poll::Ready(Some(Err(cut))) => return Poll::Ready(Some(Err(cut))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.write(&data),
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        self.finish()
                    }
                },
                Poll::Ready(None) => self.finish(),
            };
            match polled {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => {}
                Err(error) => return self.broken(&error),
            }
        }
    }

    pub fn exchange(&self) -> Option<&Exchange> {
        self.inner.exchange()
    }

    /// Whether nothing more comes.
    pub fn ended(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    fn write(&mut self, data: &[u8]) -> io::Result<Option<Bytes>> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        self.unflushed |= !data.is_empty();
        encoder.write(data)?;
        let enough = encoder.ready() >= ENOUGH;
        let out = enough.then(|| encoder.take());
        self.count(data.len(), out.as_ref().map_or(0, Bytes::len));
        Ok(out)
    }

    /// The upstream has nothing more now. It was polled, so it wakes us.
    fn pause(&mut self) -> Polled {
        if !std::mem::take(&mut self.unflushed) {
            return Poll::Pending;
        }
        let Some(encoder) = &mut self.encoder else { return Poll::Pending };
        if let Err(error) = encoder.flush() {
            return self.broken(&error);
        }
        let out = encoder.take();
        self.count(0, out.len());
        if out.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(out)))) }
    }

    fn finish(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = self.encoder.take() else { return Ok(None) };
        let out = encoder.finish()?;
        self.count(0, out.len());
        Ok((!out.is_empty()).then_some(out))
    }

    /// Only memory can have run out.
    fn broken(&mut self, error: &io::Error) -> Polled {
        tracing::warn!(%error, "cannot compress an answer");
        self.encoder = None;
        self.trailers = None;
        Poll::Ready(Some(Err(Cut(Why::UpstreamReset))))
    }

    /// What the client gets counts, not what came.
    fn count(&self, came: usize, goes: usize) {
        if let Some(exchange) = self.inner.exchange() {
            exchange.replace_bytes_out(came as u64, goes as u64);
        }
    }
}
