//! A list of prefixes, to be asked often.

use std::net::IpAddr;

use super::Prefix;

/// Prefixes as the config lists them, and as ranges to look an address up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefixes {
    listed: Vec<Prefix>,
    /// First and last address. Sorted, without overlaps.
    ranges: Vec<(Key, Key)>,
}

/// IP version and address.
type Key = (u8, u128);

impl Prefixes {
    pub fn new(listed: Vec<Prefix>) -> Self {
        let mut all: Vec<(Key, Key)> = listed.iter().map(range).collect();
        all.sort_unstable();
        let mut ranges: Vec<(Key, Key)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Prefixes { listed, ranges }
    }

    pub fn listed(&self) -> &[Prefix] {
        &self.listed
    }

    /// `addr` may be IPv4-mapped. Prefixes of IPv6 have no IPv4 addresses.
    pub fn contain(&self, addr: IpAddr) -> bool {
        let key = key(addr.to_canonical());
        let after = self.ranges.partition_point(|(first, _)| *first <= key);
        after.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|(_, last)| key <= *last)
    }
}

fn key(addr: IpAddr) -> Key {
    match addr {
        IpAddr::V4(v4) => (4, v4.to_bits().into()),
        IpAddr::V6(v6) => (6, v6.to_bits()),
    }
}

fn range(prefix: &Prefix) -> (Key, Key) {
    let (version, first) = key(prefix.addr);
    let free = if version == 4 { 32 - prefix.len } else { 128 - prefix.len };
    let last = first | u128::MAX.checked_shr(128 - u32::from(free)).unwrap_or(0);
    ((version, first), (version, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_when_any_prefix_has_it() {
        let texts =
            ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "2001:db8::/32", "fd00::/8", "255.255.255.255"];
        let listed: Vec<Prefix> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let prefixes = Prefixes::new(listed.clone());
        for text in [
            "9.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "11.0.0.0",
            "192.0.2.0",
            "192.0.2.1",
            "192.0.2.2",
            "::ffff:10.2.3.4",
            "2001:db7:ffff::",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "fd12::1",
            "::",
            "255.255.255.255",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            let addr: IpAddr = text.parse().unwrap();
            let expected = listed.iter().any(|prefix| prefix.contains(addr));
            assert_eq!(prefixes.contain(addr), expected, "{text}");
        }
        assert!(!Prefixes::new(Vec::new()).contain("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn everything_of_ipv6_has_nothing_of_ipv4() {
        let six = Prefixes::new(vec!["::/0".parse().unwrap()]);
        assert!(six.contain("2001:db8::1".parse().unwrap()) && six.contain("::".parse().unwrap()));
        assert!(!six.contain("10.0.0.1".parse().unwrap()));
        let four = Prefixes::new(vec!["0.0.0.0/0".parse().unwrap()]);
        assert!(four.contain("10.0.0.1".parse().unwrap()) && !four.contain("::1".parse().unwrap()));
    }
}
