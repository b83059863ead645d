//! For `gateway decap`: wrapped packets that came in pieces, because they did not fit the way here and might be cut
//! (a fragment of a datagram, for instance; never IPv6). The host's stack puts them together, past the program, and
//! hands them to sockets; from there their insides go back into the stack, to addresses of this host only.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use gateway_common::service::GUE_PORT;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::units::Prefix;

/// An IPv4 packet in an IPv4 packet (RFC 2003).
const IPV4_IN_IP: i32 = 4;
/// A raw socket of this protocol sends packets with the header that they have.
const WITH_HEADER: i32 = 255;
const LARGEST: usize = 65_535;

/// Takes the insides out on this interface until the process ends.
///
/// # Errors
/// The capability for raw sockets is missing, or the port of GUE is taken.
pub fn take(interface: &str, from: &[Prefix]) -> io::Result<()> {
    let bound = |kind, protocol| {
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
        socket.bind_device(Some(interface.as_bytes())).map(|()| socket)
    };
    let mut ipip = bound(Type::RAW, Protocol::from(IPV4_IN_IP))?;
    let gue = bound(Type::DGRAM, Protocol::UDP)?;
    gue.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, GUE_PORT)).into())?;
    let gue = std::net::UdpSocket::from(gue);
    let (to_stack, to_stack_too) = (stack()?, stack()?);
    let (allowed, allowed_too) = (from.to_vec(), from.to_vec());
    std::thread::Builder::new().name("ipip".into()).spawn(move || {
        let mut buffer = vec![0; LARGEST];
        loop {
            let Ok(n) = ipip.read(&mut buffer) else { continue };
            let Some(packet) = buffer.get(..n) else { continue };
            if let Some((source, inside)) = split(packet) {
                give(&to_stack, &allowed, source, inside);
            }
        }
    })?;
    std::thread::Builder::new().name("gue".into()).spawn(move || {
        let mut buffer = vec![0; LARGEST];
        loop {
            let Ok((n, peer)) = gue.recv_from(&mut buffer) else { continue };
            if let (IpAddr::V4(source), Some(inside)) = (peer.ip(), buffer.get(..n)) {
                give(&to_stack_too, &allowed_too, source, inside);
            }
        }
    })?;
    Ok(())
}

/// Sends packets over the loopback: the host takes those to its own addresses and no others.
fn stack() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(WITH_HEADER)))?;
    socket.bind_device(Some(b"lo"))?;
    Ok(socket)
}

/// The source of an IPv4 packet, and what is in it.
fn split(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    Some((address(packet, 12)?, packet.get(header..)?))
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// What a packet holds, back to the stack, if it is from a gateway and an IPv4 packet.
fn give(to_stack: &Socket, from: &[Prefix], source: Ipv4Addr, inside: &[u8]) {
    if !from.iter().any(|prefix| prefix.contains(source.into())) || inside.first().map(|b| b >> 4) != Some(4)
    {
        return;
    }
    if let Some(to) = address(inside, 16) {
        // What the stack does not want is lost, as on any other way into it.
        let _ = to_stack.send_to(inside, &SocketAddr::from((to, 0)).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_split_behind_its_options() {
        let mut packet = vec![0x46, 0, 0, 28, 0, 0, 0, 0, 64, 4, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 1];
        packet.extend([7, 8, 9, 10]);
        assert_eq!(split(&packet), Some((Ipv4Addr::new(10, 0, 0, 1), &[7, 8, 9, 10][..])));
        assert_eq!(split(&packet[..18]), None);
        assert_eq!(split(&[]), None);
    }
}
