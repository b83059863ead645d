//! `[listener.NAME]`: where HTTP comes in.

use std::{net::SocketAddr, time::Duration};

use super::{Hsts, Tls};
use crate::config::units::{At, Prefixes, Quota};

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
