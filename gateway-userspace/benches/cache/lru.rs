//! What LRU would answer of the same requests, for the bench and for the store's own test.

use std::collections::{BTreeMap, HashMap};

const SKEW: f64 = 0.9;

/// Ten requests an object, by Zipf(0.9).
pub fn trace(objects: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let cumulated: Vec<f64> = (1..=objects)
        .map(|rank| {
            sum += (rank as f64).powf(-SKEW);
            sum
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut draw = || {
        let drawn = random.f64() * sum;
        cumulated.partition_point(|upto| *upto < drawn) as u32
    };
    (0..objects * 10).map(|_| draw()).collect()
}

/// The shares of requests that are hits, after a fifth of them: of what is asked, and of LRU where so many objects fit.
pub fn beside_lru(trace: &[u32], fits: usize, mut ask: impl FnMut(u32) -> bool) -> (f64, f64) {
    let mut lru = Lru::new(fits);
    let (mut hits, mut lru_hits) = (0, 0);
    let warm = trace.len() / 5;
    for (at, n) in trace.iter().enumerate() {
        let (hit, lru_hit) = (ask(*n), lru.touch(*n));
        if at >= warm {
            hits += u32::from(hit);
            lru_hits += u32::from(lru_hit);
        }
    }
    let share = |hits: u32| f64::from(hits) / (trace.len() - warm) as f64;
    (share(hits), share(lru_hits))
}

/// By time of use.
struct Lru {
    most: usize,
    now: u64,
    at: HashMap<u32, u64>,
    order: BTreeMap<u64, u32>,
}

impl Lru {
    fn new(most: usize) -> Self {
        Lru { most, now: 0, at: HashMap::new(), order: BTreeMap::new() }
    }

    fn touch(&mut self, n: u32) -> bool {
        self.now += 1;
        let before = self.at.insert(n, self.now);
        self.order.insert(self.now, n);
        match before {
            Some(before) => {
                self.order.remove(&before);
            }
            None if self.at.len() > self.most => {
                if let Some((_, oldest)) = self.order.pop_first() {
                    self.at.remove(&oldest);
                }
            }
            None => {}
        }
        before.is_some()
    }
}
