//! What a balancer knows of the usable endpoints, precomputed.

use gateway_common::maglev;

use crate::config::model::Balance;

use super::Endpoint;

/// The longest round-robin sequence; larger weights are scaled down to fit.
const MAX_SEQUENCE: u64 = 1 << 16;

#[derive(Debug)]
pub enum Table {
    /// No endpoint is usable.
    Empty,
    /// One period of smooth weighted round robin.
    Sequence(Box<[u16]>),
    /// The usable endpoints.
    Scan(Box<[u16]>),
    /// [`maglev::DEFAULT_SIZE`] slots: the same table that the kernel half indexes.
    Maglev(Box<[u16]>),
}

impl Table {
    pub fn build(kind: Balance, endpoints: &[impl Endpoint]) -> Table {
        let usable: Vec<u16> = (0..endpoints.len().min(usize::from(u16::MAX)))
            .filter(|i| endpoints[*i].usable())
            .map(|i| i as u16)
            .collect();
        if usable.is_empty() {
            return Table::Empty;
        }
        match kind {
            Balance::RoundRobin => {
                let weights: Vec<u32> = usable.iter().map(|i| endpoints[usize::from(*i)].weight()).collect();
                Table::Sequence(smooth_sequence(&weights).into_iter().map(|i| usable[i]).collect())
            }
            Balance::LeastConn => Table::Scan(usable.into()),
            Balance::IpHash => {
                let members: Vec<(u64, u32)> = usable
                    .iter()
                    .map(|i| &endpoints[usize::from(*i)])
                    .map(|endpoint| (endpoint.identity(), endpoint.weight()))
                    .collect();
                let mut slots = vec![maglev::NONE; maglev::DEFAULT_SIZE].into_boxed_slice();
                maglev::build(&members, &mut slots);
                // Every weight is at least 1, so no slot stays empty.
                slots
                    .iter_mut()
                    .for_each(|slot| *slot = usable.get(usize::from(*slot)).copied().unwrap_or(usable[0]));
                Table::Maglev(slots)
            }
        }
    }
}

/// Smooth weighted round robin (as nginx orders it): 5,1,1 gives a a b a c a a. One period, as indices.
pub(crate) fn smooth_sequence(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b))).max(1);
    let mut weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) / divisor).collect();
    let total: u64 = weights.iter().sum();
    if total > MAX_SEQUENCE {
        weights.iter_mut().for_each(|weight| *weight = (*weight * MAX_SEQUENCE / total).max(1));
    }
    let total: i64 = weights.iter().sum::<u64>() as i64;
    let mut current = vec![0i64; weights.len()];
    (0..total)
        .map(|_| {
            current.iter_mut().zip(&weights).for_each(|(current, weight)| *current += *weight as i64);
            // The first of equals, as max_by_key gives the last one.
            let best = (0..current.len()).rev().max_by_key(|i| current[*i]).unwrap_or(0);
            current[best] -= total;
            best
        })
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
