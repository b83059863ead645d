//! What a limit makes of a word: token buckets by the kernel half's own arithmetic, and windows of the clock. Pure.

mod bucket;
#[cfg(test)]
mod tests;
mod window;

pub use bucket::Bucket;
use gateway_common::bucket::BYTES;
pub use window::Window;
use window::span_ns;
pub(super) use window::{INDEX, pack, unpack};

use super::{
    Said,
    sliding::Sliding,
    table::{Kind, Owner, Table, Word},
};
use crate::config::{model::Algorithm, units::Quota};

/// Amounts that words of windows hold.
pub(super) const MOST_IN_WINDOW: u64 = (1 << 40) - 1;
/// Costs and waits, so that sums of them do not overflow: 36 years.
const LONGEST_NS: u64 = 1 << 60;

const SECOND: u64 = 1_000_000_000;

/// The two clocks, in nanoseconds: one that never steps, and the wall's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub steady: u64,
    pub wall: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    Bucket(Bucket),
    Window(Window),
    Sliding(Sliding),
}

/// A meter as a store counts it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Bucket {
        interval_us: f64,
        depth_us: f64,
    },
    /// Which window it is, and for how long yet.
    Window {
        amount: u64,
        index: u64,
        left_ms: u64,
    },
    /// How long one of its parts lasts.
    Sliding {
        amount: u64,
        part_us: f64,
    },
}

/// What is left of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    pub units: u64,
    /// Until there is one unit more than none; 0 where there is.
    pub next_ns: u64,
    /// Until all of it is there again.
    pub full_ns: u64,
}

/// It has to wait so long, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    pub wait_ns: u64,
}

impl Meter {
    pub fn new(algorithm: Algorithm, quota: Quota, burst: Option<u64>) -> Self {
        match algorithm {
            Algorithm::TokenBucket => Meter::Bucket(Bucket::new(quota, burst)),
            Algorithm::SlidingWindow => Meter::Sliding(Sliding::new(quota.amount, span_ns(quota))),
            Algorithm::FixedWindow => {
                Meter::Window(Window { amount: quota.amount.min(MOST_IN_WINDOW), span: quota.into() })
            }
        }
    }

    /// A bucket at a share of its rate, as deep in time; of what it holds, `kept` is for others.
    pub fn scaled(self, share: f64, kept: f64) -> Self {
        match self {
            Meter::Bucket(bucket) => Meter::Bucket(bucket.scaled(share, kept)),
            window => window,
        }
    }

    /// At one moment, asked for `cost`: whose word is to be looked at, and as what.
    pub fn at(self, table: &Table, owner: Owner, now: Now, cost: u64) -> (Owner, Self) {
        match self {
            Meter::Sliding(sliding) => {
                let (owner, sliding) = sliding.at(table, &owner, now, cost);
                (owner, Meter::Sliding(sliding))
            }
            one => (owner, one),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Meter::Bucket(_) => Kind::Time,
            Meter::Window(_) | Meter::Sliding(_) => Kind::Until,
        }
    }

    /// The most that there is at once, in units.
    pub fn capacity(&self) -> u64 {
        match self {
            Meter::Bucket(bucket) => bucket.capacity,
            Meter::Window(window) => window.amount,
            Meter::Sliding(sliding) => sliding.amount,
        }
    }

    /// In how long so much comes back.
    pub fn span_seconds(&self) -> u64 {
        match self {
            Meter::Bucket(bucket) => ((bucket.limit.depth_ns + SECOND / 2) / SECOND).max(1),
            Meter::Window(window) => window.span.seconds(),
            Meter::Sliding(sliding) => sliding.span_seconds(),
        }
    }

    pub fn per_second(&self) -> f64 {
        match self {
            Meter::Bucket(bucket) => {
                let unit = if bucket.fine { BYTES as f64 } else { 1.0 };
                unit * 1e9 / bucket.limit.interval_ns as f64
            }
            Meter::Window(window) => window.amount as f64 / window.span.seconds() as f64,
            Meter::Sliding(sliding) => sliding.amount as f64 / sliding.span_seconds() as f64,
        }
    }

    /// Takes `cost` units. `shared`: from a word that several keys share, which holds four times as much.
    pub fn take(&self, word: u64, now: Now, cost: u64, shared: bool) -> Result<Word, Over> {
        match self {
            Meter::Bucket(bucket) => bucket.take(word, now.steady, cost, 0, shared),
            Meter::Window(window) => window.take(word, now.wall, cost, shared),
            Meter::Sliding(sliding) => sliding.take(word, now, cost, shared),
        }
    }

    /// As [`Meter::take`], from what comes back within `delay_ns` too: buckets only.
    pub fn take_ahead(
        &self,
        word: u64,
        now: Now,
        cost: u64,
        delay_ns: u64,
        shared: bool,
    ) -> Result<Word, Over> {
        match self {
            Meter::Bucket(bucket) => bucket.take(word, now.steady, cost, delay_ns, shared),
            Meter::Window(window) => window.take(word, now.wall, cost, shared),
            Meter::Sliding(sliding) => sliding.take(word, now, cost, shared),
        }
    }

    /// How long what was taken ahead has to wait.
    pub fn wait_ns(&self, word: u64, now: Now) -> u64 {
        match self {
            Meter::Bucket(bucket) => {
                word.min(1 << 63).saturating_sub(now.steady).saturating_sub(bucket.limit.depth_ns)
            }
            Meter::Window(_) | Meter::Sliding(_) => 0,
        }
    }

    /// Takes what has been used already, be there so much or not.
    pub fn charge(&self, word: u64, now: Now, cost: u64) -> Word {
        match self {
            Meter::Bucket(bucket) => Word { value: bucket.charge(word, now.steady, cost), until: 0 },
            Meter::Window(window) => window.charge(word, now.wall, cost),
            Meter::Sliding(sliding) => sliding.charge(word, cost),
        }
    }

    /// Gives back what [`Meter::take`] took.
    pub fn give_back(&self, word: u64, cost: u64) -> u64 {
        match self {
            Meter::Bucket(bucket) => word.saturating_sub(bucket.cost_ns(cost)),
            Meter::Window(_) | Meter::Sliding(_) => {
                let (index, used) = unpack(word);
                pack(index, used.saturating_sub(cost))
            }
        }
    }

    /// A word, with at least as much used of it as all gateways have, of which this one holds some in advance. `total`:
    /// nanoseconds until the bucket is full, or what was used in the window.
    pub fn raised(&self, word: u64, now: Now, total: u64, held: u64) -> Word {
        match self {
            Meter::Bucket(bucket) => {
                let ahead = total.saturating_sub(bucket.cost_ns(held)).min(bucket.most_ahead());
                Word { value: word.min(1 << 63).max(now.steady + ahead), until: 0 }
            }
            Meter::Window(window) => {
                let (index, used, end) = window.used(word, now.wall);
                Word { value: pack(index, used.max(total.saturating_sub(held))), until: end }
            }
            // What others have used of it has a word of its own.
            Meter::Sliding(sliding) => sliding.charge(word, 0),
        }
    }

    /// How long until `cost` is there, as a store says; 0: it is.
    pub fn wait_of(&self, said: &Said, now: Now, cost: u64) -> u64 {
        match self {
            Meter::Bucket(bucket) => {
                let depth = bucket.limit.depth_ns;
                said.used.saturating_add(bucket.cost_ns(cost).min(depth)).saturating_sub(depth)
            }
            Meter::Window(window) => {
                match said.used.saturating_add(cost.min(window.amount)) > window.amount {
                    true => window.used(0, now.wall).2.saturating_sub(now.wall).max(1),
                    false => 0,
                }
            }
            Meter::Sliding(_) => said.wait_ns,
        }
    }

    /// Of what a store has counted: microseconds of buckets, units of windows.
    pub fn total(&self, used: u64) -> u64 {
        match self {
            Meter::Bucket(_) => used.saturating_mul(1000),
            Meter::Window(_) | Meter::Sliding(_) => used,
        }
    }

    /// When hardly anything is left, nobody asks for more at once: what comes back meanwhile is not lost.
    pub fn held_off(&self, total: u64) -> u64 {
        const MOST_NS: u64 = 2_000_000;
        match self {
            Meter::Bucket(bucket) => {
                let (depth, one) = (bucket.limit.depth_ns, bucket.cost_ns(1));
                match total + one > depth {
                    true => total.max(depth.saturating_sub(one) + MOST_NS.min(depth / 8)),
                    false => total,
                }
            }
            Meter::Window(_) | Meter::Sliding(_) => total,
        }
    }

    /// As a store counts it.
    pub fn shape(&self, now: Now) -> Shape {
        match self {
            Meter::Bucket(bucket) => {
                let unit = if bucket.fine { BYTES as f64 } else { 1.0 };
                Shape::Bucket {
                    interval_us: bucket.limit.interval_ns as f64 / unit / 1e3,
                    depth_us: bucket.limit.depth_ns as f64 / 1e3,
                }
            }
            Meter::Window(window) => {
                let (index, _, end) = window.used(0, now.wall);
                Shape::Window {
                    amount: window.amount,
                    index,
                    left_ms: end.saturating_sub(now.wall) / 1_000_000 + 1,
                }
            }
            Meter::Sliding(sliding) => {
                Shape::Sliding { amount: sliding.amount, part_us: sliding.part_ns as f64 / 1e3 }
            }
        }
    }

    pub fn left(&self, word: u64, now: Now) -> Left {
        match self {
            Meter::Bucket(bucket) => bucket.left(word, now.steady),
            Meter::Window(window) => window.left(word, now.wall),
            Meter::Sliding(sliding) => sliding.left(word, now),
        }
    }
}
