//! Names of the keys that people ask about: the table itself has only hashes.
//!
//! A worker notes the name of a key that is over or near its limit, in a place that follows from the key's hash; what
//! was there before goes, unless it was refused more often. Each worker has places of its own, and a lock that nobody
//! else takes but who looks.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use super::{Limit, Now, Store, meter::Left};

const PLACES: usize = 2048;

#[derive(Debug, Clone)]
struct Label {
    key: u128,
    group: u32,
    refused: u32,
    text: Box<str>,
    /// The consumer's tier, which says what the quota is.
    tier: Option<Box<str>>,
    /// The client's address, where the key has it.
    source: Option<IpAddr>,
    rate: Rate,
}

/// Refusals a second, of late.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    at_ns: u64,
    per_second: f64,
}

impl Rate {
    /// Seconds of which an older refusal weighs a third.
    const FADES: f64 = 10.0;

    fn at(self, now_ns: u64) -> f64 {
        let passed = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        self.per_second * (-passed / Rate::FADES).exp()
    }

    fn refused(&mut self, now_ns: u64) {
        *self = Rate { at_ns: now_ns, per_second: self.at(now_ns) + 1.0 / Rate::FADES };
    }
}

#[derive(Debug)]
pub struct Labels(Box<[Mutex<Places>]>);

/// Empty until the first is noted.
type Places = Box<[Option<Label>]>;

/// A key as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub limit: String,
    /// For `reset`.
    pub id: String,
    pub key: String,
    pub left: u64,
    pub of: u64,
    /// Since it began to use anything.
    pub refused: u32,
    /// In the last seconds.
    pub refused_per_second: f64,
    /// The client's address, or its prefix's first, where the key has it.
    pub source: Option<IpAddr>,
    /// Seconds until there is something again, and until all is.
    pub next_seconds: f64,
    pub full_seconds: f64,
}

impl Labels {
    pub fn new(workers: usize) -> Self {
        Labels((0..workers.max(1)).map(|_| Mutex::default()).collect())
    }

    /// How often it was refused, and when; `text`: only asked for when it is new.
    pub fn note(
        &self,
        worker: usize,
        limit: &Limit,
        key: u128,
        (refused, now): (u32, u64),
        (tier, source): (Option<&str>, Option<IpAddr>),
        text: impl FnOnce() -> String,
    ) {
        let worker = &self.0[worker % self.0.len()];
        let mut places = worker.lock().unwrap_or_else(PoisonError::into_inner);
        if places.is_empty() {
            *places = vec![None; PLACES].into_boxed_slice();
        }
        let place = &mut places[key as usize % PLACES];
        match place {
            Some(label) if label.key == key => {
                label.refused = label.refused.max(refused);
                if refused > 0 {
                    label.rate.refused(now);
                }
            }
            // It fades, so that it is somebody else's turn at last.
            Some(label) if label.refused > refused => label.refused -= 1,
            _ => {
                let mut rate = Rate::default();
                if refused > 0 {
                    rate.refused(now);
                }
                *place = Some(Label {
                    key,
                    group: limit.group,
                    refused,
                    text: text().into(),
                    tier: tier.map(Into::into),
                    source,
                    rate,
                });
            }
        }
    }

    pub fn top(&self, store: &Store, limit: &Limit, most: usize) -> Vec<Row> {
        let now = Now::read();
        let mut labels: HashMap<u128, Label> = HashMap::new();
        for worker in &self.0 {
            let places = worker.lock().unwrap_or_else(PoisonError::into_inner);
            let ours = places.iter().flatten().filter(|label| label.group == limit.group);
            for label in ours {
                let sum = labels
                    .entry(label.key)
                    .or_insert_with(|| Label { rate: Rate::default(), ..label.clone() });
                sum.rate =
                    Rate { at_ns: now.steady, per_second: sum.rate.per_second + label.rate.at(now.steady) };
            }
        }
        let mut rows: Vec<Row> =
            labels.into_values().filter_map(|label| row(store, limit, label, now)).collect();
        rank(&mut rows, most);
        rows
    }
}

/// By how fast they are refused, then how often they were, then how near they are.
pub fn rank(rows: &mut Vec<Row>, most: usize) {
    rows.sort_by(|one, two| {
        let rate = two.refused_per_second.total_cmp(&one.refused_per_second);
        let order = |row: &Row| (Reverse(row.refused), row.left);
        rate.then_with(|| order(one).cmp(&order(two))).then_with(|| one.key.cmp(&two.key))
    });
    rows.truncate(most);
}

fn row(store: &Store, limit: &Limit, label: Label, now: Now) -> Option<Row> {
    let (left, of, refused) = limit.state(store, label.key, label.tier.as_deref(), now)?;
    let Left { units, next_ns, full_ns } = left;
    (units < of || refused > 0).then(|| Row {
        limit: limit.name.to_string(),
        id: format!("{:032x}", label.key),
        key: label.text.into(),
        left: units,
        of,
        refused,
        // What fades is nothing at last.
        refused_per_second: Some(label.rate.at(now.steady)).filter(|rate| *rate >= 0.05).unwrap_or(0.0),
        source: label.source,
        next_seconds: next_ns as f64 / 1e9,
        full_seconds: full_ns as f64 / 1e9,
    })
}
