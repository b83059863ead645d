//! The socket under an upstream connection, as hyper wants it.
//!
//! It keeps what was sent of a request that may be repeated, so that a kept connection which the upstream had already
//! closed costs the client nothing: the request is rebuilt from those bytes, off the hot path, and sent again.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{io::AsyncWrite, net::TcpStream};

use crate::net::{read_into, write_slices};

/// Larger requests are not kept.
const MAX_KEPT: usize = 64 * 1024;

/// What the connection's user may ask of the socket.
#[derive(Debug, Default)]
pub struct Tap {
    keep: Cell<bool>,
    sent: RefCell<Vec<u8>>,
    received: Cell<bool>,
}

impl Tap {
    /// A new request begins; `keep` its bytes if it may be sent twice.
    pub fn begin(&self, keep: bool) {
        self.keep.set(keep);
        self.received.set(false);
        self.sent.borrow_mut().clear();
    }

    /// The request's bytes, if they were kept whole and nothing of an answer was received.
    pub fn unanswered(&self) -> Option<Vec<u8>> {
        (self.keep.get() && !self.received.get()).then(|| self.sent.take())
    }

    /// Whether anything arrived since [`Tap::begin`].
    pub fn received(&self) -> bool {
        self.received.get()
    }

    fn note_sent(&self, bytes: &[u8]) {
        if self.keep.get() {
            let mut sent = self.sent.borrow_mut();
            if sent.len() + bytes.len() <= MAX_KEPT {
                sent.extend_from_slice(bytes);
            } else {
                self.keep.set(false);
            }
        }
    }
}

#[derive(Debug)]
pub struct UpstreamIo {
    pub stream: TcpStream,
    tap: Rc<Tap>,
}

impl UpstreamIo {
    pub fn new(stream: TcpStream, tap: Rc<Tap>) -> Self {
        UpstreamIo { stream, tap }
    }
}

impl Read for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let UpstreamIo { stream, tap } = &mut *self;
        read_into(stream, cx, cursor, |bytes| tap.received.set(tap.received.get() || !bytes.is_empty()))
    }
}

impl Write for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes).map_ok(|n| {
            self.tap.note_sent(&bytes[..n]);
            n
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
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
        write_slices(&mut self.stream, cx, slices).map_ok(|n| {
            let mut left = n;
            for slice in slices {
                let taken = left.min(slice.len());
                self.tap.note_sent(&slice[..taken]);
                left -= taken;
            }
            n
        })
    }
}
