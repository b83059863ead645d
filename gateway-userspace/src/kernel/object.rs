//! The BPF object: embedded at build time, loaded once, taken apart into typed maps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, SockMap, lpm_trie::Key},
};
use gateway_common::{
    capture,
    maps::{self as layout, name},
};

use super::{
    error::{KernelError, chain},
    pins::Pins,
};

/// The object, aligned as ELF wants it. Public for tests and benches, which run its probes.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway-ebpf"));

/// Every map that userspace touches.
pub struct Maps {
    pub settings: Array<MapData, layout::Switch>,
    pub access_v4: LpmTrie<MapData, [u8; 4], layout::Access>,
    pub access_v6: LpmTrie<MapData, [u8; 16], layout::Access>,
    pub bans: HashMap<MapData, u64, layout::Ban>,
    pub coarse: Array<MapData, layout::Coarse>,
    pub buckets: HashMap<MapData, u64, layout::Buckets>,
    pub counters: PerCpuArray<MapData, layout::Counter>,
    pub slots: Array<MapData, u32>,
    pub events: RingBuf<MapData>,
    pub steer: HashMap<MapData, layout::SteerKey, layout::Workers>,
    pub sockets: SockMap<MapData>,
    pub probe: Array<MapData, [u64; 8]>,
    pub capture: Array<MapData, capture::Wanted>,
    pub captured: RingBuf<MapData>,
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

/// Loads the object's maps, taking over those that are pinned.
pub fn load(pins: Option<&Pins>) -> Result<(Ebpf, Maps), KernelError> {
    let refused = |error: &dyn std::error::Error| KernelError::Load { program: "maps", why: chain(error) };
    let mut loader = EbpfLoader::new();
    if let Some(pins) = pins {
        for map in name::PINNED {
            loader.map_pin_path(map, pins.map(map));
        }
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| refused(&error))?;
    let mut taker = Taker { ebpf: &mut ebpf, fds: Vec::new() };
    let maps = Maps {
        settings: taker.take(name::SETTINGS)?,
        access_v4: taker.take(name::ACCESS_V4)?,
        access_v6: taker.take(name::ACCESS_V6)?,
        bans: taker.take(name::BANS)?,
        coarse: taker.take(name::COARSE)?,
        buckets: taker.take(name::BUCKETS)?,
        counters: taker.take(name::COUNTERS)?,
        slots: taker.take(name::SLOTS)?,
        events: taker.take(name::EVENTS)?,
        steer: taker.take(name::STEER)?,
        sockets: taker.take(name::SOCKETS)?,
        probe: taker.take(name::PROBE)?,
        capture: taker.take(capture::name::WANTED)?,
        captured: taker.take(capture::name::RING)?,
        fds: std::mem::take(&mut taker.fds),
    };
    Ok((ebpf, maps))
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
        | Map::SockMap(data) => Some(data),
        _ => None,
    }
}

/// A pinned map that is not of this layout, though the folder's version says so: whoever made it was a build
/// between two versions.
pub fn fits(pins: &Pins, map: &str) -> bool {
    let Ok(info) = aya::maps::MapInfo::from_pin(pins.map(map)) else { return true };
    let (key, value, entries) = match map {
        name::ACCESS_V4 => (8, size_of::<layout::Access>(), layout::ACCESS_CAPACITY),
        name::ACCESS_V6 => (20, size_of::<layout::Access>(), layout::ACCESS_CAPACITY),
        name::BANS => (8, size_of::<layout::Ban>(), layout::BANS_CAPACITY),
        name::BUCKETS => (8, size_of::<layout::Buckets>(), layout::BUCKETS_CAPACITY),
        name::COUNTERS => (4, size_of::<layout::Counter>(), layout::COUNTERS_CAPACITY),
        name::SLOTS => (4, 4, layout::INTERFACES as u32),
        _ => return true,
    };
    (info.key_size(), info.value_size(), info.max_entries()) == (key, value as u32, entries)
}
