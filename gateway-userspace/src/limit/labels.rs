//! Names of the keys that people ask about: the table itself has only hashes.
//!
//! A worker notes the name of a key that is over or near its limit, in a place that follows from the key's hash; what
//! was there before goes, unless it was refused more often. Each worker has places of its own, and a lock that nobody
//! else takes but who looks.

use std::{
    collections::HashMap,
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
    /// Seconds until there is something again, and until all is.
    pub next_seconds: f64,
    pub full_seconds: f64,
}

impl Labels {
    pub fn new(workers: usize) -> Self {
        Labels((0..workers.max(1)).map(|_| Mutex::default()).collect())
    }

    /// `text`: only asked for when it is new.
    pub fn note(
        &self,
        worker: usize,
        limit: &Limit,
        key: u128,
        refused: u32,
        tier: Option<&str>,
        text: impl FnOnce() -> String,
    ) {
        let worker = &self.0[worker % self.0.len()];
        let mut places = worker.lock().unwrap_or_else(PoisonError::into_inner);
        if places.is_empty() {
            *places = vec![None; PLACES].into_boxed_slice();
        }
        let place = &mut places[key as usize % PLACES];
        match place {
            Some(label) if label.key == key => label.refused = refused,
            // It fades, so that it is somebody else's turn at last.
            Some(label) if label.refused > refused => label.refused -= 1,
            _ => {
                *place = Some(Label {
                    key,
                    group: limit.group,
                    refused,
                    text: text().into(),
                    tier: tier.map(Into::into),
                });
            }
        }
    }

    pub fn top(&self, store: &Store, limit: &Limit, most: usize) -> Vec<Row> {
        let mut labels: HashMap<u128, Label> = HashMap::new();
        for worker in &self.0 {
            let places = worker.lock().unwrap_or_else(PoisonError::into_inner);
            let ours = places.iter().flatten().filter(|label| label.group == limit.group);
            labels.extend(ours.map(|label| (label.key, label.clone())));
        }
        let now = Now::read();
        let mut rows: Vec<Row> =
            labels.into_values().filter_map(|label| row(store, limit, label, now)).collect();
        rows.sort_by(|one, two| {
            let order = |row: &Row| (std::cmp::Reverse(row.refused), row.left);
            order(one).cmp(&order(two)).then_with(|| one.key.cmp(&two.key))
        });
        rows.truncate(most);
        rows
    }
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
        next_seconds: next_ns as f64 / 1e9,
        full_seconds: full_ns as f64 / 1e9,
    })
}
