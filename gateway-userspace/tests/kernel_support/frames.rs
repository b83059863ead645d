//! Frames byte by byte, as they are on the wire.

use std::net::IpAddr;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// An Ethernet frame with these VLAN tags' types, and a payload of this type.
pub fn ethernet(tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet; `fragment` is the 16 bits of flags and offset.
pub fn ipv4(source: [u8; 4], protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    assert_eq!(header % 4, 0);
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend([10, 0, 0, 99]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet whose extension headers, if any, are in the payload.
pub fn ipv6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    for address in [source, "2001:db8::99"] {
        match address.parse() {
            Ok(IpAddr::V6(v6)) => packet.extend(v6.octets()),
            other => panic!("{address}: {other:?}"),
        }
    }
    packet.extend(payload);
    packet
}

pub fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0, 80];
    header.extend([0; 8]);
    header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

pub fn udp(data: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40, 0, 53];
    datagram.extend(((8 + data.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    datagram
}

pub fn echo() -> Vec<u8> {
    vec![8, 0, 0, 0, 0, 1, 0, 1]
}

/// A TCP segment from an IPv4 source in a frame of 64 bytes.
pub fn tcp_from(source: [u8; 4], flags: u8) -> Vec<u8> {
    padded(ethernet(&[], 0x0800, &ipv4(source, TCP, &[], 0, &tcp(flags))))
}

/// A datagram from an IPv4 source in a frame of 64 bytes.
pub fn udp_from(source: [u8; 4]) -> Vec<u8> {
    padded(ethernet(&[], 0x0800, &ipv4(source, UDP, &[], 0, &udp(b"hi"))))
}

/// A datagram from an IPv6 source.
pub fn udp_from_v6(source: &str) -> Vec<u8> {
    ethernet(&[], 0x86dd, &ipv6(source, UDP, &udp(b"hi")))
}

/// What the network card does to short frames.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(64), 0);
    frame
}
