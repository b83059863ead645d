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

pub struct Io<S> {
    stream: S,
    /// Bytes received since a stream was last open.
    quiet: Rc<Cell<usize>>,
}

impl<S> Io<S> {
    pub fn new(stream: S, quiet: Rc<Cell<usize>>) -> Self {
        Io { stream, quiet }
    }
}

impl<S: Transport> AsyncRead for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Io { stream, quiet } = &mut *self;
        if quiet.get() > MOST_QUIET * 8 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        quiet.set(quiet.get() + buffer.filled().len() - before);
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
