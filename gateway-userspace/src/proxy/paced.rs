//! An answer's body that is sent no faster than limits of bytes allow, over all workers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{
    body::{Cut, ResponseBody},
    exchange::Exchange,
};
use crate::limit::Pace;

pub struct Paced {
    inner: ResponseBody,
    paces: Vec<Pace>,
    /// What waits for its turn.
    held: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub fn new(inner: ResponseBody, paces: Vec<Pace>) -> Self {
        Paced { inner, paces, held: None }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.held.is_none() {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            let wait = self.paces.iter().map(|pace| pace.take(bytes)).max().unwrap_or_default();
            if wait == Duration::ZERO {
                return Poll::Ready(Some(Ok(frame)));
            }
            self.held = Some((frame, Box::pin(sleep(wait))));
        }
        if let Some((_, turn)) = &mut self.held {
            ready!(turn.as_mut().poll(cx));
        }
        Poll::Ready(self.held.take().map(|(frame, _)| Ok(frame)))
    }

    pub fn exchange(&self) -> Option<&Exchange> {
        self.inner.exchange()
    }

    pub fn ended(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().and_then(|(frame, _)| frame.data_ref()).map_or(0, Bytes::len) as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}
