//! What workers may know of sources' buckets: without a lock, by two lookups in the map.

use std::{collections::HashMap, net::IpAddr, os::fd::AsFd};

use arc_swap::ArcSwapOption;
use aya::maps::{Array, Map, MapData};
use gateway_common::{
    bucket::Limit,
    maps::{CLASSES, access, name},
    source::Address,
    table::{self, Set},
};

use super::{
    plane::Loaded,
    sys,
    table::{Rules, class_around, rule_around},
};
use crate::config::units::Prefix;

/// Empty where the kernel half limits no connections.
#[derive(Default)]
pub struct View(ArcSwapOption<Known>);

struct Known {
    buckets: Array<MapData, Set>,
    flow_seed: u64,
    ipv6_mask: u64,
    /// By class, as they are now.
    new: [Limit; CLASSES],
    /// Exemptions, and what has a class of its own.
    rules: Rules,
}

/// What a source has left of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    pub left: u64,
    pub of: u64,
    /// Until there is one more than none, 0 where there is; and until all are there again.
    pub next_ns: u64,
    pub full_ns: u64,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.0.load().is_some())
    }
}

impl View {
    /// `None`: its connections are not limited.
    pub fn connections(&self, source: IpAddr) -> Option<Connections> {
        let known = self.0.load();
        let known = known.as_deref()?;
        let source = source.to_canonical();
        let limit = known.limit(source)?;
        let now = sys::monotonic_ns();
        let key = Address::from(source).key(known.ipv6_mask);
        let ways = table::places(known.flow_seed, key)
            .sets
            .into_iter()
            .flat_map(|set| known.buckets.get(&set, 0).map(|set| set.0).unwrap_or_default());
        let tat = ways.into_iter().find(|way| way.key == key).map_or(0, |way| way.new_tat);
        let (ahead, left) = (tat.saturating_sub(now), limit.left(tat, now));
        let next_ns =
            if left > 0 { 0 } else { (ahead + limit.interval_ns).saturating_sub(limit.depth_ns).max(1) };
        Some(Connections { left, of: limit.burst(), next_ns, full_ns: ahead })
    }

    /// Takes up what is loaded now.
    pub(super) fn refresh(&self, loaded: Option<&Loaded>) {
        self.0.store(loaded.and_then(Known::of).map(Into::into));
    }
}

impl Known {
    fn of(loaded: &Loaded) -> Option<Self> {
        let new = loaded.limits.map(|limits| limits.scaled(loaded.load_factor).new);
        if !new.iter().any(Limit::is_on) {
            return None;
        }
        let fd = loaded.maps.fd(name::BUCKETS)?.as_fd().try_clone_to_owned().ok()?;
        let buckets = Array::try_from(Map::Array(MapData::from_fd(fd).ok()?)).ok()?;
        let Rules { actions, classes } = &loaded.rules;
        // Who is blocked does not ask.
        let told = |action: u8| matches!(action, access::EXEMPT | access::ALLOW);
        let exempt = actions.values().any(|action| *action == access::EXEMPT);
        let actions: HashMap<_, _> = match exempt {
            true => actions
                .iter()
                .filter(|(_, action)| told(**action))
                .map(|(of, action)| (*of, *action))
                .collect(),
            false => HashMap::new(),
        };
        Some(Known {
            buckets,
            flow_seed: loaded.settings.flow_seed,
            ipv6_mask: loaded.settings.ipv6_mask,
            new,
            rules: Rules { actions, classes: classes.clone() },
        })
    }

    fn limit(&self, source: IpAddr) -> Option<Limit> {
        let prefix = Prefix::host(source);
        let rule = if self.rules.actions.is_empty() { None } else { rule_around(&self.rules, prefix) };
        if rule.is_some_and(|(_, action)| action == access::EXEMPT) {
            return None;
        }
        let class = class_around(&self.rules, prefix);
        self.new.get(usize::from(class)).copied().filter(Limit::is_on)
    }
}
