//! Every map, once. Keys, values and capacities are `gateway_common::maps`.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf, SockMap},
};
use gateway_common::{capture, maps as layout, packet::Parsed, service, syn, table};

#[map]
pub static SETTINGS: Array<layout::Switch> = Array::with_max_entries(1, 0);

#[map]
pub static ACCESS_V4: LpmTrie<[u8; 4], layout::Access> =
    LpmTrie::with_max_entries(layout::ACCESS_CAPACITY, 0);

#[map]
pub static ACCESS_V6: LpmTrie<[u8; 16], layout::Access> =
    LpmTrie::with_max_entries(layout::ACCESS_CAPACITY, 0);

/// Only userspace inserts, so entries need not be allocated beforehand.
#[map]
pub static BANS: HashMap<u64, layout::Ban> =
    HashMap::with_max_entries(layout::BANS_CAPACITY, BPF_F_NO_PREALLOC);

/// Mappable memory begins a page, so that a set is a cache line.
#[map]
pub static BUCKETS: Array<table::Set> = Array::with_max_entries(table::SETS, BPF_F_MMAPABLE);

/// What the buckets of `BUCKETS` refused.
#[map]
pub static DROPS: Array<table::Drops> = Array::with_max_entries(layout::BUCKETS_CAPACITY, 0);

/// Limits of services, by the service.
#[map]
pub static SERVICE_LIMITS: Array<layout::Limits> =
    Array::with_max_entries(layout::SERVICE_LIMITS_CAPACITY, BPF_F_MMAPABLE);

/// Mapped by who asks what would become of a packet.
#[map]
pub static COARSE: Array<layout::Coarse> = Array::with_max_entries(layout::COARSE_SLOTS, BPF_F_MMAPABLE);

#[map]
pub static COUNTERS: PerCpuArray<layout::Counter> =
    PerCpuArray::with_max_entries(layout::COUNTERS_CAPACITY, 0);

/// Userspace's memory of which interface had which slot of `COUNTERS`.
#[map]
pub static SLOTS: Array<u32> = Array::with_max_entries(layout::INTERFACES as u32, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(layout::EVENTS_BYTES, 0);

#[map]
pub static STEER: HashMap<layout::SteerKey, layout::Workers> =
    HashMap::with_max_entries(layout::SOCKETS_CAPACITY, BPF_F_NO_PREALLOC);

#[map]
pub static SOCKETS: SockMap = SockMap::with_max_entries(layout::SOCKETS_CAPACITY, 0);

/// What is known of the packet at hand: what functions share, the stack has no room for.
#[map]
pub static PARSED: PerCpuArray<Parsed> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static SERVICES: Array<service::Place> = Array::with_max_entries(service::SERVICES_ENTRIES, 0);

#[map]
pub static VIPS: Array<service::Vip> = Array::with_max_entries(service::SERVICES_CAPACITY, 0);

/// A Maglev table a service and IP version, made by userspace and replaced whole: indexes of targets, four in a word.
#[btf_map]
pub static RINGS: btf_maps::ArrayOfMaps<
    btf_maps::Array<u64, { service::RING_WORDS as usize }>,
    { service::TABLES_CAPACITY as usize },
> = btf_maps::ArrayOfMaps::new();

#[map]
pub static TARGETS: Array<service::Target> = Array::with_max_entries(service::TARGETS_CAPACITY, 0);

#[map]
pub static SERVER_IDS: HashMap<u32, u32> =
    HashMap::with_max_entries(service::TARGETS_CAPACITY, BPF_F_NO_PREALLOC);

/// Sets of connections. Userspace sets how many. Mapped, an array begins on a page, so a set is one cache line.
#[map]
pub static FLOWS: Array<[u64; 8]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Sets of NAT's ways back. Userspace sets how many.
#[map]
pub static REPLIES: Array<[u64; 8]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The seed of keys, for whoever comes after the daemon that chose it.
#[map]
pub static FLOW_SEED: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub static TARGET_COUNTERS: PerCpuArray<service::TargetCounter> =
    PerCpuArray::with_max_entries(service::TARGETS_CAPACITY, 0);

#[map]
pub static HOPS: PerCpuArray<service::Hop> = PerCpuArray::with_max_entries(service::HOPS, 0);

/// Whose packets in packets `xdp_decap` takes out; IPv4 as mapped addresses.
#[map]
pub static DECAP_FROM: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(service::DECAP_CAPACITY, 0);

#[map]
pub static CAPTURE: Array<capture::Wanted> = Array::with_max_entries(1, 0);

#[map]
pub static CAPTURED: RingBuf = RingBuf::with_byte_size(capture::RING_BYTES, 0);

/// For `bench.rs`.
#[map]
pub static WRAP: Array<layout::Wrap> = Array::with_max_entries(1, 0);

/// The program that `bench_wrap` runs.
#[map]
pub static WRAPPED: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static SYN_GUARD: Array<syn::Guard> = Array::with_max_entries(1, 0);

#[map]
pub static SYN_STATE: Array<syn::State> = Array::with_max_entries(1, 0);

/// Where this host's listeners are; their window scales.
#[map]
pub static LISTENERS: HashMap<layout::SteerKey, u32> =
    HashMap::with_max_entries(layout::SOCKETS_CAPACITY, BPF_F_NO_PREALLOC);

/// Sets of sources that are where they say.
#[map]
pub static VERIFIED: Array<[u64; 8]> = Array::with_max_entries(syn::VERIFIED_SETS, BPF_F_MMAPABLE);

/// Where the programs of `probe.rs` leave their results.
#[map]
pub static PROBE: Array<[u64; 8]> = Array::with_max_entries(1, 0);
