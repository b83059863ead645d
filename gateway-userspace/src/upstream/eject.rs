//! Passive checks: a target is taken out by the errors of requests, for longer each time, and comes back on trial.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::clock::millis;
use crate::config::model::Eject;

/// It is out for at most so many times the base.
const MOST_TIMES: u32 = 10;

/// What requests saw of a target, over all workers.
#[derive(Debug, Default)]
pub struct Passive {
    /// Errors in a row (the lower 16 bits) and when the first of them was, in milliseconds.
    errors: AtomicU64,
    ejected: AtomicBool,
    /// It comes back then; or came back then.
    until: AtomicU64,
    /// Ejections that are remembered.
    times: AtomicU32,
    /// It came back and nothing has succeeded since.
    trial: AtomicBool,
}

impl Passive {
    pub fn ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Back, and not proven yet.
    pub fn on_trial(&self) -> bool {
        self.trial.load(Relaxed)
    }

    /// Milliseconds until it comes back.
    pub fn left(&self, now_ms: u64) -> u64 {
        self.until.load(Relaxed).saturating_sub(now_ms)
    }

    /// A request succeeded. Mostly a read or two.
    pub fn success(&self) {
        if self.errors.load(Relaxed) != 0 {
            self.errors.store(0, Relaxed);
        }
        if self.trial.load(Relaxed) {
            self.trial.store(false, Relaxed);
        }
    }

    /// A request failed: whether that was one too many.
    pub fn error(&self, config: &Eject, now_ms: u64) -> bool {
        if self.trial.load(Relaxed) {
            return true;
        }
        let counted = self.errors.fetch_update(Relaxed, Relaxed, |packed| {
            Some(match packed & 0xffff {
                0 => now_ms << 16 | 1,
                _ if now_ms.saturating_sub(packed >> 16) > millis(config.within) => now_ms << 16 | 1,
                n => packed & !0xffff | (n + 1).min(0xffff),
            })
        });
        let before = counted.unwrap_or_default();
        let fresh = before & 0xffff == 0 || now_ms.saturating_sub(before >> 16) > millis(config.within);
        let errors = if fresh { 1 } else { (before & 0xffff) + 1 };
        errors >= u64::from(config.errors)
    }

    /// Takes it out; for how many milliseconds. The caller holds the upstream's lock and has seen that it may.
    pub fn eject(&self, config: &Eject, now_ms: u64) -> u64 {
        // Every span without trouble that is as long as the base makes one ejection forgotten.
        let base = millis(config.base).max(1);
        let since_back = now_ms.saturating_sub(self.until.load(Relaxed)) / base;
        let remembered = self.times.load(Relaxed).saturating_sub(since_back.try_into().unwrap_or(u32::MAX));
        let times = (remembered + 1).min(MOST_TIMES);
        self.times.store(times, Relaxed);
        let length = base * u64::from(times);
        self.until.store(now_ms + length, Relaxed);
        self.errors.store(0, Relaxed);
        self.trial.store(false, Relaxed);
        self.ejected.store(true, Relaxed);
        length
    }

    /// Brings it back when its time is over: whether it did.
    pub fn expire(&self, now_ms: u64) -> bool {
        if !self.ejected() || now_ms < self.until.load(Relaxed) {
            return false;
        }
        self.errors.store(0, Relaxed);
        self.trial.store(true, Relaxed);
        self.ejected.store(false, Relaxed);
        true
    }

    /// The config no longer ejects.
    pub fn pardon(&self) {
        self.ejected.store(false, Relaxed);
        self.trial.store(false, Relaxed);
        self.errors.store(0, Relaxed);
    }
}

/// Whether one more of so many targets may be out.
pub fn may_eject(config: &Eject, out: usize, all: usize) -> bool {
    out < (config.at_most * all as f64 + 1e-9).floor() as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CONFIG: Eject =
        Eject { errors: 3, within: Duration::from_secs(10), base: Duration::from_secs(30), at_most: 0.5 };

    #[test]
    fn errors_count_in_a_row_and_within_their_time() {
        let passive = Passive::default();
        assert!(!passive.error(&CONFIG, 1000) && !passive.error(&CONFIG, 1001));
        passive.success();
        assert!(!passive.error(&CONFIG, 1002) && !passive.error(&CONFIG, 1003));
        assert!(!passive.error(&CONFIG, 20_000), "the first two are too long ago");
        assert!(!passive.error(&CONFIG, 20_001) && passive.error(&CONFIG, 20_002));
    }

    #[test]
    fn each_ejection_is_longer_and_one_error_on_trial_is_enough() {
        let passive = Passive::default();
        assert_eq!(passive.eject(&CONFIG, 1000), 30_000);
        assert!(!passive.expire(30_999) && passive.ejected());
        assert!(passive.expire(31_000) && !passive.ejected() && passive.on_trial());
        assert!(passive.error(&CONFIG, 31_001));
        assert_eq!(passive.eject(&CONFIG, 31_001), 60_000);
        assert!(passive.expire(91_001));
        passive.success();
        assert!(!passive.on_trial() && !passive.error(&CONFIG, 91_002));
        // Long after, it is as if nothing had been.
        assert_eq!(passive.eject(&CONFIG, 1_000_000), 30_000);
    }

    #[test]
    fn it_is_never_out_for_longer_than_ten_times_the_base() {
        let passive = Passive::default();
        let mut now = 1000;
        for _ in 0..20 {
            now += passive.eject(&CONFIG, now);
            assert!(passive.expire(now));
        }
        assert_eq!(passive.eject(&CONFIG, now), 300_000);
    }

    #[test]
    fn the_floor_is_rounded_down() {
        assert!(may_eject(&CONFIG, 0, 2) && may_eject(&CONFIG, 0, 3));
        assert!(!may_eject(&CONFIG, 1, 3) && may_eject(&CONFIG, 1, 4));
        assert!(!may_eject(&CONFIG, 0, 1), "a single target is never out");
    }

    #[test]
    fn errors_of_all_threads_are_one_count() {
        let passive = Passive::default();
        let config = Eject { errors: 400, ..CONFIG };
        let hits: usize = std::thread::scope(|scope| {
            let threads =
                [0; 4].map(|_| scope.spawn(|| (0..100).filter(|_| passive.error(&config, 1000)).count()));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(hits, 1);
    }
}
