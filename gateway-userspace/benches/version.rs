//! Nanoseconds that the choice of a version takes, by where the request names it: the minimum of 15 rounds.
//!
//! `cargo bench -p gateway-userspace --bench version`. Fails above the goal: 150 ns.
#![allow(clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::{hint::black_box, path::Path, time::Instant};

use gateway::{config, route::Asked, version::Chooser};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const ROUNDS: usize = 15;
const CHOICES: usize = 100_000;
const GOAL: f64 = 150.0;

fn chooser(from: &str) -> Chooser {
    let text = format!(
        "[listener.web]\nbind = \":80\"\n[route.api]\npath = \"/items/*\"\nto = [\"10.0.0.1:1\"]\n\
         [route.api.version]\nfrom = [{from}]\ndefault = \"v2\"\naliases = {{ latest = \"v3\" }}\n\
         [route.api.version.v1]\n[route.api.version.v2]\n[route.api.version.v3]\n[route.api.version.2026-06-01]\n"
    );
    let config = config::parse(&text, Path::new("bench.toml")).unwrap();
    Chooser::new(config.routes["api"].versions.as_deref().unwrap())
}

/// Fields as a browser sends them, and one more.
fn headers(field: Option<(&'static str, &'static str)>) -> HeaderMap {
    let usual = [
        ("host", "api.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in usual.into_iter().chain(field) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn measure(chooser: &Chooser, path: &str, query: Option<&str>, headers: &HeaderMap) -> f64 {
    let asked = Asked { host: "api.example.com", path, method: &Method::GET, headers, query };
    let round = || {
        let start = Instant::now();
        for _ in 0..CHOICES {
            assert!(chooser.choose(black_box(&asked)).is_ok());
        }
        start.elapsed().as_nanos() as f64 / CHOICES as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let all = "\"path\", \"header:api-version\", \"accept\", \"query:v\"";
    let mut failed = false;
    println!("{:<44} {:>8}", "named by", "ns");
    for (what, from, path, query, field) in [
        ("path", "\"path\"", "/v1/items/12345/parts/7", None, None),
        ("header", "\"header:api-version\"", "/items/12345", None, Some(("api-version", "v3"))),
        (
            "header, a date",
            "\"header:api-version\"",
            "/items/12345",
            None,
            Some(("api-version", "2026-07-15")),
        ),
        ("accept", "\"accept\"", "/items/12345", None, Some(("accept", "application/vnd.acme.v2+json"))),
        ("query", "\"query:v\"", "/items/12345", Some("page=2&per_page=50&v=3"), None),
        ("path, all four looked at", all, "/v1/items/12345/parts/7", Some("page=2&per_page=50"), None),
        ("nothing: the default, all four looked at", all, "/items/12345", Some("page=2&per_page=50"), None),
    ] {
        let figure = measure(&chooser(from), path, query, &headers(field));
        println!("{what:<44} {figure:>8.0}");
        failed |= figure > GOAL;
    }
    if failed {
        eprintln!("a choice takes more than {GOAL} ns");
        std::process::exit(1);
    }
}
