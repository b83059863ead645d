//! Choosing an endpoint: weighted round robin, least connections, random, power of two choices, Maglev on a key. Pure:
//! no sockets, no clocks.
//!
//! A [`Balancer`] belongs to one upstream and is shared by all workers, because its truth must be: one position in the
//! round-robin sequence, one count of active requests an endpoint. Shared state is a few atomics; what depends on the
//! set of usable endpoints is a [`Table`], rebuilt off the hot path when that set changes and swapped whole.

mod draw;
mod group;
mod latency;
mod table;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use gateway_common::{hash, source::Address};

pub use group::{Group, Rules};
pub use latency::PeakEwma;
use table::Share;
pub use table::Table;
pub(crate) use table::smooth_sequence;

use crate::config::model::Balance;

/// What a balancer needs to know of an endpoint.
pub trait Endpoint {
    /// At least 1.
    fn weight(&self) -> u32;
    /// Stable over restarts and the same for every gateway: the seed of its place in the Maglev table.
    fn identity(&self) -> u64;
    /// Requests (and upgraded connections) in flight, over all workers.
    fn active(&self) -> u32;
    /// Healthy and not taken out by the operator.
    fn usable(&self) -> bool;
    /// Not taken out by the operator, healthy or not.
    fn available(&self) -> bool {
        self.usable()
    }
    /// Endpoints of a higher number wait until none of a lower one is usable.
    fn priority(&self) -> u8 {
        0
    }
    fn in_own_zone(&self) -> bool {
        false
    }
    /// Percent of its weight that it gets: less than 100 while it starts slowly.
    fn ramp(&self) -> u32 {
        100
    }
    /// What an answer takes, in microseconds; 0 while nothing is known of that.
    fn latency(&self) -> u64 {
        0
    }
}

/// The seed of client and endpoint hashes: fixed, so that a restart and every other gateway choose alike.
pub const SEED: u64 = 0;

/// Endpoints that were already tried for this request.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tried {
    first: u64,
    any: bool,
}

impl Tried {
    /// Endpoints past the 64th are not remembered; they may be tried twice.
    pub fn add(&mut self, endpoint: usize) {
        self.any = true;
        if endpoint < 64 {
            self.first |= 1 << endpoint;
        }
    }

    pub fn has(&self, endpoint: usize) -> bool {
        endpoint < 64 && self.first & (1 << endpoint) != 0
    }
}

/// A position in the sequence, on a cache line of its own: every worker writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Position(AtomicUsize);

#[derive(Debug)]
pub struct Balancer {
    kind: Balance,
    bounded_load: Option<f64>,
    rules: Rules,
    table: ArcSwap<Table>,
    /// Of first attempts.
    position: Position,
    /// Of further ones: if they moved the first ones' on, every request might begin at the endpoint that fails.
    again: Position,
    /// Held while the table is made anew, off the hot path: the last one to see a change must be the last to store.
    building: Mutex<bool>,
}

impl Balancer {
    pub fn new(kind: Balance, bounded_load: Option<f64>, rules: Rules, endpoints: &[impl Endpoint]) -> Self {
        let table = ArcSwap::from_pointee(Table::Empty);
        let balancer = Balancer {
            kind,
            bounded_load,
            rules,
            table,
            position: Position::default(),
            again: Position::default(),
            building: Mutex::default(),
        };
        balancer.rebuild(endpoints);
        balancer
    }

    /// Call after anything that [`Group::choose`] looks at has changed.
    pub fn rebuild(&self, endpoints: &[impl Endpoint]) {
        let mut panic = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let group = Group::choose(self.rules, endpoints);
        self.table.store(Arc::new(Table::build(self.kind, &group, endpoints)));
        *panic = group.panic;
    }

    /// So few endpoints are healthy that all are used.
    pub fn panics(&self) -> bool {
        *self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint's index for a request of `client`, or `None` when none is usable (and not yet tried). `key`: what to
    /// hash with [`Balance::Maglev`], else the client's address.
    pub fn pick(
        &self,
        endpoints: &[impl Endpoint],
        client: IpAddr,
        key: Option<u64>,
        tried: Tried,
    ) -> Option<usize> {
        let table = self.table.load();
        match &**table {
            Table::Empty => None,
            Table::Sequence(sequence) => self.round_robin(sequence, tried),
            Table::Scan(shares) => self.least_connections(shares, endpoints, tried),
            Table::Draw { shares, sums, least_loaded: false } => draw::random(shares, sums, tried),
            Table::Draw { shares, sums, least_loaded: true } => {
                draw::better_of_two(shares, sums, endpoints, tried)
            }
            Table::Maglev(slots) => {
                let key = key.unwrap_or_else(|| hash::of_address(SEED, Address::from(client)));
                self.hashed(slots, endpoints, key, tried)
            }
        }
    }

    fn position(&self, tried: Tried) -> &AtomicUsize {
        if tried.any { &self.again.0 } else { &self.position.0 }
    }

    fn round_robin(&self, sequence: &[u16], tried: Tried) -> Option<usize> {
        let position = self.position(tried);
        (0..sequence.len())
            .map(|_| usize::from(sequence[position.fetch_add(1, Relaxed) % sequence.len()]))
            .find(|endpoint| !tried.has(*endpoint))
    }

    /// The lowest (active + 1) / weight. Ties go round robin: to the first one behind the last one picked.
    fn least_connections(
        &self,
        shares: &[Share],
        endpoints: &[impl Endpoint],
        tried: Tried,
    ) -> Option<usize> {
        let position = self.position(tried);
        let start = position.load(Relaxed) % shares.len();
        let mut best: Option<(usize, u64, u64)> = None;
        for place in (start..shares.len()).chain(0..start) {
            let share = shares[place];
            let endpoint = usize::from(share.endpoint);
            if tried.has(endpoint) {
                continue;
            }
            let (load, weight) = (u64::from(endpoints[endpoint].active()) + 1, u64::from(share.weight));
            if best.is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight) {
                best = Some((place, load, weight));
            }
        }
        let (place, ..) = best?;
        position.store(place + 1, Relaxed);
        Some(usize::from(shares[place].endpoint))
    }

    /// Maglev on a hash. Untried and, with bounded load, not full: else on along the table.
    fn hashed(&self, slots: &[u16], endpoints: &[impl Endpoint], key: u64, tried: Tried) -> Option<usize> {
        let start = hash::bucket_of(key, slots.len() as u32) as usize;
        let first = usize::from(slots[start]);
        if !tried.has(first) && self.bounded_load.is_none() {
            return Some(first);
        }
        let bound = self.bounded_load.map(|factor| Bound::new(factor, endpoints));
        let (before, from) = slots.split_at(start);
        let mut in_order = from.iter().chain(before).map(|slot| usize::from(*slot));
        in_order.find(|i| !tried.has(*i) && bound.as_ref().is_none_or(|bound| bound.admits(&endpoints[*i])))
    }
}

/// Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018): no endpoint holds more than
/// `ceil(factor * its share of all active requests, this one included)`.
struct Bound {
    per_weight: f64,
}

impl Bound {
    fn new(factor: f64, endpoints: &[impl Endpoint]) -> Self {
        let (mut active, mut weight) = (1u64, 0u64);
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.usable()) {
            active += u64::from(endpoint.active());
            weight += u64::from(endpoint.weight());
        }
        Bound { per_weight: factor * active as f64 / weight.max(1) as f64 }
    }

    fn admits(&self, endpoint: &impl Endpoint) -> bool {
        f64::from(endpoint.active()) < (self.per_weight * f64::from(endpoint.weight())).ceil()
    }
}

#[cfg(test)]
mod tests;
