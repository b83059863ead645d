//! One connection to a target, polled by the request that uses it.
//!
//! hyper's client side comes as a sender and a connection future. Usually the future is spawned; here it is polled in
//! place, so an answer wakes the client's task directly and nothing is handed between tasks.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1::{self, SendRequest},
};
use tokio::net::TcpStream;

use super::{
    Target,
    inline_waker::InlineWaker,
    io::{Tap, UpstreamIo},
};
use crate::proxy::RequestBody;

/// Bytes of an upstream's response head.
const MAX_HEAD: usize = 64 * 1024;

type Driver = http1::Connection<UpstreamIo, RequestBody>;

pub struct Connection {
    sender: SendRequest<RequestBody>,
    driver: Driver,
    /// The driver has ended and must not be polled again.
    ended: bool,
    waker: InlineWaker,
    tap: Rc<Tap>,
    gauge: Gauge,
}

/// Why a request got no answer on this connection.
pub struct Failed {
    /// The request itself, when none of it was sent.
    pub unsent: Option<Request<RequestBody>>,
    pub error: hyper::Error,
}

/// Opens a TCP connection. The caller bounds the time.
pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connection {
    pub async fn handshake(
        stream: TcpStream,
        target: Arc<Target>,
        worker: usize,
    ) -> Result<Self, hyper::Error> {
        let tap = Rc::new(Tap::default());
        let io = UpstreamIo::new(stream, tap.clone());
        let (sender, driver) = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(io).await?;
        Ok(Connection {
            sender,
            driver,
            ended: false,
            waker: InlineWaker::new(),
            tap,
            gauge: Gauge::new(target, worker),
        })
    }

    /// Moves it between the gauges of idle and busy connections.
    pub fn count_idle(&self, idle: bool) {
        self.gauge.set_idle(idle);
    }

    pub fn target(&self) -> &Arc<Target> {
        &self.gauge.target
    }

    /// Sends a request and waits for its answer's head, or until `limit` says that it has been long enough.
    /// `repeatable` keeps the request's bytes for [`Connection::unanswered`].
    pub async fn request<E>(
        &mut self,
        request: Request<RequestBody>,
        repeatable: bool,
        mut limit: impl FnMut() -> Option<E>,
    ) -> Result<Result<Response<Incoming>, Failed>, E> {
        self.tap.begin(repeatable);
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            let mut noop = Context::from_waker(Waker::noop());
            match self.poll_with(cx, || answer.as_mut().poll(&mut noop)) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(Ok(response))),
                Poll::Ready(Err(mut failed)) => {
                    let unsent = failed.take_message();
                    Poll::Ready(Ok(Err(Failed { unsent, error: failed.into_error() })))
                }
                Poll::Pending => limit().map_or(Poll::Pending, |over| Poll::Ready(Err(over))),
            }
        })
        .await
    }

    /// The request's bytes, if it may be repeated and nothing of an answer came.
    pub fn unanswered(&self) -> Option<Vec<u8>> {
        self.tap.unanswered()
    }

    /// Whether any byte of an answer came.
    pub fn received(&self) -> bool {
        self.tap.received()
    }

    /// The next frame of a response's body.
    pub fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut noop = Context::from_waker(Waker::noop());
        self.poll_with(cx, || Pin::new(&mut *body).poll_frame(&mut noop))
    }

    /// Lets hyper do what it can; `step` looks before and after whether that was enough. `step` needs no waker: what it
    /// waits for is brought about by the driver, in this very poll.
    fn poll_with<T>(&mut self, cx: &mut Context<'_>, mut step: impl FnMut() -> Poll<T>) -> Poll<T> {
        let (driver, ended) = (&mut self.driver, &mut self.ended);
        self.waker.poll(cx, |cx| {
            if let Poll::Ready(ready) = step() {
                return Poll::Ready(ready);
            }
            // Whether it closed, failed or switched protocols, `step` learns from its channel.
            *ended = *ended || driver.poll_without_shutdown(cx).is_ready();
            step()
        })
    }

    /// After a response was read to its end: whether another request can be sent.
    pub fn settle(&mut self, cx: &mut Context<'_>) -> bool {
        let _ = self.poll_with(cx, || Poll::<()>::Pending);
        !self.ended && self.sender.is_ready()
    }

    /// Whether a kept connection is still open, as far as its socket's events tell. No system call.
    pub fn alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.ended = self.ended || self.driver.poll_without_shutdown(&mut cx).is_ready();
        !self.ended && self.sender.is_ready()
    }

    /// After a 101: the socket, and what was read beyond the head.
    pub fn into_upgraded(self) -> (TcpStream, Bytes) {
        let Connection { driver, gauge: _gauge, .. } = self;
        let parts = driver.into_parts();
        (parts.io.stream, parts.read_buf)
    }
}

/// Counts a connection as busy or idle for as long as it lives.
struct Gauge {
    target: Arc<Target>,
    worker: usize,
    idle: Cell<bool>,
}

impl Gauge {
    fn new(target: Arc<Target>, worker: usize) -> Self {
        target.stats.shards.of(worker).busy.add(1);
        Gauge { target, worker, idle: Cell::new(false) }
    }

    fn set_idle(&self, idle: bool) {
        if self.idle.replace(idle) != idle {
            let shard = self.target.stats.shards.of(self.worker);
            let step = if idle { 1 } else { -1 };
            shard.idle.add(step);
            shard.busy.add(-step);
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.set_idle(false);
        self.target.stats.shards.of(self.worker).busy.add(-1);
    }
}
