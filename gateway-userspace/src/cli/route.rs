//! `gateway route`

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::{
    Global, Outcome,
    ban::text,
    client, exit,
    output::{self, table},
};

#[derive(Debug, Subcommand)]
pub enum Route {
    /// Every route: what it takes, where it leads, how many requests it had
    List,
    /// One route: its settings, and its answers by status
    Show {
        /// Its name
        name: String,
    },
}

impl Route {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Route::List => {
                let routes = client::get(global, "/v1/routes")?;
                let counts = client::get(global, "/v1/stats")?;
                output::print(global, &routes, || list(&routes, &counts));
            }
            Route::Show { name } => {
                let route = client::get(global, &format!("/v1/routes/{name}"))?;
                output::print(global, &route, || show(&name, &route));
            }
        }
        Ok(exit::OK)
    }
}

fn list(routes: &Value, counts: &Value) -> String {
    let requests = |name: &str| -> u64 {
        let all = counts["routes"].as_array().into_iter().flatten();
        all.filter(|count| count["route"] == name).filter_map(|count| count["requests"].as_u64()).sum()
    };
    let rows = routes.as_object().into_iter().flatten().map(|(name, route)| {
        vec![
            name.clone(),
            hosts(route),
            text(&route["path"]),
            conditions(route),
            leads_to(route),
            output::short(requests(name)),
        ]
    });
    table(&["ROUTE", "HOST", "PATH", "WHEN", "TO", "REQUESTS"], rows)
}

fn hosts(route: &Value) -> String {
    let hosts: Vec<String> = route["host"].as_array().into_iter().flatten().map(text).collect();
    if hosts.is_empty() { "*".into() } else { hosts.join(" ") }
}

fn conditions(route: &Value) -> String {
    let methods = route["methods"].as_array().into_iter().flatten().map(text);
    let names = |key: &'static str| {
        route[key].as_object().into_iter().flatten().map(move |(name, _)| format!("{key}:{name}"))
    };
    methods.chain(names("headers")).chain(names("query")).collect::<Vec<_>>().join(" ")
}

fn leads_to(route: &Value) -> String {
    match (&route["to"], &route["respond"], &route["redirect"]) {
        (Value::Object(split), ..) => {
            split.iter().map(|(name, weight)| format!("{name}={weight}")).collect::<Vec<_>>().join(" ")
        }
        (Value::Null, Value::Null, redirect) => format!("redirect {}", text(&redirect["to"])),
        (Value::Null, respond, _) => format!("answer {}", text(&respond["status"])),
        (to, ..) => text(to),
    }
}

fn show(name: &str, route: &Value) -> String {
    let mut lines = vec![("route".to_owned(), name.to_owned())];
    let empty = Map::new();
    for (key, value) in route["settings"].as_object().unwrap_or(&empty) {
        // What is not used is of no interest.
        if *value != json!([]) && *value != json!(false) {
            lines.push((key.clone(), plain(value)));
        }
    }
    for (code, count) in route["codes"].as_object().unwrap_or(&empty) {
        lines.push((format!("status {code}"), text(count)));
    }
    lines.into_iter().map(|(what, value)| format!("{what:<12} {value}\n")).collect()
}

/// Lists without brackets; tables as they are.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(_) => json!(value).to_string(),
        other => text(other),
    }
}
