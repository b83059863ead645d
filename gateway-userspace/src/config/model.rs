//! The config as the rest of the program sees it: typed, checked, with every default filled in.
//!
//! [`crate::config::load`] is the only way to make one, so a value of these types is already valid:
//! names resolve, numbers are in range, no two routes tie.

mod auth;
mod cache;
mod limit;
mod route;
mod seeing;
mod splice;
mod tls;
mod version;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use auth::{
    Allow, Auth, AuthKind, CertMark, Consumer, ConsumerKey, ConsumerSecret, Demand, ForwardAuth, JwtAuth,
    JwtKeys, KeyHash, Right, RouteAuth, Whence,
};
pub use cache::{Cache, CacheDisk, ClientCache, KeyPart};
pub(crate) use limit::check_store;
pub use limit::{
    Algorithm, BanRule, CostOf, Headers, KeyPart as LimitKeyPart, Limit, Measure, OnStoreError, Overrun,
    Penalty, Shared, StoreUrl, Unit,
};
pub use route::{
    Coding, Compare, Compress, Cors, Destination, FieldRewrite, Guard, HostPattern, JsonLimits, JsonMap,
    JsonSet, Matcher, Mirror, MirrorVersion, Origin, PathPattern, PathRewrite, Pattern, Predicates, Redirect,
    Respond, Rewrite, Route, RouteTimeout, SecurityHeaders, Segment, Shape, Split, Sticky,
};

pub use seeing::{
    AccessLog, AlertKind, AlertRule, Kafka, LogKeep, LogRotate, LogTarget, NotifyFormat, NotifyRule, Redact,
    Tracing, Webhook,
};
pub use splice::{Splice, SpliceTimeout, among_listeners};

pub use super::balancing::{
    Breaker, Eject, Fallback, FallbackOn, HashOn, Retry, RetryOn, RouteRetry, StickyCookie,
};
use super::units::{At, Lookup, Prefix, Prefixes, Quota, Rate};
use crate::proxy_protocol::Version;

pub use tls::{Acme, AcmeChallenge, Alpn, Cert, ClientAuth, Hsts, Secret, Tls, TlsVersion, UpstreamTls};
pub use version::{
    Afterwards, ApiVersion, Brownout, Canary, Deprecated, Strip, Sunset, VersionSource, Versions,
};

/// The whole config.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub gateway: Gateway,
    pub kernel: Kernel,
    pub listeners: BTreeMap<String, Listener>,
    pub certs: BTreeMap<String, Cert>,
    pub acme: Option<Acme>,
    pub upstreams: BTreeMap<String, Upstream>,
    pub routes: BTreeMap<String, Route>,
    pub services: BTreeMap<String, Service>,
    pub caches: BTreeMap<String, Cache>,
    pub limits: BTreeMap<String, Limit>,
    pub penalty: Option<Penalty>,
    pub shared: Option<Shared>,
    pub auths: BTreeMap<String, Auth>,
    pub consumers: BTreeMap<String, Consumer>,
    pub access_log: AccessLog,
    /// `None`: requests are part of no trace.
    pub tracing: Option<Tracing>,
    pub alerts: BTreeMap<String, AlertRule>,
    pub notify: BTreeMap<String, NotifyRule>,
    pub metrics: Metrics,
    pub admin: Admin,
    pub state: State,
    /// Every file that was read: the config itself, its includes, block lists. Watched by `run --watch`.
    pub files: Vec<PathBuf>,
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Default: the host name.
    pub name: String,
    /// `None` is "auto": one worker a core. Restart needed.
    pub workers: Option<u16>,
    /// How long open connections may finish after stop. Default 30 s.
    pub drain: Duration,
    pub log: Log,
    /// Targets of the same zone are preferred.
    pub zone: Option<String>,
    /// Empty: those of /etc/resolv.conf.
    pub resolver: Vec<SocketAddr>,
    /// Keys of limits at once. Default 1 Mi, a power of two. Restart needed.
    pub limit_keys: u32,
    /// Where what is used of them is kept. Restart needed.
    pub limit_state: LimitState,
}

/// `[gateway] limit_state`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitState {
    /// Beside the admin socket.
    Default,
    File(PathBuf),
    Off,
}

/// `[gateway] log = { level, format }`: the process log, on stderr.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// error | warn | info | debug | trace. Default info.
    pub level: String,
    /// auto | text | json. Default auto.
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// `[kernel]`: the kernel half.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// Where the XDP program is attached. Empty: XDP is off (steering may still be on).
    pub interfaces: Vec<String>,
    /// Default auto. Restart needed.
    pub mode: KernelMode,
    /// Default ip-hash.
    pub steer: Steer,
    /// Refuse to start (exit 3) when the kernel half cannot run. Default false.
    pub required: bool,
    /// Where maps and links are pinned. Default /sys/fs/bpf/gateway. Restart needed.
    pub pin: PathBuf,
    pub limit: KernelLimit,
    /// `[kernel.class.NAME]`: other limits for the sources of some prefixes. The longest prefix wins.
    pub classes: BTreeMap<String, KernelClass>,
    pub block: KernelBlock,
    /// Connections that L4 services can have at once. Default 262 144; 1024..=16 M, rounded up to a power of two.
    /// Restart needed.
    pub flows: u32,
    /// `syn_cookies = { above = "10k/s" }`: from so many SYNs a second on, clients must prove that they are where they
    /// say. `None` (written as "off"): never. Default off.
    pub syn_cookies: Option<Rate>,
    /// `adapt = { cpu, p99, errors, queue, from }`: the limits follow the load. `None` (written as "off"): they do not.
    pub adapt: Option<Adapt>,
}

/// `kernel.adapt`: what is to be kept, over all upstreams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adapt {
    /// A share, above 0 and at most 1, as are the others.
    pub cpu: Option<f64>,
    pub p99: Option<Duration>,
    pub errors: Option<f64>,
    pub queue: Option<u64>,
    pub from: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelMode {
    /// Native, else generic, else off; which one and why is reported.
    Auto,
    /// Native or a start error.
    Native,
    /// Generic or a start error.
    Generic,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// One worker a client address, chosen by `sk_lookup`.
    IpHash,
    /// The kernel's own SO_REUSEPORT spreading.
    Off,
}

/// `[kernel.limit]`: per source, IPv4 /32 or IPv6 prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelLimit {
    pub packets: Option<Bucket>,
    /// TCP SYNs.
    pub new: Option<Bucket>,
    /// Bytes of frames.
    pub bytes: Option<Bucket>,
    /// What happens to packets over the limit. Default hard.
    pub mode: LimitMode,
    /// Never limited, never banned.
    pub exempt: Vec<Prefix>,
    /// Bits of an IPv6 source that share one bucket, 32..=64. Default 64.
    pub ipv6_prefix: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitMode {
    /// Dropped.
    Hard,
    /// Passed and counted while there is no overload, dropped while there is.
    Soft,
}

/// `[kernel.class.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct KernelClass {
    pub at: At,
    /// At least one. No prefix is in two classes.
    pub from: Vec<Prefix>,
    /// What is left out is not limited for this class.
    pub packets: Option<Bucket>,
    pub new: Option<Bucket>,
    pub bytes: Option<Bucket>,
    /// Default hard.
    pub mode: LimitMode,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    pub rate: Rate,
    /// Tokens, at least 1. Default: one second of `rate`, at least 1, of bytes at least 64 KiB.
    pub burst: u64,
}

/// `[kernel.block]`
#[derive(Debug, Clone, PartialEq)]
pub struct KernelBlock {
    /// Those of `prefixes` that stand in the config itself. Sorted.
    pub cidrs: Vec<Prefix>,
    /// From `cidrs` and every line of `files`, without duplicates.
    pub prefixes: Vec<Prefix>,
    /// Holes in `prefixes`: the longest prefix wins. Still limited.
    pub except: Vec<Prefix>,
    /// Absolute: as written, they are relative to the config file. Watched for changes.
    pub files: Vec<PathBuf>,
}

/// `[listener.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub at: At,
    /// `":80"` becomes `[::]:80`, dual stack (`Bind::Any`).
    pub bind: Bind,
    pub max: ListenerMax,
    pub timeout: ListenerTimeout,
    /// At least one of the two.
    pub http1: bool,
    pub http2: bool,
    /// `None`: in clear.
    pub tls: Option<Tls>,
    /// `redirect = "https"`: every request is sent to this port.
    pub redirect: Option<u16>,
    pub hsts: Option<Hsts>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub real_ip: Option<RealIp>,
}

/// `proxy_protocol = { from }`
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyProtocol {
    /// Who sends a header, and must. Not empty.
    pub from: Prefixes,
}

/// `real_ip = { from, header }`
#[derive(Debug, Clone, PartialEq)]
pub struct RealIp {
    /// Who is believed. Not empty.
    pub from: Prefixes,
    pub header: RealIpHeader,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RealIpHeader {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
    /// One that has a single address. Lower case.
    Single(http::HeaderName),
}

impl RealIpHeader {
    /// As the config writes it.
    pub fn word(&self) -> &str {
        match self {
            RealIpHeader::XForwardedFor => "x-forwarded-for",
            RealIpHeader::Forwarded => "forwarded",
            RealIpHeader::Single(name) => name.as_str(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// `":80"`: every IPv4 and IPv6 address of the host.
    Any(u16),
    Addr(SocketAddr),
}

/// `max = { connections, header, body }`
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerMax {
    /// Open client connections over all workers. Default 100 000.
    pub connections: u32,
    /// … of one source. Default: no limit.
    pub connections_per_source: Option<u32>,
    /// TLS handshakes of one source. Default: no limit.
    pub handshakes_per_source: Option<Quota>,
    /// Bytes of a request's head. Default 32 KiB; 8 KiB..=1 MiB.
    pub header: usize,
    /// Bytes of a request's body. `None` (written as "unlimited"): no limit. Default 10 MiB.
    pub body: Option<u64>,
    /// Concurrent streams of an HTTP/2 connection. Default 128.
    pub streams: u32,
}

/// `timeout = { header, idle, body }`
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTimeout {
    /// From the first byte of a request to the end of its head. Default 10 s.
    pub header: Duration,
    /// Between two requests on a connection. Default 75 s.
    pub idle: Duration,
    /// Between two reads of a request body, and two writes of a response. Default 30 s.
    pub body: Duration,
}

/// `[upstream.NAME]`, or an anonymous one made from a route's `to = ["ip:port", …]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub at: At,
    /// At least one, if there are neither `names` nor `dns`.
    pub targets: Vec<Target>,
    /// Names among the targets: each of their addresses is one.
    pub names: Vec<Named>,
    /// In place of both.
    pub dns: Option<Lookup>,
    pub balance: Balance,
    /// Bounded load (Mirrokni et al. 2018) for ip-hash and maglev: no target gets more than this factor times the
    /// mean of active requests. Above 1. Default: off.
    pub bounded_load: Option<f64>,
    /// Active checks. Default: none.
    pub health: Option<Health>,
    pub retry: Retry,
    pub timeout: UpstreamTimeout,
    pub pool: Pool,
    /// Not empty.
    pub hash_on: Vec<HashOn>,
    pub sticky: Option<StickyCookie>,
    pub slow_start: Option<Duration>,
    /// A share. Default 0.5.
    pub spill: f64,
    /// A share. Default: off.
    pub panic: Option<f64>,
    pub eject: Option<Eject>,
    pub breaker: Option<Breaker>,
    /// Who answers where it cannot be asked. Default: nobody.
    pub fallback: Option<Fallback>,
    /// What connections begin with. Default: nothing.
    pub proxy_protocol: Option<Version>,
    /// `None`: in clear.
    pub tls: Option<UpstreamTls>,
    /// `Auto` only with `tls`.
    pub protocol: UpstreamProtocol,
}

/// What targets speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    Http1,
    /// By ALPN over TLS, by prior knowledge in clear.
    Http2,
    /// Whatever the target chooses by ALPN.
    Auto,
}

impl UpstreamProtocol {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            UpstreamProtocol::Http1 => "h1",
            UpstreamProtocol::Http2 => "h2",
            UpstreamProtocol::Auto => "auto",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub addr: SocketAddr,
    /// 1..=1000. Default 1.
    pub weight: u32,
    pub zone: Option<String>,
    /// 0..=15; 1 for `backup = true`. Default 0.
    pub priority: u8,
    /// The most requests in flight on it, over all workers. Default: `pool.max`.
    pub max: Option<u32>,
}

/// A name in place of a target's address.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    pub lookup: Lookup,
    /// Of each of its addresses, as of a [`Target`].
    pub weight: u32,
    pub zone: Option<String>,
    pub priority: u8,
    pub max: Option<u32>,
}

impl Named {
    pub fn plain(lookup: Lookup) -> Self {
        Named { lookup, weight: 1, zone: None, priority: 0, max: None }
    }

    /// One of its addresses.
    pub fn target(&self, addr: SocketAddr) -> Target {
        let Named { weight, ref zone, priority, max, .. } = *self;
        Target { addr, weight, zone: zone.clone(), priority, max }
    }
}

impl Upstream {
    /// Everything that is to be looked up.
    pub fn lookups(&self) -> impl Iterator<Item = Named> {
        let dns = self.dns.iter().map(|lookup| Named::plain(lookup.clone()));
        self.names.iter().cloned().chain(dns)
    }

    /// Whether any target's requests in flight are limited.
    pub fn capped(&self) -> bool {
        self.pool.max.is_some()
            || self.targets.iter().any(|target| target.max.is_some())
            || self.names.iter().any(|name| name.max.is_some())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastConn,
    /// Maglev on the client's address.
    IpHash,
    P2c,
    /// Maglev on what `hash_on` says.
    Maglev,
    Random,
}

impl Balance {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round-robin",
            Balance::LeastConn => "least-conn",
            Balance::IpHash => "ip-hash",
            Balance::P2c => "p2c",
            Balance::Maglev => "maglev",
            Balance::Random => "random",
        }
    }
}

/// `health = { path = "/healthz", … }` or `health = { tcp = true, … }`
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    pub check: HealthCheck,
    /// Default 5 s.
    pub every: Duration,
    /// Default 1 s.
    pub timeout: Duration,
    /// Successes in a row that bring a target back. Default 2.
    pub rise: u32,
    /// Failures in a row that take it out. Default 3.
    pub fall: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HealthCheck {
    Tcp,
    /// `udp = true`, only for services.
    Udp {
        /// The datagram. Default: empty.
        send: Vec<u8>,
        /// Whether an answer must come; otherwise only an ICMP error is a failure. Default: true if `send` is set.
        answer: bool,
    },
    /// grpc.health.v1; the service's name may be empty. Only for upstreams.
    Grpc {
        service: String,
    },
    Http {
        /// Starts with `/`.
        path: String,
        /// Status codes that count as healthy. Default 200..=299 (written out or empty = any 2xx).
        expect: Vec<u16>,
    },
}

/// `timeout = { connect, first_byte, idle, total }`
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTimeout {
    /// Default 1 s.
    pub connect: Duration,
    /// From the request's end to the response's head. Default 15 s.
    pub first_byte: Duration,
    /// Between two reads of a response body. Default 60 s.
    pub idle: Duration,
    /// The whole exchange. Default: none.
    pub total: Option<Duration>,
}

/// `pool = { idle, idle_for, max, queue, queue_timeout }`: kept connections, and how many are busy at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Idle connections kept a target and worker. Default 256.
    pub idle: usize,
    /// How long one may idle. Default 60 s.
    pub idle_for: Duration,
    /// Requests in flight on a target, over all workers. `None` (written as "off"): no limit. Default off.
    pub max: Option<u32>,
    /// Requests that may wait while all targets are full. Default 1024; 0..=65 536.
    pub queue: u32,
    /// How long one may wait. Default 1 s.
    pub queue_timeout: Duration,
}

/// `[service.NAME]`: an L4 service. The kernel half forwards it, or (`splice`) userspace does.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub at: At,
    /// The virtual addresses (VIPs), at least one. `Bind::Any`: that port of every address of `kernel.interfaces`.
    pub binds: Vec<Bind>,
    /// Default tcp.
    pub protocol: L4Protocol,
    /// At least one, all of the family of `binds` (both families are allowed where all binds are `Bind::Any`). With a
    /// mode other than nat every target has the port of `binds`.
    pub targets: Vec<ServiceTarget>,
    /// Default nat.
    pub forward: Forward,
    /// Default maglev.
    pub balance: L4Balance,
    /// Remember which target a connection has, so that it stays there when targets change. Default true; always with
    /// nat.
    pub flows: bool,
    /// Packets of QUIC go by the server id in their connection id, where a target has one. Only UDP. Default false.
    pub quic: bool,
    /// Default: none, every target is taken to be healthy.
    pub health: Option<Health>,
    /// Per source and service, beside `[kernel.limit]`.
    pub limit: ServiceLimit,
    /// `path = "splice"`. What is said of targets above is of all that are named in it.
    pub splice: Option<Box<Splice>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum L4Protocol {
    Tcp,
    Udp,
}

impl L4Protocol {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            L4Protocol::Tcp => "tcp",
            L4Protocol::Udp => "udp",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServiceTarget {
    pub addr: SocketAddr,
    /// 1..=1000. Default 1.
    pub weight: u32,
    /// With `quic`: the server id in connection ids of this target, 0..=65535. Default: none.
    pub server_id: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Both addresses are rewritten, replies come back through the gateway.
    Nat,
    /// Only the MAC addresses are rewritten; targets have the VIP on their loopback and answer the client directly.
    Dsr,
    /// The packet is put into another IP packet (RFC 2003, RFC 2473); targets take it out and answer directly.
    Ipip,
    /// As `Ipip`, in a UDP packet of Generic UDP Encapsulation, variant 1, to port 6080.
    Gue,
}

impl Forward {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            Forward::Nat => "nat",
            Forward::Dsr => "dsr",
            Forward::Ipip => "ipip",
            Forward::Gue => "gue",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4Balance {
    /// Maglev on addresses and ports: the connections of one client spread.
    Maglev,
    /// Maglev on the client's address, with the table and the hash of an upstream's ip-hash.
    IpHash,
    // Not of the kernel's path.
    RoundRobin,
    LeastConn,
    Random,
}

impl L4Balance {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            L4Balance::Maglev => "maglev",
            L4Balance::IpHash => "ip-hash",
            L4Balance::RoundRobin => "round-robin",
            L4Balance::LeastConn => "least-conn",
            L4Balance::Random => "random",
        }
    }
}

/// `limit = { packets, new, bytes }` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ServiceLimit {
    pub packets: Option<Bucket>,
    pub new: Option<Bucket>,
    pub bytes: Option<Bucket>,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Default 127.0.0.1:9180; `bind = "off"` is `None`. Restart needed.
    pub bind: Option<SocketAddr>,
}

/// `[state]`: what the gateway keeps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Absolute. Default /var/lib/gateway.
    pub directory: PathBuf,
    /// What files in it are sealed with. `None`: nothing that has to be is kept.
    pub key: Option<Secret>,
    /// Those before it.
    pub old_keys: Vec<Secret>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Default /run/gateway/admin.sock. Restart needed.
    pub socket: PathBuf,
    /// Absolute. `None`: the process log only.
    pub audit: Option<PathBuf>,
    /// Restart needed.
    pub http: Option<AdminHttp>,
}

/// `http = { bind, token, tls, dashboard }`
#[derive(Debug, Clone, PartialEq)]
pub struct AdminHttp {
    pub at: At,
    pub bind: SocketAddr,
    pub token: Secret,
    /// There where `bind` is no loopback address.
    pub tls: Option<Tls>,
    /// Default true.
    pub dashboard: bool,
}

impl AdminHttp {
    /// Its name among those of listeners, which have no slash in theirs.
    pub const AMONG_LISTENERS: &str = "admin/http";
}
