//! `gateway kernel verify`: every map read back and compared with what the config makes of it now, computed anew.
//!
//! What packets write (buckets, connections, counters) is nobody's intention and is not looked at, nor are entries of
//! tables that nothing points to.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use gateway_common::{
    bucket::Limit,
    maps::{Access, Ban, Limits, Settings, SteerKey, Workers, access, flag, is_over, name},
};
use serde::Serialize;

use super::{
    error::KernelError,
    object::Maps,
    plane::{self, Loaded},
    sources, sys,
};
use crate::config::{model, units::Prefix};

/// So many differences are named one by one; all are counted.
const NAMED: usize = 10_000;

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// Entries compared.
    pub checked: usize,
    pub total: usize,
    pub repaired: usize,
    /// The first of them.
    pub differences: Vec<Difference>,
    #[serde(skip)]
    pub took: Duration,
}

/// An entry of a map that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub map: &'static str,
    pub key: String,
    pub is: String,
    pub should: String,
}

/// What is not there.
pub(super) const NOTHING: &str = "nothing";

impl VerifyReport {
    pub(super) fn add(&mut self, map: &'static str, key: String, is: String, should: String) {
        self.total += 1;
        if self.differences.len() < NAMED {
            self.differences.push(Difference { map, key, is, should });
        }
    }
}

/// A key with what it has and what it should have.
pub(super) type Differing<K, V> = (K, Option<V>, Option<V>);

/// The entries of `is` and `should` that differ, by key.
pub(super) fn differing<K: Copy + Eq + Hash + Ord, V: Copy + PartialEq>(
    is: &HashMap<K, V>,
    should: &HashMap<K, V>,
) -> Vec<Differing<K, V>> {
    let wrong = should.iter().filter(|(key, value)| is.get(*key) != Some(*value));
    let wrong = wrong.map(|(key, value)| (*key, is.get(key).copied(), Some(*value)));
    let extra = is.iter().filter(|(key, _)| !should.contains_key(*key));
    let mut all: Vec<_> = wrong.chain(extra.map(|(key, value)| (*key, Some(*value), None))).collect();
    all.sort_by_key(|(key, ..)| *key);
    all
}

/// A whole map.
pub(super) fn entries<K: aya::Pod + Default + Eq + Hash, V: aya::Pod + Default>(
    maps: &Maps,
    map: &'static str,
) -> Result<HashMap<K, V>, KernelError> {
    let failed = |why: String| KernelError::Map { map, why };
    let fd: BorrowedFd<'_> = maps.fd(map).ok_or_else(|| failed("it is not in the object".into()))?;
    let mut all = HashMap::new();
    sys::for_each_entry(fd, |key: K, value: V| _ = all.insert(key, value))
        .map_err(|error| failed(error.to_string()))?;
    Ok(all)
}

pub(super) fn shown<V>(value: Option<V>, show: impl FnOnce(V) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), show)
}

impl Loaded {
    pub fn verify(&mut self, cfg: &model::Kernel, repair: bool) -> Result<VerifyReport, KernelError> {
        let began = Instant::now();
        self.sweep();
        let mut report = VerifyReport::default();
        // With no time at all no ban is over: what is over has just been swept, from here and from the maps.
        let (_, desired, settings) = self.compile(cfg, 0)?;
        self.verify_access(&desired.access, repair, &mut report)?;
        self.verify_bans(&desired.sources, repair, &mut report)?;
        self.verify_settings(&settings, repair, &mut report)?;
        self.verify_services(repair, &mut report)?;
        self.verify_steering(repair, &mut report)?;
        report.took = began.elapsed();
        Ok(report)
    }

    fn verify_access(
        &mut self,
        should: &HashMap<Prefix, Access>,
        repair: bool,
        report: &mut VerifyReport,
    ) -> Result<(), KernelError> {
        let mut is: HashMap<Prefix, Access> = HashMap::with_capacity(should.len());
        for (key, entry) in entries::<[u8; 8], Access>(&self.maps, name::ACCESS_V4)? {
            let [a, b, c, d, address @ ..] = key;
            is.insert(prefix([a, b, c, d], address.into()), entry);
        }
        for (key, entry) in entries::<[u8; 20], Access>(&self.maps, name::ACCESS_V6)? {
            let [a, b, c, d, address @ ..] = key;
            is.insert(prefix([a, b, c, d], address.into()), entry);
        }
        report.checked += is.len();
        let now = sys::monotonic_ns();
        let over = |entry: &Option<Access>| entry.is_some_and(|entry| is_over(entry.until_ns, now));
        for (prefix, is, should) in differing(&is, should) {
            // A ban that ended just now.
            if over(&is) || over(&should) {
                continue;
            }
            let map = if prefix.addr.is_ipv4() { name::ACCESS_V4 } else { name::ACCESS_V6 };
            report.add(map, prefix.to_string(), shown(is, show_access), shown(should, show_access));
            if repair {
                plane::set(&mut self.maps, prefix, should)?;
            }
        }
        Ok(())
    }

    fn verify_bans(
        &mut self,
        should: &HashMap<u64, Ban>,
        repair: bool,
        report: &mut VerifyReport,
    ) -> Result<(), KernelError> {
        let is: HashMap<u64, Ban> = entries(&self.maps, name::BANS)?;
        report.checked += is.len();
        let now = sys::monotonic_ns();
        let over = |ban: &Option<Ban>| ban.is_some_and(|ban| is_over(ban.until_ns, now));
        for (key, is, should) in differing(&is, should) {
            if over(&is) || over(&should) {
                continue;
            }
            let source = sources::show(key, self.settings.ipv6_mask);
            report.add(name::BANS, source, shown(is, show_ban), shown(should, show_ban));
            if !repair {
                continue;
            }
            match should {
                Some(ban) => self.maps.bans.insert(key, ban, 0),
                None => self.maps.bans.remove(&key),
            }
            .map_err(KernelError::map(name::BANS))?;
        }
        Ok(())
    }

    fn verify_settings(
        &mut self,
        should: &Settings,
        repair: bool,
        report: &mut VerifyReport,
    ) -> Result<(), KernelError> {
        let switch = self.maps.settings.get(&0, 0).map_err(KernelError::map(name::SETTINGS))?;
        let is = switch.settings[(switch.active & 1) as usize];
        let before = report.total;
        for ((field, is), (_, should)) in fields(&is).into_iter().zip(fields(should)) {
            report.checked += 1;
            if is != should {
                report.add(name::SETTINGS, field, is, should);
            }
        }
        if is == *should {
            return Ok(());
        }
        if report.total == before {
            report.add(name::SETTINGS, "other".into(), format!("{is:?}"), format!("{should:?}"));
        }
        if repair { self.switch(*should) } else { Ok(()) }
    }

    fn verify_steering(&mut self, repair: bool, report: &mut VerifyReport) -> Result<(), KernelError> {
        let is: HashMap<SteerKey, Workers> = entries(&self.maps, name::STEER)?;
        report.checked += is.len();
        let by_key = |keys: &HashMap<SteerKey, Workers>| -> HashMap<(u128, u32), Workers> {
            let flat = |key: &SteerKey| u128::from(key.address.hi) << 64 | u128::from(key.address.lo);
            keys.iter().map(|(key, workers)| ((flat(key), key.port), *workers)).collect()
        };
        let show = |workers: Workers| {
            format!("{} sockets from {}, seed {:x}", workers.count, workers.first, workers.seed)
        };
        for ((address, port), is, should) in differing(&by_key(&is), &by_key(&self.steering.keys)) {
            let address = gateway_common::source::Address { hi: (address >> 64) as u64, lo: address as u64 };
            let listener = std::net::SocketAddr::new(address.into(), port as u16).to_string();
            report.add(name::STEER, listener, shown(is, show), shown(should, show));
            if !repair {
                continue;
            }
            let key = SteerKey { address, port, _pad: 0 };
            match should {
                Some(workers) => self.maps.steer.insert(key, workers, 0),
                None => self.maps.steer.remove(&key),
            }
            .map_err(KernelError::map(name::STEER))?;
        }
        Ok(())
    }
}

fn prefix(len: [u8; 4], addr: IpAddr) -> Prefix {
    Prefix { addr, len: u32::from_ne_bytes(len) as u8 }
}

fn show_access(entry: Access) -> String {
    let action = |action| match action {
        access::ALLOW => "allow",
        access::BLOCK => "block",
        access::EXEMPT => "exempt",
        access::BAN => "ban",
        _ => "an unknown action",
    };
    match entry {
        Access { action: access::BAN, until_ns, after, .. } => {
            format!("ban{}, then {}", until(until_ns), action(after))
        }
        entry => action(entry.action).to_owned(),
    }
}

fn show_ban(ban: Ban) -> String {
    format!("ban{}", until(ban.until_ns))
}

fn until(until_ns: u64) -> String {
    match until_ns {
        0 => " until lifted".to_owned(),
        _ => format!(" for {} s", until_ns.saturating_sub(sys::monotonic_ns()).div_ceil(1_000_000_000)),
    }
}

fn show_limit(limit: &Limit) -> String {
    if !limit.is_on() {
        return "no limit".to_owned();
    }
    let rate = 1e9 / limit.interval_ns as f64;
    format!("{rate:.3}/s, burst {} ({} ns a token)", limit.burst(), limit.interval_ns)
}

fn show_bytes(limit: &Limit) -> String {
    if limit.is_on() { format!("{limit:?}") } else { "no limit".to_owned() }
}

pub(super) fn show_limits(limits: &Limits) -> String {
    let [packets, new] = [limits.packets, limits.new].map(|limit| show_limit(&limit));
    let soft = if limits.is_soft() { ", soft" } else { "" };
    format!("packets {packets}; new {new}; bytes {}{soft}", show_bytes(&limits.bytes))
}

fn show_flags(flags: u32) -> String {
    const NAMES: [(u32, &str); 7] = [
        (flag::ACCESS_V4, "access_v4"),
        (flag::ACCESS_V6, "access_v6"),
        (flag::BANS, "bans"),
        (flag::LIMITS, "limits"),
        (flag::LOOPBACK, "loopback"),
        (flag::SERVICES, "services"),
        (flag::CAPTURE, "capture"),
    ];
    let mut names: Vec<String> =
        NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).to_owned()).collect();
    let rest = NAMES.iter().fold(flags, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    if names.is_empty() { "none".into() } else { names.join("+") }
}

/// What people can read of the settings. What is compared is all of it.
fn fields(settings: &Settings) -> Vec<(String, String)> {
    let hex = |word: u64| format!("{word:#x}");
    let slots = settings.interfaces.iter().take_while(|index| **index != 0);
    let mut all = Vec::new();
    for (class, limits) in settings.limits.iter().enumerate() {
        let of = if class == 0 { String::new() } else { format!("class {class} ") };
        all.push((format!("{of}packets"), show_limit(&limits.packets)));
        all.push((format!("{of}new"), show_limit(&limits.new)));
        all.push((format!("{of}bytes"), show_bytes(&limits.bytes)));
        all.push((format!("{of}mode"), if limits.is_soft() { "soft" } else { "hard" }.to_owned()));
    }
    let rest = [
        ("flags", show_flags(settings.flags)),
        ("ipv6_prefix", format!("/{}", settings.ipv6_mask.count_ones())),
        ("interfaces", slots.map(u32::to_string).collect::<Vec<_>>().join(" ")),
        ("clock", format!("{} ns a tick, offset {}", settings.clock.tick_ns, settings.clock.offset_ns)),
        ("sample_mask", hex(settings.sample_mask)),
        ("seed", hex(settings.seed)),
        ("flow_seed", hex(settings.flow_seed)),
        ("flows_mask", hex(settings.flows_mask)),
        ("replies_mask", hex(settings.replies_mask)),
        ("service_limits", settings.service_limits.to_string()),
        ("services_at", settings.services.to_string()),
    ];
    all.extend(rest.map(|(name, value)| (name.to_owned(), value)));
    all
}
