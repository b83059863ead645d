//! Maglev hashing (Eisenbud et al., NSDI 2016): a table from hash to endpoint in which every endpoint has its
//! share of slots and few slots change hands when one comes or goes.
//!
//! Built in userspace and read by both halves. The table depends on the set of endpoints, not on their order:
//! each is identified by the hash of its name, and entries are positions in the caller's list.

/// A slot of a table without endpoints.
pub const NONE: u16 = u16::MAX;

/// The size used for L4 services: large enough for 650 endpoints at 1 % imbalance.
pub const DEFAULT_SIZE: usize = 65_537;

/// Primes near powers of two.
const SIZES: [usize; 5] = [4093, 8191, 16_381, 32_749, DEFAULT_SIZE];

/// The smallest good table size for `endpoints`: a prime of at least a hundred slots each.
pub const fn size_for(endpoints: usize) -> usize {
    let mut index = 0;
    while index < SIZES.len() - 1 && SIZES[index] < endpoints * 100 {
        index += 1;
    }
    SIZES[index]
}

/// The endpoint for a hash, as a position in the list the table was built from.
#[inline(always)]
pub fn lookup(table: &[u16], hash: u64) -> Option<u16> {
    let slot = hash.checked_rem(table.len() as u64)?;
    table.get(slot as usize).copied().filter(|&endpoint| endpoint != NONE)
}

/// Fills `table`, whose length must be a prime (see [`size_for`]), from the endpoints' `(hash of the name, weight)`.
/// Endpoints of weight zero get no slots; only the first 65,535 endpoints are used.
#[cfg(any(test, feature = "user"))]
pub fn build(endpoints: &[(u64, u32)], table: &mut [u16]) {
    struct Turn {
        endpoint: u16,
        weight: u64,
        /// Rounds' worth of weight after which this endpoint picks next.
        due: u64,
        at: usize,
        step: usize,
    }

    table.fill(NONE);
    let size = table.len();
    if size < 2 {
        return;
    }
    let mut turns: Vec<(u64, Turn)> = endpoints
        .iter()
        .take(usize::from(NONE))
        .enumerate()
        .filter(|(_, (_, weight))| *weight > 0)
        .map(|(endpoint, &(name, weight))| {
            let at = (crate::hash::mix(name ^ 0x6d61_676c_6576_0001) % size as u64) as usize;
            let step = 1 + (crate::hash::mix(name ^ 0x6d61_676c_6576_0002) % (size as u64 - 1)) as usize;
            (name, Turn { endpoint: endpoint as u16, weight: u64::from(weight), due: 0, at, step })
        })
        .collect();
    // Who picks first must not depend on where it stands in the config.
    turns.sort_by_key(|(name, turn)| (*name, turn.endpoint));
    let Some(heaviest) = turns.iter().map(|(_, turn)| turn.weight).max() else { return };

    let mut free = size;
    for round in 1u64.. {
        for (_, turn) in &mut turns {
            // The heaviest picks every round, one of half its weight every other.
            if round * turn.weight < turn.due {
                continue;
            }
            turn.due += heaviest;
            while table[turn.at] != NONE {
                turn.at = (turn.at + turn.step) % size;
            }
            table[turn.at] = turn.endpoint;
            free -= 1;
            if free == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    fn endpoints(n: usize) -> Vec<(u64, u32)> {
        (0..n).map(|i| (hash::of_bytes(0, format!("10.0.0.{i}:80").as_bytes()), 1)).collect()
    }

    fn table(endpoints: &[(u64, u32)], size: usize) -> Vec<u16> {
        let mut table = vec![0; size];
        build(endpoints, &mut table);
        table
    }

    /// Where each of 10,000 keys goes, by the endpoint's name.
    fn assign(endpoints: &[(u64, u32)], size: usize) -> Vec<u64> {
        let table = table(endpoints, size);
        (0..10_000u64)
            .map(|key| endpoints[usize::from(lookup(&table, hash::mix(key)).expect("an endpoint"))].0)
            .collect()
    }

    #[test]
    fn removing_one_of_ten_moves_at_most_12_percent_and_adding_it_back_restores_all() {
        for size in [size_for(10), DEFAULT_SIZE] {
            let all = endpoints(10);
            let before = assign(&all, size);
            for gone in 0..10 {
                let mut fewer = all.clone();
                fewer.remove(gone);
                let after = assign(&fewer, size);
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
                assert!(moved <= 1200, "size {size}, without {gone}: {moved} of 10000 moved");
                fewer.insert(3, all[gone]);
                assert_eq!(assign(&fewer, size), before);
            }
        }
    }

    #[test]
    fn order_does_not_matter() {
        let mut list = endpoints(10);
        let before = assign(&list, 4093);
        list.reverse();
        assert_eq!(assign(&list, 4093), before);
    }

    #[test]
    fn endpoints_share_within_15_percent() {
        for n in [2, 3, 10, 40] {
            let list = endpoints(n);
            let mut hits = std::collections::HashMap::new();
            for name in assign(&list, size_for(n)) {
                *hits.entry(name).or_insert(0u32) += 1;
            }
            let mean = 10_000.0 / n as f64;
            // Ten thousand keys over 40 endpoints vary by themselves: allow three standard deviations more.
            let most = mean * 0.15 + 3.0 * mean.sqrt();
            assert!(hits.values().all(|&h| (f64::from(h) - mean).abs() <= most), "{n}: {hits:?}");
            assert_eq!(hits.len(), n);
        }
    }

    #[test]
    fn weights_are_respected() {
        let mut list = endpoints(3);
        for ((_, weight), want) in list.iter_mut().zip([1, 2, 5]) {
            *weight = want;
        }
        let table = table(&list, DEFAULT_SIZE);
        for (endpoint, share) in [(0, 1.0 / 8.0), (1, 2.0 / 8.0), (2, 5.0 / 8.0)] {
            let slots = table.iter().filter(|&&e| e == endpoint).count() as f64 / table.len() as f64;
            assert!((slots / share - 1.0).abs() < 0.01, "{endpoint}: {slots} of {share}");
        }
    }

    #[test]
    fn no_endpoints_or_no_weight_finds_none() {
        assert_eq!(lookup(&table(&[], 4093), 7), None);
        assert_eq!(lookup(&table(&[(1, 0)], 4093), 7), None);
        assert_eq!(lookup(&[], 7), None);
    }

    #[test]
    fn every_size_is_a_prime() {
        for size in SIZES {
            assert!((2..).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
        }
    }
}
