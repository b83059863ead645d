//! `gateway limit`

use std::net::IpAddr;

use clap::Subcommand;
use serde_json::Value;

use super::{
    Global, Outcome,
    ban::text,
    client, exit,
    output::{self, table},
};

#[derive(Debug, Subcommand)]
pub enum Limit {
    /// The limits in force, or what one source has left of them
    Show {
        /// An address
        source: Option<IpAddr>,
    },
    /// The sources that were refused most
    Top {
        /// How many
        #[arg(short, default_value_t = 20)]
        n: usize,
    },
    /// Fill a source's buckets
    Reset {
        /// An address
        source: IpAddr,
    },
}

impl Limit {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Limit::Show { source: None } => {
                let limits = client::get(global, "/v1/limits")?;
                output::print(global, &limits, || describe(&limits["kernel"]));
            }
            Limit::Show { source: Some(source) } => {
                let row = client::get(global, &format!("/v1/kernel/sources/{source}"))?;
                output::print(global, &row, || sources(&Value::Array(vec![row.clone()])));
            }
            Limit::Top { n } => {
                let rows = client::get(global, &format!("/v1/kernel/sources?top={n}"))?;
                output::print(global, &rows, || sources(&rows));
            }
            Limit::Reset { source } => {
                let done = client::delete(global, &format!("/v1/kernel/sources/{source}"))?;
                output::print(global, &done, || format!("{source} starts with full buckets"));
            }
        }
        Ok(exit::OK)
    }
}

fn describe(limit: &Value) -> String {
    let rows = ["packets", "new"].iter().map(|name| {
        let bucket = &limit[*name];
        vec![(*name).into(), text(&bucket["rate"]), text(&bucket["burst"])]
    });
    let exempt: Vec<String> = limit["exempt"].as_array().into_iter().flatten().map(text).collect();
    let mut out = table(&["KERNEL LIMIT", "RATE", "BURST"], rows);
    out += &format!("\nper source: IPv4 /32, IPv6 /{}\n", text(&limit["ipv6_prefix"]));
    out + &format!("exempt: {}", if exempt.is_empty() { "none".into() } else { exempt.join(" ") })
}

/// Also used by `gateway kernel sources`.
pub fn sources(rows: &Value) -> String {
    let rows: Vec<Vec<String>> = rows
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            vec![
                text(&row["source"]),
                text(&row["packets_left"]),
                text(&row["new_left"]),
                row["dropped"].as_u64().map_or("-".into(), output::short),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no source has a bucket".into();
    }
    table(&["SOURCE", "PACKETS LEFT", "CONNECTIONS LEFT", "DROPPED"], rows)
}
