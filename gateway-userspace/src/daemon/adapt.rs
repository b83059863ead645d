//! Dynamic limits, and the kernel half's load factor: measures, and turns the dials.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::Control;
use crate::{
    config::model::{Adapt, Route},
    limit::{Controller, FEW, Health, TICK, Target},
    observe::{
        Why,
        latency::FineTotal,
        stats::{Decided, LimitShard},
    },
    runtime::Snapshot,
    upstream::Upstream,
};

/// What was counted up to some moment.
#[derive(Debug, Clone, Default)]
struct Counted {
    latency: FineTotal,
    failed: u64,
    refused: u64,
    within: u64,
    /// Looks since then.
    looks: u32,
}

/// Answers that an upstream did not give.
const FAILURES: [Why; 10] = [
    Why::NoHealthyTarget,
    Why::UpstreamQueueTimeout,
    Why::UpstreamConnectRefused,
    Why::UpstreamConnectTimeout,
    Why::UpstreamTls,
    Why::UpstreamFirstByteTimeout,
    Why::UpstreamIdleTimeout,
    Why::UpstreamTotalTimeout,
    Why::UpstreamReset,
    Why::UpstreamBadResponse,
];

/// Looks that may pass until there are enough answers.
const PATIENCE: u32 = 8;

/// The kernel half's factor does not change for less.
const WORTH: f64 = 0.02;

pub async fn follow(control: Arc<Control>) {
    let mut every = tokio::time::interval(TICK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: HashMap<String, Counted> = HashMap::new();
    let mut pressure = Pressure::default();
    let mut shedding: Option<Shedding> = None;
    loop {
        every.tick().await;
        let snapshot = control.snapshot.load_full();
        let adapt = snapshot.config.kernel.adapt;
        let dynamic = snapshot.limits.values().any(|limit| limit.dial().is_some());
        if !dynamic && adapt.is_none() && shedding.is_none() {
            before.clear();
            continue;
        }
        let cpu = pressure.since_last();
        turn_dials(&control, &snapshot, &mut before, cpu);
        match adapt {
            Some(adapt) => {
                let mut now =
                    shedding.take().filter(|now| now.adapt == adapt).unwrap_or_else(|| Shedding::new(adapt));
                set_load_factor(&control, now.tick(&control, &snapshot, cpu));
                shedding = Some(now);
            }
            None if shedding.take().is_some() => set_load_factor(&control, 1.0),
            None => {}
        }
    }
}

/// The kernel half's load factor follows the worst of what `kernel.adapt` names.
struct Shedding {
    adapt: Adapt,
    controller: Controller,
    before: Option<Counted>,
    /// How answers compared with what is to be kept when there last were enough of them: 1 is just so.
    answers: f64,
}

impl Shedding {
    fn new(adapt: Adapt) -> Self {
        let target = Target { cpu: Some(1.0), ..Target::default() };
        let controller = Controller::new(target, (adapt.from, 1.0), false);
        Shedding { adapt, controller, before: None, answers: 0.0 }
    }

    /// The factor from now on.
    fn tick(&mut self, control: &Control, snapshot: &Snapshot, cpu: f64) -> f64 {
        let Adapt { cpu: most, p99, errors, queue, .. } = self.adapt;
        let mut load = most.map_or(0.0, |most| cpu / most);
        if p99.is_some() || errors.is_some() {
            self.hear(&everything(control, snapshot));
            load = load.max(self.answers);
        }
        if let Some(queue) = queue {
            load = load.max(queued(snapshot.upstreams.values()) as f64 / queue as f64);
        }
        self.controller.tick(&Health { cpu: load, requests: 1, refused: 1, ..Health::default() })
    }

    fn hear(&mut self, counted: &Counted) {
        let before = self.before.get_or_insert_with(|| counted.clone());
        before.looks += 1;
        let health = health(before, counted, 0, 0.0);
        if health.requests < FEW && before.looks < PATIENCE {
            return;
        }
        *before = counted.clone();
        let enough = health.requests >= FEW;
        let latency =
            self.adapt.p99.zip(health.p99).map(|(most, p99)| p99.as_secs_f64() / most.as_secs_f64());
        let errors = self.adapt.errors.map(|most| health.errors / most);
        self.answers = latency.into_iter().chain(errors).filter(|_| enough).fold(0.0, f64::max);
    }
}

fn set_load_factor(control: &Control, factor: f64) {
    let now = control.kernel.load_factor();
    if (factor - now).abs() < WORTH && factor < 1.0 || factor == now {
        return;
    }
    if let Err(error) = control.kernel.set_load_factor(factor) {
        tracing::warn!("the kernel half's limits do not follow the load: {error}");
    }
}

fn turn_dials(control: &Control, snapshot: &Snapshot, before: &mut HashMap<String, Counted>, cpu: f64) {
    for (name, limit) in &snapshot.limits {
        let Some(dial) = limit.dial() else { continue };
        let counted = count(control, snapshot, name);
        let old = before.entry(name.clone()).or_insert_with(|| counted.clone());
        old.looks += 1;
        let upstreams = upstreams(snapshot, name).into_iter().filter_map(|name| snapshot.upstreams.get(name));
        let health = health(old, &counted, queued(upstreams), cpu);
        // A few answers say nothing: more are waited for, but not for ever.
        if dial.needs_answers() && health.requests < FEW && old.looks < PATIENCE {
            continue;
        }
        *old = counted;
        let value = dial.tick(&health);
        tracing::trace!(limit = name, value, "dynamic limit");
    }
    before.retain(|name, _| snapshot.limits.contains_key(name));
}

fn routes<'a>(snapshot: &'a Snapshot, limit: &'a str) -> impl Iterator<Item = &'a String> {
    let routes = snapshot.config.routes.iter();
    routes.filter(move |(_, route)| route.limits.iter().any(|of| of == limit)).map(|(name, _)| name)
}

/// The upstreams that a limit protects, each once.
fn upstreams<'a>(snapshot: &'a Snapshot, limit: &'a str) -> Vec<&'a str> {
    let routes = routes(snapshot, limit).filter_map(|name| snapshot.config.routes.get(name));
    let versions =
        |route: &'a Route| route.versions.iter().flat_map(|all| &all.versions).map(|one| &one.route);
    let mut names: Vec<&str> = routes
        .flat_map(|route| std::iter::once(route).chain(versions(route)))
        .flat_map(|route| route.to.upstreams())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn queued<'a>(upstreams: impl Iterator<Item = &'a Arc<Upstream>>) -> u64 {
    upstreams.filter_map(|upstream| upstream.queue()).map(|queue| queue.len() as u64).sum()
}

/// Of all upstreams and routes.
fn everything(control: &Control, snapshot: &Snapshot) -> Counted {
    let upstreams: Vec<&str> = snapshot.upstreams.keys().map(String::as_str).collect();
    answers(control, &upstreams, |_| true)
}

/// What some upstreams, and routes to them, have answered.
fn answers(control: &Control, upstreams: &[&str], of: impl Fn(&str) -> bool) -> Counted {
    let mut counted = Counted::default();
    for name in upstreams {
        let stats = control.registry.upstream(name);
        stats.shards.iter().for_each(|shard| counted.latency.add(shard.latency()));
    }
    for ((upstream, _), target) in control.registry.targets() {
        if upstreams.contains(&&*upstream) {
            counted.failed += target.requests().range(500..).map(|(_, n)| n).sum::<u64>();
        }
    }
    for ((_, route, _), stats) in control.registry.routes() {
        if of(&route) {
            let failed = |why: &Why| stats.shards.sum(|shard| shard.errors(*why));
            counted.failed += FAILURES.iter().map(failed).sum::<u64>();
        }
    }
    counted
}

fn count(control: &Control, snapshot: &Snapshot, limit: &str) -> Counted {
    let routes: Vec<&String> = routes(snapshot, limit).collect();
    let mut counted =
        answers(control, &upstreams(snapshot, limit), |route| routes.iter().any(|name| **name == *route));
    let decided = control.registry.limit(limit);
    counted.refused = decided.shards.sum(|shard| shard.decisions(Decided::Deny));
    counted.within = decided.shards.sum(LimitShard::asked_within);
    counted
}

fn health(before: &Counted, now: &Counted, queue: u64, cpu: f64) -> Health {
    let latency = now.latency.since(&before.latency);
    let answered = latency.count();
    let failed = now.failed.saturating_sub(before.failed);
    let requests = answered.max(failed);
    Health {
        requests,
        p99: latency.percentile(0.99),
        errors: if requests > 0 { failed as f64 / requests as f64 } else { 0.0 },
        queue,
        cpu,
        refused: now.refused.saturating_sub(before.refused),
        within: now.within.saturating_sub(before.within),
        looks: before.looks,
    }
}

/// Pressure stall information (Linux Documentation/accounting/psi.rst).
#[derive(Default)]
struct Pressure {
    last: Option<(Instant, u64)>,
}

impl Pressure {
    /// The share of time since the last look in which something waited for a CPU; 0 where the kernel does not tell.
    fn since_last(&mut self) -> f64 {
        let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
        let Some(total) = stalled_us(&text) else { return 0.0 };
        let now = Instant::now();
        let Some((then, before)) = self.last.replace((now, total)) else { return 0.0 };
        let passed = now.duration_since(then).as_micros().max(1) as f64;
        (total.saturating_sub(before) as f64 / passed).min(1.0)
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`
fn stalled_us(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("total="))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::latency::Fine;

    #[test]
    fn health_is_what_came_since() {
        let fine = Fine::default();
        let counted = |failed, refused| {
            let mut counted = Counted { failed, refused, ..Counted::default() };
            counted.latency.add(&fine);
            counted
        };
        (0..100).for_each(|_| fine.record(700));
        let before = counted(10, 5);
        (0..50).for_each(|_| fine.record(700));
        let now = counted(20, 12);
        let health = health(&before, &now, 3, 0.5);
        assert_eq!((health.requests, health.errors, health.refused), (50, 0.2, 7));
        assert!(health.p99.is_some_and(|p99| p99.as_micros() < 1000));
    }

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=97.15 avg60=98.59 avg300=95.50 total=7344560295\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(
            (stalled_us(text), stalled_us(""), stalled_us("some x")),
            (Some(7_344_560_295), None, None)
        );
    }
}
