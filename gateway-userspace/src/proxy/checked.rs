//! A client's body that must be JSON, read on its way. Nothing is held back: what is found to be none ends there, and the
//! upstream never gets the whole of it.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::{body::Cut, client_body::ClientBody};
use crate::{
    observe::Why,
    policy::json::{Checker, Refused},
};

pub struct Checked {
    pub body: ClientBody,
    checker: Checker,
    /// The next frame is one that was read already.
    again: bool,
}

impl Checked {
    pub fn new(body: ClientBody, checker: Checker) -> Self {
        Checked { body, checker, again: false }
    }

    /// Makes `data`, which was taken already, the next frame again.
    pub fn push_back(&mut self, data: Bytes) {
        self.again = true;
        self.body.push_back(data);
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = self.body.poll_frame(cx);
        let read = match &polled {
            _ if std::mem::take(&mut self.again) => Ok(()),
            Poll::Ready(Some(Ok(frame))) => {
                let read = frame.data_ref().map_or(Ok(()), |data| self.checker.read(data));
                // The last frame is not handed on unless all of it is well.
                read.and_then(|()| if self.body.is_end_stream() { self.checker.end() } else { Ok(()) })
            }
            Poll::Ready(None) => self.checker.end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => Ok(()),
        };
        match read {
            Ok(()) => polled,
            Err(Refused) => Poll::Ready(Some(Err(self.body.cut(Why::Json)))),
        }
    }
}
