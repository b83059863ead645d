//! The server id in QUIC connection ids (RFC 9000 section 17, ids as Katran has servers make them): the upper two bits of
//! a connection id's first byte are 01, the sixteen bits after them are the id.

use crate::packet::Packet;

const LONG_HEADER: u8 = 0x80;
/// Initial and 0-RTT: their destination's connection id was made up by the client.
const CLIENTS_OWN: u8 = 0x10;
const VERSION: u8 = 1;

/// The server id of the QUIC packet at `at`, if it has one.
#[inline(always)]
pub fn server_id<P: Packet>(packet: &P, at: usize) -> Option<u16> {
    let first = packet.u8(at)?;
    let id = if first & LONG_HEADER != 0 {
        // Types 0 and 1 of four (RFC 9000 section 17.2).
        if (first & 0x30) <= CLIENTS_OWN || packet.u8(at + 5)? < 3 {
            return None;
        }
        packet.u32(at + 6)? >> 8
    } else {
        packet.u32(at + 1)? >> 8
    };
    let id = id & 0xff_ffff;
    if (id >> 22) as u8 == VERSION { Some((id >> 6) as u16) } else { None }
}
