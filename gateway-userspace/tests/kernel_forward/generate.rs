//! Packets from a seed: of every kind that forwarding knows, each the beginning of something, its answer, an error about
//! it, a piece of it or damaged.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gateway_common::{
    packet::{self, Parsed, bit},
    verdict::{Action, Reason},
};

use crate::{
    kernel_support::frames::{ACK, SYN, TCP, UDP},
    network::{self, MODES, PORTS, SERVER_ID},
    wire::{DONT, FIN, Ip, MORE, RST},
};

/// Conversations that are remembered for answers and errors.
const TALKS: usize = 200;

type End = (IpAddr, u16);

/// A connection: the packet that a client sent, and as it left for its target.
#[derive(Debug, Clone, Copy)]
struct Talk {
    protocol: u8,
    client: End,
    vip: End,
    /// Of NAT: the target and our end towards it.
    behind: Option<(End, End)>,
}

pub struct Maker {
    rng: fastrand::Rng,
    talks: VecDeque<Talk>,
    /// Later fragments of packets whose first one may have been sent.
    waiting: Vec<Vec<u8>>,
}

impl Maker {
    pub fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), talks: VecDeque::new(), waiting: Vec::new() }
    }

    /// The next packet, and of what kind it is.
    pub fn packet(&mut self) -> (&'static str, Vec<u8>) {
        if !self.waiting.is_empty() && self.rng.u8(..) < 100 {
            let at = self.rng.usize(..self.waiting.len());
            return ("a fragment", self.waiting.swap_remove(at));
        }
        let (what, mut frame) = match self.rng.u32(..100) {
            0..46 => ("a client's packet", self.client()),
            46..64 => ("a reply", self.reply()),
            64..80 => ("an error", self.error()),
            80..85 => ("a ping", self.ping()),
            85..92 => ("a first fragment", self.fragments()),
            _ => ("a stranger", self.stranger()),
        };
        if self.rng.u8(..100) < 8 {
            self.damage(&mut frame);
            return ("a damaged packet", frame);
        }
        (what, frame)
    }

    /// Takes note of what a packet became.
    pub fn learn(&mut self, before: &[u8], reason: Reason, after: &[u8]) {
        let ours = reason.action() == Action::Forward || reason == Reason::Unresolved;
        let (Some(came), true) = (read(before), ours && reason != Reason::Reply) else { return };
        let Some(left) = read(after) else { return };
        let end = |address: gateway_common::source::Address, port| (IpAddr::from(address), port);
        let client = end(came.source, came.source_port);
        let vip = end(came.destination, came.destination_port);
        let behind = (came.protocol == left.protocol && left.source != came.source)
            .then_some((end(left.destination, left.destination_port), end(left.source, left.source_port)));
        if self.talks.len() == TALKS {
            self.talks.pop_front();
        }
        self.talks.push_back(Talk { protocol: came.protocol, client, vip, behind });
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(..of.len())]
    }

    fn percent(&mut self, n: u8) -> bool {
        self.rng.u8(..100) < n
    }

    fn address(&mut self, v6: bool) -> IpAddr {
        // Some clients there is no way back to.
        let (host, lost) = (self.rng.u16(..40), self.percent(4));
        match (v6, lost) {
            (false, false) => Ipv4Addr::new(198, 18, 0, host as u8).into(),
            (false, true) => Ipv4Addr::new(203, 0, 113, host as u8).into(),
            (true, false) => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, host + 1).into(),
            (true, true) => Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, host + 1).into(),
        }
    }

    fn vip(&mut self, v6: bool) -> IpAddr {
        match self.rng.u8(..20) {
            0 => if v6 { "2001:db8:1::fe" } else { "10.1.0.254" }.parse().unwrap(),
            _ => network::vip(self.rng.usize(..MODES.len()), v6),
        }
    }

    /// A header with everything that headers can have.
    fn ip(&mut self, source: IpAddr, destination: IpAddr) -> Ip {
        let mut ip = Ip::new(source, destination);
        ip.id = self.rng.u16(..64);
        if self.percent(4) {
            ip.ttl = self.rng.u8(..3);
        }
        if self.percent(20) {
            ip.tos = self.rng.u8(..);
        }
        if self.percent(50) {
            ip.fragment = DONT;
        }
        if self.percent(8) {
            ip.options = vec![1; 4 * self.rng.usize(1..=10)];
        }
        if self.percent(10) {
            let most = if self.percent(10) { 8 } else { 3 };
            for _ in 0..self.rng.usize(1..=most) {
                ip.extensions.push(self.extension());
            }
        }
        ip
    }

    fn extension(&mut self) -> (u8, Vec<u8>) {
        let kind = self.one(&[0, 43, 60, 51, 135]);
        let units = if self.percent(5) { self.rng.u8(..40) } else { self.rng.u8(..3) };
        let size = if kind == 51 { (usize::from(units) + 2) * 4 } else { (usize::from(units) + 1) * 8 };
        let mut header = vec![0; size];
        header[1] = units;
        (kind, header)
    }

    fn tags(&mut self) -> &'static [u16] {
        const TAGS: [&[u16]; 4] = [&[], &[0x8100], &[0x88a8, 0x8100], &[0x9100, 0x8100, 0x8100]];
        match self.rng.u8(..100) {
            0..75 => TAGS[0],
            75..90 => TAGS[1],
            90..99 => TAGS[2],
            _ => TAGS[3],
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let length = match self.rng.u16(..1000) {
            0..880 => self.rng.usize(..60),
            880..950 => self.rng.usize(1200..1300),
            950..992 => self.rng.usize(1400..1600),
            _ => self.rng.usize(3000..8800),
        };
        let first = self.rng.u8(..);
        (0..length).map(|at| first.wrapping_mul(at as u8 | 1)).collect()
    }

    fn flags(&mut self) -> u8 {
        match self.rng.u8(..20) {
            0..7 => SYN,
            7..15 => ACK,
            15..17 => FIN | ACK,
            17 => RST,
            _ => SYN | ACK,
        }
    }

    /// A new packet of a client, or a further one of a connection.
    fn client(&mut self) -> Vec<u8> {
        let known = self.talks.len();
        if known > 0 && self.percent(50) {
            let talk = self.talks[self.rng.usize(..known)];
            let ip = self.ip(talk.client.0, talk.vip.0);
            return self.segment(&ip, talk.protocol, (talk.client.1, talk.vip.1));
        }
        let v6 = self.rng.bool();
        let (source, destination) = (self.address(v6), self.vip(v6));
        let ip = self.ip(source, destination);
        let own = ["10.1.0.254", "2001:db8:1::fe"].contains(&destination.to_string().as_str());
        let port = if own { 53 } else { self.one(&PORTS) };
        let protocol = if port == 443 { UDP } else { self.one(&[TCP, UDP]) };
        let ports = (4000 + self.rng.u16(..8), port);
        self.segment(&ip, protocol, ports)
    }

    fn segment(&mut self, ip: &Ip, protocol: u8, ports: (u16, u16)) -> Vec<u8> {
        let flags = self.flags();
        let data = if ports.1 == 443 { self.quic() } else { self.data() };
        let mut segment = ip.segment(protocol, ports, flags, &data);
        if protocol == UDP && self.percent(5) {
            segment[6..8].fill(0);
        }
        let tags = self.tags();
        ip.frame(tags, protocol, &segment)
    }

    /// A datagram of QUIC, or something short.
    fn quic(&mut self) -> Vec<u8> {
        let id = SERVER_ID + self.rng.u16(..8);
        let version = self.one(&[0x40, 0x40, 0x40, 0x00, 0xc0]);
        let connection = [version | (id >> 10) as u8, (id >> 2) as u8, (id << 6) as u8, 1, 2, 3, 4, 5];
        let first = self.one(&[0x40, 0xc0, 0xd0, 0xe0, 0xf0]);
        let mut data = vec![first];
        if first & 0x80 != 0 {
            data.extend([0, 0, 0, 1, self.one(&[8, 8, 2, 20])]);
        }
        data.extend(connection);
        data.extend([0; 24]);
        let most = data.len();
        data.truncate(if self.percent(10) { self.rng.usize(..most) } else { most });
        data
    }

    /// From a target, of a connection that it has or of none.
    fn reply(&mut self) -> Vec<u8> {
        let behind: Vec<Talk> = self.talks.iter().filter(|talk| talk.behind.is_some()).copied().collect();
        let Some((target, ours)) =
            (!behind.is_empty()).then(|| self.one(&behind)).and_then(|talk| talk.behind)
        else {
            return self.client();
        };
        let protocol = behind.iter().find(|talk| talk.behind == Some((target, ours))).unwrap().protocol;
        let ip = self.ip(target.0, ours.0);
        let port = if self.percent(5) { self.rng.u16(1000..33_000) } else { ours.1 };
        self.segment(&ip, protocol, (target.1, port))
    }

    /// About a packet that went to a target, or one that a target sent to a client.
    fn error(&mut self) -> Vec<u8> {
        let known = self.talks.len();
        if known == 0 {
            return self.stranger();
        }
        let talk = self.talks[self.rng.usize(..known)];
        let (from, to) = match talk.behind {
            Some((target, ours)) if self.rng.bool() => (ours, target),
            _ => (talk.vip, talk.client),
        };
        let v4 = from.0.is_ipv4();
        let router = if v4 { "198.18.9.9" } else { "2001:db8:c::9:9" }.parse().unwrap();
        let router = if self.percent(30) { to.0 } else { router };
        let quoted = self.ip(from.0, to.0);
        let data = self.data();
        let segment = quoted.segment(talk.protocol, (from.1, to.1), ACK, &data);
        let mut quote = quoted.packet(talk.protocol, &segment);
        let header = quote.len() - segment.len();
        let most = [header + 8, header + 20, 520];
        quote.truncate(if self.percent(5) { self.rng.usize(..quote.len()) } else { self.one(&most) });
        let destination = if self.percent(3) { self.address(!v4) } else { from.0 };
        let ip = self.ip(router, destination);
        let kind = if v4 { self.one(&[3, 3, 11, 12, 4, 0]) } else { self.one(&[1, 2, 3, 4, 127, 129]) };
        let rest = u32::from(self.rng.u16(..1500));
        let message = ip.icmp(kind, self.rng.u8(..5), rest, &quote);
        let tags = self.tags();
        ip.frame(tags, ip.icmp_protocol(), &message)
    }

    fn ping(&mut self) -> Vec<u8> {
        let v6 = self.rng.bool();
        let (source, destination) = (self.address(v6), self.vip(v6));
        let ip = self.ip(source, destination);
        let kind = if v6 { 128 } else { 8 };
        let data = self.data();
        let message = ip.icmp(kind, 0, self.rng.u32(..), &data);
        let tags = self.tags();
        ip.frame(tags, ip.icmp_protocol(), &message)
    }

    /// The first of some fragments; the others wait.
    fn fragments(&mut self) -> Vec<u8> {
        let whole = match self.rng.bool() {
            true => self.client(),
            false => self.reply(),
        };
        let Some(read) = read(&whole) else { return whole };
        let mut ip = self.ip(read.source.into(), read.destination.into());
        let segment = &whole[usize::from(read.l4)..usize::from(read.l3) + read.length as usize];
        ip.fragment = 0;
        let size = match self.percent(10) {
            true => 1480,
            false => 8 * self.rng.usize(3..10),
        };
        let tags = self.tags();
        let mut frames: Vec<Vec<u8>> = segment
            .chunks(size)
            .enumerate()
            .map(|(at, piece)| {
                let more = if (at + 1) * size < segment.len() { MORE } else { 0 };
                let ip = Ip { fragment: (at * size / 8) as u16 | more, ..ip.clone() };
                ip.frame(tags, read.protocol, piece)
            })
            .collect();
        let first = frames.remove(0);
        self.waiting.extend(frames.into_iter().take(6));
        self.waiting.truncate(40);
        first
    }

    /// Nothing of ours, or nearly so.
    fn stranger(&mut self) -> Vec<u8> {
        let v6 = self.rng.bool();
        let (source, mut destination) = (self.address(v6), self.vip(v6));
        if self.percent(50) {
            destination = if v6 { "2001:db8:2::99" } else { "192.0.2.99" }.parse().unwrap();
        }
        let ip = self.ip(source, destination);
        let tags = self.tags();
        match self.rng.u8(..4) {
            0 => ip.frame(tags, 47, &[0; 12]),
            1 => ip.frame(tags, ip.icmp_protocol(), &ip.icmp(13, 0, 7, b"other")),
            _ => {
                let protocol = self.one(&[TCP, UDP]);
                self.segment(&ip, protocol, (4000, 8))
            }
        }
    }

    /// Other bytes in the headers, or an end that is missing.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        if self.percent(25) {
            frame.truncate(self.rng.usize(14..=frame.len()));
            return;
        }
        let most = frame.len().min(90);
        for _ in 0..self.rng.usize(1..4) {
            frame[self.rng.usize(12..most)] = self.rng.u8(..);
        }
    }
}

/// What the parser reads of a packet that has ports and is no fragment.
fn read(frame: &[u8]) -> Option<Parsed> {
    let mut parsed = Parsed::default();
    packet::parse(frame, false, &mut parsed).ok()?;
    (parsed.bits & (bit::PORTS | bit::FRAGMENT) == bit::PORTS).then_some(parsed)
}
