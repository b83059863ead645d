//! The config as the rest of the program sees it: typed, checked, with every default filled in.
//!
//! [`crate::config::load`] is the only way to make one, so a value of these types is already valid:
//! names resolve, numbers are in range, no two routes tie.

mod auth;
mod cache;
mod kernel;
mod limit;
mod listener;
mod route;
mod seeing;
mod service;
mod splice;
mod tls;
mod upstream;
mod version;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use auth::{
    Allow, Auth, AuthKind, CertMark, Consumer, ConsumerKey, ConsumerSecret, Demand, ForwardAuth, JwtAuth,
    JwtKeys, KeyHash, Right, RouteAuth, Whence,
};
pub use cache::{Cache, CacheDisk, ClientCache, KeyPart};
pub use kernel::{
    Adapt, Bucket, Kernel, KernelBlock, KernelClass, KernelLimit, KernelMode, LimitMode, Steer,
};
pub(crate) use limit::check_store;
pub use limit::{
    Algorithm, BanRule, CostOf, Headers, KeyPart as LimitKeyPart, Limit, Measure, OnStoreError, Overrun,
    Penalty, Shared, StoreUrl, Unit,
};
pub use listener::{Bind, Listener, ListenerMax, ListenerTimeout, ProxyProtocol, RealIp, RealIpHeader};
pub use route::{
    Coding, Compare, Compress, Cors, Destination, FieldRewrite, Guard, HostPattern, JsonLimits, JsonMap,
    JsonSet, Matcher, Mirror, MirrorVersion, Origin, PathPattern, PathRewrite, Pattern, Predicates, Redirect,
    Respond, Rewrite, Route, RouteTimeout, SecurityHeaders, Segment, Shape, Split, Sticky,
};

pub use seeing::{
    AccessLog, AlertKind, AlertRule, Kafka, LogKeep, LogRotate, LogTarget, NotifyFormat, NotifyRule, Redact,
    Tracing, Webhook,
};
pub use service::{Forward, L4Balance, L4Protocol, Service, ServiceLimit, ServiceTarget};
pub use splice::{Splice, SpliceTimeout, among_listeners};

pub use super::balancing::{
    Breaker, Eject, Fallback, FallbackOn, HashOn, Retry, RetryOn, RouteRetry, StickyCookie,
};
use super::units::At;

pub use tls::{Acme, AcmeChallenge, Alpn, Cert, ClientAuth, Hsts, Secret, Tls, TlsVersion, UpstreamTls};
pub use upstream::{
    Balance, Health, HealthCheck, Named, Pool, Target, Upstream, UpstreamProtocol, UpstreamTimeout,
};
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
