//! Bodies on their way: the client's to the upstream, the upstream's (or the gateway's own) to the client.
//!
//! Nothing is buffered: a frame is read when the other side has taken the last one.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::{
    cached::StoredBody,
    checked::Checked,
    client_body::{ClientBody, Copied},
    compressed::Compressed,
    connection::ClientState,
    exchange::Exchange,
    grpc,
    grpc_web::{Decoded, Encoded},
    incoming::Incoming,
    metered::Metered,
    paced::Paced,
    shadow::Kept,
    tagged::Ahead,
    timer::{Expired, Wait},
    watched::Watched,
};
use crate::{
    observe::Why,
    policy::json::Checker,
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
    /// A client's, which must be JSON.
    Checked(Box<Checked>),
}

/// A request's body before it is known where it goes.
pub enum Sent {
    Client(Incoming),
    /// All of it is here.
    Read(Bytes),
}

impl From<Incoming> for Sent {
    fn from(body: Incoming) -> Self {
        Sent::Client(body)
    }
}

impl Sent {
    pub fn is_empty(&self) -> bool {
        match self {
            Sent::Client(body) => body.is_end_stream(),
            Sent::Read(body) => body.is_empty(),
        }
    }

    pub fn into_upstream(self, state: &Rc<ClientState>, first_byte: Duration) -> RequestBody {
        match self {
            Sent::Client(body) => RequestBody::new(body, state, first_byte),
            Sent::Read(body) if body.is_empty() => RequestBody::Empty,
            Sent::Read(body) => RequestBody::kept(body),
        }
    }
}

impl RequestBody {
    pub fn new(incoming: Incoming, state: &Rc<ClientState>, first_byte: Duration) -> Self {
        if incoming.is_end_stream() {
            return RequestBody::Empty;
        }
        RequestBody::Client(ClientBody::new(incoming, state, first_byte))
    }

    pub fn kept(body: Bytes) -> Self {
        RequestBody::Kept(body)
    }

    /// All of it, if it is here.
    pub fn into_kept(self) -> Option<Bytes> {
        match self {
            RequestBody::Kept(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Keeps what passes for a shadow, which gets it once it is whole.
    pub fn copy(&mut self, copy: Kept) {
        match self {
            // It is here already.
            RequestBody::Kept(bytes) => {
                if let Some(copy) = Box::new(copy).add(bytes) {
                    copy.whole();
                }
            }
            other => {
                if let Some(body) = other.of_client() {
                    body.copy(copy);
                }
            }
        }
    }

    /// More than this is too much.
    pub fn limit(&mut self, most: u64) {
        if let Some(body) = self.of_client() {
            body.limit(most);
        }
    }

    fn of_client(&mut self) -> Option<&mut ClientBody> {
        match self {
            RequestBody::Client(body) => Some(body),
            RequestBody::Checked(checked) => Some(&mut checked.body),
            RequestBody::Empty | RequestBody::Kept(_) | RequestBody::Decoded(_) => None,
        }
    }

    /// To be read by `checker` on its way.
    pub fn checked(self, checker: Checker) -> Self {
        match self {
            RequestBody::Client(body) => RequestBody::Checked(Box::new(Checked::new(body, checker))),
            other => other,
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client(_) | RequestBody::Decoded(_) | RequestBody::Checked(_) => false,
            RequestBody::Kept(bytes) => bytes.is_empty(),
        }
    }

    /// Makes `data`, the last frame, the next one again.
    pub fn push_back(&mut self, data: Bytes) {
        match self {
            RequestBody::Client(body) => body.push_back(data),
            RequestBody::Decoded(body) => body.push_back(data),
            RequestBody::Checked(body) => body.push_back(data),
            RequestBody::Empty | RequestBody::Kept(_) => *self = RequestBody::Kept(data),
        }
    }

    /// All of it, before anything goes on: until it is here, it is the client that is waited for.
    ///
    /// # Errors
    /// It is longer than `most`, or does not come.
    pub async fn whole(mut self, state: &ClientState, most: u64) -> Result<Bytes, Why> {
        state.awaiting_head.set(true);
        let mut whole = BytesMut::new();
        let mut result = Ok(());
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            match frame {
                Ok(frame) => whole.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Err(Cut(why)) => result = Err(why),
            }
            if whole.len() as u64 > most {
                result = Err(Why::BodyTooLarge);
            }
            if result.is_err() {
                break;
            }
        }
        state.awaiting_head.set(false);
        state.timer.stop();
        result.map(|()| whole.freeze())
    }

    /// Where a copy will be, once the body is sent. `None`: it is no client's.
    pub fn replay(&mut self) -> Option<Rc<Copied>> {
        self.of_client().map(ClientBody::replay)
    }

    /// As base64, which it is sent without.
    pub fn decoded(self) -> Self {
        match self {
            RequestBody::Client(body) => RequestBody::Decoded(Box::new(Decoded::new(body))),
            other => other,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            RequestBody::Client(body) => body.poll_frame(cx),
            RequestBody::Decoded(body) => body.poll_frame(cx),
            RequestBody::Checked(body) => body.poll_frame(cx),
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
            RequestBody::Checked(checked) => checked.body.is_end_stream(),
            RequestBody::Kept(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Client(body) => body.size_hint(),
            RequestBody::Decoded(_) => SizeHint::default(),
            RequestBody::Checked(checked) => checked.body.size_hint(),
            RequestBody::Kept(bytes) => SizeHint::with_exact(bytes.len() as u64),
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
    Stored(Box<StoredBody>),
    Ahead(Box<Ahead>),
    Compressed(Box<Compressed>),
    Encoded(Box<Encoded>),
    Metered(Box<Metered>),
    Paced(Box<Paced>),
    Watched(Box<Watched>),
}

/// An answer's body as it comes from the upstream.
pub struct UpstreamBody {
    /// Taken when the body is whole (it goes back to the pool) or cut (it is closed).
    connection: Option<Box<Link>>,
    /// It broke off, which is told once what came before is out.
    broken: Option<Why>,
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
        let mut body =
            UpstreamBody { connection: Some(connection), broken: None, pending_since: None, exchange };
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
            ResponseBody::Stored(body) => Some(body.exchange()),
            ResponseBody::Ahead(body) => body.exchange(),
            ResponseBody::Compressed(body) => body.exchange(),
            ResponseBody::Encoded(body) => body.exchange(),
            ResponseBody::Metered(body) => body.exchange(),
            ResponseBody::Paced(body) => body.exchange(),
            ResponseBody::Watched(body) => body.exchange(),
        }
    }
}

impl ResponseBody {
    /// Its bytes are the content as the upstream sends it.
    pub fn is_content(&self) -> bool {
        matches!(self, ResponseBody::Own { .. } | ResponseBody::Upstream(_) | ResponseBody::Stored(_))
    }

    /// The exchange that would end with it. `None`: it has none, or is no content.
    pub fn into_exchange(self) -> Option<Exchange> {
        match self {
            ResponseBody::Own { exchange, .. } => Some(exchange),
            ResponseBody::Upstream(body) => Some(body.exchange),
            ResponseBody::Stored(body) => Some(body.into_exchange()),
            ResponseBody::Metered(body) => body.into_inner().into_exchange(),
            ResponseBody::Watched(body) => body.into_inner().into_exchange(),
            _ => None,
        }
    }
}

impl UpstreamBody {
    fn ended(&self) -> bool {
        match &self.connection {
            Some(connection) => connection.body_ended(),
            None => self.broken.is_none(),
        }
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
            return self.broken.take().map_or(Poll::Ready(None), |why| self.cut(why));
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
                self.broken = Some(why.unwrap_or(match broken {
                    Broken::Malformed => Why::UpstreamBadResponse,
                    Broken::Closed => Why::UpstreamReset,
                }));
                self.connection.take();
                cx.waker().wake_by_ref();
                Poll::Pending
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
        if let Some(idle) = self.exchange.idle_limit() {
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
            ResponseBody::Stored(body) => body.poll(cx),
            ResponseBody::Ahead(body) => body.poll(cx),
            ResponseBody::Compressed(body) => body.poll(cx),
            ResponseBody::Encoded(body) => body.poll(cx),
            ResponseBody::Metered(body) => body.poll(cx),
            ResponseBody::Paced(body) => body.poll(cx),
            ResponseBody::Watched(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Nothing => true,
            ResponseBody::Own { body, .. } => body.as_ref().is_none_or(Bytes::is_empty),
            ResponseBody::Upstream(body) => body.ended(),
            ResponseBody::Stored(body) => body.ended(),
            ResponseBody::Ahead(body) => body.ended(),
            ResponseBody::Compressed(body) => body.ended(),
            ResponseBody::Encoded(body) => body.ended(),
            ResponseBody::Metered(body) => body.ended(),
            ResponseBody::Paced(body) => body.ended(),
            ResponseBody::Watched(body) => body.ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Nothing => SizeHint::with_exact(0),
            ResponseBody::Own { body, .. } => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            ResponseBody::Compressed(_) | ResponseBody::Encoded(_) => SizeHint::default(),
            ResponseBody::Stored(body) => body.size_hint(),
            ResponseBody::Ahead(body) => body.size_hint(),
            ResponseBody::Metered(body) => body.size_hint(),
            ResponseBody::Paced(body) => body.size_hint(),
            ResponseBody::Watched(body) => body.size(),
            ResponseBody::Upstream(body) => match &body.connection {
                Some(connection) => connection.body_size(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}
