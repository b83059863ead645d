//! How a dynamic limit follows the health of what it protects. Pure: told what was measured, and when.
//!
//! Latency is kept at a share of its target by proportional control: a backlog grows by what is let in above what is
//! answered, so that the limit is set from what *is* answered, a little less the further latency is above its aim. What is answered
//! while there is a backlog is what can be; when the backlog is gone the limit goes on from there.
//!
//! Errors, queues and pressure jump rather than grow. Against them it is additive increase and multiplicative decrease, with
//! three things against swinging: it waits for what it did to show, it remembers where things went wrong and comes near
//! that slowly, and it rises only while the limit is what holds requests back, as an idle gateway learns nothing.

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
    /// Units asked for by those within their even share.
    pub within: u64,
    /// How many looks it is of, where one had too few answers; 0 is 1.
    pub looks: u32,
}

impl Health {
    pub(super) fn looks(&self) -> u32 {
        self.looks.max(1)
    }

    /// So much in these looks, a second.
    pub(super) fn per_second(&self, amount: f64) -> f64 {
        amount / TICK.as_secs_f64() / f64::from(self.looks())
    }

    /// Answered, and not with a failure, a second.
    pub(super) fn answered(&self) -> f64 {
        self.per_second(self.requests as f64 * (1.0 - self.errors.clamp(0.0, 1.0)))
    }
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
/// Where latency is kept, of its target.
const AIM: f64 = 0.8;
/// By how much a look changes the limit for a latency that is off by the whole target, down and up, and at most.
const DOWN: f64 = 0.12;
const UP: f64 = 0.15;
const MOST_DOWN: f64 = 0.6;
const MOST_UP: f64 = 0.2;
/// How far it goes ahead of what is answered, by as much.
const AHEAD: f64 = 0.4;
/// Looks at a backlog until what is answered is what can be, and of that where it goes on.
const SURE: u32 = 3;
const BACK: f64 = 0.9;
/// To what it falls at once for what jumps.
const FALL: std::ops::RangeInclusive<f64> = 0.85..=0.95;
/// By how much it rises a look near trouble at first: with a latency that warns, and without.
const CREEP_WARNED: f64 = 0.02;
const CREEP: f64 = 0.004;
/// Near: between these shares of where things went wrong.
const NEAR: std::ops::RangeInclusive<f64> = 0.85..=1.1;
/// Looks of calm after which it rises three times as fast.
const CALM: f64 = 40.0;
/// By how much that place is forgotten a look.
const FORGET: f64 = 0.001;
/// Looks that a fall is given to show.
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
    /// Looks in a row with a latency above its target, and what was answered then.
    late: u32,
    room: f64,
    /// What was answered a second at the last look; 0: nothing yet.
    answered: f64,
    /// The limit is one of requests a second.
    counts_rate: bool,
}

/// How what was measured compares with what is to be kept: 1 is just so.
struct Load {
    latency: f64,
    /// The worst of what jumps.
    other: f64,
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
            late: 0,
            room: 0.0,
            answered: 0.0,
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

    pub fn counts_rate(&self) -> bool {
        self.counts_rate
    }

    pub fn value(&self) -> f64 {
        self.now
    }

    /// The limit from now on.
    pub fn tick(&mut self, health: &Health) -> f64 {
        let load = self.load(health);
        let done = self.done(health);
        self.trouble *= 1.0 + FORGET;
        self.settle = self.settle.saturating_sub(health.looks());
        let held_back = health.refused > 0;
        if load.other > 1.0 {
            self.fall(load.other, done);
        } else if load.latency > 1.0 || load.latency > AIM && held_back {
            self.ease(load.latency, done);
        } else if self.settle == 0 && load.other < 0.9 && self.may_rise(health) {
            self.rise(load.latency, done, health.looks());
        }
        self.now = self.now.clamp(self.from, self.to);
        self.now
    }

    /// What is answered, in the limit's terms: requests a second, or (Little's law) no fewer than are under way. Infinite
    /// where too few are for that to be known.
    fn done(&mut self, health: &Health) -> f64 {
        let answered = health.answered();
        let before = std::mem::replace(&mut self.answered, answered);
        if health.requests < FEW {
            return f64::INFINITY;
        }
        let mean = if before == 0.0 { answered } else { (answered + before) / 2.0 };
        match (self.counts_rate, health.p99) {
            (true, _) => mean,
            (false, Some(p99)) => mean * p99.as_secs_f64(),
            (false, None) => f64::INFINITY,
        }
    }

    /// What jumps is above its target.
    fn fall(&mut self, load: f64, done: f64) {
        if self.settle > 0 {
            return;
        }
        // A limit far above what comes in, or can be answered, holds nothing back.
        let held = self.now.min(done);
        self.went_wrong(held);
        self.now = held * (1.0 / load).clamp(*FALL.start(), *FALL.end());
        self.settle = SETTLE;
    }

    /// Latency is above where it is kept.
    fn ease(&mut self, latency: f64, done: f64) {
        let held = self.now.min(done);
        if latency > 1.0 {
            self.went_wrong(held);
            self.late = self.late.saturating_add(1);
            self.room = if self.late <= SURE { done } else { self.room * 0.9 + done * 0.1 };
        }
        let down = 1.0 - (DOWN * (latency - AIM)).min(MOST_DOWN);
        // What is answered while a backlog lasts does not become less with the limit: it falls no further while it waits for that.
        self.now = if self.counts_rate { self.now.min(done * down) } else { held * down };
    }

    fn went_wrong(&mut self, at: f64) {
        if self.calm > 0 {
            self.trouble = at;
        }
        self.calm = 0;
    }

    /// Only while somebody is held back, or nobody has ever been. Where nothing is answered, and some are held back, all may
    /// hang.
    fn may_rise(&self, health: &Health) -> bool {
        match health.requests {
            0 => health.refused == 0,
            _ => health.refused > 0 || self.trouble.is_infinite(),
        }
    }

    /// `looks`: for how many it has waited for enough answers.
    fn rise(&mut self, latency: f64, done: f64, looks: u32) {
        let backlog = std::mem::take(&mut self.late) > 0;
        if backlog && self.counts_rate && self.room * BACK > self.now {
            self.now = self.room * BACK;
            return;
        }
        self.calm = self.calm.saturating_add(looks);
        // The longer it is calm the faster.
        let calm = f64::from(self.calm);
        let looks = f64::from(looks);
        let far = (UP * looks * (AIM - latency) * (1.0 + calm.min(CALM) / (CALM / 2.0))).min(MOST_UP);
        let creep = if self.target.p99.is_some() { CREEP_WARNED } else { CREEP };
        let near = creep * looks * (1.0 + (calm / 10.0).powi(2));
        let is_near = NEAR.contains(&(self.now / self.trouble));
        let ahead = if self.counts_rate { done * (1.0 + AHEAD * (AIM - latency)) } else { f64::INFINITY };
        let risen = self.now.min(ahead) * (1.0 + if is_near { near.min(far) } else { far });
        // Nothing is amiss: what is answered now may be little for want of requests.
        self.now = self.now.max(risen);
    }

    fn load(&self, health: &Health) -> Load {
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
        Load {
            latency: latency.unwrap_or(0.0),
            other: [errors, queue, cpu].into_iter().flatten().fold(0.0, f64::max),
        }
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
        assert!(goodput >= 940.0, "goodput {goodput}");
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
        let slow = |requests, looks| Health {
            requests,
            looks,
            p99: Some(Duration::from_millis(1500)),
            refused: 10,
            ..Health::default()
        };
        // 24 a second.
        assert_eq!(controller().tick(&slow(12, 2)), 50.0, "the floor");
        let mut control = Controller::new(controller().target, (5.0, 5000.0), true);
        let first = control.tick(&slow(12, 2));
        assert!((9.0..24.0).contains(&first), "{first}");
        assert!((0..50).all(|_| control.tick(&slow(12, 2)) == first), "while as many are answered, it waits");
        assert!(control.tick(&slow(12, 4)) < first);
    }

    #[test]
    fn a_backlog_is_worked_off_and_then_it_goes_on_from_what_was_answered_meanwhile() {
        let mut control = controller();
        let mut server = Server { capacity: 2000.0, base: 0.02, backlog: 0.0 };
        run(&mut control, &mut server, 4000.0, 60);
        (server.capacity, server.backlog) = (500.0, 2000.0);
        let limits = run(&mut control, &mut server, 4000.0, 40);
        let drained = limits.iter().position(|limit| *limit >= 440.0 && *limit <= 500.0);
        let fallen = limits.iter().position(|limit| *limit < 440.0).expect("it falls");
        assert!(limits[fallen..].iter().all(|limit| *limit >= 180.0), "{limits:?}");
        assert!(drained.is_some_and(|at| at <= 60), "{limits:?}");
    }

    #[test]
    fn requests_at_once_settle_where_latency_is_kept() {
        let target = Target { p99: Some(Duration::from_millis(250)), ..Target::default() };
        let mut control = Controller::new(target, (5.0, 5000.0), false);
        let mut limits = Vec::new();
        let mut at_once = 500.0f64;
        for _ in 0..400 {
            // 1000 a second (Little's law), of which the last take longest.
            let latency = at_once / 1000.0 * 1.3;
            let health = Health {
                requests: 250,
                p99: Some(Duration::from_secs_f64(latency)),
                refused: 100,
                ..Health::default()
            };
            limits.push(control.tick(&health));
            at_once = (at_once + control.value().min(500.0)) / 2.0;
        }
        let last = &limits[200..];
        assert!(last.iter().all(|limit| (140.0..=165.0).contains(limit)), "{last:?}");
        assert!(limits[60] < 250.0, "within fifteen seconds: {}", limits[60]);
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
