//! A request's body as it comes from the client.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    body::Cut,
    connection::ClientState,
    incoming::{Broken, Incoming},
    shadow::Kept,
    timer::Wait,
};
use crate::observe::Why;

/// Larger bodies are not sent twice.
const MAX_COPY: usize = 64 * 1024;

/// A copy of a body, made while it is sent.
#[derive(Debug, Default)]
pub struct Copied {
    bytes: RefCell<Vec<u8>>,
    state: Cell<CopyState>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CopyState {
    #[default]
    Partial,
    Whole,
    /// Too large, or with trailers.
    Lost,
}

impl Copied {
    /// The body, if all of it came and fitted.
    pub fn whole(&self) -> Option<Bytes> {
        (self.state.get() == CopyState::Whole).then(|| Bytes::copy_from_slice(&self.bytes.borrow()))
    }

    fn add(&self, frame: &Frame<Bytes>) {
        let mut bytes = self.bytes.borrow_mut();
        match frame.data_ref() {
            Some(data) if self.state.get() == CopyState::Partial && bytes.len() + data.len() <= MAX_COPY => {
                bytes.extend_from_slice(data);
            }
            _ => {
                *bytes = Vec::new();
                self.state.set(CopyState::Lost);
            }
        }
    }

    fn end(&self) {
        if self.state.get() == CopyState::Partial {
            self.state.set(CopyState::Whole);
        }
    }
}

/// A request's body as it comes from the client, counted and limited.
pub struct ClientBody {
    incoming: Incoming,
    state: Rc<ClientState>,
    limit: u64,
    /// The upstream's answer must start this long after the request's end.
    first_byte: Duration,
    ended: bool,
    /// Taken once, and not used.
    again: Option<Bytes>,
    /// For a shadow.
    copy: Option<Box<Kept>>,
    /// For another try.
    replay: Option<Rc<Copied>>,
}

impl ClientBody {
    /// Beside that of the listener.
    pub fn limit(&mut self, most: u64) {
        self.limit = self.limit.min(most);
    }

    pub fn new(incoming: Incoming, state: &Rc<ClientState>, first_byte: Duration) -> Self {
        state.body_unread.set(true);
        ClientBody {
            incoming,
            state: state.clone(),
            limit: state.listener.config.max.body.unwrap_or(u64::MAX),
            first_byte,
            ended: false,
            again: None,
            copy: None,
            replay: None,
        }
    }

    /// Keeps what passes for a shadow.
    pub fn copy(&mut self, copy: Kept) {
        self.copy = Some(Box::new(copy));
    }

    /// Makes `data`, which was taken already, the next frame again.
    pub fn push_back(&mut self, data: Bytes) {
        self.again = Some(data);
    }

    /// Where a copy will be, once the body is sent.
    pub fn replay(&mut self) -> Rc<Copied> {
        self.replay.get_or_insert_default().clone()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub fn cut(&self, why: Why) -> Cut {
        self.state.cut(why);
        Cut(why)
    }

    fn keep(&mut self, data: Option<&Bytes>) {
        let copy = self.copy.take();
        self.copy = copy.and_then(|copy| copy.add(data.map_or(&[], |data| data)));
        if self.ended
            && let Some(copy) = self.copy.take()
        {
            copy.whole();
        }
    }

    /// From now on it is the upstream that is waited for.
    fn await_answer(&self) {
        if self.ended
            && let Some(copy) = &self.replay
        {
            copy.end();
        }
        if self.state.awaiting_head.get() {
            self.state.timer.start(Wait::FirstByte, Instant::now() + self.first_byte);
        } else {
            self.state.timer.stop();
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(data) = self.again.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let total = self.state.bytes_in.get() + frame.data_ref().map_or(0, |data| data.len() as u64);
                self.state.bytes_in.set(total);
                if total > self.limit {
                    return Poll::Ready(Some(Err(self.cut(Why::BodyTooLarge))));
                }
                if let Some(copy) = &self.replay {
                    copy.add(&frame);
                }
                self.ended = self.incoming.is_end_stream();
                if self.copy.is_some() {
                    self.keep(frame.data_ref());
                }
                self.await_answer();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(broken))) => Poll::Ready(Some(Err(self.cut(match broken {
                Broken::Gone => Why::ClientGone,
                Broken::Malformed => Why::BadRequest,
            })))),
            Poll::Ready(None) => {
                self.ended = true;
                if self.copy.is_some() {
                    self.keep(None);
                }
                self.await_answer();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if self.state.timer.waiting_for() == Wait::RequestBody
                    && self.state.timer.take_expired().is_some()
                {
                    return Poll::Ready(Some(Err(self.cut(Why::BodyTimeout))));
                }
                // Once there is an answer, it is what is waited for.
                if self.state.awaiting_head.get() {
                    let usual = self.state.listener.config.timeout.body;
                    self.state.timer.ensure(Wait::RequestBody, self.state.record.borrow().patience(usual));
                }
                Poll::Pending
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.again.is_none() && self.incoming.is_end_stream()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if self.ended {
            self.state.body_unread.set(false);
        }
    }
}
