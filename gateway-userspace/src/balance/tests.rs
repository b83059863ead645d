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
        self.usable.load(Relaxed)
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
        })
        .collect()
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn picks(balancer: &Balancer, endpoints: &[Fake], n: usize) -> Vec<usize> {
    (0..n).filter_map(|_| balancer.pick(endpoints, CLIENT, Tried::default())).collect()
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
    let balancer = Balancer::new(Balance::RoundRobin, None, &endpoints);
    let order = picks(&balancer, &endpoints, 70);
    assert_eq!(order[..7], [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!([0, 1, 2].map(|e| order.iter().filter(|p| **p == e).count()), [50, 10, 10]);
}

#[test]
fn equal_weights_never_differ_by_more_than_one() {
    let endpoints = endpoints(&[3, 3, 3, 3]);
    let balancer = Balancer::new(Balance::RoundRobin, None, &endpoints);
    let mut counts = [0i32; 4];
    for pick in picks(&balancer, &endpoints, 1001) {
        counts[pick] += 1;
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
    }
}

#[test]
fn huge_weights_keep_their_proportion_in_a_bounded_sequence() {
    let endpoints = endpoints(&[1_000_003, 2]);
    let balancer = Balancer::new(Balance::RoundRobin, None, &endpoints);
    assert!(picks(&balancer, &endpoints, 1 << 16).iter().filter(|e| **e == 1).count() <= 2);
}

#[test]
fn an_unusable_endpoint_is_not_picked_after_rebuild() {
    for kind in [Balance::RoundRobin, Balance::LeastConn, Balance::IpHash] {
        let endpoints = endpoints(&[1, 1, 1]);
        let balancer = Balancer::new(kind, None, &endpoints);
        endpoints[1].usable.store(false, Relaxed);
        balancer.rebuild(&endpoints);
        for client in clients(200) {
            assert_ne!(balancer.pick(&endpoints, client, Tried::default()), Some(1), "{kind:?}");
        }
        endpoints.iter().for_each(|e| e.usable.store(false, Relaxed));
        balancer.rebuild(&endpoints);
        assert_eq!(balancer.pick(&endpoints, CLIENT, Tried::default()), None);
    }
}

#[test]
fn tried_endpoints_are_skipped_until_none_is_left() {
    for kind in [Balance::RoundRobin, Balance::LeastConn, Balance::IpHash] {
        let endpoints = endpoints(&[1, 4, 1]);
        let balancer = Balancer::new(kind, None, &endpoints);
        let mut tried = Tried::default();
        let mut seen = Vec::new();
        while let Some(pick) = balancer.pick(&endpoints, CLIENT, tried) {
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
    let balancer = Balancer::new(Balance::LeastConn, None, &endpoints);
    for _ in 0..40 {
        let pick = balancer.pick(&endpoints, CLIENT, Tried::default()).unwrap();
        assert_ne!(pick, 0);
        endpoints[pick].active.fetch_add(1, Relaxed);
    }
    assert_eq!(endpoints[1].active(), 20);
    assert_eq!(endpoints[2].active(), 20);
}

#[test]
fn least_connections_weighs_load_by_weight_and_breaks_ties_in_turn() {
    let heavy = endpoints(&[3, 1]);
    let balancer = Balancer::new(Balance::LeastConn, None, &heavy);
    for _ in 0..40 {
        let pick = balancer.pick(&heavy, CLIENT, Tried::default()).unwrap();
        heavy[pick].active.fetch_add(1, Relaxed);
    }
    assert_eq!([heavy[0].active(), heavy[1].active()], [30, 10]);

    let equal = endpoints(&[1, 1, 1]);
    let balancer = Balancer::new(Balance::LeastConn, None, &equal);
    let order = picks(&balancer, &equal, 6);
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    equal[0].active.store(20, Relaxed);
    let order = picks(&balancer, &equal, 6);
    assert_eq!(order, [1, 2, 1, 2, 1, 2]);
}

#[test]
fn ip_hash_is_stable_and_even() {
    let endpoints = endpoints(&[1; 10]);
    let first = Balancer::new(Balance::IpHash, None, &endpoints);
    let restarted = Balancer::new(Balance::IpHash, None, &endpoints);
    let mut counts = HashMap::new();
    for client in clients(10_000) {
        let pick = first.pick(&endpoints, client, Tried::default()).unwrap();
        for balancer in [&first, &restarted] {
            assert_eq!(balancer.pick(&endpoints, client, Tried::default()), Some(pick));
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
    let balancer = Balancer::new(Balance::IpHash, None, &endpoints);
    let pick = |client| balancer.pick(&endpoints, client, Tried::default()).unwrap();
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
    let balancer = Balancer::new(Balance::IpHash, Some(1.25), &endpoints);
    // All from one client: without a bound, one endpoint would get everything.
    for held in 1..=1000u32 {
        let pick = balancer.pick(&endpoints, CLIENT, Tried::default()).unwrap();
        endpoints[pick].active.fetch_add(1, Relaxed);
        let bound = (1.25 * f64::from(held) / 10.0).ceil() as u32;
        assert!(endpoints[pick].active() <= bound, "{} > {bound}", endpoints[pick].active());
    }
}
