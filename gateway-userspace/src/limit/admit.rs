//! All limits of a route, asked about one request: it is let in if every one lets it in, and costs nothing of any
//! otherwise.

mod check;
mod checked;
mod foresee;
mod shared;

use std::{sync::Arc, time::Duration};

use super::{Facts, Limit, Now, Store, fields::Fields, meter::Meter, passage::Passage};
use crate::observe::{Why, stats::Decided};

use checked::{Checked, Verdict};
pub use foresee::Foreseen;

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
    pub why: Why,
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

    /// `worker`: who asks. `None`: it is let in, and there is nothing to tell.
    pub fn admit(&self, worker: usize, facts: &Facts<'_>, now: Now) -> Option<Admission> {
        let [limit] = &*self.limits else {
            return Some(self.admission((worker, now), facts, &mut self.check(facts, now, |_| true)));
        };
        if self.passes(limit, (worker, now), facts) {
            return None;
        }
        let mut one = limit.take(&self.store, facts, now);
        if one.refuses() {
            one.give_back(&self.store);
        }
        Some(self.admission((worker, now), facts, std::slice::from_mut(&mut one)))
    }

    /// What most requests come to: one bucket lets them in. False: it is not as easy as that, and nothing was taken.
    fn passes(&self, limit: &Arc<Limit>, (worker, now): (usize, Now), facts: &Facts<'_>) -> bool {
        let Some((bucket, cost)) = limit.plain(facts.tier) else { return false };
        let owner = limit.owner(limit.key.hash(facts));
        let take = |word, shared| bucket.take(word, now.steady, cost, 0, shared);
        let Ok(word) = self.store.rates().update(&owner, now.steady, take) else { return false };
        limit.stats.shards.of(worker).count(Decided::Allow);
        if bucket.is_low(word.value, now.steady) {
            self.name(limit, owner.key, 0, (worker, now), facts);
        }
        true
    }

    /// Notes whose key it is, for people: it was refused so often, or is near to it.
    fn name(&self, limit: &Limit, key: u128, times: u32, (worker, now): (usize, Now), facts: &Facts<'_>) {
        let text = || limit.key.label(facts);
        let source = limit.key.source(facts);
        self.store.labels.note(worker, limit, key, (times, now.steady), (facts.tier, source), text);
    }

    /// What each limit that is asked says; what they gave is given back if one refuses.
    fn check<'a>(&'a self, facts: &Facts<'_>, now: Now, asked: impl Fn(&Limit) -> bool) -> Vec<Checked<'a>> {
        let limits = || self.limits.iter().filter(|limit| asked(limit));
        let mut checked: Vec<Checked<'a>> = Vec::with_capacity(self.limits.len());
        // With several, look first: one that refuses takes nothing of the others, not even for a moment.
        let several = self.limits.len() > 1;
        if several {
            checked.extend(limits().map(|limit| limit.look(&self.store, facts, now)));
        }
        if !checked.iter().any(Checked::refuses) {
            checked.clear();
            for limit in limits() {
                let one = limit.take(&self.store, facts, now);
                let refused = one.refuses();
                checked.push(one);
                if refused {
                    break;
                }
            }
            if checked.iter().any(Checked::refuses) {
                checked.iter().for_each(|one| one.give_back(&self.store));
            }
        }
        checked
    }

    fn admission(
        &self,
        (worker, now): (usize, Now),
        facts: &Facts<'_>,
        checked: &mut [Checked<'_>],
    ) -> Admission {
        checked.iter_mut().for_each(|one| one.tighten(&self.store, facts));
        let mut admission = Admission::default();
        let refused = checked.iter().find(|one| one.refuses());
        if let Some(one) = refused {
            admission.refused = Some(Refused {
                retry_after: one.left.next_ns.div_ceil(1_000_000_000).max(1),
                why: one.why(),
            });
            admission.said = Some(one.limit.said[0].clone());
        }
        for one in &*checked {
            if let Some(portion) = one.portion
                && portion.within
                && refused.is_none_or(|refused| Arc::ptr_eq(refused.limit, one.limit))
            {
                one.limit.stats.shards.of(worker).within(portion.cost);
            }
            let mut times = 0;
            match one.verdict {
                Verdict::Deny { .. } => {
                    let dry = one.limit.dry_run;
                    if dry || refused.is_some_and(|refused| Arc::ptr_eq(refused.limit, one.limit)) {
                        let banned = !dry && !one.unknown && one.limit.offend(&self.store, facts);
                        let decided = match (dry, banned) {
                            (true, _) => Decided::Dry,
                            (false, true) => Decided::Ban,
                            (false, false) => Decided::Deny,
                        };
                        one.limit.stats.shards.of(worker).count(decided);
                        times = if one.unknown { 0 } else { one.refused(&self.store) };
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
                self.name(one.limit, one.owner.key, times, (worker, now), facts);
            }
        }
        let told = checked.iter().map(|one| (&**one.limit, one.policy(), one.left, one.capacity));
        admission.fields.tell(told, refused.map(|one| &**one.limit));
        if refused.is_none() {
            checked.iter().for_each(|one| one.tell(&self.store));
            let due = checked.iter().filter_map(Checked::due).collect::<Vec<_>>();
            admission.passage = (!due.is_empty()).then(|| Box::new(Passage::new(self.store.clone(), due)));
        }
        admission
    }
}

#[cfg(test)]
mod tests;
