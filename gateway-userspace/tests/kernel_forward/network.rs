//! The network that packets are forwarded in: two links, routes that never change, and services of every mode.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use gateway::{
    config::{self, model},
    kernel::{KernelPlane, ServiceSpec, TargetSpec, TargetState},
};
use gateway_common::{
    forward::{NextHop, found},
    source::Address,
};

use crate::kernel_support::lab::{Lab, ip};

/// Where packets come in; where some of them leave.
pub const IN: &str = "gw0";
const OUT: &str = "gw2";
const IN_MAC: u64 = 0x0200_0000_0a00;
const OUT_MAC: u64 = 0x0200_0000_0a02;
/// Of hosts on the links, but for the last byte.
const HOST_MAC: u64 = 0x0200_0000_0100;
/// Of the way behind a router.
const NARROW: u32 = 1300;

pub const MODES: [&str; 4] = ["nat", "dsr", "ipip", "gue"];

/// Targets: on the link, on the other one, behind a narrow way, without a neighbour, and where no route leads.
const TARGETS: [[&str; 6]; 2] = [
    ["10.1.0.1", "10.1.0.2", "10.2.0.1", "10.3.0.5", "10.1.0.50", "10.4.0.9"],
    ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:102::1", "2001:db8:3::5", "2001:db8:1::50", "2001:db8:4::9"],
];
/// Most go where there is a way.
const WEIGHTS: [u32; 6] = [6, 6, 6, 6, 2, 1];

pub fn build(lab: &Lab) {
    lab.veth(IN, "gw1");
    lab.veth(OUT, "gw3");
    ip(&["link", "set", IN, "address", &mac(IN_MAC)]);
    ip(&["link", "set", OUT, "address", &mac(OUT_MAC)]);
    for (address, device) in [
        ("10.1.0.254/16", IN),
        ("10.2.0.254/16", OUT),
        ("10.4.0.9/32", "lo"),
        ("2001:db8:1::fe/64", IN),
        ("2001:db8:102::fe/64", OUT),
        ("2001:db8:4::9/128", "lo"),
    ] {
        let nodad = if address.contains(':') { &["nodad"][..] } else { &[] };
        ip(&[&["address", "add", address, "dev", device], nodad].concat());
    }
    for (host, device) in [
        ("10.1.0.1", IN),
        ("10.1.0.2", IN),
        ("10.2.0.1", OUT),
        ("2001:db8:1::1", IN),
        ("2001:db8:1::2", IN),
        ("2001:db8:102::1", OUT),
    ] {
        let last = host.rsplit(['.', ':']).next().unwrap().parse::<u64>().unwrap();
        ip(&["neigh", "add", host, "lladdr", &mac(HOST_MAC + last), "dev", device]);
    }
    let narrow = NARROW.to_string();
    for (prefix, router) in [("198.18.0.0/15", "10.1.0.1"), ("2001:db8:c::/48", "2001:db8:1::1")] {
        ip(&["route", "add", prefix, "via", router]);
    }
    for (prefix, router) in [("10.3.0.0/16", "10.2.0.1"), ("2001:db8:3::/48", "2001:db8:102::1")] {
        ip(&["route", "add", prefix, "via", router, "mtu", "lock", &narrow]);
    }
}

/// The numbers of the two interfaces.
pub fn ifindexes() -> (u32, u32) {
    // SAFETY: C strings.
    let number = |name: &std::ffi::CStr| unsafe { libc::if_nametoindex(name.as_ptr()) };
    (number(c"gw0"), number(c"gw2"))
}

fn mac(mac: u64) -> String {
    let octets: Vec<String> = mac.to_be_bytes()[2..].iter().map(|octet| format!("{octet:02x}")).collect();
    octets.join(":")
}

/// What `build` says of the way to an address.
pub fn next_hop(destination: Address, ifindexes: (u32, u32)) -> NextHop {
    let to = |host: u64, out: bool, mtu| NextHop {
        found: found::HOP,
        ifindex: if out { ifindexes.1 } else { ifindexes.0 },
        mtu,
        target_mac: HOST_MAC + host,
        source_mac: if out { OUT_MAC } else { IN_MAC },
    };
    match IpAddr::from(destination).to_string().as_str() {
        "10.1.0.1" | "2001:db8:1::1" => to(1, false, 1500),
        "10.1.0.2" | "2001:db8:1::2" => to(2, false, 1500),
        "10.2.0.1" | "2001:db8:102::1" => to(1, true, 1500),
        text if text.starts_with("10.3.") || text.starts_with("2001:db8:3:") => to(1, true, NARROW),
        text if text.starts_with("198.18.") || text.starts_with("2001:db8:c:") => to(1, false, 1500),
        text if text.starts_with("10.1.") || text.starts_with("2001:db8:1:") => {
            let own = matches!(text, "10.1.0.254" | "2001:db8:1::fe");
            NextHop::without(if own { found::NOTHING } else { found::ROUTE })
        }
        text if text.starts_with("10.2.") || text.starts_with("2001:db8:102:") => {
            let own = matches!(text, "10.2.0.254" | "2001:db8:102::fe");
            NextHop::without(if own { found::NOTHING } else { found::ROUTE })
        }
        _ => NextHop::without(found::NOTHING),
    }
}

/// The virtual address of a mode.
pub fn vip(mode: usize, v6: bool) -> IpAddr {
    let text = if v6 { format!("2001:db8:2::{}", mode + 1) } else { format!("192.0.2.{}", mode + 1) };
    text.parse().unwrap()
}

/// Ports of every virtual address, TCP and UDP: 80 as the mode has it; 81 by the client's address alone and, but for NAT,
/// without remembering; 443 (UDP) by QUIC's connection ids.
pub const PORTS: [u16; 3] = [80, 81, 443];

/// The first of the targets' server ids.
pub const SERVER_ID: u16 = 0x1230;

/// Services of every mode and family, and one at every address of the host's own.
pub fn services() -> model::Config {
    let mut text = String::new();
    for (mode, name) in MODES.iter().enumerate() {
        for v6 in [false, true] {
            let vip = vip(mode, v6);
            for (port, protocol) in [(80, "tcp"), (80, "udp"), (81, "tcp"), (81, "udp"), (443, "udp")] {
                text += &format!(
                    "[service.{name}{}{protocol}{port}]\nbind = \"{}\"\n",
                    if v6 { 6 } else { 4 },
                    SocketAddr::new(vip, port)
                );
                text += &format!("protocol = \"{protocol}\"\nforward = \"{name}\"\n");
                if port == 81 {
                    text += "balance = \"ip-hash\"\n";
                    text += if *name == "nat" { "" } else { "flows = false\n" };
                }
                if port == 443 {
                    text += "quic = true\n";
                    text += if *name == "ipip" { "flows = false\n" } else { "" };
                }
                let to = if *name == "nat" { 8080 } else { port };
                text += &targets(&TARGETS[usize::from(v6)], to, port == 443);
            }
        }
    }
    let both: Vec<&str> = TARGETS[0][..4].iter().chain(&TARGETS[1][..4]).copied().collect();
    for protocol in ["tcp", "udp"] {
        text += &format!("[service.own{protocol}]\nbind = \":53\"\nprotocol = \"{protocol}\"\n");
        text += &targets(&both, 5300, false);
    }
    config::parse(&text, Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn targets(addresses: &[&str], port: u16, ids: bool) -> String {
    let one = |(at, address): (usize, &&str)| {
        let id = if ids { format!(", server_id = {}", SERVER_ID + at as u16) } else { String::new() };
        let addr = SocketAddr::new(address.parse().unwrap(), port);
        format!("{{ addr = \"{addr}\", weight = {}{id} }}", WEIGHTS[at % WEIGHTS.len()])
    };
    format!("to = [{}]\n", addresses.iter().enumerate().map(one).collect::<Vec<_>>().join(", "))
}

/// Gives the plane the services; `state` says how each target is.
pub fn set(
    plane: &KernelPlane,
    config: &model::Config,
    mut state: impl FnMut(&str, SocketAddr) -> TargetState,
) {
    let mut spec = |(name, config)| {
        let (name, config): (&String, &model::Service) = (name, config);
        let target = |target: &model::ServiceTarget| TargetSpec {
            addr: target.addr,
            weight: target.weight,
            server_id: target.server_id,
            state: state(name, target.addr),
        };
        let targets = config.targets.iter().map(target).collect();
        (name, config, targets)
    };
    let specs: Vec<_> = config.services.iter().map(&mut spec).collect();
    let specs: Vec<ServiceSpec<'_>> =
        specs.into_iter().map(|(name, config, targets)| ServiceSpec { name, config, targets }).collect();
    plane.set_services(&specs).unwrap();
}
