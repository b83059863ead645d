//! What carries a client's bytes: a TCP socket, bare or under TLS.
//!
//! The code of a connection is compiled once for each, so that what is in clear pays nothing for TLS.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Whether there may be bytes to read that the socket knows nothing of, right after the handshake.
    const HOLDS_BYTES: bool;

    fn socket(&self) -> &TcpStream;

    /// Says that nothing more comes, if that can be done at once.
    fn say_goodbye(&mut self);
}

impl Transport for TcpStream {
    const HOLDS_BYTES: bool = false;

    fn socket(&self) -> &TcpStream {
        self
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
