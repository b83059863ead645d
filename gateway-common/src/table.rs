//! Exact buckets of sources in a set-associative table that spoofed sources cannot turn over.
//!
//! A bucket whose words are all past is full, and a full bucket is no different from one that is not there: to
//! replace it loses nothing. One that is not full is never replaced. So nobody resets a bucket by sending from other
//! addresses, and room is needed only for the sources seen within the time one packet's token takes to come back.
//! A source has four places, in two sets of a cache line each; to take one is to exchange its key. Where none is
//! free it is judged by a wider bucket that it shares with others of its hash: the table fails neither open nor shut.

use crate::{bucket::Limit, hash};

/// Sets of the table; a power of two.
pub const SETS: u32 = 1 << 17;
/// Buckets for sources that find no place; a power of two.
pub const SHARED: u32 = 1 << 18;

/// A bucket: `key` says whose, the others when each limit's tokens will be back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Way {
    pub key: u64,
    pub packets_tat: u64,
    pub new_tat: u64,
    pub bytes_tat: u64,
}

/// What a bucket refused, at the bucket's index in a map of its own: only drops touch it. For people, and may be a
/// little off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Drops {
    /// The source's key; zero: nothing was dropped here yet.
    pub source: u64,
    /// At which service it was over the limit; zero: at the limit for everything.
    pub service: u64,
    pub dropped: u64,
    /// When the first of these was dropped.
    pub since_ns: u64,
}

/// Two buckets in one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Set(pub [Way; 2]);

#[cfg(feature = "user")]
#[allow(unsafe_code)]
// SAFETY: `repr(C)`, `Copy`, made of integers only and without padding (size asserted below).
unsafe impl aya::Pod for Set {}
#[cfg(feature = "user")]
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl aya::Pod for Drops {}

const _: () = assert!(size_of::<Set>() == 64 && size_of::<Drops>() == 32);
const _: () = assert!(SETS.is_power_of_two() && SHARED.is_power_of_two());

/// The index of a way's [`Drops`].
#[inline(always)]
pub const fn drops_index(set: u32, way: u32) -> u32 {
    (set & (SETS - 1)) * 2 + (way & 1)
}

/// Where a source's bucket can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    pub sets: [u32; 2],
    pub shared: u32,
}

/// The places of a key. The seed is random, so nobody can choose addresses that meet.
#[inline(always)]
pub const fn places(seed: u64, key: u64) -> Places {
    let hash = hash::of_key(seed, key);
    Places {
        sets: [hash as u32 & (SETS - 1), (hash >> 32) as u32 & (SETS - 1)],
        shared: (hash >> 46) as u32 & (SHARED - 1),
    }
}

/// Whether a bucket may be given to another source at `now`.
#[inline(always)]
pub const fn is_full(way: &Way, now: u64) -> bool {
    way.packets_tat <= now && way.new_tat <= now && way.bytes_tat <= now
}

/// The limit of a shared bucket: four times the source's and at least 32 a second (of bytes 2 MiB), which single
/// packets from eight million sources a second do not exhaust.
#[inline(always)]
pub const fn shared(limit: &Limit) -> Limit {
    const SLOWEST_NS: u64 = 1_000_000_000 / 32;
    const DEEPEST_NS: u64 = 1_000_000_000;
    let quarter = if limit.interval_ns < 4 { 1 } else { limit.interval_ns / 4 };
    let interval_ns = if quarter > SLOWEST_NS { SLOWEST_NS } else { quarter };
    let deep = if limit.depth_ns > DEEPEST_NS { DEEPEST_NS } else { limit.depth_ns };
    let depth_ns = if deep < 17 * interval_ns { 17 * interval_ns } else { deep };
    Limit { interval_ns, depth_ns, horizon_ns: 2 * depth_ns + 100_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_spread_evenly_and_by_seed() {
        let mut hits = vec![0u8; SETS as usize];
        for key in 0..u64::from(SETS) {
            hits[places(7, key).sets[0] as usize] += 1;
        }
        assert!(hits.iter().all(|&n| n < 14), "{:?}", hits.iter().max());
        assert_ne!(places(1, 5), places(2, 5));
    }

    #[test]
    fn a_zeroed_way_is_full() {
        assert!(is_full(&Way::default(), 1));
        assert!(!is_full(&Way { new_tat: 2, ..Way::default() }, 1));
    }

    proptest! {
        #[test]
        fn a_shared_bucket_is_never_narrower(rate in 0.001f64..1e6, burst in 1u64..100_000) {
            let limit = Limit::per_second(rate, burst);
            let wide = shared(&limit);
            prop_assert!(wide.interval_ns <= limit.interval_ns);
            prop_assert!(wide.interval_ns <= 1_000_000_000 / 32);
            prop_assert!(wide.burst() >= 17);
        }
    }
}
