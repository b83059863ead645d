//! A request of a route with a cache: answered from it, or by the upstream, whose answer is kept for the next one.

mod answer;
mod asking;
mod body;
mod explain;
mod filling;

use std::{
    cell::Cell,
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, Method, Response, StatusCode, Uri, header, request};
use http_body::Body;

use self::{
    answer::{CACHE_STATUS, Done},
    filling::{Filled, Filling},
};
pub use self::{
    body::StoredBody,
    explain::{CacheTold, explain},
};
use super::{
    body::{RequestBody, ResponseBody, Sent},
    errand::Errand,
    exchange::Exchange,
    fallback, forward,
    handler::deliver,
    incoming::Incoming,
    policed::{Way, changes_field},
    problem,
    timer::{Expired, Wait},
    websocket::Extended,
};
use crate::{
    cache::{
        Cache,
        directives::RequestDirectives,
        entry::Entry,
        fill::{Fill, Follower, Lead, Outcome, Role},
        freshness::{Asked, Use},
        key,
        status::{Forward, Status},
        validators, vary,
    },
    observe::{Why, stats::CacheResult, trace::Said},
    policy::Policies,
    runtime::Route,
    upstream::{
        Upstream,
        http1::{self, Outgoing},
    },
};

/// Whoever leads gets so long to begin with an answer before one of those who wait asks too.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the cache needs to know of a request.
struct Ask {
    key: Arc<[u8]>,
    /// As they came from the client.
    headers: HeaderMap,
    directives: Option<RequestDirectives>,
    asked: Asked,
}

/// What a cache has for a request.
pub struct Looked {
    key: Vec<u8>,
    directives: Option<RequestDirectives>,
    found: Option<(Arc<Entry>, Use)>,
    now: SystemTime,
    since: Option<Instant>,
}

impl Looked {
    /// In memory. `hash`: of the request's body.
    fn new(
        (route, cache): (&Route, &Cache),
        exchange: &Exchange,
        head: &request::Parts,
        (consumer, hash): (Option<&str>, Option<[u8; 32]>),
    ) -> Self {
        let mut key = KEY.take();
        write_key(route, cache, exchange, head, (consumer, hash), &mut key);
        let mut looked = Looked {
            key,
            directives: directives(&head.headers),
            found: None,
            now: exchange.state.worker.wall_clock(exchange.started()),
            since: exchange.trace_clock(),
        };
        looked.judge(cache.store().get(&looked.key, &head.headers));
        looked
    }

    fn judge(&mut self, found: Option<Arc<Entry>>) {
        self.found = found.map(|entry| {
            let used = entry.terms.judge(self.directives.as_ref(), entry.stale_since(), self.now);
            (entry, used)
        });
    }

    pub fn is_fresh(&self) -> bool {
        matches!(self.found, Some((_, Use::Fresh)))
    }

    fn traced(&self, exchange: &Exchange, tier: &'static str) {
        if self.since.is_some() {
            let found = found_word(self.found.as_ref().map(|(_, used)| *used));
            let said = [("gateway.cache.tier", Said::Word(tier)), ("gateway.cache.found", Said::Word(found))];
            exchange.traced("cache lookup", self.since, said);
        }
    }

    /// From memory, where it [is fresh](Self::is_fresh).
    pub fn answer(self, cache: &Cache, head: &request::Parts, exchange: Exchange) -> Response<ResponseBody> {
        self.traced(&exchange, "memory");
        KEY.set(self.key);
        let Some((entry, _)) = self.found else { return problem::response(exchange, Why::NotCached) };
        let done = Done { result: CacheResult::Hit, status: hit(&entry, self.now) };
        done.note(cache, &exchange);
        answer::stored(&entry, &head.headers, &done, exchange)
    }
}

/// Looks for what a request without a body asks for. `None`: the cache has no part in it.
pub fn look(
    (route, policies): (&Route, &Policies),
    cache: &Cache,
    exchange: &Exchange,
    head: &request::Parts,
    body: &Incoming,
) -> Option<Looked> {
    let plain = body.is_end_stream() && matches!(head.method, Method::GET | Method::HEAD);
    if !plain || !is_asked(cache, &head.method) || !may_share((route, policies), cache, head, body) {
        return None;
    }
    let consumer = consumer(exchange);
    Some(Looked::new((route, cache), exchange, head, (consumer.as_deref(), None)))
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
    let mut tier = "memory";
    if looked.found.is_none() && cache.disk().is_some() {
        tier = "disk";
        looked.judge(Box::pin(cache.load(&looked.key, &head.headers)).await);
    }
    if looked.is_fresh() && tier == "memory" {
        return looked.answer(cache, &head, exchange);
    }
    looked.traced(&exchange, tier);
    let Looked { key, directives, found, now, .. } = looked;
    let mut stale = None;
    if let Some((entry, used)) = found {
        if used != Use::Validated {
            KEY.set(key);
            let result = if used == Use::Fresh { CacheResult::Hit } else { CacheResult::Stale };
            let done = Done { result, status: hit(&entry, now) };
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

fn is_asked(cache: &Cache, method: &Method) -> bool {
    let name = if *method == Method::HEAD { "GET" } else { method.as_str() };
    cache.config.methods.contains(&name)
}

/// Who calls, if that is known.
fn consumer(exchange: &Exchange) -> Option<Arc<str>> {
    Some(exchange.caller()?.consumer.clone())
}

fn directives(headers: &HeaderMap) -> Option<RequestDirectives> {
    let any = headers.contains_key(header::CACHE_CONTROL) || headers.contains_key(header::PRAGMA);
    any.then(|| RequestDirectives::of(headers))
}

/// Whether the cache may have a part in it at all.
fn may_share(
    (route, policies): (&Route, &Policies),
    cache: &Cache,
    head: &request::Parts,
    body: &Incoming,
) -> bool {
    let upgrades = !route.upgrade.is_empty() && head.headers.contains_key(header::UPGRADE);
    asking::fits(policies, cache, &head.method, body)
        && !upgrades
        && head.extensions.get::<Extended>().is_none()
        && !validators::is_for_upstream(&head.headers)
        && !cache.bypasses(&head.headers, head.uri.query())
}

/// In the words of spans.
fn found_word(used: Option<Use>) -> &'static str {
    match used {
        None => "nothing",
        Some(Use::Fresh) => "fresh",
        Some(_) => "stale",
    }
}

fn hit(entry: &Entry, now: SystemTime) -> Status {
    Status::Hit { ttl: entry.terms.left(now).div_euclid(1000) }
}

fn hit_none() -> Status {
    Status::Forwarded { why: Forward::UriMiss, stored: false, collapsed: false, detail: None }
}

thread_local! {
    /// Keys are written here first: what is found needs none of its own.
    static KEY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn write_key(
    route: &Route,
    cache: &Cache,
    exchange: &Exchange,
    head: &request::Parts,
    (consumer, body): (Option<&str>, Option<[u8; 32]>),
    out: &mut Vec<u8>,
) {
    let client = exchange.state.client();
    let asked = key::Asked {
        scheme: client.scheme,
        forwarded_host: client.told.as_ref().and_then(|told| told.host.as_deref()),
        host: text(&head.headers, header::HOST),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        consumer,
        body,
    };
    out.clear();
    cache.parts.write(&asked, &route.cache_name, out);
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

/// Another method: what it changes is no longer stored (RFC 9111 section 4.4).
async fn change(
    way: Way<'_>,
    cache: &Arc<Cache>,
    exchange: Exchange,
    head: request::Parts,
    body: Sent,
) -> Response<ResponseBody> {
    if matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return past(way, cache, Forward::Method, exchange, head, body).await;
    }
    let (uri, headers) = (head.uri.clone(), head.headers.clone());
    let (client, consumer) = (exchange.state.kept_client(), consumer(&exchange));
    let response = past(way, cache, Forward::Method, exchange, head, body).await;
    if !response.status().is_success() && !response.status().is_redirection() {
        return response;
    }
    let host = text(&headers, header::HOST);
    let asked = key::Asked {
        scheme: client.scheme,
        forwarded_host: client.told.as_ref().and_then(|told| told.host.as_deref()),
        host,
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
        consumer: consumer.as_deref(),
        body: None,
    };
    cache.invalidate(&asked);
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(other) = same_origin(text(response.headers(), name), host, uri.path()) {
            cache.invalidate(&key::Asked { path: other.path(), query: other.query(), ..asked });
        }
    }
    response
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A reference to the same host, resolved as far as servers use it.
fn same_origin(reference: &str, host: &str, base: &str) -> Option<Uri> {
    if reference.is_empty() || reference.starts_with("//") {
        return None;
    }
    if reference.starts_with('/') {
        return reference.parse().ok();
    }
    if !reference.contains("://") {
        let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
        return format!("{folder}/{reference}").parse().ok();
    }
    let uri: Uri = reference.parse().ok()?;
    uri.authority().is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host)).then_some(uri)
}

/// Asks the upstream, or waits for whoever does.
async fn fetch(
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

/// What came of waiting for another request's answer.
enum Followed {
    Answered(Response<ResponseBody>),
    /// There is none; the other takes too long, if it is still at it.
    Again(Exchange, Option<Arc<Fill>>),
    /// It is not for this one.
    Alone(Exchange),
}

async fn follow(
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
async fn refresh_behind(
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
