//! All limits of a route, asked about one request: it is let in if every one lets it in, and costs nothing of any
//! otherwise.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    Counts, Facts, Grade, Limit, Now, Store,
    fields::{self, Fields},
    meter::{Left, Meter},
    offence::Rule,
    passage::{Due, Passage},
    table::{Owner, Word},
};
use crate::{
    config::model::{CostOf, Unit},
    observe::stats::Decided,
};

/// The limits of a route.
#[derive(Debug)]
pub struct RouteLimits {
    store: Arc<Store>,
    limits: Vec<Arc<Limit>>,
}

/// What becomes of a request.
#[derive(Debug, Default)]
pub struct Admission {
    /// What the answer tells.
    pub fields: Fields,
    /// It is not let in.
    pub refused: Option<Refused>,
    /// The names of the soft limits that it is over, for the upstream.
    pub marks: Vec<Arc<str>>,
    /// For the log.
    pub said: Option<Arc<str>>,
    /// It has to wait for its turn.
    pub wait: Duration,
    /// What is to be settled when it is over.
    pub passage: Option<Box<Passage>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Seconds, at least 1.
    pub retry_after: u64,
    /// There is too much to do, rather than that it asked for too much.
    pub shed: bool,
}

/// One limit's word on it.
struct Checked<'a> {
    limit: &'a Arc<Limit>,
    owner: Owner,
    grade: Option<&'a Grade>,
    /// Its grade's, as it is now.
    meter: Option<Meter>,
    /// Of the limit, and where it is hard if it is soft: units to give back.
    taken: u64,
    taken_from_shed: bool,
    left: Left,
    capacity: u64,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// Over it, and let through; after so long.
    Soft {
        wait_ns: u64,
    },
    Deny {
        wait_ns: u64,
    },
}

impl RouteLimits {
    /// `None`: there are none.
    pub fn new(store: &Arc<Store>, limits: Vec<Arc<Limit>>) -> Option<Self> {
        (!limits.is_empty()).then(|| RouteLimits { store: store.clone(), limits })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.limits.iter().map(|limit| &*limit.name)
    }

    /// Whether an answer's body is read for what a request cost; compressed it could not be.
    pub fn reads_bodies(&self) -> bool {
        self.limits.iter().any(|limit| limit.pointer().is_some())
    }

    /// `worker`: who asks.
    pub fn admit(&self, worker: usize, facts: &Facts<'_>) -> Admission {
        let now = Now::read();
        let mut checked: Vec<Checked<'_>> = Vec::with_capacity(self.limits.len());
        // With several, look first: one that refuses takes nothing of the others, not even for a moment.
        let several = self.limits.len() > 1;
        if several {
            checked.extend(self.limits.iter().map(|limit| limit.look(&self.store, facts, now)));
        }
        let refuses = |checked: &Checked<'_>| checked.denies() && !checked.limit.dry_run;
        if !checked.iter().any(refuses) {
            checked.clear();
            for limit in &self.limits {
                let one = limit.take(&self.store, facts, now);
                let refused = refuses(&one);
                checked.push(one);
                if refused {
                    break;
                }
            }
            if checked.iter().any(refuses) {
                checked.iter().for_each(|one| one.give_back(&self.store));
            }
        }
        self.admission(worker, facts, checked)
    }

    fn admission(&self, worker: usize, facts: &Facts<'_>, checked: Vec<Checked<'_>>) -> Admission {
        let mut admission = Admission::default();
        let refused = checked.iter().find(|one| one.denies() && !one.limit.dry_run);
        if let Some(one) = refused {
            admission.refused = Some(Refused {
                retry_after: one.left.next_ns.div_ceil(1_000_000_000).max(1),
                shed: one.limit.moves.is_some(),
            });
            admission.said = Some(one.limit.said[0].clone());
        }
        for one in &checked {
            let mut times = 0;
            match one.verdict {
                Verdict::Deny { .. } => {
                    let dry = one.limit.dry_run;
                    if dry || refused.is_some_and(|refused| Arc::ptr_eq(refused.limit, one.limit)) {
                        let banned = !dry && one.limit.offend(&self.store, facts);
                        let decided = match (dry, banned) {
                            (true, _) => Decided::Dry,
                            (false, true) => Decided::Ban,
                            (false, false) => Decided::Deny,
                        };
                        one.limit.stats.shards.of(worker).count(decided);
                        times = one.refused(&self.store);
                    }
                    if dry {
                        admission.said.get_or_insert_with(|| one.limit.said[2].clone());
                        admission.fields.would_refuse(&one.limit.name);
                    }
                }
                Verdict::Soft { wait_ns } if refused.is_none() => {
                    one.limit.stats.shards.of(worker).count(Decided::Soft);
                    times = one.refused(&self.store);
                    admission.said = Some(one.limit.said[1].clone());
                    admission.marks.push(one.limit.name.clone());
                    admission.wait = admission.wait.max(Duration::from_nanos(wait_ns));
                }
                Verdict::Allow if refused.is_none() => {
                    one.limit.stats.shards.of(worker).count(Decided::Allow)
                }
                Verdict::Soft { .. } | Verdict::Allow => {}
            }
            if times > 0 || one.left.units * 2 < one.capacity {
                let text = || one.limit.key.label(facts);
                self.store.labels.note(worker, one.limit, one.owner.key, times, facts.tier, text);
            }
        }
        let told = checked.iter().map(|one| (&**one.limit, one.policy(), one.left, one.capacity));
        admission.fields.tell(told, refused.map(|one| &**one.limit));
        if refused.is_none() {
            let due = checked.iter().filter_map(Checked::due).collect::<Vec<_>>();
            admission.passage = (!due.is_empty()).then(|| Box::new(Passage::new(self.store.clone(), due)));
        }
        admission
    }
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

    /// A grade's meter as it is now, for a tier.
    fn meter(&self, grade: &Grade, tier: Option<&str>) -> Meter {
        match &self.moves {
            Some(moves) => grade.meter.scaled(moves.dial.share(), moves.kept(tier)),
            None => grade.meter,
        }
    }

    /// How many there may be at once now, of a tier.
    fn max(&self, max: u32, tier: Option<&str>) -> u32 {
        match &self.moves {
            Some(moves) => ((moves.dial.value() * (1.0 - moves.kept(tier))).round() as u32).clamp(1, max),
            None => max,
        }
    }

    /// It was refused: whether it is banned for it.
    fn offend(&self, store: &Store, facts: &Facts<'_>) -> bool {
        let offend =
            |rule: &Rule| rule.offend(store, facts.client, facts.direct, 1, "went on after it was refused");
        self.ban.as_ref().is_some_and(offend)
    }

    /// What a request costs when it comes. `None`: that is only known when it is over.
    fn cost(&self, facts: &Facts<'_>) -> Option<u64> {
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
    pub(super) fn state(
        &self,
        store: &Store,
        key: u128,
        tier: Option<&str>,
        now: Now,
    ) -> Option<(Left, u64, u32)> {
        let owner = self.owner(key);
        match (&self.counts, self.grade(tier)) {
            (Counts::Active { max }, _) => {
                let (max, seen) = (self.max(*max, tier), store.active().seen(&owner)?);
                Some((free(seen.value, max), u64::from(max), seen.refused))
            }
            (_, Some(grade)) => {
                let (meter, seen) = (self.meter(grade, tier), store.rates().seen(&owner)?);
                Some((meter.left(seen.value, now), meter.capacity(), seen.refused))
            }
            _ => None,
        }
    }

    /// Takes nothing.
    fn look<'a>(self: &'a Arc<Self>, store: &Store, facts: &Facts<'_>, now: Now) -> Checked<'a> {
        let (owner, grade) = (self.owner(self.key.hash(facts)), self.grade(facts.tier));
        let meter = grade.map(|grade| self.meter(grade, facts.tier));
        let (left, capacity, verdict) = match (&self.counts, grade.zip(meter)) {
            (Counts::Rate { delay_ns, soft, .. }, Some((grade, meter))) => {
                let word = store.rates().read(&owner);
                let ask = self.cost(facts).unwrap_or(1);
                let over = meter.take_ahead(word, now, ask, *delay_ns, false).err();
                let shed = || {
                    let word = store.rates().read(&self.shed_owner(owner.key));
                    grade.shed.and_then(|shed| shed.take(word, now, ask, false).err())
                };
                let over = if *soft && *delay_ns == 0 { shed() } else { over };
                let verdict = over.map_or(Verdict::Allow, |over| Verdict::Deny { wait_ns: over.wait_ns });
                (meter.left(word, now), meter.capacity(), verdict)
            }
            (Counts::Active { max }, _) => {
                let (max, active) = (self.max(*max, facts.tier), store.active().read(&owner));
                let full = active >= u64::from(max);
                let verdict = if full { Verdict::Deny { wait_ns: 1 } } else { Verdict::Allow };
                (free(active, max), u64::from(max), verdict)
            }
            _ => (Left { units: 0, next_ns: 0, full_ns: 0 }, 0, Verdict::Allow),
        };
        let mut one = Checked {
            limit: self,
            owner,
            grade,
            meter,
            taken: 0,
            taken_from_shed: false,
            left,
            capacity,
            verdict,
        };
        one.note_wait();
        one
    }

    fn take<'a>(self: &'a Arc<Self>, store: &Store, facts: &Facts<'_>, now: Now) -> Checked<'a> {
        let owner = self.owner(self.key.hash(facts));
        let mut one = match (&self.counts, self.grade(facts.tier)) {
            (Counts::Rate { delay_ns, soft, .. }, Some(grade)) => {
                let (ask, meter) = (self.cost(facts), self.meter(grade, facts.tier));
                self.take_rate(store, owner, (grade, meter), (ask, *delay_ns, *soft), now)
            }
            (Counts::Active { max }, _) => self.take_active(store, owner, self.max(*max, facts.tier), now),
            _ => self.look(store, facts, now),
        };
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
        let shed = &grade.shed;
        let table = store.rates();
        let mut one = Checked {
            limit: self,
            owner,
            grade: Some(grade),
            meter: Some(meter),
            taken: 0,
            taken_from_shed: false,
            left: Left { units: 0, next_ns: 0, full_ns: 0 },
            capacity: meter.capacity(),
            verdict: Verdict::Allow,
        };
        // What is only known at the end is let in while there is anything.
        let took = match cost {
            Some(cost) => table.update(&owner, now.steady, |word, shared| {
                meter.take_ahead(word, now, cost, delay_ns, shared)
            }),
            None => {
                let word = table.read(&owner);
                meter.take_ahead(word, now, 1, delay_ns, false).map(|_| Word { value: word, until: 0 })
            }
        };
        one.left = match &took {
            Ok(word) => meter.left(word.value, now),
            Err(_) => meter.left(table.read(&owner), now),
        };
        match took {
            Ok(word) => {
                one.taken = cost.unwrap_or(0);
                let wait_ns = meter.wait_ns(word.value, now);
                if wait_ns > 0 {
                    one.verdict = Verdict::Soft { wait_ns };
                }
            }
            Err(_) if soft && delay_ns == 0 => one.verdict = Verdict::Soft { wait_ns: 0 },
            Err(over) => one.verdict = Verdict::Deny { wait_ns: over.wait_ns },
        }
        if let (Some(shed), false) = (shed, one.denies()) {
            let owner = self.shed_owner(owner.key);
            let ask = cost.unwrap_or(0);
            let shed_took =
                table.update(&owner, now.steady, |word, shared| shed.take(word, now, ask, shared));
            match shed_took {
                Ok(_) => one.taken_from_shed = true,
                Err(over) => {
                    if one.taken > 0 {
                        table.change(&one.owner, |word| meter.give_back(word, one.taken));
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
            limit: self,
            owner,
            grade: None,
            meter: None,
            taken: u64::from(took.is_ok()),
            taken_from_shed: false,
            left: free(active, max),
            capacity: u64::from(max),
            verdict,
        }
    }
}

fn free(active: u64, max: u32) -> Left {
    let units = u64::from(max).saturating_sub(active);
    // Nobody knows when one of them ends: ask again in a second.
    Left { units, next_ns: if units > 0 { 0 } else { 1_000_000_000 }, full_ns: 0 }
}

impl Checked<'_> {
    fn denies(&self) -> bool {
        matches!(self.verdict, Verdict::Deny { .. })
    }

    /// A request that costs more than one waits longer than until there is one.
    fn note_wait(&mut self) {
        if let Verdict::Deny { wait_ns } = self.verdict {
            self.left.next_ns = self.left.next_ns.max(wait_ns);
            self.left.units = 0;
        }
    }

    fn policy(&self) -> Cow<'_, str> {
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

    fn refused(&self, store: &Store) -> u32 {
        match self.limit.counts {
            Counts::Active { .. } => store.active().refused(&self.owner),
            Counts::Rate { .. } => store.rates().refused(&self.owner),
        }
    }

    fn give_back(&self, store: &Store) {
        match (&self.limit.counts, self.grade.zip(self.meter)) {
            (Counts::Active { .. }, _) if self.taken > 0 => {
                store.active().change(&self.owner, |word| word.saturating_sub(1));
            }
            (_, Some((grade, meter))) => {
                if self.taken > 0 {
                    store.rates().change(&self.owner, |word| meter.give_back(word, self.taken));
                }
                if let (Some(shed), true) = (grade.shed, self.taken_from_shed) {
                    let owner = self.limit.shed_owner(self.owner.key);
                    store.rates().change(&owner, |word| shed.give_back(word, self.taken));
                }
            }
            _ => {}
        }
    }

    /// What is to be settled at the end.
    fn due(&self) -> Option<Due> {
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

#[cfg(test)]
mod tests;
