//! Sources with buckets, as people want to see them.

use std::{
    cmp::Reverse,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gateway_common::{
    bucket::Limit,
    maps::{self as layout, Limits, Settings, name},
    source::{Address, key_is_link_local, key_v4, service_key, service_key_parts},
    table::{self, Drops, Set, Way},
};

use super::{error::KernelError, object::Maps, report::SourceRow, sys};

/// A source's buckets: for everything, or at one service.
#[derive(Clone, Copy)]
struct Found {
    source: u64,
    service: u16,
    way: Way,
    drops: Drops,
}

/// Who the rows are about: limits and names.
pub trait Names {
    /// The limits of a source, for everything or at a service.
    fn limits(&self, source: IpAddr, service: u16) -> Limits;
    fn service(&self, service: u16) -> Option<String>;
}

/// For so many places their drops are read one by one: to read all takes as long as to ask for twenty thousand.
const FEW: usize = 8192;

/// The `most` sources that were refused most.
pub fn top(maps: &Maps, settings: &Settings, names: &impl Names, most: usize) -> io::Result<Vec<SourceRow>> {
    let now = sys::monotonic_ns();
    let (Some(buckets), Some(refused)) = (maps.fd(name::BUCKETS), maps.fd(name::DROPS)) else {
        return Ok(Vec::new());
    };
    // By where their drops are; most places are nobody's.
    let mut taken: Vec<(u32, Way)> = Vec::new();
    sys::for_each_entry(buckets, |set: u32, ways: Set| {
        let ways = ways.0.into_iter().enumerate().filter(|(_, way)| way.key != 0);
        taken.extend(ways.map(|(at, way)| (table::drops_index(set, at as u32), way)));
    })?;
    let mut drops: Vec<Drops> = Vec::new();
    if taken.len() > FEW {
        drops.resize(layout::BUCKETS_CAPACITY as usize, Drops::default());
        sys::for_each_entry(refused, |at: u32, entry: Drops| {
            if let Some(place) = drops.get_mut(at as usize) {
                *place = entry;
            }
        })?;
    }
    let drops = |index: u32| match drops.get(index as usize) {
        Some(read) => *read,
        None => maps.drops.get(&index, 0).unwrap_or_default(),
    };
    let all = taken.into_iter().filter_map(|(index, way)| found(way, drops(index), settings));
    let mut all: Vec<Found> = all.filter(|found| worth(found, now)).collect();
    let by_need = |found: &Found| {
        Reverse((found.drops.dropped, found.way.packets_tat, found.way.new_tat, found.way.bytes_tat))
    };
    if all.len() > most && most > 0 {
        all.select_nth_unstable_by_key(most - 1, by_need);
    }
    all.truncate(most);
    all.sort_unstable_by_key(by_need);
    Ok(all.iter().map(|found| row(found, settings, names, now)).collect())
}

/// A bucket's source, with what it was refused while the bucket was its.
fn found(way: Way, drops: Drops, settings: &Settings) -> Option<Found> {
    let ours = service_key(settings.flow_seed, drops.source, drops.service as u16) == way.key;
    let drops = if ours { drops } else { Drops::default() };
    let parts = if ours { Some((drops.source, drops.service as u16)) } else { service_key_parts(way.key) };
    let (source, service) = parts?;
    Some(Found { source, service, way, drops })
}

fn worth(found: &Found, now: u64) -> bool {
    !table::is_full(&found.way, now) || found.drops.dropped > 0
}

/// One source's buckets for everything, if it has any that are not full or refused something.
pub fn one(maps: &Maps, settings: &Settings, names: &impl Names, source: IpAddr) -> Option<SourceRow> {
    let now = sys::monotonic_ns();
    let key = Address::from(source).key(settings.ipv6_mask);
    let mut all = table::places(settings.flow_seed, key).sets.into_iter().flat_map(|set| {
        let ways = maps.buckets.get(&set, 0).map(|set| set.0).unwrap_or_default();
        [0, 1].map(|at| (ways[at], table::drops_index(set, at as u32)))
    });
    let (way, index) = all.find(|(way, _)| way.key == key)?;
    let found = found(way, maps.drops.get(&index, 0).unwrap_or_default(), settings)?;
    worth(&found, now).then(|| row(&found, settings, names, now))
}

/// Fills a source's buckets for everything, its own and those it shares. Tokens that the set's other source takes in the
/// same microsecond may be given back to it.
pub fn reset(maps: &mut Maps, settings: &Settings, source: IpAddr) -> Result<(), KernelError> {
    let key = Address::from(source).key(settings.ipv6_mask);
    let places = table::places(settings.flow_seed, key);
    maps.coarse.set(places.shared, layout::Coarse::default(), 0).map_err(KernelError::map(name::COARSE))?;
    for index in places.sets {
        let failed = || KernelError::map(name::BUCKETS);
        let mut set = maps.buckets.get(&index, 0).map_err(failed())?;
        if let Some(at) = set.0.iter().position(|way| way.key == key) {
            set.0[at] = Way { key, ..Way::default() };
            maps.buckets.set(index, set, 0).map_err(failed())?;
            let index = table::drops_index(index, at as u32);
            maps.drops.set(index, Drops::default(), 0).map_err(KernelError::map(name::DROPS))?;
        }
    }
    Ok(())
}

fn row(found: &Found, settings: &Settings, names: &impl Names, now: u64) -> SourceRow {
    let (way, drops) = (&found.way, &found.drops);
    let limits = names.limits(address(found.source), found.service);
    let left = |limit: &Limit, tat| limit.is_on().then(|| limit.left(tat, now));
    let seconds = now.saturating_sub(drops.since_ns) as f64 / 1e9;
    SourceRow {
        source: show(found.source, settings.ipv6_mask),
        packets_left: left(&limits.packets, way.packets_tat),
        new_left: left(&limits.new, way.new_tat),
        bytes_left: limits.bytes.is_on().then(|| limits.bytes.bytes_left(way.bytes_tat, now)),
        service: names.service(found.service),
        dropped: drops.dropped,
        drops_per_second: drops.dropped as f64 / seconds.max(1.0),
        idle_seconds: now.saturating_sub(way.packets_tat.max(way.new_tat).max(way.bytes_tat)) as f64 / 1e9,
    }
}

/// An address of the source.
fn address(key: u64) -> IpAddr {
    match key_v4(key) {
        Some(v4) => Ipv4Addr::from(v4).into(),
        None => Ipv6Addr::from(u128::from(key) << 64).into(),
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
