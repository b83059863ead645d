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
                output::print(global, &limits, || describe(&limits));
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

fn describe(limits: &Value) -> String {
    let limit = &limits["kernel"];
    let classes = named(&limits["classes"], "class");
    let services = named(&limits["services"], "service");
    let all = std::iter::once(("every source".to_owned(), limit)).chain(classes).chain(services);
    let rows = all.flat_map(|(whose, limit)| {
        ["packets", "new", "bytes"].map(|name| {
            let bucket = &limit[name];
            vec![
                whose.clone(),
                name.into(),
                text(&bucket["rate"]),
                text(&bucket["burst"]),
                text(&limit["mode"]),
            ]
        })
    });
    let exempt: Vec<String> = limit["exempt"].as_array().into_iter().flatten().map(text).collect();
    let mut out = table(&["KERNEL LIMIT", "OF", "RATE", "BURST", "MODE"], rows);
    out += &format!("\nper source: IPv4 /32, IPv6 /{}\n", text(&limit["ipv6_prefix"]));
    out + &format!("exempt: {}", if exempt.is_empty() { "none".into() } else { exempt.join(" ") })
}

/// Limits by name, each with what it is a limit of.
fn named<'a>(limits: &'a Value, kind: &'a str) -> impl Iterator<Item = (String, &'a Value)> {
    limits.as_object().into_iter().flatten().map(move |(name, limit)| (format!("{kind} {name}"), limit))
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
                row["bytes_left"].as_u64().map_or("-".into(), output::short),
                row["service"].as_str().unwrap_or("-").to_owned(),
                row["dropped"].as_u64().map_or("-".into(), output::short),
                row["drops_per_second"].as_f64().map_or("-".into(), |rate| format!("{rate:.1}")),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no source has a bucket".into();
    }
    table(
        &["SOURCE", "PACKETS LEFT", "CONNECTIONS LEFT", "BYTES LEFT", "SERVICE", "DROPPED", "DROPS/S"],
        rows,
    )
}
