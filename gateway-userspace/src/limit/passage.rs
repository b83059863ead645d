//! What is settled when a request is over, however it ends: places given back, what it cost taken.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use super::{
    Counts, Limit, Now, Store,
    meter::Meter,
    sharing::{Ask, Share},
    table::Owner,
};
use crate::config::model::{CostOf, Unit};

/// The right to have been let in.
#[derive(Debug)]
pub struct Passage {
    store: Arc<Store>,
    due: Vec<Due>,
}

#[derive(Debug)]
pub enum Due {
    /// It is one less under way.
    Release { owner: Owner },
    /// It cost what is only known now.
    Charge {
        limit: Arc<Limit>,
        owner: Owner,
        meter: Meter,
        shed: Option<(Owner, Meter)>,
        /// What the answer said.
        cost: Option<u64>,
    },
}

/// What a request came to.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// Of bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A limit of bytes that what is sent waits for.
#[derive(Debug)]
pub struct Pace {
    store: Arc<Store>,
    owner: Owner,
    meter: Meter,
}

impl Pace {
    /// Takes so many bytes: how long it is until they may be sent.
    pub fn take(&self, bytes: u64) -> Duration {
        /// Nobody is held longer.
        const LONGEST: Duration = Duration::from_secs(3600);
        let now = Now::read();
        let ahead = LONGEST.as_nanos() as u64;
        let table = self.store.rates();
        let took = table.update(&self.owner, now.steady, |word, shared| {
            self.meter.take_ahead(word, now, bytes, ahead, shared)
        });
        match took {
            Ok(word) => Duration::from_nanos(self.meter.wait_ns(word.value, now)),
            Err(_) => LONGEST,
        }
    }
}

impl Passage {
    pub fn new(store: Arc<Store>, due: Vec<Due>) -> Self {
        Passage { store, due }
    }

    /// The answer's head is here.
    pub fn answered(&mut self, headers: &HeaderMap) {
        for due in &mut self.due {
            if let Due::Charge { limit, cost, .. } = due
                && let CostOf::Header(name) = &limit.cost
            {
                let value = headers.get(name.as_str()).and_then(|value| value.to_str().ok());
                *cost = value.and_then(|value| value.trim().parse().ok());
            }
        }
    }

    /// The JSON pointers that are to be looked up in the answer's body.
    pub fn pointers(&self) -> Vec<String> {
        let pointer = |due: &Due| match due {
            Due::Charge { limit, .. } => limit.pointer().map(str::to_owned),
            Due::Release { .. } => None,
        };
        self.due.iter().filter_map(pointer).collect()
    }

    /// What the answer's body has at a pointer.
    pub fn found(&mut self, pointer: &str, value: u64) {
        for due in &mut self.due {
            if let Due::Charge { limit, cost, .. } = due
                && limit.pointer() == Some(pointer)
            {
                *cost = Some(value);
            }
        }
    }

    /// How fast the answer may be sent.
    pub fn paces(&self) -> Vec<Pace> {
        let pace = |due: &Due| match due {
            Due::Charge { limit, owner, meter, .. } if limit.pace => {
                Some(Pace { store: self.store.clone(), owner: *owner, meter: *meter })
            }
            _ => None,
        };
        self.due.iter().filter_map(pace).collect()
    }

    pub fn end(self, ending: Ending) {
        let now = Now::read();
        for due in &self.due {
            match due {
                Due::Release { owner } => {
                    self.store.active().change(owner, |active| active.saturating_sub(1));
                }
                Due::Charge { limit, owner, meter, shed, cost } => {
                    let bytes = matches!(limit.counts, Counts::Rate { unit: Unit::Bytes, .. });
                    let sent = if limit.pace { 0 } else { ending.bytes_out };
                    let cost = if bytes { ending.bytes_in + sent } else { cost.unwrap_or(0) };
                    if cost > 0 {
                        self.charge(owner, meter, now, cost);
                        if limit.shares() == Some(Share::End) {
                            self.store.shared.ask(Ask { spent: cost, ..Ask::of(limit, *owner, *meter) });
                        }
                        if let Some((owner, shed)) = shed {
                            self.charge(owner, shed, now, cost);
                        }
                    }
                }
            }
        }
    }

    fn charge(&self, owner: &Owner, meter: &Meter, now: Now, cost: u64) {
        let table = self.store.rates();
        let (at, meter) = meter.at(table, *owner, now, cost);
        let _ = table.update::<()>(&at, now.steady, |word, _| Ok(meter.charge(word, now, cost)));
    }
}
