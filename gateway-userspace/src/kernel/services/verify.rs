//! The maps of services, read back: see `kernel::verify`.

use std::{collections::HashMap, net::SocketAddr};

use gateway_common::maps as layout;
use gateway_common::service::{
    Place, Service, ServiceKey, Target, Vip, mode, name, ring_service, server_key, target_state,
};

use super::{Loaded, plan, table};
use crate::kernel::{
    error::KernelError,
    verify::{VerifyReport, differing, entries, show_limits, shown},
};

impl Loaded {
    /// Services, virtual addresses, targets, server ids and every slot of every Maglev table.
    pub(in crate::kernel) fn verify_services(
        &mut self,
        repair: bool,
        report: &mut VerifyReport,
    ) -> Result<(), KernelError> {
        self.verify_targets(repair, report)?;
        self.verify_vips(repair, report)?;
        self.verify_server_ids(repair, report)?;
        self.verify_rings(repair, report)?;
        self.verify_limits(repair, report)?;
        let base = self.services.base;
        let is: HashMap<u32, Place> = table::read(&self.maps, base)?.into_iter().collect();
        report.checked += is.len();
        let should: HashMap<u32, Place> =
            table::places(&self.services.current.services, self.services.seed)?.into_iter().collect();
        for (at, is, should) in differing(&is, &should) {
            let show = |place: Place| self.show_service(place.service);
            let key = should.or(is).map_or(ServiceKey::default(), |place| place.key);
            report.add(name::SERVICES, show_key(&key), shown(is, show), shown(should, show));
            if repair {
                let place = should.unwrap_or_default();
                self.maps.services.set(base + at, place, 0).map_err(KernelError::map(name::SERVICES))?;
            }
        }
        Ok(())
    }

    fn verify_targets(&mut self, repair: bool, report: &mut VerifyReport) -> Result<(), KernelError> {
        let mut is: HashMap<u32, Target> = entries(&self.maps, name::TARGETS)?;
        report.checked += is.len();
        is.retain(|_, target| *target != Target::default());
        let wanted = &self.services.current.targets;
        let should = wanted.iter().map(|(index, target)| (u32::from(*index), *target)).collect();
        for (index, is, should) in differing(&is, &should) {
            let show = |target| self.show_target(&target);
            report.add(name::TARGETS, index.to_string(), shown(is, show), shown(should, show));
            if repair {
                let target = should.unwrap_or_default();
                self.maps.targets.set(index, target, 0).map_err(KernelError::map(name::TARGETS))?;
            }
        }
        Ok(())
    }

    /// Those of services that have some: what the others' places hold is not looked at.
    fn verify_limits(&mut self, repair: bool, report: &mut VerifyReport) -> Result<(), KernelError> {
        let base = self.settings.service_limits;
        let failed = || KernelError::map(layout::name::SERVICE_LIMITS);
        for (index, should) in &self.services.current.limits {
            let (at, should) = (base + u32::from(*index), should.scaled(self.load_factor));
            report.checked += 1;
            let is = self.maps.service_limits.get(&at, 0).map_err(failed())?;
            if is == should {
                continue;
            }
            let (is, wanted) = (show_limits(&is), show_limits(&should));
            report.add(layout::name::SERVICE_LIMITS, self.service_label(*index), is, wanted);
            if repair {
                self.maps.service_limits.set(at, should, 0).map_err(failed())?;
            }
        }
        Ok(())
    }

    /// Those of services; others are kept for replies that may still come.
    fn verify_vips(&mut self, repair: bool, report: &mut VerifyReport) -> Result<(), KernelError> {
        let is: HashMap<u32, Vip> = entries(&self.maps, name::VIPS)?;
        for (index, should) in &self.services.current.vips {
            let index = u32::from(*index);
            report.checked += 1;
            let is = is.get(&index).copied().unwrap_or_default();
            if is == *should {
                continue;
            }
            let show = |vip: &Vip| SocketAddr::new(vip.address.into(), vip.port as u16).to_string();
            report.add(name::VIPS, index.to_string(), show(&is), show(should));
            if repair {
                self.maps.vips.set(index, should, 0).map_err(KernelError::map(name::VIPS))?;
            }
        }
        Ok(())
    }

    fn verify_server_ids(&mut self, repair: bool, report: &mut VerifyReport) -> Result<(), KernelError> {
        let is: HashMap<u32, u32> = entries(&self.maps, name::SERVER_IDS)?;
        report.checked += is.len();
        let should = self.services.current.server_ids.iter().map(|(key, index)| (*key, *index)).collect();
        for (key, is, should) in differing(&is, &should) {
            let service = (key >> 16) as u16;
            let label = format!("{} id {}", self.service_label(service), key - server_key(service, 0));
            let show = |index: u32| self.target_label(index as u16);
            report.add(name::SERVER_IDS, label, shown(is, show), shown(should, show));
            if !repair {
                continue;
            }
            match should {
                Some(index) => self.maps.server_ids.insert(key, index, 0),
                None => self.maps.server_ids.remove(&key),
            }
            .map_err(KernelError::map(name::SERVER_IDS))?;
        }
        Ok(())
    }

    fn verify_rings(&mut self, repair: bool, report: &mut VerifyReport) -> Result<(), KernelError> {
        let rings: Vec<(u32, Vec<plan::Member>)> =
            self.services.current.rings.iter().map(|(ring, members)| (*ring, members.clone())).collect();
        for (ring, members) in rings {
            let before = report.total;
            let should = plan::ring(&members);
            let failed =
                |error: std::io::Error| KernelError::Map { map: name::RINGS, why: error.to_string() };
            let label = self.service_label(ring_service(ring));
            match self.services.rings.words(&self.maps, ring).map_err(failed)? {
                Some(is) => self.compare_slots(&label, &is, &should, report),
                None => report.add(name::RINGS, label, "not the table that was made".into(), "that".into()),
            }
            if repair && report.total > before {
                self.services.rings.put(&mut self.maps, ring, &members)?;
            }
        }
        Ok(())
    }

    fn compare_slots(&self, label: &str, is: &[u64], should: &[u64], report: &mut VerifyReport) {
        for (word, (is, should)) in is.iter().zip(should).enumerate() {
            report.checked += 4;
            if is == should {
                continue;
            }
            for at in 0..4 {
                let (is, should) = ((is >> (16 * at)) as u16, (should >> (16 * at)) as u16);
                if is != should {
                    let key = format!("{label} slot {}", word * 4 + at);
                    report.add(name::RINGS, key, self.target_label(is), self.target_label(should));
                }
            }
        }
    }

    pub(in crate::kernel) fn service_label(&self, index: u16) -> String {
        self.services.name_of(index).map_or_else(|| format!("service {index}"), str::to_owned)
    }

    pub(in crate::kernel) fn target_label(&self, index: u16) -> String {
        match self.services.current.targets.get(&index) {
            Some(target) => format!("target {index} ({})", target_addr(target)),
            None if index == 0 => "no target".to_owned(),
            None => format!("target {index}"),
        }
    }

    fn show_target(&self, target: &Target) -> String {
        let state = match target.state {
            target_state::UP => "up",
            target_state::DRAINING => "draining",
            target_state::DOWN => "down",
            _ => "unused",
        };
        let local = std::net::IpAddr::from(target.local);
        format!("{} of {}, {state}, from {local}", target_addr(target), self.service_label(target.service))
    }

    fn show_service(&self, service: Service) -> String {
        let Service { ring, vip, mode, options, .. } = service;
        let (name, mode) = (self.service_label(service.service), mode_name(mode));
        format!("{name}, {mode}, table {ring}, address {vip}, options {options:#x}")
    }
}

pub(in crate::kernel) fn target_addr(target: &Target) -> SocketAddr {
    SocketAddr::new(target.address.into(), target.port)
}

pub(in crate::kernel) fn mode_name(forward: u8) -> &'static str {
    match forward {
        mode::NAT => "nat",
        mode::DSR => "dsr",
        mode::IPIP => "ipip",
        mode::GUE => "gue",
        mode::ECHO => "echo",
        _ => "an unknown way",
    }
}

fn show_key(key: &ServiceKey) -> String {
    let address = gateway_common::source::Address { hi: key.hi, lo: key.lo };
    let protocol = match key.protocol as u8 {
        gateway_common::packet::TCP => "tcp",
        gateway_common::packet::UDP => "udp",
        _ => "icmp",
    };
    format!("{}/{protocol}", SocketAddr::new(address.into(), key.port as u16))
}
