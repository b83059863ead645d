//! Reading what the kernel half counted and sampled, and how full its maps are.

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gateway_common::{
    maps::{self as layout, INTERFACES, Sample, counter_index, name},
    packet::bit,
    source::Address,
    table,
    verdict::Reason,
};

use super::{
    object::Maps,
    report::{CounterRow, DropSample, Fill, MapRow},
    sys,
};

/// Reasons that are always told, so that a graph of them begins before the first packet does.
const STABLE: [Reason; 8] = [
    Reason::Ok,
    Reason::NotIp,
    Reason::Exempt,
    Reason::Blocked,
    Reason::Banned,
    Reason::LimitPackets,
    Reason::LimitNew,
    Reason::LimitBytes,
];

/// Rows of all interfaces in use; `interfaces` is by slot.
pub fn rows(maps: &Maps, interfaces: &[u32; INTERFACES], name_of: impl Fn(u32) -> String) -> Vec<CounterRow> {
    let mut rows = Vec::new();
    for slot in 0..=INTERFACES {
        let ifindex = interfaces.get(slot).copied();
        if ifindex == Some(0) {
            continue;
        }
        let interface = ifindex.map_or_else(|| "other".to_owned(), &name_of);
        for &reason in Reason::ALL {
            let index = counter_index(slot as u32, reason.id());
            let Ok(cpus) = maps.counters.get(&index, 0) else { continue };
            let (packets, bytes) =
                cpus.iter().fold((0, 0), |(packets, bytes), cpu| (packets + cpu.packets, bytes + cpu.bytes));
            if packets == 0 && (ifindex.is_none() || !STABLE.contains(&reason)) {
                continue;
            }
            rows.push(CounterRow {
                interface: interface.clone(),
                action: reason.action().name(),
                reason: reason.name(),
                packets,
                bytes,
            });
        }
    }
    rows
}

/// How many sources have buckets that are not full: counted at most every two seconds, and so seldom that it takes no more
/// than a hundredth of the time.
#[derive(Default)]
pub struct BucketCount {
    at: Option<Instant>,
    took: Duration,
    count: u64,
}

impl BucketCount {
    fn get(&mut self, maps: &Maps) -> u64 {
        let lasts = Duration::from_secs(2).max(self.took * 100);
        if self.at.is_none_or(|at| at.elapsed() >= lasts) {
            let (began, mut count) = (Instant::now(), 0);
            if let Some(fd) = maps.fd(name::BUCKETS) {
                let now = sys::monotonic_ns();
                let _ = sys::for_each_entry(fd, |_: u32, set: table::Set| {
                    count += set.0.iter().filter(|way| !table::is_full(way, now)).count() as u64;
                });
            }
            *self = Self { at: Some(Instant::now()), took: began.elapsed(), count };
        }
        self.count
    }
}

/// Entries that userspace keeps count of.
pub struct Used {
    pub access_v4: u64,
    pub access_v6: u64,
    pub bans: u64,
    pub steer: u64,
    pub sockets: u64,
}

impl Used {
    pub fn fills(&self) -> [Fill; 5] {
        let access = u64::from(layout::ACCESS_CAPACITY);
        let sockets = u64::from(layout::SOCKETS_CAPACITY);
        [
            (name::ACCESS_V4, self.access_v4, access),
            (name::ACCESS_V6, self.access_v6, access),
            (name::BANS, self.bans, u64::from(layout::BANS_CAPACITY)),
            (name::STEER, self.steer, sockets),
            (name::SOCKETS, self.sockets, sockets),
        ]
        .map(|(map, entries, capacity)| Fill { map, entries, capacity })
    }
}

/// One row a map.
pub fn map_rows(maps: &Maps, buckets: &mut BucketCount, used: &Used) -> Vec<MapRow> {
    let sources = buckets.get(maps);
    let coarse = u64::from(layout::COARSE_SLOTS);
    let counters = u64::from(layout::COUNTERS_CAPACITY);
    let row = |kind, Fill { map, entries, capacity }| (map, kind, entries, capacity);
    let [access_v4, access_v6, bans, steer, sockets] = used.fills();
    [
        row("lpm_trie", access_v4),
        row("lpm_trie", access_v6),
        row("hash", bans),
        (name::BUCKETS, "array", sources, u64::from(layout::BUCKETS_CAPACITY)),
        (name::COARSE, "array", coarse, coarse),
        (name::DROPS, "array", u64::from(layout::BUCKETS_CAPACITY), u64::from(layout::BUCKETS_CAPACITY)),
        (name::COUNTERS, "percpu_array", counters, counters),
        (name::EVENTS, "ringbuf", 0, u64::from(layout::EVENTS_BYTES)),
        (name::SETTINGS, "array", 1, 1),
        row("hash", steer),
        row("sockmap", sockets),
    ]
    .into_iter()
    .map(|(name, kind, entries, capacity)| MapRow {
        name,
        kind,
        entries,
        capacity,
        bytes: maps.fd(name).map_or(0, sys::map_bytes),
    })
    .collect()
}

/// Samples that have come in, at most `most`.
pub fn samples(maps: &mut Maps, most: usize, name_of: impl Fn(u32) -> String) -> Vec<DropSample> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let monotonic = sys::monotonic_ns();
    let mut samples = Vec::new();
    while samples.len() < most
        && let Some(item) = maps.events.next()
    {
        let Some(sample) = read(&item) else { continue };
        let Some(reason) = Reason::from_id(sample.reason) else { continue };
        let address = |a: Address| (a != Address::default()).then(|| IpAddr::from(a));
        let port = |port: u16| (sample.bits & bit::PORTS != 0).then_some(port);
        samples.push(DropSample {
            ts: now - monotonic.saturating_sub(sample.time_ns) as f64 / 1e9,
            interface: name_of(sample.ifindex),
            reason: reason.name(),
            source: address(sample.source),
            source_port: port(sample.source_port),
            destination: address(sample.destination),
            destination_port: port(sample.destination_port),
            protocol: sample.protocol,
            length: sample.length,
        });
    }
    samples
}

fn read(bytes: &[u8]) -> Option<Sample> {
    if bytes.len() < size_of::<Sample>() {
        return None;
    }
    // SAFETY: long enough, and any bytes are a valid `Sample`: it is made of integers only.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
