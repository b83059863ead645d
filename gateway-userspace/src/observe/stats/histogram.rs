//! How long things took, in buckets.

use super::Count;

/// Upper bounds in microseconds; one more bucket takes the rest.
pub const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// With the one for what is above all bounds.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

pub(super) fn bucket_of(us: u64) -> usize {
    BOUNDS_US.partition_point(|bound| *bound < us)
}

#[derive(Debug, Default)]
pub struct Histogram {
    pub(super) buckets: [Count; BUCKETS],
    pub(super) sum_us: Count,
}

impl Histogram {
    #[inline]
    pub fn record(&self, us: u64) {
        self.buckets[bucket_of(us)].add(1);
        self.sum_us.add(us);
    }
}

/// The sum of several shards' histograms.
#[derive(Debug, Default, Clone)]
pub struct HistogramTotal {
    pub buckets: [u64; BUCKETS],
    pub sum_us: u64,
}

impl HistogramTotal {
    pub fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.get();
        }
        self.sum_us += histogram.sum_us.get();
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 10_000_001] {
            histogram.record(us);
        }
        let mut total = HistogramTotal::default();
        total.add(&histogram);
        assert_eq!(total.buckets[0], 2);
        assert_eq!(total.buckets[1], 1);
        assert_eq!(total.buckets[BOUNDS_US.len()], 1);
        assert_eq!(total.count(), 4);
        assert_eq!(total.sum_us, 10_000_202);
    }
}
