//! A shared HTTP cache (RFC 9111).
//!
//! What the messages say is judged by pure functions ([`freshness`], [`vary`], [`validators`], [`range`]); [`key`] says
//! which requests ask for the same, [`store`] keeps responses, [`fill`] makes one fetch of many, [`purge`] takes them
//! out. How a request goes through it is told in `proxy/cached/`.

pub mod dictionary;
pub mod directives;
pub mod entry;
pub mod fill;
pub mod freshness;
pub mod key;
pub mod purge;
pub mod range;
pub mod status;
pub mod store;
pub mod validators;
pub mod vary;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::HeaderMap;

use crate::{
    config::model::{self, KeyPart},
    observe::stats::{CacheStats, Registry},
    request,
};
use entry::Entry;
use fill::Fills;
use freshness::Rules;
use key::{KeyParts, Place};
use purge::{Purge, Purges};
use store::Store;

/// `[cache.NAME]`, compiled. What it keeps outlives reloads.
#[derive(Debug)]
pub struct Cache {
    pub name: Arc<str>,
    pub config: model::Cache,
    pub rules: Rules,
    pub parts: KeyParts,
    /// Routes that use it, which are a part of its keys.
    routes: Vec<String>,
    kept: Arc<Kept>,
    pub stats: Arc<CacheStats>,
}

#[derive(Debug)]
struct Kept {
    store: Store,
    fills: Arc<Fills>,
    purges: Purges,
    /// What is to go and cannot be found by its key, while a thread looks for it.
    sweep: Mutex<Option<Vec<Place>>>,
}

impl Cache {
    /// `old`: the one of that name before a reload.
    pub fn new(
        name: &str,
        config: &model::Cache,
        routes: Vec<String>,
        old: Option<&Cache>,
        registry: &Registry,
    ) -> Self {
        let kept = match old {
            Some(old) => {
                old.kept.store.resize(config.memory, config.variants);
                old.kept.clone()
            }
            None => Arc::new(Kept {
                store: Store::new(config.memory, config.max_body, config.variants),
                fills: Arc::default(),
                purges: Purges::default(),
                sweep: Mutex::default(),
            }),
        };
        Cache {
            name: name.into(),
            rules: Rules {
                ttl: config.ttl,
                override_ttl: config.override_ttl,
                negative: config.negative,
                heuristic: config.heuristic,
                while_revalidate: config.while_revalidate,
                if_error: config.if_error,
                store_set_cookie: config.store_set_cookie,
            },
            parts: KeyParts::new(&config.key),
            config: config.clone(),
            routes,
            kept,
            stats: registry.cache(name),
        }
    }

    pub fn routes(&self) -> &[String] {
        &self.routes
    }

    pub fn store(&self) -> &Store {
        &self.kept.store
    }

    pub fn fills(&self) -> &Arc<Fills> {
        &self.kept.fills
    }

    /// Which purges what is asked for now is newer than.
    pub fn began(&self) -> u64 {
        self.kept.purges.now()
    }

    /// Stores what was asked for at `began`, unless it was purged since; whether it is there.
    pub fn insert(&self, entry: Arc<Entry>, began: u64) -> bool {
        self.kept.store.insert(entry.clone());
        // A purge notes itself before it looks, so one of both sees the other.
        if self.kept.purges.took(began, &self.parts, &entry.key, &entry.tags) {
            self.kept.store.remove(&entry);
            return false;
        }
        true
    }

    /// Takes out, or (`soft`) marks as stale; how many.
    pub fn purge(&self, purge: Purge, soft: bool) -> u64 {
        self.kept.purges.note(purge.clone());
        self.kept.fills.forget(|key, fill| match &purge {
            // Its tags may not be known yet.
            Purge::Tag(_) => true,
            other => other.takes(&self.parts, key, &fill.tags()),
        });
        self.sweep(|entry| purge.takes(&self.parts, &entry.key, &entry.tags), soft)
    }

    fn sweep(&self, takes: impl Fn(&Entry) -> bool, soft: bool) -> u64 {
        let (now, mut gone) = (SystemTime::now(), Vec::new());
        let mut count = 0;
        self.kept.store.each(|entry| {
            if takes(entry) {
                count += 1;
                match soft {
                    true => entry.mark_stale(now),
                    false => gone.push(entry.clone()),
                }
            }
        });
        gone.iter().for_each(|entry| self.kept.store.remove(entry));
        count
    }

    /// RFC 9111 section 4.4: a URL was changed. `asked`: as whoever changed it would ask for it.
    pub fn invalidate(self: &Arc<Self>, asked: &key::Asked<'_>) {
        let mut key = Vec::new();
        for route in &self.routes {
            key.clear();
            self.parts.write(asked, route, &mut key);
            self.kept.store.remove_key(&key);
        }
        let query = asked.query.map(|query| format!("?{query}")).unwrap_or_default();
        let url = format!("{}://{}{}{query}", asked.scheme, asked.host, asked.path);
        let Some(place) = Place::parse(&url, true) else { return };
        self.kept.purges.note(Purge::At(place.clone()));
        self.kept.fills.forget(|key, _| place.takes(&self.parts, key));
        if self.parts.is_of_url() {
            return;
        }
        // Others have it under keys of their own.
        let mut waiting = self.kept.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(places) => places.push(place),
            none => {
                *none = Some(vec![place]);
                let cache = self.clone();
                let started = std::thread::Builder::new()
                    .name("cache-sweep".into())
                    .spawn(move || cache.sweep_waiting());
                if let Err(error) = started {
                    tracing::error!(%error, "cannot look for what is no longer valid in a cache");
                    *none = None;
                }
            }
        }
    }

    fn sweep_waiting(&self) {
        loop {
            let places = {
                let mut waiting = self.kept.sweep.lock().unwrap_or_else(PoisonError::into_inner);
                match waiting.as_mut().map(std::mem::take) {
                    Some(places) if !places.is_empty() => places,
                    _ => {
                        *waiting = None;
                        return;
                    }
                }
            };
            self.sweep(|entry| places.iter().any(|place| place.takes(&self.parts, &entry.key)), false);
        }
    }

    /// Whether a request is not to be answered from the cache, nor its answer stored.
    pub fn bypasses(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        self.config.bypass.iter().any(|part| match part {
            KeyPart::Header(name) => headers.contains_key(name),
            KeyPart::Cookie(name) => request::cookie(headers, name).is_some(),
            KeyPart::Parameter(name) => {
                form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(found, _)| found == *name)
            }
            KeyPart::Host | KeyPart::Path | KeyPart::Query | KeyPart::Consumer => false,
        })
    }
}
