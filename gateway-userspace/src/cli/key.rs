//! `gateway key`

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Global, Outcome,
    ban::text,
    client, exit,
    output::{self, table},
};

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an API key; it is shown this once, and only its hash is kept
    New {
        consumer: String,
        /// What to call it; without it key-1, key-2, …
        id: Option<String>,
        /// How long it is good, for example 90d; without it for ever
        #[arg(long = "for", value_name = "DURATION", conflicts_with = "until")]
        duration: Option<String>,
        /// Until when it is good, for example 2027-01-31
        #[arg(long, value_name = "DATE")]
        until: Option<String>,
    },
    /// Show keys, those of one consumer or all
    List { consumer: Option<String> },
    /// Take a key away, at once
    Revoke { consumer: String, id: String },
}

impl Key {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Key::New { consumer, id, duration, until } => {
                let asked = json!({ "id": id, "for": duration, "until": until });
                let made = client::post(global, &format!("/v1/consumers/{consumer}/keys"), Some(asked))?;
                output::print(global, &made, || text(&made["key"]));
            }
            Key::List { consumer } => {
                let all = match consumer {
                    Some(name) => {
                        json!({ name.clone(): client::get(global, &format!("/v1/consumers/{name}"))? })
                    }
                    None => client::get(global, "/v1/consumers")?,
                };
                output::print(global, &all, || list(&all));
            }
            Key::Revoke { consumer, id } => {
                let done = client::delete(global, &format!("/v1/consumers/{consumer}/keys/{id}"))?;
                output::print(global, &done, || {
                    format!("{} of {} is good no more", text(&done["revoked"]), text(&done["consumer"]))
                });
            }
        }
        Ok(exit::OK)
    }
}

fn list(all: &Value) -> String {
    let mut rows = Vec::new();
    for (name, consumer) in all.as_object().into_iter().flatten() {
        for key in consumer["keys"].as_array().into_iter().flatten() {
            let until = if key["revoked"] == true { "revoked".into() } else { text(&key["until"]) };
            rows.push(vec![name.clone(), text(&key["id"]), text(&key["from"]), until]);
        }
    }
    if rows.is_empty() { "no keys".into() } else { table(&["CONSUMER", "KEY", "FROM", "UNTIL"], rows) }
}
