//! Values that people write by hand: durations, sizes, rates, prefixes, and where they stand in a file.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc};

/// Where something stands in a config file; lines and columns start at 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<PathBuf>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Events a second; never zero. Written "100/s", "20k/s", "5/m", "200k/h".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub per_second: f64,
}

/// An IP prefix with its host bits zero. IPv4-mapped IPv6 is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    pub addr: IpAddr,
    pub len: u8,
}
impl fmt::Display for Prefix { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}/{}", self.addr, self.len) } }
impl serde::Serialize for Prefix { fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) } }
impl std::str::FromStr for Prefix { type Err = String; fn from_str(_: &str) -> Result<Self, String> { Err("later".into()) } }
pub fn parse_duration(_: &str) -> Result<std::time::Duration, String> { Err("later".into()) }
