//! Seeded 64-bit hashes, cheap enough for every packet: two multiplications a word, no 128-bit arithmetic.
//!
//! The kernel half steers connections and userspace balances `ip-hash` upstreams by the same function, so a
//! source that is pinned to a worker is pinned in the same way to an endpoint.

use crate::source::Address;

/// A bijection of 64-bit words in which every input bit moves about half of the output bits (Pelle Evensen's
/// "rrmxmx" family, shortened to multiply-xorshift steps that BPF has instructions for).
#[inline(always)]
pub const fn mix(word: u64) -> u64 {
    let mut x = word ^ (word >> 32);
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

/// The hash of a bucket's key.
#[inline(always)]
pub const fn of_key(seed: u64, key: u64) -> u64 {
    mix(key ^ seed)
}

/// An address as one word. What it is for IPv4 and any seed no two addresses share.
#[inline(always)]
const fn word(seed: u64, address: Address) -> u64 {
    address.lo ^ (address.hi ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The hash of a whole address; IPv4 is hashed as its mapped IPv6 address, so both spellings agree.
#[inline(always)]
pub const fn of_address(seed: u64, address: Address) -> u64 {
    mix(word(seed, address))
}

/// The hash of a connection: which target it goes to.
#[inline(always)]
pub const fn of_connection(
    seed: u64,
    source: Address,
    source_port: u16,
    destination: Address,
    destination_port: u16,
) -> u64 {
    // Above an IPv4 address, whose upper half says nothing.
    let ports = (source_port as u64) << 48 | (destination_port as u64) << 32;
    mix(word(0, destination) ^ mix(word(seed, source) ^ ports))
}

/// Spreads a hash over `0..n` without a division, using its upper half. `n` must not be zero.
#[inline(always)]
pub const fn bucket_of(hash: u64, n: u32) -> u32 {
    (((hash >> 32) * n as u64) >> 32) as u32
}

/// The hash of some bytes, for names of endpoints.
pub fn of_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed ^ bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn both_spellings_of_an_ipv4_address_hash_alike() {
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        let plain = Address::from(IpAddr::V4(v4));
        let mapped = Address::from(IpAddr::V6(v4.to_ipv6_mapped()));
        assert_eq!(of_address(9, plain), of_address(9, mapped));
    }

    #[test]
    fn neighbouring_addresses_spread_evenly_over_workers() {
        for seed in [0, 1, 0xdead_beef] {
            let mut workers = [0u32; 7];
            for host in 0..7000u32 {
                let address = Address::from(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + host)));
                workers[bucket_of(of_address(seed, address), 7) as usize] += 1;
            }
            assert!(workers.iter().all(|n| (850..1150).contains(n)), "{workers:?}");
        }
    }

    #[test]
    fn one_bit_of_input_moves_about_half_of_the_output() {
        for bit in 0..64 {
            let moved = (0..64u64).map(|i| (mix(i) ^ mix(i ^ (1 << bit))).count_ones()).sum::<u32>();
            assert!((64 * 24..64 * 40).contains(&moved), "bit {bit}: {moved}");
        }
    }

    #[test]
    fn names_that_differ_hash_apart() {
        assert_ne!(of_bytes(0, b"10.0.0.1:80"), of_bytes(0, b"10.0.0.2:80"));
        assert_ne!(of_bytes(0, b"a"), of_bytes(0, b"a\0"));
    }
}
