//! Token buckets on one word: the generic cell rate algorithm (GCRA, ITU-T I.371).
//!
//! A bucket is one `u64`, its theoretical arrival time (TAT, nanoseconds of CLOCK_MONOTONIC): when it will be
//! full again. Zero is a full bucket, so a zeroed map is a map of full buckets. One word can be updated by
//! compare-and-swap, which is what makes a bucket exact when several CPUs hit it.

/// A rate and a burst, in the terms the arithmetic needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Limit {
    /// Nanoseconds a token takes to come back. Zero: no limit.
    pub interval_ns: u64,
    /// `(burst - 1) * interval_ns`: how far ahead of now the TAT may be for one more to pass.
    pub tolerance_ns: u64,
    /// A TAT further ahead than this was not made by this limit but by a slower one before a reload.
    pub horizon_ns: u64,
}

impl Limit {
    /// No limit.
    pub const OFF: Self = Self { interval_ns: 0, tolerance_ns: 0, horizon_ns: 0 };

    /// One token every `interval_ns` (at least 1), at most `burst` (at least 1) at once.
    pub const fn new(interval_ns: u64, burst: u64) -> Self {
        let interval_ns = if interval_ns == 0 { 1 } else { interval_ns };
        let tolerance_ns = interval_ns.saturating_mul(burst.saturating_sub(1));
        // Twice the depth and 100 ms: far beyond what clocks of two CPUs or a jiffy can differ by.
        let horizon_ns =
            tolerance_ns.saturating_add(interval_ns).saturating_mul(2).saturating_add(100_000_000);
        Self { interval_ns, tolerance_ns, horizon_ns }
    }

    /// `rate` tokens a second (rounded to whole nanoseconds a token: within 0.1 % up to 1 M/s).
    #[cfg(any(test, feature = "user"))]
    pub fn per_second(rate: f64, burst: u64) -> Self {
        Self::new((1e9 / rate).round().clamp(1.0, 1e18) as u64, burst)
    }

    #[inline(always)]
    pub const fn is_on(&self) -> bool {
        self.interval_ns != 0
    }

    /// The bucket's depth in tokens.
    pub const fn burst(&self) -> u64 {
        if self.is_on() { self.tolerance_ns / self.interval_ns + 1 } else { u64::MAX }
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
        if ahead + cost_ns <= self.tolerance_ns + self.interval_ns {
            return Some(tat + cost_ns);
        }
        if ahead > self.horizon_ns {
            // Left over from a slower limit: start again with the last token of this one.
            return Some(now + self.tolerance_ns + self.interval_ns);
        }
        None
    }

    /// Whole tokens in a bucket whose word is `tat`, for display.
    pub const fn left(&self, tat: u64, now: u64) -> u64 {
        if !self.is_on() {
            return u64::MAX;
        }
        (self.tolerance_ns.saturating_add(self.interval_ns)).saturating_sub(tat.saturating_sub(now))
            / self.interval_ns
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
