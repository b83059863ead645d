//! A frame's headers, a line each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_common::{
    packet::{ICMP, ICMPV6, Packet as _, TCP, UDP},
    service::GUE_PORT,
};

/// The headers of a frame, as far as it goes.
pub fn headers(frame: &Vec<u8>) -> Vec<String> {
    let mut lines = Vec::new();
    if frame.len() >= 14 {
        lines.push(format!("ethernet {} > {}", mac(&frame[6..12]), mac(&frame[..6])));
    }
    let mut at = 12;
    while let (Some(0x8100 | 0x88a8 | 0x9100), Some(tag)) = (frame.u16(at), frame.u16(at + 2)) {
        lines.push(format!("vlan {}", tag & 0xfff));
        at += 4;
    }
    match frame.u16(at) {
        Some(0x0800 | 0x86dd) => ip(frame, at + 2, &mut lines),
        Some(kind) => lines.push(format!("type {kind:#06x}")),
        None => {}
    }
    lines
}

pub fn mac(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// A packet, and the one that may be in it.
fn ip(frame: &Vec<u8>, mut at: usize, lines: &mut Vec<String>) {
    // A frame has room for no more.
    for _ in 0..4 {
        let Some((line, protocol, next)) = ip_header(frame, at) else { return };
        lines.push(line);
        at = match protocol {
            4 | 41 => next,
            UDP if frame.u16(next + 2) == Some(GUE_PORT) && frame.u8(next + 8).is_some() => {
                transport(frame, UDP, next, lines);
                next + 8
            }
            _ => return transport(frame, protocol, next, lines),
        };
    }
}

/// A line, the protocol inside and where that begins.
fn ip_header(frame: &Vec<u8>, at: usize) -> Option<(String, u8, usize)> {
    let first = frame.u8(at)?;
    if first >> 4 == 4 {
        let address = |at| Some(IpAddr::from(Ipv4Addr::from(frame.u32(at)?)));
        let (source, destination) = (address(at + 12)?, address(at + 16)?);
        let (length, ttl, protocol) = (frame.u16(at + 2)?, frame.u8(at + 8)?, frame.u8(at + 9)?);
        let fragment = frame.u16(at + 6)?;
        let mut line = format!("ipv4 {source} > {destination} ttl {ttl} length {length}");
        if fragment & 0x3fff != 0 {
            line += &format!(" fragment at {}", (fragment & 0x1fff) * 8);
        }
        // What is in later fragments has no header.
        let protocol = if fragment & 0x1fff == 0 { protocol } else { u8::MAX };
        Some((line, protocol, at + usize::from(first & 0xf) * 4))
    } else {
        let address =
            |at| Some(Ipv6Addr::from(u128::from(frame.u64(at)?) << 64 | u128::from(frame.u64(at + 8)?)));
        let (source, destination) = (address(at + 8)?, address(at + 24)?);
        let (length, next, ttl) = (frame.u16(at + 4)?, frame.u8(at + 6)?, frame.u8(at + 7)?);
        let line = format!("ipv6 {source} > {destination} hops {ttl} length {}", u32::from(length) + 40);
        Some((line, next, at + 40))
    }
}

fn transport(frame: &Vec<u8>, protocol: u8, at: usize, lines: &mut Vec<String>) {
    let (Some(from), Some(to)) = (frame.u16(at), frame.u16(at + 2)) else { return };
    lines.push(match protocol {
        TCP => {
            let names = ["fin", "syn", "rst", "psh", "ack", "urg"];
            let bits = frame.u8(at + 13).unwrap_or(0);
            let set = names.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
            format!("tcp {from} > {to} {}", set.map(|(_, name)| *name).collect::<Vec<_>>().join(" "))
        }
        UDP => format!("udp {from} > {to}"),
        ICMP | ICMPV6 => format!("icmp type {} code {}", from >> 8, from & 0xff),
        u8::MAX => return,
        other => format!("protocol {other}"),
    });
}
