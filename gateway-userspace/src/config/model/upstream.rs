//! `[upstream.NAME]`: where requests go.

use std::{net::SocketAddr, time::Duration};

use super::{Breaker, Eject, Fallback, HashOn, Retry, StickyCookie, UpstreamTls};
use crate::{
    config::units::{At, Lookup},
    proxy_protocol::Version,
};

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
