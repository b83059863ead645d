//! Packets, made from scratch with right checksums.

use std::net::IpAddr;

use crate::kernel_support::frames::{ICMP, ICMPV6, TCP, UDP, ethernet};

pub const FIN: u8 = 0x01;
pub const RST: u8 = 0x04;

/// An IP header.
#[derive(Debug, Clone)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    pub id: u16,
    /// IPv4's sixteen bits of flags and offset; for IPv6 all but "don't fragment" makes a fragment header.
    pub fragment: u16,
    /// IPv6's.
    pub label: u32,
    /// Of IPv4, a multiple of four.
    pub options: Vec<u8>,
    /// Of IPv6: kinds and whole headers, whose first byte is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

pub const DONT: u16 = 0x4000;
pub const MORE: u16 = 0x2000;

impl Ip {
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        let (options, extensions) = (Vec::new(), Vec::new());
        Self {
            source,
            destination,
            ttl: 64,
            tos: 0,
            id: 0x1234,
            fragment: 0,
            label: 0x12345,
            options,
            extensions,
        }
    }

    /// The packet around a payload.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = 20 + self.options.len();
                let mut packet = vec![0x40 | (length / 4) as u8, self.tos];
                packet.extend(((length + payload.len()) as u16).to_be_bytes());
                packet.extend(self.id.to_be_bytes());
                packet.extend(self.fragment.to_be_bytes());
                packet.extend([self.ttl, protocol, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(&self.options);
                let sum = checksum(&packet, 0).to_be_bytes();
                packet[10..12].copy_from_slice(&sum);
                packet.extend(payload);
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (next, headers) = self.headers(protocol);
                let class = u32::from(self.tos) << 20 | 6 << 28 | self.label;
                let mut packet = class.to_be_bytes().to_vec();
                packet.extend(((headers.len() + payload.len()) as u16).to_be_bytes());
                packet.extend([next, self.ttl]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(headers);
                packet.extend(payload);
                packet
            }
            _ => panic!("{} and {} are of two families", self.source, self.destination),
        }
    }

    /// The extension headers and what the first of them is.
    fn headers(&self, protocol: u8) -> (u8, Vec<u8>) {
        let mut chain = self.extensions.clone();
        let fragment = self.fragment & !DONT;
        if fragment != 0 {
            let place = (fragment & 0x1fff) << 3 | u16::from(fragment & MORE != 0);
            let mut header = vec![0, 0];
            header.extend(place.to_be_bytes());
            header.extend(u32::from(self.id).to_be_bytes());
            chain.push((44, header));
        }
        let mut next = protocol;
        let mut bytes = Vec::new();
        for (kind, mut header) in chain.into_iter().rev() {
            header[0] = next;
            next = kind;
            bytes.splice(..0, header);
        }
        (next, bytes)
    }

    pub fn tcp(&self, ports: (u16, u16), flags: u8, data: &[u8]) -> Vec<u8> {
        let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        segment.extend([0x12, 0x34, 0x56, 0x78, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(data);
        self.sealed(TCP, segment, 16)
    }

    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        segment.extend(((8 + data.len()) as u16).to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(data);
        self.sealed(UDP, segment, 6)
    }

    /// A TCP segment or a datagram.
    pub fn segment(&self, protocol: u8, ports: (u16, u16), flags: u8, data: &[u8]) -> Vec<u8> {
        if protocol == TCP { self.tcp(ports, flags, data) } else { self.udp(ports, data) }
    }

    pub fn icmp(&self, kind: u8, code: u8, rest: u32, data: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest.to_be_bytes());
        message.extend(data);
        self.sealed(self.icmp_protocol(), message, 2)
    }

    pub fn icmp_protocol(&self) -> u8 {
        if self.source.is_ipv4() { ICMP } else { ICMPV6 }
    }

    fn sealed(&self, protocol: u8, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
        let pseudo = if protocol == ICMP {
            0
        } else {
            octets(self.source, self.destination) + u64::from(protocol) + segment.len() as u64
        };
        let sum = checksum(&segment, pseudo);
        let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    pub fn frame(&self, tags: &[u16], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        ethernet(tags, kind, &self.packet(protocol, payload))
    }
}

/// The sum of two addresses.
fn octets(source: IpAddr, destination: IpAddr) -> u64 {
    let one = |address: IpAddr| match address {
        IpAddr::V4(v4) => add_up(&v4.octets()),
        IpAddr::V6(v6) => add_up(&v6.octets()),
    };
    one(source) + one(destination)
}

/// Bytes as a sum of 16-bit words, an odd one padded with zero.
pub fn add_up(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    for (at, byte) in bytes.iter().enumerate() {
        sum += u64::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
    }
    sum
}

/// RFC 1071, word by word.
pub fn checksum(bytes: &[u8], start: u64) -> u16 {
    let mut sum = start + add_up(bytes);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
