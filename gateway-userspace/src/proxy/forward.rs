//! Getting an answer from an upstream: pick a target, find or open a connection, send, wait; try another where safe.
//!
//! Safe means: no byte of the request was sent; or it has no body, its method is idempotent, and a kept connection
//! closed without answering, as an upstream may do at any time (RFC 9112 section 9.3.1, RFC 9110 section 9.2.2).

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;

use super::{
    body::RequestBody,
    connection::ClientState,
    exchange::Exchange,
    timer::{Expired, Wait},
};
use crate::{
    balance::Tried,
    observe::{
        Why,
        stats::{Connect, Retry},
    },
    upstream::{
        Target, Upstream,
        connection::{Connection, Failed, connect},
    },
};

/// An answer's head, its body to be read, and the connection that it comes on.
pub struct Answer {
    pub response: Response<Incoming>,
    pub connection: Box<Connection>,
}

/// What one target made of the request.
enum Attempt {
    Answered(Answer),
    /// No connection could be made: the request is whole and may go elsewhere.
    NotConnected(Why),
    Failed(Why),
}

/// The request is taken out of `request` when it is sent, and put back when it turns out that it was not.
pub async fn send(
    upstream: &Upstream,
    exchange: &Exchange,
    request: &mut Option<Request<RequestBody>>,
) -> Result<Answer, Why> {
    let state = &*exchange.state;
    let mut tried = Tried::default();
    let mut failed = None;
    for _ in 0..=upstream.config.retry.tries {
        let Some(active) = upstream.pick(state.client().addr, &mut tried) else { break };
        if failed.is_some() {
            upstream.stats.shards.of(state.worker.index).retry(Retry::Connect);
        }
        let target = active.target().clone();
        exchange.try_target(active);
        match try_target(upstream, &target, exchange, request).await {
            Attempt::Answered(answer) => return Ok(answer),
            Attempt::Failed(why) => return Err(why),
            Attempt::NotConnected(why) => failed = Some(why),
        }
    }
    Err(failed.unwrap_or(Why::NoHealthyTarget))
}

/// One target: a kept connection first, a fresh one if that turns out to be closed or if there is none.
async fn try_target(
    upstream: &Upstream,
    target: &Arc<Target>,
    exchange: &Exchange,
    request: &mut Option<Request<RequestBody>>,
) -> Attempt {
    let worker = &exchange.state.worker;
    let mut connection = worker.pool.take(target);
    loop {
        let kept = connection.is_some();
        let on = match connection.take() {
            Some(kept) => kept,
            // Boxed: it is rare, and would make every request's future larger.
            None => match Box::pin(open(upstream, target, exchange)).await {
                Ok(fresh) => fresh,
                Err(attempt) => return attempt,
            },
        };
        match on_connection(upstream, exchange, on, request, kept).await {
            Sent::Answered(answer) => return Attempt::Answered(answer),
            Sent::Failed(why) => return Attempt::Failed(why),
            Sent::Again if kept => upstream.stats.shards.of(worker.index).retry(Retry::Stale),
            // A fresh connection that takes nothing is no different from one that is refused.
            Sent::Again => return Attempt::NotConnected(Why::UpstreamConnectRefused),
        }
    }
}

/// Opens a connection, within `timeout.connect`.
async fn open(
    upstream: &Upstream,
    target: &Arc<Target>,
    exchange: &Exchange,
) -> Result<Box<Connection>, Attempt> {
    let state = &*exchange.state;
    let began = Instant::now();
    state.timer.start(Wait::Connect, began + upstream.config.timeout.connect);
    let worker = state.worker.index;
    let made = state.timer.bound(async {
        let stream = connect(target.addr).await?;
        Connection::handshake(stream, target.clone(), worker).await.map_err(io::Error::other)
    });
    let made = made.await;
    exchange.connected(began.elapsed());
    let shard = upstream.stats.shards.of(worker);
    match made {
        Ok(Ok(connection)) => {
            shard.connect(Connect::Ok);
            Ok(Box::new(connection))
        }
        Ok(Err(error)) => {
            shard.connect(Connect::Refused);
            tracing::debug!(upstream = %upstream.name, target = %target.name, %error, "cannot connect");
            Err(Attempt::NotConnected(Why::UpstreamConnectRefused))
        }
        Err(Expired::Total) => Err(Attempt::Failed(Why::UpstreamTotalTimeout)),
        Err(Expired::Wait(_)) => {
            shard.connect(Connect::Timeout);
            Err(Attempt::NotConnected(Why::UpstreamConnectTimeout))
        }
    }
}

enum Sent {
    Answered(Answer),
    /// It can be sent again, and is back in its place: nothing was sent of it, or it may be repeated and got no answer.
    Again,
    Failed(Why),
}

async fn on_connection(
    upstream: &Upstream,
    exchange: &Exchange,
    mut connection: Box<Connection>,
    request: &mut Option<Request<RequestBody>>,
    kept: bool,
) -> Sent {
    let state = &*exchange.state;
    let Some(sending) = request.take() else { return Sent::Failed(Why::UpstreamReset) };
    let now = Instant::now();
    exchange.sent(now);
    state.awaiting_head.set(true);
    state.timer.start(Wait::FirstByte, now + upstream.config.timeout.first_byte);
    let repeatable = kept && sending.body().is_empty() && is_idempotent(sending.method());
    let hints = sending.extensions().get::<EarlyHints>().cloned();
    let answer = connection.request(sending, repeatable, || {
        if let Some(hints) = &hints {
            hints.move_to(state);
        }
        state.timer.take_expired()
    });
    let answer = answer.await;
    state.awaiting_head.set(false);
    match answer {
        Ok(Ok(response)) => {
            if let Some(hints) = &hints {
                hints.move_to(state);
            }
            state.timer.stop();
            Sent::Answered(Answer { response, connection })
        }
        Ok(Err(failed)) => not_answered(state, &connection, failed, request),
        Err(expired) => Sent::Failed(match expired {
            Expired::Total => Why::UpstreamTotalTimeout,
            Expired::Wait(Wait::RequestBody) => Why::BodyTimeout,
            Expired::Wait(_) => Why::UpstreamFirstByteTimeout,
        }),
    }
}

fn not_answered(
    state: &ClientState,
    connection: &Connection,
    failed: Failed,
    request: &mut Option<Request<RequestBody>>,
) -> Sent {
    if let Some(why) = state.take_cut() {
        return Sent::Failed(why);
    }
    *request = failed.unsent.or_else(|| connection.unanswered().and_then(|bytes| rebuild(&bytes)));
    if request.is_some() {
        return Sent::Again;
    }
    let error = &failed.error;
    tracing::debug!(target = %connection.target().name, %error, "no answer");
    let garbage = error.is_parse() || error.is_parse_too_large();
    Sent::Failed(if garbage { Why::UpstreamBadResponse } else { Why::UpstreamReset })
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

/// A request without a body, from the bytes that were sent of it.
fn rebuild(bytes: &[u8]) -> Option<Request<RequestBody>> {
    let mut fields = vec![httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = parsed.path?.parse::<Uri>().ok()?;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(request)
}

/// 103 answers as they come, in wire format. hyper wants a callback that could run on any thread.
#[derive(Clone, Default)]
struct EarlyHints(Arc<Mutex<Vec<u8>>>);

impl EarlyHints {
    fn move_to(&self, state: &ClientState) {
        state.early.borrow_mut().append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Makes the upstream's 103 answers (RFC 8297) go on to the client. The final answer is not affected.
pub fn collect_early_hints(request: &mut Request<RequestBody>) {
    let hints = EarlyHints::default();
    let into = hints.0.clone();
    hyper::ext::on_informational(request, move |interim| {
        if interim.status() != http::StatusCode::EARLY_HINTS {
            return;
        }
        let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
        into.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
        for (name, value) in interim.headers() {
            into.extend_from_slice(name.as_ref());
            into.extend_from_slice(b": ");
            into.extend_from_slice(value.as_bytes());
            into.extend_from_slice(b"\r\n");
        }
        into.extend_from_slice(b"\r\n");
    });
    request.extensions_mut().insert(hints);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_rebuilt_from_its_bytes() {
        let request = rebuild(b"GET /a?b=c HTTP/1.1\r\nhost: x\r\nx-a: 1\r\nx-a: 2\r\n\r\n").unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers().get_all("x-a").iter().count(), 2);
        assert!(request.body().is_empty());
        assert!(rebuild(b"GET / HTTP/1.1\r\nhost: x\r\n").is_none());
    }

    #[test]
    fn only_methods_that_may_be_repeated_are() {
        assert!(is_idempotent(&Method::GET) && is_idempotent(&Method::DELETE));
        assert!(!is_idempotent(&Method::POST) && !is_idempotent(&Method::PATCH));
    }
}
