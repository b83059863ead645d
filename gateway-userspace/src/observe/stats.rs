//! Counters and histograms, one shard a worker.
//!
//! A shard has one writer, its worker, so an increment is a relaxed load and store: no locked instruction, no shared
//! cache line. Readers (a scrape, `status`) sum the shards. Series are named by config (listener, route, upstream,
//! target) and live in a [`Registry`] that outlasts snapshots, so counters survive a reload.

mod carry;
mod codes;
mod exemplar;
mod histogram;
mod listener;
mod policies;
mod registry;
mod route;
mod upstream;

pub use carry::Totals;
pub use codes::{METHODS, OTHER_METHOD, method_index};
pub use exemplar::{Exemplar, Found, later};
pub use histogram::{BOUNDS_US, BUCKETS, Histogram, HistogramTotal};
pub use listener::{Handshake, ListenerShard, ListenerStats, ProxyHeader, TlsVersion};
pub use policies::{
    AuthResult, AuthShard, AuthStats, CacheResult, CacheShard, CacheStats, Decided, LimitShard, LimitStats,
};
pub use registry::{NO_ROUTE, Registry};
pub use route::{RouteShard, RouteStats};
pub use upstream::{Connect, FALLBACKS, Retry, TargetShard, TargetStats, UpstreamShard, UpstreamStats};

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Only ever called by the shard's own worker.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One for each of a list; arrays of more than 32 have no default.
#[derive(Debug)]
struct Counts<const N: usize>([Count; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Counts(std::array::from_fn(|_| Count::default()))
    }
}

impl<const N: usize> std::ops::Deref for Counts<N> {
    type Target = [Count; N];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A value that goes up and down, with one writer.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// Only ever called by the shard's own worker.
    #[inline]
    pub fn add(&self, step: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(step), Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One `T` a worker, and one for what earlier processes counted; each on cache lines of its own.
#[derive(Debug)]
pub struct Sharded<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Sharded<T> {
    fn new(workers: usize) -> Self {
        Sharded((0..=workers.max(1)).map(|_| Padded::default()).collect())
    }

    /// The control thread's: what was counted before the process was upgraded.
    fn carried(&self) -> &T {
        &self.0[self.0.len() - 1].0
    }

    /// The shard of `worker`; one past the end shares the last one (it cannot happen: the count is fixed at start).
    #[inline]
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker.min(self.0.len() - 1)].0
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    pub fn sum(&self, f: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(f).sum()
    }
}
