//! Services that go through userspace.

use std::time::Duration;

use super::{HostPattern, L4Protocol, ProxyProtocol, ServiceTarget, Tls};
use crate::proxy_protocol::Version;

/// `[service.NAME] path = "splice"`
#[derive(Debug, Clone, PartialEq)]
pub struct Splice {
    /// `to`: where connections go that no name of `sni` is for. Empty: they are refused.
    pub to: Vec<ServiceTarget>,
    /// By the name that a client asks for. Sorted.
    pub sni: Vec<(HostPattern, Vec<ServiceTarget>)>,
    /// Of proxies in front.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What connections to targets begin with.
    pub announce: Option<Version>,
    /// `None`: bytes go on as they come.
    pub tls: Option<Tls>,
    pub timeout: SpliceTimeout,
    /// Open connections (of UDP: sessions) over all workers. Default 100 000.
    pub connections: u32,
}

/// A service's name among those of listeners, which have no slash in theirs.
pub fn among_listeners(service: &str) -> String {
    format!("service/{service}")
}

/// `timeout = { connect, header, idle }`
#[derive(Debug, Clone, PartialEq)]
pub struct SpliceTimeout {
    /// To make a connection to a target. Default 1 s.
    pub connect: Duration,
    /// For all that comes before a client's bytes go on: PROXY header, TLS. Default 10 s.
    pub header: Duration,
    /// With nothing sent in either direction. `None` (written as "off"): no limit. Default 10 min, of UDP 60 s.
    pub idle: Option<Duration>,
}

impl SpliceTimeout {
    pub fn default_idle(protocol: L4Protocol) -> Duration {
        match protocol {
            L4Protocol::Tcp => Duration::from_secs(600),
            L4Protocol::Udp => Duration::from_secs(60),
        }
    }
}
