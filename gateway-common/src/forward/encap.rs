//! A packet in a packet: IPIP (RFC 2003, RFC 2473) and Generic UDP Encapsulation, variant 1, in which the inner
//! packet follows the UDP header at once (draft-ietf-intarea-gue). And back, for targets.

use super::rewrite;
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

/// Puts the packet, whose time to live is one less already, into another to `target`. False: there was no room.
#[inline(always)]
pub fn wrap<P: PacketMut>(packet: &mut P, parsed: &Parsed, target: &Target, gue: bool, entropy: u16) -> bool {
    let v4 = target.address.is_v4();
    let udp = if gue { UDP_HEADER } else { 0 };
    let ip = if v4 { 20 } else { 40 };
    let l3 = usize::from(parsed.l3);
    let Some(first) = packet.u64(l3) else { return false };
    let tags = packet.u64(12).unwrap_or(0);
    let (Some(high), Some(low)) = (packet.u64(0), packet.u32(8)) else { return false };
    if !packet.grow(ip + udp as usize) {
        return false;
    }
    // The stack takes what is left to it only if it is addressed to us.
    rewrite::set_macs(packet, high >> 16, (high & 0xffff) << 32 | u64::from(low));
    tags_and_type(packet, l3, tags, v4);
    let inner_v4 = parsed.source.is_v4();
    let next = if gue { UDP } else { protocol(inner_v4) };
    // Bytes after the outer IP header.
    let payload = parsed.length + udp;
    if v4 {
        // The packet's own type of service and "don't fragment" (RFC 2003 section 3.1, RFC 6040 section 4.1).
        let tos = (first >> 48) as u8;
        let dont = first as u16 & 0x4000;
        let length = (payload + 20) as u16;
        // What is not fragmented needs no id (RFC 6864); else neighbouring packets should have different ones.
        let id = if dont == 0 { hash::mix(first ^ parsed.fragment as u64) as u16 } else { 0 };
        ipv4(packet, l3, [0x4500 | u16::from(tos), length, id, dont], next, target);
    } else {
        // Traffic class of the inner packet; a flow label of its connection (RFC 6438).
        let class = if inner_v4 { (first >> 48) as u8 } else { (first >> 52) as u8 };
        let label = label(parsed) & 0xf_ffff;
        let head = 6 << 28 | u32::from(class) << 20 | label;
        packet
            .set_u64(l3, u64::from(head) << 32 | u64::from(payload as u16) << 16 | u64::from(next) << 8 | 64);
        packet.set_u64(l3 + 8, target.local.hi);
        packet.set_u64(l3 + 16, target.local.lo);
        packet.set_u64(l3 + 24, target.address.hi);
        packet.set_u64(l3 + 32, target.address.lo);
    }
    if gue {
        // The source port spreads connections over queues and paths (RFC 7510); no checksum (RFC 6935).
        let source = 0xc000 | (label(parsed) as u16 ^ entropy) & 0x3fff;
        let ports = u32::from(source) << 16 | u32::from(GUE_PORT);
        packet.set_u64(l3 + ip, u64::from(ports) << 32 | u64::from(payload as u16) << 16);
    }
    true
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

#[inline(always)]
pub fn ipv4<P: PacketMut>(packet: &mut P, l3: usize, words: [u16; 4], next: u8, target: &Target) {
    let [head, length, id, fragment] = words;
    let ttl = 64 << 8 | u16::from(next);
    let (source, destination) = (target.local.lo as u32, target.address.lo as u32);
    let sum = u64::from(head)
        + u64::from(length)
        + u64::from(id)
        + u64::from(fragment)
        + u64::from(ttl)
        + u64::from(source)
        + u64::from(destination);
    packet.set_u32(l3, u32::from(head) << 16 | u32::from(length));
    packet.set_u32(l3 + 4, u32::from(id) << 16 | u32::from(fragment));
    packet.set_u32(l3 + 8, u32::from(ttl) << 16 | u32::from(!checksum::fold(sum)));
    packet.set_u32(l3 + 12, source);
    packet.set_u32(l3 + 16, destination);
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
