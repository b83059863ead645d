//! Endpoints by lot.

use super::{Endpoint, Tried, table::Share};

/// Below this many microseconds, latencies tell nothing about load.
const NOISE: u64 = 1000;

/// One by lot, by weight. Past those that were tried, the next in line.
pub fn random(shares: &[Share], sums: &[u64], tried: Tried) -> Option<usize> {
    let first = draw(sums)?;
    (first..shares.len())
        .chain(0..first)
        .map(|place| usize::from(shares[place].endpoint))
        .find(|endpoint| !tried.has(*endpoint))
}

/// Two different ones by lot, of which the one that costs less is taken (Mitzenmacher, "The Power of Two Choices in
/// Randomized Load Balancing", 2001); the cost is latency times load. About the same cost goes to the first one, so
/// that weights hold.
pub fn better_of_two(
    shares: &[Share],
    sums: &[u64],
    endpoints: &[impl Endpoint],
    tried: Tried,
) -> Option<usize> {
    let one = draw(sums)?;
    let two = draw_other(shares, sums, one).unwrap_or(one);
    let endpoint = |place: usize| usize::from(shares[place].endpoint);
    let cost = |place: usize| {
        let endpoint = &endpoints[endpoint(place)];
        // Requests under way weigh by weight; an idle endpoint costs its latency.
        let load = 1.0 + f64::from(endpoint.active()) / f64::from(shares[place].weight);
        (endpoint.latency() + NOISE) as f64 * load
    };
    let better = if cost(two) * 1.25 < cost(one) { two } else { one };
    let worse = if better == one { two } else { one };
    [better, worse]
        .map(endpoint)
        .into_iter()
        .find(|endpoint| !tried.has(*endpoint))
        .or_else(|| random(shares, sums, tried))
}

/// A place by lot.
fn draw(sums: &[u64]) -> Option<usize> {
    let total = *sums.last()?;
    let ticket = fastrand::u64(..total.max(1));
    Some(sums.partition_point(|sum| *sum <= ticket))
}

/// Another place than `taken`: its tickets are left out.
fn draw_other(shares: &[Share], sums: &[u64], taken: usize) -> Option<usize> {
    let own = u64::from(shares[taken].weight);
    let total = sums.last()? - own;
    if total == 0 {
        return None;
    }
    let ticket = fastrand::u64(..total);
    let skipped = if ticket >= sums[taken] - own { ticket + own } else { ticket };
    Some(sums.partition_point(|sum| *sum <= skipped))
}
