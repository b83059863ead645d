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
    /// Bytes received since a stream was last open.
    quiet: Rc<Cell<usize>>,
}

impl<S> Io<S> {
    pub fn new(stream: S, quiet: Rc<Cell<usize>>) -> Self {
        Io { stream, first: 0, quiet }
    }
}

impl<S: Transport> AsyncRead for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Io { stream, first, quiet } = &mut *self;
        if quiet.get() > MOST_QUIET * 8 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        let received = buffer.filled().get(before..).unwrap_or_default();
        quiet.set(quiet.get() + received.len());
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
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
