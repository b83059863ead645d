//! Frames as bytes: what a test sends to the kernel half, from any source it likes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::{net::Node, sys};

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const DONT_FRAGMENT: u16 = 0x4000;

/// The transport layer of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inside {
    Tcp {
        flags: u8,
        payload: Vec<u8>,
    },
    Udp {
        payload: Vec<u8>,
    },
    /// An echo request.
    Icmp,
}

impl Inside {
    pub fn tcp(flags: u8) -> Inside {
        Inside::Tcp { flags, payload: Vec::new() }
    }
}

/// A frame to be made.
#[derive(Debug, Clone)]
pub struct Frame {
    pub from_mac: [u8; 6],
    pub to_mac: [u8; 6],
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub inside: Inside,
    /// VLAN ids, outermost first.
    pub vlans: Vec<u16>,
    /// IPv4 flags and fragment offset, as they stand in the header. Default: "don't fragment".
    pub fragment: u16,
    /// IPv4 options: a multiple of 4 bytes, at most 40.
    pub options: Vec<u8>,
    /// IPv6 extension headers: type and bytes (whose first, the next header, and second, the length, are filled in).
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Frame {
    /// From a node (or an address that it pretends to have) to an address behind the gateway's end of its link.
    pub fn new(node: &Node, from: impl Into<SocketAddr>, to: impl Into<SocketAddr>, inside: Inside) -> Frame {
        Frame {
            from_mac: node.mac(),
            to_mac: node.gateway_mac(),
            from: from.into(),
            to: to.into(),
            inside,
            vlans: Vec::new(),
            fragment: DONT_FRAGMENT,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    pub fn syn(node: &Node, from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> Frame {
        Frame::new(node, from, to, Inside::tcp(SYN))
    }

    pub fn udp(node: &Node, from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> Frame {
        Frame::new(node, from, to, Inside::Udp { payload: vec![b'u'; 18] })
    }

    /// The whole frame, at least 60 bytes, with checksums in order.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [self.to_mac, self.from_mac].concat();
        for (i, id) in self.vlans.iter().enumerate() {
            let tag: u16 = if i == 0 && self.vlans.len() > 1 { 0x88a8 } else { 0x8100 };
            out.extend(tag.to_be_bytes());
            out.extend(id.to_be_bytes());
        }
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                out.extend(0x0800u16.to_be_bytes());
                out.extend(self.v4(from, to));
            }
            (from, to) => {
                out.extend(0x86ddu16.to_be_bytes());
                out.extend(self.v6(mapped(from), mapped(to)));
            }
        }
        out.resize(out.len().max(60), 0);
        out
    }

    fn v4(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let (protocol, inside) = self.transport(&[from.octets(), to.octets()].concat(), false);
        let header = 20 + self.options.len();
        let mut out = vec![0x40 | (header / 4) as u8, 0];
        out.extend(((header + inside.len()) as u16).to_be_bytes());
        out.extend([0x12, 0x34]);
        out.extend(self.fragment.to_be_bytes());
        out.extend([64, protocol, 0, 0]);
        out.extend(from.octets());
        out.extend(to.octets());
        out.extend(&self.options);
        let sum = checksum(&out).to_be_bytes();
        out.splice(10..12, sum);
        out.extend(inside);
        out
    }

    fn v6(&self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let (protocol, inside) = self.transport(&[from.octets(), to.octets()].concat(), true);
        let mut payload = Vec::new();
        for (i, (_, body)) in self.extensions.iter().enumerate() {
            let mut body = body.clone();
            body.resize(body.len().max(8).next_multiple_of(8), 0);
            let next = self.extensions.get(i + 1).map_or(protocol, |(kind, _)| *kind);
            let length = (body.len() / 8 - 1) as u8;
            body.splice(0..2, [next, length]);
            payload.extend(body);
        }
        payload.extend(inside);
        let first = self.extensions.first().map_or(protocol, |(kind, _)| *kind);
        let mut out = vec![0x60, 0, 0, 0];
        out.extend((payload.len() as u16).to_be_bytes());
        out.extend([first, 64]);
        out.extend(from.octets());
        out.extend(to.octets());
        out.extend(payload);
        out
    }

    /// The transport protocol's number and bytes.
    fn transport(&self, addresses: &[u8], v6: bool) -> (u8, Vec<u8>) {
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let (protocol, mut out, at) = match &self.inside {
            Inside::Tcp { flags, payload } => {
                // Sequence 1, no acknowledgement, 5 words, the flags, a window, checksum and urgent pointer.
                let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, *flags, 0xff, 0xff, 0, 0, 0, 0];
                (6, [ports, rest.to_vec(), payload.clone()].concat(), 16)
            }
            Inside::Udp { payload } => {
                let length = (8 + payload.len() as u16).to_be_bytes();
                (17, [ports, length.to_vec(), vec![0, 0], payload.clone()].concat(), 6)
            }
            Inside::Icmp => (if v6 { 58 } else { 1 }, vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 7, 0, 1], 2),
        };
        let mut summed = Vec::new();
        if v6 || protocol != 1 {
            // The pseudo-header: RFC 9293 section 3.1, RFC 8200 section 8.1. Both add up the same.
            summed.extend(addresses);
            summed.extend([0, protocol]);
            summed.extend((out.len() as u16).to_be_bytes());
        }
        summed.extend(&out);
        let sum = checksum(&summed).to_be_bytes();
        out.splice(at..at + 2, sum);
        (protocol, out)
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends frames from a node's end of its link.
#[derive(Debug)]
pub struct Sender(std::os::fd::OwnedFd);

impl Sender {
    pub fn open(node: &Node) -> Result<Sender> {
        Ok(Sender(node.namespace.run(|| sys::packet_socket(Node::INTERFACE))??))
    }

    pub fn send(&self, frame: &Frame) -> Result<()> {
        self.send_all(&[frame.bytes()])
    }

    /// All of them, in order.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> Result<()> {
        let mut left: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        while !left.is_empty() {
            let batch: Vec<&[u8]> = left.iter().take(256).copied().collect();
            let sent = sys::send_frames(&self.0, &batch)?;
            left.drain(..sent);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_checksum_adds_up_to_nothing() {
        let frame = Frame {
            from_mac: [2; 6],
            to_mac: [4; 6],
            from: "192.0.2.1:1000".parse().unwrap(),
            to: "192.0.2.2:80".parse().unwrap(),
            inside: Inside::tcp(SYN),
            vlans: vec![5],
            fragment: DONT_FRAGMENT,
            options: vec![1, 1, 1, 1],
            extensions: Vec::new(),
        };
        let bytes = frame.bytes();
        assert_eq!(bytes.get(12..18), Some(&[0x81, 0, 0, 5, 8, 0][..]));
        assert_eq!(checksum(bytes.get(18..42).unwrap()), 0);
        assert_eq!(bytes.get(18), Some(&0x46));
    }

    #[test]
    fn extension_headers_are_chained() {
        let mut frame = Frame {
            from_mac: [2; 6],
            to_mac: [4; 6],
            from: "[2001:db8::1]:1000".parse().unwrap(),
            to: "[2001:db8::2]:80".parse().unwrap(),
            inside: Inside::Udp { payload: vec![1, 2, 3] },
            vlans: Vec::new(),
            fragment: DONT_FRAGMENT,
            options: Vec::new(),
            extensions: vec![(0, Vec::new()), (60, vec![0; 16])],
        };
        let bytes = frame.bytes();
        assert_eq!((bytes.get(20), bytes.get(54), bytes.get(55)), (Some(&0), Some(&60), Some(&0)));
        assert_eq!((bytes.get(62), bytes.get(63)), (Some(&17), Some(&1)));
        frame.extensions.clear();
        assert_eq!(frame.bytes().get(20), Some(&17));
    }
}
