//! Sources with buckets, as people want to see them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gateway_common::{
    bucket::Limit,
    maps::{self as layout, Settings, name},
    source::{Address, key_is_link_local, key_v4},
    table::{self, Set, Way},
};

use super::{error::KernelError, object::Maps, report::SourceRow, sys};

/// The `most` sources that were refused most.
pub fn top(maps: &Maps, settings: &Settings, most: usize) -> io::Result<Vec<SourceRow>> {
    let now = sys::monotonic_ns();
    let mut all: Vec<Way> = Vec::new();
    if let Some(fd) = maps.fd(name::BUCKETS) {
        let worth = |way: &&Way| !table::is_full(way, now) || way.dropped > 0;
        sys::for_each_entry(fd, |_: u32, set: Set| all.extend(set.0.iter().filter(worth)))?;
    }
    let by_need = |way: &Way| std::cmp::Reverse((way.dropped, way.packets_tat, way.new_tat));
    if all.len() > most && most > 0 {
        all.select_nth_unstable_by_key(most - 1, by_need);
    }
    all.truncate(most);
    all.sort_unstable_by_key(by_need);
    Ok(all.iter().map(|way| row(way, settings, now)).collect())
}

/// One source's buckets, if it has any that are not full or refused something.
pub fn one(maps: &Maps, settings: &Settings, source: IpAddr) -> Option<SourceRow> {
    let now = sys::monotonic_ns();
    let key = Address::from(source).key(settings.ipv6_mask);
    let mut ways = table::places(settings.flow_seed, key)
        .sets
        .into_iter()
        .filter_map(|set| maps.buckets.get(&set, 0).ok())
        .flat_map(|set| set.0);
    let way = ways.find(|way| way.key == key && (!table::is_full(way, now) || way.dropped > 0))?;
    Some(row(&way, settings, now))
}

/// Fills a source's buckets, its own and those it shares. Tokens that the set's other source takes in the same
/// microsecond may be given back to it.
pub fn reset(maps: &mut Maps, settings: &Settings, source: IpAddr) -> Result<(), KernelError> {
    let key = Address::from(source).key(settings.ipv6_mask);
    let places = table::places(settings.flow_seed, key);
    maps.coarse.set(places.shared, layout::Coarse::default(), 0).map_err(KernelError::map(name::COARSE))?;
    for index in places.sets {
        let failed = || KernelError::map(name::BUCKETS);
        let mut set = maps.buckets.get(&index, 0).map_err(failed())?;
        if let Some(way) = set.0.iter_mut().find(|way| way.key == key) {
            *way = Way { key, ..Way::default() };
            maps.buckets.set(index, set, 0).map_err(failed())?;
        }
    }
    Ok(())
}

fn row(way: &Way, settings: &Settings, now: u64) -> SourceRow {
    let left = |limit: &Limit, tat| limit.is_on().then(|| limit.left(tat, now));
    SourceRow {
        source: show(way.key, settings.ipv6_mask),
        packets_left: left(&settings.packets, way.packets_tat),
        new_left: left(&settings.new, way.new_tat),
        dropped: way.dropped,
        idle_seconds: now.saturating_sub(way.packets_tat.max(way.new_tat)) as f64 / 1e9,
    }
}

pub(super) fn show(key: u64, ipv6_mask: u64) -> String {
    if let Some(v4) = key_v4(key) {
        Ipv4Addr::from(v4).to_string()
    } else if key_is_link_local(key) {
        format!("fe80::/64#{:012x}", key & 0xffff_ffff_ffff)
    } else {
        let address = Ipv6Addr::from(u128::from(key) << 64);
        format!("{address}/{}", ipv6_mask.count_ones())
    }
}
