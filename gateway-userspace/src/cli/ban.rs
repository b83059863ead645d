//! `gateway ban`

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Error, Global, Outcome, client, exit,
    output::{self, table},
};
use crate::config::units::Prefix;

#[derive(Debug, Subcommand)]
pub enum Ban {
    /// Ban an address or prefix
    Add {
        /// For example 192.0.2.7, 198.51.100.0/24 or 2001:db8::/64
        cidr: String,
        /// For how long, for example 10m or 1h; without it until lifted
        #[arg(long = "for", value_name = "DURATION")]
        duration: Option<String>,
        /// Why, for whoever looks at the list
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Show the bans in force
    List,
    /// Lift a ban
    Del {
        /// As it was banned
        cidr: String,
    },
}

impl Ban {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Ban::Add { cidr, duration, why } => {
                let cidr = prefix(&cidr)?;
                if let Some(duration) = &duration {
                    let bad = |error| Error::Usage(format!("--for {duration}: {error}"));
                    crate::config::units::parse_duration(duration).map_err(bad)?;
                }
                let ban = client::post(
                    global,
                    "/v1/bans",
                    Some(json!({ "cidr": cidr, "for": duration, "why": why })),
                )?;
                output::print(global, &ban, || {
                    let until = ban["left_seconds"].as_u64().map(output::seconds);
                    format!(
                        "{} banned {}",
                        text(&ban["cidr"]),
                        until.map_or("until lifted".into(), |t| format!("for {t}"))
                    )
                });
            }
            Ban::List => {
                let bans = client::get(global, "/v1/bans")?;
                output::print(global, &bans, || list(&bans));
            }
            Ban::Del { cidr } => {
                let cidr = prefix(&cidr)?;
                let lifted = client::delete(global, &format!("/v1/bans/{cidr}"))?;
                output::print(global, &lifted, || format!("{} is no longer banned", text(&lifted["lifted"])));
            }
        }
        Ok(exit::OK)
    }
}

fn prefix(text: &str) -> Result<Prefix, Error> {
    text.parse().map_err(|error| Error::Usage(format!("{text}: {error}")))
}

fn list(bans: &Value) -> String {
    let rows: Vec<Vec<String>> = bans
        .as_array()
        .into_iter()
        .flatten()
        .map(|ban| {
            let left = ban["left_seconds"].as_u64().map_or("until lifted".into(), output::seconds);
            vec![text(&ban["cidr"]), left, text(&ban["why"])]
        })
        .collect();
    if rows.is_empty() { "no bans".into() } else { table(&["CIDR", "LEFT", "WHY"], rows) }
}

/// A JSON string without its quotes, anything else as it is.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".into() } else { value.to_string() }, str::to_owned)
}
