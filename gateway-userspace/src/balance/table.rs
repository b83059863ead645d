//! What a balancer needs to know of the endpoints that take part, precomputed.

use gateway_common::maglev;

use crate::config::model::Balance;

use super::{Endpoint, group::Group};

/// The longest round-robin sequence; larger weights are scaled down to fit.
const MAX_SEQUENCE: u64 = 1 << 16;

/// An endpoint that takes part, and its weight at this moment: while it starts slowly, less than the config's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub endpoint: u16,
    pub weight: u32,
}

#[derive(Debug)]
pub enum Table {
    /// No endpoint is usable.
    Empty,
    /// One period of smooth weighted round robin.
    Sequence(Box<[u16]>),
    /// Those that take part.
    Scan(Box<[Share]>),
    /// Those that take part, to be drawn by weight.
    Draw { shares: Box<[Share]>, sums: Box<[u64]>, least_loaded: bool },
    /// [`maglev::DEFAULT_SIZE`] slots: the same table that the kernel half indexes.
    Maglev(Box<[u16]>),
}

impl Table {
    pub fn build(kind: Balance, group: &Group, endpoints: &[impl Endpoint]) -> Table {
        let shares = &group.shares;
        let Some(first) = shares.first() else { return Table::Empty };
        match kind {
            Balance::RoundRobin => {
                let weights: Vec<u32> = shares.iter().map(|share| share.weight).collect();
                Table::Sequence(smooth_sequence(&weights).into_iter().map(|i| shares[i].endpoint).collect())
            }
            Balance::LeastConn => Table::Scan(shares.clone().into()),
            Balance::P2c | Balance::Random => {
                let sums = shares.iter().scan(0u64, |sum, share| {
                    *sum += u64::from(share.weight);
                    Some(*sum)
                });
                Table::Draw {
                    sums: sums.collect(),
                    shares: shares.clone().into(),
                    least_loaded: kind == Balance::P2c,
                }
            }
            Balance::IpHash | Balance::Maglev => {
                let members: Vec<(u64, u32)> = shares
                    .iter()
                    .map(|share| (endpoints[usize::from(share.endpoint)].identity(), share.weight))
                    .collect();
                let mut slots = vec![maglev::NONE; maglev::DEFAULT_SIZE].into_boxed_slice();
                maglev::build(&members, &mut slots);
                // Every weight is at least 1, so no slot stays empty.
                slots.iter_mut().for_each(|slot| {
                    *slot = shares.get(usize::from(*slot)).unwrap_or(first).endpoint;
                });
                Table::Maglev(slots)
            }
        }
    }
}

/// Smooth weighted round robin (as nginx orders it): 5,1,1 gives a a b a c a a. One period, as indices.
pub(crate) fn smooth_sequence(weights: &[u32]) -> Vec<usize> {
    let divisor = divisor(weights);
    let mut weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight / divisor)).collect();
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

/// The greatest common one; at least 1.
pub fn divisor(weights: &[u32]) -> u32 {
    weights.iter().fold(0, |a, b| gcd(a, *b)).max(1)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
