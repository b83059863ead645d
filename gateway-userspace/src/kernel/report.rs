//! What the kernel half tells: rows for the admin API, the metrics and the command line. Plain data.

use std::{fmt, net::IpAddr};

use serde::Serialize;

use crate::config::units::Prefix;
use gateway_common::maps::ban_code;

/// How the kernel half is doing.
#[derive(Debug, Clone, Serialize)]
pub struct KernelStatus {
    pub interfaces: Vec<InterfaceStatus>,
    pub steering: SteeringStatus,
    pub syn: SynStatus,
    /// The folder of the pinned maps and links; none: `pin_reason` says why.
    pub pin: Option<String>,
    pub pin_reason: Option<String>,
    pub clock: ClockStatus,
    pub layout_version: u32,
    /// Whether bans, buckets and counters were taken over from an earlier run.
    pub adopted: bool,
    pub bans: usize,
    /// What others took away.
    pub taken: Vec<TakenStatus>,
    /// Everything that is not as the config asks for.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct InterfaceStatus {
    pub name: String,
    pub ifindex: u32,
    /// native | generic | off
    pub mode: &'static str,
    /// Why the mode is not the one asked for, or not the fastest.
    pub reason: Option<String>,
}

/// Something that was attached or pinned, and taken away from outside.
#[derive(Debug, Clone, Serialize)]
pub struct TakenStatus {
    pub what: String,
    pub times: u64,
    /// The last time.
    pub seconds_ago: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct SteeringStatus {
    pub on: bool,
    pub reason: Option<String>,
    pub listeners: usize,
}

/// The defence against SYN floods.
#[derive(Debug, Clone, Serialize)]
pub struct SynStatus {
    pub on: bool,
    /// Why it is off.
    pub reason: Option<String>,
    /// Whether new connections have to prove themselves at present.
    pub attack: bool,
    /// Attacks since the start.
    pub attacks: u64,
}

impl SynStatus {
    pub fn off(reason: impl Into<String>) -> Self {
        Self { on: false, reason: Some(reason.into()), attack: false, attacks: 0 }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct ClockStatus {
    /// jiffies | monotonic
    pub source: &'static str,
    /// Ticks a second, where they were measured.
    pub hz: Option<u64>,
}

impl KernelStatus {
    /// An interface that is without its program, or something that was taken away in the last `seconds`.
    pub fn off_lately(&self, seconds: u64) -> Option<String> {
        let off = self.interfaces.iter().find(|interface| interface.mode == "off");
        let taken = || self.taken.iter().find(|taken| taken.seconds_ago < seconds);
        off.map(|interface| interface.name.clone()).or_else(|| taken().map(|taken| taken.what.clone()))
    }

    /// One line for a log or a status page.
    pub fn summary(&self) -> String {
        let xdp: Vec<String> =
            self.interfaces.iter().map(|i| format!("XDP {} on {}", i.mode, i.name)).collect();
        let xdp = if xdp.is_empty() { "XDP off".to_owned() } else { xdp.join(", ") };
        format!("{xdp}; steering {}", if self.steering.on { "on" } else { "off" })
    }
}

/// Packets of an interface with one reason, since the maps were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CounterRow {
    /// "other" for interfaces that have no counters of their own.
    pub interface: String,
    /// pass | drop
    pub action: &'static str,
    pub reason: &'static str,
    pub packets: u64,
    /// Of the first buffer of each frame, which is the whole frame unless it is a jumbo frame.
    pub bytes: u64,
}

/// A map that can be filled up, and how far it is.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    pub map: &'static str,
    pub entries: u64,
    pub capacity: u64,
}

impl Fill {
    pub fn share(&self) -> f64 {
        self.entries as f64 / self.capacity.max(1) as f64
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct MapRow {
    pub name: &'static str,
    pub kind: &'static str,
    /// Entries in use; of arrays all are.
    pub entries: u64,
    pub capacity: u64,
    /// Kernel memory charged for it.
    pub bytes: u64,
}

/// A source with buckets.
#[derive(Debug, Clone, Serialize)]
pub struct SourceRow {
    /// An IPv4 address, an IPv6 prefix, or `fe80::/64#…` for one link-local neighbour.
    pub source: String,
    /// Tokens; none: no such limit.
    pub packets_left: Option<u64>,
    pub new_left: Option<u64>,
    pub bytes_left: Option<u64>,
    /// The service whose limits these are; none: those for everything.
    pub service: Option<String>,
    /// Packets refused by its buckets.
    pub dropped: u64,
    /// Since the first of them, on average.
    pub drops_per_second: f64,
    /// Seconds for which its buckets have been full.
    pub idle_seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Ban {
    pub cidr: Prefix,
    /// Rounded up; none: until it is lifted.
    pub left_seconds: Option<u64>,
    pub why: String,
    pub by: BanBy,
}

/// Who made a ban: as the map has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum BanBy {
    Operator = ban_code::OPERATOR,
    Limit = ban_code::LIMIT,
    Penalty = ban_code::PENALTY,
}

impl BanBy {
    pub fn of(code: u8) -> Self {
        match code {
            ban_code::LIMIT => BanBy::Limit,
            ban_code::PENALTY => BanBy::Penalty,
            _ => BanBy::Operator,
        }
    }
}

/// What a config changes in the maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SyncReport {
    pub prefixes_added: usize,
    pub prefixes_removed: usize,
    pub prefixes_changed: usize,
    /// Interfaces attached or detached.
    pub interfaces_changed: usize,
    /// 1 if limits or flags change.
    pub settings_changed: usize,
}

/// A dropped packet: the first of its kind, and then one of many.
#[derive(Debug, Clone, Serialize)]
pub struct DropSample {
    /// Seconds since 1970.
    pub ts: f64,
    pub interface: String,
    pub reason: &'static str,
    /// Not known of frames too short to have them.
    pub source: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination: Option<IpAddr>,
    pub destination_port: Option<u16>,
    /// IANA protocol number.
    pub protocol: u8,
    /// Bytes of the frame.
    pub length: u32,
}

/// A packet of a capture.
#[derive(Debug, Clone)]
pub struct CapturedPacket {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    pub interface: String,
    pub action: &'static str,
    pub reason: &'static str,
    /// Of the whole frame.
    pub length: u32,
    /// Its first bytes.
    pub data: Vec<u8>,
}

/// What `gateway kernel detach` removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DetachReport {
    pub links: Vec<String>,
    pub maps: Vec<String>,
}

impl fmt::Display for DetachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.links.is_empty() && self.maps.is_empty() {
            return f.write_str("nothing was attached or pinned");
        }
        let links = if self.links.is_empty() { "no programs".into() } else { self.links.join(", ") };
        write!(f, "detached {links}; removed {} maps", self.maps.len())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    Ok,
    Warn,
    Fail,
}

/// One thing `gateway doctor` looked at.
#[derive(Debug, Clone, Serialize)]
pub struct DoctorCheck {
    pub name: String,
    pub state: CheckState,
    pub detail: String,
    pub cure: Option<String>,
}
