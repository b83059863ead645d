//! `gateway alert`

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Error, Global, Outcome,
    ban::text,
    client, exit,
    output::{self, RED, YELLOW, table},
};
use crate::{config::units::parse_duration, observe::alert::Row};

#[derive(Debug, Subcommand)]
pub enum Alert {
    /// Every alert, what it is at and since when; exits 1 if one fires
    List,
    /// Tell nobody of an alert for a while
    Silence {
        /// Its name
        name: String,
        /// For how long, for example 2h
        #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
        lasts: String,
        /// Why, for whoever looks at the list
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Tell of it again
    Unsilence {
        /// Its name
        name: String,
    },
}

impl Alert {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Alert::List => {
                let value = client::get(global, "/v1/alerts")?;
                let rows = rows(&value)?;
                output::print(global, &value, || list(global, &rows));
                let bad = rows.iter().any(|row| row.state == "firing" && row.silence.is_none());
                Ok(if bad { exit::FAILED } else { exit::OK })
            }
            Alert::Silence { name, lasts, why } => {
                parse_duration(&lasts).map_err(|error| Error::Usage(format!("--for {lasts}: {error}")))?;
                let body = json!({ "for": lasts, "why": why });
                let made = client::post(global, &format!("/v1/alerts/{name}/silence"), Some(body))?;
                output::print(global, &made, || format!("nobody is told of {name} for {lasts}"));
                Ok(exit::OK)
            }
            Alert::Unsilence { name } => {
                let done = client::delete(global, &format!("/v1/alerts/{name}/silence"))?;
                output::print(global, &done, || format!("{} is told of again", text(&done["alert"])));
                Ok(exit::OK)
            }
        }
    }
}

pub fn rows(value: &Value) -> Result<Vec<Row>, Error> {
    serde_json::from_value(value.clone())
        .map_err(|error| Error::Other(format!("the gateway speaks another version: {error}")))
}

fn list(global: &Global, rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no alerts in the config".into();
    }
    let shown = rows.iter().map(|row| {
        let silent = if row.silence.is_some() { " (silenced)" } else { "" };
        vec![
            row.alert.clone(),
            format!("{}{silent}", row.state),
            row.since.clone().unwrap_or_else(|| "-".into()),
            row.text.clone().unwrap_or_else(|| "nothing measured yet".into()),
        ]
    });
    let shown = table(&["ALERT", "STATE", "SINCE", "WHAT"], shown);
    let paint = |line: &str| match line {
        line if line.contains(" firing ") => global.paint(RED, line),
        line if line.contains(" pending ") => global.paint(YELLOW, line),
        line => line.to_owned(),
    };
    shown.lines().map(paint).collect::<Vec<_>>().join("\n")
}
