//! `gateway cache`

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Error, Global, Outcome, client, exit,
    explain::field,
    output::{self, table},
};
use crate::{
    admin::{CacheStatus, DiskStatus},
    config::units::{ByteSize, Rate},
    sync::lock,
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
    /// Ask for URLs as a client would, so that their answers are stored
    Warm(Warm),
}

#[derive(Debug, Args)]
pub struct Warm {
    /// A URL a line, with scheme and host; "-": from standard input. What begins with # is a comment
    file: PathBuf,
    /// At most so many requests
    #[arg(long, default_value = "50/s")]
    rate: Rate,
    /// A header field of each request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
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
            Cache::Warm(warm) => return warm.run(global),
        }
        Ok(exit::OK)
    }
}

/// Requests at once.
const AT_ONCE: usize = 8;

#[derive(Debug, Default, Serialize)]
struct Warmed {
    asked: usize,
    stored: usize,
    /// They were there.
    hits: usize,
    not_stored: usize,
    failed: usize,
}

impl Warm {
    fn run(self, global: &Global) -> Outcome {
        let urls = self.urls()?;
        let headers: Vec<(String, String)> = self.headers.iter().map(field).collect::<Result<_, _>>()?;
        let every = Duration::from_secs_f64(1.0 / self.rate.per_second);
        let (next, turn) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
        let warmed = Mutex::new(Warmed::default());
        let ask = || {
            while let Some(url) = urls.get(next.fetch_add(1, Relaxed)) {
                wait(&turn, every);
                let body = json!({ "url": url, "headers": headers });
                let answer = client::post(global, "/v1/warm", Some(body));
                if let Some(why) = lock(&warmed).count(url, answer) {
                    output::warn(global, &why);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(ask);
            }
        });
        let warmed = lock(&warmed);
        output::print(global, &json!(*warmed), || {
            let Warmed { asked, stored, hits, not_stored, failed } = &*warmed;
            format!(
                "{asked} asked for: {stored} stored, {hits} there already, {not_stored} not stored, {failed} failed\n"
            )
        });
        Ok(if warmed.failed > 0 { exit::FAILED } else { exit::OK })
    }

    fn urls(&self) -> Result<Vec<String>, Error> {
        let text = match self.file.as_os_str() == "-" {
            true => std::io::read_to_string(std::io::stdin()),
            false => std::fs::read_to_string(&self.file),
        };
        let file = self.file.display();
        let text = text.map_err(|error| Error::Other(format!("cannot read {file}: {error}")))?;
        let lines = text.lines().map(str::trim);
        Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
    }
}

impl Warmed {
    /// Why it failed, if it did.
    fn count(&mut self, url: &str, answer: Result<Value, Error>) -> Option<String> {
        self.asked += 1;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.failed += 1;
                return Some(format!("{url}: {error}"));
            }
        };
        let status = answer["cache"].as_str().unwrap_or_default();
        let what = match () {
            () if status.contains("; hit") => &mut self.hits,
            () if status.contains("; stored") => &mut self.stored,
            () => &mut self.not_stored,
        };
        *what += 1;
        None
    }
}

/// Until it is its turn.
fn wait(turn: &Mutex<Instant>, every: Duration) {
    let mine = {
        let mut turn = lock(turn);
        let mine = (*turn).max(Instant::now());
        *turn = mine + every;
        mine
    };
    std::thread::sleep(mine.saturating_duration_since(Instant::now()));
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
