//! Peak EWMA: what an answer of an endpoint takes, quick to rise and slow to be forgotten (as in Finagle).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// In so many milliseconds an old value fades to 1/e. An endpoint that was 1000 times slower is asked again after
/// seven times that, 21 s.
const FADES_MS: f64 = 3000.0;

/// A value and when it was set, in one word: all workers share it without a lock. An update that another overtakes is
/// lost, which does no harm to a mean.
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// An answer took `us` microseconds; it came at `now_ms`, on any clock that all callers share.
    pub fn note(&self, us: u64, now_ms: u64) {
        let us = us.min(u64::from(u32::MAX)) as f64;
        let (before, faded) = self.faded(now_ms);
        // A peak counts at once, and so does the first value.
        let value = if us >= before || before == 0.0 { us } else { before * faded + us * (1.0 - faded) };
        self.0.store(pack(value, now_ms), Relaxed);
    }

    /// In microseconds. Without news it fades, so that an endpoint which was slow gets another chance.
    pub fn get(&self, now_ms: u64) -> u64 {
        let (value, faded) = self.faded(now_ms);
        (value * faded) as u64
    }

    /// The value as it was set, and what time has left of it.
    fn faded(&self, now_ms: u64) -> (f64, f64) {
        let packed = self.0.load(Relaxed);
        let age = (now_ms as u32).wrapping_sub(packed as u32);
        // What was set a moment after we looked at the clock is new, not very old.
        let age = if age > u32::MAX / 2 { 0 } else { age };
        (f64::from((packed >> 32) as u32), (-f64::from(age) / FADES_MS).exp())
    }
}

fn pack(us: f64, now_ms: u64) -> u64 {
    u64::from(us.ceil() as u32) << 32 | u64::from(now_ms as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_fades_within_half_a_minute() {
        let latency = PeakEwma::default();
        assert_eq!(latency.get(5), 0);
        latency.note(1000, 10);
        assert_eq!(latency.get(10), 1000);
        latency.note(200_000, 20);
        assert_eq!(latency.get(20), 200_000);
        latency.note(1000, 21);
        assert!(latency.get(21) > 190_000, "one good answer does not excuse a bad one");
        assert!(latency.get(10_000) > 5000);
        assert!(latency.get(30_000) < 100);
    }

    #[test]
    fn a_clock_read_late_does_not_make_a_value_old() {
        let latency = PeakEwma::default();
        latency.note(500, 1000);
        assert_eq!(latency.get(990), 500);
    }
}
