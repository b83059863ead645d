//! Sources with buckets, as people want to see them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gateway_common::{
    bucket::Limit,
    hash,
    maps::{self as layout, Buckets, COARSE_SLOTS, Settings, name},
    source::{Address, key_is_link_local, key_v4},
};

use super::{error::KernelError, object::Maps, report::SourceRow, sys};

/// The `most` sources that were refused most, then those seen last.
pub fn top(maps: &Maps, settings: &Settings, most: usize) -> io::Result<Vec<SourceRow>> {
    let mut all: Vec<(u64, Buckets)> = Vec::new();
    if let Some(fd) = maps.fd(name::BUCKETS) {
        sys::for_each_entry(fd, |key, buckets| all.push((key, buckets)))?;
    }
    let by_need = |(_, b): &(u64, Buckets)| std::cmp::Reverse((b.dropped, b.seen_ns));
    if all.len() > most && most > 0 {
        all.select_nth_unstable_by_key(most - 1, by_need);
    }
    all.truncate(most);
    all.sort_unstable_by_key(by_need);
    let now = sys::monotonic_ns();
    Ok(all.iter().map(|(key, buckets)| row(*key, buckets, settings, now)).collect())
}

/// One source's buckets, if it has any.
pub fn one(maps: &Maps, settings: &Settings, source: IpAddr) -> Option<SourceRow> {
    let key = Address::from(source).key(settings.ipv6_mask);
    let buckets = maps.buckets.get(&key, 0).ok()?;
    Some(row(key, &buckets, settings, sys::monotonic_ns()))
}

/// Fills a source's buckets, its own and those it shares.
pub fn reset(maps: &mut Maps, settings: &Settings, source: IpAddr) -> Result<(), KernelError> {
    let key = Address::from(source).key(settings.ipv6_mask);
    let slot = hash::of_key(settings.seed, key) as u32 & (COARSE_SLOTS - 1);
    maps.coarse.set(slot, layout::Coarse::default(), 0).map_err(KernelError::map(name::COARSE))?;
    match maps.buckets.remove(&key) {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(error) if super::error::errno(&error) == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(KernelError::map(name::BUCKETS)(error)),
    }
}

fn row(key: u64, buckets: &Buckets, settings: &Settings, now: u64) -> SourceRow {
    let left = |limit: &Limit, tat| limit.is_on().then(|| limit.left(tat, now));
    SourceRow {
        source: show(key, settings.ipv6_mask),
        packets_left: left(&settings.packets, buckets.packets_tat),
        new_left: left(&settings.new, buckets.new_tat),
        dropped: buckets.dropped,
        idle_seconds: now.saturating_sub(buckets.seen_ns) as f64 / 1e9,
    }
}

fn show(key: u64, ipv6_mask: u64) -> String {
    if let Some(v4) = key_v4(key) {
        Ipv4Addr::from(v4).to_string()
    } else if key_is_link_local(key) {
        format!("fe80::/64#{:012x}", key & 0xffff_ffff_ffff)
    } else {
        let address = Ipv6Addr::from(u128::from(key) << 64);
        format!("{address}/{}", ipv6_mask.count_ones())
    }
}
