//! How a dynamic limit follows the health of what it protects. Pure: told what was measured, and when.
//!
//! Additive increase, multiplicative decrease, with three things against swinging. It waits for what it did to show before it
//! does more. It remembers where things went wrong, and comes near that slowly. And it rises only while the limit is
//! what holds requests back: an idle gateway learns nothing.

use std::time::Duration;

/// What was measured since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Health {
    /// Requests that were answered by what is protected.
    pub requests: u64,
    /// The 99th percentile of their latency; `None`: too few.
    pub p99: Option<Duration>,
    /// The share of them that failed, 0..=1.
    pub errors: f64,
    /// Requests waiting for a target.
    pub queue: u64,
    /// The share of time that something waited for a CPU, 0..=1.
    pub cpu: f64,
    /// Requests that the limit held back.
    pub refused: u64,
    /// How many looks it is of, where one had too few answers; 0 is 1.
    pub looks: u32,
}

/// What is to be kept. `None`: it does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Target {
    pub p99: Option<Duration>,
    pub errors: Option<f64>,
    pub queue: Option<u64>,
    pub cpu: Option<f64>,
}

/// Between looks.
pub const TICK: Duration = Duration::from_millis(250);

/// Below these, latencies and errors are chance.
pub const FEW: u64 = 10;
/// To what the limit falls at once.
const FALL: std::ops::RangeInclusive<f64> = 0.85..=0.95;
/// By how much it rises a tick far from trouble, at first, and near it, at first.
const RISE: f64 = 0.05;
const CREEP: f64 = 0.004;
/// Near: above this share of where things went wrong.
const NEAR: f64 = 0.85;
/// By how much that place is forgotten a tick.
const FORGET: f64 = 0.001;
/// Ticks that a fall is given to show; longer where answers take longer.
const SETTLE: u32 = 4;

/// A limit between two bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Controller {
    target: Target,
    from: f64,
    to: f64,
    now: f64,
    /// Where things went wrong last.
    trouble: f64,
    settle: u32,
    /// Looks in a row with room.
    calm: u32,
    last_load: f64,
    /// What is answered a second, smoothed.
    rate: f64,
    /// The limit is one of requests a second.
    counts_rate: bool,
}

impl Controller {
    /// Begins at the upper bound: what is healthy is not held back.
    pub fn new(target: Target, (from, to): (f64, f64), counts_rate: bool) -> Self {
        Controller {
            counts_rate,
            target,
            from,
            to,
            now: to,
            trouble: f64::INFINITY,
            settle: 0,
            calm: 1,
            last_load: 0.0,
            rate: 0.0,
        }
    }

    /// Goes on where another one is, within its own bounds.
    pub fn resume(mut self, at: f64) -> Self {
        self.now = at.clamp(self.from, self.to);
        self
    }

    /// It is told something by answers.
    pub fn needs_answers(&self) -> bool {
        self.target.p99.is_some() || self.target.errors.is_some()
    }

    pub fn value(&self) -> f64 {
        self.now
    }

    /// The limit from now on.
    pub fn tick(&mut self, health: &Health) -> f64 {
        let load = self.load(health);
        let improves = load < self.last_load * 0.98;
        self.last_load = load;
        let looks = health.looks.max(1);
        let rate = health.requests as f64 / TICK.as_secs_f64() / f64::from(looks);
        self.rate = if self.rate == 0.0 { rate } else { (self.rate + rate) / 2.0 };
        self.trouble *= 1.0 + FORGET;
        if self.settle > 0 {
            self.settle = self.settle.saturating_sub(looks);
        } else if load > 1.0 {
            self.fall(load, improves, health);
        } else {
            self.rise(load, health);
        }
        self.now
    }

    fn fall(&mut self, load: f64, improves: bool, health: &Health) {
        // A limit far above what comes in, or can be answered, holds nothing back.
        let held = match self.counts_rate {
            true => self.now.min(self.rate),
            false => self.now,
        };
        if self.calm > 0 {
            self.trouble = held;
        }
        self.calm = 0;
        // A backlog that shrinks already needs time only.
        if improves {
            return;
        }
        let factor = (1.0 / load).clamp(*FALL.start(), *FALL.end());
        self.now = (held * factor).max(self.from);
        self.settle = SETTLE.max(self.answers_take(health));
    }

    fn rise(&mut self, load: f64, health: &Health) {
        self.calm = self.calm.saturating_add(1);
        // Only while somebody is held back, or nobody has ever been.
        // Where nothing is answered, and some are held back, all may hang.
        let wanted = match health.requests {
            0 => health.refused == 0,
            _ => health.refused > 0 || self.trouble.is_infinite(),
        };
        if load >= 0.9 || !wanted {
            return;
        }
        // The longer it is calm the faster.
        let calm = f64::from(self.calm);
        let far = RISE * (1.0 + calm.min(40.0) / 20.0);
        let near = CREEP * (1.0 + (calm / 10.0).powi(2));
        let step = if self.now > self.trouble * NEAR { near.min(far) } else { far };
        self.now = (self.now * (1.0 + step)).min(self.to);
    }

    /// How the worst of what was measured compares with what is to be kept: 1 is just so.
    fn load(&self, health: &Health) -> f64 {
        let enough = health.requests >= FEW;
        let share = |measured: f64, target: f64| measured / target.max(1e-6);
        let Target { p99, errors, queue, cpu } = self.target;
        let latency = p99
            .zip(health.p99)
            .filter(|_| enough)
            .map(|(target, measured)| share(measured.as_secs_f64(), target.as_secs_f64()));
        let errors = errors.filter(|_| enough).map(|target| share(health.errors, target));
        let queue = queue.map(|target| share(health.queue as f64, target as f64));
        let cpu = cpu.map(|target| share(health.cpu, target));
        [latency, errors, queue, cpu].into_iter().flatten().fold(0.0, f64::max)
    }

    /// Ticks that an answer takes now: what was let in before is still measured so long.
    fn answers_take(&self, health: &Health) -> u32 {
        let ticks = health.p99.map_or(0.0, |p99| p99.as_secs_f64() / TICK.as_secs_f64());
        (ticks.ceil() as u32 + 1).min(20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of so many requests a second: latency grows as it fills, and with a backlog (M/M/1, roughly).
    struct Server {
        capacity: f64,
        base: f64,
        backlog: f64,
    }

    impl Server {
        /// A tick of so many requests a second offered, of which `limit` are let in.
        fn serve(&mut self, offered: f64, limit: f64) -> Health {
            let tick = TICK.as_secs_f64();
            let admitted = offered.min(limit);
            let arrived = admitted * tick;
            let served = (self.backlog + arrived).min(self.capacity * tick);
            self.backlog = self.backlog + arrived - served;
            let busy = (admitted / self.capacity).min(0.99);
            let latency = self.base * (1.0 + 0.3 * busy / (1.0 - busy)) + self.backlog / self.capacity;
            Health {
                requests: served as u64,
                p99: Some(Duration::from_secs_f64(latency)),
                refused: ((offered - admitted) * tick) as u64,
                ..Health::default()
            }
        }
    }

    fn controller() -> Controller {
        let target = Target { p99: Some(Duration::from_millis(250)), ..Target::default() };
        Controller::new(target, (50.0, 5000.0), true)
    }

    /// The limits of so many seconds.
    fn run(control: &mut Controller, server: &mut Server, offered: f64, seconds: u32) -> Vec<f64> {
        let mut health = server.serve(offered, control.value());
        (0..seconds * 4)
            .map(|_| {
                let limit = control.tick(&health);
                health = server.serve(offered, limit);
                limit
            })
            .collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn what_is_healthy_is_not_held_back() {
        let mut server = Server { capacity: 1000.0, base: 0.02, backlog: 0.0 };
        let limits = run(&mut controller(), &mut server, 700.0, 60);
        assert!(limits.iter().all(|limit| *limit == 5000.0), "{limits:?}");
    }

    #[test]
    fn five_times_the_capacity_is_brought_to_the_capacity_and_stays_there() {
        let mut server = Server { capacity: 1000.0, base: 0.02, backlog: 0.0 };
        let limits = run(&mut controller(), &mut server, 5000.0, 120);
        let last = &limits[limits.len() - 240..];
        let goodput = mean(&last.iter().map(|limit| limit.min(1000.0)).collect::<Vec<_>>());
        assert!(goodput >= 930.0, "goodput {goodput}");
        let (least, most) = last.iter().fold((f64::MAX, 0.0f64), |(a, b), v| (a.min(*v), b.max(*v)));
        assert!(most <= 1150.0 && least >= 800.0, "it swings between {least} and {most}");
    }

    #[test]
    fn a_step_down_is_followed_within_ten_seconds_and_a_step_up_within_thirty() {
        let mut control = controller();
        let mut server = Server { capacity: 2000.0, base: 0.02, backlog: 0.0 };
        run(&mut control, &mut server, 4000.0, 60);
        server.capacity = 500.0;
        let fell = run(&mut control, &mut server, 4000.0, 30);
        assert!(fell[40..60].iter().all(|limit| *limit < 1000.0), "{fell:?}");
        server.capacity = 2000.0;
        server.backlog = 0.0;
        let rose = run(&mut control, &mut server, 4000.0, 30);
        assert!(mean(&rose[100..]) > 1200.0, "{rose:?}");
    }

    #[test]
    fn latency_that_no_limit_can_cure_leads_to_the_floor_and_no_further_and_back_to_the_top() {
        let mut control = controller();
        let mut server = Server { capacity: 10_000.0, base: 0.02, backlog: 0.0 };
        run(&mut control, &mut server, 4000.0, 20);
        server.base = 0.32;
        let fell = run(&mut control, &mut server, 4000.0, 60);
        assert!(fell[40] <= 2500.0, "half within ten seconds: {}", fell[40]);
        assert_eq!(fell.last(), Some(&50.0));
        server.base = 0.02;
        let rose = run(&mut control, &mut server, 4000.0, 30);
        assert!(*rose.last().unwrap() >= 4000.0, "{:?}", rose.last());
    }

    #[test]
    fn few_answers_are_learned_from_when_there_are_enough() {
        let mut control = controller();
        let slow = |requests, looks| Health {
            requests,
            looks,
            p99: Some(Duration::from_millis(1500)),
            refused: 10,
            ..Health::default()
        };
        // 24 a second.
        assert_eq!(control.tick(&slow(12, 2)), 50.0, "the floor");
        let mut control = Controller::new(control.target, (5.0, 5000.0), true);
        let first = control.tick(&slow(12, 2));
        assert!((20.0..24.0).contains(&first), "{first}");
        let waits = (0..).take_while(|_| control.tick(&slow(12, 2)) == first).count();
        assert!(waits <= 5, "as long as answers take: {waits}");
    }

    #[test]
    fn nothing_is_learned_from_a_handful_and_every_measure_counts() {
        let target = Target { errors: Some(0.02), queue: Some(100), cpu: Some(0.5), ..Target::default() };
        let tick = |health: Health| Controller::new(target, (10.0, 100.0), false).tick(&health);
        assert_eq!(tick(Health { requests: 3, errors: 1.0, ..Health::default() }), 100.0);
        assert!(tick(Health { requests: 100, errors: 0.05, ..Health::default() }) < 100.0);
        assert!(tick(Health { queue: 101, ..Health::default() }) < 100.0);
        assert!(tick(Health { cpu: 0.6, ..Health::default() }) < 100.0);
        assert_eq!(
            tick(Health { requests: 100, errors: 0.01, queue: 99, cpu: 0.4, ..Health::default() }),
            100.0
        );
    }
}
