//! `gateway cache`

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Error, Global, Outcome, client, exit,
    output::{self, table},
};
use crate::{
    admin::{CacheStatus, DiskStatus},
    config::units::ByteSize,
};

#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Every cache, what it holds and how often it answered
    List,
    /// What a cache holds and did
    Stats {
        /// Its name [default: all]
        name: Option<String>,
    },
    /// Take out what is stored: by URL, by how URLs begin, by tag, or all
    Purge(Purge),
}

#[derive(Debug, Args)]
pub struct Purge {
    /// The cache's name
    name: String,
    #[command(flatten)]
    what: What,
    /// Mark as stale: it may still be sent while it is fetched anew, or when that fails
    #[arg(long)]
    soft: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// One URL, or one path of any host, in all its variants
    #[arg(long, value_name = "URL")]
    key: Option<String>,
    /// Everything whose URL, or path, begins so
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    /// Everything with this tag in `Surrogate-Key` or `Cache-Tag`
    #[arg(long)]
    tag: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl Cache {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Cache::List => {
                let value = client::get(global, "/v1/caches")?;
                let caches = read(value.clone())?;
                output::print(global, &value, || list(&caches));
            }
            Cache::Stats { name } => {
                let value = match name {
                    None => client::get(global, "/v1/caches")?,
                    Some(name) => json!({ &*name: client::get(global, &format!("/v1/caches/{name}"))? }),
                };
                let caches = read(value.clone())?;
                output::print(global, &value, || {
                    caches.iter().map(|(name, cache)| show(name, cache)).collect::<Vec<_>>().join("\n")
                });
            }
            Cache::Purge(purge) => {
                let What { key, prefix, tag, all } = purge.what;
                let wanted = [("key", key), ("prefix", prefix), ("tag", tag)].into_iter();
                let mut body: Value =
                    wanted.filter_map(|(what, text)| Some((what.to_owned(), json!(text?)))).collect();
                body["soft"] = json!(purge.soft);
                if all {
                    body["all"] = json!(true);
                }
                let value = client::post(global, &format!("/v1/caches/{}/purge", purge.name), Some(body))?;
                output::print(global, &value, || {
                    let word = if purge.soft { "marked as stale" } else { "purged" };
                    format!("{} {word}\n", value["purged"])
                });
            }
        }
        Ok(exit::OK)
    }
}

fn read(value: Value) -> Result<BTreeMap<String, CacheStatus>, Error> {
    serde_json::from_value(value)
        .map_err(|error| Error::Other(format!("the gateway speaks another version: {error}")))
}

fn list(caches: &BTreeMap<String, CacheStatus>) -> String {
    let rows = caches.iter().map(|(name, cache)| {
        let count = |word: &str| cache.requests.get(word).copied().unwrap_or_default();
        let asked: u64 = cache.requests.values().sum::<u64>() - count("bypass");
        let answered = count("hit") + count("stale") + count("coalesced") + count("revalidated");
        let share = match asked {
            0 => "-".to_owned(),
            asked => format!("{:.1}%", answered as f64 * 100.0 / asked as f64),
        };
        let bytes = format!("{}/{}", short(cache.bytes), ByteSize(cache.memory));
        vec![name.clone(), cache.entries.to_string(), bytes, asked.to_string(), share, cache.routes.join(" ")]
    });
    table(&["CACHE", "ENTRIES", "BYTES", "REQUESTS", "HITS", "ROUTES"], rows)
}

fn show(name: &str, cache: &CacheStatus) -> String {
    let mut lines = vec![
        ("cache".to_owned(), name.to_owned()),
        ("entries".to_owned(), cache.entries.to_string()),
        ("bytes".to_owned(), format!("{} of {}", short(cache.bytes), ByteSize(cache.memory))),
        ("evicted".to_owned(), cache.evicted.to_string()),
        ("routes".to_owned(), cache.routes.join(" ")),
    ];
    lines.extend(cache.requests.iter().map(|(word, n)| (word.clone(), n.to_string())));
    if let Some(disk) = &cache.disk {
        lines.extend(show_disk(disk).map(|(what, value)| (format!("disk {what}"), value)));
    }
    lines.into_iter().map(|(what, value)| format!("{what:<14} {value}\n")).collect()
}

fn show_disk(disk: &DiskStatus) -> [(&'static str, String); 11] {
    let sealed = if disk.sealed { ", sealed" } else { "" };
    [
        ("state", format!("{}{sealed}", disk.state)),
        ("path", disk.directory.clone()),
        ("entries", disk.entries.to_string()),
        ("bytes", format!("{} of {}", short(disk.bytes), ByteSize(disk.size))),
        ("hits", disk.hits.to_string()),
        ("written", disk.written.to_string()),
        ("evicted", disk.evicted.to_string()),
        ("dropped", disk.dropped.to_string()),
        ("busy", disk.busy.to_string()),
        ("damaged", disk.damaged.to_string()),
        ("failed", disk.failed.to_string()),
    ]
}

/// Rounded, for tables.
fn short(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units.iter().find(|(shift, _)| bytes >> shift >= 10);
    fits.map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}
