//! Changing single fields of a packet.

use crate::{
    checksum::Delta,
    packet::{PacketMut, Parsed},
};

/// The packet's time to live (its hop limit).
#[inline(always)]
pub fn ttl<P: PacketMut>(packet: &P, parsed: &Parsed) -> u8 {
    let at = if parsed.is_v4() { 8 } else { 7 };
    packet.u8(usize::from(parsed.l3) + at).unwrap_or(0)
}

/// The first 16 bytes of an IP header.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub first: u64,
    pub second: u64,
    v4: bool,
}

impl Head {
    #[inline(always)]
    pub fn of<P: PacketMut>(packet: &P, parsed: &Parsed) -> Option<Self> {
        let [first, second] = packet.words::<2>(usize::from(parsed.l3))?;
        Some(Self { first, second, v4: parsed.is_v4() })
    }

    /// The packet's time to live (its hop limit).
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        if self.v4 { (self.second >> 56) as u8 } else { self.first as u8 }
    }

    /// IPv6, or IPv4 with "don't fragment".
    #[inline(always)]
    pub const fn may_not_be_cut(&self) -> bool {
        !self.v4 || self.first & 0x4000 != 0
    }

    /// IPv4's second word with one hop less to live (RFC 1812 section 5.3.1) and the source and checksum that `delta`
    /// and `source` make of it.
    #[inline(always)]
    pub const fn second_after(&self, delta: Delta, source: u32) -> u64 {
        let ttl = self.ttl();
        let sum = delta.u16((ttl as u16) << 8, (ttl as u16 - 1) << 8).apply((self.second >> 32) as u16);
        let protocol = (self.second >> 48) & 0xff;
        ((ttl - 1) as u64) << 56 | protocol << 48 | (sum as u64) << 32 | source as u64
    }
}

/// Takes one from a packet's time to live, which is more than zero.
#[inline(always)]
pub fn decrement_ttl<P: PacketMut>(packet: &mut P, parsed: &Parsed, head: &Head) {
    let l3 = usize::from(parsed.l3);
    if head.v4 {
        packet.set_u64(l3 + 8, head.second_after(Delta::NONE, head.second as u32));
    } else {
        packet.set_u8(l3 + 7, head.ttl() - 1);
    }
}

/// What decrementing makes of an IPv4 header's checksum.
#[inline(always)]
pub const fn ttl_delta(ttl: u8) -> Delta {
    Delta::NONE.u16((ttl as u16) << 8, (ttl as u16 - 1) << 8)
}

#[inline(always)]
pub fn set_macs<P: PacketMut>(packet: &mut P, target: u64, source: u64) {
    packet.set_u64(0, target << 16 | (source >> 32 & 0xffff));
    packet.set_u32(8, source as u32);
}

/// Back to where it came from.
#[inline(always)]
pub fn swap_macs<P: PacketMut>(packet: &mut P) {
    let (Some(high), Some(low)) = (packet.u64(0), packet.u32(8)) else { return };
    set_macs(packet, (high & 0xffff) << 32 | u64::from(low), high >> 16);
}
