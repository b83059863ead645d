//! `gateway check`, `gateway diff` and `gateway config`

use std::{path::PathBuf, time::Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Global, Outcome, client, exit, output};
use crate::{
    cache,
    config::{
        self, ConfigErrors,
        model::{self, Secret},
    },
    seal::Vault,
    service,
    tls::{self, Tls},
};

#[derive(Debug, Args)]
pub struct Check {
    /// The config file [default: /etc/gateway/gateway.toml]
    config: Option<PathBuf>,
}

impl Check {
    pub fn run(self, global: &Global) -> Outcome {
        let path = self.config.unwrap_or_else(|| super::places::CONFIG.into());
        let began = Instant::now();
        let checked = config::load(&path)?;
        let certs = certs(&checked)?;
        cache::disk::place::check(&checked)?;
        let warnings: Vec<String> = service::not_forwarded(&checked)
            .into_iter()
            .chain(service::unreachable(&checked))
            .chain(tls::unverified(&checked))
            .chain(certs)
            .collect();
        if !global.json() {
            warnings.iter().for_each(|warning| output::warn(global, warning));
        }
        let summary = json!({
            "ok": true,
            "config": path.display().to_string(),
            "listeners": checked.listeners.len(),
            "routes": checked.routes.len(),
            "upstreams": checked.upstreams.len(),
            "services": checked.services.len(),
            "warnings": warnings,
        });
        output::print(global, &summary, || {
            let (listeners, routes, upstreams) =
                (checked.listeners.len(), checked.routes.len(), checked.upstreams.len());
            let services = match checked.services.len() {
                0 => String::new(),
                n => format!(", {n} services"),
            };
            let path = path.display();
            let took = began.elapsed();
            format!(
                "{path}: ok ({listeners} listeners, {routes} routes, {upstreams} upstreams{services}; {took:.1?})"
            )
        });
        Ok(exit::OK)
    }
}

/// Certificates that cannot be used. Here, only warnings if keys may be where only the daemon finds them.
fn certs(config: &model::Config) -> Result<Vec<String>, ConfigErrors> {
    let keys = config.certs.values().map(|cert| &cert.key).chain(&config.state.key);
    let here = keys.chain(&config.state.old_keys).all(|key| matches!(key, Secret::File(_)));
    match Vault::load(config, None).and_then(|vault| Tls::load(config, &vault, None)) {
        Ok(_) => Ok(Vec::new()),
        Err(errors) if here => Err(errors),
        Err(errors) => Ok(errors.problems.iter().map(ToString::to_string).collect()),
    }
}

#[derive(Debug, Args)]
pub struct Diff {
    /// A config to compare the running one with [default: the file it was started with]
    config: Option<PathBuf>,
}

impl Diff {
    pub fn run(self, global: &Global) -> Outcome {
        let diff = match &self.config {
            None => client::get(global, "/v1/diff")?,
            Some(path) => {
                // What it means is sent, not where it is: the gateway may see other files.
                let meaning = config::show(&config::load(path)?);
                client::send(global, http::Method::POST, "/v1/diff", meaning)?
            }
        };
        let differs = diff["changes"].as_array().is_some_and(|changes| !changes.is_empty());
        output::print(global, &diff, || describe_diff(&diff));
        Ok(if differs { exit::FAILED } else { exit::OK })
    }
}

/// A line a change: `~ upstream.items.timeout.connect: "1s" -> "2s"`.
pub fn describe_diff(diff: &Value) -> String {
    let changes: Vec<config::Change> = serde_json::from_value(diff["changes"].clone()).unwrap_or_default();
    let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        lines.push("nothing changes".into());
    }
    let none = Vec::new();
    for setting in diff["needs_restart"].as_array().unwrap_or(&none) {
        lines.push(format!("! {}: takes effect only after a restart", setting.as_str().unwrap_or("?")));
    }
    if let Some(kernel) = diff["kernel"].as_object() {
        lines.extend(
            kernel
                .iter()
                .filter(|(_, value)| **value != json!(0) && !value.is_null())
                .map(|(key, value)| format!("  kernel maps: {} {value}", key.replace('_', " "))),
        );
    }
    lines.join("\n")
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show a config with every default filled in
    Show {
        /// The config file [default: what the running gateway uses]
        config: Option<PathBuf>,
    },
    /// Print the JSON Schema of the config
    Schema,
    /// Print a config file in another format; comments are not carried over
    Convert {
        /// The config file: TOML, or by its extension YAML or JSON
        config: PathBuf,
        /// What to write it in
        #[arg(long, value_name = "FORMAT", default_value = "toml")]
        to: config::Format,
    },
    /// Print the config reference (docs/config.md)
    Reference,
}

impl Config {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Config::Show { config: Some(path) } => {
                let loaded = config::load(&path)?;
                output::print(global, &config::to_json(&loaded), || config::show(&loaded));
            }
            Config::Show { config: None } => {
                let running = client::get(global, "/v1/config")?;
                let text = client::get(global, "/v1/config/toml")?;
                output::print(global, &running, || text.as_str().unwrap_or_default().to_owned());
            }
            Config::Schema => {
                let schema = serde_json::to_string_pretty(&config::schema()).unwrap_or_default();
                println!("{schema}");
            }
            Config::Convert { config, to } => print!("{}", config::convert(&config, to)?),
            Config::Reference => print!("{}", config::reference()),
        }
        Ok(exit::OK)
    }
}
