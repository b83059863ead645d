//! Who still calls a version: what its owner has to know before it goes away. Requests by consumer over the last day, and
//! the last caller.
//!
//! A shard is written by its worker and read when somebody asks; its lock is never waited for by another worker. Memory
//! is bounded: so many consumers a shard, and the rest together.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::config::units::Moment;

/// Consumers that a worker counts each for itself.
const MOST: usize = 256;
const HOURS: usize = 24;
/// Bytes of a `User-Agent` that are kept.
pub const AGENT: usize = 80;
/// Requests of nobody in particular.
pub const ANONYMOUS: &str = "anonymous";
/// Requests of those beyond [`MOST`].
const OTHERS: &str = "others";

/// Of one version of one route, over all listeners. It outlasts snapshots, as other counters do.
#[derive(Debug)]
pub struct Usage(Box<[Mutex<Shard>]>);

#[derive(Debug, Default)]
struct Shard {
    /// Since 1970.
    hour: u64,
    callers: HashMap<Arc<str>, Hours>,
    last: Option<Caller>,
}

/// Requests by hour of the day.
type Hours = [u32; HOURS];

/// Who called last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub at: Moment,
    pub consumer: String,
    pub client: IpAddr,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
}

/// What is known of the last day.
#[derive(Debug, Default, Serialize)]
pub struct Day {
    pub requests: u64,
    /// Those with the most requests first.
    pub consumers: Vec<(String, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Caller>,
}

/// What outlasts the process: requests by consumer and hour, the oldest of the 24 first.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The last of the hours, since 1970.
    hour: u64,
    callers: BTreeMap<String, Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Caller>,
}

impl Usage {
    pub fn new(workers: usize) -> Self {
        Usage((0..workers.max(1)).map(|_| Mutex::default()).collect())
    }

    pub fn count(&self, worker: usize, now: Moment, consumer: Option<&str>, client: IpAddr, agent: &[u8]) {
        let shard = &self.0[worker.min(self.0.len() - 1)];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.turn_to(now.seconds / 3600);
        let hour = (shard.hour % HOURS as u64) as usize;
        let consumer = shard.known(consumer.unwrap_or(ANONYMOUS));
        if let Some(hours) = shard.callers.get_mut(&consumer) {
            hours[hour] = hours[hour].saturating_add(1);
        }
        let last = shard.last.get_or_insert_with(|| Caller {
            at: now,
            consumer: String::new(),
            client,
            agent: String::new(),
        });
        (last.at, last.client) = (now, client);
        last.consumer.clear();
        last.consumer.push_str(&consumer);
        last.agent.clear();
        last.agent.extend(agent.iter().take(AGENT).map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '?',
        }));
    }

    pub fn day(&self, now: Moment) -> Day {
        let Kept { callers, last, .. } = self.kept(now);
        let consumers = callers.into_iter().map(|(name, hours)| (name, hours.iter().sum()));
        let mut consumers: Vec<(String, u64)> = consumers.filter(|(_, n)| *n > 0).collect();
        consumers.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        Day { requests: consumers.iter().map(|(_, n)| n).sum(), consumers, last }
    }
}

impl Usage {
    pub fn kept(&self, now: Moment) -> Kept {
        let mut kept = Kept { hour: now.seconds / 3600, ..Kept::default() };
        for shard in &self.0 {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.turn_to(kept.hour);
            for (name, hours) in &shard.callers {
                let sums = kept.callers.entry(name.to_string()).or_insert_with(|| vec![0; HOURS]);
                for (sum, hour) in sums.iter_mut().zip(kept.hour + 1..) {
                    *sum += u64::from(hours[(hour % HOURS as u64) as usize]);
                }
            }
            if let Some(caller) = &shard.last
                && kept.last.as_ref().is_none_or(|last| last.at < caller.at)
            {
                kept.last = Some(caller.clone());
            }
        }
        kept
    }

    /// Adds what an earlier process kept; what is a day old by `now` is gone.
    pub fn recall(&self, kept: &Kept, now: Moment) {
        let mut shard = self.0[0].lock().unwrap_or_else(PoisonError::into_inner);
        let hour = now.seconds / 3600;
        shard.turn_to(hour);
        for (name, counts) in kept.callers.iter().take(MOST) {
            let name = shard.known(name);
            let Some(hours) = shard.callers.get_mut(&name) else { continue };
            for (count, of) in counts.iter().rev().zip((0..=kept.hour).rev()) {
                if (hour.saturating_sub(HOURS as u64 - 1)..=hour).contains(&of) {
                    let slot = &mut hours[(of % HOURS as u64) as usize];
                    *slot = slot.saturating_add(u32::try_from(*count).unwrap_or(u32::MAX));
                }
            }
        }
        if let Some(caller) = &kept.last
            && shard.last.as_ref().is_none_or(|last| last.at < caller.at)
        {
            shard.last = Some(Caller { agent: caller.agent.chars().take(AGENT).collect(), ..caller.clone() });
        }
    }
}

impl Shard {
    /// Forgets hours that are a day old.
    fn turn_to(&mut self, hour: u64) {
        let passed = hour.saturating_sub(self.hour);
        if passed == 0 {
            return;
        }
        for gone in 1..=passed.min(HOURS as u64) {
            let slot = ((self.hour + gone) % HOURS as u64) as usize;
            self.callers.values_mut().for_each(|hours| hours[slot] = 0);
        }
        self.callers.retain(|_, hours| hours.iter().any(|n| *n > 0));
        self.hour = hour;
    }

    /// The name that a consumer is counted under.
    fn known(&mut self, consumer: &str) -> Arc<str> {
        if let Some((name, _)) = self.callers.get_key_value(consumer) {
            return name.clone();
        }
        let name: Arc<str> = if self.callers.len() < MOST { consumer } else { OTHERS }.into();
        self.callers.entry(name.clone()).or_insert([0; HOURS]);
        name
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn at(hour: u64) -> Moment {
        Moment { seconds: hour * 3600 }
    }

    #[test]
    fn a_day_is_the_last_24_hours() {
        let usage = Usage::new(2);
        usage.count(0, at(1000), Some("acme"), CLIENT, b"curl/8");
        usage.count(1, at(1010), Some("acme"), CLIENT, b"curl/8\x07");
        usage.count(1, at(1011), None, CLIENT, b"");
        let day = usage.day(at(1011));
        assert_eq!(day.requests, 3);
        assert_eq!(day.consumers, [("acme".to_owned(), 2), ("anonymous".to_owned(), 1)]);
        assert_eq!(day.last.map(|last| (last.at, last.consumer)), Some((at(1011), "anonymous".into())));
        assert_eq!(usage.day(at(1023)).requests, 3);
        assert_eq!(usage.day(at(1024)).requests, 2);
        assert_eq!(usage.day(at(1034)).consumers, [("anonymous".to_owned(), 1)]);
        let later = usage.day(at(2000));
        assert_eq!(later.requests, 0);
        assert!(later.last.is_some(), "the last caller is remembered however long ago it was");
    }

    #[test]
    fn what_is_kept_goes_on_in_another_process_and_ages_meanwhile() {
        let usage = Usage::new(2);
        usage.count(0, at(1000), Some("acme"), CLIENT, b"curl/8");
        usage.count(1, at(1010), Some("acme"), CLIENT, b"curl/8");
        usage.count(1, at(1011), None, CLIENT, b"");
        let text = serde_json::to_string(&usage.kept(at(1011))).unwrap();
        let kept: Kept = serde_json::from_str(&text).unwrap();
        let recalled = |now: u64| {
            let usage = Usage::new(1);
            usage.recall(&kept, at(now));
            usage.day(at(now))
        };
        let day = recalled(1011);
        assert_eq!(day.consumers, [("acme".to_owned(), 2), ("anonymous".to_owned(), 1)]);
        assert_eq!(day.last.map(|last| (last.at, last.consumer)), Some((at(1011), "anonymous".into())));
        for (now, left) in [(1023, 3), (1024, 2), (1033, 2), (1034, 1), (1035, 0), (9999, 0)] {
            assert_eq!(recalled(now).requests, left, "at {now}");
        }
        assert!(recalled(9999).last.is_some());
        let added = Usage::new(1);
        added.count(0, at(1011), Some("acme"), CLIENT, b"");
        added.recall(&kept, at(1011));
        assert_eq!(added.day(at(1011)).requests, 4);
        assert_eq!(added.day(at(1024)).requests, 3);
        // A clock that was set back, and a file that somebody wrote.
        assert_eq!(recalled(5).requests, 0);
        let odd: Kept =
            serde_json::from_str(r#"{"hour": 3, "callers": {"a": [1,1,1,1,1,1], "b": []}}"#).unwrap();
        let usage = Usage::new(1);
        usage.recall(&odd, at(4));
        assert_eq!(usage.day(at(4)).requests, 4);
    }

    #[test]
    fn the_same_hour_of_another_day_starts_anew() {
        let usage = Usage::new(1);
        usage.count(0, at(1000), Some("acme"), CLIENT, b"");
        usage.count(0, at(1024), Some("acme"), CLIENT, b"");
        assert_eq!(usage.day(at(1024)).requests, 1);
    }

    #[test]
    fn consumers_beyond_the_most_are_counted_together() {
        let usage = Usage::new(1);
        for n in 0..2 * MOST {
            usage.count(0, at(1), Some(&format!("c{n}")), CLIENT, b"");
        }
        let day = usage.day(at(1));
        assert_eq!((day.requests, day.consumers.len()), (2 * MOST as u64, MOST + 1));
        assert_eq!(day.consumers[0], ("others".to_owned(), MOST as u64));
    }
}
