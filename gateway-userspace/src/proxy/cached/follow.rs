//! Waiting for the answer to another request for the same.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::Response;

use super::{Ask, answer, answer::Done, filling, hit};
use crate::{
    cache::{
        Cache,
        entry::Entry,
        fill::{Fill, Follower, Outcome},
        status::{Forward, Status},
        vary,
    },
    observe::{Why, stats::CacheResult},
    proxy::{
        body::ResponseBody,
        exchange::Exchange,
        policed::Way,
        problem,
        timer::{Expired, Wait},
    },
};

/// Whoever leads gets so long to begin with an answer before one of those who wait asks too.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of waiting for another request's answer.
pub(super) enum Followed {
    Answered(Response<ResponseBody>),
    /// There is none; the other takes too long, if it is still at it.
    Again(Exchange, Option<Arc<Fill>>),
    /// It is not for this one.
    Alone(Exchange),
}

pub(super) async fn follow(
    way: &mut Way<'_>,
    cache: &Cache,
    fill: Arc<Fill>,
    ask: &Ask,
    stale: Option<&Arc<Entry>>,
    exchange: Exchange,
) -> Followed {
    let state = &exchange.state;
    let began = Instant::now();
    let follower = Follower::new(fill.clone());
    state.awaiting_head.set(true);
    state.timer.start(Wait::FirstByte, began + PATIENCE);
    let outcome = state.timer.bound(poll_fn(|cx| follower.poll(cx))).await;
    state.awaiting_head.set(false);
    state.timer.stop();
    exchange.queued(began.elapsed());
    let now = SystemTime::now();
    let coalesced = |status| Done { result: CacheResult::Coalesced, status };
    let forwarded = Status::Forwarded { why: Forward::UriMiss, stored: true, collapsed: true, detail: None };
    let entry = match outcome {
        Err(Expired::Total) => {
            return Followed::Answered(problem::response(exchange, Why::UpstreamTotalTimeout));
        }
        Err(Expired::Wait(_)) => return Followed::Again(exchange, Some(fill)),
        Ok(Outcome::Abandoned) => return Followed::Again(exchange, None),
        Ok(Outcome::Pass) => return Followed::Alone(exchange),
        Ok(Outcome::Answer(draft)) => {
            let reader = vary::matches(&draft.vary, &ask.headers).then(|| follower.read()).flatten();
            let Some(reader) = reader else { return Followed::Alone(exchange) };
            let done = coalesced(forwarded);
            done.note(cache, &exchange);
            let idle = way.route.upstream.as_ref().map_or(PATIENCE, |upstream| filling::idle(upstream));
            return Followed::Answered(answer::growing(&draft, reader, &ask.headers, idle, &done, exchange));
        }
        Ok(Outcome::Entry(entry)) if vary::matches(&entry.vary, &ask.headers) => entry,
        Ok(Outcome::Entry(_)) => return Followed::Alone(exchange),
        Ok(Outcome::Failed(why)) => match stale.filter(|stale| stale.terms.if_error(now)) {
            Some(stale) => stale.clone(),
            None => {
                let upstream = way.upstream(&ask.headers, &exchange);
                if upstream.is_some_and(|upstream| way.snapshot.fallback(upstream, why).is_some()) {
                    // Each has it answered for itself.
                    return Followed::Alone(exchange);
                }
                coalesced(forwarded).note(cache, &exchange);
                return Followed::Answered(problem::response(exchange, why));
            }
        },
    };
    let done = coalesced(hit(&entry, now));
    done.note(cache, &exchange);
    Followed::Answered(answer::stored(&entry, &ask.headers, &done, exchange))
}
