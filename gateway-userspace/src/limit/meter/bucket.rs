//! Token buckets, by the kernel half's own arithmetic.

use gateway_common::bucket::{self, BYTES};

use super::{LONGEST_NS, Left, Over};
use crate::{config::units::Quota, limit::table::Word};

/// A token bucket. Where tokens come back too fast for whole nanoseconds, the arithmetic is that of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    pub(super) limit: bucket::Limit,
    pub(super) fine: bool,
    pub(super) capacity: u64,
}

impl Bucket {
    pub fn new(quota: Quota, burst: Option<u64>) -> Self {
        let burst = burst.unwrap_or(quota.amount).max(1);
        Bucket::of(quota.per_second(), burst)
    }

    /// Of what so much a second is in a second, at least two.
    pub fn of_a_second(rate: f64) -> Self {
        Bucket::of(rate, rate.ceil().max(2.0) as u64)
    }

    fn of(rate: f64, burst: u64) -> Self {
        // Within 0.01 % below, exact to a byte above.
        let fine = rate >= 100_000.0;
        let limit = match fine {
            true => bucket::Limit::bytes_per_second(rate, burst),
            false => bucket::Limit::per_second(rate, burst),
        };
        Bucket { limit, fine, capacity: burst }
    }

    /// Of as much as comes back in so long, at least two.
    pub fn as_deep(self, depth_ns: u64) -> Self {
        let one_ns = self.cost_ns(1).max(1);
        let capacity = (depth_ns / one_ns).max(2);
        Bucket { limit: self.limit.as_deep(one_ns.saturating_mul(capacity)), capacity, ..self }
    }

    pub fn scaled(self, share: f64, kept: f64) -> Self {
        let mut limit = self.limit.scaled(share);
        limit.depth_ns = ((limit.depth_ns as f64 * (1.0 - kept)) as u64).max(1);
        let capacity = (self.capacity as f64 * share * (1.0 - kept)).round().max(1.0) as u64;
        Bucket { limit, capacity, ..self }
    }

    /// In which so much comes back.
    #[inline]
    pub fn cost_ns(&self, cost: u64) -> u64 {
        if !self.fine {
            return self.limit.interval_ns.saturating_mul(cost).min(LONGEST_NS);
        }
        let ns = u128::from(self.limit.interval_ns) * u128::from(cost) / u128::from(BYTES);
        ns.min(u128::from(LONGEST_NS)) as u64
    }

    /// More than half of it is used.
    pub fn is_low(&self, word: u64, now: u64) -> bool {
        word.saturating_sub(now) > self.limit.depth_ns / 2
    }

    #[inline]
    pub fn take(&self, word: u64, now: u64, cost: u64, delay_ns: u64, shared: bool) -> Result<Word, Over> {
        let mut cost_ns = self.cost_ns(cost);
        let mut limit = self.limit;
        if shared {
            cost_ns /= 4;
        }
        if delay_ns > 0 {
            limit.depth_ns = limit.depth_ns.saturating_add(delay_ns).min(LONGEST_NS);
            limit.horizon_ns = limit.horizon_ns.saturating_add(delay_ns);
        }
        // One that no bucket made, out of a file: nothing overflows with it.
        let word = word.min(1 << 63);
        match limit.decide_cost(word, now, cost_ns) {
            Some(value) => Ok(Word { value, until: 0 }),
            // What costs more than all there is waits until all of it is there.
            None => Err(Over {
                wait_ns: (word.saturating_sub(now) + cost_ns.min(limit.depth_ns))
                    .saturating_sub(limit.depth_ns)
                    .max(1),
            }),
        }
    }

    /// Debts end at twice what the bucket holds: a word further ahead would be taken for another limit's.
    pub(super) fn most_ahead(&self) -> u64 {
        self.limit.depth_ns.saturating_mul(2).min(self.limit.horizon_ns)
    }

    pub(super) fn charge(&self, word: u64, now: u64, cost: u64) -> u64 {
        word.max(now).saturating_add(self.cost_ns(cost)).min(now + self.most_ahead())
    }

    pub fn left(&self, word: u64, now: u64) -> Left {
        let bucket::Limit { depth_ns, interval_ns, .. } = self.limit;
        let ahead = word.min(1 << 63).saturating_sub(now);
        let units = if self.fine { self.limit.bytes_left(word, now) } else { self.limit.left(word, now) };
        let one = if self.fine { interval_ns / BYTES } else { interval_ns }.clamp(1, depth_ns.max(1));
        let next_ns = if units > 0 { 0 } else { (ahead + one).saturating_sub(depth_ns).max(1) };
        Left { units: units.min(self.capacity), next_ns, full_ns: ahead }
    }
}
