//! Every way a packet can leave the kernel half: one [`Reason`] a packet, always exactly one.
//!
//! The id is the index of a counter and is part of the map layout: add reasons at the end of the list, never
//! renumber. Names are what metrics, logs and the command line show.

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Pass,
    Drop,
    /// Answered: what was made of the packet goes back where it came from.
    Tx,
    /// Sent on to another host.
    Forward,
}

impl Action {
    /// As shown to users and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Tx => "tx",
            Self::Forward => "forward",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $id:literal, $name:literal, $action:ident;)+) => {
        /// Why a packet was passed or dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $id,)+
        }

        impl Reason {
            /// All of them, in the order of their ids.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As shown to users and in metric labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start()),+ }
            }

            /// What happens to a packet with this reason.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action),+ }
            }

            /// The reason with this id.
            pub const fn from_id(id: u8) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Passed every check.
    Ok = 0, "ok", Pass;
    /// Not IPv4 or IPv6: ARP, LLDP, PPPoE and the like are not ours to judge.
    NotIp = 1, "not_ip", Pass;
    /// The source is on the exempt list: neither banned nor limited.
    Exempt = 2, "exempt", Pass;
    /// Passed by the shared bucket: the source is new and the budget of new sources was spent.
    OkShared = 3, "ok_shared", Pass;
    /// The program has no settings yet; cannot happen once userspace has attached it.
    NoSettings = 4, "no_settings", Pass;
    /// The frame ends inside a header.
    Truncated = 5, "truncated", Drop;
    /// Wrong IP version or an IPv4 header shorter than 20 bytes.
    BadIpHeader = 6, "bad_ip_header", Drop;
    /// The IP length is shorter than its header or longer than the frame.
    BadIpLength = 7, "bad_ip_length", Drop;
    /// A fragment that cannot be honest: tiny first fragment, TCP at offset 8, odd length, past 64 KiB.
    BadFragment = 8, "bad_fragment", Drop;
    /// More than two VLAN tags, or more IPv6 extension headers than anyone needs.
    TooManyHeaders = 9, "too_many_headers", Drop;
    /// TCP data offset below 5 or beyond the packet.
    BadTcpHeader = 10, "bad_tcp_header", Drop;
    /// SYN with FIN or RST, or none of SYN, ACK, FIN, RST.
    BadTcpFlags = 11, "bad_tcp_flags", Drop;
    /// UDP length below 8 or beyond the packet.
    BadUdpLength = 12, "bad_udp_length", Drop;
    /// A source that no packet from outside can have: multicast, broadcast, loopback, unspecified.
    MartianSource = 13, "martian_source", Drop;
    /// The source is in a blocked prefix.
    Blocked = 14, "blocked", Drop;
    /// The source, or a prefix around it, is banned.
    Banned = 15, "banned", Drop;
    /// Over the source's packet bucket.
    LimitPackets = 16, "limit_packets", Drop;
    /// Over the source's bucket of new connections.
    LimitNew = 17, "limit_new", Drop;
    /// A source without a bucket of its own, over the bucket it shares with others of the same hash.
    LimitShared = 18, "limit_shared", Drop;
    /// To a target of an L4 service.
    Service = 19, "service", Forward;
    /// To the target that the table says: the table of connections had no room to remember it.
    ServiceUnpinned = 20, "service_unpinned", Forward;
    /// From a target, back to the client (NAT).
    Reply = 21, "reply", Forward;
    /// An ICMP error, to where the packet went that it is about.
    IcmpError = 22, "icmp_error", Forward;
    /// A ping of a virtual address, answered.
    Echo = 23, "echo", Tx;
    /// Too big for the way to its target: the sender is told (RFC 1191, RFC 8201).
    TooBig = 24, "too_big", Tx;
    /// On its way to or from a target, but the kernel has to find the neighbour first or to cut the packet.
    Unresolved = 25, "unresolved", Pass;
    /// A service without a usable target.
    NoTarget = 26, "no_target", Drop;
    /// There is no route to the target, or back to the client.
    NoRoute = 27, "no_route", Drop;
    /// The next hop's MAC address is not known, and the packet cannot be left to the kernel (DSR).
    NoNeighbour = 28, "no_neighbour", Drop;
    /// Its time to live has run out.
    TtlExpired = 29, "ttl_expired", Drop;
    /// Part of a connection, or of a fragmented packet, that nothing is known of (NAT).
    NoFlow = 30, "no_flow", Drop;
    /// The table of connections or the ports towards the target are used up (NAT).
    FlowsFull = 31, "flows_full", Drop;
    /// There was no room to rewrite the packet.
    NoRoom = 32, "no_room", Drop;
    /// Over the source's bucket of bytes.
    LimitBytes = 33, "limit_bytes", Drop;
    /// Over a limit whose mode is soft, without overload.
    OkSoft = 34, "ok_soft", Pass;
    /// A new connection to this host in a SYN flood, answered with a SYN cookie.
    SynCookie = 35, "syn_cookie", Tx;
    /// A new connection to a service in a SYN flood: its client has to show that it is there.
    SynChallenge = 36, "syn_challenge", Tx;
    /// The client's answer to that: its source is verified.
    SynVerified = 37, "syn_verified", Drop;
}

impl Reason {
    /// The counter's index.
    #[inline(always)]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Whether [`crate::packet`] gave this reason because the packet breaks a rule of its protocol.
    pub const fn is_malformed(self) -> bool {
        matches!(self.id(), 5..=13)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::REASONS;

    #[test]
    fn ids_are_dense_unique_and_fit_the_counter_map() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::from(reason.id()), index);
            assert_eq!(Reason::from_id(reason.id()), Some(*reason));
        }
        assert!(Reason::ALL.len() <= REASONS as usize);
        assert_eq!(Reason::from_id(Reason::ALL.len() as u8), None);
    }

    #[test]
    fn names_are_unique_snake_case() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn every_malformed_packet_is_dropped() {
        for reason in Reason::ALL.iter().filter(|r| r.is_malformed()) {
            assert_eq!(reason.action(), Action::Drop);
        }
    }
}
