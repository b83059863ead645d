//! A request's way to a target and its answer's way back, whatever the connection speaks.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    Target, Upstream,
    http1::{self, Broken, Failed, Head, Outgoing},
    http2,
    pool::Pool,
};
use crate::{
    config::model::UpstreamProtocol,
    observe::{Why, stats::Connect},
    proxy::{Pipe, RequestBody},
    tls::{Connector, Offer, Shaken, TlsStream},
};

/// Which one it is, is asked once a poll. It is passed about in a box, so that futures are no larger for the rare ones.
pub enum Link {
    Plain(http1::Connection<TcpStream>),
    Tls(http1::Connection<TlsStream>),
    /// With the requests' scheme.
    Http2(Box<http2::Stream>, &'static str),
}

/// `$body` with whatever it is.
macro_rules! with {
    ($link:expr, $on:ident => $body:expr) => {
        match $link {
            Link::Plain($on) => $body,
            Link::Tls($on) => $body,
            Link::Http2($on, _) => $body,
        }
    };
}

/// As [`with!`], where HTTP/2 does nothing.
macro_rules! with_http1 {
    ($link:expr, $on:ident => $body:expr) => {
        match $link {
            Link::Plain($on) => $body,
            Link::Tls($on) => $body,
            Link::Http2(..) => Default::default(),
        }
    };
}

/// Why there is no connection. Requests that waited for the same one have the same reason.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Refused(Arc<io::Error>),
    #[error("TLS: {0}")]
    Tls(Arc<io::Error>),
    #[error("not within the time limit")]
    Timeout,
    #[error("the gateway lacks what a connection takes: {0}")]
    Ours(Arc<io::Error>),
}

impl ConnectError {
    pub fn tls(error: io::Error) -> Self {
        ConnectError::Tls(Arc::new(error))
    }

    /// Whoever made the connection is gone.
    pub fn gone() -> Self {
        io::Error::from(io::ErrorKind::Interrupted).into()
    }

    pub fn result(&self) -> Connect {
        match self {
            ConnectError::Refused(_) => Connect::Refused,
            ConnectError::Tls(_) => Connect::Tls,
            ConnectError::Timeout => Connect::Timeout,
            ConnectError::Ours(_) => Connect::Ours,
        }
    }

    pub fn why(&self) -> Why {
        match self {
            ConnectError::Refused(_) => Why::UpstreamConnectRefused,
            ConnectError::Tls(_) => Why::UpstreamTls,
            ConnectError::Timeout => Why::UpstreamConnectTimeout,
            ConnectError::Ours(_) => Why::NoResources,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match crate::net::is_ours(&error) {
            true => ConnectError::Ours(Arc::new(error)),
            false => ConnectError::Refused(Arc::new(error)),
        }
    }
}

/// What ALPN offers for a protocol (RFC 7301).
fn offer(protocol: UpstreamProtocol) -> Offer {
    match protocol {
        UpstreamProtocol::Http1 => &[b"http/1.1"],
        UpstreamProtocol::Http2 => &[b"h2"],
        UpstreamProtocol::Auto => &[b"h2", b"http/1.1"],
    }
}

/// A connection as it comes: a TCP socket, or TLS over one.
pub enum Raw {
    Plain(TcpStream),
    Tls(TlsStream, Shaken),
}

impl Raw {
    pub fn shaken(&self) -> Option<Shaken> {
        match self {
            Raw::Plain(_) => None,
            Raw::Tls(_, shaken) => Some(*shaken),
        }
    }
}

/// Opens a TCP connection and sends the PROXY header, if there is one. The caller bounds the time.
pub async fn connect(addr: SocketAddr, header: Option<&[u8]>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    if let Some(header) = header {
        stream.write_all(header).await?;
    }
    Ok(stream)
}

/// As [`connect`], and shakes hands. The caller bounds the time. Also: whether it is to speak HTTP/2.
pub async fn dial(
    addr: SocketAddr,
    header: Option<&[u8]>,
    tls: Option<&Connector>,
    protocol: UpstreamProtocol,
) -> Result<(Raw, bool), ConnectError> {
    let stream = connect(addr, header).await?;
    let Some(tls) = tls else { return Ok((Raw::Plain(stream), protocol == UpstreamProtocol::Http2)) };
    let began = Instant::now();
    let stream = tls.connect(stream, addr, offer(protocol)).await.map_err(ConnectError::tls)?;
    let shaken = Shaken::now(began, stream.get_ref().1);
    if protocol == UpstreamProtocol::Http2 && !shaken.http2 {
        return Err(ConnectError::tls(io::Error::other("it does not take HTTP/2 (ALPN)")));
    }
    Ok((Raw::Tls(stream, shaken), shaken.http2))
}

/// Says hello on a connection that is to speak HTTP/2.
pub async fn multiplex(
    raw: Raw,
    target: Arc<Target>,
    worker: usize,
) -> Result<http2::Connection, ConnectError> {
    Ok(match raw {
        Raw::Plain(stream) => http2::Connection::begin(stream, target, worker).await?,
        Raw::Tls(stream, _) => http2::Connection::begin(stream, target, worker).await?,
    })
}

impl Link {
    /// Opens a connection to a target, or a stream on one, as its upstream says. One that begins with a PROXY
    /// header is its client's, and not to be kept for others. The caller bounds the time. Counts connections that were
    /// made or were not. Also: the handshake, if the connection was made for it.
    pub async fn open(
        upstream: &Upstream,
        target: &Arc<Target>,
        header: Option<&[u8]>,
        pool: &Pool,
        worker: usize,
    ) -> Result<(Link, Option<Shaken>), ConnectError> {
        let (protocol, tls) = (upstream.config.protocol, upstream.tls.as_deref());
        let stream = |stream| Link::Http2(Box::new(stream), if tls.is_some() { "https" } else { "http" });
        let shared = match protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Auto => pool.http2.speaks(target),
        };
        if shared {
            let made = pool.http2.connect(upstream, target, worker).await;
            return made.map(|(made, shaken)| (stream(made), shaken));
        }
        let made = dial(target.addr, header, tls, protocol).await;
        let result = made.as_ref().err().map_or(Connect::Ok, ConnectError::result);
        upstream.stats.shards.of(worker).connect(result);
        let target = target.clone();
        let made = made?;
        let shaken = made.0.shaken();
        let mut link = match made {
            (Raw::Plain(stream), false) => Link::Plain(http1::Connection::new(stream, target, worker)),
            (Raw::Tls(stream, _), false) => Link::Tls(http1::Connection::new(stream, target, worker)),
            (raw, true) => {
                let connection = multiplex(raw, target.clone(), worker).await?;
                stream(pool.http2.add(&target, connection, upstream.config.pool.idle_for))
            }
        };
        if header.is_some() {
            with_http1!(&mut link, on => on.keep_from_others());
        }
        Ok((link, shaken))
    }

    /// Whether it is a stream of a connection that had answered before, and so may have been closed meanwhile, as is
    /// its peer's right.
    pub fn proven(&self) -> bool {
        matches!(self, Link::Http2(stream, _) if stream.proven())
    }

    /// Whether other requests use the same connection.
    pub fn shared(&self) -> bool {
        matches!(self, Link::Http2(..))
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
        match self {
            Link::Plain(on) => on.begin(request, body),
            Link::Tls(on) => on.begin(request, body),
            Link::Http2(on, scheme) => on.begin(request, body, scheme),
        }
        poll_fn(|cx| match with!(self, on => on.poll_head(cx, &mut interim)) {
            Poll::Ready(head) => Poll::Ready(Ok(head)),
            Poll::Pending => limit().map_or(Poll::Pending, |over| Poll::Ready(Err(over))),
        })
        .await
    }

    /// Moves it between the gauges of idle and busy connections.
    pub fn count_idle(&self, idle: bool) {
        with_http1!(self, on => on.count_idle(idle));
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
        with_http1!(self, on => on.slow_down());
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

    /// After an answer was read to its end: whether another request can be sent, and the connection be kept for it.
    pub fn settle(&mut self) -> bool {
        with_http1!(self, on => on.settle())
    }

    /// Whether a kept connection is still open.
    pub fn alive(&mut self) -> bool {
        with_http1!(self, on => on.alive())
    }

    /// After a 101: what carries the bytes, and what was read beyond the head. `None`: it was not opened to anything.
    pub fn into_upgraded(self) -> Option<(Pipe, Bytes)> {
        Some(match self {
            Link::Http2(stream, _) => (Pipe::Other(Box::new(stream.into_upgraded()?)), Bytes::new()),
            Link::Plain(connection) => {
                let (stream, read) = connection.into_upgraded();
                (Pipe::Plain(stream), read)
            }
            Link::Tls(connection) => {
                let (stream, read) = connection.into_upgraded();
                (Pipe::Other(Box::new(stream)), read)
            }
        })
    }
}
