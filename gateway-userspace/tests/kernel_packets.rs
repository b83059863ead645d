//! The same packets through the parser on the host and through the loaded programs: equal verdicts, equal fields.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use gateway::kernel::KernelPlane;
use gateway_common::{
    packet::{self, Parsed, bit},
    source::Address,
    verdict::Reason,
};
use kernel_support::{
    config, count,
    frames::{ACK, ICMP, ICMPV6, SYN, TCP, UDP, echo, ethernet, ipv4, ipv6, padded, tcp, udp},
    plane, run, send, verdict,
};
use proptest::{prelude::*, test_runner::TestRunner};

const V4: [u8; 4] = [192, 0, 2, 1];
const V6: &str = "2001:db8::1";
const PORTS: u8 = bit::PORTS;
const FIRST: u8 = bit::FRAGMENT | bit::PORTS;
const LATER: u8 = bit::FRAGMENT | bit::LATER_FRAGMENT;

/// A frame, what it is, and what must be said of it: the reason and the bits of what was read.
type Vector = (&'static str, Vec<u8>, Reason, u8);

/// Header shapes that are in order.
fn shapes() -> Vec<Vector> {
    let v4 = |payload: &[u8], protocol| ethernet(&[], 0x0800, &ipv4(V4, protocol, &[], 0, payload));
    let v6 = |next, payload: &[u8]| ethernet(&[], 0x86dd, &ipv6(V6, next, payload));
    let with = |header: &[u8], rest: &[u8]| [header, rest].concat();
    let tagged = |tags: &[u16]| ethernet(tags, 0x0800, &ipv4(V4, UDP, &[], 0, &udp(b"x")));
    let cut =
        |offset: u16, data: &[u8], protocol| ethernet(&[], 0x0800, &ipv4(V4, protocol, &[], offset, data));
    vec![
        ("IPv4 TCP SYN", v4(&tcp(SYN), TCP), Reason::Ok, PORTS | bit::NEW),
        ("IPv4 TCP SYN+ACK is no new connection", v4(&tcp(SYN | ACK), TCP), Reason::Ok, PORTS),
        ("IPv4 TCP ACK", v4(&tcp(ACK), TCP), Reason::Ok, PORTS),
        ("IPv4 UDP", v4(&udp(b"x"), UDP), Reason::Ok, PORTS),
        ("IPv4 ICMP echo", v4(&echo(), ICMP), Reason::Ok, 0),
        ("IPv4 GRE has no ports for us", v4(&[0; 12], 47), Reason::Ok, 0),
        ("IPv4 padded to 60 bytes", padded(v4(&udp(b""), UDP)), Reason::Ok, PORTS),
        (
            "IPv4 with options",
            ethernet(&[], 0x0800, &ipv4(V4, TCP, &[0x94, 4, 0, 0, 1, 1, 1, 0], 0, &tcp(SYN))),
            Reason::Ok,
            PORTS | bit::NEW,
        ),
        ("IPv4 in one VLAN tag", tagged(&[0x8100]), Reason::Ok, PORTS),
        ("IPv4 in two VLAN tags", tagged(&[0x88a8, 0x8100]), Reason::Ok, PORTS),
        ("IPv4 first fragment", cut(0x2000, &with(&tcp(SYN), &[0; 4]), TCP), Reason::Ok, FIRST | bit::NEW),
        ("IPv4 middle fragment has no ports", cut(0x2003, &[0xff; 16], TCP), Reason::Ok, LATER),
        ("IPv4 last fragment has no ports", cut(0x0003, &[0xff; 5], UDP), Reason::Ok, LATER),
        ("IPv6 TCP SYN", v6(TCP, &tcp(SYN)), Reason::Ok, PORTS | bit::NEW),
        ("IPv6 UDP in a VLAN", ethernet(&[0x8100], 0x86dd, &ipv6(V6, UDP, &udp(b"x"))), Reason::Ok, PORTS),
        ("IPv6 ICMP", v6(ICMPV6, &[135, 0, 0, 0, 0, 0, 0, 0]), Reason::Ok, 0),
        ("IPv6 hop-by-hop", v6(0, &with(&[UDP, 0, 1, 4, 0, 0, 0, 0], &udp(b""))), Reason::Ok, PORTS),
        (
            "IPv6 routing and a long destination option",
            v6(43, &with(&with(&[60, 0, 2, 0, 0, 0, 0, 0], &with(&[TCP, 1, 1, 12], &[0; 12])), &tcp(ACK))),
            Reason::Ok,
            PORTS,
        ),
        (
            "IPv6 authentication header",
            v6(51, &with(&with(&[UDP, 4], &[0; 22]), &udp(b""))),
            Reason::Ok,
            PORTS,
        ),
        (
            "IPv6 first fragment",
            v6(44, &with(&[UDP, 0, 0, 1, 0, 0, 0, 7], &with(&udp(b""), &[0; 8]))),
            Reason::Ok,
            FIRST,
        ),
        (
            "IPv6 later fragment has no ports",
            v6(44, &with(&[UDP, 0, 0, 16, 0, 0, 0, 7], &[0xff; 9])),
            Reason::Ok,
            LATER,
        ),
        ("IPv6 atomic fragment", v6(44, &with(&[UDP, 0, 0, 0, 0, 0, 0, 7], &udp(b""))), Reason::Ok, PORTS),
        ("IPv6 no next header", v6(59, &[]), Reason::Ok, 0),
        ("IPv6 ESP is not looked into", v6(50, &[0xff; 24]), Reason::Ok, 0),
        (
            "IPv6 duplicate address detection",
            ethernet(&[], 0x86dd, &ipv6("::", ICMPV6, &[135, 0, 0, 0, 0, 0, 0, 0])),
            Reason::Ok,
            0,
        ),
        (
            "DHCP client without an address",
            ethernet(&[], 0x0800, &ipv4([0; 4], UDP, &[], 0, &[0, 68, 0, 67, 0, 8, 0, 0])),
            Reason::Ok,
            PORTS,
        ),
        ("ARP", ethernet(&[], 0x0806, &[0; 28]), Reason::NotIp, 0),
        ("802.3 with a length", ethernet(&[], 0x0026, &[0; 38]), Reason::NotIp, 0),
        (
            "IPv4 source in 240/4 is unusual but honest",
            ethernet(&[], 0x0800, &ipv4([240, 0, 0, 1], UDP, &[], 0, &udp(b""))),
            Reason::Ok,
            PORTS,
        ),
    ]
}

/// Frames that break a rule.
fn malformed() -> Vec<Vector> {
    let v4 = |payload: &[u8], protocol| ethernet(&[], 0x0800, &ipv4(V4, protocol, &[], 0, payload));
    let v6 = |next, payload: &[u8]| ethernet(&[], 0x86dd, &ipv6(V6, next, payload));
    let from = |source| ethernet(&[], 0x0800, &ipv4(source, UDP, &[], 0, &udp(b"")));
    let from_v6 = |source| ethernet(&[], 0x86dd, &ipv6(source, UDP, &udp(b"")));
    let cut =
        |offset: u16, data: &[u8], protocol| ethernet(&[], 0x0800, &ipv4(V4, protocol, &[], offset, data));
    let set = |mut frame: Vec<u8>, at: usize, byte: u8| {
        frame[at] = byte;
        frame
    };
    let options = [[60u8, 0, 1, 4, 0, 0, 0, 0]; 7].concat();
    let with = |header: &[u8], rest: &[u8]| [header, rest].concat();
    vec![
        ("Ethernet header alone", ethernet(&[], 0x0800, &[]), Reason::Truncated, 0),
        ("VLAN tag cut short", ethernet(&[0x8100], 0x0800, &[])[..16].to_vec(), Reason::Truncated, 0),
        (
            "three VLAN tags",
            ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &ipv4(V4, UDP, &[], 0, &udp(b""))),
            Reason::TooManyHeaders,
            0,
        ),
        ("IPv4 type, version 6", set(v4(&udp(b""), UDP), 14, 0x65), Reason::BadIpHeader, 0),
        ("IPv4 header of 16 bytes", set(v4(&udp(b""), UDP), 14, 0x44), Reason::BadIpHeader, 0),
        ("IPv4 length below its header", set(v4(&udp(b""), UDP), 17, 19), Reason::BadIpLength, 0),
        ("IPv4 length beyond the frame", set(v4(&udp(b""), UDP), 17, 200), Reason::BadIpLength, 0),
        ("IPv6 type, version 4", set(v6(UDP, &udp(b"")), 14, 0x40), Reason::BadIpHeader, 0),
        ("IPv6 length beyond the frame", set(v6(UDP, &udp(b"")), 19, 200), Reason::BadIpLength, 0),
        ("TCP header of 16 bytes", v4(&set(tcp(ACK), 12, 0x40), TCP), Reason::BadTcpHeader, PORTS),
        ("TCP header beyond the packet", v4(&set(tcp(ACK), 12, 0xf0), TCP), Reason::BadTcpHeader, PORTS),
        ("TCP without a whole header", v4(&tcp(SYN)[..19], TCP), Reason::Truncated, 0),
        ("TCP SYN+FIN", v4(&tcp(0x03), TCP), Reason::BadTcpFlags, PORTS),
        ("TCP SYN+RST", v4(&tcp(0x06), TCP), Reason::BadTcpFlags, PORTS),
        ("TCP without flags", v4(&tcp(0), TCP), Reason::BadTcpFlags, PORTS),
        ("UDP length of 7", v4(&set(udp(b""), 5, 7), UDP), Reason::BadUdpLength, PORTS),
        ("UDP length beyond the packet", v4(&set(udp(b""), 5, 9), UDP), Reason::BadUdpLength, PORTS),
        ("UDP length zero", v6(UDP, &set(udp(b""), 5, 0)), Reason::BadUdpLength, PORTS),
        ("ICMP of 7 bytes", v4(&echo()[..7], ICMP), Reason::Truncated, 0),
        ("tiny first fragment", cut(0x2000, &tcp(SYN)[..16], TCP), Reason::BadFragment, bit::FRAGMENT),
        ("TCP at offset 8", cut(0x0001, &[0; 16], TCP), Reason::BadFragment, LATER),
        ("fragment of odd length that goes on", cut(0x2003, &[0; 13], UDP), Reason::BadFragment, LATER),
        ("fragment past 64 KiB", cut(0x1fff, &[0; 16], UDP), Reason::BadFragment, LATER),
        ("empty fragment", cut(0x2003, &[], UDP), Reason::BadFragment, LATER),
        (
            "IPv6 first fragment without its ports",
            v6(44, &with(&[UDP, 0, 0, 1, 0, 0, 0, 7], &[])),
            Reason::BadFragment,
            bit::FRAGMENT,
        ),
        (
            "IPv6 TCP at offset 8",
            v6(44, &with(&[TCP, 0, 0, 8, 0, 0, 0, 7], &[0; 16])),
            Reason::BadFragment,
            LATER,
        ),
        (
            "IPv6 extension header beyond the packet",
            v6(60, &[UDP, 9, 0, 0, 0, 0, 0, 0]),
            Reason::BadIpLength,
            0,
        ),
        ("IPv6 seven extension headers", v6(60, &options), Reason::TooManyHeaders, 0),
        ("multicast source", from([224, 0, 0, 1]), Reason::MartianSource, PORTS),
        ("broadcast source", from([255; 4]), Reason::MartianSource, PORTS),
        ("loopback source", from([127, 0, 0, 1]), Reason::MartianSource, PORTS),
        ("no source", from([0; 4]), Reason::MartianSource, PORTS),
        ("IPv6 multicast source", from_v6("ff02::1"), Reason::MartianSource, PORTS),
        ("IPv6 loopback source", from_v6("::1"), Reason::MartianSource, PORTS),
        ("IPv6 no source", from_v6("::"), Reason::MartianSource, PORTS),
        ("IPv4-mapped source on the wire", from_v6("::ffff:10.0.0.1"), Reason::MartianSource, PORTS),
    ]
}

fn on_host(frame: &[u8]) -> (Reason, Parsed) {
    let mut parsed = Parsed::default();
    let reason = packet::parse(frame, false, &mut parsed).err().unwrap_or(Reason::Ok);
    (reason, parsed)
}

fn in_kernel(plane: &KernelPlane, frame: &[u8]) -> (Reason, Parsed) {
    let id = run(plane, "probe_parse", frame, 1);
    let [hi, lo, to_hi, to_lo, rest, places, fragment, _] = plane.probed();
    let parsed = Parsed {
        source: Address { hi, lo },
        destination: Address { hi: to_hi, lo: to_lo },
        source_port: (rest >> 48) as u16,
        destination_port: (rest >> 32) as u16,
        protocol: (rest >> 8) as u8,
        bits: rest as u8,
        l3: (places >> 48) as u16,
        l4: (places >> 32) as u16,
        length: places as u32,
        fragment: fragment as u32,
    };
    (Reason::from_id(id as u8).unwrap(), parsed)
}

#[test]
fn every_header_shape_has_the_verdict_that_is_written_here() {
    for (what, frame, reason, bits) in shapes().into_iter().chain(malformed()) {
        let (said, parsed) = on_host(&frame);
        let about_headers = parsed.bits & !(bit::END | bit::ACCEPT | bit::V4);
        assert_eq!((said, about_headers), (reason, bits), "{what}");
        if parsed.bits & bit::PORTS == 0 {
            assert_eq!((parsed.source_port, parsed.destination_port), (0, 0), "{what}");
        }
    }
}

#[test]
fn the_kernel_reads_every_shape_as_the_host_does() {
    needs_bpf!();
    let plane = plane(&config());
    for (what, frame, reason, _) in shapes().into_iter().chain(malformed()) {
        assert_eq!(in_kernel(&plane, &frame), on_host(&frame), "{what}");
        assert_eq!(verdict(&plane, &frame), reason, "{what}");
        let action = run(&plane, "xdp_gateway", &frame, 1);
        assert_eq!(action, if reason.is_malformed() { 1 } else { 2 }, "{what}");
    }
}

#[test]
fn shapes_cut_at_every_byte_are_read_alike_and_none_passes_as_whole() {
    needs_bpf!();
    let plane = plane(&config());
    for (what, frame, reason, _) in shapes() {
        // Shorter ones the kernel does not take for a test run.
        for length in 14..frame.len() {
            let cut = &frame[..length];
            let host = on_host(cut);
            assert_eq!(in_kernel(&plane, cut), host, "{what}, {length} bytes");
            let padding = what.contains("padded");
            assert!(host.0 != Reason::Ok || reason != Reason::Ok || padding, "{what}, {length} bytes");
        }
        (0..14).for_each(|length| assert_eq!(on_host(&frame[..length]).0, Reason::Truncated));
    }
}

#[test]
fn garbage_and_damaged_packets_are_read_alike() {
    needs_bpf!();
    let plane = plane(&config());
    let whole: Vec<Vec<u8>> = shapes().into_iter().chain(malformed()).map(|vector| vector.1).collect();
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let damaged = (prop::sample::select(whole), damage).prop_map(|(mut frame, damage)| {
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        frame.resize(frame.len().max(14), 0);
        frame
    });
    let garbage = (
        prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8]),
        proptest::collection::vec(any::<u8>(), 0..1500),
    )
        .prop_map(|(kind, bytes)| ethernet(&[], kind, &bytes));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 700, failure_persistence: None, ..Default::default() });
    runner
        .run(&prop_oneof![3 => damaged, 1 => garbage], |frame| {
            prop_assert_eq!(in_kernel(&plane, &frame), on_host(&frame));
            Ok(())
        })
        .unwrap();
}

#[test]
fn jumbo_frames_in_several_buffers_are_measured_whole() {
    needs_bpf!();
    let plane = plane(&config());
    let big = ethernet(&[], 0x0800, &ipv4(V4, UDP, &[], 0, &udp(&[7; 8000])));
    assert_eq!(verdict(&plane, &big), Reason::Ok);
    let mut lying = big;
    lying.truncate(7000);
    assert_eq!(verdict(&plane, &lying), Reason::BadIpLength);
}

#[test]
fn every_packet_is_counted_once_with_its_reason_and_bytes() {
    needs_bpf!();
    let plane = plane(&config());
    let vectors: Vec<_> = shapes().into_iter().chain(malformed()).collect();
    for (_, frame, ..) in &vectors {
        send(&plane, frame, 10);
    }
    let rows = plane.counters();
    assert_eq!(rows.iter().map(|row| row.packets).sum::<u64>(), 10 * vectors.len() as u64);
    let bytes: usize = vectors.iter().map(|(_, frame, ..)| frame.len() * 10).sum();
    assert_eq!(rows.iter().map(|row| row.bytes).sum::<u64>(), bytes as u64);
    for (what, _, reason, _) in &vectors {
        let same = vectors.iter().filter(|other| other.2 == *reason).count() as u64;
        assert_eq!(count(&plane, *reason), 10 * same, "{what}");
    }
}

#[test]
fn drops_are_sampled_with_what_is_known_of_them() {
    needs_bpf!();
    let plane = plane(&config());
    let frame = ethernet(&[], 0x0800, &ipv4(V4, TCP, &[], 0, &tcp(0x03)));
    send(&plane, &frame, 3000);
    let samples = plane.samples();
    assert!((1..=6).contains(&samples.len()), "the first and few of the rest: {}", samples.len());
    let first = &samples[0];
    assert_eq!(first.reason, "bad_tcp_flags");
    assert_eq!(first.source, Some("192.0.2.1".parse().unwrap()));
    assert_eq!((first.source_port, first.destination_port), (Some(40000), Some(80)));
    assert_eq!((first.protocol, first.length as usize), (6, frame.len()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - first.ts).abs() < 60.0);
    assert!(plane.samples().is_empty());
}
