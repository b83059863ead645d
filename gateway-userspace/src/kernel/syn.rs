//! SYN floods, userspace's part: the threshold, where this host listens, and keeping its stack willing.
//!
//! The kernel takes the acknowledgement of a cookie only where it has sent cookies itself within two minutes
//! (`tcp_synq_no_recent_overflow`), and it reads a client's options from its timestamp only where timestamps have no
//! random offset. So connections of our own remind every listener, with cookies for all (`tcp_syncookies` = 2) for the
//! moment that it takes, and `tcp_timestamps` is 2 while the daemon runs. The connections also tell the window scale
//! that listeners offer, which ours have to offer too.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use gateway_common::{
    bucket::Limit,
    maps::{SteerKey, flag},
    source::Address,
    syn::{Guard, NO_SCALE, name},
};

use super::{
    error::KernelError,
    object::{self, Maps},
    report::SynStatus,
    steer::{SteerListener, keys_of},
    sys,
    sysctls::Sysctls,
};
use crate::config::model;

/// Seconds between reminders.
const REMIND_EVERY: u32 = 30;
/// What a listener of ours takes at most to be connected to.
const PATIENCE: Duration = Duration::from_millis(300);
const WHAT: &str = "SYN cookies";

/// Window scales, by listener; shared with the thread that finds them out.
type Scales = HashMap<SteerKey, u8>;

#[derive(Default)]
pub struct SynGuard {
    wanted: bool,
    /// Why it cannot be had.
    missing: Option<String>,
    listeners: Vec<SteerKey>,
    /// What the map holds.
    current: Scales,
    /// What the last reminder found, until it is in the map.
    found: Arc<Mutex<Option<Scales>>>,
    sysctls: Sysctls,
    ticks: u32,
    attacked: bool,
    attacks: u64,
}

impl SynGuard {
    pub fn flag(cfg: &model::Kernel) -> u32 {
        if cfg.syn_cookies.is_some() { flag::SYN } else { 0 }
    }

    pub fn configure(
        &mut self,
        maps: &mut Maps,
        cfg: &model::Kernel,
        mtu: Option<u32>,
    ) -> Result<(), KernelError> {
        let Some(above) = cfg.syn_cookies else {
            self.wanted = false;
            self.missing = None;
            self.sysctls.restore();
            return Ok(());
        };
        if !object::has_syn_helpers() {
            self.missing =
                Some("the kernel has no SYN cookies for XDP (Linux 6.0, CONFIG_SYN_COOKIES)".into());
            return Ok(());
        }
        let mtu = mtu.unwrap_or(1500).clamp(576, 9000);
        let guard = Guard {
            limit: Limit::per_second(above.per_second, above.per_second.ceil().max(1.0) as u64),
            mss_v4: mtu - 40,
            mss_v6: mtu - 60,
        };
        maps.syn_guard.set(0, guard, 0).map_err(KernelError::map(name::GUARD))?;
        self.sysctls.set(tcp("tcp_timestamps"), "2", WHAT);
        if !self.wanted {
            self.wanted = true;
            self.learn(maps);
        }
        Ok(())
    }

    /// These listeners and no others.
    pub fn listen(&mut self, maps: &mut Maps, listeners: &[SteerListener<'_>]) {
        self.listeners = listeners.iter().flat_map(|listener| keys_of(listener.bind)).collect();
        if self.wanted {
            self.learn(maps);
        }
    }

    /// A listener that was not asked.
    pub fn know(&mut self, maps: &mut Maps, port: u16, scale: u8) {
        self.write(maps, keys_of(model::Bind::Any(port)).into_iter().map(|key| (key, scale)).collect());
    }

    fn learn(&mut self, maps: &mut Maps) {
        if self.listeners.is_empty() && self.current.is_empty() {
            return;
        }
        let scales = remind(&self.listeners);
        self.write(maps, scales);
    }

    fn write(&mut self, maps: &mut Maps, scales: Scales) {
        for (key, scale) in scales.iter().filter(|(key, scale)| self.current.get(*key) != Some(*scale)) {
            if let Err(error) = maps.listeners.insert(key, u32::from(*scale), 0) {
                tracing::warn!("kernel: {}: {error}", name::LISTENERS);
            }
        }
        for gone in self.current.keys().filter(|key| !scales.contains_key(*key)) {
            let _ = maps.listeners.remove(gone);
        }
        self.current = scales;
    }

    /// Every second.
    pub fn tend(&mut self, maps: &mut Maps) {
        if !self.wanted {
            return;
        }
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(scales) = found {
            // Listeners may have come or gone meanwhile: then they have been asked since.
            if scales.keys().all(|key| self.listeners.contains(key)) {
                let mut next = self.current.clone();
                next.extend(scales);
                self.write(maps, next);
            }
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(REMIND_EVERY) && !self.listeners.is_empty() {
            let (listeners, found) = (self.listeners.clone(), self.found.clone());
            thread::spawn(move || {
                let scales = remind(&listeners);
                *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(scales);
            });
        }
        let attacked = under_attack(maps);
        if attacked && !self.attacked {
            self.attacks += 1;
            tracing::warn!("kernel: SYN flood: new connections have to prove themselves");
        } else if !attacked && self.attacked {
            tracing::info!("kernel: the SYN flood is over");
        }
        self.attacked = attacked;
    }

    pub fn status(&self, maps: &Maps) -> SynStatus {
        match (&self.missing, self.wanted) {
            (Some(why), _) => SynStatus::off(why.clone()),
            (None, false) => SynStatus::off("kernel.syn_cookies is off"),
            (None, true) => {
                let attack = under_attack(maps);
                let attacks = self.attacks + u64::from(attack && !self.attacked);
                SynStatus { on: true, reason: None, attack, attacks }
            }
        }
    }

    pub fn warning(&self) -> Option<String> {
        self.missing.as_ref().map(|why| format!("SYN floods are not answered: {why}"))
    }

    pub fn changed_settings(&self) -> BTreeMap<PathBuf, String> {
        self.sysctls.changed()
    }

    pub fn inherit_settings(&mut self, changed: BTreeMap<PathBuf, String>) {
        self.sysctls.inherit(changed);
    }

    pub fn leave(&mut self) {
        self.sysctls.restore();
    }
}

fn under_attack(maps: &Maps) -> bool {
    maps.syn_state.get(&0, 0).is_ok_and(|state| state.until_ns > sys::monotonic_ns())
}

fn tcp(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net/ipv4").join(name)
}

/// Connects to every listener, answered with cookies: the window scales they offer.
fn remind(listeners: &[SteerKey]) -> Scales {
    // One at a time: the second would put back what the first has set.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let path = tcp("tcp_syncookies");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::write(&path, "2");
    let mut scales = Scales::new();
    for key in listeners {
        match scale_of(*key) {
            Ok(scale) => drop(scales.insert(*key, scale)),
            Err(error) => tracing::debug!("kernel: {}: {error}", address_of(*key)),
        }
    }
    // With 0 the kernel would take no cookie.
    let after = if before.trim() == "2" { "2" } else { "1" };
    let _ = fs::write(&path, after);
    scales
}

/// Where a listener is reached from this host.
fn address_of(key: SteerKey) -> SocketAddr {
    let ip = if key.address == Address::v4(0) {
        Ipv4Addr::LOCALHOST.into()
    } else if key.address == Address::default() {
        Ipv6Addr::LOCALHOST.into()
    } else {
        IpAddr::from(key.address)
    };
    SocketAddr::new(ip, key.port as u16)
}

fn scale_of(key: SteerKey) -> std::io::Result<u8> {
    let to = address_of(key);
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    // Leaves without a trace: RST and no TIME_WAIT.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(sys::peers_window_scale(socket.as_fd()).unwrap_or(NO_SCALE))
}
