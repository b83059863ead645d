//! Token buckets a source: see `gateway_common::table` for why spoofed sources cannot turn them over.

use gateway_common::{
    bucket::Limit,
    maps::Settings,
    packet::{Parsed, bit},
    table::{self, Way},
    verdict::Reason,
};

use crate::{atomic, maps};

#[inline(always)]
pub fn judge(settings: &Settings, key: u64, parsed: &Parsed, now: u64) -> Result<Reason, Reason> {
    let new = settings.new.is_on() && parsed.bits & bit::NEW != 0;
    let places = table::places(settings.flow_seed, key);
    let first = maps::BUCKETS.get_ptr_mut(places.sets[0]).ok_or(Reason::LimitShared)?;
    // SAFETY: a value of the map has two ways.
    let ways = unsafe { [&raw mut (*first).0[0], &raw mut (*first).0[1]] };
    for way in ways {
        // SAFETY: a way of a value of the map.
        if unsafe { word(&raw const (*way).key) } == key {
            return exact(settings, way, new, now);
        }
    }
    unknown(settings, key, new, now)
}

/// Judges a new connection by the source's own buckets, if it has them; it gets none by this.
#[inline(always)]
pub fn known(settings: &Settings, key: u64, now: u64) -> Result<(), Reason> {
    let places = table::places(settings.flow_seed, key);
    for set in places.sets {
        let set = maps::BUCKETS.get_ptr_mut(set).ok_or(Reason::LimitShared)?;
        // SAFETY: a value of the map has two ways.
        let ways = unsafe { [&raw mut (*set).0[0], &raw mut (*set).0[1]] };
        for way in ways {
            // SAFETY: a way of a value of the map.
            if unsafe { word(&raw const (*way).key) } == key {
                return exact(settings, way, settings.new.is_on(), now).map(|_| ());
            }
        }
    }
    Ok(())
}

/// Judges by the source's own buckets.
#[inline(always)]
fn exact(settings: &Settings, way: *mut Way, new: bool, now: u64) -> Result<Reason, Reason> {
    // SAFETY: a way of a value of the map.
    unsafe {
        let over = if settings.packets.is_on()
            && !atomic::take(&raw mut (*way).packets_tat, &settings.packets, now)
        {
            Reason::LimitPackets
        } else if new && !atomic::take(&raw mut (*way).new_tat, &settings.new, now) {
            Reason::LimitNew
        } else {
            return Ok(Reason::Ok);
        };
        (*way).dropped += 1;
        Err(over)
    }
}

/// Looks in the second set; else takes a place; else judges by what the source shares with others.
#[inline(never)]
fn unknown(settings: &Settings, key: u64, new: bool, now: u64) -> Result<Reason, Reason> {
    let places = table::places(settings.flow_seed, key);
    let first = maps::BUCKETS.get_ptr_mut(places.sets[0]).ok_or(Reason::LimitShared)?;
    // SAFETY: a value of the map has two ways.
    let ways = unsafe { [&raw mut (*first).0[0], &raw mut (*first).0[1]] };
    let second = maps::BUCKETS.get_ptr_mut(places.sets[1]).ok_or(Reason::LimitShared)?;
    // SAFETY: a value of the map has two ways.
    let others = unsafe { [&raw mut (*second).0[0], &raw mut (*second).0[1]] };
    for way in others {
        // SAFETY: a way of a value of the map.
        if unsafe { word(&raw const (*way).key) } == key {
            return exact(settings, way, new, now);
        }
    }
    for way in [ways[0], ways[1], others[0], others[1]] {
        // SAFETY: a way of a value of the map.
        if unsafe { claim(way, key, now) } {
            return exact(settings, way, new, now);
        }
    }
    let Some(shared) = maps::COARSE.get_ptr_mut(places.shared) else { return Err(Reason::LimitShared) };
    let take = |word: *mut u64, limit: &Limit| {
        // SAFETY: a word of a value of the map.
        unsafe { atomic::take(word, &table::shared(limit), now) }
    };
    // SAFETY: a value of the map has both words.
    let (packets, connections) = unsafe { (&raw mut (*shared).packets_tat, &raw mut (*shared).new_tat) };
    if settings.packets.is_on() && !take(packets, &settings.packets) {
        return Err(Reason::LimitShared);
    }
    if new && !take(connections, &settings.new) {
        return Err(Reason::LimitShared);
    }
    Ok(Reason::OkShared)
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
        if word(&raw const (*way).packets_tat) > now || word(&raw const (*way).new_tat) > now {
            return false;
        }
        let found = atomic::compare_exchange(&raw mut (*way).key, old, key);
        if found == old {
            (*way).dropped = 0;
        }
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
