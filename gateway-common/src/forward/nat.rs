//! Full NAT: towards a target the packet is ours, towards the client it is the virtual address's.

use super::{Outcome, Tables, choose, leave, no_way, rewrite::Head};
use crate::{
    checksum::Delta,
    flow::{self, Flow, Place},
    packet::{PacketMut, Parsed, TCP, UDP, bit},
    service::{NAT_PORTS, Target, Vip, mode},
    source::Address,
    verdict::Reason,
};

/// Addresses and ports that a packet gets in place of those it has.
pub struct Endpoints {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
}

#[inline(always)]
pub fn to_target<P: PacketMut>(packet: &mut P, parsed: &Parsed, target: &Target, port: u16, head: &Head) {
    let endpoints = Endpoints {
        source: target.local,
        destination: target.address,
        source_port: port,
        destination_port: target.port,
    };
    translate(packet, parsed, &endpoints, head);
}

/// Gives a packet other endpoints and one hop less to live, checksums included.
#[inline(always)]
fn translate<P: PacketMut>(packet: &mut P, parsed: &Parsed, new: &Endpoints, head: &Head) {
    let l3 = usize::from(parsed.l3);
    let delta = addresses(parsed, new);
    if parsed.is_v4() {
        packet.set_u64(l3 + 8, head.second_after(delta, new.source.lo as u32));
        packet.set_u32(l3 + 16, new.destination.lo as u32);
    } else {
        packet.set_u8(l3 + 7, head.ttl() - 1);
        let words = [new.source.hi, new.source.lo, new.destination.hi, new.destination.lo];
        packet.set_words(l3 + 8, words);
    }
    if parsed.bits & bit::PORTS != 0 {
        let delta =
            delta.u16(parsed.source_port, new.source_port).u16(parsed.destination_port, new.destination_port);
        ports(packet, parsed, new, delta);
    }
}

/// The difference that other addresses make.
#[inline(always)]
fn addresses(parsed: &Parsed, new: &Endpoints) -> Delta {
    if parsed.is_v4() {
        return Delta::NONE
            .u32(parsed.source.lo as u32, new.source.lo as u32)
            .u32(parsed.destination.lo as u32, new.destination.lo as u32);
    }
    Delta::NONE
        .u64(parsed.source.hi, new.source.hi)
        .u64(parsed.source.lo, new.source.lo)
        .u64(parsed.destination.hi, new.destination.hi)
        .u64(parsed.destination.lo, new.destination.lo)
}

#[inline(always)]
fn ports<P: PacketMut>(packet: &mut P, parsed: &Parsed, new: &Endpoints, delta: Delta) {
    let l4 = usize::from(parsed.l4);
    packet.set_u32(l4, u32::from(new.source_port) << 16 | u32::from(new.destination_port));
    let at = if parsed.protocol == TCP { l4 + 16 } else { l4 + 6 };
    let Some(sum) = packet.u16(at) else { return };
    // RFC 768: zero is "no checksum", a sum of zero is sent as its twin.
    if parsed.protocol == UDP && sum == 0 {
        return;
    }
    let sum = delta.apply(sum);
    packet.set_u16(at, if parsed.protocol == UDP && sum == 0 { 0xffff } else { sum });
}

/// A client's end of a connection, as the way back remembers it.
pub struct Client<'a> {
    pub address: Address,
    pub port: u16,
    pub vip: &'a Vip,
}

/// Whose connection it is that a target knows by a port of ours.
#[inline(always)]
pub fn client<'a, T: Tables>(
    tables: &'a T,
    target: (Address, u16),
    local: (Address, u16),
    protocol: u8,
) -> Option<(Place, Flow, Client<'a>)> {
    at_key(tables, reply_key(tables, target, local, protocol)?)
}

#[inline(always)]
fn reply_key<T: Tables>(
    tables: &T,
    target: (Address, u16),
    local: (Address, u16),
    protocol: u8,
) -> Option<u64> {
    if !NAT_PORTS.contains(&local.1) {
        return None;
    }
    Some(flow::reply_key(tables.seed(), target.0, target.1, local.0, local.1, protocol))
}

#[inline(always)]
fn at_key<'a, T: Tables>(tables: &'a T, key: u64) -> Option<(Place, Flow, Client<'a>)> {
    let place = flow::find::<_, 4>(tables.replies(), key)?;
    let address = Address {
        hi: flow::load::<_, 4>(tables.replies(), place, 1),
        lo: flow::load::<_, 4>(tables.replies(), place, 2),
    };
    let flow = Flow(flow::load::<_, 4>(tables.replies(), place, 3));
    // Given away meanwhile: what was read may be half another's.
    if flow::load::<_, 4>(tables.replies(), place, 0) != key {
        return None;
    }
    let vip = tables.vip(flow.target())?;
    Some((place, flow, Client { address, port: flow.port(), vip }))
}

/// A target's reply: from the virtual address to the client.
#[inline(always)]
pub fn reply<P: PacketMut, T: Tables>(packet: &mut P, tables: &T, parsed: &Parsed) -> Option<Outcome> {
    let key = if parsed.bits & bit::PORTS != 0 {
        let local = (parsed.destination, parsed.destination_port);
        reply_key(tables, (parsed.source, parsed.source_port), local, parsed.protocol)?
    } else if parsed.bits & bit::LATER_FRAGMENT != 0 {
        choose::fragment_key(tables, parsed)
    } else {
        return None;
    };
    let (place, flow, client) = at_key(tables, key)?;
    let second = tables.second();
    let seen = flow.seen(second, choose::state_of(parsed));
    if seen != flow {
        flow::replace(tables.replies(), place, 3, flow.0, seen.0);
    }
    if parsed.bits & (bit::FRAGMENT | bit::PORTS) == bit::FRAGMENT | bit::PORTS {
        let key = choose::fragment_key(tables, parsed);
        let fragment = Flow::new(flow.target(), flow.port(), second, flow::state::CLOSING);
        let values = [client.address.hi, client.address.lo, fragment.0];
        flow::put::<_, 4, 3>(tables.replies(), key, values, second);
    }
    Some(to_client(packet, tables, parsed, &client))
}

#[inline(always)]
fn to_client<P: PacketMut, T: Tables>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed,
    client: &Client<'_>,
) -> Outcome {
    let Some(head) = Head::of(packet, parsed) else { return Reason::NoRoom.into() };
    if head.ttl() <= 1 {
        return Reason::TtlExpired.into();
    }
    let hop = tables.next_hop(client.address);
    if let Some(reason) = no_way(&hop, mode::NAT) {
        return reason.into();
    }
    let too_big = parsed.length > hop.mtu;
    if too_big && head.may_not_be_cut() {
        return tables.too_big(packet, parsed, hop.mtu).into();
    }
    let endpoints = Endpoints {
        source: client.vip.address,
        destination: client.address,
        source_port: client.vip.port as u16,
        destination_port: client.port,
    };
    translate(packet, parsed, &endpoints, &head);
    if too_big { Reason::Unresolved.into() } else { leave(packet, &hop, Reason::Reply) }
}
