//! One limit's word on one request: looked at, taken.

use std::sync::Arc;

use super::super::{
    Counts, Facts, Grade, Limit, Moves, Now, Store,
    fair::{DEPTH_NS, Even, Portion},
    meter::{Bucket, Left, Meter},
    offence::Rule,
    table::{Owner, Word},
};
use super::checked::{Checked, Verdict};
use crate::config::model::{CostOf, Unit};

impl Limit {
    #[inline]
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
    pub(super) fn meter(&self, grade: &Grade, tier: Option<&str>, within: bool) -> Meter {
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
    pub(super) fn max(&self, max: u32, tier: Option<&str>, within: bool) -> u32 {
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

    /// The bucket whose word alone decides, and what is taken from it. `None`: there is more to it.
    #[inline]
    pub(super) fn plain(&self, tier: Option<&str>) -> Option<(&Bucket, u64)> {
        match (&self.grade(tier)?.meter, &self.cost) {
            (Meter::Bucket(bucket), CostOf::Fixed(cost)) if self.plain => Some((bucket, *cost)),
            _ => None,
        }
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
                // What costs more than all there is puts a hard limit into debt, and does not wait.
                let wait_ns = if delay_ns > 0 { meter.wait_ns(word.value, now) } else { 0 };
                if wait_ns > 0 {
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

pub(super) fn free(active: u64, max: u32) -> Left {
    let units = u64::from(max).saturating_sub(active);
    // Nobody knows when one of them ends: ask again in a second.
    Left { units, next_ns: if units > 0 { 0 } else { 1_000_000_000 }, full_ns: 0 }
}
