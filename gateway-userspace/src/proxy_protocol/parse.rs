//! Reading a header from bytes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{FIXED_V2, Header, MOST_V1, MOST_V2, SIGNATURE, Says, Version, WORD};
use crate::crc32c::crc32c;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It begins with something else: there is no header.
    #[error("there is no PROXY header")]
    Absent,
    #[error("the PROXY header is longer than any may be")]
    TooLong,
    #[error("the PROXY line of version 1 is malformed")]
    Line,
    #[error("the PROXY header has a version or command that is not known")]
    Command,
    #[error("the PROXY header has an address family or protocol that is not known")]
    Family,
    #[error("the PROXY header is shorter than its addresses")]
    Short,
    #[error("an extension reaches beyond the PROXY header")]
    Extension,
    #[error("the PROXY header's checksum is wrong")]
    Checksum,
}

/// The header that `bytes` begin with, and its length; `None` while it is not whole.
///
/// # Errors
/// No more bytes can make it one.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins(bytes, &SIGNATURE) {
        parse_v2(bytes)
    } else if begins(bytes, WORD) {
        parse_v1(bytes)
    } else {
        Err(Malformed::Absent)
    }
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, start)| byte == start)
}

/// Section 2.1.
fn parse_v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let window = bytes.get(..MOST_V1).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= MOST_V1 { Err(Malformed::TooLong) } else { Ok(None) };
    };
    let line = window.get(WORD.len()..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed::Line)?;
    let says = says_v1(line).ok_or(Malformed::Line)?;
    Ok(Some((Header { version: Version::V1, says }, end + 1)))
}

/// "TCP4 192.0.2.1 198.51.100.1 4711 80": one space between two words.
fn says_v1(line: &str) -> Option<Says> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The rest of the line is to be ignored.
        return Some(Says::Unknown);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (address::<Ipv4Addr>(source)?, address::<Ipv4Addr>(destination)?),
        "TCP6" => (address::<Ipv6Addr>(source)?, address::<Ipv6Addr>(destination)?),
        _ => return None,
    };
    Some(proxied((source, source_port), (destination, destination_port)))
}

fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    Some(text.parse::<A>().ok()?.into())
}

/// Without leading zeroes or sign.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

fn proxied((source, from): (IpAddr, u16), (destination, to): (IpAddr, u16)) -> Says {
    Says::Proxied {
        source: SocketAddr::new(source.to_canonical(), from),
        destination: SocketAddr::new(destination.to_canonical(), to),
    }
}

/// Section 2.2.
fn parse_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let rest = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    let Some(&command) = rest.first() else { return Ok(None) };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Command),
    };
    let &[_, family, high, low, ..] = rest else { return Ok(None) };
    let length = FIXED_V2 + usize::from(u16::from_be_bytes([high, low]));
    if length > MOST_V2 {
        return Err(Malformed::TooLong);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let body = header.get(FIXED_V2..).unwrap_or_default();
    // Of a proxy's own connection the rest is to be ignored, the family too.
    let (says, extensions) = if local { (Says::Local, None) } else { says_v2(family, body)? };
    if let Some(at) = extensions {
        check_extensions(header, FIXED_V2 + at)?;
    }
    Ok(Some((Header { version: Version::V2, says }, length)))
}

/// Whose connection it is, and where in `body` the extensions begin.
fn says_v2(family: u8, body: &[u8]) -> Result<(Says, Option<usize>), Malformed> {
    // Bytes of both addresses (and ports) by family: unspecified, IPv4, IPv6, unix.
    let length = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Err(Malformed::Family),
    };
    // Unspecified, stream, datagram.
    if family & 15 > 2 {
        return Err(Malformed::Family);
    }
    let addresses = body.get(..length).ok_or(Malformed::Short)?;
    let says = match family {
        0x11 => pair::<4>(addresses, |octets| Ipv4Addr::from(octets).into()),
        0x21 => pair::<16>(addresses, |octets| Ipv6Addr::from(octets).into()),
        _ => Some(Says::Unknown),
    };
    Ok((says.ok_or(Malformed::Short)?, Some(length)))
}

/// Two addresses and two ports.
fn pair<const N: usize>(addresses: &[u8], address: fn([u8; N]) -> IpAddr) -> Option<Says> {
    let (source, rest) = addresses.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, to) = (rest.first_chunk::<2>()?, rest.last_chunk::<2>()?);
    Some(proxied(
        (address(*source), u16::from_be_bytes(*from)),
        (address(*destination), u16::from_be_bytes(*to)),
    ))
}

/// Extensions (TLVs, section 2.2): skipped, but they fill the header exactly, and a checksum is right.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    const CHECKSUM: u8 = 3;
    while at < header.len() {
        let rest = header.get(at..).unwrap_or_default();
        let &[kind, high, low, ..] = rest else { return Err(Malformed::Extension) };
        let (from, length) = (at + 3, usize::from(u16::from_be_bytes([high, low])));
        let value = header.get(from..from + length).ok_or(Malformed::Extension)?;
        if kind == CHECKSUM {
            let told = value.first_chunk::<4>().filter(|_| length == 4).ok_or(Malformed::Extension)?;
            // Counted over the header with zeroes in the checksum's place (section 2.2.3).
            let zeroed = header.iter().enumerate();
            let zeroed = zeroed.map(|(i, byte)| if (from..from + 4).contains(&i) { 0 } else { *byte });
            if crc32c(zeroed) != u32::from_be_bytes(*told) {
                return Err(Malformed::Checksum);
            }
        }
        at = from + length;
    }
    Ok(())
}
