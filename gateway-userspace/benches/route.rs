//! Nanoseconds a look-up of a route takes, with 1 to 10,000 routes, without and with predicates: the minimum of 15 rounds.
//!
//! `cargo bench -p gateway-userspace --bench route`. Fails above the goals: 2 us at 10,000 routes.
#![allow(clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::{hint::black_box, path::Path, time::Instant};

use gateway::{
    config::{self, model::Config},
    route::{Asked, Router, Takes},
};
use http::{HeaderMap, Method};

const ROUNDS: usize = 15;
const LOOKUPS: usize = 20_000;
const GOAL: f64 = 2000.0;

fn config(routes: usize, hosts: bool, predicates: bool) -> Config {
    let mut text = "[listener.web]\nbind = \":80\"\n[upstream.u]\nto = \"10.0.0.1:1\"\n".to_owned();
    for n in 0..routes {
        let host = if hosts { format!("host = \"h{n}.example.com\"\n") } else { String::new() };
        let when = if predicates { "methods = [\"GET\"]\nheaders = { x-v = \"2\" }\n" } else { "" };
        text.push_str(&format!(
            "[route.r{n}]\n{host}path = \"/api/v{}/items{n}/{{id}}/*\"\n{when}to = \"u\"\n",
            n % 10
        ));
    }
    config::parse(&text, Path::new("bench.toml")).unwrap()
}

fn measure(config: &Config) -> f64 {
    let router = Router::new(config.routes.values().enumerate().map(|(i, route)| (Takes::of(route), i)));
    let mut headers = HeaderMap::new();
    headers.insert("x-v", http::HeaderValue::from_static("2"));
    let routes = config.routes.len();
    let asked: Vec<(String, String)> = (0..1000)
        .map(|i| i * 7919 % routes)
        .map(|n| (format!("H{n}.example.com:8080"), format!("/api/v{}/items{n}/12345/parts/7", n % 10)))
        .collect();
    let method = Method::GET;
    let round = || {
        let start = Instant::now();
        for (host, path) in asked.iter().cycle().take(LOOKUPS) {
            let asked = Asked { host, path, method: &method, headers: &headers, query: None };
            assert!(router.find(black_box(&asked)).is_some());
        }
        start.elapsed().as_nanos() as f64 / LOOKUPS as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let mut failed = false;
    println!("{:>8} {:>12} {:>12} {:>12}", "routes", "paths", "hosts", "predicates");
    for routes in [1, 10, 100, 1000, 10_000] {
        let of = |hosts, predicates| measure(&config(routes, hosts, predicates));
        let figures = [of(false, false), of(true, false), of(false, true)];
        println!("{routes:>8} {:>9.0} ns {:>9.0} ns {:>9.0} ns", figures[0], figures[1], figures[2]);
        failed |= figures.iter().any(|figure| *figure > GOAL);
    }
    if failed {
        eprintln!("a look-up takes more than {GOAL} ns");
        std::process::exit(1);
    }
}
