//! `GET /v1/stats`: counters as they stand, for whoever takes differences: `gateway top`, the dashboard, scripts.
//!
//! Nothing here is a rate. A reader asks twice and divides by the difference of `uptime`.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Duration};

use serde::{Deserialize, Serialize};

use super::{services, status};
use crate::{
    cache::Cache,
    daemon::Control,
    limit::Limit,
    observe::{
        Why, process,
        stats::{BOUNDS_US, CacheResult, Decided, HistogramTotal, ListenerStats, RouteStats},
    },
    runtime::Snapshot,
};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    pub name: String,
    /// "running" or "draining"
    pub state: String,
    pub generation: u64,
    /// Seconds since the process started.
    pub uptime: f64,
    pub listeners: BTreeMap<String, ListenerRow>,
    /// Of histograms' buckets, in microseconds: each has what took no longer.
    pub bounds_us: Vec<u64>,
    pub routes: Vec<RouteRow>,
    pub upstreams: BTreeMap<String, UpstreamRow>,
    pub services: Vec<ServiceRow>,
    pub caches: BTreeMap<String, CacheRow>,
    pub limits: BTreeMap<String, LimitRow>,
    pub kernel: Vec<KernelRow>,
    pub kernel_summary: String,
    /// Bans in force.
    pub bans: usize,
    /// Seconds that each worker was busy.
    pub workers: Vec<f64>,
    pub process: Process,
    /// Lines of the access log: written, dropped, failed.
    pub log_lines: [u64; 3],
    /// The last reload's failure.
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerRow {
    pub connections: u32,
    pub accepted: u64,
    pub active_requests: i64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteRow {
    pub listener: String,
    /// "-": requests that no route took.
    pub route: String,
    /// Of a route with versions; empty: of what none of them took.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    pub requests: u64,
    pub codes: BTreeMap<u16, u64>,
    /// By reason, of those that the gateway answered itself or cut.
    pub errors: BTreeMap<String, u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration: Latency,
}

/// A histogram: counts by the bounds of `observe::stats`, one more for what is above.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    pub buckets: Vec<u64>,
    pub sum_us: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamRow {
    pub duration: Latency,
    pub targets: Vec<TargetRow>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRow {
    pub addr: String,
    pub state: String,
    pub active: u32,
    pub requests: u64,
    /// Of them, answers of 500 and above.
    pub errors: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceRow {
    pub service: String,
    pub target: String,
    pub state: String,
    pub packets: u64,
    pub bytes: u64,
    pub connections: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheRow {
    /// Requests by what the cache did for them.
    pub results: BTreeMap<String, u64>,
    /// Of the memory tier: bytes in use, and how many there may be.
    pub bytes: u64,
    pub memory: u64,
    pub entries: u64,
    pub evicted: u64,
    /// Bytes of the disk tier.
    pub disk: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitRow {
    /// Requests by what was decided of them.
    pub decisions: BTreeMap<String, u64>,
    /// What it lets through now: units a second, or at once.
    pub rate: f64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelRow {
    pub interface: String,
    pub action: String,
    pub reason: String,
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_fds: u64,
}

pub fn stats(control: &Control) -> Stats {
    let snapshot = control.snapshot.load();
    let usage = process::usage();
    let lines = &control.access_log.counts;
    let services = services::all(control).into_iter().flat_map(|(name, service)| {
        service.targets.into_iter().map(move |target| ServiceRow {
            service: name.clone(),
            target: target.addr,
            state: target.state,
            packets: target.packets,
            bytes: target.bytes,
            connections: target.connections,
        })
    });
    let kernel = control.kernel.counters().into_iter().map(|row| KernelRow {
        interface: row.interface,
        action: row.action.into(),
        reason: row.reason.into(),
        packets: row.packets,
        bytes: row.bytes,
    });
    Stats {
        bounds_us: BOUNDS_US.to_vec(),
        generation: snapshot.generation,
        uptime: control.started.elapsed().as_secs_f64(),
        listeners: snapshot.listeners.iter().map(|(name, of)| (name.clone(), listener(&of.stats))).collect(),
        routes: control.registry.routes().iter().map(|((l, r, v), stats)| route(l, r, v, stats)).collect(),
        upstreams: snapshot.upstreams.iter().map(|(name, u)| (name.clone(), upstream(u))).collect(),
        services: services.collect(),
        caches: snapshot.caches.iter().map(|(name, of)| (name.clone(), cache(of))).collect(),
        limits: limits(&snapshot),
        kernel: kernel.collect(),
        bans: control.kernel.ban_count(),
        workers: control.workers.busy_times().iter().map(Duration::as_secs_f64).collect(),
        process: Process {
            pid: std::process::id(),
            cpu_seconds: usage.cpu_seconds,
            resident_bytes: usage.resident_bytes,
            open_fds: usage.open_fds,
        },
        log_lines: [&lines.written, &lines.dropped, &lines.failed].map(|n| n.load(Relaxed)),
        name: snapshot.config.gateway.name.clone(),
        state: status::running(control).into(),
        kernel_summary: control.kernel.status().summary(),
        last_error: control.state().last_error,
    }
}

fn listener(stats: &ListenerStats) -> ListenerRow {
    ListenerRow {
        connections: stats.connections(),
        accepted: stats.shards.sum(|shard| shard.accepted.get()),
        active_requests: stats.shards.iter().map(|shard| shard.active_requests.get()).sum(),
    }
}

fn cache(cache: &Cache) -> CacheRow {
    let store = cache.store();
    let results = CacheResult::ALL.map(|result| (result.word().to_owned(), cache.stats.results(result)));
    CacheRow {
        results: results.into_iter().filter(|(_, n)| *n > 0).collect(),
        bytes: store.bytes(),
        memory: store.budget(),
        entries: store.entries(),
        evicted: store.evicted(),
        disk: cache.disk().map_or(0, |disk| disk.bytes()),
    }
}

fn limits(snapshot: &Snapshot) -> BTreeMap<String, LimitRow> {
    let row = |limit: &Limit| {
        let n = |decided| limit.stats.shards.sum(|shard| shard.decisions(decided));
        let decisions = Decided::ALL.map(|(decided, word)| (word.to_owned(), n(decided)));
        LimitRow { decisions: decisions.into_iter().filter(|(_, n)| *n > 0).collect(), rate: limit.rate() }
    };
    snapshot.limits.iter().map(|(name, limit)| (name.clone(), row(limit))).collect()
}

fn route(listener: &str, route: &str, version: &str, stats: &RouteStats) -> RouteRow {
    let [listener, route, version] = [listener, route, version].map(str::to_owned);
    let mut row = RouteRow { listener, route, version, ..RouteRow::default() };
    let (mut duration, mut errors) = (HistogramTotal::default(), [0; Why::COUNT]);
    stats.each_request(|_, code, n| {
        row.requests += n;
        *row.codes.entry(code).or_default() += n;
    });
    for shard in stats.shards.iter().filter(|shard| shard.asked()) {
        shard.add_errors(&mut errors);
        duration.add(&shard.duration);
        row.bytes_in += shard.request_bytes.get();
        row.bytes_out += shard.response_bytes.get();
    }
    let found = Why::ALL.iter().zip(errors).filter(|(_, n)| *n > 0);
    row.errors = found.map(|(why, n)| (why.name().to_owned(), n)).collect();
    row.duration = duration.into();
    row
}

fn upstream(upstream: &crate::upstream::Upstream) -> UpstreamRow {
    let mut duration = HistogramTotal::default();
    upstream.stats.shards.iter().for_each(|shard| duration.add(&shard.duration));
    let targets = upstream.members.iter().map(|member| {
        let (mut requests, mut errors) = (0, 0);
        member.target.stats.each_request(|code, n| {
            requests += n;
            errors += if code >= 500 { n } else { 0 };
        });
        TargetRow {
            addr: member.target.name.to_string(),
            state: status::state(&member.target).into(),
            active: member.target.active(),
            requests,
            errors,
        }
    });
    UpstreamRow { duration: duration.into(), targets: targets.collect() }
}

impl From<HistogramTotal> for Latency {
    fn from(total: HistogramTotal) -> Self {
        Latency { buckets: total.buckets.to_vec(), sum_us: total.sum_us }
    }
}
