//! The kernel half's clock: nanoseconds of CLOCK_MONOTONIC, either read (33 ns a packet) or made from jiffies (free).
//!
//! Jiffies are good enough wherever the limits span at least ten of them. Userspace measures the tick and the
//! offset once and corrects the offset as the two clocks drift apart, so every time in every map is of one kind.

/// How to tell the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Clock {
    /// Nanoseconds a jiffy; zero: read CLOCK_MONOTONIC.
    pub tick_ns: u64,
    /// Added (wrapping) to `jiffies64 * tick_ns`.
    pub offset_ns: u64,
}

impl Clock {
    /// CLOCK_MONOTONIC itself.
    pub const EXACT: Self = Self { tick_ns: 0, offset_ns: 0 };

    /// The time at this jiffy.
    #[inline(always)]
    pub const fn at(&self, jiffies: u64) -> u64 {
        jiffies.wrapping_mul(self.tick_ns).wrapping_add(self.offset_ns)
    }

    /// The clock for `hz` ticks a second, given one reading of both clocks.
    pub const fn measured(hz: u64, monotonic_ns: u64, jiffies: u64) -> Self {
        let tick_ns = 1_000_000_000 / hz;
        Self { tick_ns, offset_ns: monotonic_ns.wrapping_sub(jiffies.wrapping_mul(tick_ns)) }
    }

    /// This clock moved so that `monotonic_ns` lies within the tick that `jiffies` says, or `None` when it already does.
    pub const fn corrected(&self, monotonic_ns: u64, jiffies: u64) -> Option<Self> {
        let behind = monotonic_ns.wrapping_sub(self.at(jiffies)) as i64;
        let tick = self.tick_ns as i64;
        let shift = if behind < 0 {
            behind
        } else if behind > 2 * tick {
            behind - tick
        } else {
            return None;
        };
        Some(Self { tick_ns: self.tick_ns, offset_ns: self.offset_ns.wrapping_add(shift as u64) })
    }
}

/// The tick rate among those Linux is built with that explains `ticks` in `elapsed_ns`, if one does within 10 %.
pub fn nearest_hz(ticks: u64, elapsed_ns: u64) -> Option<u64> {
    let hz = ticks.saturating_mul(1_000_000_000).checked_div(elapsed_ns)?;
    [100, 250, 300, 1000].into_iter().find(|&known: &u64| known.abs_diff(hz) * 10 <= known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_clock_tells_the_time_it_was_measured_at() {
        let clock = Clock::measured(250, 7_000_000_123, 4_294_900_000);
        assert_eq!(clock.at(4_294_900_000), 7_000_000_123);
        assert_eq!(clock.at(4_294_900_250), 8_000_000_123);
    }

    #[test]
    fn drift_is_corrected_only_once_it_shows() {
        let clock = Clock::measured(250, 1_000_000_000, 1000);
        assert_eq!(clock.corrected(1_003_000_000, 1000), None);
        let late = clock.corrected(1_050_000_000, 1000).expect("12 ticks late");
        assert_eq!(late.at(1000), 1_046_000_000);
        let early = clock.corrected(990_000_000, 1000).expect("behind");
        assert_eq!(early.at(1000), 990_000_000);
    }

    #[test]
    fn tick_rates_are_told_apart_from_sixty_milliseconds() {
        assert_eq!(nearest_hz(15, 60_000_000), Some(250));
        assert_eq!(nearest_hz(18, 60_000_000), Some(300));
        assert_eq!(nearest_hz(6, 60_000_000), Some(100));
        assert_eq!(nearest_hz(60, 60_000_000), Some(1000));
        assert_eq!(nearest_hz(0, 60_000_000), None);
        assert_eq!(nearest_hz(1, 0), None);
    }
}
