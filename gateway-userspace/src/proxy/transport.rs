//! What carries a client's bytes: a TCP socket, bare or under TLS.
//!
//! The code of a connection is compiled once for each, so that what is in clear pays nothing for TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Whether there may be bytes to read that the socket knows nothing of, right after the handshake.
    const HOLDS_BYTES: bool;

    fn socket(&self) -> &TcpStream;

    /// As `poll_write`; the connection's end follows at once, and may go out with it.
    fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
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
        loop {
            ready!(self.poll_write_ready(cx))?;
            let send = || SockRef::from(&*self).send_with_flags(bytes, libc::MSG_MORE | libc::MSG_NOSIGNAL);
            match self.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// The socket's close says it.
    fn say_goodbye(&mut self) {}
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
