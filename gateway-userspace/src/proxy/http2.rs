//! HTTP/2 to clients (RFC 9113).
//!
//! h2 speaks it. Every stream is a task with a [`ClientState`] of its own, so a request goes the same way as in HTTP/1.1:
//! the same handler, log line, counters and time limits. This module keeps the connection's time, ends it by GOAWAY, and
//! bounds what a client can make us do without asking for anything; [`stream`] is a request and its answer.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use h2::server;
use http::{HeaderMap, HeaderValue, header, request};

use super::{
    connection::{ClientState, Open, unless_over},
    limited,
    reuse::{Reuse, Running as Boxed},
    timer::Wait,
    transport::Transport,
    websocket,
};
use crate::observe::Why;

mod io;
mod stream;

use io::{Io, Seen};

/// Of a stream: what a client may send before the upstream has taken it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Of a stream: what waits for a client to take it.
const SEND_BUFFER: usize = 400 * 1024;
/// Streams that were reset before we got to see them (CVE-2023-44487).
const UNSEEN_RESETS: usize = 20;
/// Streams that we had to reset because of what the client sent.
const OWN_RESETS: usize = 64;
/// Streams that a client may take back, above as many as it let end.
const TAKEN_BACK: u64 = 100;
/// For futures of requests, kept while there are none.
const KEPT_BOXES: usize = 2;
/// How long a client has to answer our last PING before it is closed.
const GOODBYE: Duration = Duration::from_secs(5);

/// What the parts of one connection share.
struct Shared {
    connection: Rc<ClientState>,
    active: Cell<usize>,
    /// Requests that ended, and those that the client took back.
    ended: Cell<u64>,
    taken_back: Cell<u64>,
}

impl Shared {
    fn abused(&self) -> bool {
        self.taken_back.get() > self.ended.get() + TAKEN_BACK
    }
}

/// Serves a connection to its end.
pub async fn serve<S: Transport>(stream: S, open: Open) {
    let state = &open.state;
    state.listener.stats.shards.of(state.worker.index).http2.add(1);
    let shared = Rc::new(Shared {
        connection: state.clone(),
        active: Cell::new(0),
        ended: Cell::new(0),
        taken_back: Cell::new(0),
    });
    let boxes = Reuse::default();
    let max = &state.listener.config.max;
    let seen = Rc::new(Seen::default());
    let idle = state.listener.config.timeout.idle;
    let now = Instant::now();
    state.fresh(now);
    state.timer.start(Wait::Idle, now + idle);
    let mut greeting = server::Builder::new()
        .max_concurrent_streams(max.streams)
        .max_header_list_size(u32::try_from(max.header).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .max_send_buffer_size(SEND_BUFFER)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_connect_protocol()
        .handshake(Io::new(stream, seen.clone()));
    // Before the preface is through there is nobody to say GOAWAY to.
    let Some(Ok(mut connection)) = unless_over(state, |cx| Pin::new(&mut greeting).poll(cx)).await else {
        return;
    };
    seen.keep_end.set(true);
    let mut told_to_close = false;
    // Whether it was for abuse.
    let ended = poll_fn(|cx| {
        loop {
            if state.closing() && !told_to_close {
                match state.is_fresh() {
                    Some(until) => state.timer.start(Wait::Idle, until),
                    None => {
                        told_to_close = true;
                        connection.graceful_shutdown();
                    }
                }
            }
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    state.no_longer_fresh();
                    let state = Rc::new(ClientState::for_stream(state));
                    let stream = boxes.run(stream::serve(state.clone(), request, respond));
                    tokio::task::spawn_local(run(stream, state, Running::new(shared.clone())));
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(is_abuse(&error)),
                Poll::Ready(None) => return Poll::Ready(false),
                Poll::Pending if seen.let_end() => continue,
                Poll::Pending => {}
            }
            if shared.abused() {
                return Poll::Ready(true);
            }
            if shared.active.get() > 0 {
                seen.quiet.set(0);
                state.timer.stop();
                // Without a limit it only remembers whom to wake: to drain, or when the last stream ends.
                return state.timer.poll(cx).map(|()| false);
            }
            if seen.quiet.get() > io::MOST_QUIET {
                return Poll::Ready(true);
            }
            boxes.keep(KEPT_BOXES);
            state.timer.ensure(Wait::Idle, if told_to_close { GOODBYE } else { idle });
            ready!(state.timer.poll(cx));
            if told_to_close {
                return Poll::Ready(false);
            }
            told_to_close = true;
            connection.graceful_shutdown();
            state.timer.start(Wait::Idle, Instant::now() + GOODBYE);
        }
    });
    if ended.await {
        let client = state.client();
        let source = (client.addr, client.is_direct());
        limited::flooded(&state.listener, &state.worker, source, Why::Http2Abuse);
    }
}

/// h2 ended the connection because of what the client made it do.
fn is_abuse(error: &h2::Error) -> bool {
    error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// A stream as a task of the worker.
async fn run<F: Future<Output = ()>>(mut stream: Boxed<F>, state: Rc<ClientState>, running: Running) {
    let mut written = 0;
    poll_fn(|cx| drive(Pin::new(&mut stream), &state, &mut written, cx)).await;
    running.end(&state);
}

/// Polls a stream and keeps its time. A stream that does not react to a limit is stuck in writing to a client that does
/// not read: ending its task resets it.
fn drive<F: Future<Output = ()>>(
    mut stream: Pin<&mut F>,
    state: &ClientState,
    written: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        if stream.as_mut().poll(cx).is_ready() || state.timer.expired().is_some() {
            return Poll::Ready(());
        }
        let now = state.record.borrow().bytes_out();
        let waiting = state.timer.waiting_for();
        let timed = state.in_request.get() && !state.tunnelled.get();
        if timed && (waiting == Wait::Nothing || waiting == Wait::Write && now != *written) {
            *written = now;
            state.timer.start(Wait::Write, Instant::now() + state.listener.config.timeout.body);
        }
        ready!(state.timer.poll(cx));
    }
}

/// Counts a stream as active for as long as it lives.
struct Running(Rc<Shared>);

impl Running {
    fn new(shared: Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        Running(shared)
    }

    /// The stream has ended; a request that is still at hand and was not cut by us was taken back by the client.
    fn end(&self, state: &ClientState) {
        let taken_back =
            !state.tunnelled.get() && state.in_request.get() && state.record.borrow().unfinished();
        let counter = if taken_back { &self.0.taken_back } else { &self.0.ended };
        counter.set(counter.get() + 1);
        if self.0.abused() {
            self.0.connection.timer.wake();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        if self.0.active.get() == 0 {
            // Its idle time begins.
            self.0.connection.timer.wake();
        }
    }
}

/// As an HTTP/1.1 client would have sent it: with `Host` (RFC 9113 section 8.3.1) and one `Cookie` (section 8.2.3).
fn as_http1(request: &mut request::Parts) {
    let authority = request.uri.authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    let headers = &mut request.headers;
    if let (Some(authority), false) = (authority, headers.contains_key(header::HOST)) {
        headers.insert(header::HOST, authority);
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, cookie);
    }
    websocket::as_upgrade(request);
}

/// What h2 leaves to us of a request that goes on as HTTP/1.1: names are tokens (RFC 9113 section 8.2.1, RFC 9110
/// section 5.1), and its length, which is the framing there, is true (RFC 9113 section 8.1.1).
pub fn check(headers: &HeaderMap, ended: bool) -> Result<(), Why> {
    // The one character that names may have here and not there.
    if headers.keys().any(|name| name.as_str().contains('"')) {
        return Err(Why::BadRequest);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, more) = (lengths.next(), lengths.next());
    let Some(length) = first else { return Ok(()) };
    let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    let zero = length.as_bytes().iter().all(|digit| *digit == b'0');
    if digits && more.is_none() && (zero || !ended) { Ok(()) } else { Err(Why::BadRequest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens() {
        let with = |name: &'static str| {
            let name = http::HeaderName::from_lowercase(name.as_bytes()).unwrap();
            check(&HeaderMap::from_iter([(name, HeaderValue::from_static("1"))]), true)
        };
        assert!(with("!#$%&'*+-.^_`|~0").is_ok() && with("\"x\"").is_err());
    }

    #[test]
    fn a_length_is_one_number_and_none_without_a_body() {
        let with = |lengths: &[&'static str], ended| {
            let mut headers = HeaderMap::new();
            for length in lengths {
                headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            check(&headers, ended).is_ok()
        };
        assert!(with(&[], true) && with(&["0"], true) && with(&["12"], false));
        assert!(
            !with(&["12"], true) && !with(&["1", "1"], false) && !with(&["+1"], false) && !with(&[""], false)
        );
    }
}
