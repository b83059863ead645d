//! What the maps should hold: who keeps its index, who keeps its clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use gateway_common::forward;

use super::*;
use crate::{
    balance::Tried,
    config::{self, model::Config},
    kernel::services::{TargetSpec, indexes::IDLE_NS},
    observe::stats::Registry,
    upstream::Upstream,
};

const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe)),
];

fn parse(text: &str) -> Config {
    config::parse(text, std::path::Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The services of a config, all their targets up.
fn owned(text: &str) -> Vec<Owned> {
    let spec = |target: &config::model::ServiceTarget| TargetSpec {
        addr: target.addr,
        weight: target.weight,
        server_id: target.server_id,
        state: TargetState::Up,
    };
    let one = |(name, config): (&String, &config::model::Service)| Owned {
        name: name.clone(),
        config: config.clone(),
        targets: config.targets.iter().map(spec).collect(),
    };
    parse(text).services.iter().map(one).collect()
}

fn local(address: IpAddr) -> Option<IpAddr> {
    Some(if address.is_ipv4() { OWN[0] } else { OWN[1] })
}

fn planned(wanted: &[Owned], indexes: &mut Indexes) -> Plan {
    plan(wanted, &OWN, local, indexes).unwrap()
}

fn service(name: &str, bind: &str, to: &[&str]) -> String {
    let quoted: Vec<String> = to.iter().map(|to| format!("\"{to}\"")).collect();
    format!("[service.{name}]\nbind = \"{bind}\"\nto = [{}]\n", quoted.join(", "))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Slots of a table, as the program reads them.
fn slots(members: &[Member]) -> Vec<u16> {
    let words = ring(members);
    (0..maglev::DEFAULT_SIZE).map(|slot| (words[slot / 4] >> (slot % 4 * 16)) as u16).collect()
}

/// So many members of weight one, whose indexes begin at 1.
fn members(n: u16) -> Vec<Member> {
    let member = |index: u16| {
        let name = format!("10.0.{}.{}:443", index / 250, index % 250);
        Member { index, weight: 1, identity: hash::of_bytes(SEED, name.as_bytes()) }
    };
    (1..=n).map(member).collect()
}

/// The share of slots that are another's.
fn moved(before: &[u16], after: &[u16]) -> f64 {
    before.iter().zip(after).filter(|(a, b)| a != b).count() as f64 / before.len() as f64
}

#[test]
fn a_target_that_comes_or_goes_moves_hardly_more_than_its_own_share() {
    // Of many, the mean is at most 1.6; single ones vary with their names.
    for (n, most, mean) in
        [(2, 1.05, 1.05), (3, 1.05, 1.05), (5, 1.05, 1.05), (10, 1.05, 1.05), (100, 1.7, 1.6)]
    {
        let all = members(n);
        let with = slots(&all);
        let shares: Vec<f64> = (0..usize::from(n))
            .map(|gone| {
                let mut fewer = all.clone();
                let target = fewer.remove(gone);
                let without = slots(&fewer);
                // Adding it is the same way back, wherever in the list it stands.
                if gone < 3 {
                    fewer.insert(0, target);
                    assert_eq!(moved(&slots(&fewer), &with), 0.0);
                }
                moved(&with, &without) * f64::from(n)
            })
            .collect();
        let worst = shares.iter().copied().fold(0.0, f64::max);
        let average = shares.iter().sum::<f64>() / f64::from(n);
        println!("one of {n} targets gone: {average:.3} / {n} of new flows move, at most {worst:.3} / {n}");
        assert!(worst <= most && average <= mean, "{n} targets: {average:.3}, at most {worst:.3} of a share");
    }
}

#[test]
fn weights_are_kept_within_one_percent() {
    for weights in [vec![1, 1], vec![1, 2, 3, 4], vec![1, 2, 4, 8, 16], vec![7, 1, 1, 1], vec![10, 9, 1]] {
        let mut members = members(weights.len() as u16);
        members.iter_mut().zip(&weights).for_each(|(member, weight)| member.weight = *weight);
        let slots = slots(&members);
        let total = f64::from(weights.iter().sum::<u32>());
        for member in &members {
            let share =
                slots.iter().filter(|slot| **slot == member.index).count() as f64 / slots.len() as f64;
            let wanted = f64::from(member.weight) / total;
            assert!((share / wanted - 1.0).abs() <= 0.01, "{weights:?}: {share} of {wanted}");
        }
    }
}

#[test]
fn indexes_stay_with_what_they_stand_for() {
    let (a, b) = (
        service("a", "192.0.2.1:80", &["10.0.0.1:80", "10.0.0.2:80"]),
        service("b", "192.0.2.2:80", &["10.0.0.1:80", "10.0.0.3:80"]),
    );
    let mut indexes = Indexes::default();
    let first = planned(&owned(&format!("{a}{b}")), &mut indexes);
    assert_eq!((first.services.len(), first.targets.len(), first.rings.len()), (4, 4, 2));
    let of = |indexes: &Indexes, name, target| indexes.target(name, addr(target)).unwrap();
    let (one, two) = (of(&indexes, "a", "10.0.0.1:80"), of(&indexes, "b", "10.0.0.1:80"));
    assert_ne!(one, two, "a target is of one service");
    assert_eq!(planned(&owned(&format!("{a}{b}")), &mut indexes), first, "a reload changes nothing");
    // In another order, and with more before and between.
    let more = service("0", "192.0.2.3:80", &["10.0.0.9:80"])
        + &a.replace(
            "[\"10.0.0.1:80\", \"10.0.0.2:80\"]",
            "[\"10.0.0.9:80\", \"10.0.0.2:80\", \"10.0.0.1:80\"]",
        )
        + &b;
    let second = planned(&owned(&more), &mut indexes);
    for (key, service) in &first.services {
        assert_eq!(second.services.get(key), Some(service));
    }
    for (index, target) in &first.targets {
        assert_eq!(second.targets.get(index), Some(target));
    }
    assert_eq!((of(&indexes, "a", "10.0.0.1:80"), of(&indexes, "b", "10.0.0.1:80")), (one, two));
}

#[test]
fn what_is_gone_keeps_its_index_and_gets_it_back() {
    let (a, b) = (
        service("a", "192.0.2.1:80", &["10.0.0.1:80", "10.0.0.2:80"]),
        service("b", "192.0.2.2:80", &["10.0.0.3:80"]),
    );
    let mut indexes = Indexes::default();
    let first = planned(&owned(&format!("{a}{b}")), &mut indexes);
    let index = indexes.target("a", addr("10.0.0.2:80")).unwrap();
    // A target leaves: it takes no new connections, and keeps those it has.
    let fewer = a.replace(", \"10.0.0.2:80\"", "");
    let second = planned(&owned(&format!("{fewer}{b}")), &mut indexes);
    let retired = second.targets[&index];
    assert_eq!(retired, Target { state: target_state::DRAINING, ..first.targets[&index] });
    assert!(second.rings.values().flatten().all(|member| member.index != index));
    assert_eq!(indexes.retired().collect::<Vec<_>>(), [index]);
    // Others come: they are not mistaken for it.
    let others = a.replace("10.0.0.2:80", "10.0.0.7:80");
    planned(&owned(&format!("{others}{b}")), &mut indexes);
    assert_ne!(indexes.target("a", addr("10.0.0.7:80")), Some(index));
    // It comes back, and a whole service goes and comes.
    assert_eq!(planned(&owned(&a), &mut indexes).targets[&index], first.targets[&index]);
    let again = planned(&owned(&format!("{a}{b}")), &mut indexes);
    assert_eq!(again.services, first.services);
    for (index, target) in &first.targets {
        assert_eq!(again.targets.get(index), Some(target));
    }
}

#[test]
fn an_address_that_is_gone_gives_its_index_to_nobody_else() {
    let at = |bind: &str| owned(&service("a", bind, &["10.0.0.1:80"]));
    let vip = |plan: &Plan| plan.services.values().find(|service| service.vip != 0).unwrap().vip;
    let mut indexes = Indexes::default();
    let first = vip(&planned(&at("192.0.2.1:80"), &mut indexes));
    let other = vip(&planned(&at("192.0.2.2:80"), &mut indexes));
    assert_ne!(first, other, "connections to the first would be taken for the other's");
    assert_eq!(vip(&planned(&at("192.0.2.1:80"), &mut indexes)), first);
}

#[test]
fn a_service_that_is_gone_gives_its_index_to_nobody_else() {
    let mut indexes = Indexes::default();
    let first = planned(&owned(&service("a", "192.0.2.1:80", &["10.0.0.1:80"])), &mut indexes);
    let second = planned(&owned(&service("b", "192.0.2.2:80", &["10.0.0.1:80"])), &mut indexes);
    let ring = |plan: &Plan| *plan.rings.keys().next().unwrap();
    assert_ne!(ring(&first), ring(&second), "until its address is taken away its packets go by its table");
    let index = *first.targets.keys().next().unwrap();
    assert_eq!(second.targets[&index].state, target_state::DRAINING);
}

#[test]
fn there_is_room_for_as_many_as_the_config_allows_again_and_again() {
    let one = owned(&service("s", "192.0.2.1:80", &["192.0.2.77:80"])).remove(0);
    let named = |from: u32| -> Vec<Owned> {
        let at = |n: u32| Bind::Addr(SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + n).into(), 80));
        let another = |n| {
            let config = config::model::Service { binds: vec![at(n)], ..one.config.clone() };
            Owned { name: format!("s{n}"), config, ..one.clone() }
        };
        (from..from + 4095).map(another).collect()
    };
    let mut indexes = Indexes::default();
    for from in [1, 5000, 10_000] {
        // All others than before.
        let plan = planned(&named(from), &mut indexes);
        assert_eq!(plan.services.len(), 2 * 4095);
        let vips: BTreeSet<u16> = plan.services.values().map(|service| service.vip).collect();
        assert_eq!(vips.len(), 4095 + 1, "and that of pings, which is nobody's");
        let services: BTreeSet<u16> = plan.services.values().map(|service| service.service).collect();
        assert_eq!(services.len(), 4095 + 1);
        indexes.forget_idle(&BTreeMap::new(), 1);
        indexes.forget_idle(&BTreeMap::new(), 2 + IDLE_NS);
    }
}

#[test]
fn retired_targets_are_kept_while_they_have_packets() {
    let mut indexes = Indexes::default();
    planned(&owned(&service("a", "192.0.2.1:80", &["10.0.0.1:80", "10.0.0.2:80"])), &mut indexes);
    planned(&owned(&service("a", "192.0.2.1:80", &["10.0.0.1:80"])), &mut indexes);
    let index = indexes.retired().next().unwrap();
    let mut count = |packets, now| {
        indexes.forget_idle(&BTreeMap::from([(index, packets)]), now);
        indexes.retired().count()
    };
    assert_eq!(count(7, 1), 1);
    assert_eq!(count(7, IDLE_NS), 1);
    assert_eq!(count(8, IDLE_NS + 5), 1, "a packet");
    assert_eq!(count(8, 2 * IDLE_NS), 1);
    assert_eq!(count(8, 2 * IDLE_NS + 5), 0);
}

#[test]
fn each_ip_version_of_a_port_has_targets_of_its_own() {
    let text = service("dns", ":53", &["10.0.0.1:53", "[2001:db8:1::1]:53", "10.0.0.2:53"]);
    let mut indexes = Indexes::default();
    let plan = planned(&owned(&text), &mut indexes);
    assert_eq!(plan.services.len(), 2);
    for (key, service) in &plan.services {
        let members = &plan.rings[&service.ring];
        assert_eq!(members.len(), if key.is_v4() { 2 } else { 1 });
        for member in members {
            assert_eq!(plan.targets[&member.index].address.is_v4(), key.is_v4());
        }
    }
    let text = service("dns", ":53", &["10.0.0.1:53"]);
    assert!(planned(&owned(&text), &mut indexes).services.keys().all(ServiceKey::is_v4));
}

#[test]
fn states_decide_what_is_in_the_table() {
    let mut wanted = owned(&service("a", "192.0.2.1:80", &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]));
    wanted[0].targets[1].state = TargetState::Draining;
    wanted[0].targets[2].state = TargetState::Down;
    let mut indexes = Indexes::default();
    let plan = planned(&wanted, &mut indexes);
    let states: Vec<u8> = plan.targets.values().map(|target| target.state).collect();
    assert_eq!(states, [target_state::UP, target_state::DRAINING, target_state::DOWN]);
    assert_eq!(plan.rings.values().next().unwrap().len(), 1);
    let nowhere = super::plan(&wanted, &OWN, |_| None, &mut indexes).unwrap();
    assert!(nowhere.targets.values().all(|target| target.state == target_state::DOWN));
    assert!(slots(nowhere.rings.values().next().unwrap()).iter().all(|slot| *slot == 0));
}

#[test]
fn both_halves_send_a_client_to_the_same_endpoint() {
    for (vip, endpoints) in [
        ("192.0.2.1:80", ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:8080"]),
        (
            "[2001:db8::1]:80",
            ["[2001:db8:1::1]:80", "[2001:db8:1::2]:80", "[2001:db8::3]:80", "[2001:db8::4]:80"],
        ),
    ] {
        let quoted = |text: &str, weight| format!("{{ addr = \"{text}\", weight = {weight} }}");
        let to: Vec<String> = endpoints.iter().zip([1, 2, 1, 3]).map(|(text, w)| quoted(text, w)).collect();
        let to = to.join(", ");
        let text = format!(
            "[listener.web]\nbind = \":8080\"\n[route.all]\nto = \"app\"\n\
             [upstream.app]\nto = [{to}]\nbalance = \"ip-hash\"\n\
             [service.app]\nbind = \"{vip}\"\nto = [{to}]\nbalance = \"ip-hash\"\n"
        );
        let upstream = Upstream::new(
            "app",
            &parse(&text).upstreams["app"],
            &Default::default(),
            None,
            None,
            None,
            &Registry::new(1),
        );
        let mut wanted = owned(&text);
        for down in [None, Some(2)] {
            if let Some(down) = down {
                upstream.set_healthy(down, false);
                wanted[0].targets[down].state = TargetState::Down;
            }
            let plan = planned(&wanted, &mut Indexes::default());
            let service = plan.services[&ServiceKey::new(addr(vip).ip().into(), 80, TCP)];
            let table = slots(&plan.rings[&service.ring]);
            let mut seen = BTreeSet::new();
            for n in 0..2000u32 {
                let client = match addr(vip).is_ipv4() {
                    true => IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + n * 7919)),
                    false => IpAddr::V6(Ipv6Addr::from((0x2001_0db8_000b_u128 << 80) + u128::from(n) * 7919)),
                };
                let slot = forward::slot_of(&service, (client.into(), n as u16), (addr(vip).ip().into(), 80));
                let target = plan.targets[&table[slot as usize]];
                let kernel = SocketAddr::new(target.address.into(), target.port);
                let proxy = upstream.pick(client, &mut Tried::default()).unwrap().target().addr;
                assert_eq!(kernel, proxy, "{client}");
                seen.insert(kernel);
            }
            assert_eq!(seen.len(), if down.is_some() { 3 } else { 4 });
        }
    }
}
