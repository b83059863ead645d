//! Latencies to within an eighth, for dynamic limits: the buckets of `/metrics` are too far apart to steer by.

use std::time::Duration;

use super::stats::Count;

/// Parts of each doubling.
const PARTS: u64 = 8;
const PART_BITS: u32 = PARTS.trailing_zeros();
/// Up to two minutes; what takes longer counts as that.
const DOUBLINGS: usize = 25;
const BUCKETS: usize = DOUBLINGS * PARTS as usize;

/// What one worker counted.
#[derive(Debug)]
pub struct Fine(Box<[Count; BUCKETS]>);

impl Default for Fine {
    fn default() -> Self {
        Fine(Box::new(std::array::from_fn(|_| Count::default())))
    }
}

impl Fine {
    pub fn record(&self, us: u64) {
        self.0[bucket(us)].add(1);
    }
}

/// The sum of several.
#[derive(Debug, Clone)]
pub struct FineTotal([u64; BUCKETS]);

impl Default for FineTotal {
    fn default() -> Self {
        FineTotal([0; BUCKETS])
    }
}

impl FineTotal {
    pub fn add(&mut self, fine: &Fine) {
        for (total, count) in self.0.iter_mut().zip(fine.0.iter()) {
            *total += count.get();
        }
    }

    pub fn since(&self, before: &FineTotal) -> FineTotal {
        FineTotal(std::array::from_fn(|at| self.0[at].saturating_sub(before.0[at])))
    }

    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// `None`: there are none. Within a bucket they are taken to be spread evenly.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = self.count() as f64 * share;
        let mut below = 0.0;
        for (at, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let (low, high) = (least(at), least(at + 1));
                let us = low as f64 + (high - low) as f64 * (rank - below) / count;
                return Some(Duration::from_micros(us as u64));
            }
            below += count;
        }
        None
    }
}

/// Below eight each has its own; above, each doubling has eight.
fn bucket(us: u64) -> usize {
    let Some(doubling) = us.checked_ilog2().and_then(|log| log.checked_sub(PART_BITS)) else {
        return us as usize;
    };
    let part = (us >> doubling) & (PARTS - 1);
    ((u64::from(doubling) + 1) * PARTS + part).min(BUCKETS as u64 - 1) as usize
}

/// The least latency of a bucket.
fn least(bucket: usize) -> u64 {
    let (doubling, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    if doubling == 0 { part } else { (PARTS + part) << (doubling - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_is_in_the_bucket_that_begins_at_or_below_it() {
        for us in (0..2000).chain((1..27).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1])) {
            let at = bucket(us);
            assert!(least(at) <= us && us < least(at + 1), "{us}: {} {}", least(at), least(at + 1));
            assert!(us < 16 || (least(at + 1) - least(at)) * 8 <= us);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_right_to_within_an_eighth() {
        let (fine, before) = (Fine::default(), FineTotal::default());
        assert_eq!(before.percentile(0.99), None);
        (1..=1000).for_each(|ms| fine.record(ms * 1000));
        let mut total = FineTotal::default();
        total.add(&fine);
        for (share, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let got = total.percentile(share).unwrap().as_secs_f64() * 1e3;
            assert!((got / ms - 1.0).abs() < 0.07, "{share}: {got}");
        }
        assert_eq!(total.since(&total).count(), 0);
    }
}
