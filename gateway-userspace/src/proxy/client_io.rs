//! The socket under a client connection, as hyper wants it: it notices when a request begins, when the client stops
//! reading, and keeps back hyper's own bare error answers, which the connection replaces by better ones.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::{
    connection::{ClientState, Delimited},
    half_closed::{BEGINNING, HalfClosed, ZERO},
    timer::Wait,
    transport::Transport,
};
use crate::net::{read_into, together, write_slices};
use hyper::rt::{Read, ReadBufCursor, Write};

pub struct ClientIo<S> {
    pub stream: S,
    state: Rc<ClientState>,
    /// What the client sends has ended, and hyper was not told at once.
    ended: bool,
    /// … and is not told before the answer is out, as long as somebody may wait for that.
    half_closed: Option<Box<HalfClosed>>,
    /// Bytes of the next answer that are out already.
    ahead: usize,
    /// hyper has written all that it had.
    flushed: bool,
}

impl<S: Transport> ClientIo<S> {
    pub fn new(stream: S, state: Rc<ClientState>) -> Self {
        ClientIo { stream, state, ended: false, half_closed: None, ahead: 0, flushed: true }
    }

    /// The client sends nothing more. Whether it still waits for its answer.
    fn waits(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(half_closed) = &self.half_closed {
            return !half_closed.is_gone();
        }
        self.half_closed = Some(Box::new(HalfClosed::new(self.stream.socket(), &self.state)));
        let (bytes, ahead) = match self.state.answer_so_far() {
            None if self.state.owes_answer() => (BEGINNING, true),
            Some(_) if self.state.owes_answer() && self.between_chunks() => (ZERO, false),
            // Its own bytes will tell.
            _ => return true,
        };
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(n)) if ahead => self.ahead = n,
            Poll::Ready(Ok(_)) => {}
            // The reset has come already.
            Poll::Ready(Err(_)) => return false,
            Poll::Pending => return true,
        }
        !matches!(Pin::new(&mut self.stream).poll_flush(cx), Poll::Ready(Err(_)))
    }

    fn between_chunks(&self) -> bool {
        self.state.delimited.get() == Delimited::Chunks && self.flushed
    }

    /// How many of these bytes are out already.
    fn skip(&mut self, bytes: usize) -> Option<usize> {
        let n = self.ahead.min(bytes);
        self.ahead -= n;
        (n > 0).then_some(n)
    }

    /// Interim answers (103) go out before anything else.
    fn write_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut early = self.state.early.borrow_mut();
        let skipped = self.ahead.min(early.len());
        self.ahead -= skipped;
        early.drain(..skipped);
        while !early.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &early))?;
            early.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// What is written while a head is still being read is hyper's own answer to one that it could not parse. The end of
    /// the last answer may be written then too, if the head came with an earlier request: but no answer of ours or of an
    /// upstream begins as hyper's do.
    fn is_parse_refusal(&self, bytes: &[u8]) -> bool {
        match self.state.timer.waiting_for() {
            Wait::Header => bytes.starts_with(b"HTTP/1.1 4"),
            Wait::Idle => bytes.starts_with(b"HTTP/1.1 4") && begins_bare(bytes),
            _ => false,
        }
    }

    fn note_write<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            self.state.write_blocked.set(true);
            self.state.timer.interrupt(Wait::Write, self.state.listener.config.timeout.body);
        } else {
            self.state.timer.resume(Wait::Write);
        }
        result
    }
}

/// Nothing but the connection's end and an empty body is behind the status line.
fn begins_bare(answer: &[u8]) -> bool {
    const FIELDS: &[u8] = b"connection: close\r\ncontent-length: 0\r\n";
    let line = answer.iter().position(|byte| *byte == b'\n');
    line.is_some_and(|end| answer[end + 1..].starts_with(FIELDS))
}

impl<S: Transport> Read for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let ClientIo { stream, state, ended, .. } = &mut *self;
        let mut more = false;
        let read = ready!(read_into(stream, cx, cursor, |bytes| {
            more = !bytes.is_empty();
            state.received(bytes);
        }));
        // hyper looks for the end before it begins a request, and never begins one whose client is gone by then. One look
        // later it is begun, and so counted and logged.
        if !more && !*ended && state.has_unbegun() {
            *ended = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Nor does it write what it still has of an answer.
        if !more && read.is_ok() && (state.owes_answer() || !state.answer_out.get()) && self.waits(cx) {
            return Poll::Pending;
        }
        Poll::Ready(read)
    }
}

impl<S: Transport> Write for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_parse_refusal(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.write_early(cx))?;
        if let Some(n) = self.skip(bytes.len()) {
            return Poll::Ready(Ok(n));
        }
        self.flushed = false;
        let result = match self.state.last_write.get() {
            true => self.stream.poll_write_last(cx, bytes),
            false => Pin::new(&mut self.stream).poll_write(cx, bytes),
        };
        self.note_write(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_early(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushed = true;
        if !self.state.answer_out.replace(true) && self.half_closed.is_some() {
            // Now it may know.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.first().is_some_and(|first| self.is_parse_refusal(first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        ready!(self.write_early(cx))?;
        if let Some(n) = self.skip(slices.first().map_or(0, |first| first.len())) {
            return Poll::Ready(Ok(n));
        }
        self.flushed = false;
        let ClientIo { stream, state, .. } = &mut *self;
        let last = state.last_write.get();
        let taken = if last { together(slices, |bytes| stream.poll_write_last(cx, bytes)) } else { None };
        let taken = taken.or_else(|| stream.poll_write_pages(cx, slices));
        let result = taken.unwrap_or_else(|| write_slices(stream, cx, slices));
        self.note_write(result)
    }
}
