//! What the kernel half tells of itself while it runs, and while it is off.

use std::net::IpAddr;

use gateway_common::maps::{CLASSES, INTERFACES, LAYOUT_VERSION, Limits};

use super::{
    attach::Attached,
    counters,
    error::KernelError,
    plane::Loaded,
    report::{
        ClockStatus, CounterRow, DropSample, InterfaceStatus, KernelStatus, MapRow, SourceRow,
        SteeringStatus, SynStatus,
    },
    sources, sys, table,
};
use crate::config::{model, units::Prefix};

/// What a plane that is off says of itself.
pub fn status_off(cfg: &model::Kernel, error: Option<&KernelError>) -> KernelStatus {
    let why = error.map_or_else(|| "the config asks for no part of it".to_owned(), ToString::to_string);
    let interfaces = cfg.interfaces.iter().map(|name| InterfaceStatus {
        name: name.clone(),
        ifindex: sys::ifindex(name).unwrap_or(0),
        mode: "off",
        reason: Some(why.clone()),
    });
    KernelStatus {
        interfaces: interfaces.collect(),
        steering: SteeringStatus { on: false, reason: Some(why.clone()), listeners: 0 },
        syn: SynStatus::off(why.clone()),
        pin: None,
        pin_reason: None,
        clock: ClockStatus { source: "monotonic", hz: None },
        layout_version: LAYOUT_VERSION,
        adopted: false,
        bans: 0,
        taken: Vec::new(),
        warnings: error.map(|_| why).into_iter().collect(),
    }
}

impl Loaded {
    pub fn status(&self) -> KernelStatus {
        let interfaces: Vec<_> = self.attached.iter().map(Attached::status).collect();
        let mut warnings: Vec<String> = interfaces
            .iter()
            .filter_map(|interface| {
                let reason = interface.reason.as_ref()?;
                Some(format!("XDP is {} on {}: {reason}", interface.mode, interface.name))
            })
            .collect();
        if let Some(why) = &self.pin_reason {
            warnings.push(format!("nothing outlives the daemon: {why}"));
        }
        warnings.extend(self.rebuilt.clone());
        warnings.extend(self.syn.warning());
        let jiffies = self.settings.clock.tick_ns != 0;
        KernelStatus {
            interfaces,
            steering: SteeringStatus {
                on: self.steering.is_on(),
                reason: self.steer_reason.clone(),
                listeners: self.steering.listeners,
            },
            syn: self.syn.status(&self.maps),
            pin: self.pins.as_ref().map(|pins| pins.folder().display().to_string()),
            pin_reason: self.pin_reason.clone(),
            clock: ClockStatus {
                source: if jiffies { "jiffies" } else { "monotonic" },
                hz: self.jiffies.map(|jiffies| jiffies.hz),
            },
            layout_version: LAYOUT_VERSION,
            adopted: self.adopted,
            bans: self.bans.len(),
            taken: self.taken.rows(),
            warnings,
        }
    }

    pub fn counters(&self) -> Vec<CounterRow> {
        let mut interfaces = [0; INTERFACES];
        if self.bench {
            interfaces = self.settings.interfaces;
        }
        for (slot, ifindex) in self.settings.interfaces.iter().enumerate() {
            if self.attached.iter().any(|attached| attached.ifindex == *ifindex) {
                interfaces[slot] = *ifindex;
            }
        }
        counters::rows(&self.maps, &interfaces, |ifindex| name_of(&self.attached, ifindex))
    }

    pub fn used(&self) -> counters::Used {
        let v4 = self.current.access.keys().filter(|prefix| prefix.addr.is_ipv4()).count() as u64;
        counters::Used {
            access_v4: v4,
            access_v6: self.current.access.len() as u64 - v4,
            bans: self.current.sources.len() as u64,
            steer: self.steering.entries() as u64,
            sockets: self.steering.sockets as u64,
        }
    }

    pub fn map_rows(&mut self) -> Vec<MapRow> {
        let used = self.used();
        counters::map_rows(&self.maps, &mut self.bucket_count, &used)
    }

    pub fn samples(&mut self, most: usize) -> Vec<DropSample> {
        let Self { maps, attached, .. } = self;
        counters::samples(maps, most, |ifindex| name_of(attached, ifindex))
    }

    pub fn sources(&self, top: usize) -> Vec<SourceRow> {
        sources::top(&self.maps, &self.settings, self, top).unwrap_or_else(|error| {
            tracing::warn!(%error, "kernel: buckets cannot be read");
            Vec::new()
        })
    }

    pub fn source(&self, source: IpAddr) -> Option<SourceRow> {
        sources::one(&self.maps, &self.settings, self, source)
    }

    pub fn reset(&mut self, source: IpAddr) -> Result<(), KernelError> {
        sources::reset(&mut self.maps, &self.settings, source)
    }
}

impl sources::Names for Loaded {
    fn limits(&self, source: IpAddr, service: u16) -> Limits {
        let limits = if service == 0 {
            let len = if source.is_ipv4() { 32 } else { 128 };
            let class = table::class_around(&self.rules, Prefix { addr: source, len });
            self.limits[usize::from(class) % CLASSES]
        } else {
            self.services.limits_of(service)
        };
        limits.scaled(self.load_factor)
    }

    fn service(&self, service: u16) -> Option<String> {
        self.services.name_of(service).map(str::to_owned)
    }
}

pub(super) fn name_of(attached: &[Attached], ifindex: u32) -> String {
    let known = attached.iter().find(|attached| attached.ifindex == ifindex);
    known
        .map(|attached| attached.name.clone())
        .or_else(|| sys::ifname(ifindex))
        .unwrap_or_else(|| format!("#{ifindex}"))
}
