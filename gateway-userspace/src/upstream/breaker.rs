//! A circuit breaker: closed while most requests succeed, open when they do not, half open to find out whether that
//! is over (Nygard, "Release It!").

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{clock::millis, window::Window};
use crate::config::model;

#[derive(Debug)]
pub struct Breaker {
    pub config: model::Breaker,
    requests: Window,
    errors: Window,
    /// Open until then, half open from then on; 0: closed.
    open_until: AtomicU64,
    /// Under way while half open.
    probing: AtomicU32,
    /// Succeeded since it is half open.
    good: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half-open",
        }
    }
}

/// A request that was let through.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.probing.fetch_sub(1, Relaxed);
        }
    }
}

impl Breaker {
    pub fn new(config: model::Breaker) -> Self {
        Breaker {
            requests: Window::new(config.within),
            errors: Window::new(config.within),
            config,
            open_until: AtomicU64::new(0),
            probing: AtomicU32::new(0),
            good: AtomicU32::new(0),
        }
    }

    pub fn state(&self, now_ms: u64) -> State {
        match self.open_until.load(Relaxed) {
            0 => State::Closed,
            until if now_ms < until => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// Whether a request may go on.
    pub fn admit(&self, now_ms: u64) -> Option<Permit<'_>> {
        match self.state(now_ms) {
            State::Closed => Some(Permit { breaker: self, probe: false }),
            State::Open => None,
            State::HalfOpen => {
                let room = |probing| (probing < self.config.probes).then_some(probing + 1);
                self.probing.fetch_update(Relaxed, Relaxed, room).ok()?;
                Some(Permit { breaker: self, probe: true })
            }
        }
    }
}

impl Permit<'_> {
    /// How it went. The new state, if this changed it.
    pub fn note(&self, ok: bool, now_ms: u64) -> Option<State> {
        match (self.breaker.state(now_ms), self.probe) {
            (State::Closed, _) => self.breaker.count(ok, now_ms),
            (State::HalfOpen, true) => self.breaker.probed(ok, now_ms),
            // It began before the breaker opened and tells nothing new.
            _ => None,
        }
    }
}

impl Breaker {
    fn count(&self, ok: bool, now_ms: u64) -> Option<State> {
        self.requests.add(now_ms);
        if ok {
            return None;
        }
        self.errors.add(now_ms);
        let (requests, errors) = (self.requests.sum(now_ms), self.errors.sum(now_ms));
        let trips =
            requests >= u64::from(self.config.least) && errors as f64 >= self.config.errors * requests as f64;
        (trips && self.open(0, now_ms)).then_some(State::Open)
    }

    fn probed(&self, ok: bool, now_ms: u64) -> Option<State> {
        let until = self.open_until.load(Relaxed);
        if !ok {
            return self.open(until, now_ms).then_some(State::Open);
        }
        if self.good.fetch_add(1, Relaxed) + 1 < self.config.probes {
            return None;
        }
        self.requests.clear();
        self.errors.clear();
        self.good.store(0, Relaxed);
        self.open_until.compare_exchange(until, 0, Relaxed, Relaxed).is_ok().then_some(State::Closed)
    }

    /// Whether it was this call that opened it.
    fn open(&self, before: u64, now_ms: u64) -> bool {
        self.good.store(0, Relaxed);
        let until = now_ms + millis(self.config.open_for).max(1);
        self.open_until.compare_exchange(before, until, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(model::Breaker {
            errors: 0.5,
            least: 10,
            within: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            probes: 2,
            slow: None,
        })
    }

    fn ask(breaker: &Breaker, ok: bool, now_ms: u64) -> Option<Option<State>> {
        breaker.admit(now_ms).map(|permit| permit.note(ok, now_ms))
    }

    fn fail_ten(breaker: &Breaker) {
        for _ in 0..10 {
            ask(breaker, false, 1000);
        }
    }

    #[test]
    fn it_opens_at_the_share_of_errors_but_not_before_enough_requests() {
        let breaker = breaker();
        for _ in 0..9 {
            assert_eq!(ask(&breaker, false, 1000), Some(None));
        }
        assert_eq!(ask(&breaker, false, 1000), Some(Some(State::Open)));
        assert_eq!(ask(&breaker, true, 5999), None);

        let healthy = self::breaker();
        for i in 0..100 {
            assert_eq!(ask(&healthy, i % 5 < 3, 1000), Some(None), "40 % of errors are below the share");
        }
    }

    #[test]
    fn half_open_it_lets_a_few_through_and_closes_only_when_they_succeed() {
        let breaker = breaker();
        fail_ten(&breaker);
        assert_eq!(breaker.state(6000), State::HalfOpen);
        let (first, second) = (breaker.admit(6000).unwrap(), breaker.admit(6000).unwrap());
        assert!(breaker.admit(6000).is_none(), "two probes at a time");
        assert_eq!(first.note(true, 6001), None);
        assert_eq!(second.note(false, 6001), Some(State::Open));
        drop((first, second));
        assert!(breaker.admit(11_000).is_none());
        assert_eq!(ask(&breaker, true, 11_001), Some(None));
        assert_eq!(ask(&breaker, true, 11_002), Some(Some(State::Closed)));
        assert_eq!(ask(&breaker, false, 11_003), Some(None), "the errors of before are forgotten");
    }

    #[test]
    fn a_probe_that_never_ends_its_way_frees_its_place() {
        let breaker = breaker();
        fail_ten(&breaker);
        for _ in 0..5 {
            assert!(breaker.admit(6000).is_some());
        }
    }
}
