use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, AtomicU32},
};

use super::*;

struct Fake {
    weight: u32,
    identity: u64,
    active: AtomicU32,
    usable: AtomicBool,
    available: bool,
    priority: u8,
    near: bool,
    ramp: u32,
    latency: u64,
}

impl Endpoint for Fake {
    fn weight(&self) -> u32 {
        self.weight
    }
    fn identity(&self) -> u64 {
        self.identity
    }
    fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }
    fn usable(&self) -> bool {
        self.available && self.usable.load(Relaxed)
    }
    fn available(&self) -> bool {
        self.available
    }
    fn priority(&self) -> u8 {
        self.priority
    }
    fn in_own_zone(&self) -> bool {
        self.near
    }
    fn ramp(&self) -> u32 {
        self.ramp
    }
    fn latency(&self) -> u64 {
        self.latency
    }
}

fn endpoints(weights: &[u32]) -> Vec<Fake> {
    weights
        .iter()
        .enumerate()
        .map(|(i, weight)| Fake {
            weight: *weight,
            identity: hash::of_bytes(SEED, format!("10.0.0.{i}:80").as_bytes()),
            active: AtomicU32::new(0),
            usable: AtomicBool::new(true),
            available: true,
            priority: 0,
            near: false,
            ramp: 100,
            latency: 0,
        })
        .collect()
}

const ALL: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::LeastConn,
    Balance::IpHash,
    Balance::Maglev,
    Balance::P2c,
    Balance::Random,
];

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn retries_take_no_turn_of_first_attempts_and_are_spread_themselves() {
    for kind in [Balance::RoundRobin, Balance::LeastConn] {
        for n in [2, 3] {
            let endpoints = endpoints(&vec![1; n]);
            let balancer = Balancer::new(kind, None, Rules::default(), &endpoints);
            let (mut first, mut second) = (vec![0; n], vec![0; n]);
            for _ in 0..12 * n {
                let mut tried = Tried::default();
                let one = balancer.pick(&endpoints, CLIENT, None, tried).unwrap();
                first[one] += 1;
                // The first endpoint always fails.
                if one == 0 {
                    tried.add(one);
                    second[balancer.pick(&endpoints, CLIENT, None, tried).unwrap()] += 1;
                }
            }
            assert_eq!(first, vec![12; n], "{kind:?}");
            assert_eq!(second[0], 0);
            assert!(second[1..].iter().all(|retries| *retries == 12 / (n - 1)), "{kind:?}: {second:?}");
        }
    }
}

fn picks(balancer: &Balancer, endpoints: &[Fake], n: usize) -> Vec<usize> {
    (0..n).filter_map(|_| balancer.pick(endpoints, CLIENT, None, Tried::default())).collect()
}

fn clients(n: u32) -> impl Iterator<Item = IpAddr> {
    (0..n).map(|i| {
        if i % 2 == 0 {
            IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i))
        } else {
            IpAddr::V6(Ipv6Addr::from(0x2001_0db8_0000_0000_0000_0000_0000_0000_u128 + (u128::from(i) << 64)))
        }
    })
}

#[test]
fn weights_5_1_1_give_a_a_b_a_c_a_a() {
    let endpoints = endpoints(&[5, 1, 1]);
    let balancer = Balancer::new(Balance::RoundRobin, None, Rules::default(), &endpoints);
    let order = picks(&balancer, &endpoints, 70);
    assert_eq!(order[..7], [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!([0, 1, 2].map(|e| order.iter().filter(|p| **p == e).count()), [50, 10, 10]);
}

#[test]
fn equal_weights_never_differ_by_more_than_one() {
    let endpoints = endpoints(&[3, 3, 3, 3]);
    let balancer = Balancer::new(Balance::RoundRobin, None, Rules::default(), &endpoints);
    let mut counts = [0i32; 4];
    for pick in picks(&balancer, &endpoints, 1001) {
        counts[pick] += 1;
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
    }
}

#[test]
fn huge_weights_keep_their_proportion_in_a_bounded_sequence() {
    let endpoints = endpoints(&[1_000_003, 2]);
    let balancer = Balancer::new(Balance::RoundRobin, None, Rules::default(), &endpoints);
    assert!(picks(&balancer, &endpoints, 1 << 16).iter().filter(|e| **e == 1).count() <= 2);
}

#[test]
fn an_unusable_endpoint_is_not_picked_after_rebuild() {
    for kind in ALL {
        let endpoints = endpoints(&[1, 1, 1]);
        let balancer = Balancer::new(kind, None, Rules::default(), &endpoints);
        endpoints[1].usable.store(false, Relaxed);
        balancer.rebuild(&endpoints);
        for client in clients(200) {
            assert_ne!(balancer.pick(&endpoints, client, None, Tried::default()), Some(1), "{kind:?}");
        }
        endpoints.iter().for_each(|e| e.usable.store(false, Relaxed));
        balancer.rebuild(&endpoints);
        assert_eq!(balancer.pick(&endpoints, CLIENT, None, Tried::default()), None);
    }
}

#[test]
fn tried_endpoints_are_skipped_until_none_is_left() {
    for kind in ALL {
        let endpoints = endpoints(&[1, 4, 1]);
        let balancer = Balancer::new(kind, None, Rules::default(), &endpoints);
        let mut tried = Tried::default();
        let mut seen = Vec::new();
        while let Some(pick) = balancer.pick(&endpoints, CLIENT, None, tried) {
            tried.add(pick);
            seen.push(pick);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2], "{kind:?}");
    }
}

#[test]
fn least_connections_leaves_a_loaded_endpoint_alone() {
    let endpoints = endpoints(&[1, 1, 1]);
    endpoints[0].active.store(20, Relaxed);
    let balancer = Balancer::new(Balance::LeastConn, None, Rules::default(), &endpoints);
    for _ in 0..40 {
        let pick = balancer.pick(&endpoints, CLIENT, None, Tried::default()).unwrap();
        assert_ne!(pick, 0);
        endpoints[pick].active.fetch_add(1, Relaxed);
    }
    assert_eq!(endpoints[1].active(), 20);
    assert_eq!(endpoints[2].active(), 20);
}

#[test]
fn least_connections_weighs_load_by_weight_and_breaks_ties_in_turn() {
    let heavy = endpoints(&[3, 1]);
    let balancer = Balancer::new(Balance::LeastConn, None, Rules::default(), &heavy);
    for _ in 0..40 {
        let pick = balancer.pick(&heavy, CLIENT, None, Tried::default()).unwrap();
        heavy[pick].active.fetch_add(1, Relaxed);
    }
    assert_eq!([heavy[0].active(), heavy[1].active()], [30, 10]);

    let equal = endpoints(&[1, 1, 1]);
    let balancer = Balancer::new(Balance::LeastConn, None, Rules::default(), &equal);
    let order = picks(&balancer, &equal, 6);
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    equal[0].active.store(20, Relaxed);
    let order = picks(&balancer, &equal, 6);
    assert_eq!(order, [1, 2, 1, 2, 1, 2]);
}

#[test]
fn ip_hash_is_stable_and_even() {
    let endpoints = endpoints(&[1; 10]);
    let first = Balancer::new(Balance::IpHash, None, Rules::default(), &endpoints);
    let restarted = Balancer::new(Balance::IpHash, None, Rules::default(), &endpoints);
    let mut counts = HashMap::new();
    for client in clients(10_000) {
        let pick = first.pick(&endpoints, client, None, Tried::default()).unwrap();
        for balancer in [&first, &restarted] {
            assert_eq!(balancer.pick(&endpoints, client, None, Tried::default()), Some(pick));
        }
        *counts.entry(pick).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 10);
    for (endpoint, count) in counts {
        assert!((850..=1150).contains(&count), "endpoint {endpoint} got {count}");
    }
}

#[test]
fn removing_one_of_ten_moves_little_and_adding_it_back_restores() {
    let endpoints = endpoints(&[1; 10]);
    let balancer = Balancer::new(Balance::IpHash, None, Rules::default(), &endpoints);
    let pick = |client| balancer.pick(&endpoints, client, None, Tried::default()).unwrap();
    let before: Vec<usize> = clients(10_000).map(pick).collect();
    endpoints[3].usable.store(false, Relaxed);
    balancer.rebuild(&endpoints);
    let without: Vec<usize> = clients(10_000).map(pick).collect();
    let moved = before.iter().zip(&without).filter(|(a, b)| a != b).count();
    assert!(moved <= 1200, "{moved} of 10000 moved");
    endpoints[3].usable.store(true, Relaxed);
    balancer.rebuild(&endpoints);
    assert_eq!(clients(10_000).map(pick).collect::<Vec<_>>(), before);
}

#[test]
fn bounded_load_caps_every_endpoint_at_its_factor_of_the_mean() {
    let endpoints = endpoints(&[1; 10]);
    let balancer = Balancer::new(Balance::IpHash, Some(1.25), Rules::default(), &endpoints);
    // All from one client: without a bound, one endpoint would get everything.
    for held in 1..=1000u32 {
        let pick = balancer.pick(&endpoints, CLIENT, None, Tried::default()).unwrap();
        endpoints[pick].active.fetch_add(1, Relaxed);
        let bound = (1.25 * f64::from(held) / 10.0).ceil() as u32;
        assert!(endpoints[pick].active() <= bound, "{} > {bound}", endpoints[pick].active());
    }
}

#[test]
fn random_and_p2c_follow_weights_where_nothing_else_tells_endpoints_apart() {
    for kind in [Balance::Random, Balance::P2c] {
        let endpoints = endpoints(&[3, 1, 1]);
        let balancer = Balancer::new(kind, None, Rules::default(), &endpoints);
        let order = picks(&balancer, &endpoints, 10_000);
        let first = order.iter().filter(|e| **e == 0).count();
        assert!((5600..=6400).contains(&first), "{kind:?}: {first}");
    }
}

#[test]
fn p2c_leaves_loaded_and_slow_endpoints_alone() {
    let mut endpoints = endpoints(&[1, 1, 1, 1]);
    endpoints[1].active.store(10, Relaxed);
    endpoints[2].latency = 200_000;
    let balancer = Balancer::new(Balance::P2c, None, Rules::default(), &endpoints);
    let order = picks(&balancer, &endpoints, 1000);
    let share = |of: usize| order.iter().filter(|e| **e == of).count();
    // Each is better than the other only against the other.
    assert_eq!(share(2), 0, "the slowest loses every draw");
    assert!(share(1) < 250, "{}", share(1));
    assert!(share(0) > 300 && share(3) > 300);
}

#[test]
fn maglev_goes_by_the_key_and_without_one_by_the_address() {
    let endpoints = endpoints(&[1; 10]);
    let balancer = Balancer::new(Balance::Maglev, None, Rules::default(), &endpoints);
    let by_key = |key: u64| balancer.pick(&endpoints, CLIENT, Some(hash::mix(key)), Tried::default());
    let seen: std::collections::BTreeSet<_> = (0..1000).filter_map(by_key).collect();
    assert_eq!(seen.len(), 10);
    for key in 0..100 {
        assert_eq!(by_key(key), by_key(key));
    }
    let by_address = balancer.pick(&endpoints, CLIENT, None, Tried::default());
    let ip_hash = Balancer::new(Balance::IpHash, None, Rules::default(), &endpoints);
    assert_eq!(by_address, ip_hash.pick(&endpoints, CLIENT, None, Tried::default()));
}

fn taking_part(rules: Rules, endpoints: &[Fake]) -> Vec<usize> {
    Group::choose(rules, endpoints).shares.iter().map(|share| usize::from(share.endpoint)).collect()
}

#[test]
fn backups_wait_until_no_endpoint_before_them_is_usable() {
    let mut endpoints = endpoints(&[1; 4]);
    endpoints[2].priority = 1;
    endpoints[3].priority = 2;
    let rules = Rules::default();
    assert_eq!(taking_part(rules, &endpoints), [0, 1]);
    endpoints[0].usable.store(false, Relaxed);
    assert_eq!(taking_part(rules, &endpoints), [1]);
    endpoints[1].usable.store(false, Relaxed);
    assert_eq!(taking_part(rules, &endpoints), [2]);
    endpoints[2].usable.store(false, Relaxed);
    assert_eq!(taking_part(rules, &endpoints), [3]);
    endpoints[3].usable.store(false, Relaxed);
    assert!(taking_part(rules, &endpoints).is_empty());
}

#[test]
fn below_the_panic_threshold_all_are_used_but_those_an_operator_took() {
    let mut endpoints = endpoints(&[1; 5]);
    endpoints[4].available = false;
    let rules = Rules { panic: 0.5, ..Rules::default() };
    let panics = |endpoints: &[Fake]| Group::choose(rules, endpoints).panic;
    assert!(!panics(&endpoints));
    endpoints[0].usable.store(false, Relaxed);
    endpoints[1].usable.store(false, Relaxed);
    assert!(!panics(&endpoints), "half is not below half");
    assert_eq!(taking_part(rules, &endpoints), [2, 3]);
    endpoints[2].usable.store(false, Relaxed);
    assert!(panics(&endpoints));
    assert_eq!(taking_part(rules, &endpoints), [0, 1, 2, 3]);
    endpoints[3].usable.store(false, Relaxed);
    assert_eq!(taking_part(rules, &endpoints), [0, 1, 2, 3], "none is healthy: still all");
    assert!(taking_part(Rules::default(), &endpoints).is_empty(), "without a threshold: none");
}

#[test]
fn the_own_zone_is_preferred_while_enough_of_it_is_healthy() {
    let mut endpoints = endpoints(&[1; 6]);
    endpoints[..4].iter_mut().for_each(|endpoint| endpoint.near = true);
    let rules = Rules { spill: 0.7, ..Rules::default() };
    assert_eq!(taking_part(rules, &endpoints), [0, 1, 2, 3]);
    endpoints[0].usable.store(false, Relaxed);
    assert_eq!(taking_part(rules, &endpoints), [1, 2, 3]);
    endpoints[1].usable.store(false, Relaxed);
    assert_eq!(taking_part(rules, &endpoints), [2, 3, 4, 5], "half of the zone is less than 70 %");
}

#[test]
fn an_endpoint_that_starts_slowly_gets_its_percent_of_its_weight() {
    for kind in ALL {
        let mut endpoints = endpoints(&[1, 1, 2]);
        endpoints[1].ramp = 10;
        let balancer = Balancer::new(kind, None, Rules::default(), &endpoints);
        let mut counts = [0u32; 3];
        // Least connections divides by weight only what is held.
        for client in clients(31_000) {
            let pick = balancer.pick(&endpoints, client, None, Tried::default()).unwrap();
            counts[pick] += 1;
            if kind == Balance::LeastConn {
                endpoints[pick].active.fetch_add(1, Relaxed);
            }
        }
        assert!((800..1200).contains(&counts[1]), "{kind:?}: {counts:?}");
    }
}
