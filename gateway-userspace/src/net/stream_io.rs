//! A stream of an HTTP/2 connection as bytes both ways, for what it is opened to by CONNECT (RFC 9113 section 8.5, RFC 8441).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are copied into one piece.
const MOST: usize = 16 * 1024;

/// Dropping it before both sides have ended resets the stream.
pub struct StreamIo<G = ()> {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received and not read yet.
    unread: Bytes,
    /// Of the connection; dropped with the stream.
    _place: G,
}

impl<G> StreamIo<G> {
    pub fn new(send: SendStream<Bytes>, recv: RecvStream, place: G) -> Self {
        StreamIo { send, recv, unread: Bytes::new(), _place: place }
    }
}

impl<G: Unpin> AsyncRead for StreamIo<G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let StreamIo { recv, unread, .. } = &mut *self;
        while unread.is_empty() {
            match ready!(recv.poll_data(cx)) {
                Some(Ok(data)) => *unread = data,
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let piece = unread.split_to(unread.len().min(buffer.remaining()));
        buffer.put_slice(&piece);
        // The other side may send as much again. An error is one of the connection, which tells itself.
        let _ = recv.flow_control().release_capacity(piece.len());
        Poll::Ready(Ok(()))
    }
}

impl<G: Unpin> AsyncWrite for StreamIo<G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let send = &mut self.send;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Poll::Ready(reason) = send.poll_reset(cx) {
            return Poll::Ready(Err(reason.map_or_else(|error| broken(&error), |_| reset())));
        }
        send.reserve_capacity(bytes.len().min(MOST));
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let piece = &bytes[..bytes.len().min(MOST).min(send.capacity())];
        let sent = send.send_data(Bytes::copy_from_slice(piece), false);
        Poll::Ready(sent.map(|()| piece.len()).map_err(|error| broken(&error)))
    }

    /// The connection's task writes.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.send.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(|error| broken(&error)))
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn broken(error: &h2::Error) -> io::Error {
    if error.is_reset() || error.is_go_away() { reset() } else { io::Error::other(error.to_string()) }
}
