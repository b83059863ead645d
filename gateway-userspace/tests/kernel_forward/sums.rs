//! Every checksum of a packet, worked out from scratch: nothing here is of the code under test.

use crate::{
    kernel_support::frames::{ICMP, ICMPV6, TCP, UDP},
    wire::{add_up, checksum},
};

const GUE_PORT: u16 = 6080;

/// Whether every checksum in a frame is right: IPv4 headers, TCP, UDP and ICMP of whole packets, packets in packets and
/// the header of a packet that an error quotes. `None`: it cannot be told.
pub fn right(frame: &[u8]) -> Option<bool> {
    let mut at = 12;
    while matches!(u16_at(frame, at)?, 0x8100 | 0x88a8 | 0x9100) {
        at += 4;
    }
    match u16_at(frame, at)? {
        0x0800 | 0x86dd => packet(&frame[at + 2..], true),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// `whole`: not a quote, of which the end is missing.
fn packet(bytes: &[u8], whole: bool) -> Option<bool> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes, whole),
        6 => ipv6(bytes, whole),
        _ => None,
    }
}

fn ipv4(bytes: &[u8], whole: bool) -> Option<bool> {
    let header = usize::from(bytes[0] & 15) * 4;
    if header < 20 || checksum(bytes.get(..header)?, 0) != 0 {
        return Some(false);
    }
    if !whole || u16_at(bytes, 6)? & 0x3fff != 0 {
        return Some(true);
    }
    let inside = bytes.get(header..usize::from(u16_at(bytes, 2)?))?;
    transport(bytes[9], inside, add_up(&bytes[12..20]))
}

fn ipv6(bytes: &[u8], whole: bool) -> Option<bool> {
    if !whole {
        return Some(true);
    }
    let (mut next, mut at) = (*bytes.get(6)?, 40);
    let end = 40 + usize::from(u16_at(bytes, 4)?);
    while matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
        let units = usize::from(*bytes.get(at + 1)?);
        if next == 44 && u16_at(bytes, at + 2)? & !6 != 0 {
            return Some(true);
        }
        let kind = next;
        next = bytes[at];
        at += match kind {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
    }
    transport(next, bytes.get(at..end)?, add_up(&bytes[8..40]))
}

fn transport(protocol: u8, inside: &[u8], addresses: u64) -> Option<bool> {
    let pseudo = addresses + u64::from(protocol) + inside.len() as u64;
    match protocol {
        TCP => Some(checksum(inside, pseudo) == 0),
        UDP => {
            let inside = inside.get(..usize::from(u16_at(inside, 4)?))?;
            let pseudo = addresses + u64::from(protocol) + inside.len() as u64;
            if u16_at(inside, 2)? == GUE_PORT && u16_at(inside, 6)? == 0 {
                return packet(&inside[8..], true);
            }
            Some(u16_at(inside, 6)? == 0 || checksum(inside, pseudo) == 0)
        }
        ICMP => message(inside, 0, matches!(inside.first()?, 3 | 11 | 12)),
        ICMPV6 => message(inside, pseudo, inside.first()? < &128),
        4 | 41 => packet(inside, true),
        _ => Some(true),
    }
}

fn message(inside: &[u8], pseudo: u64, quotes: bool) -> Option<bool> {
    if checksum(inside, pseudo) != 0 {
        return Some(false);
    }
    if quotes { packet(inside.get(8..)?, false) } else { Some(true) }
}
