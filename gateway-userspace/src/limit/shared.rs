//! Limits over several gateways, through a store that all of them can reach.
//!
//! A decision is always made here, by the word of this gateway: no request waits for the store. What was spent is noted, and
//! every few milliseconds told to the store, which adds it to what all have spent and says how far ahead its word is; this
//! gateway's word is set at least as far ahead. What was let in too much meanwhile is a debt there, and paid before anybody
//! gets more: so it does not add up. See docs/limits.md for the bound.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    Now, Store,
    meter::Meter,
    table::{Owner, Word},
};

/// Keys that a worker notes between two looks; what more keys spend is known here only.
const MOST: usize = 1 << 16;

/// What a key has spent since the store was told.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Its name over all gateways.
    pub global: u128,
    owner: Owner,
    meter: Meter,
    /// The time in which so much comes back.
    pub ns: u64,
}

#[derive(Debug)]
pub struct Shared {
    workers: Box<[Mutex<HashMap<u128, Spent>>]>,
    /// The config has a store.
    wanted: AtomicBool,
    /// It answered the last time.
    pub up: AtomicBool,
    /// Exchanges with it that failed.
    pub failed: AtomicU64,
    pub synced: AtomicU64,
}

impl Shared {
    pub fn new(workers: usize) -> Self {
        Shared {
            workers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            wanted: AtomicBool::new(false),
            up: AtomicBool::new(false),
            failed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        }
    }

    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Relaxed);
    }

    /// A key has spent something.
    pub(super) fn note(&self, worker: usize, global: u128, owner: Owner, meter: Meter, cost: u64) {
        let ns = meter.cost_ns(cost);
        if ns == 0 || !self.wanted.load(Relaxed) {
            return;
        }
        // Nobody else waits for this lock but who collects, for a moment every few milliseconds.
        let mut spent = self.workers[worker % self.workers.len()].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = spent.get_mut(&global) {
            spent.ns = spent.ns.saturating_add(ns);
        } else if spent.len() < MOST {
            spent.insert(global, Spent { global, owner, meter, ns });
        }
    }

    /// What was spent since the last time.
    pub fn take(&self) -> Vec<Spent> {
        let mut all: HashMap<u128, Spent> = HashMap::new();
        for worker in &self.workers {
            let spent = std::mem::take(&mut *worker.lock().unwrap_or_else(PoisonError::into_inner));
            for (key, one) in spent {
                let sum = all.entry(key).or_insert(Spent { ns: 0, ..one });
                sum.ns = sum.ns.saturating_add(one.ns);
            }
        }
        all.into_values().collect()
    }
}

impl Store {
    /// The store says how far ahead of now a key's word is over all gateways.
    pub fn learn(&self, spent: &Spent, ahead_ns: u64) {
        let now = Now::read();
        let _ = self.rates().update::<()>(&spent.owner, now.steady, |word, shared| {
            let value = if shared { word } else { spent.meter.at_least(word, now, ahead_ns) };
            Ok(Word { value, until: 0 })
        });
    }
}
