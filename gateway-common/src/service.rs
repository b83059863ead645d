//! The maps of L4 services: which virtual addresses there are, their tables of targets, and what the tables point to.

use crate::{hash, source::Address};

/// Virtual addresses with a port, all services together.
pub const SERVICES_CAPACITY: u32 = 8192;
/// What packets are looked up by: virtual addresses with a port, and those whose pings are answered.
pub const KEYS_CAPACITY: u32 = 2 * SERVICES_CAPACITY;
/// Places in one half of `SERVICES`, a power of two; one half is read while the other is written.
pub const SERVICE_PLACES: u32 = 2 * KEYS_CAPACITY;
/// How many places have to be looked at, at most, to find a service.
pub const SERVICE_CHAIN: u32 = 8;
/// Both halves, and one more place whose key's `lo` is where the half begins that is read.
pub const SERVICES_ENTRIES: u32 = 2 * SERVICE_PLACES + 1;
/// Services.
pub const RINGS_CAPACITY: u32 = 4096;
/// Maglev tables: one a service and IP version.
pub const TABLES_CAPACITY: u32 = 2 * RINGS_CAPACITY;
/// Targets of all services, those that drain included; index 0 is never used.
pub const TARGETS_CAPACITY: u32 = 16_384;
/// Slots of a Maglev table in a word of its map.
pub const SLOTS_PER_WORD: u32 = 4;
/// Words of a Maglev table's map.
pub const RING_WORDS: u32 = (crate::maglev::DEFAULT_SIZE as u32).div_ceil(SLOTS_PER_WORD);
/// Ports of ours towards targets (NAT): clear of those that Linux gives to its own connections.
pub const NAT_PORTS: core::ops::Range<u16> = 1024..32_768;
/// Next hops that each CPU remembers; a power of two.
pub const HOPS: u32 = 4096;
/// How long it does, in nanoseconds: how late a change of routes is seen.
pub const HOP_NS: u64 = 250_000_000;
/// Prefixes that a target takes packets in packets from.
pub const DECAP_CAPACITY: u32 = 1024;
/// Where Generic UDP Encapsulation goes.
pub const GUE_PORT: u16 = 6080;

/// Map names, as in the object and as pinned.
pub mod name {
    pub const SERVICES: &str = "SERVICES";
    pub const VIPS: &str = "VIPS";
    pub const RINGS: &str = "RINGS";
    pub const TARGETS: &str = "TARGETS";
    pub const SERVER_IDS: &str = "SERVER_IDS";
    pub const FLOWS: &str = "FLOWS";
    pub const REPLIES: &str = "REPLIES";
    pub const TARGET_COUNTERS: &str = "TARGET_COUNTERS";
    pub const HOPS: &str = "HOPS";
    pub const FLOW_SEED: &str = "FLOW_SEED";
    pub const DECAP_FROM: &str = "DECAP_FROM";

    /// Those that outlive the daemon: services, and every connection's way.
    pub const PINNED: &[&str] =
        &[SERVICES, VIPS, RINGS, TARGETS, SERVER_IDS, FLOWS, REPLIES, TARGET_COUNTERS, FLOW_SEED];
}

/// Where clients connect to: the key of `SERVICES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct ServiceKey {
    pub hi: u64,
    pub lo: u64,
    /// Host order; zero for the pings of the address.
    pub port: u32,
    pub protocol: u32,
}

impl ServiceKey {
    #[inline(always)]
    pub const fn new(address: Address, port: u16, protocol: u8) -> Self {
        Self { hi: address.hi, lo: address.lo, port: port as u32, protocol: protocol as u32 }
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        Address { hi: self.hi, lo: self.lo }.is_v4()
    }
}

impl ServiceKey {
    /// Where it is looked for first, in a half of `SERVICES`.
    #[inline(always)]
    pub const fn place(&self, seed: u64) -> u32 {
        let tail = (self.port as u64) << 40 ^ (self.protocol as u64) << 32;
        // A multiplication, so that which addresses meet depends on the seed.
        let high = (self.hi ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash::mix(self.lo ^ tail ^ high) as u32 & (SERVICE_PLACES - 1)
    }
}

/// A place in `SERVICES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Place {
    /// Of no protocol: the place is free.
    pub key: ServiceKey,
    pub service: Service,
    /// One more than the place of the next service that belongs here, in the same half; zero: there is none.
    pub next: u32,
    pub _pad: u32,
}

/// What to do with a virtual address's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Service {
    /// Its table, in `RINGS`.
    pub ring: u32,
    /// This address, in `VIPS`; part of its connections' keys.
    pub vip: u16,
    /// The service, for its limits and server ids.
    pub service: u16,
    /// One of [`mode`].
    pub mode: u8,
    /// Bits of [`option`].
    pub options: u8,
    pub _pad: [u8; 6],
}

/// How packets get to targets.
pub mod mode {
    pub const NAT: u8 = 1;
    pub const DSR: u8 = 2;
    pub const IPIP: u8 = 3;
    pub const GUE: u8 = 4;
    /// Nowhere: pings are answered.
    pub const ECHO: u8 = 5;
}

/// Bits of [`Service::options`].
pub mod option {
    /// Connections are remembered.
    pub const FLOWS: u8 = 1;
    /// The target depends on the client's address alone.
    pub const IP_HASH: u8 = 1 << 1;
    /// Connection ids of QUIC say the target.
    pub const QUIC: u8 = 1 << 2;
    /// It has limits of its own.
    pub const LIMITS: u8 = 1 << 3;
}

/// A virtual address, for replies and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Vip {
    pub address: Address,
    /// Host order.
    pub port: u32,
    pub _pad: u32,
}

/// A target of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Target {
    pub address: Address,
    /// Our own address towards it.
    pub local: Address,
    /// Host order.
    pub port: u16,
    /// Whose it is.
    pub service: u16,
    /// One of [`target_state`].
    pub state: u8,
    /// Whether its address is one of IPv4, and not zero then.
    pub v4: u8,
    /// [`hop_slot`] of its address.
    pub hop: u16,
}

impl Target {
    /// A target in use.
    #[inline(always)]
    pub const fn new(address: Address, port: u16, local: Address, service: u16, state: u8) -> Self {
        let v4 = address.is_v4() as u8;
        Self { address, local, port, service, state, v4, hop: hop_slot(address) }
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.v4 != 0
    }
}

/// Where a CPU remembers the next hop of an address.
#[inline(always)]
pub const fn hop_slot(destination: Address) -> u16 {
    hash::of_address(0, destination) as u16 & (HOPS as u16 - 1)
}

/// States of a [`Target`].
pub mod target_state {
    /// Nobody's index.
    pub const UNUSED: u8 = 0;
    pub const UP: u8 = 1;
    /// Keeps its connections, gets no new ones.
    pub const DRAINING: u8 = 2;
    /// Its connections go elsewhere.
    pub const DOWN: u8 = 3;
}

/// One CPU's count of what a target was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct TargetCounter {
    pub packets: u64,
    pub bytes: u64,
    pub connections: u64,
}

/// A next hop as one CPU remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Hop {
    pub destination: Address,
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub until_ns: u64,
    /// In the lower 48 bits.
    pub target_mac: u64,
    pub source_mac: u64,
    pub ifindex: u32,
    pub mtu: u32,
}

/// The index in `RINGS` of a service's table for one IP version.
#[inline(always)]
pub const fn ring_of(service: u16, v4: bool) -> u32 {
    if v4 { service as u32 } else { RINGS_CAPACITY + service as u32 }
}

/// Whose table it is.
#[inline(always)]
pub const fn ring_service(ring: u32) -> u16 {
    (ring % RINGS_CAPACITY) as u16
}

/// The key of `SERVER_IDS`, whose values are indexes of targets.
#[inline(always)]
pub const fn server_key(service: u16, id: u16) -> u32 {
    (service as u32) << 16 | id as u32
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 24);
    assert!(size_of::<Service>() == 16);
    assert!(size_of::<Place>() == 48);
    assert!(size_of::<Vip>() == 24);
    assert!(size_of::<Target>() == 40);
    assert!(size_of::<TargetCounter>() == 24);
    assert!(size_of::<Hop>() == 48);
    assert!(HOPS.is_power_of_two());
    assert!(SERVICES_CAPACITY <= 1 << 16 && TARGETS_CAPACITY <= 1 << 16 && RINGS_CAPACITY <= 1 << 16);
};

#[cfg(feature = "user")]
#[allow(unsafe_code)]
mod pod {
    use super::{Hop, Place, Service, ServiceKey, Target, TargetCounter, Vip};

    // SAFETY: all are `repr(C)`, `Copy`, made of integers only and without padding (sizes asserted above).
    unsafe impl aya::Pod for ServiceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Service {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Place {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Vip {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Target {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TargetCounter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Hop {}
}
