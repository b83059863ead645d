//! The last minutes, for sparklines.

use std::collections::{BTreeMap, VecDeque};

use super::rates::Rates;

/// Looks that are kept.
const LENGTH: usize = 240;

#[derive(Debug, Default)]
pub struct History {
    pub requests: Line,
    pub errors: Line,
    pub passed: Line,
    pub dropped: Line,
    pub routes: BTreeMap<String, Line>,
    /// Requests by cache, and those that a limit refused.
    pub caches: BTreeMap<String, Line>,
    pub limits: BTreeMap<String, Line>,
    /// Drops by reason.
    pub reasons: BTreeMap<String, Line>,
}

#[derive(Debug, Default, Clone)]
pub struct Line(VecDeque<f64>);

impl Line {
    fn push(&mut self, value: f64) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The last `width` values, the newest last.
    pub fn last(&self, width: usize) -> Vec<u64> {
        // To a tenth: slow traffic is seen too.
        self.0.iter().skip(self.0.len().saturating_sub(width)).map(|n| (n * 10.0).round() as u64).collect()
    }
}

impl History {
    pub fn note(&mut self, rates: &Rates) {
        self.requests.push(rates.requests);
        self.errors.push(rates.errors);
        self.passed.push(rates.packets_of("pass"));
        self.dropped.push(rates.packets_of("drop"));
        for (route, of) in &rates.routes {
            self.routes.entry(route.clone()).or_default().push(of.requests);
        }
        for (cache, of) in &rates.caches {
            self.caches.entry(cache.clone()).or_default().push(of.values().sum());
        }
        for (limit, of) in &rates.limits {
            self.limits.entry(limit.clone()).or_default().push(of.get("deny").copied().unwrap_or(0.0));
        }
        self.caches.retain(|cache, _| rates.caches.contains_key(cache));
        self.limits.retain(|limit, _| rates.limits.contains_key(limit));
        for (reason, n) in rates.packets.values().flatten() {
            self.reasons.entry(reason.clone()).or_default().push(*n);
        }
        self.routes.retain(|route, _| rates.routes.contains_key(route));
    }
}
