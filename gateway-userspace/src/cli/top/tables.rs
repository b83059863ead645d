//! What each page of `gateway top` lists.

use serde_json::Value;

use super::rates::{RouteRates, hit_share, quantile};
use super::{Look, app::Page};
use crate::{
    admin::stats::{CacheRow, Latency, LimitRow},
    cli::{ban::text, output},
};

/// A list that can be sorted by any of its columns.
pub struct Table {
    pub columns: &'static [Column],
    pub rows: Vec<Row>,
}

pub struct Column {
    pub title: &'static str,
    /// 0: what is left of the line.
    pub width: u16,
    pub number: bool,
}

#[derive(Clone)]
pub struct Row {
    /// What a key acts on: a route's name, "upstream/address", a source.
    pub key: String,
    pub cells: Vec<Cell>,
    pub tone: Tone,
}

#[derive(Clone)]
pub struct Cell {
    pub text: String,
    /// To sort by; texts sort as texts.
    pub number: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Warn,
    Bad,
}

const fn name(title: &'static str, width: u16) -> Column {
    Column { title, width, number: false }
}

const fn number(title: &'static str, width: u16) -> Column {
    Column { title, width, number: true }
}

const ROUTES: &[Column] = &[
    name("ROUTE", 0),
    number("REQ/S", 8),
    number("ERR%", 6),
    number("4XX/S", 7),
    number("P50", 7),
    number("P95", 7),
    number("P99", 7),
    number("OUT/S", 8),
];
const UPSTREAMS: &[Column] = &[
    name("UPSTREAM", 0),
    name("TARGET", 22),
    name("STATE", 9),
    number("REQ/S", 8),
    number("ERR/S", 7),
    number("ACTIVE", 7),
];
const KERNEL: &[Column] =
    &[name("ACTION", 8), name("REASON", 0), number("PACKETS/S", 11), number("PACKETS", 10)];
const SOURCES: &[Column] = &[
    name("SOURCE", 0),
    name("SERVICE", 10),
    number("DROPPED", 9),
    number("DROPS/S", 9),
    number("TOKENS", 8),
    name("BANNED", 12),
];

const CACHES: &[Column] = &[
    name("CACHE", 0),
    number("REQ/S", 8),
    number("HIT%", 7),
    number("MISS/S", 8),
    number("ENTRIES", 9),
    number("BYTES", 9),
    number("FULL%", 7),
    number("EVICTED", 9),
];
const LIMITS: &[Column] = &[
    name("LIMIT", 0),
    number("RATE", 9),
    number("ALLOW/S", 9),
    number("OVER/S", 8),
    number("DENY/S", 8),
    number("BAN/S", 7),
    number("REFUSED", 9),
];

pub fn table(page: Page, look: &Look) -> Table {
    match page {
        Page::Routes => Table { columns: ROUTES, rows: routes(look) },
        Page::Upstreams => Table { columns: UPSTREAMS, rows: upstreams(look) },
        Page::Kernel => Table { columns: KERNEL, rows: kernel(look) },
        Page::Sources => Table { columns: SOURCES, rows: sources(look) },
        Page::Caches => Table { columns: CACHES, rows: caches(look) },
        Page::Limits => Table { columns: LIMITS, rows: limits(look) },
    }
}

fn routes(look: &Look) -> Vec<Row> {
    let row = |(name, of): (&String, &RouteRates)| {
        let share = if of.requests > 0.0 { of.errors / of.requests * 100.0 } else { 0.0 };
        Row {
            key: name.clone(),
            cells: vec![
                word(if name == "-" { "- (no route)" } else { name }),
                rate(of.requests),
                self::share(share),
                rate(of.classes[2]),
                time(&of.duration, 0.5),
                time(&of.duration, 0.95),
                time(&of.duration, 0.99),
                bytes(of.bytes_out),
            ],
            tone: if share >= 5.0 {
                Tone::Bad
            } else if of.errors > 0.0 {
                Tone::Warn
            } else {
                Tone::Plain
            },
        }
    };
    look.rates.routes.iter().map(row).collect()
}

fn upstreams(look: &Look) -> Vec<Row> {
    let upstreams = look.stats.upstreams.iter().flat_map(|(upstream, of)| {
        of.targets.iter().map(move |target| {
            let rates = look.rates.targets.get(upstream).and_then(|of| of.get(&target.addr));
            let rates = rates.cloned().unwrap_or_default();
            Row {
                key: format!("{upstream}/{}", target.addr),
                cells: vec![
                    word(upstream),
                    word(&target.addr),
                    word(&target.state),
                    rate(rates.requests),
                    rate(rates.errors),
                    Cell { text: target.active.to_string(), number: Some(f64::from(target.active)) },
                ],
                tone: tone(&target.state),
            }
        })
    });
    let services = look.stats.services.iter().map(|target| Row {
        key: format!("{}/{}", target.service, target.target),
        cells: vec![
            word(&format!("{} (L4)", target.service)),
            word(&target.target),
            word(&target.state),
            word("-"),
            word("-"),
            Cell { text: output::short(target.connections), number: Some(target.connections as f64) },
        ],
        tone: tone(&target.state),
    });
    upstreams.chain(services).collect()
}

fn tone(state: &str) -> Tone {
    match state {
        "up" => Tone::Plain,
        "down" => Tone::Bad,
        _ => Tone::Warn,
    }
}

fn kernel(look: &Look) -> Vec<Row> {
    let all = look.rates.packets.iter().flat_map(|(action, by)| by.iter().map(move |(r, n)| (action, r, *n)));
    all.map(|(action, reason, per_second)| {
        let same = look.stats.kernel.iter().filter(|row| row.action == *action && row.reason == *reason);
        let total: u64 = same.map(|row| row.packets).sum();
        Row {
            key: reason.clone(),
            cells: vec![
                word(action),
                word(reason),
                rate(per_second),
                Cell { text: output::short(total), number: Some(total as f64) },
            ],
            tone: if action == "drop" && per_second > 0.0 { Tone::Warn } else { Tone::Plain },
        }
    })
    .collect()
}

fn sources(look: &Look) -> Vec<Row> {
    let banned = |source: &str| look.bans.iter().find(|ban| covers(ban, source));
    let limited = look.sources.iter().map(|row| {
        let source = text(&row["source"]);
        let ban = banned(&source);
        Row {
            cells: vec![
                word(&source),
                word(&text(&row["service"])),
                counted(&row["dropped"]),
                Cell {
                    text: format!("{:.1}", of(&row["drops_per_second"])),
                    number: row["drops_per_second"].as_f64(),
                },
                counted(&row["packets_left"]),
                word(&ban.map_or("-".into(), left)),
            ],
            tone: if ban.is_some() { Tone::Bad } else { Tone::Plain },
            key: source,
        }
    });
    let others = look.bans.iter().filter(|ban| {
        !look.sources.iter().any(|row| row["source"].as_str().is_some_and(|source| covers(ban, source)))
    });
    let others = others.map(|ban| Row {
        key: text(&ban["cidr"]),
        cells: vec![word(&text(&ban["cidr"])), word("-"), word("-"), word("-"), word("-"), word(&left(ban))],
        tone: Tone::Bad,
    });
    limited.chain(others).collect()
}

fn caches(look: &Look) -> Vec<Row> {
    let row = |(name, of): (&String, &CacheRow)| {
        let rates = look.rates.caches.get(name).cloned().unwrap_or_default();
        let now = |word: &str| rates.get(word).copied().unwrap_or(0.0);
        let full = of.bytes as f64 / of.memory.max(1) as f64 * 100.0;
        Row {
            key: name.clone(),
            cells: vec![
                word(name),
                rate(rates.values().sum()),
                share(hit_share(&rates) * 100.0),
                rate(now("miss")),
                Cell { text: output::short(of.entries), number: Some(of.entries as f64) },
                bytes(of.bytes as f64),
                share(full),
                Cell { text: output::short(of.evicted), number: Some(of.evicted as f64) },
            ],
            tone: Tone::Plain,
        }
    };
    look.stats.caches.iter().map(row).collect()
}

fn limits(look: &Look) -> Vec<Row> {
    let row = |(name, of): (&String, &LimitRow)| {
        let rates = look.rates.limits.get(name).cloned().unwrap_or_default();
        let now = |word: &str| rates.get(word).copied().unwrap_or(0.0);
        let refused = ["deny", "ban"].iter().filter_map(|word| of.decisions.get(*word)).sum::<u64>();
        Row {
            key: name.clone(),
            cells: vec![
                word(name),
                rate(of.rate),
                rate(now("allow")),
                rate(now("soft") + now("dry_run")),
                rate(now("deny")),
                rate(now("ban")),
                Cell { text: output::short(refused), number: Some(refused as f64) },
            ],
            tone: if now("deny") + now("ban") > 0.0 { Tone::Warn } else { Tone::Plain },
        }
    };
    look.stats.limits.iter().map(row).collect()
}

/// A percentage.
fn share(n: f64) -> Cell {
    Cell { text: format!("{n:.1}"), number: Some(n) }
}

/// Whether a ban is on a source.
pub fn covers(ban: &Value, source: &str) -> bool {
    let within = || -> Option<bool> {
        let ban: crate::config::units::Prefix = ban["cidr"].as_str()?.parse().ok()?;
        Some(ban.covers(&source.parse().ok()?))
    };
    within() == Some(true)
}

fn left(ban: &Value) -> String {
    ban["left_seconds"].as_u64().map_or("until lifted".into(), output::seconds)
}

fn of(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn word(text: &str) -> Cell {
    Cell { text: text.to_owned(), number: None }
}

fn counted(value: &Value) -> Cell {
    let text = value.as_u64().map_or("-".into(), output::short);
    Cell { text, number: value.as_f64() }
}

fn rate(n: f64) -> Cell {
    Cell { text: per_second(n), number: Some(n) }
}

/// Three digits or so.
pub fn per_second(n: f64) -> String {
    match n {
        n if n >= 10_000.0 => output::short(n as u64),
        n if n >= 100.0 => format!("{n:.0}"),
        n if n > 0.0 => format!("{n:.1}"),
        _ => "0".into(),
    }
}

fn bytes(n: f64) -> Cell {
    Cell { text: size(n), number: Some(n) }
}

/// `12.3M`, in powers of ten.
pub fn size(n: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(unit, _)| n >= *unit) {
        Some((unit, suffix)) => format!("{:.1}{suffix}", n / unit),
        None => format!("{n:.0}"),
    }
}

fn time(latency: &Latency, share: f64) -> Cell {
    let us = quantile(latency, share);
    Cell { text: duration(us), number: Some(us.unwrap_or(-1.0)) }
}

/// `850us`, `12.3ms`, `2.5s`.
pub fn duration(us: Option<f64>) -> String {
    match us {
        None => "-".into(),
        Some(us) if us < 1000.0 => format!("{us:.0}us"),
        Some(us) if us < 1_000_000.0 => format!("{:.1}ms", us / 1000.0),
        Some(us) => format!("{:.1}s", us / 1_000_000.0),
    }
}

impl Table {
    /// Keeps what has `filter` in it and sorts: numbers from the largest, texts from the first; `reverse` the other way.
    pub fn arrange(&mut self, filter: &str, column: usize, reverse: bool) {
        let filter = filter.to_lowercase();
        self.rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter)));
        let column = column.min(self.columns.len() - 1);
        self.rows.sort_by(|a, b| {
            let (a, b) = (&a.cells[column], &b.cells[column]);
            let order = match (a.number, b.number) {
                (Some(a), Some(b)) => b.total_cmp(&a),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => a.text.cmp(&b.text),
            };
            if reverse { order.reverse() } else { order }
        });
    }
}
