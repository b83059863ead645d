//! The memory tier: a table that hits read without a lock, and S3-FIFO to say what goes when it is full.
//!
//! S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: "FIFO queues are all you need for cache eviction", SOSP 2023): what is new
//! waits in a small queue and leaves by it unless it is asked for again, so that a scan does not push out what is in
//! use. Who comes back soon after leaving goes to the main queue at once. A hit only counts up to 3 in its entry; the
//! queues, each shard's behind a lock, are touched by what is stored and what goes.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, Weak,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
};

use http::HeaderMap;
use papaya::{Compute, HashMap, Operation};

use super::{entry::Entry, vary};
use crate::sync::lock;

/// Of a shard's bytes, for what is new: one tenth, as in the paper.
const SMALL: usize = 10;
/// Room for this many of the largest entries, or more, in a shard.
const LARGEST: u64 = 16;
const MOST_SHARDS: u64 = 16;
/// Shards smaller than this evict what they need not.
const LEAST_SHARD: u64 = 8 << 20;

const GONE: u8 = 0;
const IN_SMALL: u8 = 1;
const IN_MAIN: u8 = 2;

type Variants = Box<[Arc<Entry>]>;

#[derive(Debug)]
pub struct Store {
    map: HashMap<Arc<[u8]>, Variants, RandomState>,
    hasher: RandomState,
    shards: Box<[Mutex<Queues>]>,
    /// Bytes of all shards.
    budget: AtomicU64,
    most_variants: AtomicUsize,
    bytes: AtomicU64,
    entries: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Queues {
    small: VecDeque<Waiting>,
    main: VecDeque<Waiting>,
    small_bytes: usize,
    main_bytes: usize,
    /// Those that left by the small queue, by hash.
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
}

/// What is purged is freed at once, and only its place stays until its turn.
#[derive(Debug)]
struct Waiting(Weak<Entry>);

impl Store {
    pub fn new(budget: u64, largest: u64, most_variants: usize) -> Self {
        let least = LEAST_SHARD.max(largest.saturating_mul(LARGEST));
        let shards = (budget / least).clamp(1, MOST_SHARDS);
        let hasher = RandomState::new();
        Store {
            map: HashMap::with_hasher(hasher.clone()),
            hasher,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            budget: AtomicU64::new(budget),
            most_variants: AtomicUsize::new(most_variants),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// After a reload. What is too much goes.
    pub fn resize(&self, budget: u64, most_variants: usize) {
        self.most_variants.store(most_variants, Relaxed);
        self.budget.store(budget, Relaxed);
        for shard in &self.shards {
            self.evict(&mut lock(shard));
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    pub fn budget(&self) -> u64 {
        self.budget.load(Relaxed)
    }

    /// The response that a request selects. No lock is taken.
    pub fn get(&self, key: &[u8], request: &HeaderMap) -> Option<Arc<Entry>> {
        let found = self.peek(key, request)?;
        found.used();
        Some(found)
    }

    /// As [`Store::get`], and it does not count as used.
    pub fn peek(&self, key: &[u8], request: &HeaderMap) -> Option<Arc<Entry>> {
        let map = self.map.pin();
        map.get(key)?.iter().find(|entry| vary::matches(&entry.vary, request)).cloned()
    }

    /// Whether a response of this key was asked for again lately.
    pub fn is_in_use(&self, key: &[u8]) -> bool {
        let map = self.map.pin();
        map.get(key).is_some_and(|variants| variants.iter().any(|entry| entry.uses.load(Relaxed) > 0))
    }

    /// Stores a response, in place of the one for the same requests.
    pub fn insert(&self, entry: Arc<Entry>) {
        let hash = self.hash(&entry.key);
        // Held while table and queues change, so that they agree.
        let queues = &mut *lock(self.shard(hash));
        let replaced = self.link(&entry);
        for replaced in &replaced {
            // One that was in use has a successor that is.
            entry.uses.fetch_max(replaced.uses.load(Relaxed).min(1), Relaxed);
            self.leave(queues, replaced);
        }
        self.enter(queues, &entry, hash);
        self.evict(queues);
    }

    /// Puts it into the table; those that had to go for it.
    fn link(&self, entry: &Arc<Entry>) -> Vec<Arc<Entry>> {
        let most = self.most_variants.load(Relaxed).max(1);
        let map = self.map.pin();
        let computed = map.compute(entry.key.clone(), |found| {
            let others = found.map(|(_, variants)| &**variants).unwrap_or_default();
            // The newest first, and the oldest of too many goes.
            let mut variants = Vec::with_capacity(others.len() + 1);
            variants.push(entry.clone());
            variants.extend(others.iter().filter(|other| !vary::same(&other.vary, &entry.vary)).cloned());
            variants.truncate(most);
            Operation::<Variants, ()>::Insert(variants.into())
        });
        let Compute::Updated { old: (_, old), new: (_, new) } = computed else { return Vec::new() };
        old.iter().filter(|old| !new.iter().any(|new| Arc::ptr_eq(old, new))).cloned().collect()
    }

    /// Takes one out, if it is there.
    pub fn remove(&self, entry: &Arc<Entry>) {
        let queues = &mut *lock(self.shard(self.hash(&entry.key)));
        self.unlink(entry);
        self.leave(queues, entry);
    }

    /// Takes out all responses of a key.
    pub fn remove_key(&self, key: &[u8]) -> u64 {
        let queues = &mut *lock(self.shard(self.hash(key)));
        let map = self.map.pin();
        let Some(variants) = map.remove(key) else { return 0 };
        variants.iter().for_each(|entry| self.leave(queues, entry));
        variants.len() as u64
    }

    /// Every response that is stored; those that come and go meanwhile may be missed.
    pub fn each(&self, mut see: impl FnMut(&Arc<Entry>)) {
        let map = self.map.pin();
        map.values().flatten().for_each(&mut see);
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> &Mutex<Queues> {
        // The table uses the lower bits.
        &self.shards[(hash >> 40) as usize % self.shards.len()]
    }

    fn share(&self) -> usize {
        let share = self.budget.load(Relaxed) / self.shards.len() as u64;
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    fn unlink(&self, entry: &Arc<Entry>) {
        let map = self.map.pin();
        map.compute(entry.key.clone(), |found| {
            let Some((_, variants)) = found else { return Operation::Abort(()) };
            if !variants.iter().any(|other| Arc::ptr_eq(other, entry)) {
                return Operation::Abort(());
            }
            let left: Vec<_> = variants.iter().filter(|other| !Arc::ptr_eq(other, entry)).cloned().collect();
            if left.is_empty() { Operation::Remove } else { Operation::Insert(left.into()) }
        });
    }

    fn enter(&self, queues: &mut Queues, entry: &Arc<Entry>, hash: u64) {
        self.bytes.fetch_add(entry.size as u64, Relaxed);
        self.entries.fetch_add(1, Relaxed);
        let waiting = Waiting(Arc::downgrade(entry));
        if queues.ghost_set.remove(&hash) {
            entry.place.store(IN_MAIN, Relaxed);
            queues.main_bytes += entry.size;
            queues.main.push_back(waiting);
        } else {
            entry.place.store(IN_SMALL, Relaxed);
            queues.small_bytes += entry.size;
            queues.small.push_back(waiting);
        }
    }

    /// It is no longer in the table: its bytes are free.
    fn leave(&self, queues: &mut Queues, entry: &Entry) {
        match entry.place.swap(GONE, AcqRel) {
            IN_SMALL => queues.small_bytes -= entry.size,
            IN_MAIN => queues.main_bytes -= entry.size,
            _ => return,
        }
        self.bytes.fetch_sub(entry.size as u64, Relaxed);
        self.entries.fetch_sub(1, Relaxed);
    }

    fn evict(&self, queues: &mut Queues) {
        let share = self.share();
        while queues.small_bytes + queues.main_bytes > share {
            let from_small = queues.small_bytes > share / SMALL || queues.main.is_empty();
            let gone = if from_small { self.evict_small(queues) } else { self.evict_main(queues) };
            if gone.is_none() && queues.small.is_empty() && queues.main.is_empty() {
                return;
            }
        }
        queues.tidy();
    }

    /// Of the small queue's first: it goes, or on to the main queue if it was asked for.
    fn evict_small(&self, queues: &mut Queues) -> Option<()> {
        let Waiting(first) = queues.small.pop_front()?;
        let entry = first.upgrade().filter(|entry| entry.place.load(Acquire) == IN_SMALL)?;
        if entry.uses.load(Relaxed) > 0 {
            entry.uses.store(0, Relaxed);
            entry.place.store(IN_MAIN, Relaxed);
            queues.small_bytes -= entry.size;
            queues.main_bytes += entry.size;
            queues.main.push_back(Waiting(first));
            return Some(());
        }
        self.drop_entry(queues, &entry);
        queues.remember(self.hash(&entry.key));
        Some(())
    }

    /// Of the main queue's first: it goes, or to the end if it was asked for.
    fn evict_main(&self, queues: &mut Queues) -> Option<()> {
        let Waiting(first) = queues.main.pop_front()?;
        let entry = first.upgrade().filter(|entry| entry.place.load(Acquire) == IN_MAIN)?;
        let uses = entry.uses.load(Relaxed);
        if uses > 0 {
            entry.uses.store(uses - 1, Relaxed);
            queues.main.push_back(Waiting(first));
            return Some(());
        }
        self.drop_entry(queues, &entry);
        Some(())
    }

    fn drop_entry(&self, queues: &mut Queues, entry: &Arc<Entry>) {
        self.unlink(entry);
        self.leave(queues, entry);
        self.evicted.fetch_add(1, Relaxed);
    }
}

impl Queues {
    /// As many as the main queue has, as in the paper.
    fn remember(&mut self, hash: u64) {
        if self.ghost_set.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > self.main.len().max(1024) {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
    }

    /// Places of what is gone, when there are more of them than of what is there.
    fn tidy(&mut self) {
        for (queue, bytes) in [(&mut self.small, self.small_bytes), (&mut self.main, self.main_bytes)] {
            // An entry is never smaller than its overhead.
            let most = bytes / size_of::<Entry>() + 64;
            if queue.len() > most * 2 {
                queue.retain(|Waiting(entry)| entry.strong_count() > 0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
