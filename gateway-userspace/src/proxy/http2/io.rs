//! The bytes of an HTTP/2 connection, with an eye on how many come.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::transport::Transport;

/// Bytes that a client may send while it asks for nothing: more is a flood of PING, SETTINGS and the like.
pub const MOST_QUIET: usize = 256 * 1024;

/// Where the type of the first frame is: behind the preface and its length.
const FIRST_TYPE: usize = 24 + 3;
const SETTINGS: u8 = 4;

pub struct Io<S> {
    stream: S,
    /// Bytes received, up to the type of the first frame.
    first: usize,
    seen: Rc<Seen>,
}

/// What the connection is told of its bytes.
#[derive(Default)]
pub struct Seen {
    /// Bytes received since a stream was last open.
    pub quiet: Cell<usize>,
    /// h2 is not to know of the end yet: it forgets requests that it has read and nobody has taken by then.
    pub keep_end: Cell<bool>,
    /// What the client sends has ended, which h2 does not know.
    pub ended: Cell<bool>,
}

impl Seen {
    /// h2 may know of the end, if there is one, as all requests are taken.
    pub fn let_end(&self) -> bool {
        self.ended.get() && self.keep_end.replace(false)
    }

    /// What nobody takes any more is as good as written until h2 may know.
    fn written(&self, written: Poll<io::Result<usize>>, offered: usize) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Err(_))) && self.keep_end.get() {
            self.ended.set(true);
            return Poll::Ready(Ok(offered));
        }
        written
    }
}

impl<S> Io<S> {
    pub fn new(stream: S, seen: Rc<Seen>) -> Self {
        Io { stream, first: 0, seen }
    }
}

impl<S: Transport> AsyncRead for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Io { stream, first, seen } = &mut *self;
        if seen.quiet.get() > MOST_QUIET * 8 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(stream).poll_read(cx, buffer));
        let received = buffer.filled().get(before..).unwrap_or_default();
        if received.is_empty() && seen.keep_end.get() {
            seen.ended.set(true);
            return Poll::Pending;
        }
        read?;
        seen.quiet.set(seen.quiet.get() + received.len());
        if *first <= FIRST_TYPE {
            // RFC 9113 section 3.4; h2 takes any.
            if received.get(FIRST_TYPE - *first).is_some_and(|kind| *kind != SETTINGS) {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            *first += received.len();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Transport> AsyncWrite for Io<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.seen.written(written, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.seen.written(written, slices.iter().map(|slice| slice.len()).sum())
    }
}
