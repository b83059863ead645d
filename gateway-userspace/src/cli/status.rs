//! `gateway status`

use clap::Args;
use serde_json::Value;

use super::{
    Error, Global, Outcome, cert, client, exit,
    output::{self, BOLD, GREEN, RED, YELLOW, table},
    service, upstream,
};
use crate::admin;

#[derive(Debug, Args)]
pub struct Status {}

impl Status {
    pub fn run(self, global: &Global) -> Outcome {
        let value = client::get(global, "/v1/status")?;
        let healthy = value["healthy"] == true;
        let status = of(value.clone())?;
        output::print(global, &value, || describe(global, &status));
        Ok(if healthy { exit::OK } else { exit::FAILED })
    }
}

pub(super) fn of(value: Value) -> Result<admin::Status, Error> {
    serde_json::from_value(value)
        .map_err(|error| Error::Other(format!("the gateway speaks another version: {error}")))
}

/// A trouble and what to do about it.
fn tell(global: &Global, trouble: &admin::Trouble) -> String {
    let color = if trouble.level == admin::Level::Fail { RED } else { YELLOW };
    let told = output::wrapped(&format!("{}: {}", trouble.of, trouble.what), 2);
    let cure = output::wrapped(&trouble.cure, 4);
    let cure = if cure.is_empty() { cure } else { format!("\n    {cure}") };
    format!("{} {told}{cure}", global.paint(color, "!"))
}

fn describe(global: &Global, status: &admin::Status) -> String {
    let state = global.paint(if status.state == "running" { GREEN } else { YELLOW }, &status.state);
    let mut out = format!(
        "{} {state}, version {}, pid {}, up {}, generation {}, {} workers\n",
        global.paint(BOLD, &status.name),
        status.version,
        status.pid,
        output::seconds(status.uptime_seconds),
        status.generation,
        status.workers
    );
    out += &format!("kernel: {}\n", status.kernel_summary);
    for trouble in &status.troubles {
        out += &format!("{}\n", tell(global, trouble));
    }
    let listeners = status.listeners.iter().map(|(name, listener)| {
        vec![
            name.clone(),
            listener.bind.clone(),
            listener.connections.to_string(),
            output::short(listener.accepted),
            listener.active_requests.to_string(),
        ]
    });
    if !status.listeners.is_empty() {
        let header = ["LISTENER", "BIND", "OPEN", "ACCEPTED", "REQUESTS NOW"];
        out += &format!("\n{}\n", table(&header, listeners));
    }
    if !status.certs.is_empty() {
        out += &format!("\n{}\n", cert::list(global, &status.certs));
    }
    if !status.upstreams.is_empty() {
        out += &format!("\n{}\n", upstream::describe(global, &status.upstreams));
    }
    if !status.services.is_empty() {
        out += &format!("\n{}\n", service::list(global, &status.services));
    }
    out
}
