//! What the gateway says of itself.

use std::{collections::BTreeMap, sync::PoisonError};

use serde::{Deserialize, Serialize};

use super::{
    certs::{self, CertStatus},
    services::{self, ServiceStatus},
    targets::OverrideStatus,
    troubles::{Trouble, troubles},
};
use crate::{
    config::{self, model::AlertKind, units::Lookup},
    daemon::{Control, Known},
    upstream::{Target, Upstream, clock::now_ms, operator::Taken},
};

#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub state: String,
    pub generation: u64,
    pub config: Option<String>,
    /// The last reload's failure.
    pub last_error: Option<String>,
    pub workers: usize,
    pub listeners: BTreeMap<String, ListenerStatus>,
    pub kernel: serde_json::Value,
    pub kernel_summary: String,
    pub certs: BTreeMap<String, CertStatus>,
    pub upstreams: BTreeMap<String, UpstreamStatus>,
    pub services: BTreeMap<String, ServiceStatus>,
    /// Why the services are not served.
    pub services_off: Option<String>,
    /// Alerts that fire and are not silenced: name and what is wrong.
    #[serde(default)]
    pub alerts: BTreeMap<String, String>,
    /// All that is wrong, the worst first.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub bind: String,
    pub connections: u32,
    pub accepted: u64,
    pub active_requests: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct UpstreamStatus {
    pub balance: String,
    /// So few targets are healthy that all are used.
    #[serde(default)]
    pub panic: bool,
    /// "closed", "open" or "half-open"; absent without one.
    #[serde(default)]
    pub breaker: Option<String>,
    /// Requests that wait for a target with room; absent where nothing is capped.
    #[serde(default)]
    pub queue: Option<usize>,
    /// Those that are looked up, absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameStatus>,
    pub targets: Vec<TargetStatus>,
}

/// A name whose addresses are targets.
#[derive(Debug, Serialize, Deserialize)]
pub struct NameStatus {
    pub name: String,
    pub addresses: Vec<String>,
    /// Since it was last answered; absent before the first answer.
    pub age_seconds: Option<u64>,
    /// Why the last look-up failed; the addresses are those from before.
    pub error: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    pub addr: String,
    /// The config's.
    pub weight: u32,
    pub overrides: Option<OverrideStatus>,
    /// What the checks say.
    pub healthy: bool,
    /// "up", "draining", "ejected" or "down": checks, errors of requests and overrides together.
    pub state: String,
    /// Seconds until an ejected one comes back.
    #[serde(default)]
    pub ejected_seconds: Option<u64>,
    /// What the last active check found; absent without checks.
    pub check: Option<String>,
    pub active: u32,
    /// The most requests in flight on it; absent without such a limit.
    #[serde(default)]
    pub max: Option<u32>,
    pub requests: u64,
}

/// Whether it does all that its config says; `gateway status` exits 1 otherwise.
pub fn healthy(status: &Status) -> bool {
    status.last_error.is_none()
        && status.alerts.is_empty()
        && status.services_off.is_none()
        && status.certs.values().all(CertStatus::good)
        && status
            .upstreams
            .values()
            .all(|upstream| upstream.targets.iter().any(|target| target.state == "up"))
        && status.services.values().all(|service| service.targets.iter().any(|target| target.state == "up"))
}

pub fn status(control: &Control) -> Status {
    let snapshot = control.snapshot.load();
    let state = control.state();
    let kernel = control.kernel.status();
    let known = control.names.known();
    let status = Status {
        name: snapshot.config.gateway.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_seconds: control.started.elapsed().as_secs(),
        state: running(control).into(),
        generation: snapshot.generation,
        config: control.config_path().map(|path| path.display().to_string()),
        last_error: state.last_error,
        workers: control.workers.count(),
        listeners: listeners(control),
        kernel_summary: kernel.summary(),
        kernel: serde_json::to_value(&kernel).unwrap_or_default(),
        certs: certs::all(control),
        upstreams: snapshot
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.clone(), describe(upstream, &known)))
            .collect(),
        services: services::all(control),
        services_off: control.services_off(&snapshot.config),
        alerts: firing(control),
        troubles: Vec::new(),
    };
    Status { troubles: troubles(control, &status), ..status }
}

pub(super) fn running(control: &Control) -> &'static str {
    if control.ready() { "running" } else { "draining" }
}

/// A dead man's switch fires for as long as all is well.
fn firing(control: &Control) -> BTreeMap<String, String> {
    let snapshot = control.snapshot.load();
    let heartbeat =
        |name: &str| snapshot.config.alerts.get(name).is_some_and(|rule| rule.kind == AlertKind::DeadMan);
    let rows = control.alerts.rows().into_iter();
    rows.filter(|row| row.state == "firing" && row.silence.is_none() && !heartbeat(&row.alert))
        .map(|row| (row.alert, row.text.unwrap_or_default()))
        .collect()
}

pub fn listeners(control: &Control) -> BTreeMap<String, ListenerStatus> {
    let snapshot = control.snapshot.load();
    let describe = |listener: &crate::runtime::Listener| ListenerStatus {
        bind: config::show_bind(listener.config.bind),
        connections: listener.stats.connections(),
        accepted: listener.stats.shards.sum(|shard| shard.accepted.get()),
        active_requests: listener.stats.shards.iter().map(|shard| shard.active_requests.get()).sum(),
    };
    snapshot.listeners.iter().map(|(name, listener)| (name.clone(), describe(listener))).collect()
}

fn name(lookup: &Lookup, known: Option<&Known>) -> NameStatus {
    let known = known.cloned().unwrap_or_default();
    NameStatus {
        name: lookup.to_string(),
        addresses: known.found.iter().map(|found| found.addr.to_string()).collect(),
        age_seconds: known.at.map(|at| at.elapsed().as_secs()),
        error: known.error,
    }
}

pub fn describe(upstream: &Upstream, known: &BTreeMap<Lookup, Known>) -> UpstreamStatus {
    let checks = upstream.last_check.lock().unwrap_or_else(PoisonError::into_inner);
    let targets = upstream.members.iter().zip(checks.iter()).map(|(member, check)| TargetStatus {
        addr: member.target.name.to_string(),
        weight: member.weight,
        overrides: OverrideStatus::of(&member.target.operator),
        healthy: member.target.healthy(),
        state: state(&member.target).into(),
        ejected_seconds: (member.target.passive.ejected())
            .then(|| member.target.passive.left(now_ms()).div_ceil(1000)),
        check: upstream.config.health.is_some().then(|| check.clone()).filter(|check| !check.is_empty()),
        active: member.target.active(),
        max: member.max(),
        requests: member.target.stats.requests().values().sum(),
    });
    let breaker = upstream.extras.as_ref().and_then(|extras| extras.breaker.as_ref());
    UpstreamStatus {
        balance: upstream.config.balance.word().into(),
        panic: upstream.panics(),
        breaker: breaker.map(|breaker| breaker.state(now_ms()).word().into()),
        queue: upstream.queue().map(|queue| queue.len()),
        names: upstream.config.lookups().map(|of| name(&of.lookup, known.get(&of.lookup))).collect(),
        targets: targets.collect(),
    }
}

pub(super) fn state(target: &Target) -> &'static str {
    match (target.healthy(), target.operator.taken()) {
        (false, _) | (_, Some(Taken::Down)) => "down",
        (true, Some(Taken::Drain)) => "draining",
        (true, None) if target.passive.ejected() => "ejected",
        (true, None) => "up",
    }
}
