//! `gateway status`

use clap::Args;

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
        let status: admin::Status = serde_json::from_value(value.clone())
            .map_err(|error| Error::Other(format!("the gateway speaks another version: {error}")))?;
        output::print(global, &value, || describe(global, &status));
        Ok(if healthy { exit::OK } else { exit::FAILED })
    }
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
    if let Some(error) = &status.last_error {
        out += &format!(
            "{} the last reload failed, an older config is running:\n{error}\n",
            global.paint(RED, "!")
        );
    }
    out += &format!("kernel: {}\n", status.kernel_summary);
    for warning in status.kernel["warnings"].as_array().into_iter().flatten() {
        out += &format!("{} {}\n", global.paint(YELLOW, "!"), warning.as_str().unwrap_or_default());
    }
    for (alert, text) in &status.alerts {
        out += &format!("{} alert {alert}: {text}\n", global.paint(RED, "!"));
    }
    if let Some(why) = &status.services_off {
        out += &format!("{} services are not served: {why}\n", global.paint(RED, "!"));
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
