//! The target of a packet: the one its connection has, or the one that the service's table says.

use super::{Choice, Tables, quic};
use crate::{
    flow::{self, Flow, Place, state},
    hash, maglev,
    packet::{Packet, Parsed, TCP, UDP, bit},
    service::{Service, Target, mode, option, target_state},
    source::Address,
    verdict::Reason,
};

/// The seed of the balancers of userspace: both halves choose alike, and so does every other gateway.
const SEED: u64 = 0;
/// Ports that are tried before a connection is refused: with nine in ten of them taken one of six is, with half of them
/// next to none.
const TRIES: u32 = 16;

#[inline(always)]
pub fn target<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    parsed: &Parsed,
    service: &Service,
) -> Result<Choice, Reason> {
    let key = flow::client_key(tables.seed(), parsed.source, parsed.source_port, service.vip);
    let known =
        if service.options & option::FLOWS != 0 { flow::find::<_, 2>(tables.flows(), key) } else { None };
    let choice = match known.and_then(|place| pinned(tables, parsed, service, key, place)) {
        Some(choice) => choice,
        None => fresh(packet, tables, parsed, service, key, known)?,
    };
    if parsed.bits & bit::FRAGMENT != 0 {
        remember_fragment(tables, parsed, service, choice);
    }
    Ok(choice)
}

/// The target of a packet, if it takes only looking: of a connection that is known, or need not be.
#[inline(always)]
pub fn quick<'a, T: Tables>(
    tables: &'a T,
    parsed: &Parsed,
    service: &Service,
) -> Option<(Choice, &'a Target)> {
    if parsed.bits & bit::FRAGMENT != 0 {
        return None;
    }
    if service.options & option::FLOWS == 0 {
        if service.options & option::QUIC != 0 {
            return None;
        }
        let client = (parsed.source, parsed.source_port);
        let index = by_hash(tables, service, client, (parsed.destination, parsed.destination_port));
        let target = tables.target(index)?;
        return usable(target).then_some((Choice { target: index, port: 0, pinned: true }, target));
    }
    let key = flow::client_key(tables.seed(), parsed.source, parsed.source_port, service.vip);
    let place = flow::find::<_, 2>(tables.flows(), key)?;
    let (flow, seen) = current(tables, parsed, place)?;
    let target = tables.target(flow.target())?;
    if !usable(target) {
        return None;
    }
    if seen != flow {
        // What NAT does then is longer: the way back has to know too.
        if service.mode == mode::NAT {
            return None;
        }
        flow::replace(tables.flows(), place, 1, flow.0, seen.0);
    }
    // An entry that was given away meanwhile has another key.
    if flow::load::<_, 2>(tables.flows(), place, 0) != key {
        return None;
    }
    Some((Choice { target: flow.target(), port: flow.port(), pinned: true }, target))
}

/// What is known of a connection, and what this packet makes of it; `None`: it is over.
#[inline(always)]
fn current<T: Tables>(tables: &T, parsed: &Parsed, place: Place) -> Option<(Flow, Flow)> {
    let second = tables.second();
    let flow = Flow(flow::load::<_, 2>(tables.flows(), place, 1));
    let again = flow.is_over(second) || (parsed.bits & bit::NEW != 0 && flow.state() & state::CLOSING != 0);
    if again { None } else { Some((flow, flow.seen(second, state_of(parsed)))) }
}

/// The target that the connection has, if it can stay there.
#[inline(always)]
fn pinned<T: Tables>(
    tables: &T,
    parsed: &Parsed,
    service: &Service,
    key: u64,
    place: Place,
) -> Option<Choice> {
    let (flow, seen) = current(tables, parsed, place)?;
    let target = tables.target(flow.target())?;
    if !usable(target) {
        return None;
    }
    if seen != flow {
        // The word moves once a second, and with the connection's state. Where another CPU was faster nothing is lost
        // that the next packet would not bring.
        flow::replace(tables.flows(), place, 1, flow.0, seen.0);
        if service.mode == mode::NAT && !keep_reply(tables, parsed, service, target, seen) {
            return None;
        }
    }
    // An entry that was given away meanwhile has another key.
    if flow::load::<_, 2>(tables.flows(), place, 0) != key {
        return None;
    }
    Some(Choice { target: flow.target(), port: flow.port(), pinned: true })
}

/// Whether a target keeps its connections.
#[inline(always)]
const fn usable(target: &Target) -> bool {
    matches!(target.state, target_state::UP | target_state::DRAINING)
}

/// Keeps the way back of a connection alive, whose replies may be rare.
#[inline(always)]
fn keep_reply<T: Tables>(
    tables: &T,
    parsed: &Parsed,
    service: &Service,
    target: &Target,
    seen: Flow,
) -> bool {
    let key = flow::reply_key(
        tables.seed(),
        target.address,
        target.port,
        target.local,
        seen.port(),
        parsed.protocol,
    );
    let Some(place) = flow::find::<_, 4>(tables.replies(), key) else { return false };
    let back = Flow(flow::load::<_, 4>(tables.replies(), place, 3));
    let ours = flow::load::<_, 4>(tables.replies(), place, 1) == parsed.source.hi
        && flow::load::<_, 4>(tables.replies(), place, 2) == parsed.source.lo
        && (back.target(), back.port()) == (service.vip, parsed.source_port);
    if ours {
        let kept = back.seen(tables.second(), state_of(parsed));
        flow::replace(tables.replies(), place, 3, back.0, kept.0);
    }
    ours
}

/// A target for a connection that has none, or none that will do.
#[inline(always)]
fn fresh<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    parsed: &Parsed,
    service: &Service,
    key: u64,
    known: Option<Place>,
) -> Result<Choice, Reason> {
    let index = match by_server_id(packet, tables, parsed, service) {
        Some(index) => index,
        None => by_hash(
            tables,
            service,
            (parsed.source, parsed.source_port),
            (parsed.destination, parsed.destination_port),
        ),
    };
    let target = tables.target(index).ok_or(Reason::NoTarget)?;
    if index == 0 || !usable(target) {
        return Err(Reason::NoTarget);
    }
    let mut choice = Choice { target: index, port: 0, pinned: true };
    if service.options & option::FLOWS == 0 {
        return Ok(choice);
    }
    let nat = service.mode == mode::NAT;
    // What is in the middle of a connection must not fill the table: only first packets are sure to be limited.
    let begins = parsed.protocol != TCP || parsed.bits & bit::NEW != 0 || known.is_some();
    if !begins {
        return if nat { Err(Reason::NoFlow) } else { Ok(choice) };
    }
    if nat {
        choice.port = own_port(tables, parsed, index, service.vip, key);
        if choice.port == 0 {
            return Err(Reason::FlowsFull);
        }
    }
    let second = tables.second();
    let flow = Flow::new(index, choice.port, second, state_of(parsed));
    choice.pinned = match known {
        Some(place) => {
            let old = flow::load::<_, 2>(tables.flows(), place, 1);
            flow::replace(tables.flows(), place, 1, old, flow.0)
        }
        None => flow::insert::<_, 2, 1>(tables.flows(), key, [flow.0], second),
    };
    if choice.pinned {
        tables.count(index, 0, true);
    } else if nat {
        return Err(Reason::FlowsFull);
    }
    Ok(choice)
}

/// A port of ours that no other client of the target has. Zero: there is none.
#[inline(always)]
fn own_port<T: Tables>(tables: &T, parsed: &Parsed, target: u16, vip: u16, key: u64) -> u16 {
    let range = crate::service::NAT_PORTS;
    let count = (range.end - range.start) as u64;
    // Another time, other ports: a SYN that is sent again is to have another chance.
    let mut random = key ^ tables.second();
    let mut tries = 0;
    while tries < TRIES {
        random = hash::mix(random);
        let port = range.start + (((random & 0xffff) * count) >> 16) as u16;
        if tables.claim_port(parsed, target, vip, port) {
            return port;
        }
        tries += 1;
    }
    0
}

/// Maglev, on the client's address or on the whole connection. Zero: no target.
#[inline(always)]
pub fn by_hash<T: Tables>(tables: &T, service: &Service, client: (Address, u16), vip: (Address, u16)) -> u16 {
    tables.slot(service.ring, slot_of(service, client, vip))
}

/// The slot of a service's table that a connection hashes to.
#[inline(always)]
pub fn slot_of(service: &Service, client: (Address, u16), vip: (Address, u16)) -> u32 {
    let hash = if service.options & option::IP_HASH != 0 {
        hash::of_address(SEED, client.0)
    } else {
        hash::of_connection(SEED, client.0, client.1, vip.0, vip.1)
    };
    hash::bucket_of(hash, maglev::DEFAULT_SIZE as u32)
}

#[inline(always)]
fn by_server_id<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    parsed: &Parsed,
    service: &Service,
) -> Option<u16> {
    if service.options & option::QUIC == 0 || parsed.protocol != UDP {
        return None;
    }
    let id = quic::server_id(packet, usize::from(parsed.l4) + 8)?;
    let index = tables.server(service.service, id)?;
    // Another target can at least say that it does not know the connection.
    if usable(tables.target(index)?) { Some(index) } else { None }
}

/// What a packet says of its connection's state.
#[inline(always)]
pub fn state_of(parsed: &Parsed) -> u8 {
    if parsed.protocol != TCP {
        state::DATAGRAMS
    } else if parsed.bits & bit::END != 0 {
        state::CLOSING
    } else if parsed.bits & (bit::NEW | bit::ACCEPT) != 0 {
        0
    } else {
        state::ESTABLISHED
    }
}

/// Makes a port ours towards a target and remembers whose connection it is. False: another client has it.
#[inline(always)]
pub fn claim_port<T: flow::Table>(
    replies: &T,
    (seed, second): (u64, u64),
    parsed: &Parsed,
    target: &Target,
    vip: u16,
    port: u16,
) -> bool {
    let key = flow::reply_key(seed, target.address, target.port, target.local, port, parsed.protocol);
    let flow = Flow::new(vip, parsed.source_port, second, state_of(parsed));
    let values = [parsed.source.hi, parsed.source.lo, flow.0];
    match flow::find::<_, 4>(replies, key) {
        Some(place) => take_over(replies, place, key, values, second),
        None => flow::insert::<_, 4, 3>(replies, key, values, second),
    }
}

/// Takes a port that somebody had: ourselves, or a connection that is over.
#[inline(always)]
fn take_over<T: flow::Table>(replies: &T, place: Place, key: u64, values: [u64; 3], second: u64) -> bool {
    let [hi, lo, new] = values;
    let (old, new) = (Flow(flow::load::<_, 4>(replies, place, 3)), Flow(new));
    let ours = flow::load::<_, 4>(replies, place, 1) == hi
        && flow::load::<_, 4>(replies, place, 2) == lo
        && (old.target(), old.port()) == (new.target(), new.port());
    (ours || old.is_over(second)) && flow::give::<_, 3>(replies, place, key, key, values)
}

#[inline(always)]
pub fn fragment_key<T: Tables>(tables: &T, parsed: &Parsed) -> u64 {
    flow::fragment_key(tables.seed(), parsed.source, parsed.destination, parsed.fragment, parsed.protocol)
}

/// Later fragments have no ports: they go by what all fragments of a packet have in common. Which comes again for another
/// packet, after 65,536 of them in IPv4.
#[inline(always)]
fn remember_fragment<T: Tables>(tables: &T, parsed: &Parsed, service: &Service, choice: Choice) {
    let second = tables.second();
    let flow = Flow::new(choice.target, choice.port, second, state::CLOSING | service.mode << 4);
    flow::put::<_, 2, 1>(tables.flows(), fragment_key(tables, parsed), [flow.0], second);
}
