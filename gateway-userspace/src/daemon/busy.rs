//! How busy workers are: over the last ten seconds.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const SECONDS: usize = 10;

/// When, and how long each worker had been busy by then.
type Sample = (Instant, Vec<Duration>);

/// A sample a second, and the oldest that still counts.
#[derive(Debug)]
pub struct Busy(Mutex<VecDeque<Sample>>);

impl Busy {
    /// `now`: before anything was done.
    pub fn new(workers: usize, now: Instant) -> Self {
        Busy(Mutex::new([(now, vec![Duration::ZERO; workers])].into()))
    }

    /// To be called once a second.
    pub fn sample(&self, now: Instant, totals: Vec<Duration>) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() > SECONDS {
            samples.pop_front();
        }
        samples.push_back((now, totals));
    }

    /// The share of its time that each worker was busy since the oldest sample.
    pub fn ratios(&self, now: Instant, totals: &[Duration]) -> Vec<f64> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, before)) = samples.front() else { return Vec::new() };
        let time = now.duration_since(*since).as_secs_f64().max(1e-9);
        let ratio = |(total, before): (&Duration, &Duration)| {
            (total.saturating_sub(*before).as_secs_f64() / time).min(1.0)
        };
        totals.iter().zip(before).map(ratio).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_of_the_last_ten_seconds() {
        let start = Instant::now();
        let second = |n: u64| start + Duration::from_secs(n);
        let busy = Busy::new(2, start);
        let totals = |a, b| vec![Duration::from_millis(a), Duration::from_millis(b)];
        assert_eq!(busy.ratios(second(2), &totals(1000, 0)), [0.5, 0.0]);
        // The first worker is busy for ten seconds, then idle; the other the other way round.
        for n in 1..=30 {
            busy.sample(second(n), totals(1000 * n.min(10), 1000 * n.saturating_sub(10)));
        }
        assert_eq!(busy.ratios(second(30), &totals(10_000, 20_000)), [0.0, 1.0]);
    }
}
