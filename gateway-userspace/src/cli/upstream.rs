//! `gateway upstream`

use std::collections::BTreeMap;

use clap::Subcommand;

use super::{
    Error, Global, Outcome, client, exit,
    output::{self, table},
    target,
};
use crate::admin::{NameStatus, UpstreamStatus};

#[derive(Debug, Subcommand)]
pub enum Upstream {
    /// Every upstream with its targets
    List,
    /// One upstream
    Show {
        /// Its name
        name: String,
    },
}

impl Upstream {
    pub fn run(self, global: &Global) -> Outcome {
        let value = match &self {
            Upstream::List => client::get(global, "/v1/upstreams")?,
            Upstream::Show { name } => {
                let one = client::get(global, &format!("/v1/upstreams/{name}"))?;
                serde_json::json!({ name: one })
            }
        };
        let upstreams: BTreeMap<String, UpstreamStatus> = serde_json::from_value(value.clone())
            .map_err(|error| Error::Other(format!("the gateway speaks another version: {error}")))?;
        output::print(global, &value, || describe(global, &upstreams));
        Ok(exit::OK)
    }
}

pub fn describe(global: &Global, upstreams: &BTreeMap<String, UpstreamStatus>) -> String {
    let rows = upstreams.iter().flat_map(|(name, upstream)| {
        upstream.targets.iter().map(move |target| {
            let [said, check, state] =
                target::columns(target.overrides.as_ref(), target.check.as_deref(), &target.state);
            vec![
                name.clone(),
                target.addr.clone(),
                target.weight.to_string(),
                said,
                check,
                state,
                target.active.to_string(),
                output::short(target.requests),
            ]
        })
    });
    let notes = upstreams.iter().flat_map(|(name, upstream)| {
        let of_targets = upstream.targets.iter().map(move |target| {
            let target_name = format!("{name}/{}", target.addr);
            let notes = target::notes(&target_name, target.overrides.as_ref(), target.check.as_deref());
            format!("{notes}{}", ejected(&target_name, target.ejected_seconds))
        });
        std::iter::once(of_upstream(name, upstream)).chain(of_targets)
    });
    let header = ["UPSTREAM", "TARGET", "WEIGHT", "OVERRIDE", "CHECK", "STATE", "ACTIVE", "REQUESTS"];
    let notes: String = notes.collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{}{gap}{notes}", output::color_states(global, &table(&header, rows)))
}

fn ejected(target: &str, seconds: Option<u64>) -> String {
    seconds.map(|left| format!("\n{target}: ejected by its errors, back in {left} s")).unwrap_or_default()
}

fn of_name(upstream: &str, name: &NameStatus) -> String {
    match (&name.error, &name.addresses[..]) {
        (Some(error), kept) => {
            format!("\n{upstream}: {} cannot be looked up, {} kept: {error}", name.name, kept.len())
        }
        (None, []) => format!("\n{upstream}: {} has no address", name.name),
        (None, found) => format!("\n{upstream}: {} is {}", name.name, found.join(" ")),
    }
}

fn of_upstream(name: &str, upstream: &UpstreamStatus) -> String {
    let names: String = upstream.names.iter().map(|one| of_name(name, one)).collect();
    let panic = if upstream.panic { format!("\n{name}: panic, all targets are used") } else { String::new() };
    match upstream.breaker.as_deref() {
        Some(state) if state != "closed" => format!("{names}{panic}\n{name}: its breaker is {state}"),
        _ => names + &panic,
    }
}
