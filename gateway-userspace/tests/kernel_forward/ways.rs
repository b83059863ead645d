//! Services with one target each, a port for every way there is, and what packets to them have to become: made by
//! `wire.rs`, not by the code under test.

use std::net::{IpAddr, SocketAddr};

use gateway::{
    config::{self, model::Config},
    kernel::TargetState,
};
use gateway_common::service::NAT_PORTS;

use crate::{
    kernel_support::frames::{TCP, UDP, ethernet},
    network::{self, MODES},
    wire::{DONT, Ip},
};

/// Ports of every virtual address.
pub const PLAIN: u16 = 80;
pub const OTHER_LINK: u16 = 81;
pub const NARROW: u16 = 82;
pub const NO_NEIGHBOUR: u16 = 83;
pub const NO_ROUTE: u16 = 84;
pub const DOWN: u16 = 85;
pub const QUIC: u16 = 443;

/// Of a target, for NAT.
pub const BEHIND: u16 = 8080;
/// Of the one target of QUIC that has an id, on the other link.
pub const SERVER: u16 = 0x1234;
/// Of the narrow way.
pub const MTU: usize = 1300;

const LINK_MACS: [u64; 2] = [0x0200_0000_0101, 0x0200_0000_0a00];
const OTHER_LINK_MACS: [u64; 2] = [0x0200_0000_0101, 0x0200_0000_0a02];

/// One mode and family.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub mode: &'static str,
    pub v6: bool,
}

/// All of them.
pub fn cases() -> impl Iterator<Item = Case> {
    MODES.iter().flat_map(|mode| [false, true].map(|v6| Case { mode, v6 }))
}

fn parsed(texts: [&str; 2], v6: bool) -> IpAddr {
    texts[usize::from(v6)].parse().unwrap()
}

impl Case {
    pub fn client(self) -> IpAddr {
        parsed(["198.18.0.7", "2001:db8:c::7"], self.v6)
    }

    pub fn vip(self) -> IpAddr {
        network::vip(MODES.iter().position(|mode| *mode == self.mode).unwrap(), self.v6)
    }

    pub fn target(self, port: u16) -> IpAddr {
        let texts = match port {
            OTHER_LINK => ["10.2.0.1", "2001:db8:102::1"],
            NARROW => ["10.3.0.5", "2001:db8:3::5"],
            NO_NEIGHBOUR => ["10.1.0.50", "2001:db8:1::50"],
            NO_ROUTE => ["10.4.0.9", "2001:db8:4::9"],
            _ => ["10.1.0.1", "2001:db8:1::1"],
        };
        parsed(texts, self.v6)
    }

    /// Our address towards it.
    pub fn local(self, port: u16) -> IpAddr {
        match port {
            OTHER_LINK | NARROW => parsed(["10.2.0.254", "2001:db8:102::fe"], self.v6),
            _ => parsed(["10.1.0.254", "2001:db8:1::fe"], self.v6),
        }
    }

    /// A header from the client to the virtual address.
    pub fn ip(self) -> Ip {
        Ip { fragment: DONT, ..Ip::new(self.client(), self.vip()) }
    }

    pub fn header(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    pub fn overhead(self) -> usize {
        match self.mode {
            "ipip" => self.header(),
            "gue" => self.header() + 8,
            _ => 0,
        }
    }

    /// What an IP packet to `port` becomes, in a frame to the next hop. `inside` makes the payload for other addresses
    /// and ports; what nobody can know beforehand is taken from `out`, the frame that was sent.
    pub fn there(self, port: u16, came: &Came<'_>, out: &[u8]) -> Vec<u8> {
        let (local, target) = (self.local(port), self.target(port));
        let l3 = 14 + 4 * came.tags.len();
        let ip = Ip { ttl: came.ip.ttl - 1, ..came.ip.clone() };
        let packet = match self.mode {
            "nat" => {
                let ours = u16_at(out, l3 + ip.packet(0, &[]).len());
                assert!(came.fragment || NAT_PORTS.contains(&ours), "our port {ours}");
                let ip = Ip { source: local, destination: target, ..ip.clone() };
                ip.packet(came.protocol, &(came.inside)(&ip, (ours, BEHIND)))
            }
            _ => ip.packet(came.protocol, &(came.inside)(&ip, (CLIENT_PORT, port))),
        };
        let packet = match self.mode {
            "ipip" => self.outer(&ip, (local, target), out, l3).packet(if self.v6 { 41 } else { 4 }, &packet),
            "gue" => {
                let source = u16_at(out, l3 + self.header());
                assert!(source >= 0xc000, "{source}");
                let words = [source, 6080, packet.len() as u16 + 8, 0];
                let udp = [words.map(u16::to_be_bytes).concat(), packet].concat();
                self.outer(&ip, (local, target), out, l3).packet(UDP, &udp)
            }
            _ => packet,
        };
        framed(came.tags, self.v6, &packet)
    }

    fn outer(self, inner: &Ip, (local, target): (IpAddr, IpAddr), out: &[u8], l3: usize) -> Ip {
        let mut ip = Ip { ttl: 64, tos: inner.tos, fragment: DONT, id: 0, ..Ip::new(local, target) };
        if self.v6 {
            ip.label = u32::from_be_bytes(out[l3..l3 + 4].try_into().unwrap()) & 0xf_ffff;
        } else if inner.fragment & DONT == 0 {
            // Which may be cut needs an id.
            (ip.fragment, ip.id) = (0, u16_at(out, l3 + 4));
            assert_ne!(ip.id, 0);
        }
        ip
    }
}

/// The client's port in every fixture.
pub const CLIENT_PORT: u16 = 4000;

/// Makes the payload for addresses and ports: a segment has the sum of its own.
pub type Inside<'a> = &'a dyn Fn(&Ip, (u16, u16)) -> Vec<u8>;

/// A client's packet: its parts.
pub struct Came<'a> {
    pub tags: &'a [u16],
    pub ip: Ip,
    pub protocol: u8,
    /// A later fragment: it has no ports.
    pub fragment: bool,
    pub inside: Inside<'a>,
}

impl Came<'_> {
    pub fn frame(&self, port: u16) -> Vec<u8> {
        self.ip.frame(self.tags, self.protocol, &(self.inside)(&self.ip, (CLIENT_PORT, port)))
    }
}

fn framed(tags: &[u16], v6: bool, packet: &[u8]) -> Vec<u8> {
    ethernet(tags, if v6 { 0x86dd } else { 0x0800 }, packet)
}

/// A frame that goes on by one of the links.
pub fn to_link(mut frame: Vec<u8>, other: bool) -> Vec<u8> {
    let [to, from] = if other { OTHER_LINK_MACS } else { LINK_MACS };
    frame[..6].copy_from_slice(&to.to_be_bytes()[2..]);
    frame[6..12].copy_from_slice(&from.to_be_bytes()[2..]);
    frame
}

/// A frame that goes back where it came from.
pub fn back(mut frame: Vec<u8>) -> Vec<u8> {
    let (to, from) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A service for every case, port and protocol.
pub fn services() -> Config {
    let mut text = String::new();
    for case in cases() {
        for port in [PLAIN, OTHER_LINK, NARROW, NO_NEIGHBOUR, NO_ROUTE, DOWN, QUIC] {
            let protocols: &[&str] = match port {
                QUIC => &["udp"],
                PLAIN | OTHER_LINK => &["tcp", "udp"],
                _ => &["tcp"],
            };
            for protocol in protocols {
                let Case { mode, v6 } = case;
                let bind = SocketAddr::new(case.vip(), port);
                let addr =
                    |of: u16| SocketAddr::new(case.target(of), if mode == "nat" { BEHIND } else { port });
                text += &format!("[service.{mode}{}{protocol}{port}]\nbind = \"{bind}\"\n", u8::from(v6));
                text += &format!("protocol = \"{protocol}\"\nforward = \"{mode}\"\n");
                text += &if port == QUIC {
                    let (first, second) = (addr(PLAIN), addr(OTHER_LINK));
                    format!(
                        "quic = true\nto = [{{ addr = \"{first}\", weight = 1000 }}, \
                         {{ addr = \"{second}\", server_id = {SERVER} }}]\n"
                    )
                } else {
                    format!("to = \"{}\"\n", addr(port))
                };
            }
        }
    }
    config::parse(&text, std::path::Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Of a service's target.
pub fn state(service: &str, _: SocketAddr) -> TargetState {
    if service.ends_with(&format!("p{DOWN}")) { TargetState::Down } else { TargetState::Up }
}

pub fn tcp(flags: u8, data: &[u8]) -> impl Fn(&Ip, (u16, u16)) -> Vec<u8> + '_ {
    move |ip, ports| ip.segment(TCP, ports, flags, data)
}

pub fn udp(data: &[u8]) -> impl Fn(&Ip, (u16, u16)) -> Vec<u8> + '_ {
    move |ip, ports| ip.segment(UDP, ports, 0, data)
}
