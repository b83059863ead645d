//! An answer that is compared with a shadow's: it passes as it is, and a copy of as much as is compared is kept.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    body::{Cut, ResponseBody},
    exchange::Exchange,
};
use crate::policy::compare::{About, Compare, Seen};

/// One of the two sides of a comparison. Whichever is the last to end hands both over.
pub struct Side {
    pair: Rc<RefCell<Waiting>>,
    is_shadow: bool,
    /// What came so far; `None`: nothing did.
    pub seen: Option<Seen>,
    /// It is known to its end.
    pub whole: bool,
}

struct Waiting {
    compare: Arc<Compare>,
    about: About,
    first: Option<Option<Seen>>,
}

impl Side {
    /// The client's and the shadow's.
    pub fn both(compare: &Arc<Compare>, about: About) -> (Side, Side) {
        let pair = Rc::new(RefCell::new(Waiting { compare: compare.clone(), about, first: None }));
        let side = |is_shadow| Side { pair: pair.clone(), is_shadow, seen: None, whole: false };
        (side(false), side(true))
    }

    pub fn compare(&self) -> Arc<Compare> {
        self.pair.borrow().compare.clone()
    }

    /// More of the body.
    pub fn add(&mut self, data: &[u8]) {
        let most = self.pair.borrow().compare.body;
        let Some(seen) = self.seen.as_mut().filter(|seen| !seen.cut) else { return };
        if seen.body.len() + data.len() > most {
            seen.cut = true;
            seen.body = Vec::new();
        } else {
            seen.body.extend_from_slice(data);
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let seen = self.seen.take().filter(|_| self.whole);
        let mut pair = self.pair.borrow_mut();
        match pair.first.take() {
            None => pair.first = Some(seen),
            Some(first) => {
                let (answer, shadow) = if self.is_shadow { (first, seen) } else { (seen, first) };
                pair.compare.take(pair.about.clone(), answer, shadow);
            }
        }
    }
}

pub struct Watched {
    inner: ResponseBody,
    side: Side,
}

impl Watched {
    pub fn new(inner: ResponseBody, side: Side) -> Self {
        Watched { inner, side }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.side.add(data);
                }
            }
            Poll::Ready(Some(Err(_))) => self.side.seen = None,
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    pub fn exchange(&self) -> Option<&Exchange> {
        self.inner.exchange()
    }

    /// What is left of it, of which no more is compared.
    pub fn into_inner(mut self) -> ResponseBody {
        if !self.ended() {
            self.side.seen = None;
        }
        std::mem::replace(&mut self.inner, ResponseBody::Nothing)
    }

    pub fn ended(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub fn size(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.side.whole = self.inner.is_end_stream();
    }
}
