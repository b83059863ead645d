//! The maps between the two halves: names, capacities, keys and values, all `repr(C)` with their sizes pinned.
//!
//! Whoever changes a layout here raises [`LAYOUT_VERSION`]: it names the folder in which maps are pinned, so a
//! daemon adopts only maps that it can read.

use crate::{bucket::Limit, clock::Clock, source::Address};

/// The version of everything in this file that is pinned.
pub const LAYOUT_VERSION: u32 = 3;

/// Sources with a bucket of their own.
pub const BUCKETS_CAPACITY: u32 = crate::table::SETS * 2;
/// Buckets that sources without a place share.
pub const COARSE_SLOTS: u32 = crate::table::SHARED;
/// Single sources banned at once.
pub const BANS_CAPACITY: u32 = 65_536;
/// Prefixes of each family that can be blocked, exempt or banned.
pub const ACCESS_CAPACITY: u32 = 1 << 20;
/// Reasons an interface has room for in the counters.
pub const REASONS: u32 = 64;
/// Interfaces with counters of their own; packets of others are counted together in one more slot.
pub const INTERFACES: usize = 8;
/// Listening sockets: listeners times workers.
pub const SOCKETS_CAPACITY: u32 = 8192;
/// Bytes of the ring of samples; a power of two of pages.
pub const EVENTS_BYTES: u32 = 1 << 18;

/// Classes of sources, that of all others (0) included; a power of two.
pub const CLASSES: usize = 16;
/// Limits of services: two a service, of which [`Settings::service_limits`] says which count.
pub const SERVICE_LIMITS_CAPACITY: u32 = 2 * crate::service::RINGS_CAPACITY;

/// Map names, as in the object and as pinned.
pub mod name {
    pub const SETTINGS: &str = "SETTINGS";
    pub const ACCESS_V4: &str = "ACCESS_V4";
    pub const ACCESS_V6: &str = "ACCESS_V6";
    pub const BANS: &str = "BANS";
    pub const COARSE: &str = "COARSE";
    pub const BUCKETS: &str = "BUCKETS";
    pub const DROPS: &str = "DROPS";
    pub const SERVICE_LIMITS: &str = "SERVICE_LIMITS";
    pub const COUNTERS: &str = "COUNTERS";
    pub const SLOTS: &str = "SLOTS";
    pub const EVENTS: &str = "EVENTS";
    pub const STEER: &str = "STEER";
    pub const SOCKETS: &str = "SOCKETS";
    pub const PROBE: &str = "PROBE";

    /// Those that outlive the daemon: bans, buckets and counters. The rest is written anew by every start, so a
    /// new program never runs on another's settings.
    pub const PINNED: &[&str] = &[ACCESS_V4, ACCESS_V6, BANS, BUCKETS, DROPS, COUNTERS, SLOTS];
}

/// The one entry of `SETTINGS`: two settings and which of them counts. Userspace fills the idle one and then
/// switches; a write that leaves a word as it is does not show, so no packet is judged by half-written settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Switch {
    /// 0 or 1.
    pub active: u64,
    pub settings: [Settings; 2],
}

/// What the XDP program needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    pub clock: Clock,
    /// By class. Here and not in a map of their own, so that all of them change at once.
    pub limits: [Limits; CLASSES],
    /// Random a start, so that nobody can choose addresses that collide.
    pub seed: u64,
    /// Ones where an IPv6 source's upper half counts, see [`Address::key`].
    pub ipv6_mask: u64,
    /// A drop is sampled when its number, by CPU and reason, has none of these bits set.
    pub sample_mask: u64,
    /// For the places of buckets and the keys of connections; random, pinned with their tables.
    pub flow_seed: u64,
    /// Sets of the tables of connections and of replies, less one.
    pub flows_mask: u64,
    pub replies_mask: u64,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Zero: unused. An interface's position here is its slot in the counters.
    pub interfaces: [u32; INTERFACES],
    /// Where the limits of services begin in `SERVICE_LIMITS`.
    pub service_limits: u32,
    /// Where the half of `SERVICES` begins that counts.
    pub services: u32,
    pub _pad: u32,
}

/// What one source may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Limits {
    pub packets: Limit,
    /// TCP SYNs.
    pub new: Limit,
    pub bytes: Limit,
    /// Bits of [`limits_flag`].
    pub flags: u64,
}

/// Bits of [`Limits::flags`].
pub mod limits_flag {
    /// At least one of them is on.
    pub const ON: u64 = 1;
    /// What is over passes.
    pub const SOFT: u64 = 1 << 1;
}

impl Limits {
    #[inline(always)]
    pub const fn is_on(&self) -> bool {
        self.flags & limits_flag::ON != 0
    }

    #[inline(always)]
    pub const fn is_soft(&self) -> bool {
        self.flags & limits_flag::SOFT != 0
    }

    /// These limits, `soft` or not.
    #[cfg(any(test, feature = "user"))]
    pub fn new(packets: Limit, new: Limit, bytes: Limit, soft: bool) -> Self {
        let on = packets.is_on() || new.is_on() || bytes.is_on();
        let flags = if on { limits_flag::ON } else { 0 } | if soft { limits_flag::SOFT } else { 0 };
        Self { packets, new, bytes, flags }
    }

    /// All rates times `factor` (above 0, at most 1). Below 1 there is overload, and none is soft.
    #[cfg(any(test, feature = "user"))]
    pub fn scaled(&self, factor: f64) -> Self {
        let soft = self.is_soft() && factor >= 1.0;
        Self::new(self.packets.scaled(factor), self.new.scaled(factor), self.bytes.scaled(factor), soft)
    }
}

/// Bits of [`Settings::flags`]: what is empty is not looked up.
pub mod flag {
    pub const ACCESS_V4: u32 = 1;
    pub const ACCESS_V6: u32 = 1 << 1;
    pub const BANS: u32 = 1 << 2;
    /// At least one limit of [`Settings::limits`] is on.
    pub const LIMITS: u32 = 1 << 3;
    /// An attached interface is the loopback: its sources are no martians.
    pub const LOOPBACK: u32 = 1 << 4;
    /// There are L4 services.
    pub const SERVICES: u32 = 1 << 5;
    /// Somebody captures packets.
    pub const CAPTURE: u32 = 1 << 6;
    /// SYN floods are answered.
    pub const SYN: u32 = 1 << 12;
}

/// What a prefix of `ACCESS_V4` or `ACCESS_V6` means.
pub mod access {
    /// A hole in a wider block: judged on by bans and limits.
    pub const ALLOW: u8 = 0;
    pub const BLOCK: u8 = 1;
    pub const EXEMPT: u8 = 2;
    pub const BAN: u8 = 3;
}

/// A rule of the access tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Access {
    /// Zero: for ever. Only bans end.
    pub until_ns: u64,
    /// When the ban was made.
    pub since_ns: u64,
    /// One of [`access`].
    pub action: u8,
    /// What a ban that is over leaves behind: the action of the rule around it.
    pub after: u8,
    /// Why, see [`ban_code`].
    pub code: u8,
    /// Not zero: a rule inside a banned prefix, banned with it; the ban itself is another entry.
    pub derived: u8,
    /// The class of limits of the sources here, where they are judged on by limits.
    pub class: u8,
    pub _pad: [u8; 3],
}

impl Access {
    /// A rule without an end.
    pub const fn rule(action: u8) -> Self {
        Self { until_ns: 0, since_ns: 0, action, after: action, code: 0, derived: 0, class: 0, _pad: [0; 3] }
    }

    /// The same rule for sources of a class.
    pub const fn of_class(self, class: u8) -> Self {
        Self { class, ..self }
    }

    /// The action at `now`.
    #[inline(always)]
    pub const fn action_at(&self, now: u64) -> u8 {
        if is_over(self.until_ns, now) { self.after } else { self.action }
    }
}

/// Whether something that ends at `until_ns` (zero: never) is over at `now`.
#[inline(always)]
pub const fn is_over(until_ns: u64, now: u64) -> bool {
    until_ns != 0 && until_ns <= now
}

/// Who asked for a ban.
pub mod ban_code {
    pub const OPERATOR: u8 = 0;
    /// Went on after a limit had refused it.
    pub const LIMIT: u8 = 1;
    /// Misbehaved.
    pub const PENALTY: u8 = 2;
}

/// A banned source of `BANS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ban {
    /// Zero: for ever.
    pub until_ns: u64,
    pub since_ns: u64,
    /// Why, see [`ban_code`].
    pub code: u8,
    /// Bits of the prefix that this source stands for: 32 for IPv4.
    pub len: u8,
    pub _pad: [u8; 6],
}

/// Three words shared by all sources of one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Coarse {
    pub packets_tat: u64,
    pub new_tat: u64,
    pub bytes_tat: u64,
}

/// One CPU's count of an interface's packets with one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

/// The index in `COUNTERS`.
#[inline(always)]
pub const fn counter_index(slot: u32, reason: u8) -> u32 {
    slot * REASONS + reason as u32
}

/// Entries of `COUNTERS`: every interface and the slot for others.
pub const COUNTERS_CAPACITY: u32 = (INTERFACES as u32 + 1) * REASONS;

/// A dropped packet in `EVENTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    pub time_ns: u64,
    /// Zero where the packet was too short to have them.
    pub source: Address,
    pub destination: Address,
    pub ifindex: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Zero for protocols without ports and for fragments after the first.
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub reason: u8,
    /// Bits of [`crate::packet::bit`].
    pub bits: u8,
    pub _pad: u8,
}

/// What `bench_wrap` makes of a packet before it hands it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Wrap {
    /// As it lies in memory.
    pub template: [u64; 10],
    /// Bytes of the frame, at least those of the template.
    pub length: u32,
    /// Different source addresses, one after another.
    pub flows: u32,
    pub round: u32,
    /// Where the last four bytes of the source address are, and their first value.
    pub source: u32,
    pub first: u32,
    pub _pad: u32,
}

/// A listening address of `STEER`. Wildcards are the unspecified address of the packet's family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct SteerKey {
    pub address: Address,
    /// Host order.
    pub port: u32,
    pub _pad: u32,
}

/// Where its workers' sockets are in `SOCKETS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Workers {
    pub first: u32,
    /// Not zero.
    pub count: u32,
    /// For the hash that chooses the worker.
    pub seed: u64,
}

const _: () = {
    assert!(size_of::<Limits>() == 80 && CLASSES.is_power_of_two());
    assert!(size_of::<Settings>() == 16 + CLASSES * 80 + 6 * 8 + 4 + 4 * INTERFACES + 12);
    assert!(size_of::<Switch>() == 8 + 2 * size_of::<Settings>());
    assert!(size_of::<Access>() == 24);
    assert!(size_of::<Ban>() == 24);
    assert!(size_of::<Coarse>() == 24);
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<Sample>() == 56);
    assert!(size_of::<SteerKey>() == 24);
    assert!(size_of::<Workers>() == 16);
    assert!(COARSE_SLOTS.is_power_of_two());
};

#[cfg(feature = "user")]
#[allow(unsafe_code)]
mod pod {
    use super::{Access, Ban, Coarse, Counter, Limits, SteerKey, Switch, Workers, Wrap};

    // SAFETY: all are `repr(C)`, `Copy`, made of integers only and without padding (sizes asserted above).
    unsafe impl aya::Pod for Switch {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Access {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Ban {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Coarse {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SteerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Workers {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Wrap {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Limits {}
}
