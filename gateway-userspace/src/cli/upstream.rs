//! `gateway upstream`

use std::collections::BTreeMap;

use clap::Subcommand;

use super::{
    Error, Global, Outcome, client, exit,
    output::{self, GREEN, RED, table},
};
use crate::admin::UpstreamStatus;

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
            let state = if target.healthy { global.paint(GREEN, "up") } else { global.paint(RED, "down") };
            vec![
                name.clone(),
                target.addr.clone(),
                state,
                target.weight.to_string(),
                target.active.to_string(),
                output::short(target.requests),
                target.check.clone().unwrap_or_default(),
            ]
        })
    });
    table(&["UPSTREAM", "TARGET", "STATE", "WEIGHT", "ACTIVE", "REQUESTS", "LAST CHECK"], rows)
}
