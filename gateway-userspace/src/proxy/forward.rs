//! Getting an answer from an upstream: pick a target, find or open a connection, send, wait; try another where safe.
//!
//! Safe means: no byte of the request was sent; or it has no body, its method is idempotent, and a kept connection
//! closed without answering, as an upstream may do at any time (RFC 9112 section 9.3.1, RFC 9110 section 9.2.2).

use std::{sync::Arc, time::Instant};

use http::{Method, Response, StatusCode, Version, request};

use super::{
    body::RequestBody,
    careful,
    connection::ClientState,
    exchange::Exchange,
    headers,
    timer::{Expired, Wait},
};
use crate::{
    balance::Tried,
    config::model::{RetryOn, UpstreamProtocol},
    observe::{
        Why,
        stats::{Connect, Retry},
    },
    runtime::Route,
    upstream::{
        Target, Upstream,
        http1::{self, Failed, Head, Outgoing},
        link::Link,
    },
};

/// Kept connections to a target that a request finds closed one after another, or streams that are refused.
const MOST_STALE: u32 = 4;

/// An answer's head, and the connection that its body comes on.
pub struct Answer {
    pub head: Head,
    pub connection: Box<Link>,
}

/// What one target made of the request.
pub(super) enum Attempt {
    Answered(Answer),
    /// No connection could be made: the request is whole and may go elsewhere.
    NotConnected(Why),
    Failed(Why),
}

/// A request on its way, and what it needs on all of its ways.
pub(super) struct Sent<'a> {
    pub upstream: &'a Upstream,
    pub exchange: &'a Exchange,
    pub request: &'a Outgoing,
    /// Taken when it is sent, and put back when it turns out that it was not.
    pub body: &'a mut RequestBody,
    /// Who gets the upstream's 103 answers.
    hints: Option<&'a ClientState>,
    /// What is retried, and at how many other targets.
    pub retries: (RetryOn, u32),
}

pub async fn send(
    upstream: &Upstream,
    exchange: &Exchange,
    request: &Outgoing,
    body: &mut RequestBody,
    hints: Option<&ClientState>,
) -> Result<Answer, Why> {
    let state = &*exchange.state;
    let retries = exchange.retries(upstream);
    let mut sent = Sent { upstream, exchange, request, body, hints, retries };
    let own = (retries.0.is_special() && retries.1 > 0).then_some(&state.worker.plain);
    if let Some(extras) = upstream.extras.as_deref().or(own) {
        // Boxed: the future of the plain way stays small.
        return Box::pin(careful::send(sent, extras)).await;
    }
    let mut tried = Tried::default();
    let mut failed = None;
    for _ in 0..=retries.1 {
        let Some(active) = upstream.pick(state.client().addr, &mut tried) else { break };
        if failed.is_some() {
            upstream.stats.shards.of(state.worker.index).retry(Retry::Connect);
        }
        let target = active.target().clone();
        exchange.try_target(active);
        match sent.on_target(&target).await {
            Attempt::Answered(answer) => return Ok(answer),
            Attempt::Failed(why) => return Err(why),
            Attempt::NotConnected(why) => failed = Some(why),
        }
    }
    Err(failed.unwrap_or(Why::NoHealthyTarget))
}

impl Sent<'_> {
    /// One target: a kept connection first, a fresh one if that turns out to be closed or if there is none.
    pub async fn on_target(&mut self, target: &Arc<Target>) -> Attempt {
        let worker = &self.exchange.state.worker;
        // A connection that began with a client's address is nobody else's; and none that began without is good here.
        let mut connection = match self.upstream.config.proxy_protocol {
            None => worker.pool.take(target),
            Some(_) => None,
        };
        let mut again = 0;
        loop {
            let taken = connection.is_some();
            let on = match connection.take() {
                Some(kept) => kept,
                // Boxed: it is rare, and would make every request's future larger.
                None => match Box::pin(open(self.upstream, target, self.exchange)).await {
                    Ok(fresh) => fresh,
                    Err(attempt) => return attempt,
                },
            };
            let kept = taken || on.shared();
            let used = taken || on.proven();
            match self.on_connection(on, used).await {
                Outcome::Answered(answer) => return Attempt::Answered(answer),
                Outcome::Failed(why) => return Attempt::Failed(why),
                Outcome::Again if kept && again < MOST_STALE => {
                    again += 1;
                    self.upstream.stats.shards.of(worker.index).retry(Retry::Stale);
                }
                Outcome::Again if kept => return Attempt::NotConnected(Why::UpstreamReset),
                // A fresh connection that takes nothing is no different from one that is refused.
                Outcome::Again => return Attempt::NotConnected(Why::UpstreamConnectRefused),
            }
        }
    }

    async fn on_connection(&mut self, mut connection: Box<Link>, used: bool) -> Outcome {
        let state = &*self.exchange.state;
        let now = Instant::now();
        self.exchange.sent(now);
        state.awaiting_head.set(true);
        state.timer.start(Wait::FirstByte, now + self.exchange.first_byte_limit(self.upstream));
        let body = std::mem::replace(self.body, RequestBody::Empty);
        let repeatable = used && body.is_empty() && is_idempotent(&self.request.head.method);
        let hints = self.hints;
        let answer = connection.request(
            self.request,
            body,
            || state.timer.take_expired(),
            |head| {
                if let (StatusCode::EARLY_HINTS, Some(state)) = (head.status, hints) {
                    early_hints(head, state);
                }
            },
        );
        let answer = answer.await;
        state.awaiting_head.set(false);
        match answer {
            Ok(Ok(head)) => {
                state.timer.stop();
                Outcome::Answered(Answer { head, connection })
            }
            Ok(Err(failed)) => self.not_answered(&mut connection, &failed, repeatable),
            Err(expired) => Outcome::Failed(match expired {
                Expired::Total => Why::UpstreamTotalTimeout,
                Expired::Wait(Wait::RequestBody) => Why::BodyTimeout,
                Expired::Wait(_) => Why::UpstreamFirstByteTimeout,
            }),
        }
    }

    fn not_answered(&mut self, connection: &mut Link, failed: &Failed, repeatable: bool) -> Outcome {
        if let Some(why) = self.exchange.state.take_cut() {
            return Outcome::Failed(why);
        }
        tracing::debug!(target = %connection.target().name, ?failed, "no answer");
        match failed {
            Failed::Closed { received: false } => {
                if connection.untouched()
                    && let Some(body) = connection.take_unsent_body()
                {
                    *self.body = body;
                    return Outcome::Again;
                }
                if repeatable { Outcome::Again } else { Outcome::Failed(Why::UpstreamReset) }
            }
            Failed::Closed { received: true } | Failed::Cut => Outcome::Failed(Why::UpstreamReset),
            Failed::Malformed => Outcome::Failed(Why::UpstreamBadResponse),
            Failed::Tls => Outcome::Failed(Why::UpstreamTls),
            Failed::Unfit => Outcome::Failed(Why::BadRequest),
            Failed::NoUpgrade => Outcome::Failed(Why::UpstreamNoUpgrade),
        }
    }
}

enum Outcome {
    Answered(Answer),
    /// It can be sent again: nothing was sent of it, or it may be repeated and got no answer.
    Again,
    Failed(Why),
}

/// Opens a connection, within `timeout.connect`.
async fn open(upstream: &Upstream, target: &Arc<Target>, exchange: &Exchange) -> Result<Box<Link>, Attempt> {
    let state = &*exchange.state;
    let began = Instant::now();
    state.timer.start(Wait::Connect, began + upstream.config.timeout.connect);
    let worker = state.worker.index;
    let header = upstream.config.proxy_protocol.map(|version| state.client().proxy_header(version));
    let pool = &state.worker.pool;
    let made = state.timer.bound(Link::open(upstream, target, header.as_deref(), pool, worker)).await;
    exchange.connected(began.elapsed());
    let shard = upstream.stats.shards.of(worker);
    match made {
        Ok(Ok((connection, shaken))) => {
            if let Some(shaken) = shaken {
                exchange.shaken("upstream tls", &shaken);
            }
            Ok(Box::new(connection))
        }
        Ok(Err(error)) => {
            tracing::debug!(upstream = %upstream.name, target = %target.name, %error, "cannot connect");
            Err(Attempt::NotConnected(error.why()))
        }
        Err(Expired::Total) => Err(Attempt::Failed(Why::UpstreamTotalTimeout)),
        Err(Expired::Wait(_)) => {
            // What several requests wait for is counted where it is made.
            if upstream.config.protocol != UpstreamProtocol::Http2 {
                shard.connect(Connect::Timeout);
            }
            Err(Attempt::NotConnected(Why::UpstreamConnectTimeout))
        }
    }
}

/// RFC 9110 section 9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

/// Whom 103 answers (RFC 8297) of an upstream go on to: a client that knows interim answers, of a route that wants them.
pub fn hinted<'a>(route: &Route, exchange: &'a Exchange, head: &request::Parts) -> Option<&'a ClientState> {
    (route.early_hints && head.version >= Version::HTTP_11).then_some(&*exchange.state)
}

/// A 103 answer, to go on to the client before the final one.
fn early_hints(Head { mut headers, .. }: Head, client: &ClientState) {
    headers::remove_hop_by_hop(&mut headers);
    if client.client().http2 {
        let mut hint = Response::new(());
        (*hint.status_mut(), *hint.headers_mut()) = (StatusCode::EARLY_HINTS, headers);
        return client.interim.borrow_mut().push(hint);
    }
    let mut into = client.early.borrow_mut();
    into.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
    for (name, value) in &headers {
        http1::field(&mut into, name.as_str(), value.as_bytes());
    }
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_that_may_be_repeated_are() {
        assert!(is_idempotent(&Method::GET) && is_idempotent(&Method::DELETE));
        assert!(!is_idempotent(&Method::POST) && !is_idempotent(&Method::PATCH));
    }
}
