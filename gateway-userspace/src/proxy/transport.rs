//! What carries a client's bytes: a TCP socket, bare or under TLS.
//!
//! The code of a connection is compiled once for each, so that what is in clear pays nothing for TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::net::pages;

pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Whether there may be bytes to read that the socket knows nothing of, right after the handshake.
    const HOLDS_BYTES: bool;

    fn socket(&self) -> &TcpStream;

    /// As `poll_write`; the connection's end follows at once, and may go out with it.
    fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }

    /// As `poll_write_vectored`, where some of it is in memory that can be sent as it is ([`pages`]). `None`: it cannot be,
    /// or nothing is.
    fn poll_write_pages(
        &mut self,
        _cx: &mut Context<'_>,
        _slices: &[IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        None
    }

    /// Says that nothing more comes, if that can be done at once.
    fn say_goodbye(&mut self);
}

impl Transport for TcpStream {
    const HOLDS_BYTES: bool = false;

    fn socket(&self) -> &TcpStream {
        self
    }

    /// The kernel keeps back the last segment until the close, whose FIN it carries: a packet less.
    fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        write_some(self, cx, |socket| {
            SockRef::from(socket).send_with_flags(bytes, libc::MSG_MORE | libc::MSG_NOSIGNAL)
        })
    }

    fn poll_write_pages(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        let large = |slice: &IoSlice<'_>| slice.len() >= pages::LEAST;
        let at = slices.iter().position(large)?;
        let (file, place) = pages::find(&slices[at])?;
        Some(match at {
            0 => write_some(self, cx, |socket| {
                let mut place = place;
                Ok(rustix::fs::sendfile(socket, file, Some(&mut place), slices[0].len())?)
            }),
            // What comes before waits in the kernel for what follows at once.
            _ => write_some(self, cx, |socket| {
                let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
                SockRef::from(socket).send_vectored_with_flags(&slices[..at], flags)
            }),
        })
    }

    /// The socket's close says it.
    fn say_goodbye(&mut self) {}
}

fn write_some(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, || write(socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

impl Transport for TlsStream<TcpStream> {
    const HOLDS_BYTES: bool = true;

    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    /// close_notify (RFC 8446 section 6.1): what came before it is whole.
    fn say_goodbye(&mut self) {
        let _ = Pin::new(self).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }
}
