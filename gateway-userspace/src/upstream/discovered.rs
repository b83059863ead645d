//! Targets that DNS tells of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::config::{
    model::{Target, Upstream},
    units::Lookup,
};

/// Of one name; what is beyond is left out.
pub const MOST: usize = 256;

/// An address that a name has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Found {
    pub addr: SocketAddr,
    /// What its SRV record says, as a target takes it.
    pub weight: Option<u32>,
    pub priority: Option<u8>,
}

/// What each name was last found to be.
pub type Answers = BTreeMap<Lookup, Vec<Found>>;

/// An SRV record (RFC 2782) with one of its host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub addr: SocketAddr,
}

/// Priorities become those of targets by their order; weights are scaled to fit, and 0 is the least.
pub fn from_services(services: &[Service]) -> Vec<Found> {
    let priorities: BTreeSet<u16> = services.iter().map(|service| service.priority).collect();
    let heaviest = services.iter().map(|service| u32::from(service.weight)).max().unwrap_or(0);
    let found = |service: &Service| {
        let place = priorities.iter().position(|priority| *priority == service.priority).unwrap_or(0);
        let weight = u32::from(service.weight);
        let scaled = if heaviest > 1000 { weight * 1000 / heaviest } else { weight };
        Found { addr: service.addr, weight: Some(scaled.max(1)), priority: Some(place.min(15) as u8) }
    };
    settle(services.iter().map(found).collect())
}

/// In one order, each address once, and not too many.
pub fn settle(mut found: Vec<Found>) -> Vec<Found> {
    found.sort();
    found.dedup_by_key(|one| one.addr);
    found.truncate(MOST);
    found
}

/// Those of the config and those that were found; an address that is there twice is one target, as it was said first.
pub fn targets(config: &Upstream, answers: &Answers) -> Vec<Target> {
    let mut targets = config.targets.clone();
    let mut seen: BTreeSet<SocketAddr> = targets.iter().map(|target| target.addr).collect();
    for name in config.lookups() {
        for found in answers.get(&name.lookup).into_iter().flatten().filter(|found| seen.insert(found.addr)) {
            let said = name.target(found.addr);
            targets.push(Target {
                weight: found.weight.unwrap_or(said.weight),
                priority: found.priority.unwrap_or(said.priority),
                ..said
            });
        }
    }
    targets
}

/// The names that addresses were found by; of an address with two, the first.
pub fn names(config: &Upstream, answers: &Answers) -> BTreeMap<SocketAddr, String> {
    let mut names = BTreeMap::new();
    for named in config.lookups() {
        let Lookup::Host { name, .. } = &named.lookup else { continue };
        for found in answers.get(&named.lookup).into_iter().flatten() {
            names.entry(found.addr).or_insert_with(|| name.trim_end_matches('.').to_owned());
        }
    }
    config.targets.iter().for_each(|target| drop(names.remove(&target.addr)));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn srv_records_order_by_priority_and_share_by_weight() {
        let service = |priority, weight, last| Service { priority, weight, addr: at(last) };
        let found = from_services(&[service(20, 0, 3), service(10, 60, 1), service(10, 40, 2)]);
        let told: Vec<_> = found.iter().map(|found| (found.addr, found.weight, found.priority)).collect();
        assert_eq!(told, [(at(1), Some(60), Some(0)), (at(2), Some(40), Some(0)), (at(3), Some(1), Some(1))]);
        let heavy = from_services(&[service(0, 65535, 1), service(0, 6553, 2), service(0, 1, 3)]);
        assert_eq!(
            heavy.iter().map(|found| found.weight).collect::<Vec<_>>(),
            [Some(1000), Some(99), Some(1)]
        );
        let many: Vec<Service> = (0..40).map(|n| service(n, 1, n as u8)).collect();
        assert_eq!(from_services(&many).last().and_then(|found| found.priority), Some(15));
    }

    #[test]
    fn names_stand_beside_addresses_and_no_address_is_there_twice() {
        let text = "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"a\"\n[upstream.a]\n\
                    to = [\"10.0.0.1:80\", { addr = \"app.internal:80\", weight = 3, backup = true }]\n";
        let config = config::parse(text, std::path::Path::new("/test.toml")).unwrap();
        let upstream = &config.upstreams["a"];
        assert_eq!(targets(upstream, &Answers::new()), upstream.targets);
        let found = |last| Found { addr: at(last), weight: None, priority: None };
        let answers =
            Answers::from([("app.internal:80".parse().unwrap(), settle(vec![found(2), found(1), found(2)]))]);
        let all = targets(upstream, &answers);
        let told: Vec<_> = all.iter().map(|target| (target.addr, target.weight, target.priority)).collect();
        assert_eq!(told, [(at(1), 1, 0), (at(2), 3, 1)]);
    }
}
