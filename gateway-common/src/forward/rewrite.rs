//! Changing single fields of a packet.

use crate::{
    checksum::Delta,
    packet::{PacketMut, Parsed},
};

/// The packet's time to live (its hop limit).
#[inline(always)]
pub fn ttl<P: PacketMut>(packet: &P, parsed: &Parsed) -> u8 {
    let at = if parsed.source.is_v4() { 8 } else { 7 };
    packet.u8(usize::from(parsed.l3) + at).unwrap_or(0)
}

/// Takes one from a packet's time to live, which is `ttl` (RFC 1812 section 5.3.1).
#[inline(always)]
pub fn decrement_ttl<P: PacketMut>(packet: &mut P, parsed: &Parsed, ttl: u8) {
    let l3 = usize::from(parsed.l3);
    if !parsed.source.is_v4() {
        return packet.set_u8(l3 + 7, ttl - 1);
    }
    let sum = packet.u16(l3 + 10).unwrap_or(0);
    packet.set_u8(l3 + 8, ttl - 1);
    packet.set_u16(l3 + 10, ttl_delta(ttl).apply(sum));
}

/// What decrementing makes of an IPv4 header's checksum.
#[inline(always)]
pub const fn ttl_delta(ttl: u8) -> Delta {
    Delta::NONE.u16((ttl as u16) << 8, (ttl as u16 - 1) << 8)
}

/// IPv6, or IPv4 with "don't fragment".
#[inline(always)]
pub fn may_not_be_cut<P: PacketMut>(packet: &P, parsed: &Parsed) -> bool {
    !parsed.source.is_v4() || packet.u8(usize::from(parsed.l3) + 6).unwrap_or(0) & 0x40 != 0
}

#[inline(always)]
pub fn set_macs<P: PacketMut>(packet: &mut P, target: u64, source: u64) {
    packet.set_u32(0, (target >> 16) as u32);
    packet.set_u16(4, target as u16);
    packet.set_u16(6, (source >> 32) as u16);
    packet.set_u32(8, source as u32);
}

/// Back to where it came from.
#[inline(always)]
pub fn swap_macs<P: PacketMut>(packet: &mut P) {
    let (Some(high), Some(low)) = (packet.u64(0), packet.u32(8)) else { return };
    set_macs(packet, (high & 0xffff) << 32 | u64::from(low), high >> 16);
}
