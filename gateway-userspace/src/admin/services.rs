//! L4 services over the admin API.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};

use super::{problem::Problem, targets::OverrideStatus};
use crate::{
    daemon::Control,
    kernel::{ServiceRow, TargetState},
    service::Service,
};

type Shared = State<Arc<Control>>;

#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub bind: Vec<String>,
    pub protocol: String,
    pub forward: String,
    pub balance: String,
    pub targets: Vec<TargetStatus>,
}

/// What the config says, what operators say and what is observed, each for itself; and what becomes of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    pub addr: String,
    /// The config's.
    pub weight: u32,
    pub server_id: Option<u16>,
    pub overrides: Option<OverrideStatus>,
    /// What the checks say.
    pub healthy: bool,
    /// What the last one found; absent without checks.
    pub check: Option<String>,
    /// "up", "draining" or "down": all of that together.
    pub state: String,
    pub packets: u64,
    pub bytes: u64,
    /// Connections given to it.
    pub connections: u64,
    /// Those that are open; known of services that go through userspace.
    #[serde(default)]
    pub active: Option<u32>,
}

pub async fn list(State(control): Shared) -> Json<BTreeMap<String, ServiceStatus>> {
    Json(all(&control))
}

pub async fn show(State(control): Shared, Path(name): Path<String>) -> Result<Json<ServiceStatus>, Problem> {
    let snapshot = control.snapshot.load();
    let service = snapshot.services.get(&name).ok_or_else(|| Problem::not_found("service", &name))?;
    Ok(Json(one(&control, service)))
}

pub fn one(control: &Control, service: &Service) -> ServiceStatus {
    describe(service, &by_target(&control.kernel.service_rows()))
}

pub fn all(control: &Control) -> BTreeMap<String, ServiceStatus> {
    let rows = control.kernel.service_rows();
    let counted = by_target(&rows);
    let snapshot = control.snapshot.load();
    snapshot.services.iter().map(|(name, service)| (name.clone(), describe(service, &counted))).collect()
}

/// What the kernel half counted, by service and target.
type Counted<'a> = BTreeMap<(&'a str, &'a str), &'a ServiceRow>;

fn by_target(rows: &[ServiceRow]) -> Counted<'_> {
    rows.iter().map(|row| ((row.service.as_str(), row.target.as_str()), row)).collect()
}

fn describe(service: &Service, counted: &Counted<'_>) -> ServiceStatus {
    let spliced = service.splice.is_some();
    let targets = service.targets().map(|(target, config)| {
        let counts = counted.get(&(&*service.name, &*target.name));
        let count = |of: fn(&ServiceRow) -> u64| counts.map_or(0, |row| of(row));
        TargetStatus {
            addr: target.name.to_string(),
            weight: config.weight,
            server_id: config.server_id,
            overrides: OverrideStatus::of(&target.operator),
            healthy: service.healthy(target),
            check: service.last_check(target),
            state: word(service.state(target)).into(),
            packets: count(|row| row.packets),
            bytes: if spliced { target.through.bytes() } else { count(|row| row.bytes) },
            connections: if spliced { target.through.connections() } else { count(|row| row.connections) },
            active: spliced.then(|| target.through.active()),
        }
    });
    let config = &service.config;
    ServiceStatus {
        bind: config.binds.iter().map(ToString::to_string).collect(),
        protocol: config.protocol.word().into(),
        forward: if spliced { "splice" } else { config.forward.word() }.into(),
        balance: config.balance.word().into(),
        targets: targets.collect(),
    }
}

fn word(state: TargetState) -> &'static str {
    match state {
        TargetState::Up => "up",
        TargetState::Draining => "draining",
        TargetState::Down => "down",
    }
}
