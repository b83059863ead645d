//! The kernel half while it runs: what is loaded, what its maps hold, and keeping both as the config says.

use std::{
    fs,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    programs::{ProgramError, Xdp},
};
use gateway_common::maps::{
    ACCESS_CAPACITY, INTERFACES, LAYOUT_VERSION, Settings, access, ban_code, flag, name,
};

use super::{
    attach::{self, Attached},
    clock::{self, Jiffies},
    counters::{self, BucketCount},
    doctor,
    error::{KernelError, chain},
    log::{self, ProgramLog},
    object::{self, KeyV4, KeyV6, Maps},
    pins::Pins,
    report::{
        ClockStatus, CounterRow, DropSample, InterfaceStatus, KernelStatus, MapRow, SourceRow,
        SteeringStatus, SyncReport,
    },
    settings, sources,
    steer::{self, SteerListener, Steering},
    sys,
    table::{self, Bans, Desired, Record, Rules},
};
use crate::config::{
    model::{self, KernelMode, Steer},
    units::Prefix,
};

/// Seconds between looks at how far jiffies have drifted.
const CLOCK_EVERY: u32 = 10;

pub struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    pub(super) pins: Option<Pins>,
    pin_reason: Option<String>,
    adopted: bool,
    bench: bool,
    mode: KernelMode,
    attached: Vec<Attached>,
    steering: Steering,
    /// None: steering is wanted and can be had.
    steer_reason: Option<String>,
    /// Random a start.
    seed: u64,
    jiffies: Option<Jiffies>,
    pub(super) settings: Settings,
    pub(super) rules: Rules,
    pub(super) bans: Bans,
    pub(super) ipv6_prefix: u8,
    /// What the maps hold.
    pub(super) current: Desired,
    bucket_count: BucketCount,
    log: Option<ProgramLog>,
    ticks: u32,
}

/// `None`: the config asks for no part of the kernel half. `bench`: attach to nothing, packets are run by hand.
pub fn start(cfg: &model::Kernel, bench: bool) -> Result<Option<Loaded>, KernelError> {
    let xdp = bench || (cfg.mode != KernelMode::Off && !cfg.interfaces.is_empty());
    let steer = cfg.steer == Steer::IpHash;
    if !xdp && !steer {
        remove_leftovers(cfg);
        return Ok(None);
    }
    let missing = doctor::missing_capabilities();
    if !missing.is_empty() {
        let why = format!("{} missing", missing.join(", "));
        return Err(if cfg.required { KernelError::Required { why } } else { KernelError::Off { why } });
    }
    let (pins, pin_reason) = match Pins::open(&cfg.pin) {
        Ok(pins) => (Some(pins), None),
        Err(why) => (None, Some(why)),
    };
    let adopted = pins.as_ref().is_some_and(Pins::adoptable);
    let (mut ebpf, maps) = object::load(pins.as_ref())?;
    let log = log::open(&mut ebpf);
    let steer_reason =
        if steer { loaded_or_why(cfg, steer::load(&mut ebpf))? } else { Some("kernel.steer is off".into()) };
    let mut loaded = Loaded {
        ebpf,
        maps,
        pins,
        pin_reason,
        adopted,
        bench,
        mode: if bench { KernelMode::Off } else { cfg.mode },
        attached: Vec::new(),
        steering: Steering::default(),
        steer_reason,
        seed: random(),
        jiffies: None,
        settings: settings::compile(cfg, 0, None),
        rules: Rules::default(),
        bans: Bans::new(),
        ipv6_prefix: cfg.limit.ipv6_prefix,
        current: Desired::default(),
        bucket_count: BucketCount::default(),
        log,
        ticks: 0,
    };
    if !steer && let Some(pins) = &loaded.pins {
        let _ = fs::remove_file(pins.steer_link());
    }
    if xdp {
        loaded
            .xdp()?
            .load()
            .map_err(|error| KernelError::Load { program: "xdp_gateway", why: chain(&error) })?;
        loaded.jiffies = clock::measure(&mut loaded.ebpf, &loaded.maps.probe);
        if adopted {
            loaded.adopt();
        }
    }
    loaded.sync(cfg)?;
    loaded.tidy();
    if cfg.required
        && let Some(off) = loaded.attached.iter().find(|attached| attached.mode.is_none())
    {
        let why = format!("{}: {}", off.name, off.reason.as_deref().unwrap_or("off"));
        loaded.detach();
        return Err(KernelError::Required { why });
    }
    Ok(Some(loaded))
}

/// A refused steering program is only an error where the config requires the kernel half.
fn loaded_or_why(
    cfg: &model::Kernel,
    result: Result<(), KernelError>,
) -> Result<Option<String>, KernelError> {
    match result {
        Ok(()) => Ok(None),
        Err(error) if cfg.required => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Programs of an earlier run that the config no longer wants.
fn remove_leftovers(cfg: &model::Kernel) {
    if cfg.pin.exists()
        && let Ok(pins) = Pins::open(&cfg.pin)
    {
        pins.left_xdp_links().iter().for_each(|link| drop(fs::remove_file(&link.path)));
        let _ = fs::remove_file(pins.steer_link());
    }
}

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
        pin: None,
        pin_reason: None,
        clock: ClockStatus { source: "monotonic", hz: None },
        layout_version: LAYOUT_VERSION,
        adopted: false,
        bans: 0,
        warnings: error.map(|_| why).into_iter().collect(),
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(sys::monotonic_ns())
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

    /// What the program `probe_parse` left.
    pub fn probed(&self) -> [u64; 8] {
        self.maps.probe.get(&0, 0).unwrap_or_default()
    }

    fn xdp(&mut self) -> Result<&mut Xdp, KernelError> {
        xdp_of(&mut self.ebpf)
    }

    /// Reads bans and entries that an earlier run left.
    fn adopt(&mut self) {
        let why = || "before the last restart".to_owned();
        let now = sys::monotonic_ns();
        for (key, ban) in self.maps.bans.iter().flatten() {
            self.current.sources.insert(key, ban);
            let addr: IpAddr = match gateway_common::source::key_v4(key) {
                Some(v4) => std::net::Ipv4Addr::from(v4).into(),
                None => std::net::Ipv6Addr::from(u128::from(key) << 64).into(),
            };
            let record =
                Record { until_ns: ban.until_ns, since_ns: ban.since_ns, code: ban.code, why: why() };
            self.bans.insert(Prefix { addr, len: ban.len }, record);
        }
        let v4 = self.maps.access_v4.iter().flatten().map(|(key, entry)| {
            (Prefix { addr: IpAddr::from(key.data()), len: key.prefix_len() as u8 }, entry)
        });
        let v6 = self.maps.access_v6.iter().flatten().map(|(key, entry)| {
            (Prefix { addr: IpAddr::from(key.data()), len: key.prefix_len() as u8 }, entry)
        });
        for (prefix, entry) in v4.chain(v6) {
            self.current.access.insert(prefix, entry);
            if entry.action == access::BAN && entry.derived == 0 {
                let record = Record {
                    until_ns: entry.until_ns,
                    since_ns: entry.since_ns,
                    code: entry.code,
                    why: why(),
                };
                self.bans.insert(prefix, record);
            }
        }
        self.bans.retain(|_, ban| !gateway_common::maps::is_over(ban.until_ns, now));
    }

    /// Removes links on interfaces that are no longer in the config, and what older layouts left.
    fn tidy(&self) {
        let Some(pins) = &self.pins else { return };
        let ours = |name: &str| self.attached.iter().any(|a| a.name == name && a.mode.is_some());
        for link in pins.left_xdp_links().iter().filter(|link| !ours(&link.interface)) {
            let _ = fs::remove_file(&link.path);
        }
        pins.remove_others();
    }

    pub fn steer(&mut self, listeners: &[SteerListener<'_>]) -> Result<(), KernelError> {
        if self.steer_reason.is_some() && !self.steering.is_on() {
            return Ok(());
        }
        let result =
            self.steering.set(&mut self.ebpf, &mut self.maps, self.pins.as_ref(), self.seed, listeners);
        self.steer_reason = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// The tables and settings for a config, without its interfaces.
    fn compile(&self, cfg: &model::Kernel) -> Result<(Rules, Desired, Settings), KernelError> {
        let rules = settings::rules(cfg);
        for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
            let count = rules.keys().filter(|prefix| prefix.addr.is_ipv4() == is_v4).count();
            // Prefix bans need room too.
            if count > ACCESS_CAPACITY as usize - 4096 {
                return Err(KernelError::TooManyPrefixes { family, count, capacity: ACCESS_CAPACITY - 4096 });
            }
        }
        let desired = table::desired(&rules, &self.bans, cfg.limit.ipv6_prefix, sys::monotonic_ns());
        let mut settings = settings::compile(cfg, self.seed, self.jiffies);
        settings.interfaces = self.settings.interfaces;
        settings.flags |= settings::table_flags(desired.access.keys(), !desired.sources.is_empty());
        settings.flags |= self.settings.flags & flag::LOOPBACK;
        Ok((rules, desired, settings))
    }

    pub fn plan(&self, cfg: &model::Kernel) -> Result<SyncReport, KernelError> {
        let (_, desired, settings) = self.compile(cfg)?;
        let (write, remove) = table::changes(&self.current.access, &desired.access);
        let changed = write.iter().filter(|(prefix, _)| self.current.access.contains_key(prefix)).count();
        let wanted = self.wanted(cfg);
        let gone = self.attached.iter().filter(|attached| !wanted.contains(&attached.name.as_str())).count();
        let new = wanted.iter().filter(|name| !self.attached.iter().any(|a| a.name == **name)).count();
        Ok(SyncReport {
            prefixes_added: write.len() - changed,
            prefixes_removed: remove.len(),
            prefixes_changed: changed,
            interfaces_changed: gone + new,
            settings_changed: usize::from(settings != self.settings),
        })
    }

    fn wanted<'a>(&self, cfg: &'a model::Kernel) -> Vec<&'a str> {
        let off = self.mode == KernelMode::Off;
        cfg.interfaces.iter().filter(|_| !off).map(String::as_str).collect()
    }

    pub fn sync(&mut self, cfg: &model::Kernel) -> Result<SyncReport, KernelError> {
        let report = self.plan(cfg)?;
        let (rules, desired, mut settings) = self.compile(cfg)?;
        let wanted = self.wanted(cfg);
        let indexes: Vec<u32> = wanted.iter().filter_map(|name| sys::ifindex(name)).collect();
        settings.interfaces = settings::assign_slots(&mut self.maps, &indexes)?;
        settings.flags &= !flag::LOOPBACK;
        if wanted.contains(&"lo") {
            settings.flags |= flag::LOOPBACK;
        }
        self.apply(desired, settings)?;
        self.rules = rules;
        self.ipv6_prefix = cfg.limit.ipv6_prefix;
        self.reattach(&wanted)?;
        Ok(report)
    }

    /// Attaches to what is new in the list and detaches from what is gone. What was off is tried again.
    fn reattach(&mut self, wanted: &[&str]) -> Result<(), KernelError> {
        let left = self.pins.as_ref().map(Pins::left_xdp_links).unwrap_or_default();
        let (keep, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|attached| wanted.contains(&attached.name.as_str()) && attached.mode.is_some());
        self.attached = keep;
        for attached in gone {
            attached.detach(self.pins.as_ref());
        }
        for name in wanted {
            if self.attached.iter().any(|attached| attached.name == *name) {
                continue;
            }
            let xdp = xdp_of(&mut self.ebpf)?;
            let attached = match attach::attach(xdp, name, self.mode, self.pins.as_ref(), &left) {
                Err(KernelError::NoInterface { name }) if self.mode == KernelMode::Auto => {
                    Attached::off(&name, "there is no such interface")
                }
                result => result?,
            };
            self.attached.push(attached);
        }
        Ok(())
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

    pub fn tick(&mut self) {
        self.sweep();
        if let Some(log) = &mut self.log {
            log.flush();
        }
        self.ticks = self.ticks.wrapping_add(1);
        if !self.ticks.is_multiple_of(CLOCK_EVERY) {
            return;
        }
        if let Some(jiffies) = &mut self.jiffies
            && let Some(clock) = clock::corrected(&self.ebpf, &self.maps.probe, jiffies.clock)
        {
            jiffies.clock = clock;
            if self.settings.clock.tick_ns != 0 {
                let _ = self.switch(Settings { clock, ..self.settings });
            }
        }
    }

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
        let jiffies = self.settings.clock.tick_ns != 0;
        KernelStatus {
            interfaces,
            steering: SteeringStatus {
                on: self.steering.is_on(),
                reason: self.steer_reason.clone(),
                listeners: self.steering.listeners,
            },
            pin: self.pins.as_ref().map(|pins| pins.folder().display().to_string()),
            pin_reason: self.pin_reason.clone(),
            clock: ClockStatus {
                source: if jiffies { "jiffies" } else { "monotonic" },
                hz: self.jiffies.map(|jiffies| jiffies.hz),
            },
            layout_version: LAYOUT_VERSION,
            adopted: self.adopted,
            bans: self.bans.len(),
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

    pub fn map_rows(&mut self) -> Vec<MapRow> {
        let v4 = self.current.access.keys().filter(|prefix| prefix.addr.is_ipv4()).count() as u64;
        let used = counters::Used {
            access_v4: v4,
            access_v6: self.current.access.len() as u64 - v4,
            bans: self.current.sources.len() as u64,
            steer: self.steering.entries() as u64,
            sockets: self.steering.sockets as u64,
        };
        counters::map_rows(&self.maps, &mut self.bucket_count, &used)
    }

    pub fn samples(&mut self, most: usize) -> Vec<DropSample> {
        let Self { maps, attached, .. } = self;
        counters::samples(maps, most, |ifindex| name_of(attached, ifindex))
    }

    pub fn sources(&self, top: usize) -> Vec<SourceRow> {
        sources::top(&self.maps, &self.settings, top).unwrap_or_else(|error| {
            tracing::warn!(%error, "kernel: buckets cannot be read");
            Vec::new()
        })
    }

    pub fn source(&self, source: IpAddr) -> Option<SourceRow> {
        sources::one(&self.maps, &self.settings, source)
    }

    pub fn reset(&mut self, source: IpAddr) -> Result<(), KernelError> {
        sources::reset(&mut self.maps, &self.settings, source)
    }

    pub fn detach(&mut self) {
        self.steering.detach(self.pins.as_ref());
        for attached in std::mem::take(&mut self.attached) {
            attached.detach(self.pins.as_ref());
        }
    }

    /// Why a ban was made, for the map.
    pub(super) const CODE: u8 = ban_code::OPERATOR;
}

fn xdp_of(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let failed = |why: String| KernelError::Load { program: "xdp_gateway", why };
    let program = ebpf.program_mut("xdp_gateway").ok_or_else(|| failed("it is not in the object".into()))?;
    program.try_into().map_err(|error: ProgramError| failed(chain(&error)))
}

fn name_of(attached: &[Attached], ifindex: u32) -> String {
    let known = attached.iter().find(|attached| attached.ifindex == ifindex);
    known
        .map(|attached| attached.name.clone())
        .or_else(|| sys::ifname(ifindex))
        .unwrap_or_else(|| format!("#{ifindex}"))
}

/// Writes or removes an entry of the access list.
fn set(
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
