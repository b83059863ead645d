//! `gateway limit`

use std::net::IpAddr;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Error, Global, Outcome,
    ban::text,
    client, exit,
    output::{self, table},
};

#[derive(Debug, Subcommand)]
pub enum Limit {
    /// All limits, of requests and of packets
    List,
    /// One limit of requests and who is near it; or what one source has left of the kernel half's
    Show {
        /// A limit's name, or an address. Without it as `list`
        what: Option<String>,
    },
    /// Who is refused most: keys of limits, with what the kernel half has left for them, and its other sources
    Top {
        /// How many
        #[arg(short, default_value_t = 20)]
        n: usize,
        /// Of this limit only
        limit: Option<String>,
    },
    /// Start anew: a limit, one key of it, or a source's buckets in the kernel half
    Reset {
        /// A limit's name, or an address
        what: String,
        /// A key's id, as `top -o json` shows it. Without it all keys
        key: Option<String>,
    },
}

impl Limit {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Limit::List | Limit::Show { what: None } => {
                let limits = client::get(global, "/v1/limits")?;
                output::print(global, &limits, || describe(&limits));
            }
            Limit::Show { what: Some(what) } => match what.parse::<IpAddr>() {
                Ok(source) => {
                    let row = client::get(global, &format!("/v1/kernel/sources/{source}"))?;
                    output::print(global, &row, || sources(&Value::Array(vec![row.clone()])));
                }
                Err(_) => {
                    let limit = client::get(global, &format!("/v1/limits/{}", name(&what)?))?;
                    output::print(global, &limit, || one(&what, &limit));
                }
            },
            Limit::Top { n, limit: Some(limit) } => {
                let rows = client::get(global, &format!("/v1/limits/{}/keys?top={n}", name(&limit)?))?;
                output::print(global, &rows, || keys(&rows));
            }
            Limit::Top { n, limit: None } => {
                let both = client::get(global, &format!("/v1/limit-top?top={n}"))?;
                output::print(global, &both, || top(&both, n));
            }
            Limit::Reset { what, key } => reset(global, &what, key.as_deref())?,
        }
        Ok(exit::OK)
    }
}

fn reset(global: &Global, what: &str, key: Option<&str>) -> Result<(), Error> {
    if let Ok(source) = what.parse::<IpAddr>() {
        let done = client::delete(global, &format!("/v1/kernel/sources/{source}"))?;
        output::print(global, &done, || format!("{source} starts with full buckets"));
        return Ok(());
    }
    let path = format!("/v1/limits/{}/keys", name(what)?);
    let path = key.map_or(path.clone(), |key| format!("{path}/{}", key.replace(['/', '?', '#'], "")));
    let done = client::delete(global, &path)?;
    output::print(global, &done, || format!("{what}: {} starts anew", key.unwrap_or("every key")));
    Ok(())
}

/// Fit for a path.
fn name(text: &str) -> Result<&str, Error> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    plain
        .then_some(text)
        .ok_or_else(|| Error::Usage(format!("{text}: neither a limit's name nor an address")))
}

fn describe(limits: &Value) -> String {
    let rows: Vec<Vec<String>> = limits["limits"].as_object().into_iter().flatten().map(row).collect();
    let l7 = match rows.is_empty() {
        true => "no limits of requests".to_owned(),
        false => table(&["LIMIT", "MODE", "RATE", "KEY", "KEYS", "ALLOWED", "OVER", "REFUSED"], rows),
    };
    format!("{l7}\n\n{}", packets(limits))
}

fn row((name, limit): (&String, &Value)) -> Vec<String> {
    let settings = &limit["settings"];
    let key: Vec<String> = settings["key"].as_array().into_iter().flatten().map(text).collect();
    let count = |word: &str| limit["decisions"][word].as_u64().map_or("-".into(), output::short);
    let dry = if settings["dry_run"] == json!(true) { " (dry)" } else { "" };
    vec![
        name.clone(),
        format!("{}{dry}", text(&settings["mode"])),
        rate(settings),
        if key.is_empty() { "-".into() } else { key.join(" ") },
        limit["keys"].as_u64().map_or("-".into(), output::short),
        count("allow"),
        count("soft"),
        count("deny"),
    ]
}

fn rate(settings: &Value) -> String {
    match (&settings["max"], &settings["rate"]) {
        (Value::Null, rate) => text(rate),
        (max, _) => format!("{} at once", text(max)),
    }
}

fn one(name: &str, limit: &Value) -> String {
    let routes: Vec<String> = limit["routes"].as_array().into_iter().flatten().map(text).collect();
    let table = table(
        &["LIMIT", "MODE", "RATE", "KEY", "KEYS", "ALLOWED", "OVER", "REFUSED"],
        vec![row((&name.to_owned(), limit))],
    );
    let routes = if routes.is_empty() { "no route".into() } else { routes.join(" ") };
    format!("{table}\nroutes: {routes}\n\n{}", keys(&limit["top"]))
}

/// Keys and sources in one table, those that are refused fastest first.
fn top(both: &Value, most: usize) -> String {
    let all = |of: &str| both[of].as_array().cloned().unwrap_or_default();
    let rate = |value: &Value| value.as_f64().unwrap_or(0.0);
    let mut rows: Vec<(f64, Vec<String>)> = Vec::new();
    for row in all("keys") {
        let (refused, kernel) = (rate(&row["refused_per_second"]), &row["kernel"]);
        let dropped = rate(&kernel["drops_per_second"]);
        let mut cells = vec![
            text(&row["limit"]),
            text(&row["key"]),
            format!("{}/{}", text(&row["left"]), text(&row["of"])),
            per_second(refused),
        ];
        cells.extend(in_kernel(kernel));
        rows.push((refused + dropped, cells));
    }
    for row in all("sources") {
        let whose = row["service"].as_str().map_or("kernel".into(), |service| format!("service {service}"));
        let mut cells = vec![whose, format!("ip={}", text(&row["source"])), "-".into(), "-".into()];
        cells.extend(in_kernel(&row));
        rows.push((rate(&row["drops_per_second"]), cells));
    }
    if rows.is_empty() {
        return "no key is near its limit, and no source has a bucket".into();
    }
    rows.sort_by(|one, two| two.0.total_cmp(&one.0));
    rows.truncate(most);
    table(
        &["LIMIT", "KEY", "LEFT", "REFUSED/S", "CONNS LEFT", "PACKETS LEFT", "DROPS/S"],
        rows.into_iter().map(|(_, cells)| cells),
    )
}

fn in_kernel(source: &Value) -> [String; 3] {
    let left = |what: &str| source[what].as_u64().map_or("-".into(), output::short);
    let dropped = source["drops_per_second"].as_f64().map_or("-".into(), per_second);
    [left("new_left"), left("packets_left"), dropped]
}

fn per_second(rate: f64) -> String {
    if rate > 0.0 { format!("{rate:.1}") } else { "-".into() }
}

/// Keys of limits.
fn keys(rows: &Value) -> String {
    let seconds = |value: &Value| match value.as_f64() {
        Some(seconds) if seconds > 0.0 => format!("{seconds:.1}s"),
        _ => "-".into(),
    };
    let rows: Vec<Vec<String>> = rows
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            vec![
                text(&row["limit"]),
                text(&row["key"]),
                format!("{}/{}", text(&row["left"]), text(&row["of"])),
                row["refused"].as_u64().map_or("-".into(), output::short),
                row["refused_per_second"].as_f64().map_or("-".into(), per_second),
                seconds(&row["next_seconds"]),
                seconds(&row["full_seconds"]),
            ]
        })
        .collect();
    match rows.is_empty() {
        true => "no key is near its limit".into(),
        false => table(&["LIMIT", "KEY", "LEFT", "REFUSED", "NOW/S", "NEXT IN", "FULL IN"], rows),
    }
}

fn packets(limits: &Value) -> String {
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
