//! A request's way to a target and its answer's way back, whatever the connection speaks.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    Target, Upstream,
    http1::{self, Broken, Failed, Head, Outgoing},
};
use crate::{
    proxy::{Pipe, RequestBody},
    tls::{Offer, TlsStream},
};

/// Which one it is, is asked once a poll. It is passed about in a box, so that futures are no larger for the rare ones.
pub enum Link {
    Plain(http1::Connection<TcpStream>),
    Tls(http1::Connection<TlsStream>),
}

/// `$body` with whatever connection it is.
macro_rules! with {
    ($link:expr, $connection:ident => $body:expr) => {
        match $link {
            Link::Plain($connection) => $body,
            Link::Tls($connection) => $body,
        }
    };
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Refused(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
}

/// ALPN protocol ids (RFC 7301).
pub const HTTP1: Offer = &[b"http/1.1"];

/// Opens a TCP connection and sends the PROXY header, if there is one. The caller bounds the time.
pub async fn dial(addr: SocketAddr, header: Option<&[u8]>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    if let Some(header) = header {
        stream.write_all(header).await?;
    }
    Ok(stream)
}

impl Link {
    /// Opens a connection to a target as its upstream says. One that begins with a PROXY header is its client's, and not
    /// to be kept for others. The caller bounds the time.
    pub async fn open(
        upstream: &Upstream,
        target: &Arc<Target>,
        header: Option<&[u8]>,
        worker: usize,
    ) -> Result<Link, ConnectError> {
        let stream = dial(target.addr, header).await?;
        let mut link = match &upstream.tls {
            None => Link::Plain(http1::Connection::new(stream, target.clone(), worker)),
            Some(tls) => {
                let stream = tls.connect(stream, target.addr, HTTP1).await.map_err(ConnectError::Tls)?;
                Link::Tls(http1::Connection::new(stream, target.clone(), worker))
            }
        };
        if header.is_some() {
            with!(&mut link, on => on.keep_from_others());
        }
        Ok(link)
    }

    /// Sends a request and waits for its answer's head, or until `limit` says that it has been long enough. The body
    /// may go on being sent while the answer comes. `interim` is shown 1xx answers.
    pub async fn request<E>(
        &mut self,
        request: &Outgoing,
        body: RequestBody,
        mut limit: impl FnMut() -> Option<E>,
        mut interim: impl FnMut(Head),
    ) -> Result<Result<Head, Failed>, E> {
        with!(self, on => on.begin(request, body));
        poll_fn(|cx| match with!(self, on => on.poll_head(cx, &mut interim)) {
            Poll::Ready(head) => Poll::Ready(Ok(head)),
            Poll::Pending => limit().map_or(Poll::Pending, |over| Poll::Ready(Err(over))),
        })
        .await
    }

    /// Moves it between the gauges of idle and busy connections.
    pub fn count_idle(&self, idle: bool) {
        with!(self, on => on.count_idle(idle));
    }

    pub fn target(&self) -> &Arc<Target> {
        with!(self, on => on.target())
    }

    /// The body of a request that failed, if it can be sent again as it was: nothing of it was taken.
    pub fn take_unsent_body(&mut self) -> Option<RequestBody> {
        with!(self, on => on.take_unsent_body())
    }

    /// Not a byte of the request went out.
    pub fn untouched(&self) -> bool {
        with!(self, on => on.untouched())
    }

    /// Whoever takes the body was slow: less is read at once, so that little waits for it.
    pub fn slow_down(&mut self) {
        with!(self, on => on.slow_down());
    }

    /// The next frame of the answer's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        with!(self, on => on.poll_body(cx))
    }

    pub fn body_ended(&self) -> bool {
        with!(self, on => on.body_ended())
    }

    pub fn body_size(&self) -> SizeHint {
        with!(self, on => on.body_size())
    }

    /// After an answer was read to its end: whether another request can be sent.
    pub fn settle(&mut self) -> bool {
        with!(self, on => on.settle())
    }

    /// Whether a kept connection is still open.
    pub fn alive(&mut self) -> bool {
        with!(self, on => on.alive())
    }

    /// After a 101: what carries the bytes, and what was read beyond the head.
    pub fn into_upgraded(self) -> (Pipe, Bytes) {
        match self {
            Link::Plain(connection) => {
                let (stream, read) = connection.into_upgraded();
                (Pipe::Plain(stream), read)
            }
            Link::Tls(connection) => {
                let (stream, read) = connection.into_upgraded();
                (Pipe::Other(Box::new(stream)), read)
            }
        }
    }
}
