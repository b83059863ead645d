//! Counters that go on after the process was replaced: written out by the old one, added up by the new one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    AuthResult, AuthShard, Connect, Count, Decided, FALLBACKS, Handshake, Histogram, LimitShard,
    ListenerShard, METHODS, ProxyHeader, Registry, Retry, RouteShard, TargetShard, TlsVersion, UpstreamShard,
    codes::Codes,
};
use crate::observe::Why;

/// Counts by series (its kind and labels) and then by name within it. What is 0 is left out.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals(Vec<(Vec<String>, BTreeMap<String, u64>)>);

impl Totals {
    /// What was counted since `before`.
    pub fn since(&self, before: &Totals) -> Totals {
        let before: BTreeMap<_, _> = before.0.iter().map(|(series, counts)| (series, counts)).collect();
        let grown = |(series, counts): &(Vec<String>, BTreeMap<String, u64>)| {
            let old = |name: &String| before.get(series).and_then(|old| old.get(name)).copied().unwrap_or(0);
            let counts: BTreeMap<String, u64> = counts
                .iter()
                .map(|(name, n)| (name.clone(), n.saturating_sub(old(name))))
                .filter(|(_, n)| *n > 0)
                .collect();
            (!counts.is_empty()).then(|| (series.clone(), counts))
        };
        Totals(self.0.iter().filter_map(grown).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Something whose counters have names.
trait Cells {
    /// Shows every counter; with `all` also those that are made when they are first used.
    fn each(&self, all: bool, show: &mut dyn FnMut(&str, &Count));
}

impl Histogram {
    fn each(&self, name: &str, show: &mut dyn FnMut(&str, &Count)) {
        for (i, bucket) in self.buckets.iter().enumerate() {
            show(&format!("{name}/{i}"), bucket);
        }
        show(&format!("{name}/us"), &self.sum_us);
    }
}

impl Codes {
    fn each_cell(&self, name: &str, show: &mut dyn FnMut(&str, &Count)) {
        for (code, count) in self.cells() {
            show(&format!("{name}/{code}"), count);
        }
    }
}

impl Cells for RouteShard {
    fn each(&self, all: bool, show: &mut dyn FnMut(&str, &Count)) {
        for (method, codes) in METHODS.iter().zip(&self.codes) {
            let codes = if all { Some(codes.get_or_init(Box::default)) } else { codes.get() };
            if let Some(codes) = codes {
                codes.each_cell(method, show);
            }
        }
        self.duration.each("duration", show);
        self.overhead.each("overhead", show);
        show("request_bytes", &self.request_bytes);
        show("response_bytes", &self.response_bytes);
        for why in Why::ALL {
            show(&format!("error/{}", why.name()), &self.errors.0[why.index()]);
        }
    }
}

impl Cells for ListenerShard {
    fn each(&self, _: bool, show: &mut dyn FnMut(&str, &Count)) {
        let counts = [
            ("accepted", &self.accepted),
            ("over_limit", &self.over_limit),
            ("h1", &self.http1),
            ("h2", &self.http2),
        ];
        counts.into_iter().for_each(|(name, count)| show(name, count));
        for version in TlsVersion::ALL {
            for (result, word) in Handshake::ALL {
                let count = &self.handshakes[version as usize][result as usize];
                show(&format!("tls/{}/{word}", version.name()), count);
            }
        }
        for (result, word) in ProxyHeader::ALL {
            show(&format!("proxy_header/{word}"), &self.proxy_headers[result as usize]);
        }
    }
}

impl Cells for LimitShard {
    fn each(&self, _: bool, show: &mut dyn FnMut(&str, &Count)) {
        for (decided, word) in Decided::ALL {
            show(&format!("decision/{word}"), &self.decisions[decided as usize]);
        }
    }
}

impl Cells for TargetShard {
    fn each(&self, _: bool, show: &mut dyn FnMut(&str, &Count)) {
        self.codes.each_cell("code", show);
    }
}

impl Cells for UpstreamShard {
    fn each(&self, _: bool, show: &mut dyn FnMut(&str, &Count)) {
        self.duration.each("duration", show);
        for (result, word) in Connect::ALL {
            show(&format!("connect/{word}"), &self.connects[result as usize]);
        }
        for (reason, word) in Retry::ALL.into_iter().chain([(Retry::OverBudget, "over_budget")]) {
            show(&format!("retry/{word}"), &self.retries[reason as usize]);
        }
        for (why, count) in FALLBACKS.iter().zip(&self.fallbacks) {
            show(&format!("fallback/{}", why.name()), count);
        }
    }
}

impl Cells for AuthShard {
    fn each(&self, _: bool, show: &mut dyn FnMut(&str, &Count)) {
        AuthResult::ALL.iter().for_each(|(result, word)| show(word, &self.0[*result as usize]));
    }
}

fn sum<'a, T: Cells + 'a>(shards: impl Iterator<Item = &'a T>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for shard in shards {
        shard.each(false, &mut |name, count| {
            if count.get() > 0 {
                *sums.entry(name.to_owned()).or_insert(0) += count.get();
            }
        });
    }
    sums
}

fn add(to: &impl Cells, counts: &BTreeMap<String, u64>) {
    to.each(true, &mut |name, count| count.add(counts.get(name).copied().unwrap_or(0)));
}

const EJECTIONS: &str = "ejections";

impl Registry {
    /// Everything that was counted so far.
    pub fn totals(&self) -> Totals {
        let mut all = Vec::new();
        let mut note = |series: &[&str], counts: BTreeMap<String, u64>| {
            if !counts.is_empty() {
                all.push((series.iter().map(|&label| label.to_owned()).collect(), counts));
            }
        };
        for ((listener, route, version), stats) in self.routes() {
            note(&["route", &listener, &route, &version], sum(stats.shards.iter()));
        }
        for (name, stats) in self.listeners() {
            note(&["listener", &name], sum(stats.shards.iter()));
        }
        for (name, stats) in self.upstreams() {
            note(&["upstream", &name], sum(stats.shards.iter()));
        }
        for (name, stats) in self.limits() {
            note(&["limit", &name], sum(stats.shards.iter()));
        }
        for ((upstream, addr), stats) in self.targets() {
            let mut counts = sum(stats.shards.iter());
            if stats.ejections() > 0 {
                counts.insert(EJECTIONS.into(), stats.ejections());
            }
            note(&["target", &upstream, &addr.to_string()], counts);
        }
        for (name, stats) in self.auths() {
            note(&["auth", &name], sum(stats.shards.iter()));
        }
        Totals(all)
    }

    /// Adds what an earlier process counted. Series that this one does not have are left out. Never by two threads at
    /// once.
    pub fn carry(&self, totals: &Totals) {
        let (routes, listeners) = (BTreeMap::from_iter(self.routes()), BTreeMap::from_iter(self.listeners()));
        let (upstreams, targets) =
            (BTreeMap::from_iter(self.upstreams()), BTreeMap::from_iter(self.targets()));
        let limits = BTreeMap::from_iter(self.limits());
        let auths = BTreeMap::from_iter(self.auths());
        for (series, counts) in &totals.0 {
            match &series.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["route", listener, route, version @ ..] => {
                    let version = version.first().copied().unwrap_or_default();
                    let key = [*listener, *route, version].map(str::to_owned);
                    if let Some(stats) = routes.get(&key.into()) {
                        add(stats.shards.carried(), counts);
                    }
                }
                ["listener", name] => {
                    if let Some(stats) = listeners.get(*name) {
                        add(stats.shards.carried(), counts);
                    }
                }
                ["upstream", name] => {
                    if let Some(stats) = upstreams.get(*name) {
                        add(stats.shards.carried(), counts);
                    }
                }
                ["limit", name] => {
                    if let Some(stats) = limits.get(*name) {
                        add(stats.shards.carried(), counts);
                    }
                }
                ["target", upstream, addr] => {
                    let Ok(addr) = addr.parse() else { continue };
                    if let Some(stats) = targets.get(&((*upstream).to_owned(), addr)) {
                        add(stats.shards.carried(), counts);
                        stats.carry_ejections(counts.get(EJECTIONS).copied().unwrap_or(0));
                    }
                }
                ["auth", name] => {
                    if let Some(stats) = auths.get(*name) {
                        add(stats.shards.carried(), counts);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::observe::stats::method_index;

    fn registry() -> Registry {
        let registry = Registry::new(2);
        registry.route("web", "all");
        registry.listener("web");
        registry.upstream("pool");
        registry.target("pool", "10.0.0.1:80".parse().unwrap());
        registry
    }

    fn use_once(registry: &Registry) {
        let route = registry.route("web", "all");
        route.shards.of(1).count(method_index(&Method::GET), StatusCode::OK);
        route.shards.of(0).duration.record(300);
        route.shards.of(0).error(Why::NoRoute);
        registry.listener("web").shards.of(0).handshake(TlsVersion::V13, Handshake::Resumed);
        registry.upstream("pool").shards.of(1).retry(Retry::OverBudget);
        let target = registry.target("pool", "10.0.0.1:80".parse().unwrap());
        target.shards.of(0).count(StatusCode::BAD_GATEWAY);
        target.ejected();
    }

    #[test]
    fn what_was_counted_goes_on_in_another_process_and_what_comes_later_is_added() {
        let (old, new) = (registry(), registry());
        use_once(&old);
        let first = old.totals();
        let sent = serde_json::to_string(&first).unwrap();
        new.carry(&serde_json::from_str(&sent).unwrap());
        assert_eq!(new.totals(), first);
        use_once(&old);
        new.carry(&old.totals().since(&first));
        assert_eq!(new.totals(), old.totals());
        assert!(old.totals().since(&old.totals()).is_empty());
        use_once(&new);
        assert_eq!(new.route("web", "all").requests()[&("GET", 200)], 3);
        assert_eq!(new.route("web", "all").shards.sum(|shard| shard.errors(Why::NoRoute)), 3);
    }

    #[test]
    fn series_of_other_configs_are_left_out() {
        let old = registry();
        old.listener("gone").shards.of(0).accepted.add(1);
        let new = registry();
        new.carry(&old.totals());
        assert_eq!(new.totals(), Totals::default());
        assert_eq!(new.listeners().len(), 1);
    }
}
