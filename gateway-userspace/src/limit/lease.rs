//! What a gateway has taken from a store that it shares with others, and has not spent yet: one word a key.
//!
//! A lease that is over still says how much was left of it, which is given back with the next exchange, and that its
//! key was in use a moment ago.

use super::meter::Meter;

/// How long a lease holds.
pub const HOLDS_MS: u64 = 1000;
/// How long nobody asks again whether anything is left.
pub const KNOWN_MS: u64 = 100;
/// How long one that is over is remembered.
const REMEMBERED_MS: u64 = 10_000;
const MOST: u64 = (1 << 23) - 1;
const RENEWING: u64 = 1 << 23;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    until_ms: u64,
    /// More was asked for already.
    pub renewing: bool,
    pub left: u64,
}

/// Steady milliseconds as words hold them.
fn ms(now_ns: u64) -> u64 {
    (now_ns / 1_000_000) & ((1 << 40) - 1)
}

impl Lease {
    pub fn of(word: u64) -> Self {
        Lease { until_ms: word >> 24, renewing: word & RENEWING != 0, left: word & MOST }
    }

    pub fn word(self) -> u64 {
        self.until_ms << 24 | if self.renewing { RENEWING } else { 0 } | self.left.min(MOST)
    }

    /// Until when its word means something, in steady nanoseconds.
    pub fn until_ns(self) -> u64 {
        (self.until_ms + REMEMBERED_MS) * 1_000_000
    }

    pub fn holds(self, now_ns: u64) -> bool {
        ms(now_ns) < self.until_ms
    }

    /// `None`: it has not so much, or is over.
    pub fn spend(self, now_ns: u64, cost: u64) -> Option<Self> {
        let enough = self.holds(now_ns) && self.left >= cost;
        enough.then(|| Lease { left: self.left - cost, ..self })
    }

    /// Gives back what was spent of it.
    pub fn refund(self, now_ns: u64, cost: u64) -> Self {
        if self.holds(now_ns) { Lease { left: (self.left + cost).min(MOST), ..self } } else { self }
    }

    /// From now on for so long, with so much more. What was left of one that is over has been given back.
    pub fn renew(self, now_ns: u64, more: u64, holds_ms: u64) -> Self {
        let left = if self.holds(now_ns) { self.left } else { 0 };
        Lease { until_ms: ms(now_ns) + holds_ms, renewing: false, left: left.saturating_add(more).min(MOST) }
    }

    /// What is to be given back.
    pub fn lapsed(self, now_ns: u64) -> u64 {
        if self.holds(now_ns) { 0 } else { self.left }
    }
}

/// How much is taken in advance at most: a hundredth of what there is at once, and no more than comes back in a second.
pub fn most(meter: &Meter) -> u64 {
    let second = meter.per_second().min(MOST as f64) as u64;
    (meter.capacity() / 100).min(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000_000_000;

    #[test]
    fn a_lease_is_spent_until_nothing_is_left_or_it_is_over() {
        let lease = Lease::of(0).renew(NOW, 3, HOLDS_MS);
        let word = lease.spend(NOW, 2).unwrap().word();
        let lease = Lease::of(word);
        assert_eq!((lease.left, lease.spend(NOW, 2), lease.spend(NOW, 0).is_some()), (1, None, true));
        assert_eq!(lease.refund(NOW, 2).left, 3);
        let later = NOW + HOLDS_MS * 1_000_000;
        assert_eq!((lease.spend(later, 1), lease.lapsed(later), lease.lapsed(NOW)), (None, 1, 0));
        assert_eq!(lease.renew(later, 5, HOLDS_MS).left, 5, "what lapsed was given back");
        assert_eq!(lease.renew(NOW, 5, HOLDS_MS).left, 6);
        assert_eq!(Lease::of(0).spend(NOW, 0), None, "a key that nobody knows");
    }

    #[test]
    fn words_hold_what_they_are_made_of() {
        for left in [0, 1, MOST, u64::MAX] {
            let lease = Lease { renewing: true, ..Lease::of(0).renew(NOW, left, HOLDS_MS) };
            assert_eq!(Lease::of(lease.word()), lease);
            assert!(lease.until_ns() > NOW % (1 << 40));
        }
    }
}
