//! Interfaces that come and go while the daemon runs: attached as soon as they are there, once a second looked after.

use gateway_common::maps::flag;

use super::{
    attach::{self, Attached},
    error::KernelError,
    plane::Loaded,
    settings, sys,
};
use crate::config::model::KernelMode;

/// Seconds between attempts where an interface is there but does not take the program.
const RETRY: u32 = 5;

impl Loaded {
    /// Attaches to configured interfaces that have come, or come back, and lets go of those that are gone.
    pub(super) fn follow(&mut self) {
        if self.bench || self.mode == KernelMode::Off {
            return;
        }
        let due = self.ticks.is_multiple_of(RETRY);
        let come: Vec<usize> = (0..self.attached.len()).filter(|&at| self.has_come(at, due)).collect();
        if come.is_empty() {
            return;
        }
        // Counters first: a packet must not be counted as another interface's.
        if let Err(error) = self.give_slots() {
            tracing::warn!(%error, "kernel: new interfaces cannot be counted");
            return;
        }
        for at in come {
            self.attach_again(at);
        }
    }

    /// Whether the interface at this place can be attached to; one that is gone is let go of.
    fn has_come(&mut self, at: usize, due: bool) -> bool {
        let attached = &self.attached[at];
        let ifindex = sys::ifindex(&attached.name);
        if attached.mode.is_none() {
            return ifindex.is_some_and(|ifindex| ifindex != attached.ifindex || due);
        }
        if ifindex == Some(attached.ifindex) {
            return false;
        }
        let off = Attached::off(&attached.name, attach::NOT_THERE);
        tracing::warn!(interface = off.name, "kernel: the interface is gone; XDP returns with it");
        std::mem::replace(&mut self.attached[at], off).detach(self.pins.as_ref());
        ifindex.is_some()
    }

    fn give_slots(&mut self) -> Result<(), KernelError> {
        let indexes: Vec<u32> = self.attached.iter().filter_map(|a| sys::ifindex(&a.name)).collect();
        let mut settings = self.settings;
        settings.interfaces = settings::assign_slots(&mut self.maps, &indexes)?;
        if self.attached.iter().any(|attached| attached.name == "lo") {
            settings.flags |= flag::LOOPBACK;
        }
        if settings != self.settings { self.switch(settings) } else { Ok(()) }
    }

    fn attach_again(&mut self, at: usize) {
        let name = self.attached[at].name.clone();
        let (mode, pins) = (self.mode, self.pins.as_ref());
        let result =
            super::plane::xdp_of(&mut self.ebpf).and_then(|xdp| attach::attach(xdp, &name, mode, pins, &[]));
        let new = match result {
            Ok(attached) => attached,
            // What insists on a mode at start must go on serving when it is refused later.
            Err(KernelError::NoInterface { .. }) => Attached::off(&name, attach::NOT_THERE),
            Err(error) => {
                let mut off = Attached::off(&name, &error.to_string());
                off.ifindex = sys::ifindex(&name).unwrap_or(0);
                off
            }
        };
        let old = &self.attached[at];
        if (new.mode, &new.reason) != (old.mode, &old.reason) {
            let status = new.status();
            match (status.mode, &status.reason) {
                ("off", reason) => {
                    tracing::warn!(interface = name, reason, "kernel: XDP stays off");
                }
                (mode, reason) => tracing::info!(interface = name, mode, reason, "kernel: XDP attached"),
            }
        }
        self.attached[at] = new;
    }
}
