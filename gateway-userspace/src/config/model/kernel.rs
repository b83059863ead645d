//! `[kernel]`: the kernel half.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::config::units::{At, Prefix, Rate};

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
