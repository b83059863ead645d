//! `[service.NAME]`: L4 services.

use std::net::SocketAddr;

use super::{Bind, Bucket, Health, Splice};
use crate::config::units::At;

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
