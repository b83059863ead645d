//! Even shares of a dynamic limit. Who has had less than an even share of late goes before who has had more: what is left of
//! a limit that is short is for those.
//!
//! How much an even share is, is found as core-stateless fair queueing does (Stoica, Shenker, Zhang, SIGCOMM 1998): look by look
//! it is scaled by what there is over what those within theirs ask for, until both are the same. Whoever asks for less than an
//! even share then gets all of it, and the others share the rest evenly, however many there are: nobody counts them.

use super::{
    Facts, Now,
    controller::Health,
    key::Keyed,
    meter::{Bucket, Left},
    table::{Kind, Owner, Table},
};

/// Of what there is, what those within their shares are to ask for: so that they hardly ever find nothing.
const FILL: f64 = 0.95;
/// How far a look changes a share, and how fast it grows while there is enough.
const CHANGE: std::ops::RangeInclusive<f64> = 0.3..=2.0;
const GROW: f64 = 1.2;
/// It is learned from so many, or what came in so many looks.
const ENOUGH: u64 = 20;
const PATIENCE: u32 = 4;
/// How much of a share there is at once: who asks for so much in a moment is not greedy yet.
pub const DEPTH_NS: u64 = 500_000_000;
/// One an hour, so that it does not take for ever to come back.
const LEAST: f64 = 1.0 / 3600.0;

/// How much an even share is, in units a second. Pure.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    now: f64,
    most: f64,
    asked: f64,
    answered: f64,
    looks: u32,
    short: bool,
    /// It fell: what buckets still held from before is asked for first, which says nothing.
    fell: bool,
}

impl Level {
    /// Begins with everything for everybody.
    pub fn new(most: f64) -> Self {
        Level { now: most, most, asked: 0.0, answered: 0.0, looks: 0, short: false, fell: false }
    }

    pub fn value(&self) -> f64 {
        self.now
    }

    /// `rate`: units a second that there are; left out, as many as are answered.
    pub fn tick(&mut self, health: &Health, rate: Option<f64>) -> f64 {
        if std::mem::take(&mut self.fell) {
            return self.now;
        }
        self.asked += health.within as f64;
        self.answered += health.answered() * f64::from(health.looks());
        self.looks += health.looks();
        self.short |= health.refused > 0;
        if self.asked < ENOUGH as f64 && self.looks < PATIENCE {
            return self.now;
        }
        let looks = f64::from(self.looks);
        let asked = Health { looks: self.looks, ..Health::default() }.per_second(self.asked);
        let room = FILL * rate.unwrap_or(self.answered / looks);
        let now = match self.short {
            // Nobody's can be more than all there is.
            true => {
                let factor = (room / asked.max(1e-9)).clamp(*CHANGE.start(), *CHANGE.end());
                self.now.min(room) * factor
            }
            false => self.now * GROW,
        };
        let now = now.clamp(LEAST, self.most);
        *self = Level { now, fell: now < self.now, ..Level::new(self.most) };
        self.now
    }

    /// Goes on where another one is.
    pub fn resume(mut self, at: f64) -> Self {
        self.now = at.clamp(LEAST, self.most);
        self
    }
}

/// Whose share it is.
#[derive(Debug)]
pub struct Even {
    key: Keyed,
    group: u32,
}

/// A request's place in its caller's share.
#[derive(Debug, Clone, Copy)]
pub struct Portion {
    owner: Owner,
    bucket: Bucket,
    pub cost: u64,
    /// It was within it.
    pub within: bool,
}

impl Even {
    pub fn new(key: Keyed, group: u32) -> Self {
        Even { key, group }
    }

    /// A request of so many units, of a share that a bucket holds; nothing is taken.
    pub fn look(&self, table: &Table, facts: &Facts<'_>, now: Now, cost: u64, bucket: Bucket) -> Portion {
        let owner = Owner { key: self.key.hash(facts), kind: Kind::Time, group: self.group };
        let within = bucket.take(table.read(&owner), now.steady, cost, 0, false).is_ok();
        Portion { owner, bucket, cost, within }
    }

    /// As [`Even::look`], and takes it if it is within the share.
    pub fn take(&self, table: &Table, facts: &Facts<'_>, now: Now, cost: u64, bucket: Bucket) -> Portion {
        let owner = Owner { key: self.key.hash(facts), kind: Kind::Time, group: self.group };
        let took =
            table.update(&owner, now.steady, |word, shared| bucket.take(word, now.steady, cost, 0, shared));
        Portion { owner, bucket, cost, within: took.is_ok() }
    }
}

impl Portion {
    pub fn give_back(&self, table: &Table) {
        if self.within {
            let cost = self.bucket.cost_ns(self.cost);
            table.change(&self.owner, |word| word.saturating_sub(cost));
        }
    }

    pub fn left(&self, table: &Table, now: Now) -> Left {
        self.bucket.left(table.read(&self.owner), now.steady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of those who ask for so much a second gets: in shares, and of what is left.
    fn shared(level: &mut Level, asks: &[f64], room: f64, looks: u32) -> Vec<f64> {
        let mut got = Vec::new();
        for _ in 0..looks {
            let within: Vec<f64> = asks.iter().map(|ask| ask.min(level.value())).collect();
            let sum: f64 = within.iter().sum();
            let over = asks.iter().sum::<f64>() - sum;
            let left = (room - sum).max(0.0);
            let served = (room / sum).min(1.0);
            got = within
                .iter()
                .zip(asks)
                .map(|(within, ask)| within * served + (ask - within) * (left / over.max(1e-9)).min(1.0))
                .collect();
            let refused = (asks.iter().sum::<f64>() - got.iter().sum::<f64>()).max(0.0);
            let health = Health { within: (sum / 4.0) as u64, refused: refused as u64, ..Health::default() };
            level.tick(&health, Some(room));
        }
        got
    }

    #[test]
    fn who_asks_for_less_than_an_even_share_gets_it_and_the_others_share_evenly() {
        let asks: Vec<f64> = [20.0; 20].into_iter().chain([250.0; 19]).chain([1500.0]).collect();
        let mut level = Level::new(5000.0);
        let got = shared(&mut level, &asks, 1000.0, 40);
        assert!(got[..20].iter().all(|got| *got >= 19.9), "{got:?}");
        assert!(got[20..39].iter().all(|got| (25.0..32.0).contains(got)), "{got:?}");
        assert!(got[39] < 60.0, "the greediest of all: {got:?}");
        assert!(got.iter().sum::<f64>() >= 999.0, "nothing is left over");
    }

    #[test]
    fn it_is_found_within_five_seconds_and_given_up_when_there_is_enough() {
        let asks: Vec<f64> = [10.0; 50].into_iter().chain([400.0; 10]).collect();
        let mut level = Level::new(5000.0);
        let got = shared(&mut level, &asks, 1000.0, 20);
        assert!(got[..50].iter().all(|got| *got >= 9.9), "{got:?}");
        let steady = level.value();
        shared(&mut level, &asks, 1000.0, 100);
        assert!((level.value() / steady - 1.0).abs() < 0.05, "it does not swing");
        shared(&mut level, &asks, 10_000.0, 40);
        assert_eq!(level.value(), 5000.0);
    }

    #[test]
    fn what_is_at_once_is_shared_by_what_is_answered() {
        let mut level = Level::new(1e6);
        let health = |level: &Level| Health {
            requests: 250,
            refused: 10,
            // Two who ask for 100, and ten for as much as they can get.
            within: ((200.0 + 10.0 * level.value().min(1000.0)) / 4.0) as u64,
            ..Health::default()
        };
        for _ in 0..60 {
            let health = health(&level);
            level.tick(&health, None);
        }
        assert!(((1000.0 * FILL - 200.0) / 10.0 / level.value() - 1.0).abs() < 0.05, "{}", level.value());
    }

    #[test]
    fn a_few_at_a_time_are_waited_for() {
        let mut level = Level::new(100.0);
        let few = Health { within: 4, refused: 3, ..Health::default() };
        assert!((0..3).all(|_| level.tick(&few, Some(10.0)) == 100.0));
        // 16 were asked for in a second, and there are 10.
        assert_eq!(level.tick(&few, Some(10.0)), 10.0 * FILL * (10.0 * FILL / 16.0));
    }
}
