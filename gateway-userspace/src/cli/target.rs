//! `gateway target`: what operators say of targets while the gateway runs.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{Error, Global, Outcome, client, exit, output};
use crate::admin::OverrideStatus;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "NAME is an upstream or an L4 service; where both have the target, write upstream:NAME/ADDR or \
                        service:NAME/ADDR. What is said holds over reloads, and until a restart."
)]
pub enum Target {
    /// Give it nothing new; what it has may end
    Drain(Said),
    /// Treat it as broken
    Down(Said),
    /// Take "drain" or "down" back: the health checks decide again
    Up {
        /// The target
        #[arg(value_name = "NAME/ADDR")]
        target: String,
    },
    /// Give it another weight than the config's
    Weight {
        #[command(flatten)]
        said: Said,
        /// 1 to 1000, or "config" for the config's
        weight: String,
    },
}

#[derive(Debug, Args)]
pub struct Said {
    /// The target, for example items/10.0.0.1:8080
    #[arg(value_name = "NAME/ADDR")]
    target: String,
    /// For how long, for example 30m; without it until taken back
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<String>,
}

impl Target {
    pub fn run(self, global: &Global) -> Outcome {
        let (target, patch) = match self {
            Target::Drain(said) => said.patch(json!({ "state": "drain" }))?,
            Target::Down(said) => said.patch(json!({ "state": "down" }))?,
            Target::Up { target } => (target, json!({ "state": "up" })),
            Target::Weight { said, weight } => said.patch(json!({ "weight": parse_weight(&weight)? }))?,
        };
        let path = find(global, &target)?;
        let answer = client::send(global, Method::PATCH, &path, patch.to_string())?;
        let said: Option<OverrideStatus> =
            serde_json::from_value(answer["overrides"].clone()).unwrap_or_default();
        output::print(global, &answer, || match &said {
            Some(said) => format!("{target}: {}", overrides(Some(said))),
            None => format!("{target}: as the config and the checks say"),
        });
        Ok(exit::OK)
    }
}

impl Said {
    fn patch(self, mut patch: Value) -> Result<(String, Value), Error> {
        if let Some(duration) = self.duration {
            let bad = |error| Error::Usage(format!("--for {duration}: {error}"));
            crate::config::units::parse_duration(&duration).map_err(bad)?;
            patch["for"] = duration.into();
        }
        Ok((self.target, patch))
    }
}

fn parse_weight(text: &str) -> Result<Value, Error> {
    match text.parse::<u32>() {
        Ok(weight @ 1..=1000) => Ok(weight.into()),
        _ if text == "config" => Ok("config".into()),
        _ => Err(Error::Usage(format!("weight {text}: expected 1 to 1000, or config"))),
    }
}

/// The admin API's path of a target: of the upstream or the service that has it.
fn find(global: &Global, target: &str) -> Result<String, Error> {
    let (name, addr) = target.split_once('/').ok_or_else(|| {
        Error::Usage(format!("{target}: expected NAME/ADDR, for example items/10.0.0.1:8080"))
    })?;
    let addr = crate::config::units::parse_target(addr)
        .map_err(|error| Error::Usage(format!("{target}: {error}")))?
        .to_string();
    let (kind, name) = name.split_once(':').unwrap_or(("", name));
    let mut places = Vec::new();
    for (one, path) in [("upstream", "upstreams"), ("service", "services")] {
        if kind.is_empty() || kind == one {
            let all = client::get(global, &format!("/v1/{path}"))?;
            let targets = all[name]["targets"].as_array();
            if targets.into_iter().flatten().any(|target| target["addr"] == addr.as_str()) {
                places.push(format!("/v1/{path}/{name}/targets/{}", addr.replace('%', "%25")));
            }
        }
    }
    match places.as_slice() {
        [place] => Ok(place.clone()),
        [] => Err(Error::Refused(format!(
            "there is no target {addr} in an upstream or service \"{name}\"\n  hint: `gateway upstream list` and \
             `gateway service show {name}` tell which there are"
        ))),
        _ => Err(Error::Usage(format!(
            "{target}: an upstream and a service have it: write upstream:{target} or service:{target}"
        ))),
    }
}

/// What a table of targets shows of one in the columns for overrides, checks and state.
pub fn columns(said: Option<&OverrideStatus>, check: Option<&str>, state: &str) -> [String; 3] {
    let word = said.and_then(|said| said.state.as_ref()).map(|row| row.value.clone());
    let weight = said.and_then(|said| said.weight.as_ref()).map(|row| format!("weight {}", row.value));
    let said: Vec<String> = word.into_iter().chain(weight).collect();
    let said = if said.is_empty() { "-".into() } else { said.join(" ") };
    let check = match check {
        None => "-",
        Some("ok") => "ok",
        Some(_) => "failed",
    };
    [said, check.into(), state.to_owned()]
}

/// Lines below a table: who said what of a target and for how long, and why its last check failed.
pub fn notes(target: &str, said: Option<&OverrideStatus>, check: Option<&str>) -> String {
    let said = said.map(|said| format!("\n{target}: {}", overrides(Some(said))));
    let failed = check.filter(|check| *check != "ok").map(|why| format!("\n{target}: check: {why}"));
    said.into_iter().chain(failed).collect()
}

/// "drain by ann for 29m 59s; weight 5 by bob"
fn overrides(said: Option<&OverrideStatus>) -> String {
    let Some(said) = said else { return "-".into() };
    let tail = |by: &str, left: Option<u64>| {
        format!(" by {by}{}", left.map_or(String::new(), |left| format!(" for {}", output::seconds(left))))
    };
    let state = said.state.as_ref().map(|row| format!("{}{}", row.value, tail(&row.by, row.left_seconds)));
    let weight =
        said.weight.as_ref().map(|row| format!("weight {}{}", row.value, tail(&row.by, row.left_seconds)));
    state.into_iter().chain(weight).collect::<Vec<_>>().join("; ")
}
