//! Echo requests, as `ping` sends them.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{net::Node, packet::checksum};

const ID: u16 = 0x6777;

/// Whether an echo request with this much data is answered within a second, with the same data.
pub fn answered(node: &Node, to: IpAddr, bytes: usize) -> Result<bool> {
    let protocol = if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let domain = Domain::for_address(SocketAddr::new(to, 0));
    let mut socket = node.namespace.run(|| Socket::new(domain, Type::RAW, Some(protocol)))??;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let request = echo(if to.is_ipv4() { 8 } else { 128 }, bytes);
    let reply = echo(if to.is_ipv4() { 0 } else { 129 }, bytes);
    socket.send_to(&request, &SocketAddr::new(to, 0).into()).context("cannot send")?;
    let end = Instant::now() + Duration::from_secs(1);
    let mut buffer = vec![0; 65_536];
    while Instant::now() < end {
        let Ok(n) = socket.read(&mut buffer) else { continue };
        // An IPv4 raw socket gets the header too.
        let came = buffer.get(if to.is_ipv4() { 20 } else { 0 }..n).unwrap_or_default();
        if came.first() == reply.first() && came.get(4..) == reply.get(4..) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// With a checksum for IPv4; the kernel makes those of ICMPv6.
fn echo(kind: u8, bytes: usize) -> Vec<u8> {
    let [high, low] = ID.to_be_bytes();
    let mut out = vec![kind, 0, 0, 0, high, low, 0, 1];
    out.extend((0..bytes).map(|i| i as u8));
    let sum = checksum(&out).to_be_bytes();
    out.splice(2..4, sum);
    out
}
