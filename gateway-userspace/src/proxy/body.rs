//! Bodies on their way: the client's to the upstream, the upstream's (or the gateway's own) to the client.
//!
//! Nothing is buffered: a frame is read when the other side has taken the last one.

use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    compressed::Compressed,
    connection::ClientState,
    exchange::Exchange,
    grpc,
    grpc_web::{Decoded, Encoded},
    shadow::Kept,
    timer::{Expired, Wait},
};
use crate::{
    observe::Why,
    upstream::{http1::Broken, link::Link},
};

/// The body was cut; why is noted with the exchange.
#[derive(Debug)]
pub struct Cut(pub Why);

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.title())
    }
}

impl std::error::Error for Cut {}

/// What is sent upstream.
pub enum RequestBody {
    Empty,
    Client(ClientBody),
    /// One that was kept; empty once it is taken.
    Kept(Bytes),
    /// A client's, out of base64.
    Decoded(Box<Decoded>),
}

/// Larger bodies are not sent twice.
const MAX_COPY: usize = 64 * 1024;

/// A copy of a body, made while it is sent.
#[derive(Debug, Default)]
pub struct Copied {
    bytes: RefCell<Vec<u8>>,
    state: Cell<CopyState>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CopyState {
    #[default]
    Partial,
    Whole,
    /// Too large, or with trailers.
    Lost,
}

impl Copied {
    /// The body, if all of it came and fitted.
    pub fn whole(&self) -> Option<Bytes> {
        (self.state.get() == CopyState::Whole).then(|| Bytes::copy_from_slice(&self.bytes.borrow()))
    }

    fn add(&self, frame: &Frame<Bytes>) {
        let mut bytes = self.bytes.borrow_mut();
        match frame.data_ref() {
            Some(data) if self.state.get() == CopyState::Partial && bytes.len() + data.len() <= MAX_COPY => {
                bytes.extend_from_slice(data);
            }
            _ => {
                *bytes = Vec::new();
                self.state.set(CopyState::Lost);
            }
        }
    }

    fn end(&self) {
        if self.state.get() == CopyState::Partial {
            self.state.set(CopyState::Whole);
        }
    }
}

/// A request's body as it comes from the client, counted and limited.
pub struct ClientBody {
    incoming: Incoming,
    state: Rc<ClientState>,
    limit: u64,
    /// The upstream's answer must start this long after the request's end.
    first_byte: Duration,
    ended: bool,
    /// Taken once, and not used.
    again: Option<Bytes>,
    /// For a shadow.
    copy: Option<Box<Kept>>,
    /// For another try.
    replay: Option<Rc<Copied>>,
}

impl RequestBody {
    pub fn new(incoming: Incoming, state: &Rc<ClientState>, first_byte: Duration) -> Self {
        if incoming.is_end_stream() {
            return RequestBody::Empty;
        }
        let limit = state.listener.config.max.body.unwrap_or(u64::MAX);
        state.body_unread.set(true);
        RequestBody::Client(ClientBody {
            incoming,
            state: state.clone(),
            limit,
            first_byte,
            ended: false,
            again: None,
            copy: None,
            replay: None,
        })
    }

    pub fn kept(body: Bytes) -> Self {
        RequestBody::Kept(body)
    }

    /// Keeps what passes for a shadow, which gets it once it is whole.
    pub fn copy(&mut self, copy: Kept) {
        if let RequestBody::Client(body) = self {
            body.copy = Some(Box::new(copy));
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client(_) | RequestBody::Decoded(_) => false,
            RequestBody::Kept(bytes) => bytes.is_empty(),
        }
    }

    /// Makes `data`, the last frame, the next one again.
    pub fn push_back(&mut self, data: Bytes) {
        match self {
            RequestBody::Client(body) => body.again = Some(data),
            RequestBody::Decoded(body) => body.push_back(data),
            RequestBody::Empty | RequestBody::Kept(_) => *self = RequestBody::Kept(data),
        }
    }

    /// Where a copy will be, once the body is sent. `None`: it is no client's.
    pub fn replay(&mut self) -> Option<Rc<Copied>> {
        match self {
            RequestBody::Client(body) => Some(body.replay.get_or_insert_default().clone()),
            RequestBody::Empty | RequestBody::Kept(_) | RequestBody::Decoded(_) => None,
        }
    }

    /// As base64, which it is sent without.
    pub fn decoded(self) -> Self {
        match self {
            RequestBody::Client(body) => RequestBody::Decoded(Box::new(Decoded::new(body))),
            other => other,
        }
    }
}

impl ClientBody {
    pub fn cut(&self, why: Why) -> Cut {
        self.state.cut(why);
        Cut(why)
    }

    fn keep(&mut self, data: Option<&Bytes>) {
        let copy = self.copy.take();
        self.copy = copy.and_then(|copy| copy.add(data.map_or(&[], |data| data)));
        if self.ended
            && let Some(copy) = self.copy.take()
        {
            copy.whole();
        }
    }

    /// From now on it is the upstream that is waited for.
    fn await_answer(&self) {
        if self.ended
            && let Some(copy) = &self.replay
        {
            copy.end();
        }
        if self.state.awaiting_head.get() {
            self.state.timer.start(Wait::FirstByte, Instant::now() + self.first_byte);
        } else {
            self.state.timer.stop();
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(data) = self.again.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let total = self.state.bytes_in.get() + frame.data_ref().map_or(0, |data| data.len() as u64);
                self.state.bytes_in.set(total);
                if total > self.limit {
                    return Poll::Ready(Some(Err(self.cut(Why::BodyTooLarge))));
                }
                if let Some(copy) = &self.replay {
                    copy.add(&frame);
                }
                self.ended = self.incoming.is_end_stream();
                if self.copy.is_some() {
                    self.keep(frame.data_ref());
                }
                self.await_answer();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let why = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
                    Why::ClientGone
                } else {
                    Why::BadRequest
                };
                Poll::Ready(Some(Err(self.cut(why))))
            }
            Poll::Ready(None) => {
                self.ended = true;
                if self.copy.is_some() {
                    self.keep(None);
                }
                self.await_answer();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if self.state.timer.waiting_for() == Wait::RequestBody
                    && self.state.timer.take_expired().is_some()
                {
                    return Poll::Ready(Some(Err(self.cut(Why::BodyTimeout))));
                }
                // Once there is an answer, it is what is waited for.
                if self.state.awaiting_head.get() {
                    let usual = self.state.listener.config.timeout.body;
                    self.state.timer.ensure(Wait::RequestBody, self.state.record.borrow().patience(usual));
                }
                Poll::Pending
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.again.is_none() && self.incoming.is_end_stream()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            RequestBody::Client(body) => body.poll_frame(cx),
            RequestBody::Decoded(body) => body.poll_frame(cx),
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Kept(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client(body) => body.is_end_stream(),
            RequestBody::Decoded(body) => body.is_end_stream(),
            RequestBody::Kept(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Client(body) => body.incoming.size_hint(),
            RequestBody::Decoded(_) => SizeHint::default(),
            RequestBody::Kept(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if self.ended {
            self.state.body_unread.set(false);
        }
    }
}

/// What is sent to the client. The exchange ends when this is dropped.
pub enum ResponseBody {
    /// A 101's: what follows is no longer HTTP.
    Nothing,
    Own {
        body: Option<Bytes>,
        exchange: Exchange,
    },
    Upstream(UpstreamBody),
    Compressed(Box<Compressed>),
    Encoded(Box<Encoded>),
}

/// An answer's body as it comes from the upstream.
pub struct UpstreamBody {
    /// Taken when the body is whole (it goes back to the pool) or cut (it is closed).
    connection: Option<Box<Link>>,
    pending_since: Option<Instant>,
    exchange: Exchange,
}

impl ResponseBody {
    pub fn own(body: Bytes, exchange: Exchange) -> Self {
        if body.is_empty() || exchange.is_head() {
            exchange.complete();
        }
        ResponseBody::Own { body: Some(body), exchange }
    }

    pub fn upstream(connection: Box<Link>, exchange: Exchange) -> Self {
        let mut body = UpstreamBody { connection: Some(connection), pending_since: None, exchange };
        if body.ended() {
            body.finish();
        }
        ResponseBody::Upstream(body)
    }
}

impl ResponseBody {
    /// The exchange that ends with it.
    pub fn exchange(&self) -> Option<&Exchange> {
        match self {
            ResponseBody::Nothing => None,
            ResponseBody::Own { exchange, .. } => Some(exchange),
            ResponseBody::Upstream(body) => Some(&body.exchange),
            ResponseBody::Compressed(body) => body.exchange(),
            ResponseBody::Encoded(body) => body.exchange(),
        }
    }
}

impl UpstreamBody {
    fn ended(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.body_ended())
    }

    /// The body is whole: the connection goes back to the pool, if it can.
    fn finish(&mut self) {
        self.exchange.complete();
        if let Some(mut connection) = self.connection.take()
            && connection.settle()
        {
            let now = self.exchange.recently();
            self.exchange.with_upstream(|upstream| {
                let pool = &upstream.config.pool;
                self.exchange.state.worker.pool.put(connection, pool.idle, pool.idle_for, now);
            });
        }
    }

    fn cut(&mut self, why: Why) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.exchange.cut(why);
        self.connection.take();
        match self.exchange.grpc() {
            Some(_) => Poll::Ready(Some(Ok(Frame::trailers(grpc::end(why))))),
            None => Poll::Ready(Some(Err(Cut(why)))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        if self.exchange.state.write_blocked.take() {
            connection.slow_down();
        }
        let Poll::Ready(frame) = connection.poll_body(cx) else {
            return self.wait();
        };
        if let Some(since) = self.pending_since.take() {
            let state = &self.exchange.state;
            state.body_waited.set(state.body_waited.get() + since.elapsed());
            state.timer.stop();
        }
        match frame {
            Some(Ok(frame)) => {
                self.exchange.add_bytes_out(frame.data_ref().map_or(0, |data| data.len() as u64));
                if self.ended() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(broken)) => {
                let why = self.exchange.state.take_cut();
                self.cut(why.unwrap_or(match broken {
                    Broken::Malformed => Why::UpstreamBadResponse,
                    Broken::Closed => Why::UpstreamReset,
                }))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn wait(&mut self) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let timer = &self.exchange.state.timer;
        match timer.take_expired() {
            Some(Expired::Total) => return self.cut(Why::UpstreamTotalTimeout),
            Some(Expired::Wait(_)) => return self.cut(Why::UpstreamIdleTimeout),
            None => {}
        }
        if let Some(idle) = self.exchange.with_upstream(|upstream| upstream.config.timeout.idle) {
            timer.ensure(Wait::ResponseBody, idle);
        }
        self.pending_since.get_or_insert_with(Instant::now);
        Poll::Pending
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            ResponseBody::Nothing => Poll::Ready(None),
            ResponseBody::Own { body, exchange } => {
                let body = body.take();
                exchange.add_bytes_out(body.as_ref().map_or(0, |body| body.len() as u64));
                exchange.complete();
                Poll::Ready(body.map(|body| Ok(Frame::data(body))))
            }
            ResponseBody::Upstream(body) => body.poll(cx),
            ResponseBody::Compressed(body) => body.poll(cx),
            ResponseBody::Encoded(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Nothing => true,
            ResponseBody::Own { body, .. } => body.as_ref().is_none_or(Bytes::is_empty),
            ResponseBody::Upstream(body) => body.ended(),
            ResponseBody::Compressed(body) => body.ended(),
            ResponseBody::Encoded(body) => body.ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Nothing => SizeHint::with_exact(0),
            ResponseBody::Own { body, .. } => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            ResponseBody::Compressed(_) | ResponseBody::Encoded(_) => SizeHint::default(),
            ResponseBody::Upstream(body) => match &body.connection {
                Some(connection) => connection.body_size(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}
