//! L4 services: the config's services and their targets' states as the XDP program reads them.
//!
//! `plan` says what the maps should hold; this module makes them hold it by what differs, in an order in which no packet
//! finds a service that points to what is not there yet. `host` is what the network around needs.

mod host;
mod indexes;
mod plan;
mod rings;
mod table;
mod verify;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use aya::maps::PerCpuValues;
use gateway_common::{
    maps::{self as layout, Limits, Settings, flag},
    service::{self, TargetCounter, mode, name, target_state},
};
use serde::Serialize;

use super::{error::KernelError, object, object::Maps, plane::Loaded, sys, sysctls::Sysctls};
use crate::config::model;

pub use plan::Plan;
pub(super) use verify::{mode_name, target_addr};

/// A service as it should be.
#[derive(Debug, Clone)]
pub struct ServiceSpec<'a> {
    pub name: &'a str,
    pub config: &'a model::Service,
    /// Those of the config, with what health checks and operators say of them.
    pub targets: Vec<TargetSpec>,
}

/// A target as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetSpec {
    pub addr: SocketAddr,
    pub weight: u32,
    pub server_id: Option<u16>,
    pub state: TargetState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    Up,
    /// Keeps the connections it has and gets no new ones.
    Draining,
    /// Its connections go elsewhere.
    Down,
}

/// What a target of a service was sent, since the service was first configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceRow {
    pub service: String,
    pub target: String,
    pub packets: u64,
    pub bytes: u64,
    /// Connections given to it.
    pub connections: u64,
}

/// A service of the last call, to be planned again when the host's addresses or routes change.
#[derive(Debug, Clone)]
struct Owned {
    name: String,
    config: model::Service,
    targets: Vec<TargetSpec>,
}

/// Seconds between looks at the host's addresses and routes.
const LOOK_EVERY: u32 = 5;
/// Seconds between checks whether a target that is gone from the config still has connections.
const SWEEP_EVERY: u32 = 60;

/// Services as they are.
#[derive(Debug, Default)]
pub struct Services {
    wanted: Vec<Owned>,
    indexes: indexes::Indexes,
    /// What the maps hold.
    current: Plan,
    rings: rings::Rings,
    seed: u64,
    /// Where the half of `SERVICES` begins that counts.
    base: u32,
    sets: (u32, u32),
    sysctls: Sysctls,
    ticks: u32,
}

impl Services {
    /// Takes over what an earlier run left, if the maps are its.
    pub fn prepare(&mut self, maps: &mut Maps, flows: u32, seed: u64) -> Result<(), KernelError> {
        self.sets = object::flow_sets(flows);
        let failed = || KernelError::map(name::FLOW_SEED);
        self.seed = maps.flow_seed.get(&0, 0).map_err(failed())?;
        if self.seed == 0 {
            self.seed = seed | 1;
            maps.flow_seed.set(0, self.seed, 0).map_err(failed())?;
        }
        self.base = table::base(maps)?;
        (self.current, self.indexes) = plan::adopt(maps, self.base)?;
        Ok(())
    }

    /// What the program has to know of the services.
    pub fn settle(&self, settings: &mut Settings) {
        settings.flow_seed = self.seed;
        settings.services = self.base;
        settings.flows_mask = u64::from(self.sets.0) - 1;
        settings.replies_mask = u64::from(self.sets.1) - 1;
        settings.flags &= !flag::SERVICES;
        if self.is_on() {
            settings.flags |= flag::SERVICES;
        }
    }

    /// What the service's Maglev table has in a slot.
    pub(super) fn slot(&self, maps: &Maps, ring: u32, slot: u32) -> Option<u16> {
        let words = self.rings.words(maps, ring).ok()??;
        Some((words.get(slot as usize >> 2)? >> (16 * (slot & 3))) as u16)
    }

    /// Of the tables of connections and of replies.
    pub(super) fn sets(&self) -> (u32, u32) {
        self.sets
    }

    pub(super) fn service(&self, key: &service::ServiceKey) -> Option<service::Service> {
        self.current.services.get(key).copied()
    }

    pub(super) fn target(&self, index: u16) -> Option<&service::Target> {
        self.current.targets.get(&index)
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = (u16, &service::Target)> {
        self.current.targets.iter().map(|(index, target)| (*index, target))
    }

    fn is_on(&self) -> bool {
        !self.current.services.is_empty()
    }

    /// Those of every service, at a load factor of 1.
    pub fn limits(&self) -> impl Iterator<Item = &Limits> {
        self.current.limits.values()
    }

    /// Those of one, at a load factor of 1.
    pub fn limits_of(&self, service: u16) -> Limits {
        self.current.limits.get(&service).copied().unwrap_or_default()
    }

    pub fn name_of(&self, service: u16) -> Option<&str> {
        self.indexes.name_of(service)
    }

    /// Writes the limits of every service, scaled, to the half of their map that begins at `base`.
    pub fn write_limits(&self, maps: &mut Maps, base: u32, factor: f64) -> Result<(), KernelError> {
        for (index, limits) in &self.current.limits {
            let limits = limits.scaled(factor);
            let failed = KernelError::map(layout::name::SERVICE_LIMITS);
            maps.service_limits.set(base + u32::from(*index), limits, 0).map_err(failed)?;
        }
        Ok(())
    }

    pub fn changed_settings(&self) -> BTreeMap<PathBuf, String> {
        self.sysctls.changed()
    }

    pub fn inherit_settings(&mut self, changed: BTreeMap<PathBuf, String>) {
        self.sysctls.inherit(changed);
    }

    /// Puts back what was changed of the host.
    pub fn leave(&mut self) {
        self.sysctls.restore();
    }
}

impl Loaded {
    pub fn set_services(&mut self, services: &[ServiceSpec<'_>]) -> Result<(), KernelError> {
        let wanted: Vec<Owned> = services
            .iter()
            .map(|spec| Owned {
                name: spec.name.to_owned(),
                config: spec.config.clone(),
                targets: spec.targets.clone(),
            })
            .collect();
        self.apply_services(&wanted)?;
        self.services.wanted = wanted;
        Ok(())
    }

    fn apply_services(&mut self, wanted: &[Owned]) -> Result<(), KernelError> {
        let interfaces: Vec<&str> = self.attached.iter().map(|attached| attached.name.as_str()).collect();
        let addresses = sys::addresses(&interfaces);
        let mut indexes = self.services.indexes.clone();
        let next = plan::plan(wanted, &addresses, host::local_for, &mut indexes)?;
        if next != self.services.current {
            if !next.services.is_empty() {
                host::let_forward(&mut self.services.sysctls, &interfaces, next.has_ipv6());
            }
            if next.services.values().any(|service| service.mode == mode::NAT) {
                host::reserve_ports(&mut self.services.sysctls);
            }
            host::wake_neighbours(next.targets_new_since(&self.services.current));
            self.write_services(&next)?;
            if next.services != self.services.current.services {
                let other = table::other(self.services.base);
                table::write(&mut self.maps, other, &table::places(&next.services, self.services.seed)?)?;
                self.services.base = other;
            }
            let old = std::mem::replace(&mut self.services.current, next);
            self.settle_services()?;
            self.forget_services(&old)?;
        }
        self.services.indexes = indexes;
        self.settle_services()
    }

    /// Tells the program of the tables that count now.
    fn settle_services(&mut self) -> Result<(), KernelError> {
        let mut settings = self.settings;
        self.services.settle(&mut settings);
        settings.clock = self.clock_for(&self.limits);
        if settings != self.settings {
            self.switch(settings)?;
            table::set_base(&mut self.maps, settings.services)?;
        }
        Ok(())
    }

    /// Makes the maps hold `next`: targets, then tables that point to them, then services that point to tables. A target
    /// that goes down does so after it has left the tables: new connections never meet it there.
    fn write_services(&mut self, next: &Plan) -> Result<(), KernelError> {
        let (old, maps) = (&self.services.current, &mut self.maps);
        for (index, limits) in next.limits.iter().filter(|(index, l)| old.limits.get(*index) != Some(*l)) {
            let index = self.settings.service_limits + u32::from(*index);
            let failed = KernelError::map(layout::name::SERVICE_LIMITS);
            maps.service_limits.set(index, limits.scaled(self.load_factor), 0).map_err(failed)?;
        }
        let changed = next.targets.iter().filter(|(index, t)| old.targets.get(*index) != Some(*t));
        let (down, rest): (Vec<_>, Vec<_>) =
            changed.partition(|(index, t)| t.state == target_state::DOWN && old.targets.contains_key(*index));
        for (index, target) in rest {
            if !old.targets.contains_key(index) {
                reset_counter(maps, *index)?;
            }
            maps.targets.set(u32::from(*index), target, 0).map_err(KernelError::map(name::TARGETS))?;
        }
        for (index, vip) in next.vips.iter().filter(|(index, vip)| old.vips.get(*index) != Some(*vip)) {
            maps.vips.set(u32::from(*index), vip, 0).map_err(KernelError::map(name::VIPS))?;
        }
        for (key, target) in next.server_ids.iter().filter(|(k, t)| old.server_ids.get(*k) != Some(*t)) {
            maps.server_ids.insert(key, target, 0).map_err(KernelError::map(name::SERVER_IDS))?;
        }
        for (ring, members) in next.rings.iter().filter(|(ring, m)| old.rings.get(*ring) != Some(*m)) {
            self.services.rings.put(maps, *ring, members)?;
        }
        self.services.rings.keep_those_of(next);
        for (index, target) in down {
            maps.targets.set(u32::from(*index), target, 0).map_err(KernelError::map(name::TARGETS))?;
        }
        Ok(())
    }

    /// Takes out what no service points to any more.
    fn forget_services(&mut self, old: &Plan) -> Result<(), KernelError> {
        let (next, maps) = (&self.services.current, &mut self.maps);
        for key in old.server_ids.keys().filter(|key| !next.server_ids.contains_key(*key)) {
            let _ = maps.server_ids.remove(key);
        }
        for index in old.targets.keys().filter(|index| !next.targets.contains_key(*index)) {
            let unused = service::Target::default();
            maps.targets.set(u32::from(*index), unused, 0).map_err(KernelError::map(name::TARGETS))?;
        }
        Ok(())
    }

    pub fn service_rows(&self) -> Vec<ServiceRow> {
        let mut rows = Vec::new();
        for owned in &self.services.wanted {
            for target in &owned.targets {
                let Some(index) = self.services.indexes.target(&owned.name, target.addr) else { continue };
                let count = self.target_count(index);
                rows.push(ServiceRow {
                    service: owned.name.clone(),
                    target: target.addr.to_string(),
                    packets: count.packets,
                    bytes: count.bytes,
                    connections: count.connections,
                });
            }
        }
        rows
    }

    fn target_count(&self, index: u16) -> TargetCounter {
        let Ok(cpus) = self.maps.target_counters.get(&u32::from(index), 0) else {
            return TargetCounter::default();
        };
        cpus.iter().fold(TargetCounter::default(), |sum, cpu| TargetCounter {
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
            connections: sum.connections + cpu.connections,
        })
    }

    /// Every second: addresses and routes of the host may have changed, and connections of targets that are gone end.
    pub(super) fn tend_services(&mut self) {
        if !self.services.is_on() {
            return;
        }
        self.services.ticks = self.services.ticks.wrapping_add(1);
        if self.services.ticks.is_multiple_of(LOOK_EVERY) {
            let wanted = std::mem::take(&mut self.services.wanted);
            if let Err(error) = self.apply_services(&wanted) {
                tracing::warn!("kernel: services: {error}");
            }
            self.services.wanted = wanted;
            host::wake_neighbours(self.services.current.targets.values());
        }
        if self.services.ticks.is_multiple_of(SWEEP_EVERY) {
            let counts: BTreeMap<u16, u64> = self
                .services
                .indexes
                .retired()
                .map(|index| (index, self.target_count(index).packets))
                .collect();
            self.services.indexes.forget_idle(&counts, sys::monotonic_ns());
        }
    }
}

fn reset_counter(maps: &mut Maps, index: u16) -> Result<(), KernelError> {
    let failed = |why: String| KernelError::Map { map: name::TARGET_COUNTERS, why };
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| failed(format!("{path}: {error}")))?;
    let zero = PerCpuValues::try_from(vec![TargetCounter::default(); cpus])
        .map_err(|error| failed(error.to_string()))?;
    maps.target_counters.set(u32::from(index), zero, 0).map_err(KernelError::map(name::TARGET_COUNTERS))
}
