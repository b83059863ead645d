//! Every branch of the forwarding path: a packet, what must become of it, and every byte of what it becomes.

use gateway_common::verdict::Reason;

use crate::{
    kernel_support::{
        frames::{ACK, SYN, TCP, UDP},
        lab,
    },
    needs_bpf, network,
    ways::{
        self, BEHIND, CLIENT_PORT, Came, Case, DOWN, Inside, MTU, NARROW, NO_NEIGHBOUR, NO_ROUTE, OTHER_LINK,
        PLAIN, QUIC, SERVER, back, cases, state, tcp, to_link, u16_at, udp,
    },
    wire::{FIN, Ip, MORE},
    world::{World, hex},
};

/// The name and the sentence of what is being looked at.
struct Fixture<'a> {
    world: &'a mut World,
    name: String,
}

impl Fixture<'_> {
    /// Hands the input to both halves; what it became must have this reason and be what `bytes` makes of it.
    fn is(&mut self, about: &str, input: &[u8], reason: Reason, bytes: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let what = format!("{}: {about}", self.name);
        let (outcome, out) = self.world.check(input, &what);
        assert_eq!(outcome.reason, reason, "{what}: {}", hex(input));
        let expected = bytes(&out);
        assert!(out == expected, "{what}\nis     {}\nshould {}", hex(&out), hex(&expected));
        out
    }

    /// Not a byte is different.
    fn same(&mut self, about: &str, input: &[u8], reason: Reason) {
        self.is(about, input, reason, |_| input.to_vec());
    }

    /// Goes to the target of a port.
    fn goes(&mut self, about: &str, case: Case, port: u16, came: &Came<'_>) -> Vec<u8> {
        let other = port == OTHER_LINK || port == NARROW;
        let expected = |out: &[u8]| to_link(case.there(port, came, out), other);
        self.is(about, &came.frame(port), Reason::Service, expected)
    }
}

/// Runs fixtures for every mode and family, each with no connection known.
fn each(flows: u32, test: impl Fn(Fixture<'_>, Case) + Sync) {
    lab::inside(|lab| {
        network::build(lab);
        let mut world = World::start(lab, flows);
        world.set(&ways::services(), state);
        for case in cases() {
            world.forget();
            let name = format!("{}, IPv{}", case.mode, if case.v6 { 6 } else { 4 });
            test(Fixture { world: &mut world, name }, case);
        }
        world.kernel.plane.stop();
    });
}

fn came<'a>(case: Case, protocol: u8, inside: Inside<'a>) -> Came<'a> {
    Came { tags: &[], ip: case.ip(), protocol, fragment: false, inside }
}

#[test]
fn packets_that_arrive_at_their_target() {
    needs_bpf!();
    each(1024, |mut is, case| {
        for (protocol, inside) in [(TCP, &tcp(SYN, b"odd") as Inside<'_>), (UDP, &udp(b"hello"))] {
            is.goes("a new connection", case, PLAIN, &came(case, protocol, inside));
            is.goes("by another link", case, OTHER_LINK, &came(case, protocol, inside));
            let tagged = Came { tags: &[0x88a8, 0x8100], ..came(case, protocol, inside) };
            is.goes("two VLAN tags stay in front", case, PLAIN, &tagged);
            let ip = Ip { tos: 0xb9, ttl: 2, fragment: 0, ..case.ip() };
            let marked = Came { ip, ..came(case, protocol, inside) };
            is.goes("one hop left, a type of service, may be cut", case, PLAIN, &marked);
        }
        let data = vec![7; MTU - case.overhead() - case.header() - 20];
        is.goes("as big as the way is wide", case, NARROW, &came(case, TCP, &tcp(SYN, &data)));
        let options = Ip { options: vec![1; 8], ..case.ip() };
        is.goes("IPv4 options stay", case, PLAIN, &Came { ip: options, ..came(case, TCP, &tcp(SYN, b"")) });
        let extensions = vec![(0, vec![0; 8]), (60, [vec![0, 1], vec![0; 14]].concat())];
        let extended = Ip { extensions, ..case.ip() };
        let inside = tcp(SYN, b"");
        let extended = Came { ip: extended, ..came(case, TCP, &inside) };
        is.goes("extension headers stay", case, PLAIN, &extended);
    });
}

#[test]
fn a_datagram_whose_sum_becomes_zero_has_its_twin_and_one_without_a_sum_gets_none() {
    needs_bpf!();
    each(1024, |mut is, case| {
        let there = is.goes("the connection", case, PLAIN, &came(case, UDP, &udp(&[0, 0])));
        if case.mode != "nat" {
            return;
        }
        // The word that was zero makes the sum zero if it is what the sum was.
        let l4 = 14 + case.header();
        let word = [there[l4 + 6], there[l4 + 7]];
        let twin = is.goes("a sum of zero", case, PLAIN, &came(case, UDP, &udp(&word)));
        assert_eq!(u16_at(&twin, l4 + 6), 0xffff);
        let bare = |ip: &Ip, ports| {
            let mut datagram = ip.udp(ports, b"none");
            datagram[6..8].fill(0);
            datagram
        };
        is.goes("no sum", case, PLAIN, &came(case, UDP, &bare));
    });
}

#[test]
fn packets_that_cannot_go_on() {
    needs_bpf!();
    each(1024, |mut is, case| {
        let inside = tcp(SYN, b"data");
        let packet = came(case, TCP, &inside);
        is.same("no target is up", &packet.frame(DOWN), Reason::NoTarget);
        is.same("no route to the target", &packet.frame(NO_ROUTE), Reason::NoRoute);
        if case.mode == "dsr" {
            is.same("the neighbour is not known", &packet.frame(NO_NEIGHBOUR), Reason::NoNeighbour);
        } else {
            // Rewritten, but for the MAC addresses.
            let expected = |out: &[u8]| case.there(NO_NEIGHBOUR, &packet, out);
            is.is("the stack finds the neighbour", &packet.frame(NO_NEIGHBOUR), Reason::Unresolved, expected);
        }
        for ttl in [0, 1] {
            let late = Came { ip: Ip { ttl, ..case.ip() }, ..came(case, TCP, &inside) };
            is.same("no hop left", &late.frame(PLAIN), Reason::TtlExpired);
        }
        let middle = tcp(ACK, b"data");
        if case.mode == "nat" {
            is.same("nothing is known of it", &came(case, TCP, &middle).frame(OTHER_LINK), Reason::NoFlow);
        } else {
            is.goes("the middle of a connection", case, OTHER_LINK, &came(case, TCP, &middle));
        }
        is.same("a port without a service", &packet.frame(9), Reason::Ok);
        let nobody = Ip { destination: case.target(PLAIN), ..case.ip() };
        let nobody = Came { ip: nobody, ..came(case, TCP, &inside) };
        is.same("an address without a service", &nobody.frame(PLAIN), Reason::Ok);
        is.same(
            "cut short",
            &packet.frame(PLAIN)[..40],
            if case.v6 { Reason::Truncated } else { Reason::BadIpLength },
        );
    });
}

#[test]
fn packets_that_are_too_big() {
    needs_bpf!();
    each(1024, |mut is, case| {
        let mtu = MTU - case.overhead();
        let data = vec![7; mtu - case.header() - 20 + 1];
        let inside = tcp(SYN, &data);
        let packet = came(case, TCP, &inside);
        let error = |packet: &Came<'_>| {
            let ip = Ip { ttl: 64, id: 0, fragment: 0, label: 0, ..Ip::new(case.vip(), case.client()) };
            let whole = packet.ip.packet(TCP, &inside(&packet.ip, (CLIENT_PORT, NARROW)));
            let quote = &whole[..whole.len() - 20 - data.len() + 8];
            let message = match case.v6 {
                true => ip.icmp(2, 0, mtu as u32, quote),
                false => ip.icmp(3, 4, mtu as u32, quote),
            };
            back(ip.frame(packet.tags, ip.icmp_protocol(), &message))
        };
        is.is("its sender is told", &packet.frame(NARROW), Reason::TooBig, |_| error(&packet));
        let tagged = Came { tags: &[0x8100], ..came(case, TCP, &inside) };
        is.is("in a VLAN", &tagged.frame(NARROW), Reason::TooBig, |_| error(&tagged));
        if case.v6 {
            let long = Ip { extensions: vec![(60, [vec![0, 3], vec![0; 30]].concat())], ..case.ip() };
            let long = Came { ip: long, ..came(case, TCP, &inside) };
            is.same("too long to be quoted", &long.frame(NARROW), Reason::NoRoom);
            return;
        }
        let soft = Came { ip: Ip { fragment: 0, ..case.ip() }, ..came(case, TCP, &inside) };
        if case.mode == "dsr" {
            is.is("the stack would take it for its own", &soft.frame(NARROW), Reason::TooBig, |_| {
                error(&soft)
            });
        } else {
            let expected = |out: &[u8]| case.there(NARROW, &soft, out);
            is.is("the stack cuts it", &soft.frame(NARROW), Reason::Unresolved, expected);
        }
    });
}

#[test]
fn fragments_go_where_the_first_one_went() {
    needs_bpf!();
    each(1024, |mut is, case| {
        let ip = Ip { fragment: MORE, ..case.ip() };
        // The sum is of the whole datagram, whose end is another fragment.
        let whole = |ip: &Ip, ports| Ip { fragment: 0, ..ip.clone() }.udp(ports, &[7; 40]);
        let first = |ip: &Ip, ports| whole(ip, ports)[..24].to_vec();
        let later = |ip: &Ip, ports| whole(ip, ports)[24..].to_vec();
        let first = Came { ip: ip.clone(), ..came(case, UDP, &first) };
        let ip = Ip { fragment: 3, ..ip };
        let later = Came { ip, fragment: true, ..came(case, UDP, &later) };
        is.same("before its first one", &later.frame(OTHER_LINK), Reason::Ok);
        let sent = is.goes("the first", case, OTHER_LINK, &first);
        let rest = is.goes("a later one", case, OTHER_LINK, &later);
        if case.mode != "nat" {
            return;
        }
        // And back.
        let l4 = 14 + case.header() + if case.v6 { 8 } else { 0 };
        let ours = (u16_at(&sent, l4), BEHIND);
        assert_eq!(rest.len(), l4 + 24);
        let from = Ip { fragment: MORE, ..Ip::new(case.target(OTHER_LINK), case.local(OTHER_LINK)) };
        let to = Ip { ttl: 63, fragment: MORE, ..Ip::new(case.vip(), case.client()) };
        let answer = |ip: &Ip, ports, range: std::ops::Range<usize>, fragment| {
            let piece = &whole(ip, ports)[range];
            Ip { fragment, ..ip.clone() }.frame(&[], UDP, piece)
        };
        for (about, range, fragment) in [("an answer's first", 0..24, MORE), ("its later one", 24..48, 3)] {
            let input = answer(&from, (BEHIND, ours.0), range.clone(), fragment);
            let expected = to_link(answer(&to, (OTHER_LINK, CLIENT_PORT), range, fragment), false);
            is.is(about, &input, Reason::Reply, |_| expected.clone());
        }
    });
}

#[test]
fn replies_go_back_to_their_client() {
    needs_bpf!();
    each(1024, |mut is, case| {
        for (protocol, segment) in [(TCP, SYN), (UDP, 0)] {
            let inside = |ip: &Ip, ports| ip.segment(protocol, ports, segment, b"hello");
            let there = is.goes("there", case, PLAIN, &came(case, protocol, &inside));
            let from = Ip::new(case.target(PLAIN), case.local(PLAIN));
            let to = |ttl| Ip { ttl, ..Ip::new(case.vip(), case.client()) };
            let ours = u16_at(&there, 14 + case.header());
            let answer = |ip: &Ip, ports, flags| {
                ip.frame(&[], protocol, &ip.segment(protocol, ports, flags, b"an answer"))
            };
            let input = answer(&from, (BEHIND, ours), SYN | ACK);
            if case.mode != "nat" {
                is.same("no connection of ours", &input, Reason::Ok);
                continue;
            }
            let expected = to_link(answer(&to(63), (PLAIN, CLIENT_PORT), SYN | ACK), false);
            is.is("back", &input, Reason::Reply, |_| expected.clone());
            is.same("from another port", &answer(&from, (BEHIND + 1, ours), ACK), Reason::Ok);
            is.same("to another port", &answer(&from, (BEHIND, ours ^ 1), ACK), Reason::Ok);
            let late = answer(&Ip { ttl: 1, ..from.clone() }, (BEHIND, ours), FIN | ACK);
            is.same("with no hop left", &late, Reason::TtlExpired);
            let lost =
                Came { ip: Ip { source: lost(case.v6), ..case.ip() }, ..came(case, protocol, &inside) };
            let there = is.goes("of a client without a route", case, PLAIN, &lost);
            let ours = u16_at(&there, 14 + case.header());
            is.same("no way back", &answer(&from, (BEHIND, ours), ACK), Reason::NoRoute);
        }
    });
}

fn lost(v6: bool) -> std::net::IpAddr {
    if v6 { "2001:db8:dead::7" } else { "203.0.113.7" }.parse().unwrap()
}

#[test]
fn errors_follow_the_packet_that_they_are_about() {
    needs_bpf!();
    each(1024, |mut is, case| {
        let inside = tcp(SYN, b"");
        let there = is.goes("the connection", case, PLAIN, &came(case, TCP, &inside));
        let router = if case.v6 { "2001:db8:c::9" } else { "198.18.9.9" }.parse().unwrap();
        let kind = if case.v6 { 3 } else { 11 };
        // The quoted segment's own sum stays as it was: only headers are translated.
        let segment = Ip::new(case.vip(), case.client()).tcp((PLAIN, CLIENT_PORT), ACK, b"");
        let quote = |ip: &Ip, ports: (u16, u16)| {
            let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
            ip.packet(TCP, &[ports, segment[4..].to_vec()].concat())
        };
        let answer = Ip { ttl: 1, ..Ip::new(case.vip(), case.client()) };
        let about = |ip: &Ip, quote: &[u8]| ip.icmp(kind, 0, 0, quote);
        let protocol = case.ip().icmp_protocol();
        let quoted = quote(&answer, (PLAIN, CLIENT_PORT));
        let input = Ip::new(router, case.vip());
        let input = input.frame(&[], protocol, &about(&input, &quoted));
        let ours = u16_at(&there, 14 + case.header());
        let expected = |out: &[u8]| {
            let ip = Ip::new(router, case.vip());
            if case.mode == "nat" {
                let inner =
                    Ip { source: case.target(PLAIN), destination: case.local(PLAIN), ..answer.clone() };
                let ip = Ip { ttl: 63, destination: case.target(PLAIN), ..ip };
                let quote = quote(&inner, (BEHIND, ours));
                return to_link(ip.frame(&[], protocol, &about(&ip, &quote)), false);
            }
            let message = |ip: &Ip, _: (u16, u16)| about(ip, &quoted);
            let came = Came { tags: &[], ip, protocol, fragment: false, inside: &message };
            to_link(case.there(PLAIN, &came, out), false)
        };
        is.is("about an answer, to the target", &input, Reason::IcmpError, expected);
        let stranger = Ip::new(router, case.client());
        let wrong = stranger.frame(&[], protocol, &about(&stranger, &quoted));
        is.same("to somebody else than who sent it", &wrong, Reason::Ok);
        let late = Ip { ttl: 1, ..Ip::new(router, case.vip()) };
        is.same("with no hop left", &late.frame(&[], protocol, &about(&late, &quoted)), Reason::TtlExpired);
        if case.mode != "nat" {
            return;
        }
        let unknown = Ip::new(router, case.vip());
        let quoted = quote(&answer, (PLAIN, CLIENT_PORT + 1));
        is.same("about no connection", &unknown.frame(&[], protocol, &about(&unknown, &quoted)), Reason::Ok);
        let sent = Ip { ttl: 1, ..Ip::new(case.local(PLAIN), case.target(PLAIN)) };
        let input = Ip::new(case.target(PLAIN), case.local(PLAIN));
        let input = input.frame(&[], protocol, &about(&input, &quote(&sent, (ours, BEHIND))));
        let back = Ip { ttl: 63, ..Ip::new(case.vip(), case.client()) };
        let sent = Ip { source: case.client(), destination: case.vip(), ..sent };
        let quoted = quote(&sent, (CLIENT_PORT, PLAIN));
        let expected = to_link(back.frame(&[], protocol, &about(&back, &quoted)), false);
        is.is("about a client's packet, to the client", &input, Reason::IcmpError, |_| expected.clone());
    });
}

#[test]
fn pings_are_answered() {
    needs_bpf!();
    each(1024, |mut is, case| {
        let (ask, answer) = if case.v6 { (128, 129) } else { (8, 0) };
        let protocol = case.ip().icmp_protocol();
        let ping =
            |ip: &Ip, kind, tags: &[u16]| ip.frame(tags, protocol, &ip.icmp(kind, 0, 0x0102_0304, b"odd"));
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            let to = Ip { ttl: 64, ..Ip { source: case.vip(), destination: case.client(), ..case.ip() } };
            let expected = back(ping(&to, answer, tags));
            let from = Ip { ttl: 1, ..case.ip() };
            is.is("a ping", &ping(&from, ask, tags), Reason::Echo, |_| expected.clone());
        }
        is.same("an answer", &ping(&case.ip(), answer, &[]), Reason::Ok);
        let other = Ip { destination: case.target(PLAIN), ..case.ip() };
        is.same("of another address", &ping(&other, ask, &[]), Reason::Ok);
        let piece = Ip { fragment: MORE, ..case.ip() };
        let message = piece.icmp(ask, 0, 1, &[7; 16]);
        is.same("in pieces", &piece.frame(&[], protocol, &message), Reason::NoTarget);
    });
}

#[test]
fn quic_goes_by_the_server_id() {
    needs_bpf!();
    each(1024, |mut is, case| {
        let id = |id: u16| [0x40 | (id >> 10) as u8, (id >> 2) as u8, (id << 6) as u8, 1, 2, 3, 4, 5];
        let short = |of: u16| [&[0x40][..], &id(of), &[9; 16]].concat();
        let long = |first: u8, of: u16| [&[first, 0, 0, 0, 1, 8][..], &id(of), &[9; 16]].concat();
        let packets = [
            ("a short header", short(SERVER), true),
            ("a handshake", long(0xe0, SERVER), true),
            ("a first packet has an id of the client's", long(0xc0, SERVER), false),
            ("0-RTT likewise", long(0xd0, SERVER), false),
            ("an id of no target", short(SERVER + 1), false),
            ("another version of ids", [&[0x40, 0x80][..], &id(SERVER)[1..], &[9; 16]].concat(), false),
            ("cut short", vec![0x40, 0x48], false),
        ];
        // Each from a port of its own: a connection that is known stays where it is.
        for (from, (about, data, by_id)) in (CLIENT_PORT + 1..).zip(packets) {
            let inside = move |ip: &Ip, (a, b): (u16, u16)| {
                ip.udp((if a == CLIENT_PORT { from } else { a }, b), &data)
            };
            let packet = came(case, UDP, &inside);
            let other = |out: &[u8]| {
                to_link(if by_id { there(case, &packet, out) } else { case.there(QUIC, &packet, out) }, by_id)
            };
            is.is(about, &packet.frame(QUIC), Reason::Service, other);
        }
    });
}

/// To QUIC's second target, which is where `OTHER_LINK` leads.
fn there(case: Case, packet: &Came<'_>, out: &[u8]) -> Vec<u8> {
    let inside =
        |ip: &Ip, (a, b): (u16, u16)| (packet.inside)(ip, (a, if b == OTHER_LINK { QUIC } else { b }));
    case.there(OTHER_LINK, &Came { ip: packet.ip.clone(), inside: &inside, ..*packet }, out)
}

#[test]
fn a_table_that_is_full_refuses_nat_and_pins_no_more() {
    needs_bpf!();
    each(16, |mut is, case| {
        // Datagrams make no room for others.
        let inside = udp(b"");
        for host in 1..=200u8 {
            let source = if case.v6 { format!("2001:db8:c::1:{host:x}") } else { format!("198.18.1.{host}") };
            let ip = Ip { source: source.parse().unwrap(), ..case.ip() };
            is.world.check(&Came { ip, ..came(case, UDP, &inside) }.frame(PLAIN), "filling the table");
        }
        let packet = came(case, UDP, &inside);
        if case.mode == "nat" {
            is.same("no room", &packet.frame(PLAIN), Reason::FlowsFull);
        } else {
            let expected = |out: &[u8]| to_link(case.there(PLAIN, &packet, out), false);
            is.is("no room", &packet.frame(PLAIN), Reason::ServiceUnpinned, expected);
        }
        is.world.age(181);
        is.goes("once they are over", case, PLAIN, &packet);
    });
}
