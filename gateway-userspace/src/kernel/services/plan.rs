//! From services to what the maps should hold: a pure function, but for the indexes that it gives out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{
    hash, maglev,
    maps::Limits,
    packet::{ICMP, ICMPV6, TCP, UDP},
    service::{self, Place, Service, ServiceKey, Target, Vip, mode, option, server_key, target_state},
    source::Address,
};

use super::{Owned, TargetState, indexes::Indexes, table};
use crate::{
    balance::SEED,
    config::model::{Bind, Forward, L4Balance, L4Protocol, LimitMode, ServiceLimit},
    kernel::{error::KernelError, object::Maps, settings},
};

/// What the maps hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plan {
    pub services: BTreeMap<ServiceKey, Service>,
    pub vips: BTreeMap<u16, Vip>,
    pub targets: BTreeMap<u16, Target>,
    pub rings: BTreeMap<u32, Vec<Member>>,
    pub server_ids: BTreeMap<u32, u32>,
    /// By service, at a load factor of 1.
    pub limits: BTreeMap<u16, Limits>,
}

/// A target in a Maglev table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub index: u16,
    pub weight: u32,
    /// Of its address: the same as in the balancers of userspace.
    pub identity: u64,
}

impl Plan {
    pub fn has_ipv6(&self) -> bool {
        self.targets.values().any(|target| !target.address.is_v4())
    }

    pub fn targets_new_since<'a>(&'a self, old: &'a Plan) -> impl Iterator<Item = &'a Target> {
        let known = |target: &Target| old.targets.values().any(|other| other.address == target.address);
        self.targets.values().filter(move |target| !known(target))
    }
}

/// The words of a Maglev table's map.
pub fn ring(members: &[Member]) -> Vec<u64> {
    let endpoints: Vec<(u64, u32)> = members.iter().map(|member| (member.identity, member.weight)).collect();
    let mut slots = vec![maglev::NONE; maglev::DEFAULT_SIZE];
    maglev::build(&endpoints, &mut slots);
    let index = |slot: &u16| members.get(usize::from(*slot)).map_or(0, |member| u64::from(member.index));
    slots
        .chunks(service::SLOTS_PER_WORD as usize)
        .map(|four| four.iter().enumerate().fold(0, |word, (at, slot)| word | index(slot) << (16 * at)))
        .collect()
}

/// What the maps should hold. `local`: our own address towards another.
pub fn plan(
    wanted: &[Owned],
    addresses: &[IpAddr],
    local: impl Fn(IpAddr) -> Option<IpAddr>,
    indexes: &mut Indexes,
) -> Result<Plan, KernelError> {
    let mut plan = Plan::default();
    let mut locals: BTreeMap<IpAddr, Option<IpAddr>> = BTreeMap::new();
    let names = wanted.iter().map(|owned| owned.name.as_str()).collect();
    indexes.make_room(&names, &wanted.iter().flat_map(|owned| keys(owned, addresses)).collect());
    let mut used = indexes.used();
    for owned in wanted {
        let keys = keys(owned, addresses);
        let index = indexes.service(&owned.name, &keys, &mut used)?;
        for v4 in keys.iter().map(ServiceKey::is_v4) {
            plan.rings.entry(service::ring_of(index, v4)).or_default();
        }
        for spec in &owned.targets {
            let target = indexes.target_of(index, spec.addr, &mut used)?;
            let ours = *locals.entry(spec.addr.ip()).or_insert_with(|| local(spec.addr.ip()));
            let state = match spec.state {
                // What has no route cannot be reached either.
                _ if ours.is_none() => target_state::DOWN,
                TargetState::Up => target_state::UP,
                TargetState::Draining => target_state::DRAINING,
                TargetState::Down => target_state::DOWN,
            };
            let ours = ours.map(Address::from).unwrap_or_default();
            let addr = spec.addr;
            plan.targets.insert(target, Target::new(addr.ip().into(), addr.port(), ours, index, state));
            if state == target_state::UP {
                let identity = hash::of_bytes(SEED, spec.addr.to_string().as_bytes());
                let member = Member { index: target, weight: spec.weight, identity };
                // One of the other IP version has no address that it could have packets of.
                if let Some(ring) = plan.rings.get_mut(&service::ring_of(index, spec.addr.is_ipv4())) {
                    ring.push(member);
                }
            }
            if let Some(id) = spec.server_id {
                plan.server_ids.insert(server_key(index, id), u32::from(target));
            }
        }
        let limit = owned.config.limit;
        let limits = settings::limits_of(limit.packets, limit.new, limit.bytes, LimitMode::Hard);
        if limits.is_on() {
            plan.limits.insert(index, limits);
        }
        for key in keys {
            let vip = indexes.vip(key, &mut used)?;
            plan.vips
                .insert(vip, Vip { address: Address { hi: key.hi, lo: key.lo }, port: key.port, _pad: 0 });
            plan.services.insert(key, entry(owned, index, &key, vip));
        }
        for address in owned.config.binds.iter().filter_map(|bind| match bind {
            Bind::Addr(addr) => Some(addr.ip()),
            Bind::Any(_) => None,
        }) {
            // An address of the host's own is answered for by its stack.
            if !addresses.contains(&address) {
                let protocol = if address.is_ipv4() { ICMP } else { ICMPV6 };
                let echo = Service { mode: mode::ECHO, ..Service::default() };
                plan.services.insert(ServiceKey::new(address.into(), 0, protocol), echo);
            }
        }
    }
    retire(&plan, local, indexes);
    for (index, retired) in &indexes.retired {
        plan.targets.insert(*index, retired.target);
    }
    indexes.adopted.clear();
    Ok(plan)
}

/// Keeps the targets that are in no service any more, for the connections that they have.
fn retire(plan: &Plan, local: impl Fn(IpAddr) -> Option<IpAddr>, indexes: &mut Indexes) {
    let gone: Vec<((u16, SocketAddr), u16)> = indexes
        .targets
        .iter()
        .filter(|(_, index)| !plan.targets.contains_key(index))
        .map(|(key, index)| (*key, *index))
        .collect();
    for ((service, addr), index) in gone {
        indexes.targets.remove(&(service, addr));
        let local = local(addr.ip()).map(Address::from).unwrap_or_default();
        let target = Target::new(addr.ip().into(), addr.port(), local, service, target_state::DRAINING);
        indexes.retired.insert(index, target.into());
    }
}

fn entry(owned: &Owned, index: u16, key: &ServiceKey, vip: u16) -> Service {
    let config = &owned.config;
    let forward = match config.forward {
        Forward::Nat => mode::NAT,
        Forward::Dsr => mode::DSR,
        Forward::Ipip => mode::IPIP,
        Forward::Gue => mode::GUE,
    };
    let mut options = 0;
    for (on, bit) in [
        (config.flows || config.forward == Forward::Nat, option::FLOWS),
        (config.balance == L4Balance::IpHash, option::IP_HASH),
        (config.quic, option::QUIC),
        (config.limit != ServiceLimit::default(), option::LIMITS),
    ] {
        options |= if on { bit } else { 0 };
    }
    let ring = service::ring_of(index, key.is_v4());
    Service { ring, vip, service: index, mode: forward, options, _pad: [0; 6] }
}

/// The addresses that a service is at.
fn keys(owned: &Owned, addresses: &[IpAddr]) -> Vec<ServiceKey> {
    let protocol = match owned.config.protocol {
        L4Protocol::Tcp => TCP,
        L4Protocol::Udp => UDP,
    };
    let served = |address: &IpAddr| owned.targets.iter().any(|t| t.addr.is_ipv4() == address.is_ipv4());
    let mut keys = Vec::new();
    for bind in &owned.config.binds {
        match bind {
            Bind::Addr(addr) => keys.push(ServiceKey::new(addr.ip().into(), addr.port(), protocol)),
            Bind::Any(port) => keys.extend(
                addresses
                    .iter()
                    .filter(|address| served(address))
                    .map(|address| ServiceKey::new((*address).into(), *port, protocol)),
            ),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What an earlier run left in the maps.
pub fn adopt(maps: &Maps, base: u32) -> Result<(Plan, Indexes), KernelError> {
    let mut plan = Plan::default();
    let mut indexes = Indexes { next_target: 1, next_vip: 1, ..Indexes::default() };
    for Place { key, service, .. } in table::read(maps, base)?.into_values() {
        plan.services.insert(key, service);
        if service.mode != mode::ECHO {
            indexes.vips.insert(key, service.vip);
            indexes.adopted.insert(key, service.service);
        }
    }
    if plan.services.is_empty() {
        return Ok((plan, indexes));
    }
    for index in 1..service::TARGETS_CAPACITY as u16 {
        let target =
            maps.targets.get(&u32::from(index), 0).map_err(KernelError::map(service::name::TARGETS))?;
        if target.state != target_state::UNUSED {
            plan.targets.insert(index, target);
            let addr = SocketAddr::new(target.address.into(), target.port);
            indexes.targets.insert((target.service, addr), index);
            indexes.next_target = index + 1;
        }
    }
    // Connections to addresses that are gone may still be there.
    for index in 1..service::SERVICES_CAPACITY as u16 {
        let vip = maps.vips.get(&u32::from(index), 0).map_err(KernelError::map(service::name::VIPS))?;
        if vip != Vip::default() {
            indexes.next_vip = index + 1;
        }
    }
    for (key, vip) in &indexes.vips {
        plan.vips.insert(*vip, Vip { address: Address { hi: key.hi, lo: key.lo }, port: key.port, _pad: 0 });
    }
    plan.server_ids = maps.server_ids.iter().flatten().collect();
    // Tables are made anew: what is in them does not say weights.
    Ok((plan, indexes))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
