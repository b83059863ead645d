//! Counters and histograms, one shard a worker.
//!
//! A shard has one writer, its worker, so an increment is a relaxed load and store: no locked instruction, no shared
//! cache line. Readers (a scrape, `status`) sum the shards. Series are named by config (listener, route, upstream,
//! target) and live in a [`Registry`] that outlasts snapshots, so counters survive a reload.

mod carry;
mod exemplar;

pub use carry::Totals;
pub use exemplar::{Exemplar, Found, later};

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use http::{Method, StatusCode};
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use super::{Why, latency::Fine};
use crate::{
    policy::compare::Compared,
    proxy_protocol::{Header, Malformed, Refused, Says},
    version::usage::Usage,
};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Only ever called by the shard's own worker.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One for each of a list; arrays of more than 32 have no default.
#[derive(Debug)]
struct Counts<const N: usize>([Count; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Counts(std::array::from_fn(|_| Count::default()))
    }
}

impl<const N: usize> std::ops::Deref for Counts<N> {
    type Target = [Count; N];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A value that goes up and down, with one writer.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// Only ever called by the shard's own worker.
    #[inline]
    pub fn add(&self, step: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(step), Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One `T` a worker, and one for what earlier processes counted; each on cache lines of its own.
#[derive(Debug)]
pub struct Sharded<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Sharded<T> {
    fn new(workers: usize) -> Self {
        Sharded((0..=workers.max(1)).map(|_| Padded::default()).collect())
    }

    /// The control thread's: what was counted before the process was upgraded.
    fn carried(&self) -> &T {
        &self.0[self.0.len() - 1].0
    }

    /// The shard of `worker`; one past the end shares the last one (it cannot happen: the count is fixed at start).
    #[inline]
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker.min(self.0.len() - 1)].0
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    pub fn sum(&self, f: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(f).sum()
    }
}

/// Upper bounds in microseconds; one more bucket takes the rest.
pub const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// With the one for what is above all bounds.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

fn bucket_of(us: u64) -> usize {
    BOUNDS_US.partition_point(|bound| *bound < us)
}

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    sum_us: Count,
}

impl Histogram {
    #[inline]
    pub fn record(&self, us: u64) {
        self.buckets[bucket_of(us)].add(1);
        self.sum_us.add(us);
    }
}

/// The sum of several shards' histograms.
#[derive(Debug, Default, Clone)]
pub struct HistogramTotal {
    pub buckets: [u64; BUCKETS],
    pub sum_us: u64,
}

impl HistogramTotal {
    pub fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.get();
        }
        self.sum_us += histogram.sum_us.get();
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Methods with a label of their own; anything else is "other".
pub const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "other"];

/// The index of "other".
pub const OTHER_METHOD: usize = METHODS.len() - 1;

pub fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(OTHER_METHOD)
}

const CODE_SLOTS: usize = 64;

/// Status codes with a counter of their own: the registered ones and 499. Others count under their class (x99).
const CODES: [u16; CODE_SLOTS - 4] = [
    101, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401,
    402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424,
    425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

const OTHER_CODES: [u16; 4] = [299, 399, 498, 599];

const SLOT_OF_CODE: [u8; 600] = {
    let mut slots = [0u8; 600];
    let mut code = 0;
    while code < 600 {
        slots[code] = (CODES.len()
            + if code < 300 {
                0
            } else if code < 400 {
                1
            } else if code < 500 {
                2
            } else {
                3
            }) as u8;
        code += 1;
    }
    let mut i = 0;
    while i < CODES.len() {
        slots[CODES[i] as usize] = i as u8;
        i += 1;
    }
    slots
};

/// Counts by status code.
#[derive(Debug)]
pub struct Codes([Count; CODE_SLOTS]);

impl Default for Codes {
    fn default() -> Self {
        Codes(std::array::from_fn(|_| Count::default()))
    }
}

impl Codes {
    #[inline]
    pub fn count(&self, status: StatusCode) {
        let slot = SLOT_OF_CODE[usize::from(status.as_u16()).min(599)];
        self.0[usize::from(slot)].add(1);
    }

    fn each(&self, mut f: impl FnMut(u16, u64)) {
        for (slot, count) in self.0.iter().enumerate() {
            let n = count.get();
            if n > 0 {
                f(CODES.get(slot).copied().unwrap_or_else(|| OTHER_CODES[slot - CODES.len()]), n);
            }
        }
    }
}

/// What one worker counted for one listener and route.
#[derive(Debug, Default)]
pub struct RouteShard {
    /// By method; a table is made when its method is first seen.
    codes: [OnceLock<Box<Codes>>; METHODS.len()],
    pub duration: Histogram,
    /// Of `duration`; made with the first request whose trace is told.
    exemplars: OnceLock<Box<exemplar::Slots>>,
    pub overhead: Histogram,
    pub request_bytes: Count,
    pub response_bytes: Count,
    errors: Counts<{ Why::COUNT }>,
}

impl RouteShard {
    pub fn count(&self, method: usize, status: StatusCode) {
        self.codes[method].get_or_init(Box::default).count(status);
    }

    /// An example of a request that took so long. Only by the shard's own worker.
    #[cold]
    pub fn exemplify(&self, exemplar: Exemplar) {
        self.exemplars.get_or_init(Box::default).put(bucket_of(exemplar.us), exemplar);
    }

    /// By the buckets of `duration`.
    pub fn exemplars(&self) -> Found {
        self.exemplars.get().map(|slots| slots.all()).unwrap_or_default()
    }

    pub fn error(&self, why: Why) {
        self.errors.0[why.index()].add(1);
    }

    pub fn errors(&self, why: Why) -> u64 {
        self.errors.0[why.index()].get()
    }
}

/// The series of one listener and route.
#[derive(Debug)]
pub struct RouteStats {
    pub shards: Sharded<RouteShard>,
}

impl RouteStats {
    /// Requests by (method, code), over all workers.
    pub fn requests(&self) -> BTreeMap<(&'static str, u16), u64> {
        let mut totals = BTreeMap::new();
        for shard in self.shards.iter() {
            for (method, codes) in METHODS.iter().zip(&shard.codes) {
                if let Some(codes) = codes.get() {
                    codes.each(|code, n| *totals.entry((*method, code)).or_insert(0) += n);
                }
            }
        }
        totals
    }
}

/// What a limit decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    Allow,
    /// Over it, and let through.
    Soft,
    Deny,
    /// It would have been refused.
    Dry,
    /// Refused, and its source banned.
    Ban,
}

impl Decided {
    pub const ALL: [(Decided, &'static str); 5] = [
        (Decided::Allow, "allow"),
        (Decided::Soft, "soft"),
        (Decided::Deny, "deny"),
        (Decided::Dry, "dry_run"),
        (Decided::Ban, "ban"),
    ];

    pub fn word(self) -> &'static str {
        Decided::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, word)| word)
    }
}

/// What one worker counted for one limit.
#[derive(Debug, Default)]
pub struct LimitShard {
    decisions: [Count; Decided::ALL.len()],
    /// Units asked for within even shares.
    within: Count,
}

impl LimitShard {
    pub fn count(&self, decided: Decided) {
        self.decisions[decided as usize].add(1);
    }

    pub fn within(&self, units: u64) {
        self.within.add(units);
    }

    pub fn asked_within(&self) -> u64 {
        self.within.get()
    }

    pub fn decisions(&self, decided: Decided) -> u64 {
        self.decisions[decided as usize].get()
    }
}

/// The series of one limit.
#[derive(Debug)]
pub struct LimitStats {
    pub shards: Sharded<LimitShard>,
}

/// What one worker counted for one listener.
#[derive(Debug, Default)]
pub struct ListenerShard {
    pub accepted: Count,
    pub over_limit: Count,
    pub active_requests: Level,
    /// Connections that came to speak it.
    pub http1: Count,
    pub http2: Count,
    handshakes: [[Count; Handshake::ALL.len()]; TlsVersion::ALL.len()],
    proxy_headers: [Count; ProxyHeader::ALL.len()],
    /// Connections by why they were cut or refused as such.
    errors: Counts<{ Why::COUNT }>,
}

impl ListenerShard {
    pub fn handshake(&self, version: TlsVersion, result: Handshake) {
        self.handshakes[version as usize][result as usize].add(1);
    }

    pub fn handshakes(&self, version: TlsVersion, result: Handshake) -> u64 {
        self.handshakes[version as usize][result as usize].get()
    }

    pub fn error(&self, why: Why) {
        self.errors.0[why.index()].add(1);
    }

    pub fn errors(&self, why: Why) -> u64 {
        self.errors.0[why.index()].get()
    }

    pub fn proxy_header(&self, result: ProxyHeader) {
        self.proxy_headers[result as usize].add(1);
    }

    pub fn proxy_headers(&self, result: ProxyHeader) -> u64 {
        self.proxy_headers[result as usize].get()
    }
}

/// What became of the PROXY header that a connection had to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    Ok,
    /// The proxy's own connection.
    Local,
    Absent,
    Malformed,
    Timeout,
    /// The connection ended before it was whole.
    Gone,
}

impl ProxyHeader {
    pub const ALL: [(ProxyHeader, &'static str); 6] = [
        (ProxyHeader::Ok, "ok"),
        (ProxyHeader::Local, "local"),
        (ProxyHeader::Absent, "absent"),
        (ProxyHeader::Malformed, "malformed"),
        (ProxyHeader::Timeout, "timeout"),
        (ProxyHeader::Gone, "gone"),
    ];

    /// Of one that came to something in time.
    pub fn of(read: &Result<Header, Refused>) -> ProxyHeader {
        match read {
            Ok(Header { says: Says::Local, .. }) => ProxyHeader::Local,
            Ok(_) => ProxyHeader::Ok,
            Err(Refused::Malformed(Malformed::Absent)) => ProxyHeader::Absent,
            Err(Refused::Malformed(_)) => ProxyHeader::Malformed,
            Err(Refused::Ended | Refused::Io(_)) => ProxyHeader::Gone,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
    /// The handshake failed.
    Unknown,
}

impl TlsVersion {
    pub const ALL: [TlsVersion; 3] = [TlsVersion::V12, TlsVersion::V13, TlsVersion::Unknown];

    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
            TlsVersion::Unknown => "-",
        }
    }

    /// Of a handshake that is done.
    pub fn of(connection: &ServerConnection) -> Self {
        match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V12,
            _ => TlsVersion::V13,
        }
    }
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    Ok,
    Resumed,
    Failed,
    Timeout,
    /// Its source had made too many.
    Limited,
}

impl Handshake {
    pub const ALL: [(Handshake, &'static str); 5] = [
        (Handshake::Ok, "ok"),
        (Handshake::Resumed, "resumed"),
        (Handshake::Failed, "failed"),
        (Handshake::Timeout, "timeout"),
        (Handshake::Limited, "limited"),
    ];

    /// Of one that is done.
    pub fn of(connection: &ServerConnection) -> Self {
        match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Ok,
        }
    }
}

#[derive(Debug)]
pub struct ListenerStats {
    pub shards: Sharded<ListenerShard>,
    /// Open connections over all workers: shared, because `max.connections` bounds it; touched once a connection.
    connections: AtomicU32,
}

impl ListenerStats {
    /// Open connections.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Takes a place among `most` connections, for a worker; [`ListenerStats::leave`] gives it back. Who gets none is
    /// counted.
    pub fn admit(&self, most: u32, worker: usize) -> bool {
        if self.connections.fetch_add(1, Relaxed) < most {
            return true;
        }
        self.leave();
        self.shards.of(worker).over_limit.add(1);
        false
    }

    /// One that could not even be taken.
    pub fn turned_away(&self, worker: usize) {
        self.shards.of(worker).over_limit.add(1);
    }

    pub fn leave(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// What one worker counted for one target.
#[derive(Debug, Default)]
pub struct TargetShard {
    codes: Codes,
    pub idle: Level,
    pub busy: Level,
}

impl TargetShard {
    #[inline]
    pub fn count(&self, status: StatusCode) {
        self.codes.count(status);
    }
}

/// The series of one target.
#[derive(Debug)]
pub struct TargetStats {
    pub shards: Sharded<TargetShard>,
    ejections: AtomicU64,
}

impl TargetStats {
    /// Its requests failed so often that it was taken out. Rare, and from any thread.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    fn carry_ejections(&self, n: u64) {
        self.ejections.fetch_add(n, Relaxed);
    }

    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    pub fn requests(&self) -> BTreeMap<u16, u64> {
        let mut totals = BTreeMap::new();
        for shard in self.shards.iter() {
            shard.codes.each(|code, n| *totals.entry(code).or_insert(0) += n);
        }
        totals
    }
}

/// How an attempt to connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connect {
    Ok,
    Refused,
    Timeout,
    /// Its certificate or something else about TLS.
    Tls,
    /// The gateway has no descriptors or ports left.
    Ours,
}

impl Connect {
    pub const ALL: [(Connect, &'static str); 5] = [
        (Connect::Ok, "ok"),
        (Connect::Refused, "refused"),
        (Connect::Timeout, "timeout"),
        (Connect::Tls, "tls"),
        (Connect::Ours, "no_resources"),
    ];
}

/// Why a request was tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Connect,
    /// A kept connection turned out to be closed.
    Stale,
    Reset,
    Timeout,
    S500,
    S502,
    S503,
    S504,
    /// It was to be, and the budget was used up.
    OverBudget,
}

impl Retry {
    /// All that are retries.
    pub const ALL: [(Retry, &'static str); 8] = [
        (Retry::Connect, "connect"),
        (Retry::Stale, "stale"),
        (Retry::Reset, "reset"),
        (Retry::Timeout, "timeout"),
        (Retry::S500, "500"),
        (Retry::S502, "502"),
        (Retry::S503, "503"),
        (Retry::S504, "504"),
    ];
}

/// What one worker counted for one upstream.
#[derive(Debug, Default)]
pub struct UpstreamShard {
    pub duration: Histogram,
    /// Once somebody steers by it.
    fine: OnceLock<Fine>,
    connects: [Count; Connect::ALL.len()],
    retries: [Count; Retry::ALL.len() + 1],
    /// Requests that its fallback got, by the reason for it.
    fallbacks: [Count; FALLBACKS.len()],
}

/// Why an upstream may not be asked.
pub const FALLBACKS: [Why; 4] =
    [Why::BreakerOpen, Why::NoHealthyTarget, Why::UpstreamConnectRefused, Why::UpstreamConnectTimeout];

impl UpstreamShard {
    /// It took so long until an answer began.
    #[inline]
    pub fn answered(&self, us: u64) {
        self.duration.record(us);
        if let Some(fine) = self.fine.get() {
            fine.record(us);
        }
    }

    /// Finely, from now on.
    pub fn latency(&self) -> &Fine {
        self.fine.get_or_init(Fine::default)
    }

    pub fn connect(&self, result: Connect) {
        self.connects[result as usize].add(1);
    }

    pub fn connects(&self, result: Connect) -> u64 {
        self.connects[result as usize].get()
    }

    pub fn retry(&self, reason: Retry) {
        self.retries[reason as usize].add(1);
    }

    pub fn retries(&self, reason: Retry) -> u64 {
        self.retries[reason as usize].get()
    }

    pub fn fell_back(&self, why: Why) {
        let counts = FALLBACKS.iter().zip(&self.fallbacks);
        counts.filter(|(of, _)| **of == why).for_each(|(_, count)| count.add(1));
    }

    /// By the reasons in [`FALLBACKS`].
    pub fn fallbacks(&self, reason: usize) -> u64 {
        self.fallbacks.get(reason).map_or(0, Count::get)
    }
}

#[derive(Debug)]
pub struct UpstreamStats {
    pub shards: Sharded<UpstreamShard>,
}

/// What a cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    Hit,
    Miss,
    /// Answered with what was no longer fresh.
    Stale,
    /// The upstream said that what was stored still holds.
    Revalidated,
    /// Another request's fetch was waited for.
    Coalesced,
    /// The cache had no part in it.
    Bypass,
}

impl CacheResult {
    pub const ALL: [CacheResult; 6] = [
        CacheResult::Hit,
        CacheResult::Miss,
        CacheResult::Stale,
        CacheResult::Revalidated,
        CacheResult::Coalesced,
        CacheResult::Bypass,
    ];

    pub fn word(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Miss => "miss",
            CacheResult::Stale => "stale",
            CacheResult::Revalidated => "revalidated",
            CacheResult::Coalesced => "coalesced",
            CacheResult::Bypass => "bypass",
        }
    }
}

/// What one worker counted for one cache.
#[derive(Debug, Default)]
pub struct CacheShard {
    results: [Count; CacheResult::ALL.len()],
}

/// The series of one cache.
#[derive(Debug)]
pub struct CacheStats {
    shards: Sharded<CacheShard>,
}

impl CacheStats {
    #[inline]
    pub fn count(&self, worker: usize, result: CacheResult) {
        self.shards.of(worker).results[result as usize].add(1);
    }

    pub fn results(&self, result: CacheResult) -> u64 {
        self.shards.sum(|shard| shard.results[result as usize].get())
    }
}

/// What became of an attempt to tell who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthResult {
    Ok,
    /// There are no credentials.
    Missing,
    /// They are none, or there more than once.
    Malformed,
    /// Nobody's.
    Unknown,
    Expired,
    /// Not good yet.
    Early,
    /// Nobody who is believed signed it.
    Signature,
    /// Not by, for, or of whom it has to be.
    Claims,
    /// It was there before.
    Replayed,
    /// Who is asked elsewhere says no.
    Refused,
    /// It cannot be told: what is needed for that is not there.
    Unavailable,
}

impl AuthResult {
    pub const ALL: [(AuthResult, &'static str); 11] = [
        (AuthResult::Ok, "ok"),
        (AuthResult::Missing, "missing"),
        (AuthResult::Malformed, "malformed"),
        (AuthResult::Unknown, "unknown"),
        (AuthResult::Expired, "expired"),
        (AuthResult::Early, "early"),
        (AuthResult::Signature, "signature"),
        (AuthResult::Claims, "claims"),
        (AuthResult::Replayed, "replayed"),
        (AuthResult::Refused, "refused"),
        (AuthResult::Unavailable, "unavailable"),
    ];
}

/// What one worker counted for one way to tell who calls.
#[derive(Debug, Default)]
pub struct AuthShard([Count; AuthResult::ALL.len()]);

/// The series of one `[auth.NAME]`.
#[derive(Debug)]
pub struct AuthStats {
    pub shards: Sharded<AuthShard>,
}

impl AuthStats {
    /// Only by this worker.
    pub fn count(&self, worker: usize, result: AuthResult) {
        self.shards.of(worker).0[result as usize].add(1);
    }

    pub fn results(&self, result: AuthResult) -> u64 {
        self.shards.sum(|shard| shard.0[result as usize].get())
    }
}

/// The route label of requests that no route took.
pub const NO_ROUTE: &str = "-";

/// Every series of the process. A series once made is kept: names come from configs only, so it stays bounded.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    routes: Mutex<BTreeMap<(String, String, String), Arc<RouteStats>>>,
    compared: Mutex<BTreeMap<(String, String), Arc<Compared>>>,
    usages: Mutex<BTreeMap<(String, String), Arc<Usage>>>,
    listeners: Mutex<BTreeMap<String, Arc<ListenerStats>>>,
    upstreams: Mutex<BTreeMap<String, Arc<UpstreamStats>>>,
    targets: Mutex<BTreeMap<(String, SocketAddr), Arc<TargetStats>>>,
    caches: Mutex<BTreeMap<String, Arc<CacheStats>>>,
    limits: Mutex<BTreeMap<String, Arc<LimitStats>>>,
    auths: Mutex<BTreeMap<String, Arc<AuthStats>>>,
}

type Series<K, V> = Mutex<BTreeMap<K, Arc<V>>>;

fn series<K: Ord, V>(map: &Series<K, V>, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.entry(key).or_insert_with(|| Arc::new(make())).clone()
}

fn all<K: Ord + Clone, V>(map: &Series<K, V>) -> Vec<(K, Arc<V>)> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Registry {
    pub fn new(workers: usize) -> Self {
        Registry {
            workers,
            routes: Mutex::default(),
            compared: Mutex::default(),
            usages: Mutex::default(),
            listeners: Mutex::default(),
            upstreams: Mutex::default(),
            targets: Mutex::default(),
            caches: Mutex::default(),
            limits: Mutex::default(),
            auths: Mutex::default(),
        }
    }

    pub fn route(&self, listener: &str, route: &str) -> Arc<RouteStats> {
        self.version(listener, route, "")
    }

    /// Of one version of a route; "": of what has none.
    pub fn version(&self, listener: &str, route: &str, version: &str) -> Arc<RouteStats> {
        let key = (listener.to_owned(), route.to_owned(), version.to_owned());
        series(&self.routes, key, || RouteStats { shards: Sharded::new(self.workers) })
    }

    /// Answers of a shadow's; `version` is "" for those of a route without versions.
    pub fn compared(&self, route: &str, version: &str) -> Arc<Compared> {
        series(&self.compared, (route.to_owned(), version.to_owned()), Compared::default)
    }

    pub fn all_compared(&self) -> Vec<((String, String), Arc<Compared>)> {
        all(&self.compared)
    }

    pub fn usages(&self) -> Vec<((String, String), Arc<Usage>)> {
        all(&self.usages)
    }

    pub fn usage(&self, route: &str, version: &str) -> Arc<Usage> {
        series(&self.usages, (route.to_owned(), version.to_owned()), || Usage::new(self.workers))
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerStats> {
        series(&self.listeners, name.to_owned(), || ListenerStats {
            shards: Sharded::new(self.workers),
            connections: AtomicU32::new(0),
        })
    }

    pub fn upstream(&self, name: &str) -> Arc<UpstreamStats> {
        series(&self.upstreams, name.to_owned(), || UpstreamStats { shards: Sharded::new(self.workers) })
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    pub fn limit(&self, name: &str) -> Arc<LimitStats> {
        series(&self.limits, name.to_owned(), || LimitStats { shards: Sharded::new(self.workers) })
    }

    pub fn target(&self, upstream: &str, addr: SocketAddr) -> Arc<TargetStats> {
        series(&self.targets, (upstream.to_owned(), addr), || TargetStats {
            shards: Sharded::new(self.workers),
            ejections: AtomicU64::new(0),
        })
    }

    pub fn cache(&self, name: &str) -> Arc<CacheStats> {
        series(&self.caches, name.to_owned(), || CacheStats { shards: Sharded::new(self.workers) })
    }

    pub fn caches(&self) -> Vec<(String, Arc<CacheStats>)> {
        all(&self.caches)
    }

    pub fn auth(&self, name: &str) -> Arc<AuthStats> {
        series(&self.auths, name.to_owned(), || AuthStats { shards: Sharded::new(self.workers) })
    }

    pub fn auths(&self) -> Vec<(String, Arc<AuthStats>)> {
        all(&self.auths)
    }

    /// Of an upstream whose targets come and go: keeps the series of these only.
    pub fn forget_targets(&self, upstream: &str, keep: &[SocketAddr]) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|(of, addr), _| of != upstream || keep.contains(addr));
    }

    /// By listener, route and version.
    pub fn routes(&self) -> Vec<((String, String, String), Arc<RouteStats>)> {
        all(&self.routes)
    }

    pub fn listeners(&self) -> Vec<(String, Arc<ListenerStats>)> {
        all(&self.listeners)
    }

    pub fn upstreams(&self) -> Vec<(String, Arc<UpstreamStats>)> {
        all(&self.upstreams)
    }

    pub fn limits(&self) -> Vec<(String, Arc<LimitStats>)> {
        all(&self.limits)
    }

    pub fn targets(&self) -> Vec<((String, SocketAddr), Arc<TargetStats>)> {
        all(&self.targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_workers_add_up() {
        let registry = Registry::new(2);
        let route = registry.route("web", "all");
        route.shards.of(0).count(method_index(&Method::GET), StatusCode::OK);
        route.shards.of(1).count(method_index(&Method::GET), StatusCode::OK);
        let purge = Method::from_bytes(b"PURGE").unwrap();
        route.shards.of(1).count(method_index(&purge), StatusCode::from_u16(599).unwrap());
        assert_eq!(
            registry.route("web", "all").requests(),
            BTreeMap::from([(("GET", 200), 2), (("other", 599), 1)])
        );
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 10_000_001] {
            histogram.record(us);
        }
        let mut total = HistogramTotal::default();
        total.add(&histogram);
        assert_eq!(total.buckets[0], 2);
        assert_eq!(total.buckets[1], 1);
        assert_eq!(total.buckets[BOUNDS_US.len()], 1);
        assert_eq!(total.count(), 4);
        assert_eq!(total.sum_us, 10_000_202);
    }

    #[test]
    fn unknown_codes_count_under_their_class() {
        let codes = Codes::default();
        codes.count(StatusCode::from_u16(299).unwrap());
        codes.count(StatusCode::from_u16(987).unwrap());
        let mut seen = Vec::new();
        codes.each(|code, n| seen.push((code, n)));
        assert_eq!(seen, [(299, 1), (599, 1)]);
    }
}
