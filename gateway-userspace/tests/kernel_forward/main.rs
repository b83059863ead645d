//! Forwarding in the loaded XDP program and by the host's `gateway_common::forward`, packet by packet.
#![allow(clippy::unwrap_used)]

mod fixtures;
mod generate;
mod kernel;
#[path = "../kernel_support/mod.rs"]
mod kernel_support;
mod lasting;
mod model;
mod network;
mod stack;
mod sums;
mod ways;
mod wire;
mod world;

use std::{collections::BTreeMap, time::Instant};

use gateway::kernel::TargetState;
use gateway_common::{service::mode, verdict::Reason};
use generate::Maker;
use kernel_support::lab;
use world::World;

/// What the generator must have met, so that the comparison cannot become one of packets that are dropped at once.
const MET: [Reason; 22] = [
    Reason::Ok,
    Reason::Service,
    Reason::ServiceUnpinned,
    Reason::Reply,
    Reason::IcmpError,
    Reason::Echo,
    Reason::TooBig,
    Reason::Unresolved,
    Reason::NoTarget,
    Reason::NoRoute,
    Reason::NoNeighbour,
    Reason::TtlExpired,
    Reason::NoFlow,
    Reason::FlowsFull,
    Reason::NoRoom,
    Reason::Truncated,
    Reason::BadIpHeader,
    Reason::BadIpLength,
    Reason::BadFragment,
    Reason::TooManyHeaders,
    Reason::BadTcpHeader,
    Reason::BadUdpLength,
];

/// Packets of one table's size, and how many of them the targets keep their states for.
struct Plan {
    flows: u32,
    rounds: usize,
    packets: usize,
    /// How often the tables are compared.
    every: usize,
}

/// Compared are, for every packet: the verdict (reason and interface; for every fourth packet, which `xdp_gateway` itself
/// is given, its action) and every byte that is left of it. After it: every word of the tables of connections and
/// replies. After a round: packets, bytes and connections counted by target. Checksums are worked out again by code of
/// their own, in packets whose were right before.
///
/// The model's tables are its own: they begin as copies of the kernel's and follow by the host's code alone. What
/// userspace writes (services, addresses, targets, tables, server ids) is read back from the maps, next hops are those
/// of routes that do not change. Targets come up, drain and go down between rounds, and time passes.
#[test]
fn the_kernel_forwards_every_packet_as_the_host_would() {
    needs_bpf!();
    let began = Instant::now();
    let mut met: BTreeMap<Reason, usize> = BTreeMap::new();
    // One in which nothing is ever full, and one in which everything soon is.
    for (seed, plan) in [
        (1, Plan { flows: 16_384, rounds: 4, packets: 17_000, every: 1000 }),
        (2, Plan { flows: 64, rounds: 4, packets: 17_000, every: 1 }),
    ] {
        for (reason, packets) in lab::inside(|lab| compare(lab, seed, &plan)) {
            *met.entry(reason).or_default() += packets;
        }
    }
    let packets: usize = met.values().sum();
    println!("{packets} packets in {:?}: {met:?}", began.elapsed());
    assert!(packets >= 120_000, "{packets}");
    for reason in MET {
        assert!(met.get(&reason).is_some_and(|packets| *packets >= 10), "{reason:?}: {met:?}");
    }
}

fn compare(lab: &lab::Lab, seed: u64, plan: &Plan) -> BTreeMap<Reason, usize> {
    network::build(lab);
    let config = network::services();
    let mut world = World::start(lab, plan.flows);
    let (mut maker, mut states) = (Maker::new(seed), fastrand::Rng::with_seed(seed));
    let mut met = BTreeMap::new();
    let (mut counted, mut kinds) = (0, BTreeMap::<_, usize>::new());
    for round in 0..plan.rounds {
        // In the last round one service in four has no target at all.
        let last = round + 1 == plan.rounds;
        let mut gone = BTreeMap::new();
        world.set(&config, |service, _| {
            let gone = *gone.entry(service.to_owned()).or_insert_with(|| last && states.u8(..4) == 0);
            match states.u8(..10) {
                _ if gone => TargetState::Down,
                0 => TargetState::Down,
                1 => TargetState::Draining,
                _ => TargetState::Up,
            }
        });
        for at in 1..=plan.packets {
            let (what, frame) = maker.packet();
            let what = format!("{what}, round {round}, packet {at}");
            let (outcome, left) = world.check(&frame, &what);
            *met.entry(outcome.reason).or_default() += 1;
            if outcome.reason == Reason::Service {
                *kinds.entry(world.model.kind_of(&frame)).or_default() += 1;
            }
            maker.learn(&frame, outcome.reason, &left);
            if at % plan.every == 0 {
                world.compare_tables(&what);
            }
            if at % 1500 == 0 {
                world.age([1, 45, 61, 181, 7441][at / 1500 % 5]);
            }
        }
        assert!(world.connections() > 20, "hardly a connection is remembered");
        counted += usize::from(world.compare_counts());
    }
    for mode in [mode::NAT, mode::DSR, mode::IPIP, mode::GUE] {
        for v4 in [false, true] {
            assert!(kinds.get(&Some((mode, v4))).is_some_and(|packets| *packets > 300), "{kinds:?}");
        }
    }
    assert!(counted > 0, "no round without a change of seconds");
    world.kernel.plane.stop();
    met
}
