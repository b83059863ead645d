//! What forwarding needs of the host: routes, neighbours, and two switches per interface.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use gateway_common::service::{NAT_PORTS, Target};

use super::super::sysctls::Sysctls;

/// Our own address towards another; none: there is no route.
pub fn local_for(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    // Sends nothing: the kernel only looks the route up.
    socket.connect(SocketAddr::new(address, DISCARD)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// RFC 863.
const DISCARD: u16 = 9;

/// Makes the kernel find (and keep) the MAC addresses on the way to targets: XDP forwards past the stack, which would
/// forget them. An empty datagram that no router passes on does it.
pub fn wake_neighbours<'a>(targets: impl Iterator<Item = &'a Target>) {
    let mut addresses: Vec<IpAddr> = targets.map(|target| IpAddr::from(target.address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    for address in addresses {
        let any: IpAddr = match address {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)) else { continue };
        let _ = if address.is_ipv4() { socket.set_ttl(1) } else { Ok(()) };
        let _ = socket.send_to(&[], SocketAddr::new(address, DISCARD));
    }
}

/// Lets the kernel forward between interfaces, which `bpf_fib_lookup` asks for too, and pass on packets from our own
/// addresses, which those are that XDP leaves to it while a neighbour is unknown.
pub fn let_forward(sysctls: &mut Sysctls, interfaces: &[&str], ipv6: bool) {
    const ALL_IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    const LEFT: &str =
        "packets of L4 services that are left to the stack while a neighbour is unknown (IPv6)";
    let forced =
        |interface: &str| PathBuf::from("/proc/sys/net/ipv6/conf").join(interface).join("force_forwarding");
    if ipv6 && interfaces.iter().any(|interface| !forced(interface).exists()) {
        sysctls.wish(Path::new(ALL_IPV6), "1", LEFT);
    }
    let mut set = |path: PathBuf, value: &str| sysctls.set(path, value, "L4 services");
    for interface in interfaces {
        let v4 = PathBuf::from("/proc/sys/net/ipv4/conf").join(interface);
        set(v4.join("forwarding"), "1");
        set(v4.join("accept_local"), "1");
        if ipv6 {
            let v6 = PathBuf::from("/proc/sys/net/ipv6/conf").join(interface);
            // A host that forwards listens to router advertisements only when told so.
            if fs::read_to_string(v6.join("accept_ra")).is_ok_and(|now| now.trim() == "1") {
                set(v6.join("accept_ra"), "2");
            }
            set(v6.join("forwarding"), "1");
            // The stack itself goes by `all`, which would make a router of every interface; or by this (Linux 6.17).
            set(forced(interface), "1");
        }
    }
}

/// Keeps the stack from giving its own connections, such as health checks, ports that are NAT's: replies to them would
/// be taken for those of NAT. Where its range has not been widened there is nothing to do.
pub fn reserve_ports(sysctls: &mut Sysctls) {
    let ipv4 = PathBuf::from("/proc/sys/net/ipv4");
    let read = |name: &str| fs::read_to_string(ipv4.join(name)).unwrap_or_default();
    let first = read("ip_local_port_range").split_whitespace().next().and_then(|port| port.parse().ok());
    let reserved = read("ip_local_reserved_ports");
    if first.is_some_and(|first: u16| first < NAT_PORTS.end) {
        sysctls.set(ipv4.join("ip_local_reserved_ports"), &with_ours(reserved.trim()), "NAT");
    }
}

/// A list of ports and ranges with ours in it.
fn with_ours(reserved: &str) -> String {
    let (first, last) = (NAT_PORTS.start, NAT_PORTS.end - 1);
    let covers = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        from.parse().is_ok_and(|from: u16| from <= first) && to.parse().is_ok_and(|to: u16| to >= last)
    };
    match reserved {
        "" => format!("{first}-{last}"),
        _ if reserved.split(',').any(covers) => reserved.to_owned(),
        _ => format!("{reserved},{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_others_reserved_stay_reserved() {
        assert_eq!(with_ours(""), "1024-32767");
        assert_eq!(with_ours("8080,40000-40010"), "8080,40000-40010,1024-32767");
        assert_eq!(with_ours("80,1000-40000"), "80,1000-40000");
    }
}
