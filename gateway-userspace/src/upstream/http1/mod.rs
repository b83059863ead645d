//! One HTTP/1.1 connection to a target, used by one request at a time and polled by that request's task.
//!
//! hyper's client is a task of its own behind channels, made for requests from anywhere. Here the request's task writes
//! and reads itself, so an answer wakes it directly, nothing is handed between tasks, and a head is written from where
//! it lies. See docs/performance.md for what that gains. It is compiled once for a bare socket and once for TLS.

pub(crate) mod body;
pub(crate) mod head;
mod request;

use std::{
    cell::{Cell, RefCell},
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use self::request::Sending;
pub use self::{
    body::{Decoder, Framing},
    head::{Head, MAX_HEAD, Malformed},
    request::{Outgoing, SendFailed, Switch, ends_here, field, may_trail},
};
use super::{Target, gauge::Gauge};
use crate::{proxy::RequestBody, tls::TlsStream};

/// Bytes that are read at once, to begin with; and where as many come again and again, and go on at once. Each read
/// costs a system call and most likely another for what is read, which wakes somebody.
const READ: usize = 64 * 1024;
const READ_MOST: usize = 512 * 1024;

/// Interim answers to one request.
pub const MAX_INTERIM: u8 = 16;

/// Up to this many bytes are copied out of the buffer they were read into, so that they do not keep all of it.
const COPIED: usize = 4096;

thread_local! {
    /// What is read goes here first. A worker's connections share it: between reads it holds nothing.
    static INPUT: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    /// The header map of a request that was answered: the next answer uses its memory.
    static SPARE: Cell<Option<HeaderMap>> = const { Cell::new(None) };
}

/// Leaves a map's memory for a later answer's header.
pub fn recycle(mut headers: HeaderMap) {
    headers.clear();
    SPARE.set(Some(headers));
}

/// The length of most kept heads; more is given back.
pub fn spare() -> HeaderMap {
    SPARE.take().filter(|map| map.capacity() <= 64).unwrap_or_default()
}

/// What carries a connection's bytes.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + 'static {
    /// What was written may not be on its way before a flush.
    const HOLDS_BACK: bool;

    /// Whether a connection that nothing is expected from is still open and silent, as far as its socket's events tell.
    fn quiet(&mut self) -> bool;
}

impl Wire for TcpStream {
    const HOLDS_BACK: bool = false;

    /// No system call where the events say nothing.
    fn quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self.poll_read_ready(&mut cx) {
            Poll::Pending => true,
            // An event, but was it for bytes? Those would be an answer to nothing.
            Poll::Ready(Ok(())) => {
                matches!(self.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Poll::Ready(Err(_)) => false,
        }
    }
}

impl Wire for TlsStream {
    const HOLDS_BACK: bool = true;

    /// Takes session tickets, which come when they like.
    fn quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(self).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_pending()
    }
}

pub struct Connection<S> {
    stream: S,
    sending: Sending,
    /// Received and not used yet.
    input: Bytes,
    decoder: Decoder,
    asked: Method,
    /// Some of the answer's head came.
    received: bool,
    keep_alive: bool,
    /// It began with a client's address.
    for_one_client: bool,
    write_failed: bool,
    interim: u8,
    /// How much to read next.
    read: usize,
    gauge: Gauge,
}

/// Why a request got no answer on this connection.
#[derive(Debug)]
pub enum Failed {
    /// The connection ended. `received`: after the beginning of an answer.
    Closed { received: bool },
    /// That is no HTTP.
    Malformed,
    /// The target broke off TLS: it tells only now that it does not like our certificate, say.
    Tls,
    /// The request's own body was cut.
    Cut,
    /// The target does not switch to what the request asks for.
    NoUpgrade,
    /// The request cannot be said in the target's protocol.
    Unfit,
}

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Closed,
    Malformed,
}

impl<S: Wire> Connection<S> {
    pub fn new(stream: S, target: Arc<Target>, worker: usize) -> Self {
        Connection {
            stream,
            sending: Sending::default(),
            input: Bytes::new(),
            decoder: Decoder::Done,
            asked: Method::GET,
            received: false,
            keep_alive: true,
            for_one_client: false,
            write_failed: false,
            interim: 0,
            read: READ,
            gauge: Gauge::new(target, worker),
        }
    }

    /// It began with a client's address.
    pub fn keep_from_others(&mut self) {
        self.for_one_client = true;
    }

    /// Moves it between the gauges of idle and busy connections.
    pub fn count_idle(&self, idle: bool) {
        self.gauge.set_idle(idle);
    }

    pub fn target(&self) -> &Arc<Target> {
        self.gauge.target()
    }

    /// Begins a request, which [`Connection::poll_head`] sends.
    pub fn begin(&mut self, request: &Outgoing, body: RequestBody) {
        self.asked.clone_from(&request.head.method);
        self.received = false;
        self.interim = 0;
        self.sending.begin(request, body);
    }

    /// The body of a request that failed, if it can be sent again as it was: nothing of it was taken.
    pub fn take_unsent_body(&mut self) -> Option<RequestBody> {
        self.sending.take_body()
    }

    /// Not a byte of the request went out.
    pub fn untouched(&self) -> bool {
        self.sending.untouched()
    }

    /// Sends the request and waits for its answer's head. The body may go on being sent while the answer comes.
    /// `interim` is shown 1xx answers.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut impl FnMut(Head),
    ) -> Poll<Result<Head, Failed>> {
        if let Err(failed) = self.poll_sending(cx) {
            match failed {
                SendFailed::Body(_) => return Poll::Ready(Err(Failed::Cut)),
                // It may have answered before it stopped listening.
                SendFailed::Socket(_) => self.broken(),
            }
        }
        loop {
            if !self.input.is_empty() {
                match head::parse(&self.input, &self.asked, spare()) {
                    Err(Malformed) => return Poll::Ready(Err(Failed::Malformed)),
                    Ok(Some((head, length))) => {
                        let _ = self.input.split_to(length);
                        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                            self.interim += 1;
                            if self.interim > MAX_INTERIM {
                                return Poll::Ready(Err(Failed::Malformed));
                            }
                            interim(head);
                            continue;
                        }
                        self.decoder = Decoder::new(head.framing);
                        self.keep_alive = head.keep_alive;
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) => {}
                }
            }
            match ready!(self.poll_read(cx)) {
                // What only rustls says.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Poll::Ready(Err(Failed::Tls));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Failed::Closed { received: self.received })),
                Ok(_) => self.received = true,
            }
        }
    }

    /// Goes on with the request. A socket that takes no more now is no failure.
    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Result<(), SendFailed> {
        if self.sending.done() {
            return Ok(());
        }
        match self.sending.poll(&mut self.stream, cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// The rest of the request cannot be sent, and so no other on this connection. An answer may still come.
    fn broken(&mut self) {
        self.sending.give_up();
        self.write_failed = true;
    }

    /// Reads more behind `input`. How many bytes came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        INPUT.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.reserve(self.read.max(self.input.len() + READ / 2));
            buffer.extend_from_slice(&self.input);
            let n = ready!(pin!(self.stream.read_buf(buffer)).poll(cx))?;
            let all = buffer.len();
            if n >= self.read {
                self.read = READ_MOST.min(self.read * 2);
            }
            self.input =
                if all <= COPIED { Bytes::copy_from_slice(buffer) } else { buffer.split_to(all).freeze() };
            Poll::Ready(Ok(n))
        })
    }

    /// Whoever takes the body was slow: less is read at once, so that little waits for it.
    pub fn slow_down(&mut self) {
        self.read = READ;
    }

    /// The next frame of the answer's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.poll_sending(cx).is_err() {
            self.broken();
        }
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(Malformed) => return Poll::Ready(Some(Err(Broken::Malformed))),
                Ok(None) if self.decoder.done() => return Poll::Ready(None),
                Ok(None) => {}
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) if matches!(self.decoder, Decoder::UntilClose) => {
                    self.decoder = Decoder::Done;
                    self.keep_alive = false;
                }
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(Broken::Closed))),
                Ok(_) => {}
            }
        }
    }

    pub fn body_ended(&self) -> bool {
        self.decoder.done()
    }

    pub fn body_size(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// After an answer was read to its end: whether another request can be sent. Bytes behind the answer belong to no
    /// request: whoever sends them cannot be trusted to tell answers apart.
    pub fn settle(&mut self) -> bool {
        self.sending.rest();
        let whole = self.decoder.done() && self.sending.done() && self.input.is_empty();
        self.input = Bytes::new();
        self.read = READ;
        whole && self.keep_alive && !self.write_failed && !self.for_one_client
    }

    /// Whether a kept connection is still open.
    pub fn alive(&mut self) -> bool {
        self.stream.quiet()
    }

    /// After a 101: the socket, and what was read beyond the head.
    pub fn into_upgraded(self) -> (S, Bytes) {
        (self.stream, self.input)
    }
}
