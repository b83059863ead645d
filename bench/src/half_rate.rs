//! How late answers are at half of the best peer's peak rate. Requests come at times of their own, not when the last answer is
//! there (`h2load --rps`): what queues is seen.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use lab::{h2load, net::Node, wrk::Outcome};
use serde_json::{Value, json};

use crate::{Effort, OTHER_CPU, at, proxy::Program, show, stats::Rounds};

const CONNECTIONS: usize = 64;

/// So many requests a second, all of which have to be answered.
pub fn ask(
    client: &Node,
    port: u16,
    (path, connections): (&str, usize),
    rate: f64,
    duration: Duration,
) -> Result<Outcome> {
    let load = h2load::Load {
        connections,
        streams: 1,
        duration,
        path: path.into(),
        cpu: Some(OTHER_CPU),
        tls: false,
        grpc: false,
        http1: true,
        rate: Some(rate),
    };
    let outcome = h2load::run(client, at(port), &load)?;
    ensure!(outcome.errors == 0, "{port}: {outcome:?}");
    Ok(outcome)
}

/// `peak`: requests a second.
pub fn run(client: &Node, programs: &[Program], peak: f64, effort: Effort) -> Result<Value> {
    let rate = peak / 2.0;
    let mut all: BTreeMap<&str, [Rounds; 3]> = BTreeMap::new();
    for _ in 0..effort.rounds {
        for program in programs {
            let outcome = ask(client, program.port, ("/", CONNECTIONS), rate, effort.round)?;
            let [got, p50, p99] = all.entry(program.name).or_default();
            got.push(outcome.rate());
            p50.push(outcome.p50_us as f64);
            p99.push(outcome.p99_us as f64);
        }
    }
    println!(
        "\n{}  {}",
        show::bold("How late answers are"),
        show::dim(&format!(
            "128-byte bodies, {CONNECTIONS} connections, {} requests a second: half of the best peer's most; p99 no worse \
             than the best peer's",
            show::grouped(rate)
        ))
    );
    let row = |program: &Program| {
        let [got, p50, p99] = all.get(program.name)?;
        let ms = |us: &Rounds| format!("{:.3}", us.median() / 1e3);
        Some(vec![program.name.to_owned(), show::grouped(got.median()), ms(p50), ms(p99)])
    };
    let rows: Vec<Vec<String>> = programs.iter().filter_map(row).collect();
    println!("{}", show::table(&["", "requests/s", "p50 ms", "p99 ms"], &rows));
    let figures = |[got, p50, p99]: &[Rounds; 3]| json!({ "requests_per_second": got.json(), "p50_us": p50.json(), "p99_us": p99.json() });
    let programs: serde_json::Map<_, _> =
        all.iter().map(|(name, rounds)| ((*name).to_owned(), figures(rounds))).collect();
    Ok(json!({ "asked_per_second": rate, "programs": programs }))
}
