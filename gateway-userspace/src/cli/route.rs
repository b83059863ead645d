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
    if let Some(versions) = route["version"].as_object() {
        let each = versions.iter().filter(|(name, value)| value.is_object() && *name != "aliases");
        return each
            .map(|(name, version)| format!("{name}: {}", leads_to(version)))
            .collect::<Vec<_>>()
            .join(", ");
    }
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
        // What is not used is of no interest; versions follow.
        if key != "version" && *value != json!([]) && *value != json!(false) {
            lines.push((key.clone(), plain(value)));
        }
    }
    for (code, count) in route["codes"].as_object().unwrap_or(&empty) {
        lines.push((format!("status {code}"), text(count)));
    }
    let shown: String = lines.into_iter().map(|(what, value)| format!("{what:<12} {value}\n")).collect();
    shown + &versions(route) + &compared("", &route["compared"])
}

/// How a shadow's answers differ.
fn compared(of: &str, told: &Value) -> String {
    let Some(results) = told["results"].as_object() else { return String::new() };
    let counts: Vec<String> = results.iter().map(|(word, n)| format!("{word} {n}")).collect();
    let mut out = format!("\nshadow{of}: {}\n", counts.join(", "));
    for difference in told["differences"].as_array().into_iter().flatten() {
        out += &format!("  {} {}\n", text(&difference["method"]), text(&difference["path"]));
        for differs in difference["differs"].as_array().into_iter().flatten() {
            out += &format!("    {}\n", text(differs));
        }
    }
    out
}

/// One line a version, and then who calls it.
fn versions(route: &Value) -> String {
    let Some(all) = route["versions"].as_object() else { return String::new() };
    let rows = all.iter().map(|(name, version)| {
        let settings = &route["settings"]["version"][name];
        let end = match (&version["sunset"], &version["deprecated"]) {
            (Value::String(sunset), _) => format!("sunset {sunset}"),
            (_, Value::String(deprecated)) => format!("deprecated {deprecated}"),
            _ => String::new(),
        };
        let requests = version["last_day"]["requests"].as_u64().unwrap_or_default();
        vec![name.clone(), leads_to(settings), end, output::short(requests)]
    });
    let mut out = format!("\n{}", table(&["VERSION", "TO", "END", "LAST DAY"], rows));
    let callers = all.iter().flat_map(|(name, version)| {
        let consumers = version["last_day"]["consumers"].as_object().into_iter().flatten();
        let last = &version["last_caller"];
        consumers.map(move |(consumer, count)| {
            let is_last = last["consumer"] == **consumer;
            let seen = if is_last {
                format!("{} {}", text(&last["at"]), text(&last["client"]))
            } else {
                String::new()
            };
            let agent = if is_last { last["agent"].as_str().unwrap_or_default() } else { "" };
            vec![name.clone(), consumer.clone(), text(count), seen, agent.to_owned()]
        })
    });
    let callers: Vec<Vec<String>> = callers.collect();
    if !callers.is_empty() {
        out += &format!(
            "\n{}",
            table(&["VERSION", "CONSUMER", "LAST DAY", "LAST CALL", "AGENT"], callers.into_iter())
        );
    }
    for (name, version) in all {
        out += &compared(&format!(" of {name}"), &version["compared"]);
    }
    out
}

/// Lists without brackets; tables as they are.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(_) => json!(value).to_string(),
        other => text(other),
    }
}
