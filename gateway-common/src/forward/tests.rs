//! Forwarding on the host: tables in memory, packets byte by byte.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use super::*;
use crate::{
    checksum,
    flow::Words,
    packet::{self, Packet as _, TCP, UDP},
    service::{GUE_PORT, option, target_state},
};

struct Memory(Vec<[AtomicU64; 8]>);

impl Memory {
    fn new() -> Self {
        Self((0..64).map(|_| Default::default()).collect())
    }
}

struct Set(*const [AtomicU64; 8]);

#[allow(unsafe_code)]
impl Words for Set {
    fn load(&self, at: usize) -> u64 {
        // SAFETY: points into a `Memory` that outlives the test's tables.
        unsafe { (&*self.0)[at].load(SeqCst) }
    }
    fn store(&self, at: usize, value: u64) {
        // SAFETY: as above.
        unsafe { (&*self.0)[at].store(value, SeqCst) };
    }
    fn replace(&self, at: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        unsafe { (&*self.0)[at].compare_exchange(old, new, SeqCst, SeqCst).is_ok() }
    }
}

impl Table for Memory {
    type Set = Set;
    fn mask(&self) -> u64 {
        self.0.len() as u64 - 1
    }
    fn set(&self, index: u64) -> Option<Set> {
        self.0.get(index as usize).map(|set| Set(set))
    }
}

struct Host {
    flows: Memory,
    replies: Memory,
    services: BTreeMap<ServiceKey, Service>,
    vips: BTreeMap<u16, Vip>,
    targets: BTreeMap<u16, Target>,
    servers: BTreeMap<u16, u16>,
    hop: NextHop,
    second: u64,
    /// Target, bytes and whether it is a connection.
    counted: RefCell<Vec<(u16, u32, bool)>>,
}

impl Tables for Host {
    type Flows = Memory;
    type Replies = Memory;
    fn seed(&self) -> u64 {
        99
    }
    fn second(&self) -> u64 {
        self.second
    }
    fn flows(&self) -> &Memory {
        &self.flows
    }
    fn replies(&self) -> &Memory {
        &self.replies
    }
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }
    fn vip(&self, index: u16) -> Option<&Vip> {
        self.vips.get(&index)
    }
    fn slot(&self, _: u32, slot: u32) -> u16 {
        let up: Vec<u16> = self.up();
        if up.is_empty() { 0 } else { up[slot as usize % up.len()] }
    }
    fn server(&self, _: u16, id: u16) -> Option<u16> {
        self.servers.get(&id).copied()
    }
    fn target(&self, index: u16) -> Option<&Target> {
        self.targets.get(&index)
    }
    fn count(&self, target: u16, bytes: u32, connection: bool) {
        self.counted.borrow_mut().push((target, bytes, connection));
    }
    fn next_hop(&self, _: Address) -> NextHop {
        self.hop
    }
    fn known_hop(&self, _: &Target) -> NextHop {
        self.hop
    }
    fn claim_port(&self, parsed: &Parsed, target: u16, vip: u16, port: u16) -> bool {
        claim_port(&self.replies, (99, self.second), parsed, &self.targets[&target], vip, port)
    }
    fn too_big<P: PacketMut>(&self, packet: &mut P, parsed: &Parsed, mtu: u32) -> Reason {
        too_big(packet, parsed, mtu)
    }
}

const CLIENT: u32 = 0x0a00_0007;
const VIP: u32 = 0xc000_0201;
const HOP: NextHop = NextHop {
    found: found::HOP,
    ifindex: 5,
    mtu: 1500,
    target_mac: 0x0202_0303_0404,
    source_mac: 0x0606_0707_0808,
};

impl Host {
    fn new(forward: u8, options: u8, v6: bool) -> Self {
        let address = |v4: u32| if v6 { v6_of(v4) } else { Address::v4(v4) };
        let mut host = Self {
            flows: Memory::new(),
            replies: Memory::new(),
            services: BTreeMap::new(),
            vips: BTreeMap::new(),
            targets: BTreeMap::new(),
            servers: BTreeMap::new(),
            hop: HOP,
            second: 1000,
            counted: RefCell::default(),
        };
        for (vip, protocol) in [(1, TCP), (2, UDP)] {
            let service = Service { ring: 1, vip, service: 1, mode: forward, options, _pad: [0; 6] };
            host.services.insert(ServiceKey::new(address(VIP), 80, protocol), service);
            host.vips.insert(vip, Vip { address: address(VIP), port: 80, _pad: 0 });
        }
        let echo = Service { mode: mode::ECHO, ..Service::default() };
        host.services.insert(ServiceKey::new(address(VIP), 0, if v6 { ICMPV6 } else { ICMP }), echo);
        for index in 1..=3u16 {
            host.targets.insert(
                index,
                Target::new(
                    address(0x0a01_0000 + u32::from(index)),
                    8080,
                    address(0x0a01_00fe),
                    1,
                    target_state::UP,
                ),
            );
        }
        host
    }

    fn up(&self) -> Vec<u16> {
        let up = |(index, target): (&u16, &Target)| (target.state == target_state::UP).then_some(*index);
        self.targets.iter().filter_map(up).collect()
    }

    fn state(&mut self, index: u16, state: u8) {
        self.targets.get_mut(&index).expect("a target").state = state;
    }

    /// A packet as it comes and as it leaves.
    fn forward(&self, packet: &mut Vec<u8>) -> Outcome {
        let parsed = parse(packet);
        let key = ServiceKey::new(parsed.destination, parsed.destination_port, parsed.protocol);
        match self.services.get(&key).filter(|_| parsed.bits & bit::PORTS != 0) {
            Some(service) => to_target(packet, self, &parsed, service),
            None => related(packet, self, &parsed).unwrap_or(Reason::Ok.into()),
        }
    }

    fn sent(&self, packet: &[u8]) -> (Vec<u8>, Outcome) {
        let mut packet = packet.to_vec();
        let outcome = self.forward(&mut packet);
        (packet, outcome)
    }
}

fn v6_of(v4: u32) -> Address {
    Address { hi: 0x2001_0db8_0000_0000, lo: u64::from(v4) }
}

fn parse(packet: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    assert_eq!(packet::parse(packet, true, &mut parsed), Ok(()));
    parsed
}

/// A whole frame with right checksums.
fn frame(v6: bool, addresses: (u32, u32), protocol: u8, segment: &[u8]) -> Vec<u8> {
    fragment_of(v6, addresses, protocol, segment, 0)
}

fn fragment_of(v6: bool, (from, to): (u32, u32), protocol: u8, segment: &[u8], fragment: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((segment.len() as u16).to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(v6_of(from).octets());
        frame.extend(v6_of(to).octets());
    } else {
        let mut header = vec![0x45, 0];
        header.extend((20 + segment.len() as u16).to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(fragment.to_be_bytes());
        header.extend([64, protocol, 0, 0]);
        header.extend(from.to_be_bytes());
        header.extend(to.to_be_bytes());
        let sum = checksum::of_bytes(&header, 0);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend([8, 0]);
        frame.extend(header);
    }
    let l4 = frame.len();
    frame.extend(segment);
    if fragment & 0x3fff == 0 {
        fix(&mut frame, v6, l4, protocol);
    }
    frame
}

fn sum_place(protocol: u8) -> usize {
    match protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    }
}

/// The sum over a segment and its pseudo-header, which is zero where the checksum is right.
fn sum(frame: &[u8], v6: bool, l4: usize, protocol: u8) -> u16 {
    let addresses = if v6 { &frame[l4 - 32..l4] } else { &frame[l4 - 8..l4] };
    let pseudo = match protocol {
        ICMP => 0,
        _ => u64::from(!checksum::of_bytes(addresses, 0)) + u64::from(protocol) + (frame.len() - l4) as u64,
    };
    checksum::of_bytes(&frame[l4..], pseudo)
}

fn fix(frame: &mut [u8], v6: bool, l4: usize, protocol: u8) {
    let at = l4 + sum_place(protocol);
    frame[at..at + 2].fill(0);
    let sum = sum(frame, v6, l4, protocol);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn assert_sums(frame: &[u8], what: &str) {
    let parsed = parse(frame);
    let v6 = !parsed.is_v4();
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    if !v6 {
        assert_eq!(checksum::of_bytes(&frame[l3..l4], 0), 0, "{what}: the IP header's sum");
    }
    if parsed.bits & bit::FRAGMENT == 0 && matches!(parsed.protocol, TCP | UDP | ICMP | ICMPV6) {
        assert_eq!(sum(frame, v6, l4, parsed.protocol), 0, "{what}: the sum of protocol {}", parsed.protocol);
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

fn tcp(port: u16, to: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = [port.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    segment
}

fn udp(port: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let mut segment =
        [port.to_be_bytes(), to.to_be_bytes(), (8 + data.len() as u16).to_be_bytes(), [0, 0]].concat();
    segment.extend(data);
    segment
}

fn syn(v6: bool, port: u16) -> Vec<u8> {
    frame(v6, (CLIENT, VIP), TCP, &tcp(port, 80, SYN, b""))
}

fn ack(v6: bool, port: u16) -> Vec<u8> {
    frame(v6, (CLIENT, VIP), TCP, &tcp(port, 80, ACK, b"data"))
}

#[test]
fn nat_rewrites_both_ways_and_every_sum_is_right() {
    for v6 in [false, true] {
        for (protocol, segment) in [(TCP, tcp(4000, 80, SYN, b"hello!!")), (UDP, udp(4000, 80, b"hello"))] {
            let host = Host::new(mode::NAT, option::FLOWS, v6);
            let (there, outcome) = host.sent(&frame(v6, (CLIENT, VIP), protocol, &segment));
            assert_eq!(outcome, Outcome { reason: Reason::Service, ifindex: 5 });
            assert_sums(&there, "there");
            let parsed = parse(&there);
            let target = host.targets[&host.counted.borrow()[0].0];
            assert_eq!((parsed.destination, parsed.destination_port), (target.address, 8080));
            assert_eq!(parsed.source, target.local);
            assert!(crate::service::NAT_PORTS.contains(&parsed.source_port));
            assert_eq!(there[..12], [2, 2, 3, 3, 4, 4, 6, 6, 7, 7, 8, 8]);
            // And its reply.
            let answer = match protocol {
                TCP => tcp(8080, parsed.source_port, SYN | ACK, b""),
                _ => udp(8080, parsed.source_port, b"answer"),
            };
            let (from, to) = (target.address.lo as u32, target.local.lo as u32);
            let (back, outcome) = host.sent(&frame(v6, (from, to), protocol, &answer));
            assert_eq!(outcome.reason, Reason::Reply);
            assert_sums(&back, "back");
            let parsed = parse(&back);
            let client = if v6 { v6_of(CLIENT) } else { Address::v4(CLIENT) };
            assert_eq!((parsed.destination, parsed.destination_port), (client, 4000));
            assert_eq!(parsed.source_port, 80);
            assert_eq!(back[usize::from(parsed.l3) + if v6 { 7 } else { 8 }], 63);
        }
    }
}

#[test]
fn a_udp_packet_without_a_checksum_stays_without() {
    let host = Host::new(mode::NAT, option::FLOWS, false);
    let mut packet = frame(false, (CLIENT, VIP), UDP, &udp(4000, 80, b"x"));
    packet[40..42].fill(0);
    let (there, _) = host.sent(&packet);
    assert_eq!(there[40..42], [0, 0]);
}

#[test]
fn nat_refuses_the_middle_of_connections_that_nobody_began() {
    let host = Host::new(mode::NAT, option::FLOWS, false);
    assert_eq!(host.sent(&ack(false, 4000)).1.reason, Reason::NoFlow);
    let host = Host::new(mode::DSR, option::FLOWS, false);
    assert_eq!(host.sent(&ack(false, 4000)).1.reason, Reason::Service);
    assert_eq!(host.counted.borrow().iter().filter(|count| count.2).count(), 0);
}

#[test]
fn a_connection_stays_where_it_is_when_targets_change_and_leaves_one_that_is_down() {
    for forward in [mode::NAT, mode::DSR, mode::IPIP, mode::GUE] {
        let mut host = Host::new(forward, option::FLOWS, false);
        let first = |host: &Host| host.counted.borrow().last().expect("a packet").0;
        assert_eq!(host.sent(&syn(false, 4000)).1.reason, Reason::Service);
        let had = first(&host);
        for other in (1..=3).filter(|index| *index != had) {
            host.state(other, target_state::DOWN);
            host.sent(&ack(false, 4000));
            assert_eq!(first(&host), had);
            host.state(other, target_state::UP);
        }
        host.state(had, target_state::DRAINING);
        assert_eq!(host.sent(&ack(false, 4000)).1.reason, Reason::Service);
        assert_eq!(first(&host), had, "drained targets keep their connections");
        host.state(had, target_state::DOWN);
        assert_eq!(host.sent(&ack(false, 4000)).1.reason, Reason::Service);
        assert_ne!(first(&host), had, "those of targets that are down go elsewhere");
    }
}

#[test]
fn a_port_that_begins_again_after_the_end_is_a_new_connection() {
    let mut host = Host::new(mode::NAT, option::FLOWS, false);
    host.sent(&syn(false, 4000));
    let had = host.counted.borrow()[0].0;
    host.state(had, target_state::DRAINING);
    host.sent(&frame(false, (CLIENT, VIP), TCP, &tcp(4000, 80, FIN | ACK, b"")));
    host.sent(&syn(false, 4000));
    assert_ne!(host.counted.borrow().last().expect("a packet").0, had);
}

#[test]
fn without_targets_the_packet_is_dropped_with_that_reason() {
    let mut host = Host::new(mode::DSR, option::FLOWS, false);
    (1..=3).for_each(|index| host.state(index, target_state::DOWN));
    assert_eq!(host.sent(&syn(false, 4000)).1.reason, Reason::NoTarget);
}

#[test]
fn what_is_wrapped_is_the_packet_itself_and_comes_out_again() {
    for (forward, v6) in [(mode::IPIP, false), (mode::IPIP, true), (mode::GUE, false), (mode::GUE, true)] {
        for tags in 0..3 {
            let host = Host::new(forward, option::FLOWS, v6);
            let mut packet = syn(v6, 4000);
            for _ in 0..tags {
                packet.splice(12..12, [0x81, 0, 0, 42]);
            }
            let (mut outer, outcome) = host.sent(&packet);
            assert_eq!(outcome.reason, Reason::Service, "{forward} {v6} {tags}");
            let parsed = parse(&outer);
            let target = host.targets[&host.counted.borrow()[0].0];
            assert_eq!((parsed.source, parsed.destination), (target.local, target.address));
            if forward == mode::GUE {
                assert_eq!(parsed.destination_port, GUE_PORT);
            }
            let l3 = usize::from(parsed.l3);
            if !v6 {
                assert_eq!(checksum::of_bytes(&outer[l3..l3 + 20], 0), 0);
            }
            assert!(unwrap(&mut outer, &parsed));
            assert_eq!(outer[..12], [2, 2, 3, 3, 4, 4, 6, 6, 7, 7, 8, 8]);
            assert_sums(&outer, "inner");
            let mut inner = packet.clone();
            let ttl = l3 + if v6 { 7 } else { 8 };
            inner[ttl] -= 1;
            if !v6 {
                inner[l3 + 10..l3 + 12].copy_from_slice(&outer[l3 + 10..l3 + 12]);
            }
            assert_eq!(outer[12..], inner[12..]);
        }
    }
}

#[test]
fn packets_that_do_not_fit_tell_their_sender_and_those_that_may_be_cut_go_to_the_stack() {
    for (forward, v6, overhead) in
        [(mode::IPIP, false, 20), (mode::IPIP, true, 40), (mode::GUE, false, 28), (mode::GUE, true, 48)]
    {
        let host = Host::new(forward, option::FLOWS, v6);
        let fitting = 1500 - overhead - if v6 { 60 } else { 40 };
        let whole = |size: usize| frame(v6, (CLIENT, VIP), TCP, &tcp(4000, 80, ACK, &vec![7; size]));
        assert_eq!(host.sent(&whole(fitting)).1.reason, Reason::Service);
        let mut packet = whole(fitting + 1);
        if !v6 {
            assert_eq!(host.sent(&packet).1.reason, Reason::Unresolved);
            packet[20] = 0x40;
        }
        let (error, outcome) = host.sent(&packet);
        assert_eq!(outcome.reason, Reason::TooBig);
        assert_sums(&error, "the error");
        let parsed = parse(&error);
        let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
        let told = error.u32(l4 + 4).expect("an mtu");
        assert_eq!(told, 1500 - overhead as u32, "{forward} {v6}");
        assert_eq!(parsed.destination, if v6 { v6_of(CLIENT) } else { Address::v4(CLIENT) });
        assert_eq!(parsed.source, if v6 { v6_of(VIP) } else { Address::v4(VIP) });
        assert_eq!(error[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        assert_eq!(error[l4 + 8..], packet[l3..l3 + error.len() - l4 - 8]);
    }
}

#[test]
fn pings_are_answered() {
    for v6 in [false, true] {
        let host = Host::new(mode::NAT, option::FLOWS, v6);
        let (protocol, kind, answer) = if v6 { (ICMPV6, 128, 129) } else { (ICMP, 8, 0) };
        let (back, outcome) =
            host.sent(&frame(v6, (CLIENT, VIP), protocol, &[kind, 0, 0, 0, 1, 2, 3, 4, 9, 9]));
        assert_eq!(outcome.reason, Reason::Echo);
        assert_sums(&back, "the answer");
        let parsed = parse(&back);
        assert_eq!(back[usize::from(parsed.l4)], answer);
        assert_eq!(parsed.destination, if v6 { v6_of(CLIENT) } else { Address::v4(CLIENT) });
        let (_, outcome) = host.sent(&frame(v6, (CLIENT, VIP + 1), protocol, &[kind, 0, 0, 0, 1, 2, 3, 4]));
        assert_eq!(outcome.reason, Reason::Ok, "another address's");
    }
}

#[test]
fn errors_follow_the_packet_that_they_are_about() {
    const ROUTER: u32 = 0x0a09_0909;
    for v6 in [false, true] {
        for forward in [mode::NAT, mode::DSR, mode::IPIP, mode::GUE] {
            let host = Host::new(forward, option::FLOWS, v6);
            let (there, _) = host.sent(&syn(v6, 4000));
            let index = host.counted.borrow()[0].0;
            let target = host.targets[&index];
            let (protocol, kind) = if v6 { (ICMPV6, [2, 0]) } else { (ICMP, [3, 4]) };
            let about = |quoted: &[u8]| [&kind[..], &[0, 0, 0, 0, 5, 0x78], &quoted[14..]].concat();
            // About the answer that went from the virtual address to the client.
            let answer = frame(v6, (VIP, CLIENT), TCP, &tcp(80, 4000, ACK, b""));
            let error = frame(v6, (ROUTER, VIP), protocol, &about(&answer));
            let (mut sent, outcome) = host.sent(&error);
            assert_eq!(outcome.reason, Reason::IcmpError, "{forward} {v6}");
            if forward != mode::DSR && forward != mode::NAT {
                let parsed = parse(&sent);
                assert!(unwrap(&mut sent, &parsed));
            }
            assert_sums(&sent, "to the target");
            let parsed = parse(&sent);
            let inner = usize::from(parsed.l4) + 8;
            if forward == mode::NAT {
                assert_eq!(parsed.destination, target.address);
                let quoted = [&sent[..14], &sent[inner..]].concat();
                let quoted = parse(&quoted);
                assert_eq!((quoted.source, quoted.source_port), (target.address, 8080));
                assert_eq!((quoted.destination, quoted.destination_port), {
                    let there = parse(&there);
                    (there.source, there.source_port)
                });
                // About the packet that went to the target.
                let error = frame(v6, (ROUTER, target.local.lo as u32), protocol, &about(&there));
                let (sent, outcome) = host.sent(&error);
                assert_eq!(outcome.reason, Reason::IcmpError);
                assert_sums(&sent, "to the client");
                let parsed = parse(&sent);
                let client = if v6 { v6_of(CLIENT) } else { Address::v4(CLIENT) };
                assert_eq!(parsed.destination, client);
                let quoted = parse(&[&sent[..14], &sent[usize::from(parsed.l4) + 8..]].concat());
                assert_eq!((quoted.source, quoted.source_port), (client, 4000));
                assert_eq!(quoted.destination_port, 80);
            } else {
                assert_eq!(host.counted.borrow().iter().filter(|count| count.0 != index).count(), 0);
            }
            // About a packet that nobody sent through us.
            let other = frame(v6, (VIP + 1, CLIENT), TCP, &tcp(80, 4000, ACK, b""));
            let error = frame(v6, (ROUTER, VIP + 1), protocol, &about(&other));
            assert_eq!(host.sent(&error).1.reason, Reason::Ok);
        }
    }
}

#[test]
fn fragments_go_where_the_first_one_went() {
    for forward in [mode::NAT, mode::DSR, mode::IPIP] {
        let host = Host::new(forward, option::FLOWS, false);
        let later = fragment_of(false, (CLIENT, VIP), UDP, &[7; 16], 3);
        assert_eq!(host.sent(&later).1.reason, Reason::Ok, "of a packet that is not known");
        let first = fragment_of(false, (CLIENT, VIP), UDP, &udp(4000, 80, &[7; 16]), 0x2000);
        let (there, outcome) = host.sent(&first);
        assert_eq!(outcome.reason, Reason::Service);
        let (after, outcome) = host.sent(&later);
        assert_eq!(outcome.reason, Reason::Service);
        let ends = |packet: &[u8]| (parse(packet).source, parse(packet).destination);
        assert_eq!(ends(&after), ends(&there));
        if forward == mode::NAT {
            let (local, port) = (parse(&there).source.lo as u32, parse(&there).source_port);
            let target = parse(&there).destination.lo as u32;
            let first = fragment_of(false, (target, local), UDP, &udp(8080, port, &[7; 16]), 0x2000);
            assert_eq!(host.sent(&first).1.reason, Reason::Reply);
            let (back, outcome) = host.sent(&fragment_of(false, (target, local), UDP, &[7; 8], 3));
            assert_eq!(outcome.reason, Reason::Reply);
            assert_eq!(ends(&back), (Address::v4(VIP), Address::v4(CLIENT)));
        }
    }
}

#[test]
fn without_a_neighbour_the_stack_gets_what_it_can_send_on() {
    for (found, expected) in [
        (found::ROUTE, [Reason::Unresolved, Reason::NoNeighbour, Reason::Unresolved]),
        (found::NOTHING, [Reason::NoRoute; 3]),
    ] {
        for (forward, reason) in [mode::NAT, mode::DSR, mode::IPIP].into_iter().zip(expected) {
            let host = Host { hop: NextHop::without(found), ..Host::new(forward, option::FLOWS, false) };
            let came = syn(false, 4000);
            let (sent, outcome) = host.sent(&came);
            assert_eq!(outcome.reason, reason);
            if reason == Reason::Unresolved {
                assert_eq!(sent[..12], came[..12], "the stack takes what is addressed to us");
                assert_eq!(parse(&sent).destination, host.targets[&host.counted.borrow()[0].0].address);
                assert_eq!(sent[..12], syn(false, 4000)[..12], "the stack takes what is for our MAC address");
            }
        }
    }
}

#[test]
fn packets_that_have_lived_long_enough_end_here() {
    let host = Host::new(mode::DSR, option::FLOWS, false);
    let mut packet = syn(false, 4000);
    packet[22] = 1;
    assert_eq!(host.sent(&packet).1.reason, Reason::TtlExpired);
}

#[test]
fn quic_follows_the_server_id_over_a_change_of_port() {
    let mut host = Host::new(mode::DSR, option::QUIC, false);
    host.servers.insert(0x1234, 2);
    let id =
        [0x40 | (0x1234u16 >> 10) as u8, (0x1234u16 >> 2) as u8, ((0x1234u16 & 3) << 6) as u8, 1, 2, 3, 4, 5];
    for port in 4000..4020 {
        let short = [&[0x40][..], &id, &[0; 20]].concat();
        let handshake = [&[0xe0, 0, 0, 0, 1, 8][..], &id, &[0; 20]].concat();
        for packet in [short, handshake] {
            host.sent(&frame(false, (CLIENT, VIP), UDP, &udp(port, 80, &packet)));
            assert_eq!(host.counted.borrow().last().expect("a packet").0, 2);
        }
    }
    // A client's first packet has an id of its own making.
    let targets: std::collections::BTreeSet<u16> = (4000..4040)
        .map(|port| {
            let initial = [&[0xc0, 0, 0, 0, 1, 8][..], &id, &[0; 20]].concat();
            host.sent(&frame(false, (CLIENT, VIP), UDP, &udp(port, 80, &initial)));
            host.counted.borrow().last().expect("a packet").0
        })
        .collect();
    assert!(targets.len() > 1);
}

#[test]
fn quic_leaves_a_target_that_is_down_and_stays_with_one_that_drains() {
    let mut host = Host::new(mode::DSR, option::QUIC, false);
    host.servers.insert(0x1234, 2);
    let packet = [&[0x40, 0x40 | (0x1234u16 >> 10) as u8, (0x1234u16 >> 2) as u8, 0][..], &[0; 24]].concat();
    let packet = frame(false, (CLIENT, VIP), UDP, &udp(4000, 80, &packet));
    for (state, stays) in [(target_state::DRAINING, true), (target_state::DOWN, false)] {
        host.state(2, state);
        assert_eq!(host.sent(&packet).1.reason, Reason::Service);
        assert_eq!(host.counted.borrow().last().expect("a packet").0 == 2, stays);
    }
}

#[test]
fn fragments_follow_the_latest_first_one_with_their_id() {
    let host = Host::new(mode::NAT, option::FLOWS, false);
    let ends = |packet: &[u8]| (parse(packet).source, parse(packet).destination);
    let first = |port| host.sent(&fragment_of(false, (CLIENT, VIP), UDP, &udp(port, 80, &[7; 16]), 0x2000)).0;
    let later = || host.sent(&fragment_of(false, (CLIENT, VIP), UDP, &[7; 16], 3)).0;
    // Ids come again: after 65,536 packets.
    for port in 4000..4030 {
        let there = first(port);
        assert_eq!(ends(&later()), ends(&there));
        let (local, ours) = (parse(&there).source.lo as u32, parse(&there).source_port);
        let target = parse(&there).destination.lo as u32;
        let answer = fragment_of(false, (target, local), UDP, &udp(8080, ours, &[7; 16]), 0x2000);
        assert_eq!(host.sent(&answer).1.reason, Reason::Reply);
    }
    let entries = |table: &Memory, words| {
        let keys = table.0.iter().flat_map(|set| set.iter().step_by(words));
        keys.filter(|key| key.load(SeqCst) != 0).count()
    };
    assert_eq!(entries(&host.flows, 2), 30 + 1, "one for all fragments with this id");
    assert_eq!(entries(&host.replies, 4), 30 + 3, "one for each target");
}
