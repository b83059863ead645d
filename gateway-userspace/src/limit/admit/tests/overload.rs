//! Overload in simulated time: the whole of a dynamic limit, buckets, shares and controller, in front of a backend of twenty
//! slots. Requests come at random (Poisson).

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::*;
use crate::limit::TICK;

const SECOND: u64 = 1_000_000_000;
const SLOTS: usize = 20;

/// One who asks for so much a second, from some second on.
struct Caller {
    name: String,
    rate: f64,
    from: f64,
}

fn callers(kind: &str, n: usize, rate: f64, from: f64) -> impl Iterator<Item = Caller> {
    (0..n).map(move |n| Caller { name: format!("{kind}-{n}"), rate, from })
}

/// What of a caller's requests was answered within 250 ms, and asked for, in some span of time; and the limit's values.
struct Outcome {
    answered: Vec<(f64, f64)>,
    limits: Vec<f64>,
}

impl Outcome {
    fn share(&self, callers: std::ops::Range<usize>) -> f64 {
        let of = |part: fn(&(f64, f64)) -> f64| self.answered[callers.clone()].iter().map(part).sum::<f64>();
        of(|(answered, _)| *answered) / of(|(_, asked)| *asked)
    }
}

/// `capacity`: requests a second at each time.
fn run(limit: &str, all: &[Caller], capacity: fn(f64) -> f64, seconds: std::ops::Range<f64>) -> Outcome {
    run_with((SLOTS, "150ms", 250), limit, all, capacity, seconds)
}

/// … of so many slots, with a target, where an answer counts within so many milliseconds.
fn run_with(
    (slots, target, in_time): (usize, &str, u64),
    limit: &str,
    all: &[Caller],
    capacity: fn(f64) -> f64,
    seconds: std::ops::Range<f64>,
) -> Outcome {
    let text = format!("[limit.a]\nmode = \"dynamic\"\ntarget = {{ p99 = \"{target}\" }}\n{limit}");
    let limits = route(&text, "\"a\"");
    let (head, dial) = (head(), limits.limits[0].dial().unwrap());
    let mut random = fastrand::Rng::with_seed(3);
    let mut exponential = move |mean: f64| -mean * (1.0 - random.f64()).ln();
    let mut due: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for (n, caller) in all.iter().enumerate() {
        due.push(Reverse((((caller.from + exponential(1.0 / caller.rate)) * 1e9) as u64, n)));
    }
    let mut free: BinaryHeap<Reverse<u64>> = (0..slots).map(|_| Reverse(0)).collect();
    // When an answer begins, how long it took, whose it is, and whether it left a place.
    let mut answers: BinaryHeap<Reverse<(u64, u64, usize)>> = BinaryHeap::new();
    let mut outcome = Outcome { answered: vec![(0.0, 0.0); all.len()], limits: vec![] };
    let (mut look, mut refused, mut within, mut took) = (TICK.as_nanos() as u64, 0, 0, Vec::new());
    while let Some(Reverse((now, caller))) = due.pop() {
        let at = now as f64 / 1e9;
        if at > seconds.end {
            break;
        }
        let counted = |at: u64| seconds.contains(&(at as f64 / 1e9));
        while answers.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((ended, lasted, whose))) = answers.pop() else { break };
            took.push(lasted);
            if counted(ended) && lasted <= in_time * 1_000_000 {
                outcome.answered[whose].0 += 1.0;
            }
        }
        while now > look {
            took.sort_unstable();
            let p99 = took.get(took.len() * 99 / 100).map(|ns| Duration::from_nanos(*ns));
            let requests = took.len() as u64;
            outcome.limits.push(dial.tick(&Health { requests, p99, refused, within, ..Health::default() }));
            if std::env::var("TRACE").is_ok() {
                println!(
                    "{:.2} limit {:.1} level {:.2} answered {} p99 {:?} refused {refused} within {within}",
                    look as f64 / 1e9,
                    dial.value(),
                    dial.level(),
                    took.len() * 4,
                    p99
                );
            }
            (refused, within) = (0, 0);
            took.clear();
            look += TICK.as_nanos() as u64;
        }
        due.push(Reverse((now + (exponential(1.0 / all[caller].rate) * 1e9) as u64, caller)));
        if counted(now) {
            outcome.answered[caller].1 += 1.0;
        }
        let clock = Now { steady: SECOND * 1000 + now, wall: SECOND * 1000 + now };
        let facts = Facts { consumer: Some(&all[caller].name), ..facts(&head) };
        let checked = limits.check(&facts, clock, |_| true);
        within += checked.iter().filter_map(|one| one.portion).filter(|one| one.within).count() as u64;
        if checked.iter().any(Checked::refuses) {
            refused += 1;
            continue;
        }
        let Some(Reverse(slot)) = free.pop() else { break };
        let ends = slot.max(now) + (slots as f64 / capacity(at) * 1e9) as u64;
        free.push(Reverse(ends));
        answers.push(Reverse((ends, ends - now, caller)));
    }
    outcome
}

const RATE: &str = "rate = { from = \"100/s\", to = \"5000/s\" }\n";

#[test]
fn of_five_times_the_capacity_ninety_percent_is_answered_in_time_and_honest_ones_get_what_they_ask_for() {
    let all: Vec<_> = callers("honest", 20, 20.0, 0.0).chain(callers("greedy", 20, 250.0, 0.0)).collect();
    let outcome = run(RATE, &all, |_| 1000.0, 15.0..45.0);
    let answered: f64 = outcome.answered.iter().map(|(answered, _)| answered).sum();
    assert!(answered >= 0.95 * 30.0 * 1000.0, "{answered}");
    let honest = outcome.share(0..20);
    assert!(honest >= 0.98, "honest ones get {honest}");
    let greedy: Vec<f64> = outcome.answered[20..].iter().map(|(answered, _)| *answered / 30.0).collect();
    assert!(greedy.iter().all(|got| (20.0..40.0).contains(got)), "evenly: {greedy:?}");
    let last = &outcome.limits[60..];
    assert!(last.iter().all(|limit| (800.0..1300.0).contains(limit)), "it swings: {last:?}");
}

#[test]
fn at_two_hundred_a_second_too() {
    let all: Vec<_> = callers("honest", 10, 6.0, 0.0).chain(callers("greedy", 10, 94.0, 0.0)).collect();
    let slow = "rate = { from = \"20/s\", to = \"2000/s\" }\n";
    let outcome = run_with((10, "400ms", 600), slow, &all, |_| 200.0, 10.0..60.0);
    let answered: f64 = outcome.answered.iter().map(|(answered, _)| answered).sum();
    assert!(answered >= 0.9 * 45.0 * 200.0, "{answered}");
    assert!(outcome.share(0..10) >= 0.95, "honest ones get {}", outcome.share(0..10));
}

#[test]
fn without_shares_the_greedy_take_most_of_it() {
    let all: Vec<_> = callers("honest", 20, 20.0, 0.0).chain(callers("greedy", 20, 250.0, 0.0)).collect();
    let outcome = run(&format!("{RATE}fair = []"), &all, |_| 1000.0, 15.0..30.0);
    assert!(outcome.share(0..20) < 0.3, "{}", outcome.share(0..20));
}

#[test]
fn when_the_capacity_falls_to_a_quarter_shares_follow() {
    // 10 a second each are less than an even share of 500.
    let all: Vec<_> = callers("honest", 20, 10.0, 0.0).chain(callers("greedy", 20, 200.0, 0.0)).collect();
    let outcome = run(RATE, &all, |at| if at < 20.0 { 2000.0 } else { 500.0 }, 35.0..60.0);
    let answered: f64 = outcome.answered.iter().map(|(answered, _)| answered).sum();
    assert!(answered >= 0.9 * 25.0 * 500.0, "{answered}");
    assert!(outcome.share(0..20) >= 0.95, "{}", outcome.share(0..20));
}

#[test]
fn one_alone_gets_everything_and_a_crowd_that_comes_later_its_shares() {
    let all: Vec<_> = callers("first", 1, 3000.0, 0.0).chain(callers("later", 30, 30.0, 30.0)).collect();
    let alone = run(RATE, &all, |_| 1000.0, 15.0..30.0);
    assert!(alone.answered[0].0 >= 0.95 * 15.0 * 1000.0, "{:?}", alone.answered[0]);
    let together = run(RATE, &all, |_| 1000.0, 40.0..60.0);
    assert!(together.share(1..31) >= 0.95, "{}", together.share(1..31));
    assert!(together.answered[0].0 >= 0.05 * 20.0 * 1000.0, "what is left: {:?}", together.answered[0]);
}
