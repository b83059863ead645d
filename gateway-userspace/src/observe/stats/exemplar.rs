//! Exemplars: for each bucket of a histogram the last trace that fell into it.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use super::BUCKETS;

/// A request whose trace a collector was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    pub trace: u128,
    pub us: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// By bucket.
pub type Found = [Option<Exemplar>; BUCKETS];

/// Of two shards: the later one of each bucket.
pub fn later(found: &mut Found, other: Found) {
    for (found, other) in found.iter_mut().zip(other) {
        if other.map(|one| one.at_ms) > found.map(|one| one.at_ms) {
            *found = other;
        }
    }
}

/// One place a bucket. One worker writes and never waits; who reads looks again if it was written meanwhile.
#[derive(Debug, Default)]
pub struct Slots([Slot; BUCKETS]);

/// A sequence lock (H.-J. Boehm, "Can seqlocks get along with programming language memory models?", 2012): `turn` is odd
/// while it is written.
#[derive(Debug, Default)]
struct Slot {
    turn: AtomicU64,
    trace: [AtomicU64; 2],
    us: AtomicU64,
    at_ms: AtomicU64,
}

/// How often a reader looks; a write is over within nanoseconds.
const LOOKS: usize = 64;

impl Slots {
    pub fn put(&self, bucket: usize, exemplar: Exemplar) {
        self.0[bucket.min(BUCKETS - 1)].put(exemplar);
    }

    pub fn all(&self) -> Found {
        std::array::from_fn(|bucket| self.0[bucket].get())
    }
}

impl Slot {
    fn put(&self, exemplar: Exemplar) {
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn.wrapping_add(1), Relaxed);
        fence(Release);
        self.trace[0].store((exemplar.trace >> 64) as u64, Relaxed);
        self.trace[1].store(exemplar.trace as u64, Relaxed);
        self.us.store(exemplar.us, Relaxed);
        self.at_ms.store(exemplar.at_ms, Relaxed);
        self.turn.store(turn.wrapping_add(2), Release);
    }

    fn get(&self) -> Option<Exemplar> {
        for _ in 0..LOOKS {
            let before = self.turn.load(Acquire);
            if before == 0 {
                return None;
            }
            let [high, low] = [&self.trace[0], &self.trace[1]].map(|half| half.load(Relaxed));
            let found = Exemplar {
                trace: u128::from(high) << 64 | u128::from(low),
                us: self.us.load(Relaxed),
                at_ms: self.at_ms.load(Relaxed),
            };
            fence(Acquire);
            if before.is_multiple_of(2) && self.turn.load(Relaxed) == before {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn one(n: u64) -> Exemplar {
        Exemplar { trace: u128::from(n) << 64 | u128::from(!n), us: n, at_ms: n.wrapping_mul(3) }
    }

    #[test]
    fn a_reader_never_gets_half_of_one_and_half_of_another() {
        let (slots, over) = (Slots::default(), AtomicBool::new(false));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                (1..300_000).for_each(|n| slots.put(3, one(n)));
                over.store(true, Relaxed);
            });
            let mut last = 0;
            while !over.load(Relaxed) {
                if let Some(found) = slots.all()[3] {
                    assert_eq!(found, one(found.us));
                    assert!(found.us >= last, "it does not go back");
                    last = found.us;
                }
            }
        });
        assert_eq!(slots.all()[3], Some(one(299_999)));
        assert_eq!(slots.all().iter().flatten().count(), 1);
    }

    #[test]
    fn of_several_workers_the_last_one_is_told() {
        let (a, b) = (Slots::default(), Slots::default());
        a.put(0, one(5));
        b.put(0, one(4));
        a.put(1, one(1));
        b.put(2, one(2));
        let mut found = a.all();
        later(&mut found, b.all());
        assert_eq!(found[..3], [Some(one(5)), Some(one(1)), Some(one(2))]);
    }
}
