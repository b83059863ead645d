//! The kernel's half of the comparison: the loaded programs, and their maps by way of the pins.

use std::{cell::Cell, collections::BTreeMap, io, os::fd::AsFd as _, path::PathBuf, ptr::NonNull, rc::Rc};

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use gateway::{
    config::model,
    kernel::{KernelPlane, Runner},
};
use gateway_common::{
    maps::LAYOUT_VERSION,
    service::{Place, SERVICE_PLACES, SERVICES_ENTRIES, Target, TargetCounter, Vip, name},
};
use std::os::fd::AsRawFd as _;

use crate::{
    kernel_support::{config, lab::Lab},
    model::{Sets, Written},
    network,
};

/// More targets than the tests configure, those of earlier rounds included.
pub const TARGETS: u32 = 1024;
/// The seed of connections' keys: the same in every run, so that a failure comes again.
const SEED: u64 = 0x5eed_0000_0000_0007;

pub struct Kernel {
    pub plane: KernelPlane,
    /// Returns the reason and the interface; returns the action.
    pub explain: Runner,
    pub gateway: Runner,
    pub flows: Shared,
    pub replies: Shared,
    folder: PathBuf,
}

impl Kernel {
    /// On `network::IN`, with room for so many connections.
    pub fn start(lab: &Lab, flows: u32) -> Self {
        let cfg = model::Kernel { interfaces: vec![network::IN.into()], pin: lab.pin(), flows, ..config() };
        let folder = lab.pin().join(format!("v{LAYOUT_VERSION}"));
        // The next start takes the seed over that this one left.
        KernelPlane::start(&cfg).unwrap().stop();
        let seed = MapData::from_pin(folder.join(name::FLOW_SEED)).unwrap();
        Array::<_, u64>::try_from(Map::Array(seed)).unwrap().set(0, SEED, 0).unwrap();
        let plane = KernelPlane::start(&cfg).unwrap();
        assert_eq!(plane.status().interfaces[0].mode, "native", "{:?}", plane.status());
        let (explain, gateway) = (plane.runner("probe_explain"), plane.runner("xdp_gateway"));
        let map = |map: &str| MapData::from_pin(folder.join(map)).unwrap();
        let (flows, replies) = (Shared::new(&map(name::FLOWS)), Shared::new(&map(name::REPLIES)));
        Self { plane, explain: explain.unwrap(), gateway: gateway.unwrap(), flows, replies, folder }
    }

    fn map(&self, map: &str) -> MapData {
        MapData::from_pin(self.folder.join(map)).unwrap()
    }

    pub fn seed(&self) -> u64 {
        Array::<_, u64>::try_from(Map::Array(self.map(name::FLOW_SEED))).unwrap().get(&0, 0).unwrap()
    }

    /// What userspace wrote.
    pub fn written(&self) -> Written {
        let places = Array::<_, Place>::try_from(Map::Array(self.map(name::SERVICES))).unwrap();
        let base = places.get(&(SERVICES_ENTRIES - 1), 0).unwrap().key.lo as u32;
        let services: BTreeMap<_, _> = (base..base + SERVICE_PLACES)
            .map(|at| places.get(&at, 0).unwrap())
            .filter(|place| place.key.protocol != 0)
            .map(|place| (place.key, place.service))
            .collect();
        let vips = Array::<_, Vip>::try_from(Map::Array(self.map(name::VIPS))).unwrap();
        let targets = Array::<_, Target>::try_from(Map::Array(self.map(name::TARGETS))).unwrap();
        let ids = HashMap::<_, u32, u32>::try_from(Map::HashMap(self.map(name::SERVER_IDS))).unwrap();
        let rings = ArrayOfMaps::<_, MapData>::try_from(Map::ArrayOfMaps(self.map(name::RINGS))).unwrap();
        let ring = |index: u32| Array::<_, u64>::try_from(Map::Array(rings.get(&index, 0).unwrap())).unwrap();
        let used = services.values().filter(|service| service.vip != 0).map(|service| service.ring);
        Written {
            rings: used.map(|index| (index, ring(index))).collect(),
            vips: (0..256).map(|index| vips.get(&index, 0).unwrap()).collect(),
            targets: (0..TARGETS).map(|index| targets.get(&index, 0).unwrap()).collect(),
            server_ids: ids.iter().map(Result::unwrap).collect(),
            services,
        }
    }

    /// Packets, bytes and connections by target.
    pub fn counts(&self) -> BTreeMap<u16, [u64; 3]> {
        let counters =
            PerCpuArray::<_, TargetCounter>::try_from(Map::PerCpuArray(self.map(name::TARGET_COUNTERS)))
                .unwrap();
        let sum = |cpus: PerCpuValues<TargetCounter>| {
            cpus.iter().fold([0; 3], |[packets, bytes, connections], cpu| {
                [packets + cpu.packets, bytes + cpu.bytes, connections + cpu.connections]
            })
        };
        (0..TARGETS).map(|index| (index as u16, sum(counters.get(&index, 0).unwrap()))).collect()
    }
}

/// A table that the programs work on, in our memory.
pub struct Shared {
    at: NonNull<u64>,
    words: usize,
}

impl Shared {
    fn new(map: &MapData) -> Self {
        let words = map.info().unwrap().max_entries() as usize * 8;
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, map.fd().as_fd().as_raw_fd());
        // SAFETY: a new mapping where there is room for it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), words * 8, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self { at: NonNull::new(at.cast()).unwrap(), words }
    }

    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        // SAFETY: within the mapping. Volatile: programs write to it.
        (0..self.words).map(|at| unsafe { self.at.as_ptr().add(at).read_volatile() })
    }

    pub fn set(&self, at: usize, word: u64) {
        assert!(at < self.words);
        // SAFETY: within the mapping.
        unsafe { self.at.as_ptr().add(at).write_volatile(word) };
    }

    pub fn copy(&self) -> Sets {
        Sets(Rc::new(self.words().map(Cell::new).collect()))
    }

    pub fn is(&self, other: &Sets) -> bool {
        self.words().eq(other.0.iter().map(Cell::get))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody uses it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.words * 8) };
    }
}
