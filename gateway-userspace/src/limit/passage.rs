//! What is settled when a request is over, however it ends: places given back, what it cost taken.

use std::sync::Arc;

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
    /// Of bodies, both ways.
    pub bytes: u64,
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

    pub fn end(self, ending: Ending) {
        let now = Now::read();
        for due in &self.due {
            match due {
                Due::Release { owner } => {
                    self.store.active().change(owner, |active| active.saturating_sub(1));
                }
                Due::Charge { limit, owner, meter, shed, cost } => {
                    let bytes = matches!(limit.counts, Counts::Rate { unit: Unit::Bytes, .. });
                    let cost = if bytes { ending.bytes } else { cost.unwrap_or(0) };
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
