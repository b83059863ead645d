//! Reading a frame: Ethernet, up to two VLAN tags, IPv4 or IPv6, TCP, UDP or ICMP, and every rule by which a
//! packet counts as malformed.
//!
//! Written against [`Packet`] so that the very same code runs over a slice on the host and over the packet in
//! XDP. A port is only ever read from a packet's first fragment, and nothing is read past the IP length.

use crate::{source::Address, verdict::Reason};

/// A frame that can be read. Numbers are big-endian on the wire and in host order here.
pub trait Packet {
    fn u8(&self, at: usize) -> Option<u8>;
    fn u16(&self, at: usize) -> Option<u16>;
    fn u32(&self, at: usize) -> Option<u32>;
    fn u64(&self, at: usize) -> Option<u64>;
    /// So many words in a row, which are in the frame or not as one.
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let mut words = [0; N];
        let mut word = 0;
        while word < N {
            words[word] = self.u64(at + 8 * word)?;
            word += 1;
        }
        Some(words)
    }
    /// Bytes of the frame that can be read.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of the whole frame, which may go on in further buffers.
    fn whole_len(&self) -> usize {
        self.len()
    }
    /// The same number. The kernel's verifier follows every way to compute one until it is told to forget.
    fn forget(&self, number: usize) -> usize {
        number
    }
}

/// A frame that can be rewritten. What is out of its bounds is not written.
pub trait PacketMut: Packet {
    fn set_u8(&mut self, at: usize, value: u8);
    fn set_u16(&mut self, at: usize, value: u16);
    fn set_u32(&mut self, at: usize, value: u32);
    fn set_u64(&mut self, at: usize, value: u64);
    /// Words in a row: all of them, or none.
    #[inline(always)]
    fn set_words<const N: usize>(&mut self, at: usize, words: [u64; N]) {
        if at + 8 * N > self.len() {
            return;
        }
        let mut word = 0;
        while word < N {
            self.set_u64(at + 8 * word, words[word]);
            word += 1;
        }
    }
    /// Adds bytes in front. False: there is no room, and the packet may be unusable.
    fn grow(&mut self, bytes: usize) -> bool;
    /// Takes bytes off the front.
    fn shrink(&mut self, bytes: usize) -> bool;
    /// Cuts the end off: so many bytes are left.
    fn truncate(&mut self, bytes: usize) -> bool;
}

/// What is known of a packet. Filled as far as parsing came, so that a drop can be reported with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Parsed {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    /// Bits of [`bit`].
    pub bits: u8,
    /// Where the IP header begins.
    pub l3: u16,
    /// Where the header of `protocol` begins.
    pub l4: u16,
    /// Bytes of the IP packet, its header included.
    pub length: u32,
    /// Of a fragment: what it has in common with the other fragments of its packet.
    pub fragment: u32,
}

impl Parsed {
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.bits & bit::V4 != 0
    }
}

/// Bits of [`Parsed::bits`].
pub mod bit {
    /// TCP with SYN and without ACK: someone wants a new connection.
    pub const NEW: u8 = 1;
    /// Part of a fragmented packet.
    pub const FRAGMENT: u8 = 1 << 1;
    /// A fragment after the first: there are no ports in it.
    pub const LATER_FRAGMENT: u8 = 1 << 2;
    /// The ports were read.
    pub const PORTS: u8 = 1 << 3;
    /// TCP with FIN or RST: the connection ends.
    pub const END: u8 = 1 << 4;
    /// TCP with SYN and ACK.
    pub const ACCEPT: u8 = 1 << 5;
    /// IPv4.
    pub const V4: u8 = 1 << 6;
}

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
const IPV6: usize = 40;

const FIN: u32 = 0x01;
const SYN: u32 = 0x02;
const RST: u32 = 0x04;
const ACK: u32 = 0x10;

/// Reads a frame into `out`. `Err` says why it is not an IP packet that bans and limits should judge: it is
/// malformed (dropped) or not IP at all (passed). `loopback`: sources like 127.0.0.1 are all right.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P, loopback: bool, out: &mut Parsed) -> Result<(), Reason> {
    let mut kind = packet.u16(12).ok_or(Reason::Truncated)?;
    let mut at = ETHERNET;
    if is_vlan(kind) {
        kind = packet.u16(at + 2).ok_or(Reason::Truncated)?;
        at += VLAN;
        if is_vlan(kind) {
            kind = packet.u16(at + 2).ok_or(Reason::Truncated)?;
            at += VLAN;
            if is_vlan(kind) {
                return Err(Reason::TooManyHeaders);
            }
        }
    }
    match kind {
        0x0800 => ipv4(packet, at, loopback, out),
        0x86dd => ipv6(packet, at, loopback, out),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
const fn is_vlan(kind: u16) -> bool {
    matches!(kind, 0x8100 | 0x88a8 | 0x9100)
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, at: usize, loopback: bool, out: &mut Parsed) -> Result<(), Reason> {
    // RFC 791 section 3.1, read as 8 + 8 + 4 bytes.
    let destination = packet.u32(at + 16).ok_or(Reason::Truncated)?;
    let first = packet.u64(at).ok_or(Reason::Truncated)?;
    let second = packet.u64(at + 8).ok_or(Reason::Truncated)?;
    let source = second as u32;
    out.source = Address::v4(source);
    out.destination = Address::v4(destination);
    out.protocol = (second >> 48) as u8;
    out.bits |= bit::V4;

    let header = ((first >> 56) & 0xf) as usize * 4;
    if first >> 60 != 4 || header < 20 {
        return Err(Reason::BadIpHeader);
    }
    let length = ((first >> 32) & 0xffff) as usize;
    if length < header {
        return Err(Reason::BadIpLength);
    }
    within(packet, at, length)?;
    (out.l3, out.length) = (at as u16, length as u32);

    let offset = (first & 0x1fff) as usize * 8;
    let more = first & 0x2000 != 0;
    let payload = length - header;
    out.fragment = (first >> 16) as u16 as u32;
    fragment(offset, more, payload, header, out)?;
    transport(packet, at + header, payload, more, out)?;
    if is_martian_v4(source, loopback, out) { Err(Reason::MartianSource) } else { Ok(()) }
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, at: usize, loopback: bool, out: &mut Parsed) -> Result<(), Reason> {
    // RFC 8200 section 3.
    let lo = packet.u64(at + 32).ok_or(Reason::Truncated)?;
    let first = packet.u64(at).ok_or(Reason::Truncated)?;
    let source_hi = packet.u64(at + 8).ok_or(Reason::Truncated)?;
    let source_lo = packet.u64(at + 16).ok_or(Reason::Truncated)?;
    let hi = packet.u64(at + 24).ok_or(Reason::Truncated)?;
    out.source = Address { hi: source_hi, lo: source_lo };
    out.destination = Address { hi, lo };
    if first >> 60 != 6 {
        return Err(Reason::BadIpHeader);
    }
    let next = (first >> 8) as u8;
    let mut payload = ((first >> 16) & 0xffff) as usize;
    if payload == 0 && next == 0 {
        // A jumbogram (RFC 2675): its length does not fit the field, so the frame says it.
        payload = packet.whole_len().saturating_sub(at + IPV6);
    }
    within(packet, at, payload + IPV6)?;
    (out.l3, out.length) = (at as u16, (payload + IPV6) as u32);

    let mut chain = Chain { at: at + IPV6, payload, next, more: false };
    // RFC 8200 knows six kinds of extension headers; more in one packet serve only those who look for bugs. Written
    // out, because kernels before 6.3 refuse some layouts of a loop.
    chain.step(packet, out)?;
    chain.step(packet, out)?;
    chain.step(packet, out)?;
    chain.step(packet, out)?;
    chain.step(packet, out)?;
    chain.step(packet, out)?;
    out.protocol = chain.next;
    if chain.goes_on(out) {
        return Err(Reason::TooManyHeaders);
    }
    transport(packet, chain.at, chain.payload, chain.more, out)?;
    if is_martian_v6(loopback, out) { Err(Reason::MartianSource) } else { Ok(()) }
}

/// Where reading an IPv6 packet's extension headers has come to.
struct Chain {
    at: usize,
    payload: usize,
    next: u8,
    /// A first fragment: what is missing may be in another.
    more: bool,
}

impl Chain {
    #[inline(always)]
    fn goes_on(&self, out: &Parsed) -> bool {
        is_extension(self.next) && out.bits & bit::LATER_FRAGMENT == 0
    }

    /// Steps over one extension header, if there is one.
    #[inline(always)]
    fn step<P: Packet + ?Sized>(&mut self, packet: &P, out: &mut Parsed) -> Result<(), Reason> {
        if !self.goes_on(out) {
            return Ok(());
        }
        let kind = self.next;
        let word = packet.u32(self.at).ok_or(Reason::Truncated)?;
        self.next = (word >> 24) as u8;
        let units = ((word >> 16) & 0xff) as usize;
        let size = match kind {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        if self.payload < size {
            out.protocol = kind;
            return Err(if self.more { Reason::BadFragment } else { Reason::BadIpLength });
        }
        if kind == 44 {
            out.fragment = packet.u32(self.at + 4).ok_or(Reason::Truncated)?;
        }
        self.payload = packet.forget(self.payload - size);
        self.at = packet.forget(self.at + size);
        if kind == 44 {
            let continues = word & 1 != 0;
            out.protocol = self.next;
            fragment((word & 0xfff8) as usize, continues, self.payload, 0, out)?;
            self.more |= continues;
        }
        Ok(())
    }
}

/// Hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, Shim6.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

/// The IP packet must fit in the frame; the frame may be longer (Ethernet pads to 60 bytes).
#[inline(always)]
fn within<P: Packet + ?Sized>(packet: &P, at: usize, length: usize) -> Result<(), Reason> {
    let end = at + length;
    if end > packet.len() && end > packet.whole_len() { Err(Reason::BadIpLength) } else { Ok(()) }
}

/// RFC 791, RFC 8200 section 4.5: fragments but the last are multiples of eight and none reaches past 64 KiB.
#[inline(always)]
fn fragment(
    offset: usize,
    more: bool,
    payload: usize,
    header: usize,
    out: &mut Parsed,
) -> Result<(), Reason> {
    if offset == 0 && !more {
        return Ok(());
    }
    out.bits |= bit::FRAGMENT;
    if offset != 0 {
        out.bits |= bit::LATER_FRAGMENT;
    }
    if payload == 0 || (more && !payload.is_multiple_of(8)) || offset + payload + header > 0xffff {
        return Err(Reason::BadFragment);
    }
    // RFC 3128: a fragment at offset 8 would rewrite the flags of a TCP header that was already judged.
    if offset == 8 && out.protocol == TCP {
        return Err(Reason::BadFragment);
    }
    Ok(())
}

#[inline(always)]
fn transport<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    payload: usize,
    first_fragment: bool,
    out: &mut Parsed,
) -> Result<(), Reason> {
    out.l4 = at as u16;
    if out.bits & bit::LATER_FRAGMENT != 0 {
        return Ok(());
    }
    let short = if first_fragment { Reason::BadFragment } else { Reason::Truncated };
    match out.protocol {
        TCP => {
            // RFC 9293 section 3.1.
            if payload < 20 {
                return Err(short);
            }
            let word = packet.u32(at + 12).ok_or(short)?;
            let ports = packet.u32(at).ok_or(short)?;
            ports_of(ports, out);
            let header = (word >> 28) as usize * 4;
            if header < 20 {
                return Err(Reason::BadTcpHeader);
            }
            if header > payload {
                return Err(if first_fragment { Reason::BadFragment } else { Reason::BadTcpHeader });
            }
            let flags = (word >> 16) & (FIN | SYN | RST | ACK);
            if flags == 0 || (flags & SYN != 0 && flags & (FIN | RST) != 0) {
                return Err(Reason::BadTcpFlags);
            }
            if flags & SYN != 0 {
                out.bits |= if flags & ACK == 0 { bit::NEW } else { bit::ACCEPT };
            }
            if flags & (FIN | RST) != 0 {
                out.bits |= bit::END;
            }
            Ok(())
        }
        UDP => {
            // RFC 768.
            if payload < 8 {
                return Err(short);
            }
            let length = packet.u16(at + 4).ok_or(short)? as usize;
            let ports = packet.u32(at).ok_or(short)?;
            ports_of(ports, out);
            // Zero: a UDP jumbogram (RFC 2675) or a segment still to be cut by the network card.
            let fits = length >= 8 && (length <= payload || first_fragment);
            if fits || (length == 0 && payload > 0xffff - 8) { Ok(()) } else { Err(Reason::BadUdpLength) }
        }
        ICMP if payload < 8 => Err(short),
        ICMPV6 if payload < 4 => Err(short),
        _ => Ok(()),
    }
}

#[inline(always)]
fn ports_of(word: u32, out: &mut Parsed) {
    out.source_port = (word >> 16) as u16;
    out.destination_port = word as u16;
    out.bits |= bit::PORTS;
}

/// RFC 1122 section 3.2.1.3, RFC 6890. DHCP clients (RFC 2131) and IGMP queriers (RFC 4541) may be 0.0.0.0.
#[inline(always)]
fn is_martian_v4(source: u32, loopback: bool, out: &Parsed) -> bool {
    match source >> 24 {
        127 => !loopback,
        0 => {
            let dhcp = out.protocol == UDP && out.source_port == 68 && out.destination_port == 67;
            source != 0 || !(dhcp || out.protocol == IGMP)
        }
        224..=239 => true,
        255 => source == u32::MAX,
        _ => false,
    }
}

/// RFC 4291 sections 2.5.2, 2.5.3, 2.7 and 2.5.5.2. Duplicate address detection (RFC 4862), router solicitation
/// and multicast listener reports come from `::`, all of them ICMPv6.
#[inline(always)]
fn is_martian_v6(loopback: bool, out: &Parsed) -> bool {
    let source = out.source;
    if source.hi >> 56 == 0xff {
        return true;
    }
    if source.hi != 0 {
        return false;
    }
    match source.lo {
        0 => out.protocol != ICMPV6,
        1 => !loopback,
        lo => lo >> 32 == 0xffff,
    }
}

#[cfg(any(test, feature = "user"))]
mod vec {
    use super::{Packet, PacketMut};

    impl Packet for Vec<u8> {
        fn u8(&self, at: usize) -> Option<u8> {
            self.as_slice().u8(at)
        }
        fn u16(&self, at: usize) -> Option<u16> {
            self.as_slice().u16(at)
        }
        fn u32(&self, at: usize) -> Option<u32> {
            self.as_slice().u32(at)
        }
        fn u64(&self, at: usize) -> Option<u64> {
            self.as_slice().u64(at)
        }
        fn len(&self) -> usize {
            Vec::len(self)
        }
    }

    fn set<const N: usize>(packet: &mut [u8], at: usize, bytes: [u8; N]) {
        if let Some(place) = packet.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = bytes;
        }
    }

    impl PacketMut for Vec<u8> {
        fn set_u8(&mut self, at: usize, value: u8) {
            set(self, at, [value]);
        }
        fn set_u16(&mut self, at: usize, value: u16) {
            set(self, at, value.to_be_bytes());
        }
        fn set_u32(&mut self, at: usize, value: u32) {
            set(self, at, value.to_be_bytes());
        }
        fn set_u64(&mut self, at: usize, value: u64) {
            set(self, at, value.to_be_bytes());
        }
        fn grow(&mut self, bytes: usize) -> bool {
            self.splice(..0, std::iter::repeat_n(0, bytes));
            true
        }
        fn shrink(&mut self, bytes: usize) -> bool {
            let fits = bytes <= Vec::len(self);
            self.drain(..bytes.min(Vec::len(self)));
            fits
        }
        fn truncate(&mut self, bytes: usize) -> bool {
            let fits = bytes <= Vec::len(self);
            Vec::truncate(self, bytes);
            fits
        }
    }
}

impl Packet for [u8] {
    fn u8(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }
    fn u16(&self, at: usize) -> Option<u16> {
        self.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
    }
    fn u32(&self, at: usize) -> Option<u32> {
        self.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
    }
    fn u64(&self, at: usize) -> Option<u64> {
        self.get(at..)?.first_chunk().map(|b| u64::from_be_bytes(*b))
    }
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}
