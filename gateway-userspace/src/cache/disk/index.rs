//! Where on disk which response is. In memory: of an entry about 120 bytes, and what it varies by, which entries share.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use http::HeaderMap;

use super::{
    super::vary::{self, Selected},
    record::Span,
};
use crate::sync::lock;

const SHARDS: usize = 64;

/// Where a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct At {
    pub segment: u32,
    pub span: Span,
}

#[derive(Debug)]
struct Slot {
    at: At,
    /// It was asked for since it was written.
    used: bool,
    vary: Option<Arc<[Selected]>>,
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

type Table = HashMap<u128, Vec<Slot>, BuildHasherDefault<Same>>;

#[derive(Debug)]
pub struct Index {
    shards: Box<[Mutex<Table>]>,
    entries: AtomicU64,
    most_variants: AtomicUsize,
    shared: Mutex<HashSet<Arc<[Selected]>>>,
    shared_at: AtomicUsize,
}

impl Index {
    pub fn new(most_variants: usize) -> Self {
        Index {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            entries: AtomicU64::new(0),
            most_variants: AtomicUsize::new(most_variants),
            shared: Mutex::default(),
            shared_at: AtomicUsize::new(1024),
        }
    }

    pub fn set_variants(&self, most: usize) {
        self.most_variants.store(most, Relaxed);
    }

    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, Table> {
        // The table uses the lower bits.
        lock(&self.shards[(hash >> 96) as usize % SHARDS])
    }

    /// The response that a request selects.
    pub fn find(&self, hash: u128, request: &HeaderMap) -> Option<At> {
        let table = self.shard(hash);
        let selected = |slot: &&Slot| vary::matches(slot.vary.as_deref().unwrap_or_default(), request);
        table.get(&hash)?.iter().find(selected).map(|slot| slot.at)
    }

    /// `unless`: looked at while nobody else changes the key's place.
    pub fn insert(&self, hash: u128, vary: &[Selected], at: At, unless: impl FnOnce() -> bool) -> bool {
        let vary = self.share(vary);
        let mut table = self.shard(hash);
        if unless() {
            return false;
        }
        let slots = table.entry(hash).or_default();
        let before = slots.len();
        slots.retain(|slot| !is_same(slot, vary.as_deref().unwrap_or_default()));
        slots.insert(0, Slot { at, used: false, vary });
        slots.truncate(self.most_variants.load(Relaxed).max(1));
        let now = slots.len();
        self.entries.fetch_add(now as u64, Relaxed);
        self.entries.fetch_sub(before as u64, Relaxed);
        true
    }

    /// Whether there was one. `None`: all variants.
    pub fn forget(&self, hash: u128, vary: Option<&[Selected]>) -> bool {
        self.retain(hash, |slot| vary.is_some_and(|vary| !is_same(slot, vary)))
    }

    /// Whether it was there.
    pub fn remove(&self, hash: u128, at: At) -> bool {
        self.retain(hash, |slot| slot.at != at)
    }

    fn retain(&self, hash: u128, keep: impl Fn(&Slot) -> bool) -> bool {
        let mut table = self.shard(hash);
        let Some(slots) = table.get_mut(&hash) else { return false };
        let before = slots.len();
        slots.retain(keep);
        let gone = before - slots.len();
        if slots.is_empty() {
            table.remove(&hash);
        }
        self.entries.fetch_sub(gone as u64, Relaxed);
        gone > 0
    }

    /// Whether it is there, and was asked for.
    pub fn state(&self, hash: u128, at: At) -> Option<bool> {
        self.shard(hash).get(&hash)?.iter().find(|slot| slot.at == at).map(|slot| slot.used)
    }

    pub fn used(&self, hash: u128, at: At) {
        if let Some(slot) =
            self.shard(hash).get_mut(&hash).and_then(|slots| slots.iter_mut().find(|slot| slot.at == at))
        {
            slot.used = true;
        }
    }

    pub fn clear(&self) {
        for shard in &self.shards {
            let gone: usize = std::mem::take(&mut *lock(shard)).values().map(Vec::len).sum();
            self.entries.fetch_sub(gone as u64, Relaxed);
        }
    }

    /// Most responses vary by the same.
    fn share(&self, vary: &[Selected]) -> Option<Arc<[Selected]>> {
        if vary.is_empty() {
            return None;
        }
        let mut shared = lock(&self.shared);
        if let Some(same) = shared.get(vary) {
            return Some(same.clone());
        }
        if shared.len() > self.shared_at.load(Relaxed) {
            shared.retain(|vary| Arc::strong_count(vary) > 1);
            self.shared_at.store((shared.len() * 2).max(1024), Relaxed);
        }
        let vary: Arc<[Selected]> = vary.into();
        shared.insert(vary.clone());
        Some(vary)
    }
}

fn is_same(slot: &Slot, vary: &[Selected]) -> bool {
    vary::same(slot.vary.as_deref().unwrap_or_default(), vary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u32) -> At {
        At { segment: 1, span: Span { offset, meta: 1, body: 1 } }
    }

    fn vary(language: &'static str) -> (Box<[Selected]>, HeaderMap) {
        let mut response = HeaderMap::new();
        response.insert("vary", "accept-language".parse().unwrap());
        let mut request = HeaderMap::new();
        request.insert("accept-language", language.parse().unwrap());
        (vary::select(&response, &request).unwrap(), request)
    }

    #[test]
    fn each_variant_has_its_place_and_the_oldest_of_too_many_none() {
        let index = Index::new(2);
        let [de, en, fr] = ["de", "en", "fr"].map(vary);
        for (n, (fields, _)) in [&de, &en, &de, &fr].into_iter().enumerate() {
            assert!(index.insert(7, fields, at(n as u32), || false));
        }
        let found = |request| index.find(7, request).map(|at| at.span.offset);
        assert_eq!((found(&de.1), found(&en.1), found(&fr.1)), (Some(2), None, Some(3)));
        assert_eq!(index.entries(), 2);
        assert!(!index.insert(8, &[], at(9), || true) && index.find(8, &de.1).is_none());
        assert!(index.remove(7, at(2)) && !index.remove(7, at(2)));
        assert!(index.forget(7, None) && index.entries() == 0);
    }
}
