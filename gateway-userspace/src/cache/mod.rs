//! A shared HTTP cache (RFC 9111).
//!
//! What the messages say is judged by pure functions ([`freshness`], [`vary`], [`validators`], [`range`]); [`key`] says
//! which requests ask for the same, [`store`] keeps responses in memory and [`disk`] on disk, [`fill`] makes one fetch of many, [`purge`] takes them
//! out. How a request goes through it is told in `proxy/cached/`.

pub mod dictionary;
pub mod directives;
pub mod disk;
pub mod entry;
pub mod fill;
pub mod freshness;
#[cfg(test)]
mod interleavings;
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
    request, sync,
};
use disk::{Asked, Disk, Disks};
use entry::Entry;
use fill::Fills;
use freshness::{Rules, millis};
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
    store: Arc<Store>,
    disk: Option<Arc<Disk>>,
    /// Keys of another making are other keys on disk.
    making: [u8; 32],
    pub stats: Arc<CacheStats>,
}

#[derive(Debug)]
struct Kept {
    fills: Arc<Fills>,
    purges: Arc<Purges>,
    /// What is to go and cannot be found by its key, while a thread looks for it.
    sweep: Mutex<Option<Vec<Place>>>,
}

impl Cache {
    /// `disks`: the tiers of the config. `old`: the one of that name before a reload.
    pub fn new(
        name: &str,
        config: &model::Cache,
        routes: Vec<String>,
        disks: &Disks,
        old: Option<&Cache>,
        registry: &Registry,
    ) -> Self {
        let name: Arc<str> = name.into();
        let parts = KeyParts::new(&config.key);
        let (store, kept) = match old {
            Some(old) => {
                old.store.resize(config.memory, config.variants);
                (old.store.clone(), old.kept.clone())
            }
            None => (
                Arc::new(Store::new(config.memory, config.max_body, config.variants)),
                Arc::new(Kept { fills: Arc::default(), purges: Arc::default(), sweep: Mutex::default() }),
            ),
        };
        let disk = disks.get(&*name).map(|wanted| {
            let old = old.and_then(|old| old.disk.clone());
            let same = old.filter(|old| old.goes_on(wanted, &parts, config.variants));
            same.unwrap_or_else(|| {
                Arc::new(Disk::start(&name, wanted, &store, &kept.purges, &parts, config.variants))
            })
        });
        Cache {
            rules: Rules {
                ttl: config.ttl,
                override_ttl: config.override_ttl,
                negative: config.negative,
                heuristic: config.heuristic,
                while_revalidate: config.while_revalidate,
                if_error: config.if_error,
                store_set_cookie: config.store_set_cookie,
            },
            making: making(&config.key),
            parts,
            config: config.clone(),
            routes,
            kept,
            store,
            disk,
            stats: registry.cache(&name),
            name,
        }
    }

    /// Takes the place of the one before a reload. Keys of another making may look like those of this one.
    pub fn take_over(&self, old: &Cache) {
        if self.parts != old.parts {
            self.kept.purges.note(Purge::All);
            self.kept.fills.forget(|_, _| true);
            self.sweep(|_| true, None);
        }
    }

    pub fn routes(&self) -> &[String] {
        &self.routes
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.as_ref()
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
        self.store.insert(entry.clone());
        // A purge notes itself before it looks, so one of both sees the other.
        if self.kept.purges.took(began, &self.parts, &entry.key, &entry.tags) {
            self.store.remove(&entry);
            return false;
        }
        if let Some(disk) = &self.disk {
            disk.store(&entry, self.hash(&entry.key), began);
        }
        true
    }

    /// Takes one out.
    pub fn remove(&self, entry: &Arc<Entry>) {
        self.store.remove(entry);
        if let Some(disk) = &self.disk {
            disk.forget(self.hash(&entry.key), Some(&entry.vary));
        }
    }

    /// What is on disk only, for this request: brought into memory.
    pub async fn load(&self, key: &[u8], request: &HeaderMap) -> Option<Arc<Entry>> {
        let disk = self.disk.as_ref()?;
        let hash = self.hash(key);
        let at = disk.find(hash, request)?;
        disk.load(Asked { hash, at, key: key.into(), parts: self.parts.clone() }).await
    }

    /// Whether it is on disk.
    pub fn is_on_disk(&self, key: &[u8], request: &HeaderMap) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.find(self.hash(key), request).is_some())
    }

    fn hash(&self, key: &[u8]) -> u128 {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::keyed_hash(&self.making, key).as_bytes()[..16]);
        u128::from_le_bytes(short)
    }

    /// Takes out, or (`soft`) marks as stale; how many of those in memory. What is on disk only goes uncounted.
    pub fn purge(&self, purge: Purge, soft: bool) -> u64 {
        let since = soft.then(SystemTime::now);
        let noted = self.kept.purges.note_for_disk(purge.clone(), since.map(millis));
        self.kept.fills.forget(|key, fill| match &purge {
            // Its tags may not be known yet.
            Purge::Tag(_) => true,
            other => other.takes(&self.parts, key, &fill.tags()),
        });
        let count = self.sweep(|entry| purge.takes(&self.parts, &entry.key, &entry.tags), since);
        if let Some(disk) = &self.disk
            && !disk.purge_durably(noted)
        {
            tracing::error!(cache = &*self.name, "a purge is not on disk yet: it may not hold after a crash");
        }
        count
    }

    fn sweep(&self, takes: impl Fn(&Entry) -> bool, soft: Option<SystemTime>) -> u64 {
        let mut gone = Vec::new();
        let mut count = 0;
        self.store.each(|entry| {
            if takes(entry) {
                count += 1;
                match soft {
                    Some(since) => entry.mark_stale(since),
                    None => gone.push(entry.clone()),
                }
            }
        });
        gone.iter().for_each(|entry| self.store.remove(entry));
        count
    }

    /// RFC 9111 section 4.4: a URL was changed. `asked`: as whoever changed it would ask for it.
    pub fn invalidate(self: &Arc<Self>, asked: &key::Asked<'_>) {
        let mut key = Vec::new();
        for route in &self.routes {
            key.clear();
            self.parts.write(asked, route, &mut key);
            self.store.remove_key(&key);
        }
        let query = asked.query.map(|query| format!("?{query}")).unwrap_or_default();
        let url = format!("{}://{}{}{query}", asked.scheme, asked.host, asked.path);
        let Some(place) = Place::parse(&url, true) else { return };
        let of_url = self.parts.is_of_url();
        match &self.disk {
            // Others have it under keys of their own, which are looked at when they are read.
            Some(disk) if !of_url => {
                disk.purge(self.kept.purges.note_for_disk(Purge::At(place.clone()), None));
            }
            _ => self.kept.purges.note(Purge::At(place.clone())),
        }
        self.kept.fills.forget(|key, _| place.takes(&self.parts, key));
        if of_url {
            return self.forget_on_disk(asked);
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

    fn forget_on_disk(&self, asked: &key::Asked<'_>) {
        let Some(disk) = &self.disk else { return };
        let mut key = Vec::new();
        for route in &self.routes {
            key.clear();
            self.parts.write(asked, route, &mut key);
            disk.forget(self.hash(&key), None);
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
            self.sweep(|entry| places.iter().any(|place| place.takes(&self.parts, &entry.key)), None);
        }
    }

    /// Whether a request is not to be answered from the cache, nor its answer stored.
    pub fn bypasses(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        self.bypassed_by(headers, query).is_some()
    }

    /// What of `bypass` it has.
    pub fn bypassed_by(&self, headers: &HeaderMap, query: Option<&str>) -> Option<&KeyPart> {
        self.config.bypass.iter().find(|part| match part {
            KeyPart::Header(name) => headers.contains_key(name),
            KeyPart::Cookie(name) => request::cookie(headers, name).is_some(),
            KeyPart::Parameter(name) => {
                form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(found, _)| found == *name)
            }
            KeyPart::Host | KeyPart::Path | KeyPart::Query | KeyPart::Consumer | KeyPart::Body => false,
        })
    }
}

/// What keys are made of, as a key of hashes.
fn making(parts: &[KeyPart]) -> [u8; 32] {
    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    blake3::derive_key("gateway 2026 cache: names of responses on disk", parts.join("\n").as_bytes())
}
