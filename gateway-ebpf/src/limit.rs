//! Token buckets a source: exact ones in an LRU hash, and shared words in front of it.
//!
//! An LRU of buckets alone is worse than nothing under spoofed floods: each new address costs ten times the
//! packet and gets a full bucket. So a source without a bucket is first judged by a word it shares with others
//! of the same seeded hash; only what passes may get a bucket, and only so many sources a second.

use aya_ebpf::bindings::BPF_NOEXIST;
use gateway_common::{
    hash,
    maps::{Buckets, COARSE_SLOTS, Settings},
    packet::{Parsed, bit},
    verdict::Reason,
};

use crate::{atomic, maps};

#[inline(always)]
pub fn judge(settings: &Settings, key: u64, parsed: &Parsed, now: u64) -> Result<Reason, Reason> {
    let new = settings.new.is_on() && parsed.bits & bit::NEW != 0;
    match maps::BUCKETS.get_ptr_mut(key) {
        Some(buckets) => exact(settings, buckets, new, now),
        None => unknown(settings, key, new, now),
    }
}

/// Judges by the source's own buckets.
#[inline(always)]
fn exact(settings: &Settings, buckets: *mut Buckets, new: bool, now: u64) -> Result<Reason, Reason> {
    // SAFETY: `buckets` is a value of the map; an entry that is evicted meanwhile is memory of the map still.
    unsafe {
        (*buckets).seen_ns = now;
        let over = if settings.packets.is_on()
            && !atomic::take(&raw mut (*buckets).packets_tat, &settings.packets, now)
        {
            Reason::LimitPackets
        } else if new && !atomic::take(&raw mut (*buckets).new_tat, &settings.new, now) {
            Reason::LimitNew
        } else {
            return Ok(Reason::Ok);
        };
        (*buckets).dropped += 1;
        Err(over)
    }
}

/// Judges a source that has no buckets, and gives it some while the budget lasts.
#[inline(never)]
fn unknown(settings: &Settings, key: u64, new: bool, now: u64) -> Result<Reason, Reason> {
    let slot = hash::of_key(settings.seed, key) as u32 & (COARSE_SLOTS - 1);
    let Some(shared) = maps::COARSE.get_ptr_mut(slot) else { return Ok(Reason::OkShared) };
    // SAFETY: `shared` is a value of the map.
    unsafe {
        if settings.packets.is_on() && !atomic::take(&raw mut (*shared).packets_tat, &settings.packets, now) {
            return Err(Reason::LimitShared);
        }
        if new && !atomic::take(&raw mut (*shared).new_tat, &settings.new, now) {
            return Err(Reason::LimitShared);
        }
    }
    let Some(budget) = maps::BUDGET.get_ptr_mut(0) else { return Ok(Reason::OkShared) };
    // SAFETY: `budget` is a value of the map.
    if !unsafe { atomic::take(budget, &settings.new_sources, now) } {
        return Ok(Reason::OkShared);
    }
    let first = Buckets {
        packets_tat: if settings.packets.is_on() { now + settings.packets.interval_ns } else { 0 },
        new_tat: if new { now + settings.new.interval_ns } else { 0 },
        dropped: 0,
        seen_ns: now,
    };
    if maps::BUCKETS.insert(key, &first, u64::from(BPF_NOEXIST)).is_ok() {
        return Ok(Reason::Ok);
    }
    // Another CPU was faster with the same source, or the map is out of entries for a moment.
    match maps::BUCKETS.get_ptr_mut(key) {
        Some(buckets) => exact(settings, buckets, new, now),
        None => Ok(Reason::OkShared),
    }
}
