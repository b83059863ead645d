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
    /// The next frame's turn.
    turn: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub fn new(inner: ResponseBody, paces: Vec<Pace>) -> Self {
        Paced { inner, paces, turn: None }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(turn) = &mut self.turn {
            ready!(turn.as_mut().poll(cx));
            self.turn = None;
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let wait = self.paces.iter().map(|pace| pace.take(data.len() as u64)).max().unwrap_or_default();
            // At its end a body is over: nobody waits for nothing.
            if wait > Duration::ZERO && !self.inner.is_end_stream() {
                self.turn = Some(Box::pin(sleep(wait)));
            }
        }
        polled
    }

    pub fn exchange(&self) -> Option<&Exchange> {
        self.inner.exchange()
    }

    pub fn ended(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
