//! ICMP of virtual addresses: pings are answered, errors follow the packet that they are about, and who sends packets
//! that are too big is told.

use super::{Choice, Outcome, Tables, choose, encap, leave, nat, no_way, rewrite, rewrite::Head};
use crate::{
    checksum::{Delta, fold},
    flow::{self, Flow},
    packet::{ICMP, ICMPV6, PacketMut, Parsed, TCP, UDP, bit},
    service::{Service, ServiceKey, Target, mode, option},
    source::Address,
    verdict::Reason,
};

/// What an ICMP packet is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Related {
    /// A ping of a virtual address.
    Echo,
    /// An error about a packet of this target's, which is forwarded so.
    OfTarget(u8, Choice),
    /// An error about a packet that we sent to a target.
    OfClient,
}

/// Whose an ICMP packet is; `None`: not ours.
#[inline(always)]
pub fn related<P: PacketMut, T: Tables>(packet: &P, tables: &T, parsed: &Parsed) -> Option<Related> {
    let kind = packet.u8(usize::from(parsed.l4))?;
    let v4 = parsed.is_v4();
    if is_echo(kind, v4) {
        let key = ServiceKey::new(parsed.destination, 0, parsed.protocol);
        return tables.service(&key).map(|_| Related::Echo);
    }
    if !is_error(kind, v4) || parsed.bits & bit::FRAGMENT != 0 {
        return None;
    }
    let quoted = quoted(packet, parsed)?;
    let key = ServiceKey::new(quoted.source, quoted.source_port, quoted.protocol);
    let Some(service) = tables.service(&key) else {
        return Some(Related::OfClient);
    };
    owner(tables, &quoted, &service).map(|choice| Related::OfTarget(service.mode, choice))
}

#[inline(always)]
const fn is_echo(kind: u8, v4: bool) -> bool {
    if v4 { kind == 8 } else { kind == 128 }
}

/// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 792, RFC 4443).
#[inline(always)]
const fn is_error(kind: u8, v4: bool) -> bool {
    if v4 { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) }
}

/// Answers a ping.
#[inline(always)]
pub fn echo<P: PacketMut>(packet: &mut P, parsed: &Parsed) -> Reason {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let v4 = parsed.is_v4();
    let (Some(kind), Some(sum)) = (packet.u8(l4), packet.u16(l4 + 2)) else { return Reason::Truncated };
    if !is_echo(kind, v4) || parsed.bits & bit::FRAGMENT != 0 {
        return Reason::NoTarget;
    }
    rewrite::swap_macs(packet);
    let answer = if v4 { 0 } else { 129 };
    packet.set_u8(l4, answer);
    // Addresses that change places leave every sum as it is.
    packet.set_u16(l4 + 2, Delta::NONE.u16(u16::from(kind) << 8, u16::from(answer) << 8).apply(sum));
    if v4 {
        packet.set_u32(l3 + 12, parsed.destination.lo as u32);
        packet.set_u32(l3 + 16, parsed.source.lo as u32);
        let (Some(ttl), Some(sum)) = (packet.u16(l3 + 8), packet.u16(l3 + 10)) else {
            return Reason::Truncated;
        };
        packet.set_u8(l3 + 8, 64);
        packet.set_u16(l3 + 10, Delta::NONE.u16(ttl, 64 << 8 | ttl & 0xff).apply(sum));
    } else {
        packet.set_u8(l3 + 7, 64);
        packet.set_u64(l3 + 8, parsed.destination.hi);
        packet.set_u64(l3 + 16, parsed.destination.lo);
        packet.set_u64(l3 + 24, parsed.source.hi);
        packet.set_u64(l3 + 32, parsed.source.lo);
    }
    Reason::Echo
}

/// The packet that an error is about, as far as the error quotes it.
struct Quoted {
    source: Address,
    destination: Address,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    /// Where its ports are.
    l4: usize,
    /// Where its IP header is.
    l3: usize,
}

/// Only of errors that come to whom the quoted packet was from, as they should.
#[inline(always)]
fn quoted<P: PacketMut>(packet: &P, parsed: &Parsed) -> Option<Quoted> {
    let (at, v4) = (usize::from(parsed.l4) + 8, parsed.is_v4());
    let (source, destination, protocol, l4) = if v4 {
        let head = packet.u32(at)?;
        let word = packet.u32(at + 4)?;
        let header = ((head >> 24) & 0xf) as usize * 4;
        if head >> 28 != 4 || header < 20 || word & 0x1fff != 0 {
            return None;
        }
        (
            Address::v4(packet.u32(at + 12)?),
            Address::v4(packet.u32(at + 16)?),
            packet.u8(at + 9)?,
            at + packet.forget(header),
        )
    } else {
        let source = Address { hi: packet.u64(at + 8)?, lo: packet.u64(at + 16)? };
        let destination = Address { hi: packet.u64(at + 24)?, lo: packet.u64(at + 32)? };
        (source, destination, packet.u8(at + 6)?, at + 40)
    };
    if (protocol != TCP && protocol != UDP) || source != parsed.destination {
        return None;
    }
    let ports = packet.u32(l4)?;
    let (source_port, destination_port) = ((ports >> 16) as u16, ports as u16);
    Some(Quoted { source, destination, source_port, destination_port, protocol, l4, l3: at })
}

/// Sends an error to the target that sent the quoted packet as the virtual address.
#[inline(always)]
pub fn to_target<P: PacketMut, T: Tables>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed,
    forward: u8,
    choice: Choice,
) -> Outcome {
    let Some(target) = tables.target(choice.target) else { return Reason::NoTarget.into() };
    let ttl = rewrite::ttl(packet, parsed);
    if ttl <= 1 {
        return Reason::TtlExpired.into();
    }
    let hop = tables.next_hop(target.address);
    if let Some(reason) = no_way(&hop, forward) {
        return reason.into();
    }
    if forward == mode::NAT {
        let Some(quoted) = quoted(packet, parsed) else { return Reason::Truncated.into() };
        let new = nat::Endpoints {
            source: target.address,
            destination: target.local,
            source_port: target.port,
            destination_port: choice.port,
        };
        translate(packet, parsed, &quoted, &new, (parsed.source, target.address), ttl);
    } else {
        let Some(head) = Head::of(packet, parsed) else { return Reason::NoRoom.into() };
        rewrite::decrement_ttl(packet, parsed, &head);
        let outer = encap::Outer { target, hop: &hop, gue: forward == mode::GUE, entropy: choice.target };
        if forward != mode::DSR && !encap::wrap(packet, parsed, &head, &outer) {
            return Reason::NoRoom.into();
        }
    }
    leave(packet, &hop, Reason::IcmpError)
}

/// The target that sent a packet as the virtual address, and our port towards it.
#[inline(always)]
fn owner<T: Tables>(tables: &T, quoted: &Quoted, service: &Service) -> Option<Choice> {
    let client = (quoted.destination, quoted.destination_port);
    if service.options & option::FLOWS != 0 {
        let key = flow::client_key(tables.seed(), client.0, client.1, service.vip);
        if let Some(place) = flow::find::<_, 2>(tables.flows(), key) {
            let flow = Flow(flow::load::<_, 2>(tables.flows(), place, 1));
            return Some(Choice { target: flow.target(), port: flow.port(), pinned: true });
        }
    }
    if service.mode == mode::NAT {
        return None;
    }
    let target = choose::by_hash(tables, service, client, (quoted.source, quoted.source_port));
    if target == 0 { None } else { Some(Choice { target, port: 0, pinned: true }) }
}

/// Sends an error to the client for whom we sent the quoted packet to a target (NAT). `None`: for nobody.
#[inline(always)]
pub fn to_client<P: PacketMut, T: Tables>(packet: &mut P, tables: &T, parsed: &Parsed) -> Option<Outcome> {
    let quoted = quoted(packet, parsed)?;
    let (_, _, client) = nat::client(
        tables,
        (quoted.destination, quoted.destination_port),
        (quoted.source, quoted.source_port),
        quoted.protocol,
    )?;
    let ttl = rewrite::ttl(packet, parsed);
    if ttl <= 1 {
        return Some(Reason::TtlExpired.into());
    }
    let hop = tables.next_hop(client.address);
    if let Some(reason) = no_way(&hop, mode::NAT) {
        return Some(reason.into());
    }
    let new = nat::Endpoints {
        source: client.address,
        destination: client.vip.address,
        source_port: client.port,
        destination_port: client.vip.port as u16,
    };
    translate(packet, parsed, &quoted, &new, (client.vip.address, client.address), ttl);
    Some(leave(packet, &hop, Reason::IcmpError))
}

/// Gives an error's own packet other addresses, and the packet that it quotes other endpoints.
#[inline(always)]
fn translate<P: PacketMut>(
    packet: &mut P,
    parsed: &Parsed,
    quoted: &Quoted,
    new: &nat::Endpoints,
    (source, destination): (Address, Address),
    ttl: u8,
) {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let mut inner = Delta::NONE
        .u16(quoted.source_port, new.source_port)
        .u16(quoted.destination_port, new.destination_port);
    let mut outer = Delta::NONE;
    packet.set_u32(quoted.l4, u32::from(new.source_port) << 16 | u32::from(new.destination_port));
    if parsed.is_v4() {
        let addresses = Delta::NONE
            .u32(quoted.source.lo as u32, new.source.lo as u32)
            .u32(quoted.destination.lo as u32, new.destination.lo as u32);
        packet.set_u32(quoted.l3 + 12, new.source.lo as u32);
        packet.set_u32(quoted.l3 + 16, new.destination.lo as u32);
        let sum = packet.u16(quoted.l3 + 10).unwrap_or(0);
        let fixed = addresses.apply(sum);
        packet.set_u16(quoted.l3 + 10, fixed);
        inner = inner
            .u16(sum, fixed)
            .u32(quoted.source.lo as u32, new.source.lo as u32)
            .u32(quoted.destination.lo as u32, new.destination.lo as u32);
        outer = outer
            .u32(parsed.source.lo as u32, source.lo as u32)
            .u32(parsed.destination.lo as u32, destination.lo as u32);
        packet.set_u32(l3 + 12, source.lo as u32);
        packet.set_u32(l3 + 16, destination.lo as u32);
        let sum = outer.apply(packet.u16(l3 + 10).unwrap_or(0));
        packet.set_u16(l3 + 10, rewrite::ttl_delta(ttl).apply(sum));
        packet.set_u8(l3 + 8, ttl - 1);
    } else {
        for (at, old, address) in [
            (quoted.l3 + 8, quoted.source, new.source),
            (quoted.l3 + 24, quoted.destination, new.destination),
        ] {
            packet.set_u64(at, address.hi);
            packet.set_u64(at + 8, address.lo);
            inner = inner.u64(old.hi, address.hi).u64(old.lo, address.lo);
        }
        for (at, old, address) in
            [(l3 + 8, parsed.source, source), (l3 + 24, parsed.destination, destination)]
        {
            packet.set_u64(at, address.hi);
            packet.set_u64(at + 8, address.lo);
            // ICMPv6 sums up the addresses too (RFC 4443 section 2.3).
            inner = inner.u64(old.hi, address.hi).u64(old.lo, address.lo);
        }
        packet.set_u8(l3 + 7, ttl - 1);
    }
    let sum = packet.u16(l4 + 2).unwrap_or(0);
    packet.set_u16(l4 + 2, inner.apply(sum));
}

/// Bytes of the packet's own payload that an error quotes: the ports and more.
const QUOTE: usize = 8;
/// Words of the longest header that is quoted.
const QUOTED_WORDS: usize = (60 + QUOTE) / 4;

/// Turns a packet into the error that says it is too big for `mtu`.
#[inline(always)]
pub fn too_big<P: PacketMut>(packet: &mut P, parsed: &Parsed, mtu: u32) -> Reason {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    // An IPv6 packet with many extension headers is not worth quoting.
    let quote = packet.forget(l4 - l3) + QUOTE;
    if quote > QUOTED_WORDS * 4 || parsed.bits & bit::LATER_FRAGMENT != 0 {
        return Reason::NoRoom;
    }
    let v4 = parsed.is_v4();
    let tags = packet.u64(12).unwrap_or(0);
    let (Some(high), Some(low)) = (packet.u64(0), packet.u32(8)) else { return Reason::NoRoom };
    let outer = if v4 { 28 } else { 48 };
    if !packet.truncate(l3 + quote) || !packet.grow(outer) {
        return Reason::NoRoom;
    }
    rewrite::set_macs(packet, (high & 0xffff) << 32 | u64::from(low), high >> 16);
    encap::tags_and_type(packet, l3, tags, v4);
    let mut sum = 0;
    let mut word = 0;
    while word < QUOTED_WORDS {
        if word * 4 >= quote {
            break;
        }
        sum += u64::from(packet.u32(l3 + outer + word * 4).unwrap_or(0));
        word += 1;
    }
    let (source, destination) = (parsed.destination, parsed.source);
    if v4 {
        let target = Target { address: destination, local: source, ..Target::default() };
        let words = encap::outer_ipv4(0, (quote + outer) as u16, (0, 0), ICMP, &target);
        packet.set_words(l3, words);
        packet.set_u32(l3 + 16, target.address.lo as u32);
        // RFC 1191 section 4: type 3, code 4, the MTU in the last 16 bits.
        let head = 3 << 8 | 4;
        packet
            .set_u32(l3 + 20, head << 16 | u32::from(!fold(sum + u64::from(head) + u64::from(mtu & 0xffff))));
        packet.set_u32(l3 + 24, mtu & 0xffff);
    } else {
        let length = (quote + 8) as u64;
        packet.set_u64(l3, 6 << 60 | length << 16 | u64::from(ICMPV6) << 8 | 64);
        packet.set_u64(l3 + 8, source.hi);
        packet.set_u64(l3 + 16, source.lo);
        packet.set_u64(l3 + 24, destination.hi);
        packet.set_u64(l3 + 32, destination.lo);
        for word in [source.hi, source.lo, destination.hi, destination.lo] {
            sum += (word >> 32) + (word & 0xffff_ffff);
        }
        // RFC 4443 section 3.2: type 2, code 0, the MTU in 32 bits.
        let head = 2 << 8;
        sum += length + u64::from(ICMPV6) + head + u64::from(mtu);
        packet.set_u64(l3 + 40, head << 48 | u64::from(!fold(sum)) << 32 | u64::from(mtu));
    }
    Reason::TooBig
}
