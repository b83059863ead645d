//! Token buckets on one word: the generic cell rate algorithm (GCRA, ITU-T I.371).
//!
//! A bucket is one `u64`, its theoretical arrival time (TAT, nanoseconds of CLOCK_MONOTONIC): when it will be
//! full again. Zero is a full bucket, so a zeroed map is a map of full buckets. One word can be updated by
//! compare-and-swap, which is what makes a bucket exact when several CPUs hit it.

/// A rate and a burst, in the terms the arithmetic needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Limit {
    /// Nanoseconds a token takes to come back; of bytes, [`BYTES`] of them. Zero: no limit.
    pub interval_ns: u64,
    /// Nanoseconds an empty bucket takes to be full again: how far ahead of now the TAT may get.
    pub depth_ns: u64,
    /// A TAT further ahead than this was not made by this limit but by a slower one before a reload.
    pub horizon_ns: u64,
}

/// Limits of bytes count the time for so many: that of a single one is no whole number of nanoseconds.
pub const BYTES: u64 = 1 << 16;

/// No interval of bytes is longer, so that nothing here overflows, at a hundredth of the rate neither: 18 minutes, or
/// 60 bytes a second.
#[cfg(any(test, feature = "user"))]
const SLOWEST_NS: u64 = 1 << 40;
/// No bucket is deeper: 36 years.
const DEEPEST_NS: u64 = 1 << 60;

impl Limit {
    /// No limit.
    pub const OFF: Self = Self { interval_ns: 0, depth_ns: 0, horizon_ns: 0 };

    /// One token every `interval_ns` (at least 1), at most `burst` (at least 1) at once.
    pub const fn new(interval_ns: u64, burst: u64) -> Self {
        let interval_ns = if interval_ns == 0 { 1 } else { interval_ns };
        let depth_ns = interval_ns.saturating_mul(if burst == 0 { 1 } else { burst });
        Self::of(interval_ns, depth_ns)
    }

    const fn of(interval_ns: u64, depth_ns: u64) -> Self {
        // Twice the depth and 100 ms: far beyond what clocks of two CPUs or a jiffy can differ by.
        // A frame may be longer than a bucket of bytes is deep, but no longer than an interval.
        let depth_ns = if depth_ns > DEEPEST_NS { DEEPEST_NS } else { depth_ns };
        let longest = if depth_ns > interval_ns { depth_ns } else { interval_ns };
        Self { interval_ns, depth_ns, horizon_ns: longest.saturating_mul(2).saturating_add(100_000_000) }
    }

    /// `rate` tokens a second (rounded to whole nanoseconds a token: within 0.1 % up to 1 M/s).
    #[cfg(any(test, feature = "user"))]
    pub fn per_second(rate: f64, burst: u64) -> Self {
        Self::new((1e9 / rate).round().clamp(1.0, 1e18) as u64, burst)
    }

    /// `rate` bytes a second, at most `burst` at once but for a frame that is longer.
    #[cfg(any(test, feature = "user"))]
    pub fn bytes_per_second(rate: f64, burst: u64) -> Self {
        let interval_ns = (1e9 / rate * BYTES as f64).round().clamp(1.0, SLOWEST_NS as f64) as u64;
        let depth = u128::from(interval_ns) * u128::from(burst) / u128::from(BYTES);
        Self::of(interval_ns, u64::try_from(depth).unwrap_or(u64::MAX).max(1))
    }

    /// `factor` (above 0, at most 1) times the rate and the burst. As deep in time, so that an empty bucket stays empty:
    /// with the old burst, whoever was over the limit would get more when the load rises.
    #[cfg(any(test, feature = "user"))]
    pub fn scaled(&self, factor: f64) -> Self {
        if !self.is_on() || factor >= 1.0 {
            return *self;
        }
        Self::of((self.interval_ns as f64 / factor).round().min(DEEPEST_NS as f64) as u64, self.depth_ns)
    }

    /// The same rate, of a bucket that is full again in so long.
    #[cfg(any(test, feature = "user"))]
    pub fn as_deep(&self, depth_ns: u64) -> Self {
        Self::of(self.interval_ns, depth_ns)
    }

    #[inline(always)]
    pub const fn is_on(&self) -> bool {
        self.interval_ns != 0
    }

    /// The bucket's depth in tokens.
    pub const fn burst(&self) -> u64 {
        if self.is_on() { self.depth_ns / self.interval_ns } else { u64::MAX }
    }

    /// Nanoseconds in which a limit of bytes gives so many (at most 2^17).
    #[inline(always)]
    pub const fn cost_of_bytes(&self, bytes: u64) -> u64 {
        bytes.wrapping_mul(self.interval_ns) / BYTES
    }

    /// Takes one token at `now` from a bucket whose word is `tat`: its new word, or `None` when it is empty.
    #[inline(always)]
    pub const fn decide(&self, tat: u64, now: u64) -> Option<u64> {
        self.decide_cost(tat, now, self.interval_ns)
    }

    /// Takes what fills again in `cost_ns`. A full bucket gives anything, be it a frame longer than it is deep.
    #[inline(always)]
    pub const fn decide_cost(&self, tat: u64, now: u64, cost_ns: u64) -> Option<u64> {
        if tat <= now {
            return Some(now + cost_ns);
        }
        let ahead = tat - now;
        if ahead + cost_ns <= self.depth_ns {
            return Some(tat + cost_ns);
        }
        if ahead > self.horizon_ns {
            // Left over from a slower limit: start again with the last token of this one.
            return Some(now + self.depth_ns);
        }
        None
    }

    /// Whole tokens in a bucket whose word is `tat`, for display.
    pub const fn left(&self, tat: u64, now: u64) -> u64 {
        if !self.is_on() {
            return u64::MAX;
        }
        let left = self.depth_ns.saturating_sub(tat.saturating_sub(now)) / self.interval_ns;
        if left == 0 && tat <= now { 1 } else { left }
    }

    /// Bytes in a bucket of bytes whose word is `tat`, for display.
    #[cfg(any(test, feature = "user"))]
    pub fn bytes_left(&self, tat: u64, now: u64) -> u64 {
        if !self.is_on() {
            return u64::MAX;
        }
        let ns = u128::from(self.depth_ns.saturating_sub(tat.saturating_sub(now)));
        u64::try_from(ns * u128::from(BYTES) / u128::from(self.interval_ns)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tries to take a token at each of `times`: when one was given.
    fn passed(limit: Limit, times: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut tat = 0;
        times
            .filter(|&now| match limit.decide(tat, now) {
                Some(next) => {
                    tat = next;
                    true
                }
                None => false,
            })
            .collect()
    }

    #[test]
    fn a_burst_of_b_passes_b_at_once() {
        for burst in [1, 2, 7, 1000] {
            let limit = Limit::per_second(100.0, burst);
            assert_eq!(passed(limit, std::iter::repeat_n(5_000, 3000)).len() as u64, burst);
            assert_eq!(limit.burst(), burst);
        }
    }

    #[test]
    fn left_counts_down_to_zero_and_comes_back() {
        let limit = Limit::per_second(10.0, 3);
        let (mut tat, now) = (0, 1_000_000_000);
        for left in [3, 2, 1] {
            assert_eq!(limit.left(tat, now), left);
            tat = limit.decide(tat, now).expect("a token is left");
        }
        assert_eq!((limit.left(tat, now), limit.decide(tat, now)), (0, None));
        assert_eq!(limit.left(tat, now + 100_000_000), 1);
        assert_eq!(limit.left(tat, now + 1_000_000_000), 3);
    }

    #[test]
    fn a_word_from_a_slower_limit_does_not_block_for_hours() {
        let slow = Limit::per_second(1.0 / 3600.0, 100);
        let mut tat = 0;
        while let Some(next) = slow.decide(tat, 1) {
            tat = next;
        }
        let fast = Limit::per_second(1000.0, 10);
        let tat = fast.decide(tat, 2).expect("one token at once");
        assert_eq!(fast.decide(tat, 2), None);
        assert!(fast.decide(tat, 2 + 1_000_000).is_some());
    }

    #[test]
    fn bytes_pass_at_their_rate_and_a_long_frame_waits_for_a_full_bucket() {
        for (rate, burst) in [(1e3, 100_000), (125e6, 1 << 20), (1.25e9, 64 << 10), (12.5e9, 1 << 30)] {
            let limit = Limit::bytes_per_second(rate, burst);
            assert!(limit.bytes_left(0, 1).abs_diff(burst) <= burst / 1000 + 1, "{rate}");
            let (mut tat, mut now, mut passed) = (0, 1_000_000_000, 0u64);
            let began = now;
            let step = (1500.0 / rate * 1e9 / 4.0) as u64;
            for _ in 0..100_000u64.max(20 * burst / 1500) {
                now += step.max(1);
                if let Some(next) = limit.decide_cost(tat, now, limit.cost_of_bytes(1500)) {
                    (tat, passed) = (next, passed + 1500);
                }
            }
            let offered = 100_000u64.max(20 * burst / 1500) as f64 * 1500.0;
            let allowed = (burst as f64 + rate * (now - began) as f64 / 1e9).min(offered);
            assert!((0.98..1.01).contains(&(passed as f64 / allowed)), "{rate}: {passed} of {allowed}");
        }
        let shallow = Limit::bytes_per_second(1e6, 1000);
        let cost = shallow.cost_of_bytes(1500);
        let tat = shallow.decide_cost(0, 1, cost).expect("a full bucket gives anything");
        assert_eq!(shallow.decide_cost(tat, 1 + 1_400_000, cost), None);
        assert!(shallow.decide_cost(tat, 1 + 1_500_000, cost).is_some());
        let slow = Limit::bytes_per_second(1e-6, 1 << 40);
        assert!(slow.decide_cost(u64::MAX >> 1, 1, slow.cost_of_bytes(1 << 16)).is_some(), "no overflow");
    }

    #[test]
    fn a_scaled_limit_is_lower_and_gives_nothing_to_whoever_was_over() {
        let limit = Limit::per_second(1000.0, 50);
        let tenth = limit.scaled(0.1);
        assert_eq!((tenth.interval_ns, tenth.burst()), (10_000_000, 5));
        assert_eq!((limit.scaled(1.0), Limit::OFF.scaled(0.5)), (limit, Limit::OFF));
        let mut tat = 0;
        while let Some(next) = limit.decide(tat, 1) {
            tat = next;
        }
        assert_eq!((tenth.decide(tat, 1), limit.scaled(0.01).decide(tat, 1)), (None, None));
        let hundredth = limit.scaled(0.01);
        assert_eq!((hundredth.left(0, 1), hundredth.decide(0, 1).is_some()), (1, true));
    }

    proptest! {
        #[test]
        fn any_window_passes_at_most_b_plus_rate_and_at_least_98_percent(
            rate in 1.0f64..1e6,
            // A bucket of one has no memory: evenly spaced arrivals can miss its refills by design.
            burst in 2u64..2000,
            start in 1u64..1u64 << 60,
            over in 1.5f64..20.0,
        ) {
            let limit = Limit::per_second(rate, burst);
            // Offer `over` times the rate, long enough for the bucket to empty and refill several times.
            let step = ((1e9 / rate / over) as u64).max(1);
            let offered = (burst as f64 * 3.0 * over / (over - 1.0)) as u64 + 2000;
            let times = passed(limit, (0..offered).map(|i| start + i * step));
            let window = (offered - 1) * step;
            let allowed = burst as f64 + window as f64 / limit.interval_ns as f64;
            prop_assert!(times.len() as f64 <= allowed + 1.0, "{} > {allowed}", times.len());
            prop_assert!(times.len() as f64 >= 0.98 * allowed - 1.0, "{} < {allowed}", times.len());
            // No window inside may hold more either.
            for (i, first) in times.iter().enumerate().step_by(97) {
                for (j, last) in times.iter().enumerate().skip(i).step_by(89) {
                    let most = burst as f64 + (last - first) as f64 / limit.interval_ns as f64 + 1.0;
                    prop_assert!((j - i + 1) as f64 <= most);
                }
            }
        }

        #[test]
        fn time_may_step_back_without_giving_tokens_away(back in 0u64..50_000_000, burst in 1u64..100) {
            let limit = Limit::per_second(1000.0, burst);
            let now = 1_000_000_000;
            let mut tat = 0;
            while let Some(next) = limit.decide(tat, now) {
                tat = next;
            }
            prop_assert_eq!(limit.decide(tat, now - back), None);
        }
    }
}
