//! Nanoseconds of a decision: one limit, of 1 to 1 M keys, let in and refused; two threads on one key; several limits,
//! windows. How much of what is allowed is let in. And how a dynamic limit follows what it protects, in simulated time.
//!
//! `cargo bench -p gateway-userspace --bench limit -- [--quick] [--json FILE] [--plot FILE]`. The minimum of 15 rounds; fails
//! above the goal: 60 ns with one limit. `--plot $PWD/docs/figures/limit-steps.svg`
//! draws the steps.
#![allow(clippy::unwrap_used, reason = "a bench that fails may panic")]

#[path = "limit/steps.rs"]
mod steps;

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use gateway::{
    config,
    limit::{Facts, Limit, Now, RouteLimits, Store, wall_ahead},
    observe::stats::Registry,
};
use http::request;
use serde_json::json;

const ROUNDS: usize = 15;
const GOAL_NS: f64 = 60.0;
/// Of what is allowed, more or less.
const ACCURACY: f64 = 0.005;

fn limits(text: &str) -> RouteLimits {
    let names: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("[limit.")?.strip_suffix(']')).collect();
    let config = format!(
        "[gateway]\nlimit_state = \"off\"\nlimit_keys = 4194304\n[listener.web]\nbind = \":80\"\n[route.all]\n\
         to = [\"127.0.0.1:1\"]\nlimit = {names:?}\n{text}"
    );
    let config = config::parse(&config, Path::new("gateway.toml")).unwrap();
    let (store, registry) = (Arc::new(Store::new(&config, &Arc::default(), 2)), Registry::new(2));
    let named = names.iter().map(|name| Arc::new(Limit::new(name, &config.limits[*name], &store, &registry)));
    RouteLimits::new(&store, named.collect()).unwrap()
}

fn head() -> request::Parts {
    let request = http::Request::get("/items/1").header("host", "a.test").header("accept", "*/*");
    request.body(()).unwrap().into_parts().0
}

fn facts(head: &request::Parts, client: Ipv4Addr) -> Facts<'_> {
    Facts {
        head,
        client: IpAddr::V4(client),
        direct: true,
        route: "all",
        version: None,
        consumer: None,
        tier: None,
        claim: &|_| None,
    }
}

/// One of `keys` clients after the other, in an order that caches do not foresee; no division.
fn client(at: u32, keys: u32) -> Ipv4Addr {
    let mixed = at.wrapping_mul(0x9e37_79b1) ^ at >> 7;
    Ipv4Addr::from_bits(0x0a00_0000 + ((u64::from(mixed) * u64::from(keys)) >> 32) as u32)
}

/// Decides `n` times. The time of a request is known before its limits are asked (its log and its metrics have it too):
/// here one comes each 100 ns.
fn decide(limits: &RouteLimits, worker: usize, keys: u32, n: u32) {
    let (head, wall_ahead, mut moment) = (head(), wall_ahead(), Instant::now());
    for at in 0..n {
        moment += Duration::from_nanos(100);
        let facts = facts(&head, client(at, keys));
        let now = Now::of(black_box(moment), black_box(wall_ahead));
        black_box(limits.admit(worker, black_box(&facts), now));
    }
}

/// What all of it costs but the limits.
fn bare(n: u32) -> Duration {
    let began = Instant::now();
    let (head, mut moment) = (head(), began);
    for at in 0..n {
        moment += Duration::from_nanos(100);
        black_box((facts(&head, client(at, black_box(1_000_000))).client, moment));
    }
    began.elapsed()
}

struct Case {
    name: &'static str,
    limits: RouteLimits,
    keys: u32,
    threads: usize,
    goal: Option<f64>,
    best: Duration,
}

/// Of so many decisions of each thread.
fn round(case: &Case, n: u32) -> Duration {
    if case.threads == 1 {
        let began = Instant::now();
        decide(&case.limits, 0, case.keys, n);
        return began.elapsed();
    }
    let start = Barrier::new(case.threads);
    std::thread::scope(|scope| {
        let run = |worker| {
            let (start, limits, keys) = (&start, &case.limits, case.keys);
            scope.spawn(move || {
                start.wait();
                let began = Instant::now();
                decide(limits, worker, keys, n);
                began.elapsed()
            })
        };
        let running: Vec<_> = (0..case.threads).map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    })
}

/// What two threads that ask all the time are given, of a burst and a rate, in so many seconds.
fn accuracy(seconds: u64) -> Vec<serde_json::Value> {
    let of = |rate: u64| {
        // No less than a hundred in all, or one more or less is too much.
        let seconds = if rate < 10 { seconds.max(10) } else { seconds };
        let burst = (rate * 5).max(400);
        let limits = limits(&format!("[limit.a]\nrate = \"{rate}/s\"\nburst = {burst}\nheaders = []\n"));
        let start = Barrier::new(2);
        let given: Vec<(u64, Duration)> = std::thread::scope(|scope| {
            let run = |worker| {
                let (start, limits) = (&start, &limits);
                scope.spawn(move || given(limits, worker, start, Duration::from_secs(seconds)))
            };
            let running: Vec<_> = (0..2).map(run).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let took = given.iter().map(|(_, took)| *took).max().unwrap().as_secs_f64();
        let admitted: u64 = given.iter().map(|(n, _)| n).sum();
        let allowed = burst as f64 + rate as f64 * took;
        json!({ "rate": rate, "burst": burst, "admitted_of_allowed": admitted as f64 / allowed })
    };
    [1, 10, 100, 1000, 10_000, 100_000].map(of).into()
}

fn given(limits: &RouteLimits, worker: usize, start: &Barrier, lasts: Duration) -> (u64, Duration) {
    let head = head();
    let facts = facts(&head, Ipv4Addr::LOCALHOST);
    start.wait();
    let (began, mut n) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        let said = limits.admit(worker, &facts, Now::read());
        n += u64::from(said.is_none_or(|said| said.refused.is_none()));
    }
    (n, began.elapsed())
}

fn cases() -> Vec<Case> {
    // It admits them all, and its words live through all rounds: a word of a bucket that is full again is anybody's place.
    let one = "[limit.a]\nkey = \"ip\"\nrate = \"10/m\"\nburst = 100_000_000\nheaders = []\n";
    let fast = "[limit.a]\nkey = \"ip\"\nrate = \"900M/s\"\nheaders = []\n";
    let none = "[limit.a]\nkey = \"ip\"\nrate = \"1/d\"\nheaders = []\n";
    let case = |name, text: &str, keys, threads, goal| Case {
        name,
        limits: limits(text),
        keys,
        threads,
        goal,
        best: Duration::MAX,
    };
    let goal = Some(GOAL_NS);
    vec![
        case("one limit, 1 key", one, 1, 1, goal),
        case("one limit, 1,000 keys", one, 1000, 1, goal),
        case("one limit, 100,000 keys", one, 100_000, 1, None),
        case("one limit, 1 M keys", one, 1_000_000, 1, None),
        case("… that are new each time", fast, 1_000_000, 1, None),
        case("one limit, 1 key, two threads", one, 1, 2, None),
        case("one limit, 1 M keys, two threads", one, 1_000_000, 2, None),
        case("one limit, refused", none, 1, 1, None),
        case("one limit, refused, two threads", none, 1, 2, None),
        case("with RateLimit fields", &one.replace("headers = []\n", ""), 1, 1, None),
        case(
            "three limits",
            &["a", "b", "c"].map(|name| one.replace("limit.a", &format!("limit.{name}"))).concat(),
            1,
            1,
            None,
        ),
        case("fixed window", &format!("{fast}algorithm = \"fixed-window\"\n"), 1, 1, None),
        case("sliding window", &format!("{fast}algorithm = \"sliding-window\"\n"), 1, 1, None),
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value =
        |name: &str| arguments.iter().position(|one| one == name).and_then(|at| arguments.get(at + 1));
    if let Some(file) = value("--plot") {
        std::fs::write(file, steps::figure()).unwrap();
        return;
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let n = if quick { 100_000 } else { 1_000_000 };
    let mut cases = cases();
    let mut least = Duration::MAX;
    for turn in 0..=ROUNDS {
        least = least.min(bare(n));
        for case in &mut cases {
            let took = round(case, n);
            // The first fills tables and caches.
            if turn > 0 {
                case.best = case.best.min(took);
            }
        }
    }
    let ns = |took: Duration| took.saturating_sub(least).as_nanos() as f64 / f64::from(n);
    let (mut missed, mut rows) = (Vec::new(), Vec::new());
    for case in &cases {
        let ns = ns(case.best);
        let goal = case.goal.map_or(String::new(), |goal| format!("  (goal {goal})"));
        println!("{:<32} {ns:>8.1} ns{goal}", case.name);
        missed.extend(case.goal.filter(|goal| ns > *goal).map(|_| case.name));
        rows.push(json!({ "case": case.name, "ns": ns }));
    }
    for row in accuracy(if quick { 2 } else { 10 }) {
        let (rate, share) = (row["rate"].as_u64().unwrap(), row["admitted_of_allowed"].as_f64().unwrap());
        println!("{:<32} {:>8.3} % of what is allowed", format!("{rate}/s, two threads"), share * 100.0);
        if (share - 1.0).abs() > ACCURACY {
            missed.push("accuracy");
        }
        rows.push(row);
    }
    for step in steps::all() {
        println!("{:<60} {}", step.name, step.said);
        rows.push(json!({ "step": step.name, "goodput": step.goodput }));
    }
    if let Some(file) = value("--json") {
        std::fs::write(file, serde_json::to_string_pretty(&rows).unwrap() + "\n").unwrap();
    }
    assert!(missed.is_empty(), "above the goal: {}", missed.join(", "));
}
