//! The config as the XDP program reads it, and writing it without any packet seeing half of it.

use std::collections::HashMap;

use aya::maps::PerCpuValues;
use gateway_common::{
    bucket::Limit,
    clock::Clock,
    maps::{self as layout, CLASSES, INTERFACES, Limits, Settings, flag, name},
    source,
};

use super::{
    clock::Jiffies,
    error::KernelError,
    object::Maps,
    table::{self, Rules},
};
use crate::config::{model, units::Prefix};

/// Ticks that a limit must span for jiffies to be exact enough for it.
const TICKS: u64 = 10;

/// Every 1024th drop of a kind and CPU is sampled, beginning with the first.
const SAMPLE_MASK: u64 = 1023;

/// Load factors that can be set.
pub const FACTORS: std::ops::RangeInclusive<f64> = 0.01..=1.0;

/// The limits of each class, at a load factor of 1: first those of `kernel.limit`, then the classes' by their names.
pub fn limits(cfg: &model::Kernel) -> [Limits; CLASSES] {
    let mut limits = [Limits::default(); CLASSES];
    let all = &cfg.limit;
    limits[0] = limits_of(all.packets, all.new, all.bytes, all.mode);
    for (limits, class) in limits[1..].iter_mut().zip(cfg.classes.values()) {
        *limits = limits_of(class.packets, class.new, class.bytes, class.mode);
    }
    limits
}

pub fn limits_of(
    packets: Option<model::Bucket>,
    new: Option<model::Bucket>,
    bytes: Option<model::Bucket>,
    mode: model::LimitMode,
) -> Limits {
    let limit = |bucket: Option<model::Bucket>| {
        bucket.map_or(Limit::OFF, |b| Limit::per_second(b.rate.per_second, b.burst.max(1)))
    };
    let bytes = bytes.map_or(Limit::OFF, |b| Limit::bytes_per_second(b.rate.per_second, b.burst.max(1)));
    Limits::new(limit(packets), limit(new), bytes, mode == model::LimitMode::Soft)
}

/// Jiffies, where they are exact enough for all of `limits`.
pub fn clock<'a>(jiffies: Option<Jiffies>, mut limits: impl Iterator<Item = &'a Limits>) -> Clock {
    let Some(clock) = jiffies.map(|jiffies| jiffies.clock) else { return Clock::EXACT };
    let long_enough = |limit: &Limit| !limit.is_on() || limit.depth_ns >= TICKS * clock.tick_ns;
    let all = limits.all(|limits| [limits.packets, limits.new, limits.bytes].iter().all(long_enough));
    if all { clock } else { Clock::EXACT }
}

/// What of the settings comes from the config alone; `limits` as they are to be now.
pub fn compile(cfg: &model::Kernel, seed: u64, limits: [Limits; CLASSES]) -> Settings {
    Settings {
        clock: Clock::EXACT,
        limits,
        seed,
        ipv6_mask: source::ipv6_mask(cfg.limit.ipv6_prefix),
        sample_mask: SAMPLE_MASK,
        flow_seed: 0,
        flows_mask: 0,
        replies_mask: 0,
        flags: if limits.iter().any(Limits::is_on) { flag::LIMITS } else { 0 },
        interfaces: [0; INTERFACES],
        service_limits: 0,
        services: 0,
        _pad: 0,
    }
}

/// The flags for tables that are not empty.
pub fn table_flags<'a>(access: impl Iterator<Item = &'a Prefix>, bans: bool) -> u32 {
    let mut flags = if bans { flag::BANS } else { 0 };
    for prefix in access {
        flags |= if prefix.addr.is_ipv4() { flag::ACCESS_V4 } else { flag::ACCESS_V6 };
    }
    flags
}

/// Fills the idle settings and switches to them.
pub fn write(maps: &mut Maps, settings: &Settings) -> Result<(), KernelError> {
    let failed = || KernelError::map(name::SETTINGS);
    let mut switch = maps.settings.get(&0, 0).map_err(failed())?;
    let idle = (switch.active & 1) ^ 1;
    switch.settings[idle as usize] = *settings;
    maps.settings.set(0, switch, 0).map_err(failed())?;
    switch.active = idle;
    maps.settings.set(0, switch, 0).map_err(failed())
}

/// Gives every interface its slot in the counters: the one it had, if an earlier run left its counts, else one that
/// no interface has. Those beyond the eighth are counted together.
pub fn assign_slots(maps: &mut Maps, wanted: &[u32]) -> Result<[u32; INTERFACES], KernelError> {
    let failed = || KernelError::map(name::SLOTS);
    let mut slots = [0; INTERFACES];
    for (index, slot) in slots.iter_mut().enumerate() {
        *slot = maps.slots.get(&(index as u32), 0).map_err(failed())?;
    }
    let mut new: Vec<u32> = wanted.iter().copied().filter(|ifindex| !slots.contains(ifindex)).collect();
    new.dedup();
    let mut in_use = [0; INTERFACES];
    for (index, slot) in slots.iter_mut().enumerate() {
        if !wanted.contains(slot) {
            let Some(ifindex) = new.pop() else { continue };
            clear_counters(maps, index as u32)?;
            maps.slots.set(index as u32, ifindex, 0).map_err(failed())?;
            *slot = ifindex;
        }
        in_use[index] = *slot;
    }
    Ok(in_use)
}

fn clear_counters(maps: &mut Maps, slot: u32) -> Result<(), KernelError> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(path, error)| KernelError::Map { map: name::COUNTERS, why: format!("{path}: {error}") })?;
    for reason in 0..layout::REASONS {
        let zero = PerCpuValues::try_from(vec![layout::Counter::default(); cpus])
            .map_err(|error| KernelError::Map { map: name::COUNTERS, why: error.to_string() })?;
        let index = layout::counter_index(slot, reason as u8);
        maps.counters.set(index, zero, 0).map_err(KernelError::map(name::COUNTERS))?;
    }
    Ok(())
}

/// Rules of prefixes as the config has them, before bans.
pub fn rules(cfg: &model::Kernel) -> Rules {
    use gateway_common::maps::access::{ALLOW, BLOCK, EXEMPT};
    let mut rules = Rules { actions: HashMap::with_capacity(cfg.block.prefixes.len()), ..Rules::default() };
    let actions = &mut rules.actions;
    actions.extend(cfg.block.prefixes.iter().map(|prefix| (*prefix, BLOCK)));
    for hole in &cfg.block.except {
        // A hole in a block does not end an exemption around it.
        let exempt = cfg.limit.exempt.iter().any(|exempt| exempt.covers(hole));
        actions.insert(*hole, if exempt { EXEMPT } else { ALLOW });
    }
    actions.extend(cfg.limit.exempt.iter().map(|prefix| (*prefix, EXEMPT)));
    for (class, number) in cfg.classes.values().zip(1..CLASSES as u8) {
        for prefix in &class.from {
            rules.classes.insert(*prefix, number);
            // A class says nothing of who is let in: what is blocked or exempt around it goes on inside.
            if !matches!(table::rule_around(&rules, *prefix), Some((_, BLOCK | EXEMPT))) {
                rules.actions.entry(*prefix).or_insert(ALLOW);
            }
        }
    }
    rules
}
