//! What an old and a new process say to each other when the binary is upgraded in place, over a unix socket that the new
//! one is started with as its standard input.
//!
//! | old | new |
//! |---|---|
//! | [`Sockets`], then the descriptors | |
//! | | reads its config; `claim` |
//! | lets the kernel half go; [`Handed`] | |
//! | | adopts the kernel half, starts workers, accepts; `ready` |
//! | tells the service manager; `go` | |
//! | stops accepting, drains; `counts` now and then, and at its end | serves alone |
//!
//! A message is its length (32 bits, big endian) and JSON. Fields that one side does not know are left out by the other,
//! so that versions may differ as long as [`VERSION`] does not.

use std::{io, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::units::Lookup, daemon::usage::Usages, kernel::Inheritance, observe::stats::Totals,
    upstream::discovered::Found,
};

pub const VERSION: u32 = 1;
/// Set for a process whose standard input is the socket.
pub const VARIABLE: &str = "GATEWAY_HANDOVER";
/// Counters of the largest config take some megabytes.
const LONGEST: usize = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromOld {
    Sockets(Sockets),
    Handed(Box<Handed>),
    Go,
    /// What it counted since it last said so.
    Counts {
        counts: Totals,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromNew {
    /// Its config is good: it wants the kernel half.
    Claim,
    Ready,
    Failed {
        why: String,
    },
}

/// Which descriptors follow, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sockets {
    pub version: u32,
    pub pid: u32,
    /// For each socket of a listener where that binds, as the config says it.
    pub listeners: Vec<String>,
    pub metrics: Option<SocketAddr>,
    pub admin: Option<PathBuf>,
    pub admin_http: Option<SocketAddr>,
}

/// What lives in the old process's memory, and goes on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Handed {
    pub generation: u64,
    pub reloads_ok: u64,
    pub reloads_failed: u64,
    pub targets: Vec<Target>,
    pub counts: Totals,
    /// What upstreams' names were found to be.
    pub names: Vec<(Lookup, Vec<Found>)>,
    /// Of the access log: written, dropped, failed.
    pub lines: [u64; 3],
    /// Who called which version.
    #[serde(default)]
    pub usages: Usages,
    pub kernel: Inheritance,
}

/// What checks and operators say of a target.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Else of an upstream.
    pub of_service: bool,
    /// The upstream's or service's.
    pub name: String,
    pub addr: SocketAddr,
    pub healthy: bool,
    /// "drain" or "down".
    pub taken: Option<Said<String>>,
    pub weight: Option<Said<u32>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Said<T> {
    pub value: T,
    pub by: String,
    /// Seconds since 1970.
    pub since: f64,
    /// `None`: until it is taken back.
    pub left_ms: Option<u64>,
}

pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

/// The length of what follows.
pub fn length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the other process is too long"));
    }
    Ok(length)
}

pub fn decode<T: DeserializeOwned>(json: &[u8]) -> io::Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("unknown message: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_adds_is_left_out() {
        let json = br#"{"say": "handed", "generation": 3, "colour": "red"}"#;
        let Ok(FromOld::Handed(handed)) = decode(json) else { panic!("not understood") };
        assert_eq!((handed.generation, handed.targets.len()), (3, 0));
        assert!(decode::<FromOld>(b"{\"say\": \"sing\"}").is_err());
        assert!(length(u32::MAX.to_be_bytes()).is_err());
    }
}
