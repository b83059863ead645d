//! A request of a route with a cache: answered from it, or by the upstream, whose answer is kept for the next one.

mod answer;
mod asking;
mod body;
mod change;
mod explain;
mod fetch;
mod filling;
mod follow;
mod look;

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, Method, Response, header, request};

use self::{
    answer::{CACHE_STATUS, Done},
    change::change,
    fetch::{fetch, refresh_behind},
    look::{KEY, is_asked, may_share},
};
pub use self::{
    body::StoredBody,
    explain::{CacheTold, explain},
    look::{Looked, look},
};
use super::{
    body::{ResponseBody, Sent},
    exchange::Exchange,
    incoming::Incoming,
    policed::Way,
    problem,
};
use crate::{
    cache::{
        Cache,
        directives::RequestDirectives,
        entry::Entry,
        freshness::{Asked, Use},
        status::{Forward, Status},
    },
    observe::{Why, stats::CacheResult},
};

/// What the cache needs to know of a request.
struct Ask {
    key: Arc<[u8]>,
    /// As they came from the client.
    headers: HeaderMap,
    directives: Option<RequestDirectives>,
    asked: Asked,
}

/// Takes a request to its answer. `looked`: what there is in memory, if that is known.
pub async fn handle(
    way: Way<'_>,
    (cache, looked): (&Arc<Cache>, Option<Looked>),
    exchange: Exchange,
    head: request::Parts,
    body: Incoming,
) -> Response<ResponseBody> {
    if !is_asked(cache, &head.method) {
        return change(way, cache, exchange, head, body.into()).await;
    }
    if looked.is_none() && !may_share((way.route, way.policies), cache, &head, &body) {
        return past(way, cache, Forward::Bypass, exchange, head, body.into()).await;
    }
    let (mut body, mut hash) = (Sent::Client(body), None);
    if !body.is_empty() || head.method != Method::GET && head.method != Method::HEAD {
        match Box::pin(asking::read(&way, &exchange, body)).await {
            Ok(read) => {
                hash = Some(asking::hash(&head, &read));
                body = Sent::Read(read);
            }
            Err(why) => return problem::response(exchange, why),
        }
    }
    let consumer = consumer(&exchange);
    let mut looked = match looked {
        Some(looked) => looked,
        None => Looked::new((way.route, cache), &exchange, &head, (consumer.as_deref(), hash)),
    };
    looked.on_disk(cache, &head).await;
    if looked.is_fresh() {
        return looked.answer(cache, &head, exchange);
    }
    looked.traced(&exchange);
    let Looked { key, directives, found, now, .. } = looked;
    let mut stale = None;
    if let Some((entry, used)) = found {
        if used != Use::Validated {
            KEY.set(key);
            let done = Done { result: CacheResult::Stale, status: hit(&entry, now) };
            done.note(cache, &exchange);
            if used == Use::WhileRevalidating
                && let Some(lead) = cache.fills().lead(&entry.key)
            {
                let ask = Ask::new(cache, entry.key.clone(), &head, directives, consumer.is_some());
                let behind = refresh_behind(way, cache, lead, ask, &entry, &done, exchange, head, body);
                return Box::pin(behind).await;
            }
            return answer::stored(&entry, &head.headers, &done, exchange);
        }
        stale = Some(entry);
    }
    let shared: Arc<[u8]> = key.as_slice().into();
    KEY.set(key);
    if directives.is_some_and(|directives| directives.only_if_cached) {
        Done { result: CacheResult::Miss, status: hit_none() }.note(cache, &exchange);
        return problem::response(exchange, Why::NotCached);
    }
    // A part, or a head, says too little to be kept.
    if stale.is_none() && head.headers.contains_key(header::RANGE) || head.method == Method::HEAD {
        let why = if stale.is_none() { Forward::UriMiss } else { Forward::Stale };
        return past(way, cache, why, exchange, head, body).await;
    }
    let ask = Ask::new(cache, shared, &head, directives, consumer.is_some());
    fetch(way, cache, ask, stale, exchange, head, body).await
}

impl Ask {
    fn new(
        cache: &Cache,
        key: Arc<[u8]>,
        head: &request::Parts,
        directives: Option<RequestDirectives>,
        identified: bool,
    ) -> Self {
        let authorization = head.headers.contains_key(header::AUTHORIZATION);
        let asked = Asked {
            authorization,
            identified,
            cookie: head.headers.contains_key(header::COOKIE),
            no_store: directives.is_some_and(|directives| directives.no_store),
            separated: cache.parts.has_consumer() && identified
                || cache.parts.has_authorization() && authorization,
            cookies_keyed: cache.parts.has_cookies(),
        };
        Ask { key, headers: head.headers.clone(), directives, asked }
    }
}

/// Who calls, if that is known.
fn consumer(exchange: &Exchange) -> Option<Arc<str>> {
    Some(exchange.caller()?.consumer.clone())
}

fn hit(entry: &Entry, now: SystemTime) -> Status {
    Status::Hit { ttl: entry.terms.left(now).div_euclid(1000) }
}

fn hit_none() -> Status {
    Status::Forwarded { why: Forward::UriMiss, stored: false, collapsed: false, detail: None }
}

/// Goes past the cache, which says so.
async fn past(
    way: Way<'_>,
    cache: &Cache,
    why: Forward,
    exchange: Exchange,
    head: request::Parts,
    body: Sent,
) -> Response<ResponseBody> {
    let result = match why {
        Forward::Bypass | Forward::Method => CacheResult::Bypass,
        _ => CacheResult::Miss,
    };
    let status = Status::Forwarded { why, stored: false, collapsed: false, detail: None };
    Done { result, status }.note(cache, &exchange);
    let mut response = way.forward(exchange, head, body).await;
    response.headers_mut().append(CACHE_STATUS, status.value());
    response
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
