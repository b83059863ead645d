//! What limits would say of a request, without one: nothing is taken, counted or remembered.

use serde::Serialize;

use super::{
    super::{Counts, Facts, Now},
    RouteLimits,
    checked::Verdict,
};
use crate::observe::stats::Decided;

/// One limit's word.
#[derive(Debug, Clone, Serialize)]
pub struct Foreseen {
    pub limit: String,
    /// Whose quota it is, and its id.
    pub key: String,
    pub id: String,
    /// Units.
    pub left: u64,
    pub of: u64,
    /// What it would cost; `None`: only the answer says.
    pub cost: Option<u64>,
    /// A word of the metric's `decision`.
    pub decision: &'static str,
    /// It is refused because there is too much to do.
    pub shed: bool,
    /// It is refused because the store that gateways share does not answer.
    pub unknown: bool,
    /// Seconds until it would pass, or would have to wait, and until all is there again.
    pub wait_seconds: f64,
    pub full_seconds: f64,
}

impl RouteLimits {
    /// In the order in which the route names them.
    pub fn foresee(&self, facts: &Facts<'_>) -> Vec<Foreseen> {
        let now = Now::read();
        let mut all = Vec::with_capacity(self.limits.len());
        for limit in &self.limits {
            let mut one = limit.look(&self.store, facts, now);
            one.tighten(&self.store, facts);
            one.miss(&self.store);
            let cost = limit.cost(facts);
            let soft = matches!(limit.counts, Counts::Rate { soft: true, .. });
            let over = soft && one.left.units < cost.unwrap_or(1);
            let decided = match one.verdict {
                Verdict::Deny { .. } if limit.dry_run => Decided::Dry,
                Verdict::Deny { .. } => Decided::Deny,
                Verdict::Soft { .. } => Decided::Soft,
                Verdict::Allow if over => Decided::Soft,
                Verdict::Allow => Decided::Allow,
            };
            let wait_ns = match one.verdict {
                Verdict::Allow if !over => 0,
                _ => one.left.next_ns,
            };
            all.push(Foreseen {
                limit: limit.name.to_string(),
                key: limit.key.label(facts),
                id: format!("{:032x}", one.owner.key),
                left: one.left.units,
                of: one.capacity,
                cost,
                decision: decided.word(),
                shed: limit.moves.is_some(),
                unknown: one.unknown,
                wait_seconds: wait_ns as f64 / 1e9,
                full_seconds: one.left.full_ns as f64 / 1e9,
            });
        }
        all
    }
}
