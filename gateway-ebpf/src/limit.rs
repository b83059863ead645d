//! Token buckets a source: see `gateway_common::table` for why spoofed sources cannot turn them over.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use gateway_common::{
    bucket::Limit,
    maps::{Coarse, Limits, Settings},
    packet::{Packet as _, Parsed, bit},
    source::service_key,
    table::{self, Way},
    verdict::Reason,
};

use crate::{atomic, maps, packet::Frame, xdp};

/// A packet as buckets see it, in a word: whether it begins a connection, at which service it is judged (zero: at all of
/// them), and the bytes of its frame, where they are limited.
#[derive(Clone, Copy)]
struct Load(u64);

impl Load {
    #[inline(always)]
    fn new(ctx: &XdpContext, limits: &Limits, parsed: &Parsed, service: u16) -> Self {
        let new = limits.new.is_on() && parsed.bits & bit::NEW != 0;
        let bytes = if limits.bytes.is_on() { Frame::new(ctx).whole_len() as u64 } else { 0 };
        Self(u64::from(new) | u64::from(service) << 16 | bytes << 32)
    }

    #[inline(always)]
    const fn is_new(self) -> bool {
        self.0 & 1 != 0
    }

    #[inline(always)]
    const fn service(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    const fn bytes(self) -> u64 {
        self.0 >> 32
    }
}

/// Judges a packet by what its source may send. `source`: the source's key.
#[inline(always)]
pub fn judge(
    ctx: &XdpContext,
    settings: &Settings,
    limits: &Limits,
    source: u64,
    parsed: &Parsed,
    now: u64,
) -> Result<Reason, Reason> {
    if !limits.is_on() {
        return Ok(Reason::Ok);
    }
    at_service(settings, limits, source, Load::new(ctx, limits, parsed, 0), now)
}

/// Judges a packet by what its source may send to one service: zero, or why it is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_limit_service(
    ctx: *mut xdp_md,
    parsed: *mut Parsed,
    service: u32,
    now: u64,
) -> u32 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: null or a packet's description in a map's value; the verifier insists on the check.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else { return 0 };
    let Some(limits) = maps::SERVICE_LIMITS.get(settings.service_limits + service) else { return 0 };
    if !limits.is_on() {
        return 0;
    }
    let load = Load::new(&ctx, limits, parsed, service as u16);
    let source = parsed.source.key(settings.ipv6_mask);
    match at_service(settings, limits, source, load, now) {
        Ok(_) => 0,
        Err(reason) => u32::from(reason.id()),
    }
}

/// Judges by the first set, where most sources are.
#[inline(always)]
fn at_service(
    settings: &Settings,
    limits: &Limits,
    source: u64,
    load: Load,
    now: u64,
) -> Result<Reason, Reason> {
    let key = service_key(settings.flow_seed, source, load.service());
    let set = table::places(settings.flow_seed, key).sets[0];
    let first = maps::BUCKETS.get_ptr_mut(set).ok_or(Reason::LimitShared)?;
    // SAFETY: a value of the map has two ways.
    let ways = unsafe { [&raw mut (*first).0[0], &raw mut (*first).0[1]] };
    // SAFETY: ways of a value of the map.
    let (zero, one) = unsafe { (word(&raw const (*ways[0]).key), word(&raw const (*ways[1]).key)) };
    let (way, at) = if zero == key {
        (ways[0], 0)
    } else if one == key {
        (ways[1], 1)
    } else {
        return verdict(unknown(settings, limits, source, load.0, now));
    };
    // SAFETY: a way of a value of the map.
    match unsafe { over(limits, way, load, now) } {
        Some(over) => refused(limits, over, table::drops_index(set, at), source, load, now),
        None => Ok(Reason::Ok),
    }
}

/// Which of the source's own buckets has too little left for a packet. What others gave is taken all the same.
///
/// # Safety
/// `way` is a way of a value of the map.
#[inline(always)]
unsafe fn over(limits: &Limits, way: *mut Way, load: Load, now: u64) -> Option<Reason> {
    // SAFETY: the caller's promise.
    let (packets, new, bytes) =
        unsafe { (&raw mut (*way).packets_tat, &raw mut (*way).new_tat, &raw mut (*way).bytes_tat) };
    // SAFETY: words of a way of a value of the map.
    unsafe {
        if limits.packets.is_on() && !atomic::take(packets, &limits.packets, now) {
            return Some(Reason::LimitPackets);
        }
        if load.is_new() && !atomic::take(new, &limits.new, now) {
            return Some(Reason::LimitNew);
        }
        let cost = limits.bytes.cost_of_bytes(load.bytes());
        if limits.bytes.is_on() && !atomic::take_cost(bytes, &limits.bytes, cost, now) {
            return Some(Reason::LimitBytes);
        }
    }
    None
}

/// What becomes of a packet over its source's limit: it is dropped and noted, but where the limit is soft.
#[inline(always)]
fn refused(
    limits: &Limits,
    over: Reason,
    index: u32,
    source: u64,
    load: Load,
    now: u64,
) -> Result<Reason, Reason> {
    if limits.is_soft() {
        return Ok(Reason::OkSoft);
    }
    if let Some(drops) = maps::DROPS.get_ptr_mut(index) {
        let service = u64::from(load.service());
        // SAFETY: a value of the map. CPUs that write at once lose a drop of the count.
        unsafe {
            if (*drops).source != source || (*drops).service != service {
                (*drops).source = source;
                (*drops).service = service;
                (*drops).dropped = 0;
                (*drops).since_ns = now;
            }
            (*drops).dropped += 1;
        }
    }
    Err(over)
}

/// Judges a new connection by the source's own buckets, if it has them; it gets none by this.
#[inline(always)]
pub fn known(settings: &Settings, limits: &Limits, source: u64, now: u64) -> Result<(), Reason> {
    let load = Load(u64::from(limits.new.is_on()));
    let key = service_key(settings.flow_seed, source, 0);
    for set in table::places(settings.flow_seed, key).sets {
        let first = maps::BUCKETS.get_ptr_mut(set).ok_or(Reason::LimitShared)?;
        // SAFETY: a value of the map has two ways.
        let ways = unsafe { [&raw mut (*first).0[0], &raw mut (*first).0[1]] };
        for (at, way) in ways.into_iter().enumerate() {
            // SAFETY: a way of a value of the map.
            if unsafe { word(&raw const (*way).key) } != key {
                continue;
            }
            // SAFETY: as above.
            return match unsafe { over(limits, way, load, now) } {
                Some(over) => {
                    refused(limits, over, table::drops_index(set, at as u32), source, load, now).map(|_| ())
                }
                None => Ok(()),
            };
        }
    }
    Ok(())
}

/// Looks in the second set; else takes a place; else judges by what the source shares with others. The reason's id: a
/// whole result would be one argument too many.
#[inline(never)]
fn unknown(settings: &Settings, limits: &Limits, source: u64, load: u64, now: u64) -> u32 {
    let load = Load(load);
    let key = service_key(settings.flow_seed, source, load.service());
    let places = table::places(settings.flow_seed, key);
    let (Some(first), Some(second)) =
        (maps::BUCKETS.get_ptr_mut(places.sets[0]), maps::BUCKETS.get_ptr_mut(places.sets[1]))
    else {
        return u32::from(Reason::LimitShared.id());
    };
    // SAFETY: a value of the map has two ways.
    let ways = unsafe {
        [&raw mut (*second).0[0], &raw mut (*second).0[1], &raw mut (*first).0[0], &raw mut (*first).0[1]]
    };
    let index = |at: usize| {
        let set = if at < 2 { places.sets[1] } else { places.sets[0] };
        table::drops_index(set, at as u32)
    };
    let mut found = None;
    for (at, way) in ways.into_iter().take(2).enumerate() {
        // SAFETY: a way of a value of the map.
        if found.is_none() && unsafe { word(&raw const (*way).key) } == key {
            found = Some((way, index(at)));
        }
    }
    for at in [2, 3, 0, 1] {
        // SAFETY: a way of a value of the map.
        if found.is_none() && unsafe { claim(ways[at], key, now) } {
            found = Some((ways[at], index(at)));
        }
    }
    if let Some((way, index)) = found {
        // SAFETY: a way of a value of the map.
        let over = unsafe { over(limits, way, load, now) };
        let result = over.map_or(Ok(Reason::Ok), |over| refused(limits, over, index, source, load, now));
        return u32::from(result.unwrap_or_else(|reason| reason).id());
    }
    let Some(shared) = maps::COARSE.get_ptr_mut(places.shared) else {
        return u32::from(Reason::LimitShared.id());
    };
    // SAFETY: a value of the map.
    let over = unsafe { over_shared(limits, shared, load, now) };
    let reason = match (over, limits.is_soft()) {
        (false, _) => Reason::OkShared,
        (true, true) => Reason::OkSoft,
        (true, false) => Reason::LimitShared,
    };
    u32::from(reason.id())
}

/// What a reason's id says: one of those given in this file.
#[inline(always)]
fn verdict(id: u32) -> Result<Reason, Reason> {
    const OK_SHARED: u32 = Reason::OkShared as u32;
    const OK_SOFT: u32 = Reason::OkSoft as u32;
    const PACKETS: u32 = Reason::LimitPackets as u32;
    const NEW: u32 = Reason::LimitNew as u32;
    const BYTES: u32 = Reason::LimitBytes as u32;
    match id {
        0 => Ok(Reason::Ok),
        OK_SHARED => Ok(Reason::OkShared),
        OK_SOFT => Ok(Reason::OkSoft),
        PACKETS => Err(Reason::LimitPackets),
        NEW => Err(Reason::LimitNew),
        BYTES => Err(Reason::LimitBytes),
        _ => Err(Reason::LimitShared),
    }
}

/// Whether a bucket that sources without one of their own share has too little left for a packet.
///
/// # Safety
/// `shared` is a value of the map.
#[inline(always)]
unsafe fn over_shared(limits: &Limits, shared: *mut Coarse, load: Load, now: u64) -> bool {
    let take = |word: *mut u64, limit: &Limit, bytes: Option<u64>| {
        let wide = table::shared(limit);
        let cost = bytes.map_or(wide.interval_ns, |bytes| wide.cost_of_bytes(bytes));
        // SAFETY: a word of a value of the map.
        unsafe { atomic::take_cost(word, &wide, cost, now) }
    };
    // SAFETY: the caller's promise.
    let (packets, new, bytes) =
        unsafe { (&raw mut (*shared).packets_tat, &raw mut (*shared).new_tat, &raw mut (*shared).bytes_tat) };
    (limits.packets.is_on() && !take(packets, &limits.packets, None))
        || (load.is_new() && !take(new, &limits.new, None))
        || (limits.bytes.is_on() && !take(bytes, &limits.bytes, Some(load.bytes())))
}

/// Makes a full bucket this source's; false: it is not full, or another CPU was faster with another source.
///
/// # Safety
/// `way` is a way of a value of the map.
#[inline(always)]
unsafe fn claim(way: *mut Way, key: u64, now: u64) -> bool {
    // SAFETY: the caller's promise. A token that the former owner takes meanwhile is the new one's loss: one at most
    // a CPU.
    unsafe {
        let old = word(&raw const (*way).key);
        if old == key {
            return true;
        }
        if word(&raw const (*way).packets_tat) > now
            || word(&raw const (*way).new_tat) > now
            || word(&raw const (*way).bytes_tat) > now
        {
            return false;
        }
        let found = atomic::compare_exchange(&raw mut (*way).key, old, key);
        found == old || found == key
    }
}

/// # Safety
/// `word` points to an aligned `u64` in a map's value.
#[inline(always)]
unsafe fn word(word: *const u64) -> u64 {
    // SAFETY: the caller's promise. The kernel reads aligned words whole.
    unsafe { core::ptr::read_volatile(word) }
}
