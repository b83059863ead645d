//! One limit's word on one request: looked at, taken, given back.

use std::{borrow::Cow, sync::Arc};

use super::super::{
    Counts, Facts, Grade, Limit, Moves, Now, Store,
    fair::{DEPTH_NS, Even, Portion},
    fields,
    meter::{Bucket, Left, Meter},
    offence::Rule,
    passage::Due,
    table::{Owner, Word},
};
use crate::{
    config::model::{CostOf, Unit},
    kernel::Connections,
    observe::Why,
};

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

impl Limit {
    fn grade(&self, tier: Option<&str>) -> Option<&Grade> {
        match &self.counts {
            Counts::Active { .. } => None,
            Counts::Rate { base, tiers, .. } => {
                let own = tier.and_then(|tier| tiers.iter().find(|(name, _)| **name == *tier));
                Some(own.map_or(base, |(_, grade)| grade))
            }
        }
    }

    /// A grade's meter as it is now, for a tier, and for who is within an even share.
    fn meter(&self, grade: &Grade, tier: Option<&str>, within: bool) -> Meter {
        match &self.moves {
            Some(moves) => grade.meter.scaled(moves.dial.share(), moves.kept(tier, within)),
            None => grade.meter,
        }
    }

    /// Whose word is to be looked at, and as what; with what is known of other gateways.
    pub(super) fn place(
        &self,
        store: &Store,
        meter: Meter,
        owner: Owner,
        now: Now,
        cost: u64,
    ) -> (Owner, Meter) {
        let (at, meter) = meter.at(store.rates(), owner, now, cost);
        match self.share {
            Some(_) => (at, store.among(meter, (&owner, &at), now)),
            None => (at, meter),
        }
    }

    /// How many there may be at once now, likewise.
    fn max(&self, max: u32, tier: Option<&str>, within: bool) -> u32 {
        match &self.moves {
            Some(moves) => {
                ((moves.dial.value() * (1.0 - moves.kept(tier, within))).round() as u32).clamp(1, max)
            }
            None => max,
        }
    }

    /// A request's place in its caller's even share, which is taken if it is to be.
    fn portion(&self, store: &Store, facts: &Facts<'_>, now: Now, take: bool) -> Option<Portion> {
        let Moves { dial, even, .. } = self.moves.as_ref()?;
        let even = even.as_ref()?;
        let bucket = match self.grade(facts.tier).map(|grade| grade.meter) {
            Some(Meter::Bucket(bucket)) => bucket.scaled(dial.level_share(), 0.0),
            _ => Bucket::of_a_second(dial.level()),
        }
        .as_deep(DEPTH_NS);
        let cost = self.cost(facts).unwrap_or(1);
        let ask = if take { Even::take } else { Even::look };
        Some(ask(even, store.rates(), facts, now, cost, bucket))
    }

    /// It was refused: whether it is banned for it.
    pub(super) fn offend(&self, store: &Store, facts: &Facts<'_>) -> bool {
        let offend =
            |rule: &Rule| rule.offend(store, facts.client, facts.direct, 1, "went on after it was refused");
        self.ban.as_ref().is_some_and(offend)
    }

    /// What a request costs when it comes. `None`: that is only known when it is over.
    pub(super) fn cost(&self, facts: &Facts<'_>) -> Option<u64> {
        match (&self.counts, &self.cost) {
            (Counts::Rate { unit: Unit::Bytes, .. }, _) => None,
            (_, CostOf::Fixed(cost)) => Some(*cost),
            (_, CostOf::Method(by_method)) => {
                Some(by_method.get(facts.head.method.as_str()).copied().unwrap_or(1))
            }
            (_, CostOf::Header(_) | CostOf::Json(_)) => None,
        }
    }

    /// What is left for a key, of how much, and how often it was refused.
    pub(in crate::limit) fn state(
        &self,
        store: &Store,
        key: u128,
        tier: Option<&str>,
        now: Now,
    ) -> Option<(Left, u64, u32)> {
        let owner = self.owner(key);
        match (&self.counts, self.grade(tier)) {
            (Counts::Active { max }, _) => {
                let (max, seen) = (self.max(*max, tier, true), store.active().seen(&owner)?);
                Some((free(seen.value, max), u64::from(max), seen.refused))
            }
            (_, Some(grade)) => {
                let (at, meter) = self.place(store, self.meter(grade, tier, true), owner, now, 1);
                let seen = store.rates().seen(&at);
                // Of sliding windows the part that is now may not be used yet.
                if seen.is_none() && at == owner {
                    return None;
                }
                let (value, refused) = seen.map_or((0, 0), |seen| (seen.value, seen.refused));
                Some((meter.left(value, now), meter.capacity(), refused))
            }
            _ => None,
        }
    }

    /// Takes nothing.
    pub(super) fn look<'a>(self: &'a Arc<Self>, store: &Store, facts: &Facts<'_>, now: Now) -> Checked<'a> {
        let (owner, grade) = (self.owner(self.key.hash(facts)), self.grade(facts.tier));
        let portion = self.portion(store, facts, now, false);
        let within = portion.is_none_or(|portion| portion.within);
        let meter = grade.map(|grade| self.meter(grade, facts.tier, within));
        let ask = self.cost(facts).unwrap_or(1);
        let (at, meter) = match meter.map(|meter| self.place(store, meter, owner, now, ask)) {
            Some((at, meter)) => (at, Some(meter)),
            None => (owner, None),
        };
        let (left, capacity, verdict) = match (&self.counts, grade.zip(meter)) {
            (Counts::Rate { delay_ns, soft, .. }, Some((grade, meter))) => {
                let word = store.rates().read(&at);
                let over = meter.take_ahead(word, now, ask, *delay_ns, false).err().filter(|_| !self.pace);
                let shed = || {
                    let (at, shed) = grade.shed?.at(store.rates(), self.shed_owner(owner.key), now, ask);
                    shed.take(store.rates().read(&at), now, ask, false).err()
                };
                let over = if *soft && *delay_ns == 0 { shed() } else { over };
                let verdict = over.map_or(Verdict::Allow, |over| Verdict::Deny { wait_ns: over.wait_ns });
                (meter.left(word, now), meter.capacity(), verdict)
            }
            (Counts::Active { max }, _) => {
                let max = self.max(*max, facts.tier, within);
                let active = store.active().read(&owner);
                let full = active >= u64::from(max);
                let verdict = if full { Verdict::Deny { wait_ns: 1 } } else { Verdict::Allow };
                (free(active, max), u64::from(max), verdict)
            }
            _ => (Left::default(), 0, Verdict::Allow),
        };
        let mut one =
            Checked { at, grade, meter, left, capacity, verdict, portion, ..Checked::of(self, owner) };
        one.note_shares(store, facts, now);
        one.note_wait();
        one
    }

    pub(super) fn take<'a>(self: &'a Arc<Self>, store: &Store, facts: &Facts<'_>, now: Now) -> Checked<'a> {
        let owner = self.owner(self.key.hash(facts));
        let portion = self.portion(store, facts, now, true);
        let within = portion.is_none_or(|portion| portion.within);
        let mut one = match (&self.counts, self.grade(facts.tier)) {
            (Counts::Rate { delay_ns, soft, .. }, Some(grade)) => {
                let (ask, meter) = (self.cost(facts), self.meter(grade, facts.tier, within));
                self.take_rate(store, owner, (grade, meter), (ask, *delay_ns, *soft), now)
            }
            (Counts::Active { max }, _) => {
                self.take_active(store, owner, self.max(*max, facts.tier, within), now)
            }
            _ => self.look(store, facts, now),
        };
        one.portion = portion;
        one.note_shares(store, facts, now);
        one.note_wait();
        one
    }

    fn take_rate<'a>(
        self: &'a Arc<Self>,
        store: &Store,
        owner: Owner,
        (grade, meter): (&'a Grade, Meter),
        (cost, delay_ns, soft): (Option<u64>, u64, bool),
        now: Now,
    ) -> Checked<'a> {
        let table = store.rates();
        let (at, meter) = self.place(store, meter, owner, now, cost.unwrap_or(1));
        let mut one = Checked {
            at,
            grade: Some(grade),
            meter: Some(meter),
            capacity: meter.capacity(),
            ..Checked::of(self, owner)
        };
        // What is only known at the end is let in while there is anything.
        let took = match cost {
            Some(cost) => table
                .update(&at, now.steady, |word, shared| meter.take_ahead(word, now, cost, delay_ns, shared)),
            None => {
                let value = table.read(&at);
                let word = Word { value, until: 0 };
                match meter.take_ahead(value, now, 1, delay_ns, false) {
                    Err(over) if !self.pace => Err(over),
                    _ => Ok(word),
                }
            }
        };
        one.left = match &took {
            Ok(word) => meter.left(word.value, now),
            Err(_) => meter.left(table.read(&at), now),
        };
        match took {
            Ok(word) => {
                one.taken = cost.unwrap_or(0);
                let wait_ns = meter.wait_ns(word.value, now);
                // Of paced ones it is what is sent that waits.
                if wait_ns > 0 && !self.pace {
                    one.verdict = Verdict::Soft { wait_ns };
                }
            }
            Err(_) if soft && delay_ns == 0 => one.verdict = Verdict::Soft { wait_ns: 0 },
            Err(over) => one.verdict = Verdict::Deny { wait_ns: over.wait_ns },
        }
        if let (Some(shed), false) = (grade.shed, one.denies()) {
            let ask = cost.unwrap_or(0);
            let (at, shed) = shed.at(table, self.shed_owner(owner.key), now, ask);
            let shed_took = table.update(&at, now.steady, |word, shared| shed.take(word, now, ask, shared));
            match shed_took {
                Ok(_) => one.taken_from_shed = Some(at),
                Err(over) => {
                    if one.taken > 0 {
                        table.change(&one.at, |word| meter.give_back(word, one.taken));
                        one.taken = 0;
                    }
                    one.verdict = Verdict::Deny { wait_ns: over.wait_ns };
                }
            }
        }
        one
    }

    fn take_active<'a>(self: &'a Arc<Self>, store: &Store, owner: Owner, max: u32, now: Now) -> Checked<'a> {
        let took = store.active().update(&owner, now.steady, |word, shared| {
            // A count that others share could not be given back.
            match word < u64::from(max) && !shared {
                true => Ok(Word { value: word + 1, until: 0 }),
                false => Err(word),
            }
        });
        let (active, verdict) = match took {
            Ok(word) => (word.value, Verdict::Allow),
            Err(active) => (active, Verdict::Deny { wait_ns: 1 }),
        };
        Checked {
            taken: u64::from(took.is_ok()),
            left: free(active, max),
            capacity: u64::from(max),
            verdict,
            ..Checked::of(self, owner)
        }
    }
}

fn free(active: u64, max: u32) -> Left {
    let units = u64::from(max).saturating_sub(active);
    // Nobody knows when one of them ends: ask again in a second.
    Left { units, next_ns: if units > 0 { 0 } else { 1_000_000_000 }, full_ns: 0 }
}

impl<'a> Checked<'a> {
    /// Of which nothing was taken, and nothing is known.
    fn of(limit: &'a Arc<Limit>, owner: Owner) -> Self {
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
    fn note_shares(&mut self, store: &Store, facts: &Facts<'_>, now: Now) {
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
        let (limit, owner) = (self.limit.clone(), self.owner);
        match (&self.limit.counts, self.grade.zip(self.meter)) {
            (Counts::Active { .. }, _) => (self.taken > 0).then_some(Due::Release { owner }),
            (Counts::Rate { unit, .. }, Some((grade, meter))) => {
                let late = *unit == Unit::Bytes || self.limit.cost.is_in_answer();
                late.then(|| Due::Charge {
                    owner,
                    shed: grade.shed.map(|shed| (limit.shed_owner(owner.key), shed)),
                    meter,
                    limit,
                    cost: None,
                })
            }
            _ => None,
        }
    }
}
