//! A dynamic limit in front of a server that changes, in simulated time: requests come at random (Poisson), twenty slots serve
//! them for exponential times, and the controller sees what it would see: the 99th percentile of what was answered
//! since its last look.

use std::{cmp::Reverse, collections::BinaryHeap, fmt::Write as _, time::Duration};

use gateway::limit::{Controller, Health, TICK, Target};

const SECONDS: f64 = 150.0;
const SLOTS: usize = 20;
/// How deep the bucket is in time.
const BURST: f64 = 0.2;

/// One run: what was allowed and answered, a second.
pub struct Step {
    pub name: &'static str,
    capacity: Capacity,
    offered: f64,
    limits: Vec<(f64, f64)>,
    answered: Vec<(f64, f64)>,
    /// Of what could have been answered, after a start of 20 s.
    pub goodput: f64,
    pub said: String,
}

/// At which time there is room for how many a second.
type Capacity = &'static [(f64, f64)];

/// Of what, and what is offered.
const STEPS: [(&str, Capacity, f64); 3] = [
    ("five times the capacity", &[(0.0, 1000.0)], 5000.0),
    (
        "the capacity falls to a quarter, and comes back",
        &[(0.0, 2000.0), (60.0, 500.0), (100.0, 2000.0)],
        4000.0,
    ),
    ("just below the capacity", &[(0.0, 1000.0)], 900.0),
];

pub fn all() -> Vec<Step> {
    STEPS.into_iter().map(|(name, capacity, offered)| Step::run(name, capacity, offered)).collect()
}

fn room(capacity: &[(f64, f64)], at: f64) -> f64 {
    capacity.iter().rev().find(|(from, _)| *from <= at).map_or(1.0, |(_, room)| *room)
}

impl Step {
    fn run(name: &'static str, capacity: Capacity, offered: f64) -> Step {
        let target = Target { p99: Some(Duration::from_millis(250)), ..Target::default() };
        let mut control = Controller::new(target, (50.0, 5000.0), true);
        let mut random = fastrand::Rng::with_seed(7);
        let mut exponential = |mean: f64| -mean * (1.0 - random.f64()).ln();
        // Microseconds: when slots are free, and when answers begin, with how long they took.
        let mut free: BinaryHeap<Reverse<u64>> = (0..SLOTS).map(|_| Reverse(0)).collect();
        let mut answers: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let us = |seconds: f64| (seconds * 1e6) as u64;
        let (mut now, mut look, mut word, mut refused) = (0.0, TICK.as_secs_f64(), 0.0, 0);
        let mut step = Step {
            name,
            capacity,
            offered,
            limits: vec![],
            answered: vec![],
            goodput: 0.0,
            said: String::new(),
        };
        while now < SECONDS {
            now += exponential(1.0 / offered);
            while now > look {
                let mut took = Vec::new();
                while answers.peek().is_some_and(|Reverse((at, _))| *at <= us(look)) {
                    took.extend(answers.pop().map(|Reverse((_, took))| took));
                }
                took.sort_unstable();
                let p99 = took.get(took.len() * 99 / 100).map(|us| Duration::from_micros(*us));
                let health = Health { requests: took.len() as u64, p99, refused, ..Health::default() };
                refused = 0;
                step.limits.push((look, control.tick(&health).min(5000.0)));
                step.answered.push((look, took.len() as f64 / TICK.as_secs_f64()));
                look += TICK.as_secs_f64();
            }
            let interval = 1.0 / control.value();
            if f64::max(word, now) - now + interval > BURST.max(interval) {
                refused += 1;
                continue;
            }
            word = f64::max(word, now) + interval;
            let Some(Reverse(slot)) = free.pop() else { break };
            let ends = slot.max(us(now)) + us(exponential(SLOTS as f64 / room(capacity, now)));
            free.push(Reverse(ends));
            answers.push(Reverse((ends, ends - us(now))));
        }
        step.sum_up();
        step
    }

    fn sum_up(&mut self) {
        let after =
            |points: &[(f64, f64)]| points.iter().filter(|(at, _)| *at > 20.0).map(|(_, y)| *y).sum::<f64>();
        let could: Vec<(f64, f64)> =
            self.limits.iter().map(|(at, _)| (*at, room(self.capacity, *at).min(self.offered))).collect();
        self.goodput = after(&self.answered) / after(&could);
        let _ = write!(self.said, "{:.1} % of what could be answered was", self.goodput * 100.0);
    }
}

const WIDTH: f64 = 900.0;
const PANEL: f64 = 190.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;

/// A panel each, over time.
pub fn figure() -> String {
    let steps = all();
    let height = 30.0 + PANEL * steps.len() as f64 + 30.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\"><tspan fill=\"#c0392b\">the limit</tspan>, <tspan fill=\"#1b6ca8\">what is answered</tspan> and \
         <tspan fill=\"#555\">what could be</tspan>, requests a second, over seconds</text>\n"
    );
    for (at, step) in steps.iter().enumerate() {
        step.draw(&mut out, 30.0 + PANEL * at as f64);
    }
    out + "</svg>\n"
}

impl Step {
    fn draw(&self, out: &mut String, top: f64) {
        let most = self.capacity.iter().map(|(_, room)| *room).fold(1.0, f64::max) * 1.5;
        let (high, base) = (PANEL - 60.0, top + PANEL - 30.0);
        let place = |(x, y): (f64, f64)| {
            (LEFT + x / SECONDS * (WIDTH - LEFT - RIGHT), base - (y / most).min(1.0) * high)
        };
        let _ =
            writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\">{}: {}</text>", top + 18.0, self.name, self.said);
        for tick in [0.0, most / 3.0, most / 1.5, most] {
            let (_, y) = place((0.0, tick));
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick:.0}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            );
        }
        for second in (0..=SECONDS as u32).step_by(30) {
            let (x, _) = place((f64::from(second), 0.0));
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second}</text>",
                base + 18.0
            );
        }
        let could: Vec<_> =
            self.limits.iter().map(|(at, _)| (*at, room(self.capacity, *at).min(self.offered))).collect();
        for (points, colour, dash) in
            [(&could, "#555", "4 3"), (&self.answered, "#1b6ca8", ""), (&self.limits, "#c0392b", "")]
        {
            let line: Vec<String> = points
                .iter()
                .map(|point| {
                    let (x, y) = place(*point);
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-dasharray=\"{dash}\"/>",
                line.join(" ")
            );
        }
    }
}
