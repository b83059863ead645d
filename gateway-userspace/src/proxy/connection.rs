//! A client connection from accept to close.
//!
//! It is one task. hyper's server side parses requests and calls [`handler::begin`] for each; around it this module
//! keeps the time, refuses what cannot be parsed, lets idle connections go to sleep without buffers, and carries
//! upgraded ones over into a tunnel.

use std::{
    cell::{Cell, Ref, RefCell},
    convert::Infallible,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{Request, Response, Version, header};
use http_body::Body;
use hyper::{ext::ReasonPhrase, server::conn::http1, service::service_fn};
use tokio::{io::Interest, net::TcpStream};

use super::{
    body::ResponseBody,
    client::{Client, Manner, Origin},
    client_io::ClientIo,
    exchange::{Exchange, Record},
    handler::{self, Begun},
    inbound::Inbound,
    incoming::Incoming,
    limited, problem, real_ip,
    reuse::{Perhaps, Reuse},
    timer::{Expired, Timer, Wait},
    transport::Transport,
    tunnel::{self, Tunnel},
    worker::Worker,
};
use crate::{
    limit::{Held, Sources},
    observe::{
        Why,
        stats::{Handshake, TlsVersion},
    },
    runtime::Listener,
};

/// After this long without a request a connection gives its buffers back and sleeps.
const SLEEP_AFTER: Duration = Duration::from_millis(250);

/// A connection that is to end still gets its first answer if its request comes so soon: its client could not know.
const FRESH: Duration = Duration::from_secs(1);

/// How a client knows where an answer ends, as hyper sends it (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delimited {
    #[default]
    Length,
    Chunks,
    /// By the connection's end.
    Close,
}

impl Delimited {
    fn of(version: Version, answer: &Response<ResponseBody>) -> Self {
        let told = || answer.headers().contains_key(header::CONTENT_LENGTH);
        match answer.body().size_hint().exact() {
            Some(_) => Delimited::Length,
            None if told() => Delimited::Length,
            None if version == Version::HTTP_11 => Delimited::Chunks,
            None => Delimited::Close,
        }
    }
}

/// What the parts of one client connection share. All of them run in the connection's task.
pub struct ClientState {
    pub worker: Rc<Worker>,
    pub listener: Arc<Listener>,
    client: RefCell<Rc<Client>>,
    pub timer: Timer,
    /// Bytes of the current request's body so far.
    pub bytes_in: Cell<u64>,
    /// Time spent waiting for the current answer's body.
    pub body_waited: Cell<Duration>,
    /// The current request's body was not read to its end.
    pub body_unread: Cell<bool>,
    /// The connection ends with the current request, which said so.
    pub last_request: Cell<bool>,
    /// Nothing follows what is still to be written but the connection's end.
    pub last_write: Cell<bool>,
    /// hyper has written all that there is of answers.
    pub answer_out: Cell<bool>,
    /// The current request's answer.
    pub delimited: Cell<Delimited>,
    /// The current request has no answer yet.
    pub awaiting_head: Cell<bool>,
    pub in_request: Cell<bool>,
    /// The client did not take at once what was written.
    pub write_blocked: Cell<bool>,
    /// Interim answers to write, in wire format.
    pub early: RefCell<Vec<u8>>,
    /// Those to send on a stream.
    pub interim: RefCell<Vec<Response<()>>>,
    pub tunnel: RefCell<Option<Tunnel>>,
    /// A stream that has become a tunnel, which goes on after it.
    pub tunnelled: Cell<bool>,
    /// The request at hand.
    pub record: RefCell<Record>,
    /// What an HTTP/1.1 client sends, as it came.
    pub inbound: RefCell<Inbound>,
    cut: Cell<Option<Why>>,
    started: Cell<Option<Instant>>,
    /// When the last piece came of a head in several.
    heard: Cell<Option<Instant>>,
    closing: Cell<bool>,
    /// No request has come yet; until then one is waited for even when the connection is to end.
    fresh_until: Cell<Option<Instant>>,
}

impl ClientState {
    fn new(worker: Rc<Worker>, listener: Arc<Listener>, peer: SocketAddr) -> Self {
        let client = Rc::new(Client::new(Origin::peer(peer), Manner::PLAIN_HTTP1));
        ClientState::of(worker, listener, client)
    }

    /// For one stream of an HTTP/2 connection: it is to the stream's request what the connection's is in HTTP/1.1.
    pub fn for_stream(connection: &ClientState) -> Self {
        let ClientState { worker, listener, .. } = connection;
        ClientState::of(worker.clone(), listener.clone(), connection.kept_client())
    }

    fn of(worker: Rc<Worker>, listener: Arc<Listener>, client: Rc<Client>) -> Self {
        ClientState {
            worker,
            listener,
            client: RefCell::new(client),
            timer: Timer::new(),
            bytes_in: Cell::new(0),
            body_waited: Cell::new(Duration::ZERO),
            body_unread: Cell::new(false),
            last_request: Cell::new(false),
            last_write: Cell::new(false),
            answer_out: Cell::new(true),
            delimited: Cell::default(),
            awaiting_head: Cell::new(false),
            in_request: Cell::new(false),
            write_blocked: Cell::new(false),
            early: RefCell::default(),
            interim: RefCell::default(),
            tunnel: RefCell::default(),
            tunnelled: Cell::new(false),
            record: RefCell::default(),
            inbound: RefCell::default(),
            cut: Cell::new(None),
            started: Cell::new(None),
            heard: Cell::new(None),
            closing: Cell::new(false),
            fresh_until: Cell::new(None),
        }
    }

    /// It can take its first request from now on.
    pub fn fresh(&self, now: Instant) {
        self.fresh_until.set(Some(now + FRESH));
    }

    /// Its first request is here.
    pub fn no_longer_fresh(&self) {
        self.fresh_until.set(None);
    }

    /// Until when its first request is worth waiting for.
    pub fn is_fresh(&self) -> Option<Instant> {
        self.fresh_until.get().filter(|until| Instant::now() < *until)
    }

    /// Who it is.
    pub fn client(&self) -> Ref<'_, Client> {
        Ref::map(self.client.borrow(), |client| &**client)
    }

    pub fn set_client(&self, client: Client) {
        self.client.replace(Rc::new(client));
    }

    /// As [`ClientState::client`], to be kept.
    pub fn kept_client(&self) -> Rc<Client> {
        self.client.borrow().clone()
    }

    /// The client sent something; the first bytes of a request start its clock.
    pub fn received(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.timer.waiting_for() {
            Wait::Idle => {
                let now = Instant::now();
                self.started.set(Some(now));
                self.heard.set(None);
                self.no_longer_fresh();
                self.timer.start(Wait::Header, now + self.listener.config.timeout.header);
            }
            // The head comes in pieces.
            Wait::Header => self.heard.set(Some(Instant::now())),
            _ => {}
        }
        self.inbound.borrow_mut().received(bytes);
    }

    /// When the last of its head came, if it came in pieces.
    pub fn take_heard(&self) -> Option<Instant> {
        self.heard.take()
    }

    /// When the request at hand began. A pipelined one began when its turn came.
    pub fn request_started(&self) -> Instant {
        self.in_request.set(true);
        self.started.take().unwrap_or_else(Instant::now)
    }

    /// Some of a request is here, which has not begun.
    pub fn has_unbegun(&self) -> bool {
        !self.in_request.get() && self.inbound.borrow().has_unbegun()
    }

    /// The request at hand is here whole, and not answered to its end.
    pub fn owes_answer(&self) -> bool {
        self.in_request.get() && self.inbound.borrow().is_whole()
    }

    /// Bytes of its body that were handed over. `None`: it has not begun.
    pub fn answer_so_far(&self) -> Option<u64> {
        let record = self.record.borrow();
        record.has_status().then(|| record.bytes_out())
    }

    pub fn request_ended(&self) {
        self.in_request.set(false);
        self.answer_out.set(false);
        self.inbound.borrow_mut().answered();
    }

    /// Notes why the request at hand is cut, by whoever knows.
    pub fn cut(&self, why: Why) {
        self.cut.set(Some(why));
    }

    pub fn take_cut(&self) -> Option<Why> {
        self.cut.take()
    }

    /// How long until an idle connection is looked at again: it is put to sleep, or closed.
    pub fn first_idle(&self) -> Duration {
        self.listener.config.timeout.idle.min(SLEEP_AFTER)
    }

    /// Ends the connection after the request at hand.
    pub fn close_soon(&self) {
        self.closing.set(true);
        self.timer.wake();
    }

    /// Whether it is to end, and at a point where hyper would do so without cutting a request: before one has come whole
    /// it would.
    fn may_close(&self) -> bool {
        if !self.closing() {
            return false;
        }
        if self.timer.waiting_for() != Wait::Idle {
            return self.in_request.get();
        }
        match self.is_fresh() {
            Some(until) => self.timer.start(Wait::Idle, until),
            None => return true,
        }
        false
    }

    pub fn closing(&self) -> bool {
        self.closing.get() || self.worker.draining()
    }
}

/// Counts an open connection for as long as it lives.
pub struct Open {
    pub state: Rc<ClientState>,
    slot: usize,
    _held: Option<Box<Held>>,
}

/// A connection that may be served.
pub struct Admitted {
    pub listener: Arc<Listener>,
    /// Its place among those of its source.
    held: Option<Box<Held>>,
}

impl Open {
    pub fn new(Admitted { listener, held }: Admitted, worker: Rc<Worker>, peer: SocketAddr) -> Self {
        let state = Rc::new(ClientState::new(worker, listener, peer));
        state.listener.stats.shards.of(state.worker.index).accepted.add(1);
        let slot = state.worker.add_client(&state);
        Open { state, slot, _held: held }
    }

    pub fn listener(&self) -> &Listener {
        &self.state.listener
    }

    /// The index of its worker.
    pub fn worker(&self) -> usize {
        self.state.worker.index
    }

    /// After it turned out who it is, and how it speaks.
    pub fn set_client(&self, client: Client) {
        self.state.set_client(client);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A tunnel that never ran holds its request, which holds this state.
        self.state.tunnel.take();
        self.state.worker.remove_client(self.slot);
        self.state.listener.stats.leave();
    }
}

/// Takes a place among the listener's `max.connections`, and those of one source; the end of the [`Open`] gives it back.
pub fn admit(listener: Arc<Listener>, peer: SocketAddr, worker: &Worker) -> Option<Admitted> {
    let held = match &listener.sources {
        Some(sources) => {
            let source = (peer.ip(), true);
            // A flood of handshakes ends here, before anything is made for a connection.
            let shakes = listener.tls.is_some() && !listener.hears_of_clients(peer);
            if shakes && !may_shake(sources, &listener, worker, source) {
                return None;
            }
            hold(sources, &listener, worker, source)?
        }
        None => None,
    };
    listener.stats.admit(listener.config.max.connections, worker.index).then_some(Admitted { listener, held })
}

/// A place among the connections of a source. `None`: it has none left.
#[allow(clippy::option_option, reason = "not every connection needs a place")]
pub fn hold(
    sources: &Sources,
    listener: &Listener,
    worker: &Worker,
    (source, direct): (IpAddr, bool),
) -> Option<Option<Box<Held>>> {
    let held = sources.enter(&worker.snapshot().limit_store, source);
    held.inspect_err(|_| limited::flooded(listener, worker, (source, direct), Why::SourceConnections)).ok()
}

/// Whether there is a handshake left for the client: before anything is computed for it.
pub fn may_shake(
    sources: &Sources,
    listener: &Listener,
    worker: &Worker,
    (source, direct): (IpAddr, bool),
) -> bool {
    let may = sources.may_shake(&worker.snapshot().limit_store, source);
    if !may {
        listener.stats.shards.of(worker.index).handshake(TlsVersion::Unknown, Handshake::Limited);
        limited::flooded(listener, worker, (source, direct), Why::SourceHandshakes);
    }
    may
}

/// Reset rather than linger: there are too many connections as it is.
pub fn turn_away(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// How a spell of serving ended.
enum End<S> {
    /// Nothing more to do; what the client may still send is of no interest.
    Closed(S),
    /// Idle and without unread bytes: wait for the next request without hyper.
    Sleep(S),
    /// The request could not be read.
    Refused(S, Why),
    Upgraded(S, bytes::Bytes),
    /// The client is gone, or treated as if it were.
    Dropped(S),
}

/// Serves an admitted connection of a listener that is plain HTTP/1.1, to its end.
pub async fn serve(stream: TcpStream, peer: SocketAddr, admitted: Admitted, worker: Rc<Worker>) {
    serve_http1(stream, Open::new(admitted, worker, peer)).await;
}

/// Serves HTTP/1.1 to the connection's end.
pub async fn serve_http1<S: Transport>(mut stream: S, open: Open) {
    let state = &open.state;
    state.listener.stats.shards.of(state.worker.index).http1.add(1);
    let mut awake = S::HOLDS_BYTES;
    let opened = Instant::now();
    state.fresh(opened);
    state.timer.start(Wait::Idle, opened + state.listener.config.timeout.idle);
    loop {
        if !std::mem::take(&mut awake) && !readable(stream.socket(), state).await {
            return stream.say_goodbye();
        }
        match serve_awake(stream, state).await {
            End::Sleep(idle) => {
                stream = idle;
                state.inbound.take();
                state.record.take();
                let left = state.listener.config.timeout.idle.saturating_sub(state.first_idle());
                state.timer.start(Wait::Idle, Instant::now() + left);
            }
            End::Closed(mut stream) => {
                if state.body_unread.get() {
                    linger(stream).await;
                } else {
                    stream.say_goodbye();
                }
                return;
            }
            End::Refused(stream, why) => return refuse(stream, state, why).await,
            End::Upgraded(stream, read) => {
                let tunnel = state.tunnel.take();
                if let Some(tunnel) = tunnel {
                    tunnel::run(tunnel, stream, read).await;
                }
                return;
            }
            End::Dropped(stream) => {
                if state.delimited.get() == Delimited::Close {
                    // Or it would take what it has for the whole answer.
                    turn_away(stream.socket());
                }
                return;
            }
        }
    }
}

/// Waits for the client's next bytes. False when there will be none: closed, idle for too long, draining.
async fn readable(stream: &TcpStream, state: &ClientState) -> bool {
    let mut ready = std::pin::pin!(stream.ready(Interest::READABLE));
    unless_over(state, |cx| ready.as_mut().poll(cx).map(drop)).await.is_some()
}

/// Waits for the client to do something. `None` when that takes too long, or the connection is to end.
pub async fn unless_over<T>(
    state: &ClientState,
    mut something: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = something(cx) {
            return Poll::Ready(Some(done));
        }
        if state.closing() {
            let Some(until) = state.is_fresh() else { return Poll::Ready(None) };
            state.timer.start(Wait::Idle, until);
        }
        state.timer.poll(cx).map(|()| None)
    })
    .await
}

/// Serves requests until the connection ends or has been idle for a while.
async fn serve_awake<S: Transport>(stream: S, state: &Rc<ClientState>) -> End<S> {
    let service_state = state.clone();
    let reuse = Reuse::default();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (head, body) = request.into_parts();
        let (state, version) = (service_state.clone(), head.version);
        state.delimited.take();
        let mut answering = match handler::begin(service_state.clone(), head, Incoming::Http1(body)) {
            Begun::Answered(response) => Perhaps::done(response),
            Begun::Onward(onward) => Perhaps::Running(reuse.run(onward.finish())),
        };
        poll_fn(move |cx| {
            let mut answer = ready!(Pin::new(&mut answering).poll(cx));
            state.delimited.set(Delimited::of(version, &answer));
            if answer.status().canonical_reason().is_none() {
                // hyper would make one up.
                answer.extensions_mut().insert(ReasonPhrase::from_static(b""));
            }
            Poll::Ready(Ok::<_, Infallible>(answer))
        })
    });
    let mut connection = http1::Builder::new()
        .half_close(false)
        .max_buf_size(state.listener.config.max.header.max(8192))
        .max_header_size(state.listener.config.max.header)
        .serve_connection(ClientIo::new(stream, state.clone()), service);
    let mut told_to_close = false;
    let outcome = poll_fn(|cx| {
        loop {
            if !told_to_close && state.may_close() {
                told_to_close = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Outcome::Ended(result));
            }
            if !told_to_close && state.may_close() {
                // A request has begun: its answer says that it is the last.
                continue;
            }
            if state.timer.expired().is_some() {
                // The request at hand was told and did not react: its part of the connection is stuck.
                return Poll::Ready(Outcome::Expired(Wait::Write));
            }
            ready!(state.timer.poll(cx));
            // Any other limit is the business of the request at hand, which is polled next.
            if let Some(Expired::Wait(wait @ (Wait::Idle | Wait::Header | Wait::Write))) =
                state.timer.expired()
            {
                return Poll::Ready(Outcome::Expired(wait));
            }
        }
    })
    .await;
    let unbegun = state.has_unbegun();
    let parts = connection.into_parts();
    let stream = parts.io.stream;
    match outcome {
        Outcome::Ended(Ok(())) if state.tunnel.borrow().is_some() => End::Upgraded(stream, parts.read_buf),
        Outcome::Ended(Ok(())) => End::Closed(stream),
        Outcome::Ended(Err(error)) if state.in_request.get() || !error.is_parse() => {
            if unbegun {
                // The client is gone in the middle of a head.
                real_ip::forget(state);
                drop(Exchange::begin(state.clone(), None));
            }
            End::Dropped(stream)
        }
        Outcome::Ended(Err(error)) if error.is_parse_too_large() => End::Refused(stream, too_large(state)),
        Outcome::Ended(Err(_)) => End::Refused(stream, Why::BadRequest),
        Outcome::Expired(Wait::Header) => End::Refused(stream, Why::HeaderTimeout),
        Outcome::Expired(Wait::Idle) if parts.read_buf.is_empty() => {
            if state.first_idle() < state.listener.config.timeout.idle {
                End::Sleep(stream)
            } else {
                End::Closed(stream)
            }
        }
        Outcome::Expired(_) => End::Dropped(stream),
    }
}

/// A target that is too long is told from the rest of a head (RFC 9112 section 3).
fn too_large(state: &ClientState) -> Why {
    let inbound = state.inbound.borrow();
    let line = inbound.head().trim_ascii_start();
    // hyper takes no longer ones.
    let most = state.listener.config.max.header.min(usize::from(u16::MAX));
    let ends = line.iter().take(most).any(|byte| *byte == b'\n');
    if ends { Why::HeaderTooLarge } else { Why::UriTooLong }
}

enum Outcome {
    Ended(hyper::Result<()>),
    Expired(Wait),
}

/// Answers what is no request, or none for here, and ends the connection.
pub async fn refuse(mut stream: impl Transport, state: &Rc<ClientState>, why: Why) {
    if problem::write_raw(&mut stream, state, why).await {
        linger(stream).await;
    }
}

/// Closes so that the client gets to read the answer: closing with unread bytes would reset the connection.
async fn linger(mut stream: impl Transport) {
    const PATIENCE: Duration = Duration::from_secs(2);
    const MOST: usize = 1 << 20;
    stream.say_goodbye();
    let stream = stream.socket();
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    let drain = async {
        let mut scratch = vec![0; 16 * 1024];
        let mut left = MOST;
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut scratch) {
                Ok(0) => return,
                Ok(n) => left = left.saturating_sub(n),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, drain).await;
}
