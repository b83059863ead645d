//! Limits of requests, bytes, tokens and connections: `[limit.NAME]`.
//!
//! A [`Store`] outlasts snapshots: its [`table`] holds one word a key, of all limits, for all workers. A [`Limit`] is
//! compiled from the config with each snapshot; what it makes of a word says a [`meter`]. [`admit`] asks all limits of a
//! route about one request. See docs/limits.md.

pub mod admit;
mod bans;
mod clock;
mod controller;
mod dial;
mod fair;
mod fields;
pub(crate) mod hash;
mod key;
mod labels;
mod lease;
mod meter;
mod offence;
mod passage;
mod sharing;
mod sliding;
mod source;
mod store;
pub(crate) mod table;

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

pub use admit::{Admission, Foreseen, RouteLimits};
pub use bans::HttpBan;
pub use clock::wall_ahead;
pub use controller::{Controller, FEW, Health, TICK, Target};
pub use dial::Dial;
pub use fields::Fields;
pub use key::Facts;
pub use labels::{Row, rank};
pub use meter::{Now, Shape};
pub use offence::{Misdeed, Offence, Penalties, prefix};
pub use passage::{Ending, Pace, Passage};
pub use sharing::{Ask, Reply, Said, Sharing};
pub use source::{Held, Sources};
pub use store::{InUse, Store, state_file};

use fair::Even;
use hash::Hasher;
use key::Keyed;
use meter::Meter;
use offence::Rule;
use sharing::Share;
use table::{Kind, Owner};

use crate::{
    config::{
        model::{self, Algorithm, CostOf, Headers, Measure, Overrun, Unit},
        units::Quota,
    },
    observe::stats::{LimitStats, Registry},
};

/// `[limit.NAME]`, compiled.
#[derive(Debug)]
pub struct Limit {
    pub name: Arc<str>,
    pub stats: Arc<LimitStats>,
    /// What the log says of requests that it refused, marked, or would have refused.
    said: [Arc<str>; 3],
    key: Keyed,
    group: u32,
    counts: Counts,
    cost: CostOf,
    dry_run: bool,
    headers: Headers,
    /// Of dynamic limits.
    moves: Option<Moves>,
    /// Answers are sent no faster; nothing is refused.
    pace: bool,
    /// For connections in the kernel half too.
    kernel: bool,
    /// Over several gateways.
    share: Option<Share>,
    ban: Option<Rule>,
    /// One bucket's word says all there is to say, and nobody is told.
    plain: bool,
}

/// How a dynamic limit moves.
#[derive(Debug)]
struct Moves {
    dial: Arc<Dial>,
    /// Tiers, the most important first.
    priority: Vec<String>,
    /// Who shares it evenly.
    even: Option<Even>,
    /// Of a bucket, or of what there may be at once, what the least important leave.
    left: f64,
}

/// What is counted.
#[derive(Debug)]
enum Counts {
    /// Requests at once.
    Active { max: u32 },
    /// Things in time, by tier.
    Rate { unit: Unit, base: Grade, tiers: Vec<(Box<str>, Grade)>, delay_ns: u64, soft: bool },
}

/// What holds for the consumers of one tier.
#[derive(Debug)]
struct Grade {
    meter: Meter,
    /// Soft limits: where they are hard.
    shed: Option<Meter>,
    /// Its part of `RateLimit-Policy`.
    policy: String,
}

impl Limit {
    pub fn new(name: &str, config: &model::Limit, store: &Store, registry: &Registry) -> Self {
        let counts = Counts::new(name, config);
        Limit {
            name: name.into(),
            stats: registry.limit(name),
            said: [name.into(), format!("{name}/soft").into(), format!("{name}/dry").into()],
            key: Keyed::new(name, config, store),
            group: group(name),
            counts,
            cost: config.cost.clone(),
            dry_run: config.dry_run,
            headers: config.headers,
            moves: Moves::new(name, config, store),
            pace: config.pace,
            kernel: config.kernel,
            share: share(config, store),
            ban: config.ban.as_ref().map(|rule| Rule::of_limit(store, name, rule)),
            plain: is_plain(config, store),
        }
    }

    /// Where it is, if it is dynamic.
    pub fn dial(&self) -> Option<&Dial> {
        self.moves.as_ref().map(|moves| &*moves.dial)
    }

    /// Units a second, or at once.
    pub fn rate(&self) -> f64 {
        match (&self.counts, self.dial()) {
            (_, Some(dial)) => dial.value(),
            (Counts::Active { max }, None) => f64::from(*max),
            (Counts::Rate { base, .. }, None) => base.meter.per_second(),
        }
    }

    /// A caller's, in units a second, of a limit that is shared evenly.
    pub fn even_share(&self) -> Option<f64> {
        let moves = self.moves.as_ref()?;
        moves.even.is_some().then(|| moves.dial.level())
    }

    pub fn group(&self) -> u32 {
        self.group
    }

    fn slides(&self) -> bool {
        matches!(&self.counts, Counts::Rate { base: Grade { meter: Meter::Sliding(_), .. }, .. })
    }

    fn owner(&self, key: u128) -> Owner {
        let kind = match &self.counts {
            Counts::Active { .. } => Kind::Count,
            Counts::Rate { base, .. } => base.meter.kind(),
        };
        Owner { key, kind, group: self.group }
    }

    /// Where a soft limit is hard has a word of its own.
    fn shed_owner(&self, key: u128) -> Owner {
        Owner { key: key ^ 0x5eed_5eed_5eed_5eed_5eed_5eed_5eed_5eed, ..self.owner(key) }
    }

    /// Its cost can only be told from the answer's body: at which JSON pointer.
    fn pointer(&self) -> Option<&str> {
        match &self.cost {
            CostOf::Json(pointer) => Some(pointer),
            _ => None,
        }
    }
}

fn is_plain(config: &model::Limit, store: &Store) -> bool {
    let counts_at_once = matches!(
        &config.measure,
        Measure::Rate { unit: Unit::Requests | Unit::Tokens, algorithm: Algorithm::TokenBucket, .. }
    ) && matches!(config.cost, CostOf::Fixed(_));
    let more = config.dry_run || config.pace || config.kernel || share(config, store).is_some();
    let told = config.headers.ratelimit || config.headers.x_ratelimit;
    counts_at_once && matches!(config.mode, Overrun::Hard) && !more && !told
}

fn share(config: &model::Limit, store: &Store) -> Option<Share> {
    store.shared.key().filter(|_| config.shared)?;
    match (&config.measure, &config.mode) {
        (_, Overrun::Soft { .. }) => Some(Share::Told),
        _ if config.dry_run => Some(Share::Told),
        (Measure::Rate { unit: Unit::Bytes, .. }, _) => Some(Share::End),
        _ if config.cost.is_in_answer() => Some(Share::End),
        _ => Some(Share::Before),
    }
}

/// Limits by 24 bits of their name.
fn group(name: &str) -> u32 {
    let mut hasher = Hasher::new([0, 0]);
    hasher.write(name.as_bytes());
    hasher.finish() as u32 & 0xff_ffff
}

impl Counts {
    fn new(name: &str, config: &model::Limit) -> Self {
        match &config.measure {
            Measure::Connections { max, .. } => Counts::Active { max: *max },
            Measure::Rate { unit, algorithm, quota, burst, per, .. } => {
                // What is let in at once is a backlog, and a debt that control has to wait for.
                let dynamic = matches!(config.mode, Overrun::Dynamic { .. });
                let burst = burst.or_else(|| dynamic.then(|| quota.amount.div_ceil(5)));
                let (shed, delay, soft) = match config.mode {
                    Overrun::Hard | Overrun::Dynamic { .. } => (None, None, false),
                    Overrun::Soft { shed, delay } => (shed, delay, true),
                };
                let grade = |quota: Quota, burst: Option<u64>| {
                    let meter = Meter::new(*algorithm, quota, burst);
                    let at_once = burst.unwrap_or(quota.amount);
                    let shed = shed.map(|share| {
                        let burst = (at_once as f64 * share).round() as u64;
                        Meter::new(*algorithm, quota.times(share), Some(burst.max(1)))
                    });
                    Grade { meter, shed, policy: fields::policy(name, *unit, &meter) }
                };
                let scaled = |tier: &Quota| {
                    let factor = tier.per_second() / quota.per_second();
                    burst.map(|burst| ((burst as f64 * factor).round() as u64).max(1))
                };
                let tiers =
                    per.iter().map(|(tier, quota)| (tier.as_str().into(), grade(*quota, scaled(quota))));
                Counts::Rate {
                    unit: *unit,
                    tiers: tiers.collect(),
                    base: grade(*quota, burst),
                    delay_ns: delay.map_or(0, |delay| delay.as_nanos().min(1 << 40) as u64),
                    soft,
                }
            }
        }
    }
}

impl Moves {
    fn new(name: &str, config: &model::Limit, store: &Store) -> Option<Self> {
        let Overrun::Dynamic { target, priority, fair } = &config.mode else { return None };
        let (from, to, counts_rate) = match &config.measure {
            Measure::Rate { quota, from, .. } => {
                (from.unwrap_or(*quota).per_second(), quota.per_second(), true)
            }
            Measure::Connections { max, from } => (f64::from(from.unwrap_or(*max)), f64::from(*max), false),
        };
        let controller = Controller::new(*target, (from, to), counts_rate);
        let mut dials = store.dials.lock().unwrap_or_else(PoisonError::into_inner);
        let dial = match dials.get(name) {
            Some(before) => Dial::resumed(controller, to, before),
            None => Dial::new(controller, to),
        };
        let dial = Arc::new(dial);
        dials.insert(name.to_owned(), dial.clone());
        let even =
            (!fair.is_empty()).then(|| Even::new(Keyed::of_shares(name, fair, config, store), group(name)));
        // What is left of a bucket comes back to all; of what there may be at once it is room that stays empty.
        let left = if counts_rate || !priority.is_empty() { 0.5 } else { 0.25 };
        Some(Moves { dial, priority: priority.clone(), even, left })
    }

    /// The share of it that is left for others: for more important tiers, and of each tier for those within their even
    /// shares.
    fn kept(&self, tier: Option<&str>, within: bool) -> f64 {
        let classes = self.priority.len();
        let class = tier.and_then(|tier| self.priority.iter().position(|of| of == tier)).unwrap_or(classes);
        let (step, steps) = match self.even {
            Some(_) => (2 * class + usize::from(!within), 2 * classes + 1),
            None => (class, classes.max(1)),
        };
        if step == 0 { 0.0 } else { self.left * step as f64 / steps as f64 }
    }
}

impl Now {
    pub fn read() -> Self {
        Now { steady: clock::now_ns(), wall: clock::wall_ns() }
    }

    /// A moment that is known already, where the wall clock [is ahead](wall_ahead) by so much: looking at both costs as
    /// much as the rest of a decision.
    #[inline]
    pub fn of(moment: Instant, wall_ahead: u64) -> Self {
        let steady = clock::at_ns(moment);
        Now { steady, wall: steady.wrapping_add(wall_ahead) }
    }
}
