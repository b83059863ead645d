//! What is right in a config and may still not work on this host.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use crate::config::model::{Config, KernelMode};

/// Why the config itself leaves services without anything that forwards them.
pub fn lacking(config: &Config) -> Option<&'static str> {
    match (config.kernel.mode, config.kernel.interfaces.is_empty()) {
        (KernelMode::Off, _) => Some("kernel.mode is \"off\""),
        (_, true) => Some("kernel.interfaces names no interface"),
        _ => None,
    }
}

/// [`lacking`] as a warning with a place, where there are services.
pub fn not_forwarded(config: &Config) -> Option<String> {
    let first = config.services.values().find(|service| service.splice.is_none())?;
    let why = lacking(config)?;
    Some(format!("{}: services are forwarded by XDP only, and {why}", first.at))
}

/// Targets that this host has no route to just now, each with its service's place. Nothing is sent.
pub fn unreachable(config: &Config) -> Vec<String> {
    let targets = config.services.iter().flat_map(|(name, service)| {
        service.targets.iter().map(move |target| (name, &service.at, target.addr))
    });
    let warn = |(name, at, addr)| {
        let error = route_to(addr).err()?;
        Some(format!("{at}: service `{name}`: no route to target {addr} ({error})"))
    };
    targets.filter_map(warn).collect()
}

/// Whether packets could be sent there: connecting a UDP socket looks the route up and sends nothing.
fn route_to(target: SocketAddr) -> io::Result<()> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))?.connect(target)
}
