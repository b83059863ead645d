//! IP prefixes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::{UnitError, quote};

/// An IP prefix with its host bits zero. IPv4-mapped IPv6 is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    pub addr: IpAddr,
    pub len: u8,
}

impl Prefix {
    /// Host bits must be zero and `len` at most 32 or 128. ::ffff:10.0.0.0/104 becomes 10.0.0.0/8.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, UnitError> {
        let most = bits(addr);
        if len > most {
            return Err(UnitError::new(format!("the prefix length /{len} is over /{most}")));
        }
        let base = mask(addr, len);
        if base != addr {
            let message = format!("{addr}/{len} has host bits set");
            return Err(UnitError::new(message)
                .hint(format!("write \"{base}/{len}\", or \"{addr}\" for the one address")));
        }
        Ok(match addr {
            IpAddr::V6(v6) if len >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => Prefix { addr: v4.into(), len: len - 96 },
                None => Prefix { addr, len },
            },
            addr => Prefix { addr, len },
        })
    }

    /// The prefix of so many bits that an address is in.
    pub fn new_masked(addr: IpAddr, len: u8) -> Self {
        let addr = addr.to_canonical();
        let len = len.min(bits(addr));
        Prefix { addr: mask(addr, len), len }
    }

    /// The prefix of this one address.
    pub fn host(addr: IpAddr) -> Self {
        let addr = addr.to_canonical();
        Prefix { addr, len: bits(addr) }
    }

    /// `addr` may be IPv4-mapped. ::/0 has no IPv4 addresses.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_ipv4() == self.addr.is_ipv4() && mask(addr, self.len) == self.addr
    }

    /// Whether every address of `other` is in this one.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn mask(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & keep).into()
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & keep).into()
        }
    }
}

impl FromStr for Prefix {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong =
            || UnitError::new(format!("expected a prefix such as \"10.0.0.0/8\", found {}", quote(text)));
        let Some((addr, len)) = text.split_once('/') else {
            let addr: IpAddr = text.parse().map_err(|_| wrong())?;
            return Ok(Prefix::host(addr));
        };
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let digits = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
        let len = len.parse().ok().filter(|_| digits);
        Prefix::new(addr, len.ok_or_else(wrong)?)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}
