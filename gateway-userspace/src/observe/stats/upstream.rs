//! What is counted of upstreams and their targets.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::StatusCode;

use super::{
    Count, Histogram, Level, Sharded,
    codes::{CodeSums, Codes},
};
use crate::observe::{Why, latency::Fine};

/// What one worker counted for one target.
#[derive(Debug, Default)]
pub struct TargetShard {
    pub(super) codes: Codes,
    pub idle: Level,
    pub busy: Level,
}

impl TargetShard {
    #[inline]
    pub fn count(&self, status: StatusCode) {
        self.codes.count(status);
    }
}

/// The series of one target.
#[derive(Debug)]
pub struct TargetStats {
    pub shards: Sharded<TargetShard>,
    pub(super) ejections: AtomicU64,
}

impl TargetStats {
    /// Its requests failed so often that it was taken out. Rare, and from any thread.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    pub(super) fn carry_ejections(&self, n: u64) {
        self.ejections.fetch_add(n, Relaxed);
    }

    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    pub fn requests(&self) -> BTreeMap<u16, u64> {
        let mut totals = BTreeMap::new();
        self.each_request(|code, n| totals.extend([(code, n)]));
        totals
    }

    /// As [`Self::requests`], one after the other.
    pub fn each_request(&self, see: impl FnMut(u16, u64)) {
        let mut sums = CodeSums::default();
        self.shards.iter().for_each(|shard| sums.add(&shard.codes));
        sums.each(see);
    }
}

/// How an attempt to connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connect {
    Ok,
    Refused,
    Timeout,
    /// Its certificate or something else about TLS.
    Tls,
    /// The gateway has no descriptors or ports left.
    Ours,
}

impl Connect {
    pub const ALL: [(Connect, &'static str); 5] = [
        (Connect::Ok, "ok"),
        (Connect::Refused, "refused"),
        (Connect::Timeout, "timeout"),
        (Connect::Tls, "tls"),
        (Connect::Ours, "no_resources"),
    ];
}

/// Why a request was tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Connect,
    /// A kept connection turned out to be closed.
    Stale,
    Reset,
    Timeout,
    S500,
    S502,
    S503,
    S504,
    /// It was to be, and the budget was used up.
    OverBudget,
}

impl Retry {
    /// All that are retries.
    pub const ALL: [(Retry, &'static str); 8] = [
        (Retry::Connect, "connect"),
        (Retry::Stale, "stale"),
        (Retry::Reset, "reset"),
        (Retry::Timeout, "timeout"),
        (Retry::S500, "500"),
        (Retry::S502, "502"),
        (Retry::S503, "503"),
        (Retry::S504, "504"),
    ];
}

/// What one worker counted for one upstream.
#[derive(Debug, Default)]
pub struct UpstreamShard {
    pub duration: Histogram,
    /// Once somebody steers by it.
    fine: OnceLock<Fine>,
    pub(super) connects: [Count; Connect::ALL.len()],
    pub(super) retries: [Count; Retry::ALL.len() + 1],
    /// Requests that its fallback got, by the reason for it.
    pub(super) fallbacks: [Count; FALLBACKS.len()],
}

/// Why an upstream may not be asked.
pub const FALLBACKS: [Why; 4] =
    [Why::BreakerOpen, Why::NoHealthyTarget, Why::UpstreamConnectRefused, Why::UpstreamConnectTimeout];

impl UpstreamShard {
    /// It took so long until an answer began.
    #[inline]
    pub fn answered(&self, us: u64) {
        self.duration.record(us);
        if let Some(fine) = self.fine.get() {
            fine.record(us);
        }
    }

    /// Finely, from now on.
    pub fn latency(&self) -> &Fine {
        self.fine.get_or_init(Fine::default)
    }

    pub fn connect(&self, result: Connect) {
        self.connects[result as usize].add(1);
    }

    pub fn connects(&self, result: Connect) -> u64 {
        self.connects[result as usize].get()
    }

    pub fn retry(&self, reason: Retry) {
        self.retries[reason as usize].add(1);
    }

    pub fn retries(&self, reason: Retry) -> u64 {
        self.retries[reason as usize].get()
    }

    pub fn fell_back(&self, why: Why) {
        let counts = FALLBACKS.iter().zip(&self.fallbacks);
        counts.filter(|(of, _)| **of == why).for_each(|(_, count)| count.add(1));
    }

    /// By the reasons in [`FALLBACKS`].
    pub fn fallbacks(&self, reason: usize) -> u64 {
        self.fallbacks.get(reason).map_or(0, Count::get)
    }
}

#[derive(Debug)]
pub struct UpstreamStats {
    pub shards: Sharded<UpstreamShard>,
}
