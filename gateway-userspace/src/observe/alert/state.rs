//! What becomes of an alert over time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds since 1970.
pub type Time = f64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    #[default]
    Quiet,
    /// Over its threshold, but not for long enough.
    Pending { since: Time },
    /// `good`: since when it would be over.
    Firing { since: Time, good: Option<Time> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Fired,
    Resolved,
}

impl State {
    pub fn firing(self) -> bool {
        matches!(self, State::Firing { .. })
    }

    pub fn word(self) -> &'static str {
        match self {
            State::Quiet => "quiet",
            State::Pending { .. } => "pending",
            State::Firing { .. } => "firing",
        }
    }

    pub fn since(self) -> Option<Time> {
        match self {
            State::Quiet => None,
            State::Pending { since } | State::Firing { since, .. } => Some(since),
        }
    }

    /// `bad`: over the threshold; `clear`: so far under it that it may be over.
    pub fn step(
        &mut self,
        now: Time,
        bad: bool,
        clear: bool,
        lasts: Duration,
        resolve_after: Duration,
    ) -> Option<Change> {
        // A wall clock may be set back: then it has lasted for no time yet.
        let long = |since: Time, wanted: Duration| (now - since).max(0.0) >= wanted.as_secs_f64();
        match *self {
            State::Quiet if bad => {
                *self = State::Pending { since: now };
                self.step(now, bad, clear, lasts, resolve_after)
            }
            State::Pending { .. } if !bad => {
                *self = State::Quiet;
                None
            }
            State::Pending { since } if long(since, lasts) => {
                *self = State::Firing { since, good: None };
                Some(Change::Fired)
            }
            State::Firing { since, good } => {
                let good = clear.then(|| good.filter(|good| *good <= now).unwrap_or(now));
                if good.is_some_and(|good| long(good, resolve_after)) {
                    *self = State::Quiet;
                    return Some(Change::Resolved);
                }
                *self = State::Firing { since, good };
                None
            }
            State::Quiet | State::Pending { .. } => None,
        }
    }
}

impl State {
    /// The clock was set by so many seconds.
    pub fn shift(&mut self, by: f64) {
        match self {
            State::Quiet => {}
            State::Pending { since } => *since += by,
            State::Firing { since, good } => {
                *since += by;
                good.iter_mut().for_each(|good| *good += by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens each second while a value is as given.
    fn life(values: &[f64], lasts: u64, resolve_after: u64) -> Vec<(usize, Change)> {
        let (above, clear) = (5.0, 3.0);
        let mut state = State::default();
        let step = |(second, value): (usize, &f64)| {
            let (lasts, resolve_after) = (Duration::from_secs(lasts), Duration::from_secs(resolve_after));
            let change = state.step(second as f64, *value > above, *value <= clear, lasts, resolve_after);
            change.map(|change| (second, change))
        };
        values.iter().enumerate().filter_map(step).collect()
    }

    #[test]
    fn it_fires_after_it_has_lasted_and_resolves_after_it_was_good_for_as_long() {
        let values = [0.0, 9.0, 9.0, 9.0, 9.0, 2.0, 2.0, 2.0, 2.0];
        assert_eq!(life(&values, 2, 2), [(3, Change::Fired), (7, Change::Resolved)]);
        assert_eq!(life(&values, 0, 0), [(1, Change::Fired), (5, Change::Resolved)]);
    }

    #[test]
    fn a_short_peak_is_no_alert_and_a_short_dip_no_end() {
        assert_eq!(life(&[9.0, 9.0, 0.0, 9.0, 9.0, 0.0], 2, 0), []);
        assert_eq!(life(&[9.0, 2.0, 9.0, 2.0, 2.0], 0, 1), [(0, Change::Fired), (4, Change::Resolved)]);
    }

    #[test]
    fn between_the_two_thresholds_it_stays_as_it_is() {
        assert_eq!(
            life(&[4.0, 4.0, 9.0, 4.0, 4.0, 4.0, 3.0], 0, 0),
            [(2, Change::Fired), (6, Change::Resolved)]
        );
    }

    #[test]
    fn a_clock_that_is_set_back_neither_fires_nor_resolves_by_itself() {
        let mut state = State::Pending { since: 1000.0 };
        let minute = Duration::from_secs(60);
        assert_eq!(state.step(10.0, true, false, minute, minute), None);
        let mut state = State::Firing { since: 1000.0, good: Some(1000.0) };
        assert_eq!(state.step(10.0, false, true, minute, minute), None);
        assert_eq!(state.step(70.0, false, true, minute, minute), Some(Change::Resolved));
    }
}
