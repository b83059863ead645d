//! Connections stay where they are, whatever becomes of the config around them.

use std::net::SocketAddr;

use gateway::{
    config::{self, model::Config},
    kernel::TargetState,
};
use gateway_common::verdict::Reason;

use crate::{
    kernel_support::{
        frames::{ACK, SYN, TCP},
        lab,
    },
    needs_bpf, network,
    wire::Ip,
    world::World,
};

const TARGETS: [&str; 3] = ["10.1.0.1", "10.1.0.2", "10.2.0.1"];
const FORWARDS: [&str; 2] = ["nat", "ipip"];

/// A service a way of forwarding, named so, with these of the targets.
fn services(prefix: &str, targets: &[&str]) -> String {
    let one = |(at, forward): (usize, &&str)| {
        let to: Vec<String> = targets.iter().map(|to| format!("\"{to}:80\"")).collect();
        let to = to.join(", ");
        format!("[service.{prefix}{forward}]\nbind = \"{}\"\nforward = \"{forward}\"\nto = [{to}]\n", vip(at))
    };
    FORWARDS.iter().enumerate().map(one).collect()
}

fn vip(at: usize) -> SocketAddr {
    SocketAddr::new(network::vip(at, false), 80)
}

fn parse(text: &str) -> Config {
    config::parse(text, std::path::Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn packet(at: usize, port: u16, flags: u8) -> Vec<u8> {
    let ip = Ip::new("198.18.0.7".parse().unwrap(), vip(at).ip());
    ip.frame(&[], TCP, &ip.tcp((port, 80), flags, b""))
}

/// What becomes of every connection's packets.
fn ways(world: &mut World, flags: u8, what: &str) -> Vec<Vec<u8>> {
    let all = (0..FORWARDS.len()).flat_map(|at| (4000..4030).map(move |port| packet(at, port, flags)));
    all.map(|packet| {
        let (outcome, out) = world.check(&packet, what);
        assert_eq!(outcome.reason, Reason::Service, "{what}");
        out
    })
    .collect()
}

#[test]
fn connections_stay_where_they_are_over_reloads_and_restarts() {
    needs_bpf!();
    lab::inside(|lab| {
        network::build(lab);
        let mut world = World::start(lab, 4096);
        let up = |_: &str, _: SocketAddr| TargetState::Up;
        world.set(&parse(&services("a", &TARGETS)), up);
        ways(&mut world, SYN, "a new connection");
        let before = ways(&mut world, ACK, "it goes on");
        let other = "[service.0]\nbind = \"192.0.2.9:80\"\nto = \"10.1.0.1:80\"\n";
        let turned: Vec<&str> = TARGETS.into_iter().rev().collect();
        for (what, text) in [
            ("others come, and the order is another", services("a", &turned) + other),
            ("two of three targets are gone", services("a", &TARGETS[..1])),
            ("they come back", services("a", &TARGETS)),
            ("the service has another name", services("b", &TARGETS)),
            ("it has its old name", services("a", &TARGETS)),
        ] {
            world.set(&parse(&text), up);
            assert!(ways(&mut world, ACK, what) == before, "{what}");
        }
        world.set(&parse(&services("a", &TARGETS[1..])), up);
        world.kernel.plane.stop();
        drop(world);
        let mut world = World::start(lab, 4096);
        assert!(world.kernel.plane.status().adopted);
        world.set(&parse(&(other.to_owned() + &services("z", &turned[..2]))), up);
        assert!(ways(&mut world, ACK, "after a restart") == before, "after a restart");
        world.set(&parse(&services("a", &TARGETS)), up);
        assert!(ways(&mut world, ACK, "back as it was") == before, "back as it was");
        world.kernel.plane.stop();
    });
}

#[test]
fn a_connection_is_of_the_address_that_it_was_made_to() {
    needs_bpf!();
    lab::inside(|lab| {
        network::build(lab);
        let mut world = World::start(lab, 4096);
        let at = |at| format!("[service.s{at}]\nbind = \"{}\"\nto = \"10.1.0.{}:80\"\n", vip(at), at + 1);
        for (now, then) in [(0, 1), (1, 0)] {
            world.forget();
            world.set(&parse(&at(now)), |_, _| TargetState::Up);
            assert_eq!(world.check(&packet(now, 4000, SYN), "there").0.reason, Reason::Service);
            // The same client, by chance from the same port, to the address that came in its place.
            world.set(&parse(&at(then)), |_, _| TargetState::Up);
            assert_eq!(world.check(&packet(then, 4000, ACK), "elsewhere").0.reason, Reason::NoFlow);
            // And when the first is back its connection is, too.
            world.set(&parse(&at(now)), |_, _| TargetState::Up);
            assert_eq!(world.check(&packet(now, 4000, ACK), "there again").0.reason, Reason::Service);
        }
        world.kernel.plane.stop();
    });
}
