//! The bytes of an HTTP/2 connection, as hyper wants them.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::{net::read_into, proxy::transport::Transport};

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

impl<S: Transport> Read for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Io { stream, quiet } = &mut *self;
        if quiet.get() > MOST_QUIET * 8 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        read_into(stream, cx, cursor, |bytes| quiet.set(quiet.get() + bytes.len()))
    }
}

impl<S: Transport> Write for Io<S> {
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
