//! `gateway service`

use std::collections::BTreeMap;

use clap::Subcommand;

use super::{
    Error, Global, Outcome, client, exit,
    output::{self, table},
    target,
};
use crate::admin::ServiceStatus;

#[derive(Debug, Subcommand)]
pub enum Service {
    /// Every L4 service
    List,
    /// One service and its targets
    Show {
        /// Its name
        name: String,
    },
}

impl Service {
    pub fn run(self, global: &Global) -> Outcome {
        let other_version =
            |error: serde_json::Error| Error::Other(format!("the gateway speaks another version: {error}"));
        match self {
            Service::List => {
                let value = client::get(global, "/v1/services")?;
                let services: BTreeMap<String, ServiceStatus> =
                    serde_json::from_value(value.clone()).map_err(other_version)?;
                output::print(global, &value, || list(global, &services));
            }
            Service::Show { name } => {
                let value = client::get(global, &format!("/v1/services/{name}"))?;
                let service: ServiceStatus = serde_json::from_value(value.clone()).map_err(other_version)?;
                output::print(global, &value, || show(global, &name, &service));
            }
        }
        Ok(exit::OK)
    }
}

/// A line a service; also in `gateway status`.
pub fn list(global: &Global, services: &BTreeMap<String, ServiceStatus>) -> String {
    let row = |(name, service): (&String, &ServiceStatus)| {
        let up = service.targets.iter().filter(|target| target.state == "up").count();
        let sum = |of: fn(&crate::admin::ServiceTargetStatus) -> u64| {
            output::short(service.targets.iter().map(of).sum())
        };
        vec![
            name.clone(),
            service.bind.join(" "),
            format!("{} {}", service.protocol, service.forward),
            format!("{up}/{}", service.targets.len()),
            if up > 0 { "up" } else { "down" }.into(),
            sum(|target| target.packets),
            sum(|target| target.bytes),
            sum(|target| target.connections),
        ]
    };
    match services.is_empty() {
        true => "no services".into(),
        false => {
            let header = ["SERVICE", "BIND", "HOW", "TARGETS", "STATE", "PACKETS", "BYTES", "CONNS"];
            output::color_states(global, &table(&header, services.iter().map(row)))
        }
    }
}

fn show(global: &Global, name: &str, service: &ServiceStatus) -> String {
    let spliced = service.targets.iter().any(|target| target.active.is_some());
    let rows = service.targets.iter().map(|target| {
        let [said, check, state] =
            target::columns(target.overrides.as_ref(), target.check.as_deref(), &target.state);
        vec![
            target.addr.clone(),
            target.weight.to_string(),
            said,
            check,
            state,
            output::short(target.active.map_or(target.packets, u64::from)),
            output::short(target.bytes),
            output::short(target.connections),
        ]
    });
    let counted = if spliced { "ACTIVE" } else { "PACKETS" };
    let notes: String = service
        .targets
        .iter()
        .map(|target| target::notes(&target.addr, target.overrides.as_ref(), target.check.as_deref()))
        .collect();
    format!(
        "{name}: {} {}, {}, {}\n\n{}\n{notes}",
        service.protocol,
        service.bind.join(" "),
        service.forward,
        service.balance,
        output::color_states(
            global,
            &table(&["TARGET", "WEIGHT", "OVERRIDE", "CHECK", "STATE", counted, "BYTES", "CONNS"], rows)
        )
    )
}
