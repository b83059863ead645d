//! Getting an answer from an upstream with more care than [`super::forward`] takes: sticky targets, retries of what was
//! sent, a retry budget, a circuit breaker, and a word to passive checks of how each attempt went.
//!
//! A request that was sent is repeated only where that is safe: with an idempotent method (RFC 9110 section 9.2.2), no
//! upgrade, and a body of which a whole copy was kept. Each retry goes to a target that was not tried yet.

use std::{rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{StatusCode, header};

use super::{
    body::RequestBody,
    client_body::Copied,
    exchange::Exchange,
    forward::{Answer, Attempt, Sent, is_idempotent},
    timer::{Expired, Wait},
};
use crate::{
    balance::Tried,
    config::model::{Balance, RetryOn},
    observe::{Why, stats::Retry},
    upstream::{
        Active, Target, Upstream,
        clock::now_ms,
        extras::Extras,
        http1::Switch,
        key,
        queue::{Queue, Wanted},
    },
};

pub async fn send(mut sent: Sent<'_>, extras: &Extras) -> Result<Answer, Why> {
    let upstream = sent.upstream;
    let permit = match &extras.breaker {
        Some(breaker) => Some(breaker.admit(now_ms()).ok_or(Why::BreakerOpen)?),
        None => None,
    };
    if let Some(budget) = &extras.budget {
        budget.request(now_ms());
    }
    let began = Instant::now();
    let result = attempts(&mut sent, extras).await;
    if let Some(permit) = permit {
        let slow = extras.breaker.as_ref().and_then(|breaker| breaker.config.slow);
        let late = slow.is_some_and(|slow| began.elapsed() > slow);
        match &result {
            Ok(answer) => upstream.note_outcome(&permit, !late && !answer.head.status.is_server_error()),
            Err(why) if is_upstreams_fault(*why) => upstream.note_outcome(&permit, false),
            Err(_) => {}
        }
    }
    result
}

async fn attempts(sent: &mut Sent<'_>, extras: &Extras) -> Result<Answer, Why> {
    let upstream = sent.upstream;
    let repeat = Repeat::prepare(sent);
    let mut choice = Choice::new(sent);
    let mut retried = None;
    let mut last = None;
    let (on, tries) = sent.retries;
    for _ in 0..=tries {
        let active = match choice.next(sent.exchange, matches!(last, Some(Ok(_)))).await {
            Ok(active) => active,
            // What the last target made of it says more.
            Err(_) if last.is_some() => break,
            Err(why) => return Err(why),
        };
        if let Some(reason) = retried {
            let shard = upstream.stats.shards.of(sent.exchange.state.worker.index);
            if extras.budget.as_ref().is_some_and(|budget| !budget.retry(now_ms())) {
                shard.retry(Retry::OverBudget);
                break;
            }
            shard.retry(reason);
            // The answer that is given up; its connection closes, as its body was not read.
            drop(last.take());
        }
        let target = active.target().clone();
        sent.exchange.try_target(active);
        let began = Instant::now();
        let attempt = sent.on_target(&target).await;
        note(upstream, &target, &attempt, began);
        let reason = reason(&attempt, on);
        let unsent = matches!(attempt, Attempt::NotConnected(_));
        last = Some(match attempt {
            Attempt::Answered(answer) => Ok(choice.stick(answer, &target)),
            Attempt::NotConnected(why) | Attempt::Failed(why) => Err(why),
        });
        match (reason, unsent) {
            (Some(reason), true) => retried = Some(reason),
            (Some(reason), false) => match repeat.body() {
                Some(body) => {
                    *sent.body = body;
                    retried = Some(reason);
                }
                None => break,
            },
            (None, _) => break,
        }
    }
    last.unwrap_or(Err(Why::NoHealthyTarget))
}

/// How targets are chosen for one request.
struct Choice<'a> {
    upstream: &'a Upstream,
    client: std::net::IpAddr,
    key: Option<u64>,
    /// What the client's cookie says.
    stuck: Option<u64>,
    tried: Tried,
    over_tls: bool,
}

impl<'a> Choice<'a> {
    fn new(sent: &Sent<'a>) -> Self {
        let Sent { upstream, request, exchange, .. } = sent;
        let client = exchange.state.client().addr;
        let key = (upstream.config.balance == Balance::Maglev).then(|| {
            let caller = exchange.caller();
            let consumer = caller.as_deref().map(|caller| &*caller.consumer);
            key::key(&upstream.config.hash_on, &request.head, key::Asker { client, consumer })
        });
        let sticky = upstream.config.sticky.as_ref();
        let over_tls = exchange.state.listener.config.tls.is_some();
        let stuck = sticky.and_then(|sticky| key::stuck_to(sticky, &request.head.headers));
        Choice { upstream, client, key, stuck, tried: Tried::default(), over_tls }
    }

    /// `answered`: there is an answer to be had, if not a good one.
    async fn next(&mut self, exchange: &Exchange, answered: bool) -> Result<Active, Why> {
        let Some(queue) = self.upstream.queue() else {
            let picked = self.upstream.pick_by(self.client, self.key, self.stuck, &mut self.tried);
            return picked.ok_or(Why::NoHealthyTarget);
        };
        let wanted = Wanted { client: self.client, key: self.key, stuck: self.stuck, tried: self.tried };
        let (index, active) = if answered {
            self.upstream.place_now(queue, &wanted).ok_or(Why::UpstreamQueueFull)?
        } else {
            wait(self.upstream, queue, wanted, exchange).await?
        };
        self.tried.add(index);
        Ok(active)
    }

    /// Tells the client of a target that its cookie does not name.
    fn stick(&self, mut answer: Answer, target: &Target) -> Answer {
        if let Some(sticky) = &self.upstream.config.sticky
            && self.stuck != Some(target.identity())
            && let Some(cookie) = key::set_cookie(sticky, target.identity(), self.over_tls)
        {
            answer.head.headers.append(header::SET_COOKIE, cookie);
        }
        answer
    }
}

/// Until it is the request's turn to be sent to a target with room.
async fn wait(
    upstream: &Upstream,
    queue: &Arc<Queue>,
    wanted: Wanted,
    exchange: &Exchange,
) -> Result<(usize, Active), Why> {
    // It must not hold a place while it waits for another.
    exchange.leave_target();
    let timer = &exchange.state.timer;
    let began = Instant::now();
    timer.start(Wait::Queue, began + upstream.config.pool.queue_timeout);
    let turn = timer.bound(upstream.turn(queue, wanted)).await;
    exchange.queued(began.elapsed());
    match turn {
        Ok(turn) => turn,
        Err(Expired::Total) => Err(Why::UpstreamTotalTimeout),
        Err(Expired::Wait(_)) => Err(Why::UpstreamQueueTimeout),
    }
}

/// What is needed to send a request once more.
enum Repeat {
    No,
    /// There from the start, or empty.
    Bytes(Bytes),
    /// The copy that is made while the body is sent.
    Copy(Rc<Copied>),
}

impl Repeat {
    fn prepare(sent: &mut Sent<'_>) -> Repeat {
        let head = &sent.request.head;
        let safe = is_idempotent(&head.method) && !matches!(sent.request.switch, Switch::Upgrade(_));
        if !safe || !sent.retries.0.after_sending() {
            return Repeat::No;
        }
        match (sent.body.replay(), &*sent.body) {
            (Some(copy), _) => Repeat::Copy(copy),
            (None, RequestBody::Kept(bytes)) => Repeat::Bytes(bytes.clone()),
            (None, _) => Repeat::Bytes(Bytes::new()),
        }
    }

    /// The body once more, if it may and can be sent so.
    fn body(&self) -> Option<RequestBody> {
        match self {
            Repeat::No => None,
            Repeat::Bytes(bytes) => Some(kept(bytes.clone())),
            Repeat::Copy(copied) => copied.whole().map(kept),
        }
    }
}

fn kept(bytes: Bytes) -> RequestBody {
    if bytes.is_empty() { RequestBody::Empty } else { RequestBody::Kept(bytes) }
}

/// Why this is to be tried again, if it is.
fn reason(attempt: &Attempt, on: RetryOn) -> Option<Retry> {
    let (wanted, reason) = match attempt {
        Attempt::NotConnected(_) => (on.connect, Retry::Connect),
        Attempt::Failed(Why::UpstreamReset) => (on.reset, Retry::Reset),
        Attempt::Failed(Why::UpstreamFirstByteTimeout) => (on.timeout, Retry::Timeout),
        Attempt::Failed(_) => return None,
        Attempt::Answered(answer) => match answer.head.status {
            StatusCode::INTERNAL_SERVER_ERROR => (on.s500, Retry::S500),
            StatusCode::BAD_GATEWAY => (on.s502, Retry::S502),
            StatusCode::SERVICE_UNAVAILABLE => (on.s503, Retry::S503),
            StatusCode::GATEWAY_TIMEOUT => (on.s504, Retry::S504),
            _ => return None,
        },
    };
    wanted.then_some(reason)
}

/// Tells the upstream how an attempt went, unless it was the client who ended it.
fn note(upstream: &Upstream, target: &Target, attempt: &Attempt, began: Instant) {
    let ok = match attempt {
        Attempt::Answered(answer) => !answer.head.status.is_server_error(),
        Attempt::NotConnected(why) | Attempt::Failed(why) if is_upstreams_fault(*why) => false,
        Attempt::NotConnected(_) | Attempt::Failed(_) => return,
    };
    let took = match attempt {
        Attempt::Answered(_) => began.elapsed(),
        // To fail fast is not to be fast.
        _ => began.elapsed().max(upstream.config.timeout.connect),
    };
    upstream.note(target, ok, took.as_micros().try_into().unwrap_or(u64::MAX));
}

pub(super) fn is_upstreams_fault(why: Why) -> bool {
    matches!(
        why,
        Why::UpstreamConnectRefused
            | Why::UpstreamConnectTimeout
            | Why::UpstreamTls
            | Why::UpstreamFirstByteTimeout
            | Why::UpstreamTotalTimeout
            | Why::UpstreamReset
            | Why::UpstreamBadResponse
    )
}
