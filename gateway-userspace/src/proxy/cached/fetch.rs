//! Asking the upstream for what is to be stored.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, Method, Response, StatusCode, header, request};

use super::{
    Ask, answer,
    answer::{CACHE_STATUS, Done},
    filling::{self, Filled, Filling},
    follow::{Followed, follow},
    hit,
};
use crate::{
    cache::{
        Cache,
        entry::Entry,
        fill::{Lead, Role},
        freshness::Use,
        status::{Forward, Status},
        validators,
    },
    observe::{Why, stats::CacheResult, trace::Said},
    proxy::{
        body::{RequestBody, ResponseBody, Sent},
        errand::Errand,
        exchange::Exchange,
        fallback, forward,
        handler::deliver,
        policed::{Way, changes_field},
        problem,
    },
    upstream::{
        Upstream,
        http1::{self, Outgoing},
    },
};

/// Asks the upstream, or waits for whoever does.
pub(super) async fn fetch(
    mut way: Way<'_>,
    cache: &Arc<Cache>,
    ask: Ask,
    stale: Option<Arc<Entry>>,
    mut exchange: Exchange,
    head: request::Parts,
    body: Sent,
) -> Response<ResponseBody> {
    let insists = ask.directives.is_some_and(|asked| asked.no_cache || asked.max_age.is_some());
    let mut alone = !cache.config.coalesce || insists || ask.asked.no_store;
    let mut slow = None;
    loop {
        let fill = match cache.fills().begin(&ask.key, slow.as_ref(), alone) {
            Role::Follow(fill) => fill,
            Role::Lead(lead) => {
                // It may have come between the look and the lead.
                if !alone && let Some(entry) = came(cache, &ask, stale.as_ref()) {
                    drop(lead);
                    let status = hit(&entry, SystemTime::now());
                    let done = Done { result: CacheResult::Coalesced, status };
                    done.note(cache, &exchange);
                    return answer::stored(&entry, &ask.headers, &done, exchange);
                }
                let response = self::lead(&mut way, cache, lead, ask, stale, exchange, head, body).await;
                return way.watch(response);
            }
        };
        match follow(&mut way, cache, fill, &ask, stale.as_ref(), exchange).await {
            Followed::Answered(response) => return response,
            Followed::Again(back, instead) => (exchange, slow) = (back, instead),
            Followed::Alone(back) => (exchange, alone) = (back, true),
        }
    }
}

fn came(cache: &Cache, ask: &Ask, stale: Option<&Arc<Entry>>) -> Option<Arc<Entry>> {
    let entry = cache.store().get(&ask.key, &ask.headers)?;
    let fresh = entry.terms.judge(None, entry.stale_since(), SystemTime::now()) == Use::Fresh;
    (fresh && stale.is_none_or(|stale| !Arc::ptr_eq(stale, &entry))).then_some(entry)
}

/// Asks the upstream.
#[allow(clippy::too_many_arguments)]
async fn lead(
    way: &mut Way<'_>,
    cache: &Arc<Cache>,
    lead: Lead,
    ask: Ask,
    stale: Option<Arc<Entry>>,
    exchange: Exchange,
    mut head: request::Parts,
    body: Sent,
) -> Response<ResponseBody> {
    ask_for_whole(&mut head.headers, stale.as_deref());
    let request = ask.headers.clone();
    let prepared = way.prepare(&exchange, head, body);
    let (upstream, mut outgoing, mut body) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => return problem::response(exchange, why),
    };
    if way.maps() {
        body = match Box::pin(way.map(&exchange, &mut outgoing, body)).await {
            Ok(body) => body,
            Err(why) => return problem::response(exchange, why),
        };
    }
    let was_stale = stale.is_some();
    let filling = begin(cache, lead, ask, stale, &exchange, way, upstream);
    let asks = exchange.trace_clock().filter(|_| was_stale);
    let answer = send(way, upstream, &outgoing, &mut body, &exchange).await;
    let why = if was_stale { Forward::Stale } else { Forward::UriMiss };
    let done = |result, stored, detail| Done {
        result,
        status: Status::Forwarded { why, stored, collapsed: false, detail },
    };
    let now = SystemTime::now();
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            let Some(stale) = filling.failed(why) else {
                let done = done(CacheResult::Miss, false, None);
                done.note(cache, &exchange);
                let instead = fall_back(way, (upstream, why), outgoing, body, (&request, &done), exchange);
                return Box::pin(instead).await;
            };
            let done = Done { result: CacheResult::Stale, status: hit(&stale, now) };
            done.note(cache, &exchange);
            return answer::stored(&stale, &request, &done, exchange);
        }
    };
    http1::recycle(outgoing.head.headers);
    exchange.answered(answer.head.status);
    let via = if answer.head.http2 { &way.snapshot.via_http2 } else { &way.snapshot.via };
    let filled = filling.take(answer, via, |name| changes_field(way.route, name)).await;
    if asks.is_some() {
        let holds = matches!(filled, Filled::Revalidated(_));
        exchange.traced("cache revalidate", asks, [("gateway.cache.revalidated", Said::Flag(holds))]);
    }
    let (entry, done) = match filled {
        Filled::Revalidated(entry) => (entry, done(CacheResult::Revalidated, true, None)),
        Filled::Stored(entry) => (entry, done(CacheResult::Miss, true, None)),
        Filled::Stale(entry) => {
            let status = hit(&entry, now);
            (entry, Done { result: CacheResult::Stale, status })
        }
        Filled::Growing(draft, Some(reader)) => {
            let done = done(CacheResult::Miss, true, None);
            done.note(cache, &exchange);
            return answer::growing(&draft, reader, &request, filling::idle(upstream), &done, exchange);
        }
        // It was begun here, so its start is there.
        Filled::Growing(_, None) => return problem::response(exchange, Why::UpstreamReset),
        Filled::Not(answer, detail) => {
            let done = done(CacheResult::Miss, false, Some(detail));
            done.note(cache, &exchange);
            return not_stored(way, answer, &request, &done, exchange);
        }
    };
    done.note(cache, &exchange);
    answer::stored(&entry, &request, &done, exchange)
}

/// So that others can have the answer too: without the client's conditions, but with those of what is stored.
fn ask_for_whole(headers: &mut HeaderMap, stale: Option<&Entry>) {
    validators::revalidate(headers, stale.map(|entry| &entry.headers));
    headers.remove(header::RANGE);
    headers.remove(header::IF_RANGE);
}

fn begin(
    cache: &Arc<Cache>,
    lead: Lead,
    ask: Ask,
    stale: Option<Arc<Entry>>,
    exchange: &Exchange,
    way: &Way<'_>,
    upstream: &Arc<Upstream>,
) -> Filling {
    Filling {
        cache: cache.clone(),
        key: ask.key,
        lead,
        began: cache.began(),
        asked: ask.asked,
        asked_at: SystemTime::now(),
        request: ask.headers,
        stale,
        tag: way.policies.client_cache.as_ref().is_some_and(|policy| policy.etag),
        worker: exchange.state.worker.clone(),
        upstream: upstream.clone(),
    }
}

async fn send(
    way: &Way<'_>,
    upstream: &Upstream,
    outgoing: &Outgoing,
    body: &mut RequestBody,
    exchange: &Exchange,
) -> Result<forward::Answer, Why> {
    let hints = forward::hinted(way.route, exchange, &outgoing.head);
    match forward::send(upstream, exchange, outgoing, body, hints).await {
        // Nobody asked for it.
        Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => Err(Why::UpstreamBadResponse),
        answer => answer,
    }
}

/// Has the upstream's fallback answer, if there is one. That is not kept: it is not what was asked for.
async fn fall_back(
    way: &Way<'_>,
    (upstream, why): (&Upstream, Why),
    mut outgoing: Outgoing,
    mut body: RequestBody,
    (request, done): (&HeaderMap, &Done),
    exchange: Exchange,
) -> Response<ResponseBody> {
    let Some(other) = way.snapshot.fallback(upstream, why) else { return problem::response(exchange, why) };
    // It knows nothing of what is stored.
    ask_for_whole(&mut outgoing.head.headers, None);
    match fallback::ask(other, (upstream, why), &exchange, &outgoing, &mut body, None).await {
        Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => {
            problem::response(exchange, Why::UpstreamBadResponse)
        }
        Ok(answer) => not_stored(way, answer, request, done, exchange),
        Err(unanswered) => unanswered.response(exchange),
    }
}

fn not_stored(
    way: &Way<'_>,
    answer: forward::Answer,
    request: &HeaderMap,
    done: &Done,
    exchange: Exchange,
) -> Response<ResponseBody> {
    let has_it = answer::has_it_already(request, answer.head.status, &answer.head.headers);
    if has_it {
        return answer::not_modified_instead(answer.head.headers, &way.snapshot.via, done, exchange);
    }
    let mut response = deliver(way.snapshot, answer, exchange);
    response.headers_mut().append(CACHE_STATUS, done.status.value());
    response
}

/// Answers with what is stale, and has it fetched anew.
#[allow(clippy::too_many_arguments)]
pub(super) async fn refresh_behind(
    mut way: Way<'_>,
    cache: &Arc<Cache>,
    lead: Lead,
    ask: Ask,
    entry: &Arc<Entry>,
    done: &Done,
    exchange: Exchange,
    mut head: request::Parts,
    body: Sent,
) -> Response<ResponseBody> {
    let request = ask.headers.clone();
    ask_for_whole(&mut head.headers, Some(entry));
    if head.method == Method::HEAD {
        head.method = Method::GET;
    }
    if let Ok((upstream, mut outgoing, mut body)) = way.prepare(&exchange, head, body) {
        if way.maps() {
            // All of it is here: nothing is waited for.
            body = way.map(&exchange, &mut outgoing, body).await.unwrap_or(RequestBody::Empty);
        }
        let body = body.into_kept();
        let filling = begin(cache, lead, ask, Some(entry.clone()), &exchange, &way, upstream);
        let errand = Errand::new(&exchange, upstream, outgoing);
        let (snapshot, route) = (exchange.state.worker.snapshot(), way.route.clone());
        tokio::task::spawn_local(async move {
            let asked = tokio::time::timeout(errand.limit(), errand.ask(body)).await;
            match asked.ok().flatten() {
                Some(answer) => {
                    let via = if answer.head.http2 { &snapshot.via_http2 } else { &snapshot.via };
                    let unfit = |name: &http::HeaderName| changes_field(&route, name);
                    drop(filling.take(answer, via, unfit).await);
                }
                None => drop(filling.failed(Why::UpstreamReset)),
            }
        });
    }
    answer::stored(entry, &request, done, exchange)
}
