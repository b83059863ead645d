//! A packet in a packet: IPIP (RFC 2003, RFC 2473) and Generic UDP Encapsulation, variant 1, in which the inner
//! packet follows the UDP header at once (draft-ietf-intarea-gue). And back, for targets.

use super::{
    NextHop, found,
    rewrite::{self, Head},
};
use crate::{
    checksum, hash,
    packet::{PacketMut, Parsed, UDP, bit},
    service::{GUE_PORT, Target, mode},
};

const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const UDP_HEADER: u32 = 8;

/// Bytes that a mode adds to a packet.
#[inline(always)]
pub const fn overhead(forward: u8, v4: bool) -> u32 {
    let ip = if v4 { 20 } else { 40 };
    match forward {
        mode::IPIP => ip,
        mode::GUE => ip + UDP_HEADER,
        _ => 0,
    }
}

/// A packet around another.
pub struct Outer<'a> {
    pub target: &'a Target,
    pub hop: &'a NextHop,
    pub gue: bool,
    /// For GUE's source port.
    pub entropy: u16,
}

/// Puts the packet, whose time to live is one less already, into another. False: there was no room.
#[inline(always)]
pub fn wrap<P: PacketMut>(packet: &mut P, parsed: &Parsed, head: &Head, outer: &Outer<'_>) -> bool {
    let target = outer.target;
    let v4 = target.is_v4();
    let udp = if outer.gue { UDP_HEADER } else { 0 };
    let ip = if v4 { 20 } else { 40 };
    let l3 = usize::from(parsed.l3);
    let mut macs = (outer.hop.target_mac, outer.hop.source_mac);
    if outer.hop.found != found::HOP {
        // For the stack, which takes it as it came.
        let (Some(high), Some(low)) = (packet.u64(0), packet.u32(8)) else { return false };
        macs = (high >> 16, (high & 0xffff) << 32 | u64::from(low));
    }
    let tags = if l3 == 14 { 0 } else { packet.u64(12).unwrap_or(0) };
    if !packet.grow(ip + udp as usize) {
        return false;
    }
    let inner_v4 = parsed.is_v4();
    let next = if outer.gue { UDP } else { protocol(inner_v4) };
    // Bytes after the outer IP header.
    let payload = parsed.length + udp;
    if v4 {
        let words = ipv4(parsed, head, payload, next, target);
        if l3 == 14 {
            around(packet, macs, words, target);
        } else {
            rewrite::set_macs(packet, macs.0, macs.1);
            tags_and_type(packet, l3, tags, v4);
            packet.set_words(l3, words);
            packet.set_u32(l3 + 16, target.address.lo as u32);
        }
    } else {
        rewrite::set_macs(packet, macs.0, macs.1);
        tags_and_type(packet, l3, tags, v4);
        // Traffic class of the inner packet; a flow label of its connection (RFC 6438).
        let class = if inner_v4 { (head.first >> 48) as u8 } else { (head.first >> 52) as u8 };
        let label = label(parsed) & 0xf_ffff;
        let first = 6 << 28 | u32::from(class) << 20 | label;
        let first = u64::from(first) << 32 | u64::from(payload as u16) << 16 | u64::from(next) << 8 | 64;
        let (source, destination) = (target.local, target.address);
        packet.set_words(l3, [first, source.hi, source.lo, destination.hi, destination.lo]);
    }
    if outer.gue {
        // The source port spreads connections over queues and paths (RFC 7510); no checksum (RFC 6935).
        let source = 0xc000 | (label(parsed) as u16 ^ outer.entropy) & 0x3fff;
        let ports = u32::from(source) << 16 | u32::from(GUE_PORT);
        packet.set_u64(l3 + ip, u64::from(ports) << 32 | u64::from(payload as u16) << 16);
    }
    true
}

/// The outer packet's first 16 bytes.
#[inline(always)]
fn ipv4(parsed: &Parsed, head: &Head, payload: u32, next: u8, target: &Target) -> [u64; 2] {
    // The packet's own type of service and "don't fragment" (RFC 2003 section 3.1, RFC 6040 section 4.1).
    let inner_v4 = parsed.is_v4();
    let tos = if inner_v4 { (head.first >> 48) as u8 } else { (head.first >> 52) as u8 };
    let dont = if inner_v4 { head.first as u16 & 0x4000 } else { 0x4000 };
    // What is not fragmented needs no id (RFC 6864); else neighbouring packets should have different ones.
    let id = if dont == 0 { hash::mix(head.first ^ u64::from(parsed.fragment)) as u16 } else { 0 };
    outer_ipv4(tos, (payload + 20) as u16, (id, dont), next, target)
}

/// The first 16 bytes of an IPv4 header to a target.
#[inline(always)]
pub fn outer_ipv4(tos: u8, length: u16, (id, dont): (u16, u16), next: u8, target: &Target) -> [u64; 2] {
    let words = 0x4500 | u64::from(tos);
    let first = words << 48 | u64::from(length) << 32 | u64::from(id) << 16 | u64::from(dont);
    let ttl = 64 << 8 | u64::from(next);
    let (source, destination) = (target.local.lo as u32, target.address.lo as u32);
    let sum = (first >> 32) + (first & 0xffff_ffff) + ttl + u64::from(source) + u64::from(destination);
    [first, ttl << 48 | u64::from(!checksum::fold(sum)) << 32 | u64::from(source)]
}

/// Ethernet and IPv4 headers in one go: most packets have no VLAN tag.
#[inline(always)]
fn around<P: PacketMut>(packet: &mut P, macs: (u64, u64), [first, second]: [u64; 2], target: &Target) {
    let destination = target.address.lo & 0xffff_ffff;
    let words = [
        macs.0 << 16 | (macs.1 >> 32 & 0xffff),
        macs.1 << 32 | 0x0800_0000 | first >> 48,
        first << 16 | second >> 48,
        second << 16 | destination >> 16,
    ];
    packet.set_words(0, words);
    packet.set_u16(32, destination as u16);
}

#[inline(always)]
const fn protocol(v4: bool) -> u8 {
    if v4 { IPV4_IN_IP } else { IPV6_IN_IP }
}

/// Something that all packets of a connection have in common.
#[inline(always)]
fn label(parsed: &Parsed) -> u32 {
    let ports = u32::from(parsed.source_port) << 16 | u32::from(parsed.destination_port);
    hash::mix(parsed.source.lo ^ parsed.source.hi ^ u64::from(ports) << 32) as u32
}

/// The frame's VLAN tags, where they were, and the outer packet's type.
#[inline(always)]
pub fn tags_and_type<P: PacketMut>(packet: &mut P, l3: usize, tags: u64, v4: bool) {
    let kind = if v4 { 0x0800 } else { 0x86dd };
    if l3 == 14 {
        packet.set_u16(12, kind);
    } else if l3 == 18 {
        packet.set_u32(12, (tags >> 32) as u32);
        packet.set_u16(16, kind);
    } else {
        packet.set_u64(12, tags);
        packet.set_u16(20, kind);
    }
}

/// Takes a packet out of the one around it; false: there is none in it.
#[inline(always)]
pub fn unwrap<P: PacketMut>(packet: &mut P, parsed: &Parsed) -> bool {
    if parsed.bits & bit::FRAGMENT != 0 {
        return false;
    }
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let gue = parsed.protocol == UDP && parsed.destination_port == GUE_PORT;
    if !gue && parsed.protocol != IPV4_IN_IP && parsed.protocol != IPV6_IN_IP {
        return false;
    }
    let outer = packet.forget(l4 - l3) + if gue { UDP_HEADER as usize } else { 0 };
    let Some(first) = packet.u8(l3 + outer) else { return false };
    let v4 = first >> 4 == 4;
    // What IPIP calls it and what it is must agree; in GUE's first byte 01 in front is variant 1, the packet itself.
    let agrees = gue || v4 == (parsed.protocol == IPV4_IN_IP);
    if !(v4 || first >> 4 == 6) || !agrees || outer > 128 {
        return false;
    }
    let tags = packet.u64(12).unwrap_or(0);
    let (Some(high), Some(low)) = (packet.u64(0), packet.u32(8)) else { return false };
    if !packet.shrink(outer) {
        return false;
    }
    rewrite::set_macs(packet, high >> 16, (high & 0xffff) << 32 | u64::from(low));
    tags_and_type(packet, l3, tags, v4);
    true
}
