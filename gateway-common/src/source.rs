//! Who sent it: addresses as two words, and the 8-byte key under which a source has its bucket and its ban.
//!
//! IPv4 is kept as its mapped IPv6 address, so one pair of words serves both. A bucket's key is the IPv4 address
//! tagged with 32 ones (an IPv6 source cannot start so: it would be multicast), or the upper bits of an IPv6 one.

/// An address as two big-endian words in host order; IPv4 is `::ffff:a.b.c.d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Address {
    pub hi: u64,
    pub lo: u64,
}

const V4_MAPPED: u64 = 0xffff_0000_0000;
const V4_KEY: u64 = 0xffff_ffff_0000_0000;
const LINK_LOCAL: u64 = 0xfe80;

impl Address {
    #[inline(always)]
    pub const fn v4(address: u32) -> Self {
        Self { hi: 0, lo: V4_MAPPED | address as u64 }
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.hi == 0 && self.lo >> 32 == 0xffff
    }

    /// Network byte order, as the LPM tries and wire formats have it.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        let (hi, lo) = (self.hi.to_be_bytes(), self.lo.to_be_bytes());
        [
            hi[0], hi[1], hi[2], hi[3], hi[4], hi[5], hi[6], hi[7], lo[0], lo[1], lo[2], lo[3], lo[4], lo[5],
            lo[6], lo[7],
        ]
    }

    /// The key of the bucket: `ipv6_mask` has ones where an IPv6 source's upper half counts.
    ///
    /// Link-local sources all share one /64, so there the interface identifier is the source: otherwise one
    /// neighbour could spend the tokens that another needs for neighbour discovery.
    #[inline(always)]
    pub const fn key(&self, ipv6_mask: u64) -> u64 {
        if self.is_v4() {
            V4_KEY | (self.lo & 0xffff_ffff)
        } else if self.hi >> 54 == LINK_LOCAL >> 6 {
            (LINK_LOCAL << 48) | ((self.lo ^ (self.lo >> 48)) & 0xffff_ffff_ffff)
        } else {
            self.hi & ipv6_mask
        }
    }
}

/// The mask for [`Address::key`]: `bits` (at most 64) of an IPv6 source share one bucket.
pub const fn ipv6_mask(bits: u8) -> u64 {
    if bits == 0 {
        0
    } else if bits >= 64 {
        u64::MAX
    } else {
        !(u64::MAX >> bits)
    }
}

/// The IPv4 address behind a key, if it is one's.
pub const fn key_v4(key: u64) -> Option<u32> {
    if key >> 32 == 0xffff_ffff { Some(key as u32) } else { None }
}

/// Tag of an IPv4 source's key at one service; the service is in the next 16 bits, the address below.
const SERVICE_V4: u64 = 0xfffe << 48;
/// Tag of an IPv6 source's key at one service; a hash of both is below.
const SERVICE_V6: u64 = 0xfffd << 48;

/// The key of a source's bucket at one service; service 0 stands for the limit for everything.
#[inline(always)]
pub const fn service_key(seed: u64, key: u64, service: u16) -> u64 {
    if service == 0 {
        key
    } else if key_v4(key).is_some() {
        SERVICE_V4 | (service as u64) << 32 | (key & 0xffff_ffff)
    } else {
        SERVICE_V6 | crate::hash::of_key(seed ^ ((service as u64) << 48), key) >> 16
    }
}

/// The source and the service behind a key, as far as it tells: not those of IPv6 sources at a service.
pub const fn service_key_parts(key: u64) -> Option<(u64, u16)> {
    match key >> 48 {
        0xfffe => Some((V4_KEY | (key & 0xffff_ffff), (key >> 32) as u16)),
        0xfffd => None,
        _ => Some((key, 0)),
    }
}

/// Whether a key stands for one link-local neighbour, whose whole address the key does not hold.
pub const fn key_is_link_local(key: u64) -> bool {
    key >> 48 == LINK_LOCAL
}

#[cfg(any(test, feature = "user"))]
mod std_impls {
    use super::Address;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    impl From<IpAddr> for Address {
        fn from(address: IpAddr) -> Self {
            match address {
                IpAddr::V4(v4) => Self::v4(v4.to_bits()),
                IpAddr::V6(v6) => {
                    let bits = v6.to_bits();
                    Self { hi: (bits >> 64) as u64, lo: bits as u64 }
                }
            }
        }
    }

    impl From<Address> for IpAddr {
        fn from(address: Address) -> Self {
            if address.is_v4() {
                Self::V4(Ipv4Addr::from_bits(address.lo as u32))
            } else {
                Self::V6(Ipv6Addr::from_bits((u128::from(address.hi) << 64) | u128::from(address.lo)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().expect("an address"))
    }

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["10.1.2.3", "2001:db8::1", "::1", "255.255.255.255"] {
            assert_eq!(IpAddr::from(address(text)).to_string(), text);
        }
    }

    #[test]
    fn all_addresses_of_one_ipv6_prefix_share_a_key_and_no_others_do() {
        let mask = ipv6_mask(64);
        assert_eq!(address("2001:db8::1").key(mask), address("2001:db8::ffff:1").key(mask));
        assert_ne!(address("2001:db8::1").key(mask), address("2001:db8:0:1::1").key(mask));
        let mask = ipv6_mask(48);
        assert_eq!(address("2001:db8::1").key(mask), address("2001:db8:0:1::1").key(mask));
    }

    #[test]
    fn ipv4_keys_differ_by_address_and_from_every_unicast_ipv6_key() {
        let mask = ipv6_mask(64);
        assert_eq!(key_v4(address("10.0.0.1").key(mask)), Some(0x0a00_0001));
        assert_ne!(address("10.0.0.1").key(mask), address("10.0.0.2").key(mask));
        assert_eq!(key_v4(address("2001:db8::1").key(mask)), None);
    }

    #[test]
    fn keys_at_services_differ_by_source_and_service_and_tell_ipv4_sources() {
        let (v4, v6) = (address("10.0.0.1").key(u64::MAX), address("2001:db8::1").key(u64::MAX));
        for key in [v4, v6] {
            let all = [0, 1, 2, 4095].map(|service| service_key(7, key, service));
            assert!(all.iter().enumerate().all(|(at, one)| !all[..at].contains(one)));
            assert_eq!(all[0], key);
        }
        assert_eq!(service_key_parts(service_key(7, v4, 300)), Some((v4, 300)));
        assert_eq!(service_key_parts(v6), Some((v6, 0)));
        assert_eq!(service_key_parts(service_key(7, v6, 300)), None);
    }

    #[test]
    fn link_local_neighbours_have_buckets_of_their_own() {
        let mask = ipv6_mask(64);
        assert_ne!(address("fe80::1").key(mask), address("fe80::2").key(mask));
        assert!(key_is_link_local(address("fe80::1").key(mask)));
    }
}
