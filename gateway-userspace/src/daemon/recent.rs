//! What was lost within the last minute, for those who ask what is wrong now.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, atomic::Ordering::Relaxed},
};

use super::control::Control;
use crate::{
    net::{self, Backlog},
    observe::trace,
    sync::lock,
};

/// Seconds between two samples, and how many make a minute.
pub const EVERY: u64 = 5;
const SAMPLES: usize = 12;

/// Counts of what did not come through. They only grow.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Losses {
    /// Lines of the access log that its writer could not take, and those that could not be written.
    pub lines_dropped: u64,
    pub lines_failed: u64,
    pub spans: u64,
    /// Connections that found no room in a listener's queue.
    pub overflowed: BTreeMap<String, u64>,
    /// Connections beyond `max.connections`.
    pub over_limit: BTreeMap<String, u64>,
}

impl Losses {
    fn since(&self, before: &Losses) -> Losses {
        let grown = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let grown = now
                .iter()
                .map(|(name, n)| (name.clone(), n.saturating_sub(before.get(name).copied().unwrap_or(0))));
            grown.filter(|(_, n)| *n > 0).collect()
        };
        Losses {
            lines_dropped: self.lines_dropped.saturating_sub(before.lines_dropped),
            lines_failed: self.lines_failed.saturating_sub(before.lines_failed),
            spans: self.spans.saturating_sub(before.spans),
            overflowed: grown(&self.overflowed, &before.overflowed),
            over_limit: grown(&self.over_limit, &before.over_limit),
        }
    }
}

/// The last minute's samples.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Losses>>);

impl Recent {
    /// To be called every [`EVERY`] seconds.
    pub fn sample(&self, now: Losses) {
        let mut samples = lock(&self.0);
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
        samples.push_back(now);
    }

    /// What was lost since the oldest sample.
    pub fn until(&self, now: &Losses) -> Losses {
        lock(&self.0).front().map(|oldest| now.since(oldest)).unwrap_or_default()
    }
}

impl Control {
    pub fn losses(&self) -> Losses {
        let lines = &self.access_log.counts;
        let over_limit = self.registry.listeners().into_iter();
        Losses {
            lines_dropped: lines.dropped.load(Relaxed),
            lines_failed: lines.failed.load(Relaxed),
            spans: trace::lost(),
            overflowed: self.backlogs().into_iter().map(|(name, one)| (name, one.dropped.into())).collect(),
            over_limit: over_limit
                .map(|(name, stats)| (name, stats.shards.sum(|shard| shard.over_limit.get())))
                .collect(),
        }
    }

    /// Within the last minute.
    pub fn losses_lately(&self) -> Losses {
        self.recent.until(&self.losses())
    }

    /// By listener; those of services are `service/NAME`. Of its sockets: all that wait, and the fullest one's room.
    pub fn backlogs(&self) -> BTreeMap<String, Backlog> {
        let mut all = BTreeMap::<String, Backlog>::new();
        for (door, (_, sockets)) in lock(&self.sockets).iter() {
            let sum = all.entry(door.series()).or_default();
            for one in sockets.iter().filter_map(|socket| net::backlog(socket).ok()) {
                sum.waiting += one.waiting;
                sum.most += one.most;
                sum.dropped = sum.dropped.saturating_add(one.dropped);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(lines: u64) -> Losses {
        Losses {
            lines_failed: lines,
            overflowed: [("web".to_owned(), lines * 2)].into(),
            ..Losses::default()
        }
    }

    #[test]
    fn it_is_of_the_last_minute() {
        let recent = Recent::default();
        assert_eq!(recent.until(&lost(7)), Losses::default(), "what was before is not known");
        recent.sample(lost(0));
        assert_eq!(recent.until(&lost(7)), lost(7));
        (0..SAMPLES).for_each(|_| recent.sample(lost(7)));
        assert_eq!(recent.until(&lost(7)), lost(7), "a minute ago");
        recent.sample(lost(7));
        assert_eq!(recent.until(&lost(7)), Losses::default(), "more than a minute ago");
        let gone = Losses { overflowed: [("new".to_owned(), 3)].into(), ..lost(7) };
        assert_eq!(recent.until(&gone).overflowed, [("new".to_owned(), 3)].into());
    }
}
