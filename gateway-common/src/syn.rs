//! SYN floods: connections that cost nothing until their client has shown that it is where it says.
//!
//! Listeners of this host answer with the kernel's own SYN cookies (RFC 4987 section 3.6), so that its stack takes the
//! acknowledgement of a SYN that it never saw. Services have no socket here: their clients are sent an acknowledgement
//! that is wrong in a way that only we know, and a client that is there resets it (RFC 9293 section 3.10.7.3).
//! Who has passed either is verified: its next connections are as if there were no flood.

use crate::{
    bucket::Limit,
    checksum::fold,
    flow::{self, BUSY, Flow, Table},
    forward::swap_macs,
    hash,
    packet::{Packet, PacketMut, Parsed, TCP},
};

/// Sets of verified sources, four a set; a power of two.
pub const VERIFIED_SETS: u32 = 8192;
/// Seconds (of 2^30 nanoseconds) that a source stays verified after its last connection.
pub const VERIFIED_SECONDS: u64 = 300;
/// How long an attack is taken to go on after the last SYN over the threshold.
pub const HOLD_NS: u64 = 5_000_000_000;

/// Map names, as in the object.
pub mod name {
    pub const GUARD: &str = "SYN_GUARD";
    pub const STATE: &str = "SYN_STATE";
    pub const LISTENERS: &str = "LISTENERS";
    pub const VERIFIED: &str = "VERIFIED";
}

/// What the program has to know: the one entry of `SYN_GUARD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Guard {
    /// New connections of sources that are not verified: over it we are under attack.
    pub limit: Limit,
    /// What we say our largest segments are, by family.
    pub mss_v4: u32,
    pub mss_v6: u32,
}

/// The one entry of `SYN_STATE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct State {
    /// The bucket of [`Guard::limit`].
    pub tat: u64,
    /// Until when we are under attack.
    pub until_ns: u64,
}

/// A listener's window scale when it has none.
pub const NO_SCALE: u8 = 0xf;

const _: () = {
    assert!(size_of::<Guard>() == 32);
    assert!(size_of::<State>() == 16);
    assert!(VERIFIED_SETS.is_power_of_two());
};

#[cfg(feature = "user")]
#[allow(unsafe_code)]
mod pod {
    // SAFETY: `repr(C)`, `Copy`, made of integers only and without padding (size asserted above).
    unsafe impl aya::Pod for super::Guard {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::State {}
}

/// What a client's SYN offers, in a word: 16 bits of its largest segment (zero: not said), 4 of its window scale
/// ([`NO_SCALE`]: none), one each for selective acknowledgements and timestamps, 32 of its timestamp from bit 32 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options(pub u64);

const SACK: u64 = 1 << 20;
const TIMESTAMPS: u64 = 1 << 21;

impl Options {
    /// No options.
    pub const NONE: Self = Self((NO_SCALE as u64) << 16);

    #[inline(always)]
    pub const fn mss(self) -> u16 {
        self.0 as u16
    }
    #[inline(always)]
    pub const fn scale(self) -> u8 {
        (self.0 >> 16) as u8 & 0xf
    }
    #[inline(always)]
    pub const fn sack(self) -> bool {
        self.0 & SACK != 0
    }
    #[inline(always)]
    pub const fn timestamp(self) -> Option<u32> {
        if self.0 & TIMESTAMPS == 0 { None } else { Some((self.0 >> 32) as u32) }
    }
}

/// Reads the options of a TCP header at `l4` (RFC 9293 section 3.2, RFC 7323, RFC 2018).
#[inline(always)]
pub fn options<P: Packet>(packet: &P, l4: usize) -> Options {
    let header = header_length(packet, l4);
    let mut at = packet.forget(20);
    let mut mss = packet.forget(0);
    // Window scale and the bit for selective acknowledgements, as they are in the word.
    let mut rest = packet.forget(usize::from(NO_SCALE));
    let mut timestamp_at = packet.forget(0);
    let mut n = 0;
    // The longest header has 40 bytes of options.
    while n < 40 {
        n += 1;
        if at >= header {
            break;
        }
        let Some(kind) = packet.u8(l4 + at) else { break };
        if kind == 0 {
            break;
        }
        if kind == 1 {
            at = packet.forget(at + 1);
            continue;
        }
        let Some(length) = packet.u8(l4 + at + 1) else { break };
        if length < 2 || at + usize::from(length) > header {
            break;
        }
        if kind == 2 && length == 4 {
            mss = packet.forget(usize::from(packet.u16(l4 + at + 2).unwrap_or(0)));
        }
        if kind == 3 && length == 3 {
            // RFC 7323 section 2.3: more than 14 is 14.
            let scale = packet.u8(l4 + at + 2).unwrap_or(0);
            let scale = if scale > 14 { 14 } else { scale };
            rest = packet.forget(rest & !0xf | usize::from(scale));
        }
        if kind == 4 && length == 2 {
            rest = packet.forget(rest | 1 << 4);
        }
        if kind == 8 && length == 10 {
            timestamp_at = packet.forget(at + 2);
        }
        at = packet.forget(at + usize::from(length));
    }
    let mut word = (mss & 0xffff) as u64 | ((rest & 0x1f) as u64) << 16;
    if timestamp_at != 0 {
        word |= TIMESTAMPS | u64::from(packet.u32(l4 + timestamp_at).unwrap_or(0)) << 32;
    }
    Options(word)
}

/// Bytes of the TCP header at `l4`.
#[inline(always)]
pub fn header_length<P: Packet>(packet: &P, l4: usize) -> usize {
    usize::from(packet.u8(l4 + 12).unwrap_or(0) >> 4) * 4
}

/// The sequence number of the segment at `l4`.
#[inline(always)]
pub fn sequence<P: Packet>(packet: &P, l4: usize) -> u32 {
    packet.u32(l4 + 4).unwrap_or(0)
}

/// The acknowledgement number of the segment at `l4`.
#[inline(always)]
pub fn acknowledged<P: Packet>(packet: &P, l4: usize) -> u32 {
    packet.u32(l4 + 8).unwrap_or(0)
}

/// What a TCP segment is to us.
pub mod kind {
    pub const OTHER: u32 = 0;
    /// It asks for a connection.
    pub const SYN: u32 = 1;
    /// It answers a segment that its sender did not expect: RST without ACK.
    pub const RESET: u32 = 2;
    /// It may acknowledge a cookie.
    pub const ACK: u32 = 3;
}

/// One of [`kind`].
#[inline(always)]
pub fn kind_of<P: Packet>(packet: &P, l4: usize) -> u32 {
    match packet.u8(l4 + 13).unwrap_or(0) & 0x17 {
        0x02 => kind::SYN,
        0x04 => kind::RESET,
        0x10 => kind::ACK,
        _ => kind::OTHER,
    }
}

/// A SYN-ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    pub sequence: u32,
    pub acknowledges: u32,
    /// Ours; zero: the client's options are not answered.
    pub mss: u16,
    /// The listener's; [`NO_SCALE`]: none.
    pub scale: u8,
    /// Milliseconds of CLOCK_MONOTONIC.
    pub now_ms: u64,
}

/// What fits any receive buffer and twenty segments.
const WINDOW: u32 = 29_200;

/// The timestamp by which the kernel knows the client's options again when it acknowledges a cookie: it is at most
/// `now_ms`, and its lowest six bits say them. (Linux has had this format since 2.6.26.)
#[inline(always)]
pub const fn timestamp_of(options: Options, scale: u8, now_ms: u64) -> u32 {
    let scaled = options.scale() != NO_SCALE && scale != NO_SCALE;
    let bits = if scaled { options.scale() } else { NO_SCALE } as u64 | (options.sack() as u64) << 4;
    let timestamp = now_ms & !63 | bits;
    (if timestamp > now_ms { timestamp.wrapping_sub(64) } else { timestamp }) as u32
}

/// Turns a SYN into its answer, no longer than it was. False: it has IP options or extension headers, which the answer
/// would have to do without.
#[inline(always)]
pub fn answer<P: PacketMut>(packet: &mut P, parsed: &Parsed, options: Options, answer: &Answer) -> bool {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let v4 = parsed.is_v4();
    if l4 - l3 != if v4 { 20 } else { 40 } {
        return false;
    }
    let room = header_length(packet, l4);
    let scaled = options.scale() != NO_SCALE && answer.scale != NO_SCALE;
    let full = if scaled { 40 } else { 36 };
    let timed = answer.mss != 0 && options.timestamp().is_some() && room >= full;
    let header = if timed {
        full
    } else if answer.mss != 0 && room >= 24 {
        24
    } else {
        20
    };
    if !packet.truncate(l4 + header) {
        return false;
    }
    swap_macs(packet);
    let mut tcp = Summed { at: l4, sum: u64::from(TCP) + header as u64 };
    if v4 {
        let (source, destination) = (parsed.destination.lo as u32, parsed.source.lo as u32);
        let mut ip = Summed { at: l3, sum: 0 };
        let words = [0x4500_0000 | (header as u32 + 20), 0x4000, 64 << 24 | u32::from(TCP) << 16];
        ip.put(packet, words[0]);
        ip.put(packet, words[1]);
        ip.put(packet, words[2]);
        ip.put(packet, source);
        ip.put(packet, destination);
        packet.set_u16(l3 + 10, !fold(ip.sum));
        tcp.sum += u64::from(source) + u64::from(destination);
    } else {
        packet.set_u64(l3, 6 << 60 | (header as u64) << 16 | u64::from(TCP) << 8 | 64);
        let mut ip = Summed { at: l3 + 8, sum: 0 };
        ip.put(packet, (parsed.destination.hi >> 32) as u32);
        ip.put(packet, parsed.destination.hi as u32);
        ip.put(packet, (parsed.destination.lo >> 32) as u32);
        ip.put(packet, parsed.destination.lo as u32);
        ip.put(packet, (parsed.source.hi >> 32) as u32);
        ip.put(packet, parsed.source.hi as u32);
        ip.put(packet, (parsed.source.lo >> 32) as u32);
        ip.put(packet, parsed.source.lo as u32);
        tcp.sum += ip.sum;
    }
    tcp.put(packet, u32::from(parsed.destination_port) << 16 | u32::from(parsed.source_port));
    tcp.put(packet, answer.sequence);
    tcp.put(packet, answer.acknowledges);
    // SYN and ACK.
    tcp.put(packet, (header as u32 / 4) << 28 | 0x12 << 16 | WINDOW);
    tcp.put(packet, 0);
    if header > 20 {
        tcp.put(packet, 0x0204_0000 | u32::from(answer.mss));
    }
    if timed {
        let sack = if options.sack() { 0x0402_080a } else { 0x0101_080a };
        tcp.put(packet, sack);
        tcp.put(packet, timestamp_of(options, answer.scale, answer.now_ms));
        tcp.put(packet, options.timestamp().unwrap_or(0));
        if scaled {
            tcp.put(packet, 0x0103_0300 | u32::from(answer.scale));
        }
    }
    packet.set_u16(l4 + 16, !fold(tcp.sum));
    true
}

/// Words that are written one after the other and summed up.
struct Summed {
    at: usize,
    sum: u64,
}

impl Summed {
    #[inline(always)]
    fn put<P: PacketMut>(&mut self, packet: &mut P, word: u32) {
        packet.set_u32(self.at, word);
        self.at += 4;
        self.sum += u64::from(word);
    }
}

/// The key of a source among the verified, by its bucket's key.
#[inline(always)]
pub const fn verified_key(seed: u64, key: u64) -> u64 {
    let key = hash::of_key(seed, key);
    if key <= BUSY { key + 2 } else { key }
}

/// Whether a source is verified at `second`.
#[inline(always)]
pub fn is_verified<T: Table>(table: &T, key: u64, second: u64) -> bool {
    match flow::find::<_, 2>(table, key) {
        // A second of another CPU may be the next one already.
        Some(place) => Flow(flow::load::<_, 2>(table, place, 1)).age(second + 1) <= VERIFIED_SECONDS + 1,
        None => false,
    }
}

/// Remembers a source as verified, or that it still is. A table that is full forgets whom it has not seen longest.
#[inline(always)]
pub fn verify<T: Table>(table: &T, key: u64, second: u64) {
    let seen = Flow::new(0, 0, second, 0);
    if let Some(place) = flow::find::<_, 2>(table, key) {
        let old = flow::load::<_, 2>(table, place, 1);
        flow::replace(table, place, 1, old, seen.0);
        return;
    }
    flow::insert::<_, 2, 1>(table, key, [seen.0], second);
}

#[cfg(test)]
#[path = "syn_tests.rs"]
mod tests;
