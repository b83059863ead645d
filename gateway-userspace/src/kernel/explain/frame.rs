//! The packet that is asked about: as people describe it, and as bytes.

use std::net::{IpAddr, SocketAddr};

use gateway_common::{
    checksum,
    packet::{ICMP, ICMPV6, TCP, UDP},
};
use serde::{Deserialize, Serialize};

/// A packet as people describe it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketSpec {
    /// tcp | udp | icmp (an echo request)
    #[serde(default)]
    pub protocol: String,
    /// An address, or one with a port.
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub destination: String,
    /// Of TCP: fin, syn, rst, psh, ack, urg. None: syn.
    #[serde(default)]
    pub flags: Option<Vec<String>>,
    /// Bytes of the IP packet; none: no more than its headers.
    pub length: Option<u32>,
    #[serde(default = "sixty_four")]
    pub ttl: u8,
    /// Of VLAN tags, the outermost first.
    #[serde(default)]
    pub vlan: Vec<u16>,
    /// Where it comes in; none: at the first interface with XDP.
    pub interface: Option<String>,
    /// The whole frame in place of everything above but the interface.
    pub hex: Option<String>,
}

fn sixty_four() -> u8 {
    64
}

const FLAGS: [(&str, u8); 6] =
    [("fin", 0x01), ("syn", 0x02), ("rst", 0x04), ("psh", 0x08), ("ack", 0x10), ("urg", 0x20)];
/// A source port where none is given: one that hosts use for connections of their own.
const SOURCE_PORT: u16 = 40_000;
/// Of an IP packet: what the kernel takes for a try.
const MOST: u32 = 32_768;
/// Of an Ethernet frame, without its checksum.
const LEAST_FRAME: usize = 60;
/// Below this the kernel refuses to try.
const LEAST_HEX: usize = 14;

impl PacketSpec {
    /// The frame, from one MAC address to another.
    ///
    /// # Errors
    /// A sentence about what cannot be.
    pub fn frame(&self, from: [u8; 6], to: [u8; 6]) -> Result<Vec<u8>, String> {
        if let Some(hex) = &self.hex {
            return bytes(hex);
        }
        let (source, source_port) = endpoint(&self.source)?;
        let (destination, destination_port) = endpoint(&self.destination)?;
        let ports = [source_port.unwrap_or(SOURCE_PORT), destination_port.unwrap_or(0)];
        if self.protocol != "icmp" && destination_port.is_none() {
            return Err(format!("{}: the destination needs a port", self.destination));
        }
        let v4 = source.is_ipv4();
        if v4 != destination.is_ipv4() {
            return Err(format!("{source} and {destination} are of different families"));
        }
        let (protocol, mut inside) = self.transport(ports, v4)?;
        let header = if v4 { 20 } else { 40 };
        if let Some(length) = self.length {
            let least = header + inside.len() as u32;
            if !(least..=MOST).contains(&length) {
                return Err(format!("length {length}: such a packet has {least} to {MOST} bytes"));
            }
            inside.resize((length - header) as usize, 0);
        }
        sum_up(&mut inside, protocol, source, destination);
        let mut frame = [to, from].concat();
        for (at, id) in self.vlan.iter().enumerate() {
            // The outer of two is a provider's (IEEE 802.1ad).
            let tag: u16 = if at == 0 && self.vlan.len() > 1 { 0x88a8 } else { 0x8100 };
            frame.extend(tag.to_be_bytes());
            frame.extend((id & 0xfff).to_be_bytes());
        }
        frame.extend(if v4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.ip(protocol, inside.len() as u16, source, destination));
        frame.extend(inside);
        frame.resize(frame.len().max(LEAST_FRAME), 0);
        Ok(frame)
    }

    /// Header and protocol, without a checksum.
    fn transport(&self, [from, to]: [u16; 2], v4: bool) -> Result<(u8, Vec<u8>), String> {
        let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
        match self.protocol.as_str() {
            "tcp" => {
                let mut bits = if self.flags.is_none() { 0x02 } else { 0 };
                for flag in self.flags.iter().flatten() {
                    let known = FLAGS.iter().find(|(name, _)| name == flag);
                    bits |= known.map(|(_, bit)| bit).ok_or_else(|| {
                        let all: Vec<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
                        format!("there is no TCP flag {flag:?}; there are {}", all.join(", "))
                    })?;
                }
                let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, bits, 0xff, 0xff, 0, 0, 0, 0];
                Ok((TCP, [ports, rest.to_vec()].concat()))
            }
            "udp" => Ok((UDP, [ports, vec![0; 4]].concat())),
            "icmp" if v4 => Ok((ICMP, vec![8, 0, 0, 0, 0, 1, 0, 1])),
            "icmp" => Ok((ICMPV6, vec![128, 0, 0, 0, 0, 1, 0, 1])),
            other => Err(format!("protocol {other:?}: expected tcp, udp or icmp")),
        }
    }

    fn ip(&self, protocol: u8, payload: u16, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((payload + 20).to_be_bytes());
                // "Don't fragment", as nearly every packet has.
                header.extend([0, 1, 0x40, 0, self.ttl, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum::of_bytes(&header, 0).to_be_bytes();
                header.splice(10..12, sum);
                header
            }
            (source, destination) => {
                let octets = |address| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(payload.to_be_bytes());
                header.extend([protocol, self.ttl]);
                header.extend(octets(source));
                header.extend(octets(destination));
                header
            }
        }
    }
}

/// Fills in the length of UDP and every checksum (RFC 9293 section 3.1, RFC 768, RFC 792, RFC 8200 section 8.1).
fn sum_up(inside: &mut Vec<u8>, protocol: u8, source: IpAddr, destination: IpAddr) {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    };
    if protocol == UDP {
        let length = (inside.len() as u16).to_be_bytes();
        inside.splice(4..6, length);
    }
    let mut pseudo = 0;
    if protocol != ICMP {
        let octets = |address| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let addresses = checksum::of_bytes(&[octets(source), octets(destination)].concat(), 0);
        pseudo = u64::from(!addresses) + u64::from(protocol) + inside.len() as u64;
    }
    let sum = checksum::of_bytes(inside, pseudo).to_be_bytes();
    inside.splice(at..at + 2, sum);
}

fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip(), Some(address.port())));
    }
    let address = text.trim_start_matches('[').trim_end_matches(']').parse();
    let expected = "expected an address, with or without a port, such as 192.0.2.1:80 or [2001:db8::1]:80";
    address.map(|address| (address, None)).map_err(|_| format!("{text:?}: {expected}"))
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = hex
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| c.to_digit(16).ok_or_else(|| format!("hex: {c:?} is no hexadecimal digit")))
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err("hex: two digits make a byte, and one is left over".into());
    }
    let frame: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8))
        .collect();
    if !(LEAST_HEX..=MOST as usize).contains(&frame.len()) {
        return Err(format!("hex: a frame of {} bytes; it may have {LEAST_HEX} to {MOST}", frame.len()));
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(protocol: &str, source: &str, destination: &str) -> PacketSpec {
        PacketSpec {
            protocol: protocol.into(),
            source: source.into(),
            destination: destination.into(),
            ttl: 64,
            ..PacketSpec::default()
        }
    }

    #[test]
    fn headers_add_up() {
        let frame = spec("udp", "192.0.2.1:5", "192.0.2.2:53").frame([2; 6], [4; 6]).unwrap();
        assert_eq!(checksum::of_bytes(&frame[14..34], 0), 0);
        assert_eq!(&frame[34..40], &[0, 5, 0, 53, 0, 8]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let told = |spec: PacketSpec| spec.frame([0; 6], [0; 6]).unwrap_err();
        assert!(told(spec("tcp", "192.0.2.1", "192.0.2.2")).contains("needs a port"));
        assert!(told(spec("tcp", "192.0.2.1", "[2001:db8::1]:80")).contains("families"));
        assert!(told(spec("sctp", "192.0.2.1", "192.0.2.2:1")).contains("tcp, udp or icmp"));
        assert!(told(spec("udp", "nobody", "192.0.2.2:1")).contains("expected an address"));
        let hex = |hex: &str| PacketSpec { hex: Some(hex.into()), ..PacketSpec::default() };
        assert!(told(hex("0")).contains("left over") && told(hex("0g")).contains("digit"));
        assert!(told(hex("00:11")).contains("2 bytes"));
        let short = PacketSpec { length: Some(27), ..spec("udp", "192.0.2.1", "192.0.2.2:1") };
        assert!(told(short).contains("28 to"));
    }
}
