//! What operators say of targets at run time, above the config and beside what checks find.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

/// How a target is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It gets nothing new, and keeps what it has until that ends.
    Drain,
    /// As if it were broken.
    Down,
}

impl Taken {
    pub fn word(self) -> &'static str {
        match self {
            Taken::Drain => "drain",
            Taken::Down => "down",
        }
    }
}

/// One thing that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override<T> {
    pub value: T,
    /// Who said so.
    pub by: String,
    pub since: SystemTime,
    /// `None`: until it is taken back.
    pub ends: Option<Instant>,
}

impl<T> Override<T> {
    /// From now on, for `duration` or until it is taken back.
    pub fn new(value: T, by: &str, duration: Option<Duration>) -> Self {
        // A time past what the clock can tell is as good as none.
        let ends = duration.and_then(|duration| Instant::now().checked_add(duration));
        Override { value, by: by.to_owned(), since: SystemTime::now(), ends }
    }

    fn over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// All that was said of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub taken: Option<Override<Taken>>,
    /// In place of the config's weight.
    pub weight: Option<Override<u32>>,
}

/// A target's overrides. They live as long as the target: over reloads, not over a restart.
#[derive(Debug, Default)]
pub struct Operator {
    /// For balancing, without a lock: 0 is not taken.
    taken: AtomicU8,
    /// 0: none.
    weight: AtomicU32,
    said: Mutex<Said>,
}

impl Operator {
    pub fn taken(&self) -> Option<Taken> {
        match self.taken.load(Relaxed) {
            0 => None,
            1 => Some(Taken::Drain),
            _ => Some(Taken::Down),
        }
    }

    /// The weight in effect where the config says `config`.
    pub fn weight(&self, config: u32) -> u32 {
        match self.weight.load(Relaxed) {
            0 => config,
            weight => weight,
        }
    }

    pub fn said(&self) -> Said {
        self.lock().clone()
    }

    /// Takes the target out, or (`None`) back in.
    pub fn take(&self, taken: Option<Override<Taken>>) {
        let mut said = self.lock();
        said.taken = taken;
        self.publish(&said);
    }

    /// Gives it another weight (at least 1), or (`None`) the config's.
    pub fn weigh(&self, weight: Option<Override<u32>>) {
        let mut said = self.lock();
        said.weight = weight;
        self.publish(&said);
    }

    /// Ends what is over; whether anything was.
    pub fn expire(&self, now: Instant) -> bool {
        if self.taken.load(Relaxed) == 0 && self.weight.load(Relaxed) == 0 {
            return false;
        }
        let mut said = self.lock();
        let before = said.clone();
        said.taken.take_if(|taken| taken.over(now));
        said.weight.take_if(|weight| weight.over(now));
        self.publish(&said);
        *said != before
    }

    fn publish(&self, said: &Said) {
        let taken = said.taken.as_ref().map_or(0, |taken| match taken.value {
            Taken::Drain => 1,
            Taken::Down => 2,
        });
        self.taken.store(taken, Relaxed);
        self.weight.store(said.weight.as_ref().map_or(0, |weight| weight.value), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_holds_until_its_time_or_until_it_is_taken_back() {
        let operator = Operator::default();
        assert_eq!((operator.taken(), operator.weight(3)), (None, 3));
        operator.take(Some(Override::new(Taken::Drain, "ann", Some(Duration::from_secs(60)))));
        operator.weigh(Some(Override::new(7, "bob", None)));
        assert_eq!((operator.taken(), operator.weight(3)), (Some(Taken::Drain), 7));
        assert_eq!(operator.said().taken.map(|taken| taken.by), Some("ann".into()));

        let now = Instant::now();
        assert!(!operator.expire(now));
        assert!(operator.expire(now + Duration::from_secs(61)));
        assert_eq!((operator.taken(), operator.weight(3)), (None, 7));
        operator.weigh(None);
        assert_eq!((operator.weight(3), operator.said()), (3, Said::default()));
    }

    #[test]
    fn a_time_that_no_clock_can_tell_never_ends() {
        let operator = Operator::default();
        operator.take(Some(Override::new(Taken::Down, "ann", Some(Duration::MAX))));
        assert!(!operator.expire(Instant::now() + Duration::from_secs(1 << 30)));
        assert_eq!(operator.taken(), Some(Taken::Down));
    }
}
