//! Every map, once. Keys, values and capacities are `gateway_common::maps`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockMap},
};
use gateway_common::maps as layout;

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

#[map]
pub static BUCKETS: LruHashMap<u64, layout::Buckets> =
    LruHashMap::with_max_entries(layout::BUCKETS_CAPACITY, 0);

#[map]
pub static COARSE: Array<layout::Coarse> = Array::with_max_entries(layout::COARSE_SLOTS, 0);

/// The word of the bucket of new sources.
#[map]
pub static BUDGET: Array<u64> = Array::with_max_entries(1, 0);

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

/// Where the programs of `probe.rs` leave their results.
#[map]
pub static PROBE: Array<[u64; 8]> = Array::with_max_entries(1, 0);
