//! What a limit said of one request, and what it gave: told, given back.

use std::{borrow::Cow, sync::Arc};

use super::super::{
    Counts, Facts, Grade, Limit, Now, Store,
    fair::Portion,
    fields,
    meter::{Left, Meter},
    passage::Due,
    table::Owner,
};
use super::check::free;
use crate::{config::model::Unit, kernel::Connections, observe::Why};

/// One limit's word on it.
pub(super) struct Checked<'a> {
    pub(super) limit: &'a Arc<Limit>,
    pub(super) owner: Owner,
    /// Whose word it is.
    pub(super) at: Owner,
    pub(super) grade: Option<&'a Grade>,
    /// Its grade's, as it is now.
    pub(super) meter: Option<Meter>,
    /// Of the limit, and where it is hard if it is soft: units to give back.
    pub(super) taken: u64,
    pub(super) taken_from_shed: Option<Owner>,
    pub(super) left: Left,
    pub(super) capacity: u64,
    pub(super) verdict: Verdict,
    /// In the store too.
    pub(super) paid: bool,
    /// It refuses as the store does not answer.
    pub(super) unknown: bool,
    /// Of its caller's even share.
    pub(super) portion: Option<Portion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// Over it, and let through; after so long.
    Soft {
        wait_ns: u64,
    },
    Deny {
        wait_ns: u64,
    },
}

impl<'a> Checked<'a> {
    /// Of which nothing was taken, and nothing is known.
    pub(super) fn of(limit: &'a Arc<Limit>, owner: Owner) -> Self {
        Checked {
            limit,
            owner,
            at: owner,
            grade: None,
            meter: None,
            taken: 0,
            taken_from_shed: None,
            left: Left::default(),
            capacity: 0,
            verdict: Verdict::Allow,
            paid: false,
            unknown: false,
            portion: None,
        }
    }
}

impl Checked<'_> {
    /// And it counts.
    pub(super) fn refuses(&self) -> bool {
        self.denies() && !self.limit.dry_run
    }

    /// Why it refuses, if it does.
    pub(super) fn why(&self) -> Why {
        match (self.unknown, &self.limit.moves) {
            (true, _) => Why::LimitUnavailable,
            (false, Some(_)) => Why::Shed,
            (false, None) => Why::Limited,
        }
    }

    pub(super) fn denies(&self) -> bool {
        matches!(self.verdict, Verdict::Deny { .. })
    }

    /// The kernel half may have less left.
    pub(super) fn tighten(&mut self, store: &Store, facts: &Facts<'_>) {
        if !self.limit.kernel || !facts.direct {
            return;
        }
        if let Some(Connections { left, next_ns, full_ns, .. }) = store.connections(facts.client)
            && left <= self.left.units
        {
            let same = left == self.left.units;
            let longer = |ns: u64, than: u64| if same { ns.max(than) } else { ns };
            self.left = Left {
                units: left,
                next_ns: longer(next_ns, self.left.next_ns),
                full_ns: longer(full_ns, self.left.full_ns),
            };
        }
    }

    /// What is left is what may be had within the share, or what is left for those who are over theirs.
    pub(super) fn note_shares(&mut self, store: &Store, facts: &Facts<'_>, now: Now) {
        let Some(portion) = self.portion else { return };
        let (limit, tier) = (self.limit, facts.tier);
        let of = |within| match (&limit.counts, self.grade) {
            (Counts::Active { max }, _) => {
                free(store.active().read(&self.owner), limit.max(*max, tier, within))
            }
            (_, Some(grade)) => limit.meter(grade, tier, within).left(store.rates().read(&self.at), now),
            _ => self.left,
        };
        let (all, over, share) = (of(true), of(false), portion.left(store.rates(), now));
        let within = all.units.min(share.units);
        self.left = match within.max(over.units) {
            0 => Left {
                units: 0,
                next_ns: over.next_ns.min(all.next_ns.max(share.next_ns)),
                full_ns: all.full_ns,
            },
            units => Left { units, next_ns: 0, full_ns: all.full_ns },
        };
    }

    /// A request that costs more than one waits longer than until there is one.
    pub(super) fn note_wait(&mut self) {
        if let Verdict::Deny { wait_ns } = self.verdict {
            self.left.next_ns = self.left.next_ns.max(wait_ns);
            self.left.units = 0;
        }
    }

    pub(super) fn policy(&self) -> Cow<'_, str> {
        let name = &self.limit.name;
        match (&self.limit.counts, self.grade, self.meter) {
            (Counts::Active { .. }, ..) => fields::policy_at_once(name, self.capacity).into(),
            (Counts::Rate { unit, .. }, _, Some(meter)) if self.limit.moves.is_some() => {
                fields::policy(name, *unit, &meter).into()
            }
            (_, Some(grade), _) => Cow::Borrowed(&grade.policy),
            _ => Cow::Borrowed(""),
        }
    }

    pub(super) fn refused(&self, store: &Store) -> u32 {
        match self.limit.counts {
            Counts::Active { .. } => store.active().refused(&self.owner),
            Counts::Rate { .. } => store.rates().refused(&self.at),
        }
    }

    pub(super) fn give_back(&self, store: &Store) {
        if let Some(portion) = &self.portion {
            portion.give_back(store.rates());
        }
        match (&self.limit.counts, self.grade.zip(self.meter)) {
            (Counts::Active { .. }, _) if self.taken > 0 => {
                store.active().change(&self.owner, |word| word.saturating_sub(1));
            }
            (_, Some((grade, meter))) => {
                if self.taken > 0 {
                    store.rates().change(&self.at, |word| meter.give_back(word, self.taken));
                }
                if let Some((shed, at)) = grade.shed.zip(self.taken_from_shed) {
                    store.rates().change(&at, |word| shed.give_back(word, self.taken));
                }
            }
            _ => {}
        }
    }

    /// What is to be settled at the end.
    pub(super) fn due(&self) -> Option<Due> {
        let owner = self.owner;
        match (&self.limit.counts, self.grade.zip(self.meter)) {
            (Counts::Active { .. }, _) => (self.taken > 0).then_some(Due::Release { owner }),
            (Counts::Rate { unit, .. }, Some((grade, meter))) => {
                let late = *unit == Unit::Bytes || self.limit.cost.is_in_answer();
                late.then(|| Due::Charge {
                    owner,
                    shed: grade.shed.map(|shed| (self.limit.shed_owner(owner.key), shed)),
                    meter,
                    limit: self.limit.clone(),
                    cost: None,
                })
            }
            _ => None,
        }
    }
}
