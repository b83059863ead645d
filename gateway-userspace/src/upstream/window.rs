//! How many there were over the last while, counted by all workers without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::clock::millis;

/// Parts of the window; the sum is exact to one of them.
const PARTS: u64 = 10;
/// One more than [`PARTS`] at least, so that a part is not cleared while it counts.
const SLOTS: usize = 16;

/// Each slot holds which part of time it counts (the upper half) and its count.
#[derive(Debug)]
pub struct Window {
    part_ms: u64,
    slots: [AtomicU64; SLOTS],
}

impl Window {
    pub fn new(length: Duration) -> Self {
        let part_ms = (millis(length) / PARTS).max(1);
        Window { part_ms, slots: Default::default() }
    }

    pub fn add(&self, now_ms: u64) {
        let part = now_ms / self.part_ms;
        let slot = &self.slots[(part % SLOTS as u64) as usize];
        let tag = part as u32;
        let _ = slot.fetch_update(Relaxed, Relaxed, |packed| match (packed >> 32) as u32 {
            same if same == tag => Some(u64::from(tag) << 32 | u64::from((packed as u32).saturating_add(1))),
            _ => Some(u64::from(tag) << 32 | 1),
        });
    }

    pub fn sum(&self, now_ms: u64) -> u64 {
        let part = (now_ms / self.part_ms) as u32;
        let counts = |packed: u64| u64::from(part.wrapping_sub((packed >> 32) as u32)) < PARTS;
        let packed = self.slots.iter().map(|slot| slot.load(Relaxed));
        packed.filter(|packed| counts(*packed)).map(|packed| u64::from(packed as u32)).sum()
    }

    pub fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let window = Window::new(Duration::from_secs(10));
        (0..5).for_each(|_| window.add(1500));
        window.add(5000);
        assert_eq!(window.sum(5000), 6);
        assert_eq!(window.sum(10_999), 6);
        assert_eq!(window.sum(11_000), 1);
        assert_eq!(window.sum(15_000), 0);
        // The same slot, a turn later.
        window.add(17_000);
        assert_eq!(window.sum(17_000), 1);
        window.clear();
        assert_eq!(window.sum(17_000), 0);
    }

    #[test]
    fn all_threads_count_into_one() {
        let window = Window::new(Duration::from_secs(10));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|i| window.add(1000 + i)));
            }
        });
        assert_eq!(window.sum(2000), 4000);
    }
}
