//! L4 services: which target a packet goes to, and what is done to it on the way there and back.
//!
//! Written against [`Tables`] and [`PacketMut`], so that the very same code runs on the host, where it is tested, and in
//! XDP. It decides by tables that userspace wrote and keeps no policy of its own.

mod choose;
mod encap;
mod icmp;
mod nat;
mod quic;
mod rewrite;

use crate::{
    flow::{Flow, Table},
    packet::{ICMP, ICMPV6, PacketMut, Parsed, bit},
    service::{Service, ServiceKey, Target, Vip, mode},
    source::Address,
    verdict::Reason,
};

pub use choose::{claim_port, slot_of};
pub use encap::unwrap;
pub use icmp::{
    Related, related as icmp_kind, to_client as icmp_to_client, to_target as icmp_to_target, too_big,
};
pub use rewrite::swap_macs;

use rewrite::Head;

/// Everything that forwarding looks up.
pub trait Tables {
    type Flows: Table;
    type Replies: Table;

    /// For the keys of connections; random, the same for as long as the tables live.
    fn seed(&self) -> u64;
    /// The time in seconds of 2^30 nanoseconds.
    fn second(&self) -> u64;
    /// Connections: a key and a [`Flow`].
    fn flows(&self) -> &Self::Flows;
    /// Replies of NAT: a key, the client's address in two words, and a [`Flow`] of virtual address and client's port.
    fn replies(&self) -> &Self::Replies;
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    fn vip(&self, index: u16) -> Option<&Vip>;
    /// What a Maglev table says; zero: there is no target.
    fn slot(&self, ring: u32, slot: u32) -> u16;
    /// The target with this server id.
    fn server(&self, service: u16, id: u16) -> Option<u16>;
    fn target(&self, index: u16) -> Option<&Target>;
    /// Counts a packet, or a connection, of a target.
    fn count(&self, target: u16, bytes: u32, connection: bool);
    fn next_hop(&self, destination: Address) -> NextHop;
    /// Likewise, of a target and without asking anybody: [`found::NOTHING`] if it is not remembered.
    fn known_hop(&self, target: &Target) -> NextHop;
    /// [`claim_port`] on these tables. Kernel programs have it apart, for the verifier's sake.
    fn claim_port(&self, parsed: &Parsed, target: u16, vip: u16, port: u16) -> bool;
    /// [`too_big`], likewise.
    fn too_big<P: PacketMut>(&self, packet: &mut P, parsed: &Parsed, mtu: u32) -> Reason;
}

/// Where to send a packet next. A plain structure: the compiler leaves the payload of an enum's other variants
/// unwritten and moves it about, which the verifier does not let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextHop {
    /// One of [`found`]. The rest is zero without [`found::HOP`].
    pub found: u32,
    pub ifindex: u32,
    pub mtu: u32,
    /// In the lower 48 bits.
    pub target_mac: u64,
    pub source_mac: u64,
}

impl NextHop {
    #[inline(always)]
    pub const fn without(found: u32) -> Self {
        Self { found, ifindex: 0, mtu: u32::MAX, target_mac: 0, source_mac: 0 }
    }
}

/// What a look for a next hop found.
pub mod found {
    pub const HOP: u32 = 0;
    /// A route, but the neighbour's MAC address is not known.
    pub const ROUTE: u32 = 1;
    pub const NOTHING: u32 = 2;
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub reason: Reason,
    /// Where a forwarded packet leaves.
    pub ifindex: u32,
}

impl From<Reason> for Outcome {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self { reason, ifindex: 0 }
    }
}

/// Sends a client's packet to a target of its service.
pub fn to_target<P: PacketMut, T: Tables>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed,
    service: &Service,
) -> Outcome {
    if let Some(outcome) = quick(packet, tables, parsed, service) {
        return outcome;
    }
    match choose(packet, tables, parsed, service) {
        Ok(choice) => send(packet, tables, parsed, service.mode, choice),
        Err(reason) => reason.into(),
    }
}

/// A target and how the connection got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The target's index.
    pub target: u16,
    /// Ours towards the target (NAT).
    pub port: u16,
    /// Whether the connection is remembered, where it should be.
    pub pinned: bool,
}

impl Choice {
    /// Of packets that go to no target.
    pub const NONE: Self = Self { target: 0, port: 0, pinned: false };
}

/// The target of a client's packet.
#[inline(always)]
pub fn choose<P: PacketMut, T: Tables>(
    packet: &P,
    tables: &T,
    parsed: &Parsed,
    service: &Service,
) -> Result<Choice, Reason> {
    choose::target(packet, tables, parsed, service)
}

/// Sends a client's packet to the target that was chosen.
#[inline(always)]
pub fn send<P: PacketMut, T: Tables>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed,
    forward: u8,
    choice: Choice,
) -> Outcome {
    if forward == mode::ECHO {
        return icmp::echo(packet, parsed).into();
    }
    let Some(target) = tables.target(choice.target) else { return Reason::NoTarget.into() };
    if rewrite::ttl(packet, parsed) <= 1 {
        return Reason::TtlExpired.into();
    }
    let hop = tables.next_hop(target.address);
    if let Some(reason) = no_way(&hop, forward) {
        return reason.into();
    }
    let Some(head) = Head::of(packet, parsed) else { return Reason::NoRoom.into() };
    let room = hop.mtu - encap::overhead(forward, target.is_v4());
    let too_big = parsed.length > room;
    if too_big && (head.may_not_be_cut() || forward == mode::DSR) {
        return tables.too_big(packet, parsed, room).into();
    }
    // The stack cuts it, and sends it on.
    let hop = if too_big { NextHop { found: found::ROUTE, ..hop } } else { hop };
    carry(packet, tables, parsed, forward, choice, target, &head, &hop)
}

/// [`choose`] and [`send`] for most packets: those of connections that are known, or need not be, to a next hop that is
/// known. `None`: nothing was done, they have to go the long way.
#[inline(always)]
pub fn quick<P: PacketMut, T: Tables>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed,
    service: &Service,
) -> Option<Outcome> {
    let (choice, target) = choose::quick(tables, parsed, service)?;
    let hop = tables.known_hop(target);
    let head = Head::of(packet, parsed)?;
    let room = hop.mtu - encap::overhead(service.mode, target.is_v4());
    if hop.found != found::HOP || head.ttl() <= 1 || parsed.length > room {
        return None;
    }
    Some(carry(packet, tables, parsed, service.mode, choice, target, &head, &hop))
}

/// Rewrites a packet and sends it on.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "inlined: a structure of them would cost stack that there is not"
)]
fn carry<P: PacketMut, T: Tables>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed,
    forward: u8,
    choice: Choice,
    target: &Target,
    head: &Head,
    hop: &NextHop,
) -> Outcome {
    tables.count(choice.target, u32::from(parsed.l3) + parsed.length, false);
    match forward {
        mode::NAT => nat::to_target(packet, parsed, target, choice.port, head),
        mode::DSR => rewrite::decrement_ttl(packet, parsed, head),
        _ => {
            rewrite::decrement_ttl(packet, parsed, head);
            let outer = encap::Outer { target, hop, gue: forward == mode::GUE, entropy: choice.target };
            if !encap::wrap(packet, parsed, head, &outer) {
                return Reason::NoRoom.into();
            }
        }
    }
    let reason = if choice.pinned { Reason::Service } else { Reason::ServiceUnpinned };
    match forward {
        mode::NAT | mode::DSR => leave(packet, hop, reason),
        // The MAC addresses are written.
        _ if hop.found == found::HOP => Outcome { reason, ifindex: hop.ifindex },
        _ => Reason::Unresolved.into(),
    }
}

/// Why a packet cannot go on, if it cannot. The kernel resolves neighbours of packets that are passed to it, but one
/// that still has the virtual address it would take for its own.
#[inline(always)]
fn no_way(hop: &NextHop, forward: u8) -> Option<Reason> {
    if hop.found == found::NOTHING {
        Some(Reason::NoRoute)
    } else if hop.found == found::ROUTE && forward == mode::DSR {
        Some(Reason::NoNeighbour)
    } else {
        None
    }
}

/// Writes the MAC addresses of the next hop.
#[inline(always)]
fn leave<P: PacketMut>(packet: &mut P, hop: &NextHop, reason: Reason) -> Outcome {
    if hop.found != found::HOP {
        return Reason::Unresolved.into();
    }
    rewrite::set_macs(packet, hop.target_mac, hop.source_mac);
    Outcome { reason, ifindex: hop.ifindex }
}

/// Packets that are of a service without being sent to its port: replies of targets, errors, later fragments. `None`:
/// it is none of these.
pub fn related<P: PacketMut, T: Tables>(packet: &mut P, tables: &T, parsed: &Parsed) -> Option<Outcome> {
    match kind(parsed) {
        Kind::Icmp => icmp(packet, tables, parsed),
        Kind::LaterFragment => match fragment(tables, parsed) {
            Some((forward, choice)) => Some(send(packet, tables, parsed, forward, choice)),
            None => reply(packet, tables, parsed),
        },
        Kind::Ports => reply(packet, tables, parsed),
    }
}

/// What a packet without a service may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A reply of a target.
    Ports,
    /// Of a client's packet or a target's.
    LaterFragment,
    /// A ping or an error.
    Icmp,
}

#[inline(always)]
pub fn kind(parsed: &Parsed) -> Kind {
    if parsed.bits & bit::LATER_FRAGMENT != 0 {
        Kind::LaterFragment
    } else if parsed.protocol == ICMP || parsed.protocol == ICMPV6 {
        Kind::Icmp
    } else {
        Kind::Ports
    }
}

/// A ping of a virtual address, or an error about a connection's packet.
pub fn icmp<P: PacketMut, T: Tables>(packet: &mut P, tables: &T, parsed: &Parsed) -> Option<Outcome> {
    match icmp_kind(packet, tables, parsed)? {
        Related::Echo => Some(send(packet, tables, parsed, mode::ECHO, Choice::NONE)),
        Related::OfTarget(forward, choice) => Some(icmp_to_target(packet, tables, parsed, forward, choice)),
        Related::OfClient => icmp_to_client(packet, tables, parsed),
    }
}

/// How and where the first fragment of a client's packet went, for those after it.
#[inline(always)]
pub fn fragment<T: Tables>(tables: &T, parsed: &Parsed) -> Option<(u8, Choice)> {
    let key = choose::fragment_key(tables, parsed);
    let place = crate::flow::find::<_, 2>(tables.flows(), key)?;
    let flow = Flow(crate::flow::load::<_, 2>(tables.flows(), place, 1));
    if flow.is_over(tables.second()) {
        return None;
    }
    let choice = Choice { target: flow.target(), port: flow.port(), pinned: true };
    // The mode stands beside the state, which does not change.
    Some((flow.state() >> 4, choice))
}

/// A target's packet, back to the client: whole, or a fragment.
#[inline(always)]
pub fn reply<P: PacketMut, T: Tables>(packet: &mut P, tables: &T, parsed: &Parsed) -> Option<Outcome> {
    nat::reply(packet, tables, parsed)
}

#[cfg(test)]
mod tests;
