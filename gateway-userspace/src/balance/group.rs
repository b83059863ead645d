//! Which endpoints take part at all: by priority, health, zone, and how long they have been back.
//!
//! Decided off the hot path, whenever something of it changes:
//! 1. Of the priorities, the first with a healthy endpoint; without any, the first with an endpoint that no operator
//!    took out, if there is a panic threshold.
//! 2. Its healthy endpoints; or, when their share is below the panic threshold, all of it: then the checks are more
//!    likely wrong than so many endpoints at once, and the few that are left would drown.
//! 3. Of those, the ones in our own zone, as long as enough of the zone is healthy.

use super::{
    Endpoint,
    table::{Share, divisor},
};

/// What of an upstream's config decides who takes part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// A healthy share below this makes all of the group take part. 0: never.
    pub panic: f64,
    /// A healthy share of our own zone below this brings the other zones in.
    pub spill: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { panic: 0.0, spill: 0.5 }
    }
}

/// Those that take part.
#[derive(Debug, Default, PartialEq)]
pub struct Group {
    pub shares: Vec<Share>,
    /// They do so although they are not all healthy.
    pub panic: bool,
}

impl Group {
    pub fn choose(rules: Rules, endpoints: &[impl Endpoint]) -> Group {
        let all = 0..endpoints.len().min(usize::from(u16::MAX));
        let first_with = |fits: &dyn Fn(usize) -> bool| {
            all.clone().filter(|i| fits(*i)).map(|i| endpoints[i].priority()).min()
        };
        let available = |i: usize| endpoints[i].available();
        let usable = |i: usize| endpoints[i].usable();
        let panics = rules.panic > 0.0;
        let Some(priority) =
            first_with(&usable).or_else(|| if panics { first_with(&available) } else { None })
        else {
            return Group::default();
        };
        let group: Vec<usize> =
            all.filter(|i| endpoints[*i].priority() == priority && available(*i)).collect();
        let healthy: Vec<usize> = group.iter().copied().filter(|i| usable(*i)).collect();
        let panic = panics && share(endpoints, &healthy, &group) < rules.panic;
        let taking_part = if panic { group } else { in_zone(rules, endpoints, priority, healthy) };
        Group { shares: weigh(endpoints, &taking_part), panic }
    }
}

/// The part of `healthy` that is in our own zone, or all of it when that part is too small.
fn in_zone(rules: Rules, endpoints: &[impl Endpoint], priority: u8, healthy: Vec<usize>) -> Vec<usize> {
    let ours: Vec<usize> = (0..endpoints.len())
        .filter(|i| endpoints[*i].priority() == priority && endpoints[*i].in_own_zone())
        .collect();
    let near: Vec<usize> = healthy.iter().copied().filter(|i| endpoints[*i].in_own_zone()).collect();
    if near.is_empty() || share(endpoints, &near, &ours) < rules.spill { healthy } else { near }
}

/// The weight of `some` in that of `all`.
fn share(endpoints: &[impl Endpoint], some: &[usize], all: &[usize]) -> f64 {
    let weight = |of: &[usize]| of.iter().map(|i| u64::from(endpoints[*i].weight())).sum::<u64>() as f64;
    weight(some) / weight(all).max(1.0)
}

/// Percents of weights while one starts slowly; else the weights, in lowest terms either way.
fn weigh(endpoints: &[impl Endpoint], taking_part: &[usize]) -> Vec<Share> {
    let slow = taking_part.iter().any(|i| endpoints[*i].ramp() < 100);
    let weight = |i: &usize| {
        let endpoint = &endpoints[*i];
        if slow { (endpoint.weight() * endpoint.ramp().clamp(1, 100)).max(1) } else { endpoint.weight() }
    };
    let weights: Vec<u32> = taking_part.iter().map(weight).collect();
    let divisor = divisor(&weights);
    taking_part
        .iter()
        .zip(weights)
        .map(|(i, weight)| Share { endpoint: *i as u16, weight: weight / divisor })
        .collect()
}
