//! What is counted of routes.

use std::{collections::BTreeMap, sync::OnceLock};

use http::StatusCode;

use super::{
    Count, Counts, Exemplar, Found, Histogram, METHODS, Sharded,
    codes::{CodeSums, Codes},
    exemplar::Slots,
    histogram::bucket_of,
};
use crate::observe::Why;

/// What one worker counted for one listener and route.
#[derive(Debug, Default)]
pub struct RouteShard {
    /// By method; a table is made when its method is first seen.
    pub(super) codes: [OnceLock<Box<Codes>>; METHODS.len()],
    pub duration: Histogram,
    /// Of `duration`; made with the first request whose trace is told.
    exemplars: OnceLock<Box<Slots>>,
    pub overhead: Histogram,
    pub request_bytes: Count,
    pub response_bytes: Count,
    pub(super) errors: Counts<{ Why::COUNT }>,
}

impl RouteShard {
    pub fn count(&self, method: usize, status: StatusCode) {
        self.codes[method].get_or_init(Box::default).count(status);
    }

    /// An example of a request that took so long. Only by the shard's own worker.
    #[cold]
    pub fn exemplify(&self, exemplar: Exemplar) {
        self.exemplars.get_or_init(Box::default).put(bucket_of(exemplar.us), exemplar);
    }

    /// By the buckets of `duration`.
    pub fn exemplars(&self) -> Option<Found> {
        self.exemplars.get().map(|slots| slots.all())
    }

    /// Whether anything was counted: everything is counted together with its answer's code.
    pub fn asked(&self) -> bool {
        self.codes.iter().any(|codes| codes.get().is_some())
    }

    /// By [`Why::index`].
    pub fn add_errors(&self, sums: &mut [u64; Why::COUNT]) {
        sums.iter_mut().zip(&self.errors.0).for_each(|(sum, count)| *sum += count.get());
    }

    pub fn error(&self, why: Why) {
        self.errors.0[why.index()].add(1);
    }

    pub fn errors(&self, why: Why) -> u64 {
        self.errors.0[why.index()].get()
    }
}

/// The series of one listener and route.
#[derive(Debug)]
pub struct RouteStats {
    pub shards: Sharded<RouteShard>,
}

impl RouteStats {
    /// Requests by (method, code), over all workers.
    pub fn requests(&self) -> BTreeMap<(&'static str, u16), u64> {
        let mut totals = BTreeMap::new();
        self.each_request(|method, code, n| totals.extend([((method, code), n)]));
        totals
    }

    /// As [`Self::requests`], one after the other.
    pub fn each_request(&self, mut see: impl FnMut(&'static str, u16, u64)) {
        for (place, method) in METHODS.into_iter().enumerate() {
            let mut tables = self.shards.iter().filter_map(|shard| shard.codes[place].get()).peekable();
            if tables.peek().is_some() {
                let mut sums = CodeSums::default();
                tables.for_each(|codes| sums.add(codes));
                sums.each(|code, n| see(method, code, n));
            }
        }
    }

    /// Whether anybody asked for it.
    pub fn asked(&self) -> bool {
        self.shards.iter().any(RouteShard::asked)
    }
}
