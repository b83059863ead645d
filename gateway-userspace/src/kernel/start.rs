//! From a config to a kernel half that runs: privileges, pins, maps, programs, what an earlier run left.

use std::{fs, net::IpAddr};

use gateway_common::{
    maps::{access, is_over},
    source,
};

use super::{
    clock,
    counters::BucketCount,
    doctor,
    error::{KernelError, chain},
    log, object,
    pins::Pins,
    plane::Loaded,
    services::Services,
    settings, steer,
    steer::Steering,
    syn::SynGuard,
    sys,
    table::{Bans, Desired, Record, Rules},
    taken::Taken,
};
use crate::config::{
    model::{self, KernelMode, Steer},
    units::Prefix,
};

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
        Ok(mut pins) => {
            // Packets run by hand disturb nobody.
            if !bench {
                pins.lock()?;
            }
            (Some(pins), None)
        }
        Err(why) => (None, Some(why)),
    };
    let adopted = pins.as_ref().is_some_and(|pins| pins.adoptable(cfg.flows));
    let (mut ebpf, maps) = object::load(pins.as_ref(), cfg.flows)?;
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
        settings: settings::compile(cfg, 0, settings::limits(cfg)),
        limits: settings::limits(cfg),
        load_factor: 1.0,
        rules: Rules::default(),
        bans: Bans::new(),
        ended: Vec::new(),
        rebuilt: None,
        ipv6_prefix: cfg.limit.ipv6_prefix,
        current: Desired::default(),
        bucket_count: BucketCount::default(),
        log,
        services: Services::default(),
        sandbox: None,
        syn: SynGuard::default(),
        taken: Taken::default(),
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
    loaded.services.prepare(&mut loaded.maps, cfg.flows, loaded.seed)?;
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
        && let Ok(mut pins) = Pins::open(&cfg.pin)
        && pins.lock().is_ok()
    {
        pins.left_xdp_links().iter().for_each(|link| drop(fs::remove_file(&link.path)));
        let _ = fs::remove_file(pins.steer_link());
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(sys::monotonic_ns())
}

impl Loaded {
    /// Reads bans and entries that an earlier run left.
    fn adopt(&mut self) {
        let why = || "before the last restart".to_owned();
        let now = sys::monotonic_ns();
        for (key, ban) in self.maps.bans.iter().flatten() {
            self.current.sources.insert(key, ban);
            let addr: IpAddr = match source::key_v4(key) {
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
        self.bans.retain(|_, ban| !is_over(ban.until_ns, now));
    }

    /// Removes links on interfaces that are no longer in the config, and what older layouts left.
    fn tidy(&mut self) {
        let Some(pins) = &self.pins else { return };
        let ours = |name: &str| self.attached.iter().any(|a| a.name == name && a.mode.is_some());
        for link in pins.left_xdp_links().iter().filter(|link| !ours(&link.interface)) {
            let _ = fs::remove_file(&link.path);
        }
        self.rebuilt = pins.remove_others();
    }
}
