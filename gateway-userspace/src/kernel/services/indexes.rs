//! Which index in the maps is whose.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use gateway_common::service::{self, ServiceKey, Target};

use crate::kernel::error::KernelError;

/// Which index in the maps is whose. They stay with what they stand for, over reloads and restarts, and what is gone keeps
/// its own while there is room: connections go by them.
#[derive(Debug, Default, Clone)]
pub struct Indexes {
    pub(super) services: BTreeMap<String, u16>,
    pub(super) vips: BTreeMap<ServiceKey, u16>,
    pub(super) targets: BTreeMap<(u16, SocketAddr), u16>,
    /// Targets that are gone from the config: their connections stay for as long as they last.
    pub(super) retired: BTreeMap<u16, Retired>,
    /// Services of an earlier run, by their addresses.
    pub(super) adopted: BTreeMap<ServiceKey, u16>,
    pub(super) next_service: u16,
    pub(super) next_vip: u16,
    pub(super) next_target: u16,
}

#[derive(Debug, Clone)]
pub(super) struct Retired {
    pub(super) target: Target,
    packets: u64,
    /// Nanoseconds of CLOCK_MONOTONIC: when its count was last seen to change.
    since: u64,
}

impl From<Target> for Retired {
    fn from(target: Target) -> Self {
        Self { target, packets: 0, since: 0 }
    }
}

/// Longer than the longest time a connection may be silent.
pub(super) const IDLE_NS: u64 = 8000 << 30;

impl Indexes {
    pub fn target(&self, service: &str, addr: SocketAddr) -> Option<u16> {
        self.targets.get(&(*self.services.get(service)?, addr)).copied()
    }

    pub fn name_of(&self, service: u16) -> Option<&str> {
        self.services.iter().find(|(_, index)| **index == service).map(|(name, _)| name.as_str())
    }

    pub fn retired(&self) -> impl Iterator<Item = u16> {
        self.retired.keys().copied()
    }

    /// Gives up targets that are gone and have had no packets for longer than a connection lives.
    pub fn forget_idle(&mut self, packets: &BTreeMap<u16, u64>, now: u64) {
        for (index, retired) in &mut self.retired {
            let count = packets.get(index).copied().unwrap_or_default();
            if count != retired.packets || retired.since == 0 {
                (retired.packets, retired.since) = (count, now);
            }
        }
        self.retired.retain(|_, retired| now.saturating_sub(retired.since) < IDLE_NS);
    }

    /// Which are taken.
    pub(super) fn used(&self) -> Used {
        let whose = |of: &Target| (of.service, SocketAddr::new(of.address.into(), of.port));
        let gone: BTreeMap<_, _> =
            self.retired.iter().map(|(index, retired)| (whose(&retired.target), *index)).collect();
        let services: BTreeSet<u16> = self.services.values().copied().collect();
        let of_targets = self.targets.keys().chain(gone.keys()).map(|(service, _)| *service);
        Used {
            kept: services.iter().chain(self.adopted.values()).copied().chain(of_targets).collect(),
            services,
            vips: self.vips.values().copied().collect(),
            targets: self.targets.values().chain(self.retired.keys()).copied().collect(),
            gone,
        }
    }

    pub(super) fn service(
        &mut self,
        name: &str,
        keys: &[ServiceKey],
        used: &mut Used,
    ) -> Result<u16, KernelError> {
        if let Some(index) = self.services.get(name) {
            return Ok(*index);
        }
        let adopted = keys.iter().find_map(|key| self.adopted.get(key)).copied();
        let capacity = service::RINGS_CAPACITY as u16;
        let index = adopted
            .filter(|index| !used.services.contains(index))
            .or_else(|| next(self.next_service, capacity, &used.kept))
            .or_else(|| next(self.next_service, capacity, &used.services))
            .ok_or(KernelError::TooManyServices {
                what: "services",
                capacity: service::RINGS_CAPACITY - 1,
            })?;
        self.next_service = index + 1;
        used.services.insert(index);
        used.kept.insert(index);
        self.services.insert(name.to_owned(), index);
        Ok(index)
    }

    pub(super) fn vip(&mut self, key: ServiceKey, used: &mut Used) -> Result<u16, KernelError> {
        if let Some(index) = self.vips.get(&key) {
            return Ok(*index);
        }
        let capacity = service::SERVICES_CAPACITY as u16;
        let index = next(self.next_vip, capacity, &used.vips).ok_or(KernelError::TooManyServices {
            what: "virtual addresses",
            capacity: service::SERVICES_CAPACITY - 1,
        })?;
        self.next_vip = index + 1;
        used.vips.insert(index);
        self.vips.insert(key, index);
        Ok(index)
    }

    pub(super) fn target_of(
        &mut self,
        service: u16,
        addr: SocketAddr,
        used: &mut Used,
    ) -> Result<u16, KernelError> {
        if let Some(index) = self.targets.get(&(service, addr)) {
            return Ok(*index);
        }
        if let Some(index) = used.gone.remove(&(service, addr)) {
            self.retired.remove(&index);
            self.targets.insert((service, addr), index);
            return Ok(index);
        }
        let capacity = service::TARGETS_CAPACITY as u16;
        let index = next(self.next_target, capacity, &used.targets).ok_or(KernelError::TooManyServices {
            what: "targets",
            capacity: service::TARGETS_CAPACITY - 1,
        })?;
        self.next_target = index + 1;
        used.targets.insert(index);
        self.targets.insert((service, addr), index);
        Ok(index)
    }

    /// Gives up services and addresses that are gone, where they would take half of the room.
    pub(super) fn make_room(&mut self, names: &BTreeSet<&str>, keys: &BTreeSet<ServiceKey>) {
        let more = names.iter().filter(|name| !self.services.contains_key(**name)).count();
        if self.services.len() + more > service::RINGS_CAPACITY as usize / 2 {
            self.services.retain(|name, _| names.contains(name.as_str()));
        }
        let more = keys.iter().filter(|key| !self.vips.contains_key(key)).count();
        if self.vips.len() + more > service::SERVICES_CAPACITY as usize / 2 {
            self.vips.retain(|key, _| keys.contains(key));
        }
    }
}

/// Indexes that are taken, once for a whole plan.
pub(super) struct Used {
    services: BTreeSet<u16>,
    /// These, and those of services that are gone, while targets of theirs are kept.
    kept: BTreeSet<u16>,
    vips: BTreeSet<u16>,
    targets: BTreeSet<u16>,
    /// Targets that are gone.
    gone: BTreeMap<(u16, SocketAddr), u16>,
}

/// An index that is free, onwards from `from`: one that was just given up rests for as long as possible.
fn next(from: u16, capacity: u16, used: &BTreeSet<u16>) -> Option<u16> {
    let all = (0..capacity).map(|step| (from + step) % capacity);
    all.into_iter().find(|index| *index != 0 && !used.contains(index))
}
