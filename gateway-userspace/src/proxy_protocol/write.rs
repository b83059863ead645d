//! Writing a header.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{SIGNATURE, Version};

/// Of a client's connection. Addresses of two families are both written as IPv6.
pub fn write(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (mut from, mut to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    if from.is_ipv4() != to.is_ipv4() {
        (from, to) = (as_v6(from).into(), as_v6(to).into());
    }
    let (from_port, to_port) = (source.port(), destination.port());
    match version {
        Version::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        Version::V2 => {
            let mut body = Vec::with_capacity(36);
            for addr in [from, to] {
                match addr {
                    IpAddr::V4(v4) => body.extend_from_slice(&v4.octets()),
                    IpAddr::V6(v6) => body.extend_from_slice(&v6.octets()),
                }
            }
            body.extend_from_slice(&from_port.to_be_bytes());
            body.extend_from_slice(&to_port.to_be_bytes());
            header_v2(0x21, if from.is_ipv4() { 0x11 } else { 0x21 }, &body)
        }
    }
}

/// Of a connection of our own: a health check.
pub fn own(version: Version) -> Vec<u8> {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        Version::V2 => header_v2(0x20, 0, &[]),
    }
}

fn header_v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u16;
    [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), body].concat()
}

fn as_v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
