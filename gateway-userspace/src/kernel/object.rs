//! The BPF object: embedded at build time, loaded once, taken apart into typed maps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, SockMap, lpm_trie::Key,
    },
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use gateway_common::{
    capture,
    maps::{self as layout, name},
    service, syn, table,
};

use super::{
    error::{KernelError, chain},
    pins::Pins,
};

/// The object, aligned as ELF wants it. Public for tests and benches, which run its probes.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway-ebpf"));

/// Names of all maps that are pinned.
pub fn pinned() -> impl Iterator<Item = &'static str> {
    name::PINNED.iter().chain(service::name::PINNED).copied()
}

/// Every map that userspace touches.
pub struct Maps {
    pub settings: Array<MapData, layout::Switch>,
    pub access_v4: LpmTrie<MapData, [u8; 4], layout::Access>,
    pub access_v6: LpmTrie<MapData, [u8; 16], layout::Access>,
    pub bans: HashMap<MapData, u64, layout::Ban>,
    pub coarse: Array<MapData, layout::Coarse>,
    pub buckets: Array<MapData, table::Set>,
    pub drops: Array<MapData, table::Drops>,
    pub service_limits: Array<MapData, layout::Limits>,
    pub counters: PerCpuArray<MapData, layout::Counter>,
    pub slots: Array<MapData, u32>,
    pub events: RingBuf<MapData>,
    pub steer: HashMap<MapData, layout::SteerKey, layout::Workers>,
    pub sockets: SockMap<MapData>,
    pub probe: Array<MapData, [u64; 8]>,
    pub capture: Array<MapData, capture::Wanted>,
    pub captured: RingBuf<MapData>,
    pub services: Array<MapData, service::Place>,
    pub vips: Array<MapData, service::Vip>,
    pub rings: ArrayOfMaps<MapData, MapData>,
    pub targets: Array<MapData, service::Target>,
    pub server_ids: HashMap<MapData, u32, u32>,
    pub flows: Array<MapData, [u64; 8]>,
    pub replies: Array<MapData, [u64; 8]>,
    pub flow_seed: Array<MapData, u64>,
    pub target_counters: PerCpuArray<MapData, service::TargetCounter>,
    pub syn_guard: Array<MapData, syn::Guard>,
    pub syn_state: Array<MapData, syn::State>,
    pub listeners: HashMap<MapData, layout::SteerKey, u32>,
    /// Of all maps, for what the typed ones do not offer.
    pub fds: Vec<(&'static str, OwnedFd)>,
}

pub type KeyV4 = Key<[u8; 4]>;
pub type KeyV6 = Key<[u8; 16]>;

impl Maps {
    pub fn fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.fds.iter().find(|(map, _)| *map == name).map(|(_, fd)| fd.as_fd())
    }
}

/// Sets of the tables of connections and of replies for so many connections: half full, the first refuses hardly any;
/// of a reply's four tries for a place one is enough.
pub fn flow_sets(flows: u32) -> (u32, u32) {
    let flows = flows.next_power_of_two();
    (flows / 2, flows)
}

/// Loads the object's maps, taking over those that are pinned.
pub fn load(pins: Option<&Pins>, flows: u32) -> Result<(Ebpf, Maps), KernelError> {
    let shared: Vec<&str> = pinned().collect();
    load_sharing(pins, &shared, flows)
}

/// Loads the object's maps, taking over these of those that are pinned; the others are its own.
pub fn load_sharing(
    pins: Option<&Pins>,
    shared: &[&'static str],
    flows: u32,
) -> Result<(Ebpf, Maps), KernelError> {
    let refused = |error: &dyn std::error::Error| KernelError::Load { program: "maps", why: chain(error) };
    let mut loader = EbpfLoader::new();
    let cookies = u32::from(has_syn_helpers());
    loader.override_global("SYN_HELPERS", &cookies, true);
    if let Some(pins) = pins {
        for map in shared {
            loader.map_pin_path(map, pins.map(map));
        }
    }
    let (flows, replies) = flow_sets(flows);
    loader.map_max_entries(service::name::FLOWS, flows);
    loader.map_max_entries(service::name::REPLIES, replies);
    let mut ebpf = loader.load(OBJECT).map_err(|error| refused(&error))?;
    let mut taker = Taker { ebpf: &mut ebpf, fds: Vec::new() };
    let maps = Maps {
        settings: taker.take(name::SETTINGS)?,
        access_v4: taker.take(name::ACCESS_V4)?,
        access_v6: taker.take(name::ACCESS_V6)?,
        bans: taker.take(name::BANS)?,
        coarse: taker.take(name::COARSE)?,
        buckets: taker.take(name::BUCKETS)?,
        drops: taker.take(name::DROPS)?,
        service_limits: taker.take(name::SERVICE_LIMITS)?,
        counters: taker.take(name::COUNTERS)?,
        slots: taker.take(name::SLOTS)?,
        events: taker.take(name::EVENTS)?,
        steer: taker.take(name::STEER)?,
        sockets: taker.take(name::SOCKETS)?,
        probe: taker.take(name::PROBE)?,
        capture: taker.take(capture::name::WANTED)?,
        captured: taker.take(capture::name::RING)?,
        services: taker.take(service::name::SERVICES)?,
        vips: taker.take(service::name::VIPS)?,
        rings: taker.take(service::name::RINGS)?,
        targets: taker.take(service::name::TARGETS)?,
        server_ids: taker.take(service::name::SERVER_IDS)?,
        flows: taker.take(service::name::FLOWS)?,
        replies: taker.take(service::name::REPLIES)?,
        flow_seed: taker.take(service::name::FLOW_SEED)?,
        target_counters: taker.take(service::name::TARGET_COUNTERS)?,
        syn_guard: taker.take(syn::name::GUARD)?,
        syn_state: taker.take(syn::name::STATE)?,
        listeners: taker.take(syn::name::LISTENERS)?,
        fds: std::mem::take(&mut taker.fds),
    };
    Ok((ebpf, maps))
}

/// Whether XDP programs can make SYN cookies (Linux 6.0, CONFIG_SYN_COOKIES).
pub fn has_syn_helpers() -> bool {
    is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4).unwrap_or(false)
}

struct Taker<'a> {
    ebpf: &'a mut Ebpf,
    fds: Vec<(&'static str, OwnedFd)>,
}

impl Taker<'_> {
    fn take<M: TryFrom<Map, Error = aya::maps::MapError>>(
        &mut self,
        map: &'static str,
    ) -> Result<M, KernelError> {
        let failed = |why: String| KernelError::Map { map, why };
        let taken = self.ebpf.take_map(map).ok_or_else(|| failed("it is not in the object".into()))?;
        if let Some(data) = data(&taken) {
            let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| failed(error.to_string()))?;
            self.fds.push((map, fd));
        }
        M::try_from(taken).map_err(KernelError::map(map))
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::ArrayOfMaps(data)
        | Map::SockMap(data) => Some(data),
        _ => None,
    }
}

/// A pinned map that is not of this layout, though the folder's version says so: whoever made it was a build
/// between two versions.
pub fn fits(pins: &Pins, map: &str, flows: u32) -> bool {
    let Ok(info) = aya::maps::MapInfo::from_pin(pins.map(map)) else { return true };
    let (key, value, entries) = match map {
        name::ACCESS_V4 => (8, size_of::<layout::Access>(), layout::ACCESS_CAPACITY),
        name::ACCESS_V6 => (20, size_of::<layout::Access>(), layout::ACCESS_CAPACITY),
        name::BANS => (8, size_of::<layout::Ban>(), layout::BANS_CAPACITY),
        name::BUCKETS => (4, size_of::<table::Set>(), table::SETS),
        name::DROPS => (4, size_of::<table::Drops>(), layout::BUCKETS_CAPACITY),
        name::COUNTERS => (4, size_of::<layout::Counter>(), layout::COUNTERS_CAPACITY),
        name::SLOTS => (4, 4, layout::INTERFACES as u32),
        service::name::SERVICES => (4, size_of::<service::Place>(), service::SERVICES_ENTRIES),
        service::name::VIPS => (4, size_of::<service::Vip>(), service::SERVICES_CAPACITY),
        service::name::RINGS => (4, 4, service::TABLES_CAPACITY),
        service::name::TARGETS => (4, size_of::<service::Target>(), service::TARGETS_CAPACITY),
        service::name::SERVER_IDS => (4, 4, service::TARGETS_CAPACITY),
        service::name::FLOWS => (4, 64, flow_sets(flows).0),
        service::name::REPLIES => (4, 64, flow_sets(flows).1),
        service::name::FLOW_SEED => (4, 8, 1),
        service::name::TARGET_COUNTERS => (4, size_of::<service::TargetCounter>(), service::TARGETS_CAPACITY),
        _ => return true,
    };
    (info.key_size(), info.value_size(), info.max_entries()) == (key as u32, value as u32, entries)
}
