//! From two looks at the counters to what happened between them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    admin::stats::{Latency, Stats},
    observe::stats::BOUNDS_US,
};

/// What happened in a second or so.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// Seconds between the looks.
    pub seconds: f64,
    pub requests: f64,
    pub errors: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
    pub accepted: f64,
    pub duration: Latency,
    pub routes: BTreeMap<String, RouteRates>,
    /// By upstream and target.
    pub targets: BTreeMap<String, BTreeMap<String, TargetRates>>,
    /// By cache and what it did, by limit and what it decided.
    pub caches: BTreeMap<String, BTreeMap<String, f64>>,
    pub limits: BTreeMap<String, BTreeMap<String, f64>>,
    /// By action and reason.
    pub packets: BTreeMap<String, BTreeMap<String, f64>>,
    pub bytes: f64,
    /// Shares of the time, by worker.
    pub busy: Vec<f64>,
    /// Of one core.
    pub cpu: f64,
}

#[derive(Debug, Clone, Default)]
pub struct RouteRates {
    pub requests: f64,
    /// Answers of 500 and above a second.
    pub errors: f64,
    /// Answers a second by class: 2xx, 3xx, 4xx, 5xx; the first takes 1xx too.
    pub classes: [f64; 4],
    /// By reason.
    pub whys: BTreeMap<String, f64>,
    pub bytes_out: f64,
    pub duration: Latency,
}

#[derive(Debug, Clone, Default)]
pub struct TargetRates {
    pub requests: f64,
    pub errors: f64,
}

impl Rates {
    /// `seconds`: by the reader's clock, as another process may serve by now. A counter that went back began anew at 0.
    pub fn between(before: &Stats, now: &Stats, seconds: f64) -> Rates {
        let began_anew = now.process.pid != before.process.pid;
        let seconds = seconds.max(1e-3);
        let rate = |old: u64, new: u64| grown(old, new) as f64 / seconds;
        let mut rates = Rates { seconds, ..Rates::default() };
        for row in &now.routes {
            let key = |old: &&crate::admin::stats::RouteRow| {
                (&old.route, &old.version, &old.listener) == (&row.route, &row.version, &row.listener)
            };
            let old = before.routes.iter().find(key).cloned().unwrap_or_default();
            let of = rates.routes.entry(row.route.clone()).or_default();
            of.requests += rate(old.requests, row.requests);
            of.bytes_out += rate(old.bytes_out, row.bytes_out);
            for (code, n) in &row.codes {
                let n = rate(old.codes.get(code).copied().unwrap_or(0), *n);
                of.classes[usize::from(code / 100).clamp(2, 5) - 2] += n;
                if *code >= 500 {
                    of.errors += n;
                    rates.errors += n;
                }
            }
            for (why, n) in &row.errors {
                let n = rate(old.errors.get(why).copied().unwrap_or(0), *n);
                if n > 0.0 {
                    *of.whys.entry(why.clone()).or_default() += n;
                }
            }
            let took = since(&old.duration, &row.duration);
            add(&mut of.duration, &took);
            add(&mut rates.duration, &took);
            rates.requests += rate(old.requests, row.requests);
            rates.bytes_in += rate(old.bytes_in, row.bytes_in);
            rates.bytes_out += rate(old.bytes_out, row.bytes_out);
        }
        for (name, row) in &now.listeners {
            let old = before.listeners.get(name).map_or(0, |old| old.accepted);
            rates.accepted += rate(old, row.accepted);
        }
        for (name, upstream) in &now.upstreams {
            let olds = before.upstreams.get(name).map(|old| &old.targets[..]).unwrap_or_default();
            for target in &upstream.targets {
                let old = olds.iter().find(|old| old.addr == target.addr).cloned().unwrap_or_default();
                let of = TargetRates {
                    requests: rate(old.requests, target.requests),
                    errors: rate(old.errors, target.errors),
                };
                rates.targets.entry(name.clone()).or_default().insert(target.addr.clone(), of);
            }
        }
        let each = |old: Option<&BTreeMap<String, u64>>, new: &BTreeMap<String, u64>| {
            let before = |word: &String| old.and_then(|old| old.get(word)).copied().unwrap_or(0);
            new.iter().map(|(word, n)| (word.clone(), rate(before(word), *n))).collect::<BTreeMap<_, _>>()
        };
        for (name, row) in &now.caches {
            let old = before.caches.get(name).map(|old| &old.results);
            rates.caches.insert(name.clone(), each(old, &row.results));
        }
        for (name, row) in &now.limits {
            let old = before.limits.get(name).map(|old| &old.decisions);
            rates.limits.insert(name.clone(), each(old, &row.decisions));
        }
        for row in &now.kernel {
            let same = |old: &&crate::admin::stats::KernelRow| {
                old.interface == row.interface && old.action == row.action && old.reason == row.reason
            };
            let (packets, bytes) = before.kernel.iter().find(same).map_or((0, 0), |o| (o.packets, o.bytes));
            let of_action = rates.packets.entry(row.action.clone()).or_default();
            *of_action.entry(row.reason.clone()).or_default() += rate(packets, row.packets);
            rates.bytes += rate(bytes, row.bytes);
        }
        let busy = |(worker, now): (usize, &f64)| {
            let old = if began_anew { 0.0 } else { before.workers.get(worker).copied().unwrap_or(0.0) };
            ((now - old) / seconds).clamp(0.0, 1.0)
        };
        rates.busy = now.workers.iter().enumerate().map(busy).collect();
        let cpu = if began_anew { 0.0 } else { before.process.cpu_seconds };
        rates.cpu = ((now.process.cpu_seconds - cpu) / seconds).max(0.0);
        rates
    }

    /// For scripts: times in milliseconds, absent where nothing happened.
    pub fn to_json(&self) -> Value {
        let times = |latency: &Latency| {
            let ms = |share| quantile(latency, share).map(|us| us / 1000.0);
            json!({ "p50_ms": ms(0.5), "p95_ms": ms(0.95), "p99_ms": ms(0.99) })
        };
        let routes = self.routes.iter().map(|(name, of)| {
            let row = json!({
                "requests": of.requests, "errors": of.errors, "bytes_out": of.bytes_out,
                "classes": { "2xx": of.classes[0], "3xx": of.classes[1], "4xx": of.classes[2], "5xx": of.classes[3] },
                "why": of.whys, "duration": times(&of.duration),
            });
            (name.clone(), row)
        });
        let target = |(addr, of): (&String, &TargetRates)| {
            (addr.clone(), json!({ "requests": of.requests, "errors": of.errors }))
        };
        let upstreams = self
            .targets
            .iter()
            .map(|(name, targets)| (name.clone(), targets.iter().map(target).collect::<Value>()));
        json!({
            "seconds": self.seconds, "requests": self.requests, "errors": self.errors,
            "bytes_in": self.bytes_in, "bytes_out": self.bytes_out, "accepted": self.accepted,
            "duration": times(&self.duration), "routes": routes.collect::<Value>(),
            "upstreams": upstreams.collect::<Value>(), "caches": self.caches, "limits": self.limits, "packets": self.packets, "packet_bytes": self.bytes,
            "busy": self.busy, "cpu": self.cpu,
        })
    }

    /// Packets a second with an action.
    pub fn packets_of(&self, action: &str) -> f64 {
        self.packets.get(action).map_or(0.0, |by_reason| by_reason.values().sum())
    }
}

/// The share of a cache's requests that it answered without asking, by what it did; those that went past it do not count.
pub fn hit_share(results: &BTreeMap<String, f64>) -> f64 {
    let of = |words: &[&str]| words.iter().filter_map(|word| results.get(*word)).sum::<f64>();
    let answered = of(&["hit", "stale", "coalesced"]);
    let all = answered + of(&["miss", "revalidated"]);
    if all > 0.0 { answered / all } else { 0.0 }
}

fn grown(old: u64, new: u64) -> u64 {
    if new >= old { new - old } else { new }
}

fn since(old: &Latency, new: &Latency) -> Latency {
    let old_of = |i: usize| old.buckets.get(i).copied().unwrap_or(0);
    let buckets = new.buckets.iter().enumerate().map(|(i, n)| grown(old_of(i), *n)).collect();
    Latency { buckets, sum_us: grown(old.sum_us, new.sum_us) }
}

fn add(to: &mut Latency, more: &Latency) {
    to.buckets.resize(to.buckets.len().max(more.buckets.len()), 0);
    for (sum, n) in to.buckets.iter_mut().zip(&more.buckets) {
        *sum += n;
    }
    to.sum_us += more.sum_us;
}

/// The time in microseconds that a share of all took at most, between the bounds of its bucket in proportion, as
/// Prometheus's `histogram_quantile` has it. `None`: there was nothing. Above the last bound it is the last bound.
pub fn quantile(latency: &Latency, share: f64) -> Option<f64> {
    let total: u64 = latency.buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = share * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, bound) in latency.buckets.iter().zip(BOUNDS_US) {
        let (count, bound) = (*count as f64, bound as f64);
        if count > 0.0 && below + count >= rank {
            return Some(lower + (bound - lower) * ((rank - below) / count).clamp(0.0, 1.0));
        }
        (below, lower) = (below + count, bound);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::stats::{KernelRow, Process, RouteRow};

    fn stats(pid: u32, requests: u64, packets: u64) -> Stats {
        let mut buckets = vec![0; BOUNDS_US.len() + 1];
        buckets[3] = requests;
        Stats {
            process: Process { pid, ..Process::default() },
            routes: vec![RouteRow {
                listener: "web".into(),
                route: "all".into(),
                requests,
                codes: [(200, requests - requests / 10), (503, requests / 10)].into(),
                errors: [("no_healthy_target".to_owned(), requests / 10)].into(),
                duration: Latency { buckets, sum_us: requests * 800 },
                ..RouteRow::default()
            }],
            kernel: vec![KernelRow {
                action: "drop".into(),
                reason: "banned".into(),
                packets,
                ..KernelRow::default()
            }],
            ..Stats::default()
        }
    }

    #[test]
    fn rates_are_differences_by_the_time_between() {
        let rates = Rates::between(&stats(1, 100, 5), &stats(1, 300, 405), 2.0);
        let all = &rates.routes["all"];
        assert_eq!((rates.requests, all.requests, all.errors), (100.0, 100.0, 10.0));
        assert_eq!(all.classes, [90.0, 0.0, 0.0, 10.0]);
        assert_eq!(all.whys["no_healthy_target"], 10.0);
        assert_eq!(rates.packets_of("drop"), 200.0);
        assert_eq!(rates.packets_of("pass"), 0.0);
    }

    #[test]
    fn what_was_started_anew_counts_from_zero() {
        let rates = Rates::between(&stats(1, 1000, 0), &stats(2, 50, 0), 2.0);
        assert_eq!(rates.requests, 25.0);
    }

    #[test]
    fn a_hit_is_what_was_answered_without_asking() {
        let results = |all: &[(&str, f64)]| all.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
        let mixed =
            [("hit", 60.0), ("stale", 10.0), ("coalesced", 10.0), ("revalidated", 5.0), ("miss", 15.0)];
        assert_eq!(hit_share(&results(&mixed)), 0.8);
        assert_eq!(hit_share(&results(&[("bypass", 5.0)])), 0.0);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let all = stats(1, 100, 0).routes[0].duration.clone();
        let p50 = quantile(&all, 0.5).unwrap();
        assert!((500.0..=1000.0).contains(&p50) && (p50 - 750.0).abs() < 1.0, "{p50}");
        assert_eq!(quantile(&Latency::default(), 0.5), None);
        let mut above = vec![0; BOUNDS_US.len() + 1];
        above[BOUNDS_US.len()] = 3;
        assert_eq!(quantile(&Latency { buckets: above, sum_us: 0 }, 0.99), Some(10_000_000.0));
    }
}
