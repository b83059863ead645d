//! What the cache of a route would do with a request, told without doing it.

use std::time::SystemTime;

use http::{HeaderMap, Method, header, request};
use serde::Serialize;

use super::{Ask, look::directives, text};
use crate::{
    cache::{Cache, entry::Entry, freshness::Use, key, validators},
    runtime::Route,
};

#[derive(Debug, Serialize)]
pub struct CacheTold {
    pub cache: String,
    /// hit, stale, revalidate, miss, bypass, and `not_cached` (504), where the client takes nothing else.
    pub would: &'static str,
    pub why: String,
    /// Its parts, in words.
    pub key: Vec<String>,
    /// Where it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<&'static str>,
    /// Of what is in memory, in seconds; of what is stale `ttl` is negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
    /// What of the request keeps its answer from being stored, or may.
    pub not_stored: Vec<&'static str>,
}

/// `scheme`: of the listener. `consumer`: who calls, if that is known.
pub fn explain(
    route: &Route,
    scheme: &str,
    head: &request::Parts,
    consumer: Option<&str>,
) -> Option<CacheTold> {
    let cache = route.policies.as_ref()?.cache.as_ref()?;
    let asked = key::Asked {
        scheme,
        forwarded_host: None,
        host: text(&head.headers, header::HOST),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        consumer,
        body: None,
    };
    let mut key = Vec::new();
    cache.parts.write(&asked, &route.cache_name, &mut key);
    let mut told = CacheTold {
        cache: cache.name.to_string(),
        would: "bypass",
        why: String::new(),
        key: cache.parts.words(&key),
        stored: None,
        age: None,
        ttl: None,
        not_stored: Vec::new(),
    };
    if let Some(why) = past(route, cache, head) {
        told.why = why;
        return Some(told);
    }
    told.judge(cache, &key, head, consumer.is_some());
    Some(told)
}

/// Why a request goes past the cache.
fn past(route: &Route, cache: &Cache, head: &request::Parts) -> Option<String> {
    let headers = &head.headers;
    if !super::is_asked(cache, &head.method) {
        let invalidates = !matches!(head.method, Method::OPTIONS | Method::TRACE);
        let then = if invalidates { "; if it succeeds, what is stored of the URL goes" } else { "" };
        return Some(format!("{} is not answered from it{then}", head.method));
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body || !matches!(head.method, Method::GET | Method::HEAD) {
        return Some(match cache.parts.has_body() {
            true => "the key has the request's body in it, which is not known here".into(),
            false => "the request has a body".into(),
        });
    }
    if !route.upgrade.is_empty() && headers.contains_key(header::UPGRADE) {
        return Some("it asks for another protocol".into());
    }
    if validators::is_for_upstream(headers) {
        return Some("its condition is the upstream's to judge".into());
    }
    let bypass = cache.bypassed_by(headers, head.uri.query())?;
    Some(format!("it has {bypass}, which `bypass` names"))
}

impl CacheTold {
    fn judge(&mut self, cache: &Cache, key: &[u8], head: &request::Parts, known: bool) {
        let directives = directives(&head.headers);
        let ask = Ask::new(cache, key.into(), head, directives, known);
        self.not_stored = not_stored(&ask, &head.headers, &head.method);
        let Some(entry) = cache.store().peek(key, &head.headers) else {
            let on_disk = cache.is_on_disk(key, &head.headers);
            self.stored = on_disk.then_some("disk");
            (self.would, self.why) = match on_disk {
                true => {
                    ("hit", "it is on disk; when it is read, it may turn out to be stale or purged".into())
                }
                false if directives.is_some_and(|asked| asked.only_if_cached) => {
                    ("not_cached", "it is not stored, and the client takes nothing else: 504".into())
                }
                false => ("miss", "it is not stored".into()),
            };
            return;
        };
        let now = SystemTime::now();
        self.stored = Some("memory");
        self.age = Some(entry.terms.age_told(now));
        self.ttl = Some(entry.terms.left(now).div_euclid(1000));
        let used = entry.terms.judge(directives.as_ref(), entry.stale_since(), now);
        (self.would, self.why) = match used {
            Use::Fresh => ("hit", "it is fresh".into()),
            Use::Stale => ("stale", "it is stale, and the client takes it so".into()),
            Use::WhileRevalidating => ("stale", "it is stale, and sent while it is fetched anew".into()),
            Use::Validated => validated(&entry, directives.is_some_and(|asked| asked.only_if_cached)),
        };
    }
}

fn validated(entry: &Entry, only_if_cached: bool) -> (&'static str, String) {
    if only_if_cached {
        return ("not_cached", "it cannot be used as it is, and the client takes nothing else: 504".into());
    }
    let has = |name| entry.headers.contains_key(name);
    match has(header::ETAG) || has(header::LAST_MODIFIED) {
        true => ("revalidate", "it is stale, or the client wants it asked about".into()),
        false => ("miss", "it cannot be used as it is, and nothing in it could be asked about".into()),
    }
}

fn not_stored(ask: &Ask, headers: &HeaderMap, method: &Method) -> Vec<&'static str> {
    let asked = &ask.asked;
    [
        (asked.no_store, "the request says no-store"),
        (
            (asked.authorization || asked.identified) && !asked.separated,
            "it has Authorization, or its caller is known: only what is public, or has s-maxage or must-revalidate",
        ),
        (asked.cookie && !asked.cookies_keyed, "it has Cookie: not on the word of `ttl` alone"),
        (headers.contains_key(header::RANGE), "it has Range: a part is not kept"),
        (*method == Method::HEAD, "the answer to HEAD is not kept"),
    ]
    .into_iter()
    .filter_map(|(so, why)| so.then_some(why))
    .collect()
}
