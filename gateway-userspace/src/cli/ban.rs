//! `gateway ban`

use clap::{Subcommand, ValueEnum};
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
        /// In XDP, or at L7 (for addresses behind a proxy)
        #[arg(long = "where", value_enum, default_value_t = Place::Kernel)]
        place: Place,
    },
    /// Show the bans in force
    List {
        /// Only those here
        #[arg(long = "where", value_enum)]
        place: Option<Place>,
    },
    /// Lift a ban
    Del {
        /// As it was banned
        cidr: String,
        /// Only here
        #[arg(long = "where", value_enum)]
        place: Option<Place>,
    },
}

/// Where a ban is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Place {
    Kernel,
    Http,
}

impl Place {
    fn word(self) -> &'static str {
        match self {
            Place::Kernel => "kernel",
            Place::Http => "http",
        }
    }

    /// Of the admin API's paths.
    fn query(place: Option<Place>) -> String {
        place.map(|place| format!("?where={}", place.word())).unwrap_or_default()
    }
}

impl Ban {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Ban::Add { cidr, duration, why, place } => {
                let cidr = prefix(&cidr)?;
                if let Some(duration) = &duration {
                    let bad = |error| Error::Usage(format!("--for {duration}: {error}"));
                    crate::config::units::parse_duration(duration).map_err(bad)?;
                }
                let ban = client::post(
                    global,
                    "/v1/bans",
                    Some(json!({ "cidr": cidr, "for": duration, "why": why, "where": place.word() })),
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
            Ban::List { place } => {
                let bans = client::get(global, &format!("/v1/bans{}", Place::query(place)))?;
                output::print(global, &bans, || list(&bans));
            }
            Ban::Del { cidr, place } => {
                let cidr = prefix(&cidr)?;
                let lifted = client::delete(global, &format!("/v1/bans/{cidr}{}", Place::query(place)))?;
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
            vec![text(&ban["cidr"]), text(&ban["where"]), left, text(&ban["by"]), text(&ban["why"])]
        })
        .collect();
    if rows.is_empty() { "no bans".into() } else { table(&["CIDR", "WHERE", "LEFT", "BY", "WHY"], rows) }
}

/// A JSON string without its quotes, anything else as it is.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".into() } else { value.to_string() }, str::to_owned)
}
