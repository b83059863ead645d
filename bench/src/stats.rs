//! Medians and spreads of a few rounds.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{process::cpu_time, wrk::Outcome};
use serde_json::{Value, json};

/// The figures of one quantity, one a round.
#[derive(Debug, Clone, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// 0 if there are none.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
        if sorted.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 }
    }

    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(0.0)
    }

    pub fn max(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(0.0)
    }

    pub fn json(&self) -> Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let rounds: Vec<f64> = self.0.iter().copied().map(round).collect();
        json!({ "median": round(self.median()), "min": round(self.min()), "max": round(self.max()), "rounds": rounds })
    }
}

/// A load on a program: the CPU time that it took its process, and what came of it, which has to be answers alone.
pub fn loaded(name: &str, pid: u32, load: impl FnOnce() -> Result<Outcome>) -> Result<(Duration, Outcome)> {
    let before = cpu_time(pid)?;
    let outcome = load()?;
    let cpu = cpu_time(pid)?.saturating_sub(before);
    ensure!(outcome.errors == 0 && outcome.requests > 0, "{name}: {outcome:?}");
    Ok((cpu, outcome))
}

/// What one of several programs costs.
#[derive(Debug, Default)]
pub struct Costs {
    /// CPU time a request.
    pub cpu_us: Rounds,
    /// Requests a second.
    pub rate: Rounds,
}

impl Costs {
    /// A round, which took the program so much CPU time.
    pub fn push(&mut self, cpu: Duration, outcome: &Outcome) {
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / outcome.requests as f64);
        self.rate.push(outcome.rate());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_middle_two() {
        let of = |values: &[f64]| Rounds(values.to_vec()).median();
        assert_eq!((of(&[3.0, 1.0, 2.0]), of(&[4.0, 1.0, 2.0, 3.0]), of(&[])), (2.0, 2.5, 0.0));
    }
}
