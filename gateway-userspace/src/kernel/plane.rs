//! The kernel half while it runs: what is loaded, what its maps hold, and keeping both as the config says.

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Array, ProgramArray},
    programs::{ProgramError, Xdp},
};
use gateway_common::{
    clock::Clock,
    maps::{ACCESS_CAPACITY, CLASSES, Limits, Settings, Wrap, flag, name},
    service::RINGS_CAPACITY,
};

use super::{
    attach::{self, Attached},
    clock::{self, Jiffies},
    counters::BucketCount,
    error::{KernelError, chain},
    explain::Sandbox,
    log::ProgramLog,
    object::{KeyV4, KeyV6, Maps},
    pins::Pins,
    report::SyncReport,
    services::Services,
    settings::{self, FACTORS},
    steer::{SteerListener, Steering},
    syn::SynGuard,
    sys,
    table::{self, Bans, Desired, Rules},
    taken::Taken,
};
use crate::config::{
    model::{self, KernelMode},
    units::Prefix,
};

/// Seconds between looks at how far jiffies have drifted.
const CLOCK_EVERY: u32 = 10;

pub struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    pub(super) pins: Option<Pins>,
    pub(super) pin_reason: Option<String>,
    pub(super) adopted: bool,
    pub(super) bench: bool,
    pub(super) mode: KernelMode,
    pub(super) attached: Vec<Attached>,
    pub(super) steering: Steering,
    /// None: steering is wanted and can be had.
    pub(super) steer_reason: Option<String>,
    /// Random a start.
    pub(super) seed: u64,
    pub(super) jiffies: Option<Jiffies>,
    pub(super) settings: Settings,
    /// By class, at a load factor of 1.
    pub(super) limits: [Limits; CLASSES],
    /// What all rates are multiplied by.
    pub(super) load_factor: f64,
    pub(super) rules: Rules,
    pub(super) bans: Bans,
    /// Bans that have run out since somebody asked.
    pub(super) ended: Vec<Prefix>,
    /// Why nothing could be taken over, though something was there.
    pub(super) rebuilt: Option<String>,
    pub(super) ipv6_prefix: u8,
    /// What the maps hold.
    pub(super) current: Desired,
    pub(super) bucket_count: BucketCount,
    pub(super) log: Option<ProgramLog>,
    pub(super) services: Services,
    /// While somebody asks.
    pub(super) sandbox: Option<Box<Sandbox>>,
    pub(super) syn: SynGuard,
    pub(super) taken: Taken,
    pub(super) ticks: u32,
}

impl Loaded {
    /// Whether XDP sees any packet.
    pub fn filters(&self) -> bool {
        self.bench || self.attached.iter().any(|attached| attached.mode.is_some())
    }

    /// One of the object's XDP programs, loaded.
    pub fn program(&mut self, name: &'static str) -> Result<OwnedFd, KernelError> {
        let failed = |error: ProgramError| KernelError::Load { program: name, why: chain(&error) };
        let missing = || KernelError::Load { program: name, why: "it is not in the object".into() };
        let program: &mut Xdp =
            self.ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(failed)?;
        if program.fd().is_err() {
            program.load().map_err(failed)?;
        }
        let fd = program.fd().map_err(failed)?.as_fd().try_clone_to_owned();
        fd.map_err(|error| KernelError::Load { program: name, why: error.to_string() })
    }

    /// Makes `bench_wrap` run `program` on packets made from a template.
    pub fn wrap(&mut self, program: &'static str, wrap: Wrap) -> Result<(), KernelError> {
        self.program(program)?;
        let failed = |why: String| KernelError::Load { program, why };
        let fd = {
            let loaded: &Xdp = self
                .ebpf
                .program(program)
                .ok_or_else(|| failed("it is not in the object".into()))?
                .try_into()
                .map_err(|error: ProgramError| failed(chain(&error)))?;
            loaded.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|error| failed(chain(&error)))?
        };
        let map = |name| KernelError::Map { map: name, why: "it is not in the object".into() };
        let mut array: Array<_, Wrap> = self
            .ebpf
            .map_mut("WRAP")
            .ok_or_else(|| map("WRAP"))?
            .try_into()
            .map_err(KernelError::map("WRAP"))?;
        array.set(0, wrap, 0).map_err(KernelError::map("WRAP"))?;
        let mut programs: ProgramArray<_> = self
            .ebpf
            .map_mut("WRAPPED")
            .ok_or_else(|| map("WRAPPED"))?
            .try_into()
            .map_err(KernelError::map("WRAPPED"))?;
        programs.set(0, &fd, 0).map_err(KernelError::map("WRAPPED"))
    }

    /// What the program `probe_parse` left.
    pub fn probed(&self) -> [u64; 8] {
        self.maps.probe.get(&0, 0).unwrap_or_default()
    }

    pub(super) fn xdp(&mut self) -> Result<&mut Xdp, KernelError> {
        xdp_of(&mut self.ebpf)
    }

    pub fn steer(&mut self, listeners: &[SteerListener<'_>]) -> Result<(), KernelError> {
        self.syn.listen(&mut self.maps, listeners);
        if self.steer_reason.is_some() && !self.steering.is_on() {
            return Ok(());
        }
        let result =
            self.steering.set(&mut self.ebpf, &mut self.maps, self.pins.as_ref(), self.seed, listeners);
        self.steer_reason = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// The tables and settings for a config at `now`, without its interfaces.
    pub(super) fn compile(
        &self,
        cfg: &model::Kernel,
        now: u64,
    ) -> Result<(Rules, Desired, Settings), KernelError> {
        let rules = settings::rules(cfg);
        for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
            let count = rules.actions.keys().filter(|prefix| prefix.addr.is_ipv4() == is_v4).count();
            // Prefix bans need room too.
            if count > ACCESS_CAPACITY as usize - 4096 {
                return Err(KernelError::TooManyPrefixes { family, count, capacity: ACCESS_CAPACITY - 4096 });
            }
        }
        let desired = table::desired(&rules, &self.bans, cfg.limit.ipv6_prefix, now);
        let limits = settings::limits(cfg);
        let scaled = limits.map(|limits| limits.scaled(self.load_factor));
        let mut settings = settings::compile(cfg, self.seed, scaled);
        settings.clock = self.clock_for(&limits);
        settings.service_limits = self.settings.service_limits;
        settings.interfaces = self.settings.interfaces;
        settings.flags |= settings::table_flags(desired.access.keys(), !desired.sources.is_empty());
        settings.flags |= self.settings.flags & (flag::LOOPBACK | flag::CAPTURE);
        self.services.settle(&mut settings);
        settings.flags |= SynGuard::flag(cfg);
        Ok((rules, desired, settings))
    }

    /// The clock that is exact enough for these limits and those of services.
    pub(super) fn clock_for(&self, limits: &[Limits]) -> Clock {
        settings::clock(self.jiffies, limits.iter().chain(self.services.limits()))
    }

    /// Multiplies all rates by `factor`; what is judged meanwhile is judged by the old limits or the new ones.
    pub fn set_load_factor(&mut self, factor: f64) -> Result<(), KernelError> {
        let factor = if factor.is_nan() { 1.0 } else { factor.clamp(*FACTORS.start(), *FACTORS.end()) };
        if factor == self.load_factor {
            return Ok(());
        }
        let service_limits = RINGS_CAPACITY - self.settings.service_limits;
        self.services.write_limits(&mut self.maps, service_limits, factor)?;
        let limits = self.limits.map(|limits| limits.scaled(factor));
        self.switch(Settings { limits, service_limits, ..self.settings })?;
        self.load_factor = factor;
        Ok(())
    }

    pub fn plan(&self, cfg: &model::Kernel) -> Result<SyncReport, KernelError> {
        let (_, desired, settings) = self.compile(cfg, sys::monotonic_ns())?;
        Ok(self.report(&desired, &settings, &self.wanted(cfg)))
    }

    fn report(&self, desired: &Desired, settings: &Settings, wanted: &[&str]) -> SyncReport {
        let (write, remove) = table::changes(&self.current.access, &desired.access);
        let changed = write.iter().filter(|(prefix, _)| self.current.access.contains_key(prefix)).count();
        let gone = self.attached.iter().filter(|attached| !wanted.contains(&attached.name.as_str())).count();
        let new = wanted.iter().filter(|name| !self.attached.iter().any(|a| a.name == **name)).count();
        SyncReport {
            prefixes_added: write.len() - changed,
            prefixes_removed: remove.len(),
            prefixes_changed: changed,
            interfaces_changed: gone + new,
            settings_changed: usize::from(*settings != self.settings),
        }
    }

    fn wanted<'a>(&self, cfg: &'a model::Kernel) -> Vec<&'a str> {
        let off = self.mode == KernelMode::Off;
        cfg.interfaces.iter().filter(|_| !off).map(String::as_str).collect()
    }

    pub fn sync(&mut self, cfg: &model::Kernel) -> Result<SyncReport, KernelError> {
        let (rules, desired, mut settings) = self.compile(cfg, sys::monotonic_ns())?;
        let wanted = self.wanted(cfg);
        let report = self.report(&desired, &settings, &wanted);
        let indexes: Vec<u32> = wanted.iter().filter_map(|name| sys::ifindex(name)).collect();
        settings.interfaces = settings::assign_slots(&mut self.maps, &indexes)?;
        settings.flags &= !flag::LOOPBACK;
        if wanted.contains(&"lo") {
            settings.flags |= flag::LOOPBACK;
        }
        // What has no settings yet must not be attached; what has them must not lose them to an interface that fails.
        let running = self.filters();
        let new = if running { self.attach_new(&wanted)? } else { Vec::new() };
        if let Err(error) = self.apply(desired, settings) {
            new.into_iter().for_each(|attached| attached.detach(self.pins.as_ref()));
            return Err(error);
        }
        self.rules = rules;
        self.limits = settings::limits(cfg);
        self.ipv6_prefix = cfg.limit.ipv6_prefix;
        let new = if running { new } else { self.attach_new(&wanted)? };
        let (keep, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|attached| wanted.contains(&attached.name.as_str()) && attached.mode.is_some());
        gone.into_iter().for_each(|attached| attached.detach(self.pins.as_ref()));
        self.attached = keep;
        self.attached.extend(new);
        let mtu = self.attached.iter().filter_map(|attached| sys::mtu(&attached.name)).min();
        self.syn.configure(&mut self.maps, cfg, mtu)?;
        Ok(report)
    }

    /// Attaches to those of `wanted` that are not attached yet, all or none. What was off is tried again.
    fn attach_new(&mut self, wanted: &[&str]) -> Result<Vec<Attached>, KernelError> {
        let left = self.pins.as_ref().map(Pins::left_xdp_links).unwrap_or_default();
        let mut new: Vec<Attached> = Vec::new();
        for name in wanted {
            if self.attached.iter().any(|attached| attached.name == *name && attached.mode.is_some()) {
                continue;
            }
            let xdp = xdp_of(&mut self.ebpf)?;
            match attach::attach(xdp, name, self.mode, self.pins.as_ref(), &left) {
                Ok(attached) => new.push(attached),
                Err(KernelError::NoInterface { name }) if self.mode == KernelMode::Auto => {
                    new.push(Attached::off(&name, attach::NOT_THERE));
                }
                Err(error) => {
                    new.into_iter().for_each(|attached| attached.detach(self.pins.as_ref()));
                    return Err(error);
                }
            }
        }
        Ok(new)
    }

    /// Makes the maps hold `desired` and the program run by `settings`; on an error puts back what was there.
    pub(super) fn apply(&mut self, desired: Desired, settings: Settings) -> Result<(), KernelError> {
        let (write, remove) = table::changes(&self.current.access, &desired.access);
        for (done, (prefix, entry)) in write.iter().enumerate() {
            if let Err(error) = set(&mut self.maps, *prefix, Some(*entry)) {
                for (prefix, _) in &write[..done] {
                    let _ = set(&mut self.maps, *prefix, self.current.access.get(prefix).copied());
                }
                return Err(error);
            }
        }
        for (key, ban) in &desired.sources {
            if self.current.sources.get(key) != Some(ban) {
                self.maps.bans.insert(key, ban, 0).map_err(KernelError::map(name::BANS))?;
            }
        }
        // Between what is new and what is gone: a table that becomes empty is skipped before it is emptied.
        self.switch(settings)?;
        for prefix in remove {
            let _ = set(&mut self.maps, prefix, None);
        }
        for key in self.current.sources.keys().filter(|key| !desired.sources.contains_key(key)) {
            let _ = self.maps.bans.remove(key);
        }
        self.current = desired;
        Ok(())
    }

    pub(super) fn switch(&mut self, settings: Settings) -> Result<(), KernelError> {
        settings::write(&mut self.maps, &settings)?;
        self.settings = settings;
        Ok(())
    }

    /// The bans that have run out since the last call.
    pub fn tick(&mut self) -> Vec<Prefix> {
        self.sweep();
        self.look_after();
        self.follow();
        if let Some(log) = &mut self.log {
            log.flush();
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.tend_services();
        self.close_sandbox();
        self.syn.tend(&mut self.maps);
        if self.ticks.is_multiple_of(CLOCK_EVERY) {
            self.correct_clock();
        }
        std::mem::take(&mut self.ended)
    }

    fn correct_clock(&mut self) {
        if let Some(jiffies) = &mut self.jiffies
            && let Some(clock) = clock::corrected(&self.ebpf, &self.maps.probe, jiffies.clock)
        {
            jiffies.clock = clock;
            if self.settings.clock.tick_ns != 0 {
                let _ = self.switch(Settings { clock, ..self.settings });
            }
        }
    }

    pub fn detach(&mut self) {
        self.steering.detach(self.pins.as_ref());
        self.services.leave();
        self.syn.leave();
        for attached in std::mem::take(&mut self.attached) {
            attached.detach(self.pins.as_ref());
        }
        if let Some(pins) = &mut self.pins {
            pins.unlock();
        }
    }
}

pub(super) fn xdp_of(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let failed = |why: String| KernelError::Load { program: "xdp_gateway", why };
    let program = ebpf.program_mut("xdp_gateway").ok_or_else(|| failed("it is not in the object".into()))?;
    program.try_into().map_err(|error: ProgramError| failed(chain(&error)))
}

/// Writes or removes an entry of the access list.
pub(super) fn set(
    maps: &mut Maps,
    prefix: Prefix,
    entry: Option<gateway_common::maps::Access>,
) -> Result<(), KernelError> {
    let len = u32::from(prefix.len);
    match (prefix.addr, entry) {
        (IpAddr::V4(v4), Some(entry)) => maps.access_v4.insert(&KeyV4::new(len, v4.octets()), entry, 0),
        (IpAddr::V4(v4), None) => maps.access_v4.remove(&KeyV4::new(len, v4.octets())),
        (IpAddr::V6(v6), Some(entry)) => maps.access_v6.insert(&KeyV6::new(len, v6.octets()), entry, 0),
        (IpAddr::V6(v6), None) => maps.access_v6.remove(&KeyV6::new(len, v6.octets())),
    }
    .map_err(KernelError::map(if prefix.addr.is_ipv4() { name::ACCESS_V4 } else { name::ACCESS_V6 }))
}
