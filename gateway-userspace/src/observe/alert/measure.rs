//! What a rule measures, between two samples of the counters.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    config::model::{AlertKind, AlertRule},
    observe::stats::{BOUNDS_US, HistogramTotal, RouteStats},
};

/// The counters at one time.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Seconds of a clock that only goes on.
    pub at: f64,
    /// Of those that rules are of: a route, or `None` for all of them together.
    pub routes: Routes,
    /// By upstream: targets that take part, and all.
    pub upstreams: BTreeMap<String, (u32, u32)>,
    /// Seconds until a certificate expires.
    pub certs: BTreeMap<String, f64>,
    pub kernel_drops: u64,
    /// Packets and requests over a limit.
    pub limited: u64,
    /// Shares of maps that are in use.
    pub maps: BTreeMap<String, f64>,
    /// An interface of the config that is without its XDP program, or was within a minute.
    pub off: Option<String>,
    /// The last reload was refused.
    pub refused: bool,
}

pub type Routes = BTreeMap<Option<String>, RouteSample>;

#[derive(Debug, Clone, Default)]
pub struct RouteSample {
    pub requests: u64,
    /// Answers of 500 and above, and those that were cut.
    pub errors: u64,
    pub duration: HistogramTotal,
}

impl RouteSample {
    pub fn add(&mut self, stats: &RouteStats) {
        stats.each_request(|_, code, n| {
            self.requests += n;
            self.errors += if code >= 500 { n } else { 0 };
        });
        stats.shards.iter().for_each(|shard| self.duration.add(&shard.duration));
    }
}

/// What was measured, in the rule's own unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub value: f64,
    /// What it is of, where the rule is of several: the worst.
    pub of: Option<String>,
}

/// Samples of as long as the longest window.
#[derive(Debug, Default)]
pub struct History(VecDeque<Sample>);

/// A second each; an hour is the longest window.
const LONGEST: usize = 3601;

impl History {
    pub fn push(&mut self, sample: Sample, window: f64) {
        // A clock that only goes on, and yet: whoever steps it gets a new history rather than a wrong one.
        if self.0.back().is_some_and(|last| last.at >= sample.at) {
            self.0.clear();
        }
        self.0.push_back(sample);
        while self.0.len() > LONGEST
            || self.0.len() > 2 && self.0.get(1).is_some_and(|second| self.newest() - second.at >= window)
        {
            self.0.pop_front();
        }
    }

    fn newest(&self) -> f64 {
        self.0.back().map_or(0.0, |last| last.at)
    }

    /// The last sample, and the one a window before it or the oldest, of those that know what is asked for.
    fn ends(&self, window: f64, knows: impl Fn(&Sample) -> bool) -> Option<(&Sample, &Sample)> {
        let now = self.0.back()?;
        let mut known = self.0.iter().filter(|sample| knows(sample));
        let oldest = known.clone().next()?;
        let before = known.rfind(|sample| now.at - sample.at >= window).unwrap_or(oldest);
        (before.at < now.at).then_some((before, now))
    }

    /// `None`: there is nothing to measure, which is no reason for an alert.
    pub fn measure(&self, rule: &AlertRule) -> Option<Measured> {
        let now = self.0.back()?;
        let alone = |value: f64| Some(Measured { value, of: None });
        match rule.kind {
            AlertKind::Errors | AlertKind::Latency => {
                let knows = |sample: &Sample| sample.routes.contains_key(&rule.of);
                let (before, now) = self.ends(rule.window.as_secs_f64(), knows)?;
                of_routes(rule, before.routes.get(&rule.of)?, now.routes.get(&rule.of)?)
            }
            AlertKind::UpstreamDown => {
                let down = |(up, all): &(u32, u32)| {
                    if *all == 0 { 1.0 } else { 1.0 - f64::from(*up) / f64::from(*all) }
                };
                worst(now.upstreams.iter().map(|(name, targets)| (name, down(targets))), rule, f64::max)
            }
            AlertKind::CertExpiry => {
                worst(now.certs.iter().map(|(name, left)| (name, *left)), rule, f64::min)
            }
            AlertKind::MapFill => worst(now.maps.iter().map(|(name, share)| (name, *share)), rule, f64::max),
            AlertKind::KernelDrops | AlertKind::Limited => {
                let (before, now) = self.ends(rule.window.as_secs_f64(), |_| true)?;
                let count = |sample: &Sample| match rule.kind {
                    AlertKind::KernelDrops => sample.kernel_drops,
                    _ => sample.limited,
                };
                alone(grown(count(before), count(now)) as f64 / (now.at - before.at))
            }
            AlertKind::ConfigRefused => alone(f64::from(u8::from(now.refused))),
            AlertKind::KernelOff => {
                Some(Measured { value: f64::from(u8::from(now.off.is_some())), of: now.off.clone() })
            }
            AlertKind::DeadMan => alone(1.0),
        }
    }
}

fn grown(before: u64, now: u64) -> u64 {
    // A counter that began anew.
    if now >= before { now - before } else { now }
}

fn worst<'a>(
    all: impl Iterator<Item = (&'a String, f64)>,
    rule: &AlertRule,
    which: fn(f64, f64) -> f64,
) -> Option<Measured> {
    let mut found: Option<Measured> = None;
    for (name, value) in all.filter(|(name, _)| rule.of.as_ref().is_none_or(|of| of == *name)) {
        if found.as_ref().is_none_or(|before| which(before.value, value) != before.value) {
            found = Some(Measured { value, of: Some(name.clone()) });
        }
    }
    found
}

fn of_routes(rule: &AlertRule, before: &RouteSample, now: &RouteSample) -> Option<Measured> {
    let requests = grown(before.requests, now.requests);
    let errors = grown(before.errors, now.errors);
    let mut buckets = now.duration.buckets;
    buckets.iter_mut().zip(before.duration.buckets).for_each(|(now, before)| *now = grown(before, *now));
    // Few requests say little: one of one is no rate.
    if requests < rule.least {
        return None;
    }
    let value = match rule.kind {
        AlertKind::Errors => errors as f64 / requests.max(1) as f64,
        _ => quantile(&buckets, rule.quantile)?,
    };
    Some(Measured { value, of: rule.of.clone() })
}

/// In seconds.
fn quantile(buckets: &[u64], share: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    let rank = share * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    if total == 0 {
        return None;
    }
    for (count, bound) in buckets.iter().zip(BOUNDS_US) {
        let (count, bound) = (*count as f64, bound as f64 / 1e6);
        if count > 0.0 && below + count >= rank {
            return Some(lower + (bound - lower) * ((rank - below) / count).clamp(0.0, 1.0));
        }
        (below, lower) = (below + count, bound);
    }
    // Slower than the last bound, by what nobody knows.
    Some(lower * 1.001)
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use super::*;

    pub fn rule(kind: AlertKind, threshold: f64) -> AlertRule {
        AlertRule {
            kind,
            of: None,
            threshold,
            clear: threshold,
            window: Duration::from_secs(60),
            quantile: 0.99,
            least: 10,
            lasts: Duration::ZERO,
            resolve_after: Duration::ZERO,
            repeat: Duration::from_secs(4 * 3600),
            severity: "warning".into(),
            notify: vec![],
        }
    }

    fn sample(at: f64, requests: u64, errors: u64) -> Sample {
        let mut duration = HistogramTotal::default();
        duration.buckets[3] = requests;
        let route = RouteSample { requests, errors, duration };
        Sample { at, routes: [(None, route)].into(), kernel_drops: requests, ..Sample::default() }
    }

    #[test]
    fn rates_are_over_the_window_and_little_traffic_says_nothing() {
        let mut history = History::default();
        let errors = rule(AlertKind::Errors, 0.05);
        history.push(sample(0.0, 0, 0), 60.0);
        assert_eq!(history.measure(&errors), None, "one look is no rate");
        history.push(sample(1.0, 5, 5), 60.0);
        assert_eq!(history.measure(&errors), None, "five requests are too few");
        for second in 2..=200 {
            history.push(sample(f64::from(second), 10 * second as u64, second as u64), 60.0);
        }
        let measured = history.measure(&errors).unwrap().value;
        assert!((measured - 0.1).abs() < 1e-9, "{measured}");
        let drops = history.measure(&rule(AlertKind::KernelDrops, 1.0)).unwrap().value;
        assert!((drops - 10.0).abs() < 1e-9, "{drops}");
        let latency = history.measure(&rule(AlertKind::Latency, 1.0)).unwrap().value;
        assert!((0.0005..=0.001).contains(&latency), "{latency}");
        assert!(history.0.len() < 65, "{}", history.0.len());
        // What nobody asked for before begins with the first sample of it.
        let other = AlertRule { of: Some("carts".into()), ..errors };
        assert_eq!(history.measure(&other), None);
        for second in 201..=203 {
            let mut sample = sample(f64::from(second), 10 * second as u64, second as u64);
            let carts =
                RouteSample { requests: 5000 + 20 * second as u64, errors: 100, ..Default::default() };
            sample.routes.insert(Some("carts".into()), carts);
            history.push(sample, 60.0);
            assert_eq!(history.measure(&other).map(|found| found.value), (second > 201).then_some(0.0));
        }
    }

    #[test]
    fn a_clock_that_goes_back_begins_anew() {
        let mut history = History::default();
        history.push(sample(100.0, 1000, 0), 60.0);
        history.push(sample(5.0, 1001, 0), 60.0);
        assert_eq!(history.measure(&rule(AlertKind::KernelDrops, 1.0)), None);
    }

    #[test]
    fn the_worst_one_is_named() {
        let mut history = History::default();
        let upstreams = [("a".to_owned(), (2, 2)), ("b".to_owned(), (1, 3))].into();
        let certs = [("x".to_owned(), 10.0), ("y".to_owned(), 5.0)].into();
        history.push(Sample { upstreams, certs, ..Sample::default() }, 60.0);
        let down = history.measure(&rule(AlertKind::UpstreamDown, 0.5)).unwrap();
        assert_eq!((down.of.as_deref(), (down.value * 3.0).round()), (Some("b"), 2.0));
        assert_eq!(history.measure(&rule(AlertKind::CertExpiry, 7.0)).unwrap().of.as_deref(), Some("y"));
    }
}
