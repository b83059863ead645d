//! The host's half of the comparison: `gateway_common::forward` over copies of the very tables that the kernel has.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use aya::maps::{Array, MapData};
use gateway_common::{
    flow::{Table, Words},
    forward::{self, NextHop, Outcome, Tables, found},
    packet::{self, PacketMut, Parsed, bit},
    service::{NAT_PORTS, Service, ServiceKey, Target, Vip, server_key},
    source::Address,
    verdict::Reason,
};

use crate::network;

/// A table of sets of eight words.
#[derive(Clone, Default)]
pub struct Sets(pub Rc<Vec<Cell<u64>>>);

impl Table for Sets {
    type Set = Set;
    fn mask(&self) -> u64 {
        self.0.len() as u64 / 8 - 1
    }
    fn set(&self, index: u64) -> Option<Set> {
        Some(Set(self.clone(), index as usize * 8))
    }
}

pub struct Set(Sets, usize);

impl Words for Set {
    fn load(&self, at: usize) -> u64 {
        self.0.0[self.1 + at].get()
    }
    fn store(&self, at: usize, value: u64) {
        self.0.0[self.1 + at].set(value);
    }
    fn replace(&self, at: usize, old: u64, new: u64) -> bool {
        let found = self.load(at) == old;
        if found {
            self.store(at, new);
        }
        found
    }
}

/// What the maps hold that userspace writes.
#[derive(Default)]
pub struct Written {
    pub services: BTreeMap<ServiceKey, Service>,
    pub vips: Vec<Vip>,
    pub targets: Vec<Target>,
    /// Looked up where a packet's hash says, as the program does it.
    pub rings: BTreeMap<u32, Array<MapData, u64>>,
    pub server_ids: BTreeMap<u32, u32>,
}

#[derive(Default)]
pub struct Model {
    pub written: Written,
    pub flows: Sets,
    pub replies: Sets,
    pub seed: u64,
    pub second: u64,
    /// Where packets come in, and the other interface.
    pub ifindexes: (u32, u32),
    /// Packets, bytes and connections by target.
    pub counts: RefCell<BTreeMap<u16, [u64; 3]>>,
}

impl Model {
    /// What becomes of a packet, in the order of `gateway-ebpf/src/xdp.rs`, without lists and limits. Zero as the
    /// interface is the one that it came by.
    pub fn judge(&self, packet: &mut Vec<u8>) -> Outcome {
        let mut parsed = Parsed::default();
        if let Err(reason) = packet::parse(packet, false, &mut parsed) {
            return reason.into();
        }
        let outcome = self.forward(packet, &parsed).unwrap_or(Reason::Ok.into());
        let back = outcome.ifindex == self.ifindexes.0;
        Outcome { ifindex: if back { 0 } else { outcome.ifindex }, ..outcome }
    }

    /// The mode of the service that a packet is sent to, and its IP version.
    pub fn kind_of(&self, frame: &[u8]) -> Option<(u8, bool)> {
        let mut parsed = Parsed::default();
        packet::parse(frame, false, &mut parsed).ok()?;
        let key = ServiceKey::new(parsed.destination, parsed.destination_port, parsed.protocol);
        Some((self.written.services.get(&key)?.mode, parsed.source.is_v4()))
    }

    fn forward(&self, packet: &mut Vec<u8>, parsed: &Parsed) -> Option<Outcome> {
        if parsed.bits & bit::PORTS == 0 {
            return forward::related(packet, self, parsed);
        }
        let key = ServiceKey::new(parsed.destination, parsed.destination_port, parsed.protocol);
        match self.written.services.get(&key) {
            Some(service) => Some(forward::to_target(packet, self, parsed, service)),
            None if NAT_PORTS.contains(&parsed.destination_port) => forward::reply(packet, self, parsed),
            None => None,
        }
    }
}

impl Tables for Model {
    type Flows = Sets;
    type Replies = Sets;
    fn seed(&self) -> u64 {
        self.seed
    }
    fn second(&self) -> u64 {
        self.second
    }
    fn flows(&self) -> &Sets {
        &self.flows
    }
    fn replies(&self) -> &Sets {
        &self.replies
    }
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.written.services.get(key).copied()
    }
    fn vip(&self, index: u16) -> Option<&Vip> {
        self.written.vips.get(usize::from(index))
    }
    fn slot(&self, ring: u32, slot: u32) -> u16 {
        let word = self.written.rings.get(&ring).map(|words| words.get(&(slot / 4), 0).unwrap());
        word.map_or(0, |word| (word >> (slot % 4 * 16)) as u16)
    }
    fn server(&self, service: u16, id: u16) -> Option<u16> {
        self.written.server_ids.get(&server_key(service, id)).map(|index| *index as u16)
    }
    fn target(&self, index: u16) -> Option<&Target> {
        self.written.targets.get(usize::from(index))
    }
    fn count(&self, target: u16, bytes: u32, connection: bool) {
        let mut counts = self.counts.borrow_mut();
        let [packets, all, connections] = counts.entry(target).or_default();
        if connection {
            *connections += 1;
        } else {
            *packets += 1;
            *all += u64::from(bytes);
        }
    }
    fn next_hop(&self, destination: Address) -> NextHop {
        network::next_hop(destination, self.ifindexes)
    }
    /// So that packets go the long way here and the quick one in the program, which must do the same.
    fn known_hop(&self, _: &Target) -> NextHop {
        NextHop::without(found::NOTHING)
    }
    fn claim_port(&self, parsed: &Parsed, target: u16, vip: u16, port: u16) -> bool {
        let target = &self.written.targets[usize::from(target)];
        forward::claim_port(&self.replies, (self.seed, self.second), parsed, target, vip, port)
    }
    fn too_big<P: PacketMut>(&self, packet: &mut P, parsed: &Parsed, mtu: u32) -> Reason {
        forward::too_big(packet, parsed, mtu)
    }
}
