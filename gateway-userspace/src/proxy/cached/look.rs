//! What a cache has for a request, and whether it has a part in it at all.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{HeaderMap, Method, Response, header, request};
use http_body::Body;

use super::{answer, answer::Done, asking, consumer, hit, text};
use crate::{
    cache::{Cache, directives::RequestDirectives, entry::Entry, freshness::Use, key, validators},
    observe::{Why, stats::CacheResult, trace::Said},
    policy::Policies,
    proxy::{body::ResponseBody, exchange::Exchange, incoming::Incoming, problem, websocket::Extended},
    runtime::Route,
};

/// What a cache has for a request.
pub struct Looked {
    pub(super) key: Vec<u8>,
    pub(super) directives: Option<RequestDirectives>,
    pub(super) found: Option<(Arc<Entry>, Use)>,
    /// Where it was looked for last.
    tier: &'static str,
    pub(super) now: SystemTime,
    since: Option<Instant>,
}

impl Looked {
    /// In memory. `hash`: of the request's body.
    pub(super) fn new(
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
            tier: "memory",
            now: exchange.state.worker.wall_clock(exchange.started()),
            since: exchange.trace_clock(),
        };
        looked.judge(cache.store().get(&looked.key, &head.headers));
        looked
    }

    /// On the disk, where memory has nothing and there is one.
    pub(super) async fn on_disk(&mut self, cache: &Arc<Cache>, head: &request::Parts) {
        if self.found.is_none() && cache.disk().is_some() {
            self.tier = "disk";
            self.judge(Box::pin(cache.load(&self.key, &head.headers)).await);
        }
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

    pub(super) fn traced(&self, exchange: &Exchange) {
        if self.since.is_some() {
            let found = found_word(self.found.as_ref().map(|(_, used)| *used));
            let said =
                [("gateway.cache.tier", Said::Word(self.tier)), ("gateway.cache.found", Said::Word(found))];
            exchange.traced("cache lookup", self.since, said);
        }
    }

    /// With what was found, where it [is fresh](Self::is_fresh).
    pub fn answer(self, cache: &Cache, head: &request::Parts, exchange: Exchange) -> Response<ResponseBody> {
        self.traced(&exchange);
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

pub(super) fn is_asked(cache: &Cache, method: &Method) -> bool {
    let name = if *method == Method::HEAD { "GET" } else { method.as_str() };
    cache.config.methods.contains(&name)
}

pub(super) fn directives(headers: &HeaderMap) -> Option<RequestDirectives> {
    let any = headers.contains_key(header::CACHE_CONTROL) || headers.contains_key(header::PRAGMA);
    any.then(|| RequestDirectives::of(headers))
}

/// Whether the cache may have a part in it at all.
pub(super) fn may_share(
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

thread_local! {
    /// Keys are written here first: what is found needs none of its own.
    pub(super) static KEY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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
