//! What seeing costs: CPU time a request with nothing told of it, with a line in a file for each, with one trace in a
//! hundred besides, and with all of that and metrics read each second; and how long metrics of 10,000 series take.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    http,
    net::{Net, Node},
    wrk::{Load, Outcome, Wrk},
};
use serde_json::{Value, json};

use crate::{
    Effort, MEASURED_CPU, OTHER_CPU, at, peers, show,
    stats::{Costs, Rounds, loaded},
    watching,
};

/// All of it, of none of it.
const GOAL: f64 = 1.05;
/// Lines of the log that a worker writes in a second of its CPU.
const LINES: f64 = 500_000.0;
const SCRAPE: Duration = Duration::from_millis(50);
/// With the series of each route this makes more than ten thousand.
const ROUTES: usize = 400;

const NAMES: [&str; 4] = ["nothing", "log", "log, traces", "all"];
/// Each round is so many short ones: what is compared is measured within seconds, as a machine's pace changes.
const PARTS: usize = 5;

/// What seeing so much costs.
#[derive(Default)]
struct Seen {
    costs: Costs,
    /// CPU time a request, of that of nothing in the same part of a round.
    share: Rounds,
}

pub fn run(effort: Effort) -> Result<Value> {
    let net = Net::of(1, 0, 0)?;
    let (backend, collector) = (at(8080), at(4318));
    let _backend = peers::nginx_backend(&net.gateway, backend, OTHER_CPU)?;
    let _collector = peers::nginx_with(
        &net.gateway,
        collector,
        OTHER_CPU,
        &format!(
            "access_log off; client_max_body_size 64m; server {{ listen {collector}; return 200 '{{}}'; }}"
        ),
    )?;
    let mut gateways = Vec::new();
    for (name, port) in NAMES.into_iter().zip(8001..) {
        let log = if name == "nothing" { "[access_log]\nto = \"off\"\n" } else { "" };
        let traces = if name.contains("traces") || name == "all" {
            format!("[tracing]\notlp = \"http://{collector}\"\nshare = \"1%\"\n")
        } else {
            String::new()
        };
        // All but one have their metrics where nobody asks.
        let metrics = if name == "all" { at(9180).to_string() } else { "off".into() };
        let config = format!(
            "[gateway]\nworkers = 1\n[listener.web]\nbind = \"{}\"\n{log}{traces}[route.all]\nto = [\"{backend}\"]\n\
             [metrics]\nbind = \"{metrics}\"\n[kernel]\nmode = \"off\"\nsteer = \"off\"\n",
            at(port)
        );
        let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
        gateways.push((name, port, Gateway::start_with(&net, &config, options)?));
    }
    let client = Node::of_namespace(net.gateway.clone());
    let all = measure(&client, &gateways, effort)?;
    drop(gateways);
    let (series, scrape) = scrape(&net, &client)?;
    let of = |name: &str| {
        all.get(name).map_or((0.0, 0.0), |seen| (seen.costs.cpu_us.median(), seen.share.median()))
    };
    let lines = 1e6 / (of("nothing").0 * (of("log").1 - 1.0)).max(1e-3);
    show_tables(&all, lines, series, &scrape, effort);
    let watching = watching::run(&net, effort)?;
    let programs = all.iter().map(|(name, Seen { costs, share })| {
        let figures = json!({
            "cpu_us_per_request": costs.cpu_us.json(),
            "times_nothing": share.json(),
            "requests_per_second": costs.rate.json(),
        });
        ((*name).to_owned(), figures)
    });
    Ok(json!({
        "goal_times_nothing": GOAL,
        "programs": programs.collect::<Value>(),
        "log_lines_per_cpu_second": lines,
        "watching": watching,
        "scrape": { "series": series, "ms": scrape.json(), "goal_ms": SCRAPE.as_millis() },
    }))
}

fn measure(
    client: &Node,
    gateways: &[(&'static str, u16, Gateway)],
    effort: Effort,
) -> Result<BTreeMap<&'static str, Seen>> {
    let mut all: BTreeMap<&str, Seen> = BTreeMap::new();
    for gateway in gateways {
        once(client, gateway, effort.lasts(0))?;
    }
    for part in 0..effort.rounds * PARTS {
        let mut taken = BTreeMap::new();
        for at in 0..gateways.len() {
            // Each is the first as often as the others.
            let gateway = &gateways[(part + at) % gateways.len()];
            taken.insert(gateway.0, once(client, gateway, effort.round / PARTS as u32)?);
        }
        let each = |(cpu, outcome): &(Duration, Outcome)| cpu.as_secs_f64() / outcome.requests as f64;
        let nothing = taken.get(NAMES[0]).map_or(f64::NAN, each);
        for (name, taken) in taken {
            let seen = all.entry(name).or_default();
            seen.share.push(each(&taken) / nothing);
            seen.costs.push(taken.0, &taken.1);
        }
    }
    Ok(all)
}

/// A load, and the CPU time that it takes.
fn once(
    client: &Node,
    (name, port, gateway): &(&'static str, u16, Gateway),
    lasts: Duration,
) -> Result<(Duration, Outcome)> {
    let load = Load { cpu: Some(OTHER_CPU), ..Load::new(64, lasts) };
    let over = AtomicBool::new(false);
    let run = || {
        std::thread::scope(|scope| {
            if *name == "all" {
                scope.spawn(|| scrape_each_second(client, &over));
            }
            let outcome = Wrk::run(client, at(*port), &load);
            over.store(true, Relaxed);
            outcome
        })
    };
    loaded(name, gateway.pid(), run)
}

fn scrape_each_second(client: &Node, over: &AtomicBool) {
    let mut next = Instant::now();
    while !over.load(Relaxed) {
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            // What goes wrong shows in the figures that are taken afterwards.
            let _ = http::get(client, at(9180), "/metrics");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many series there are with many routes, and the milliseconds that it takes to read them.
fn scrape(net: &Net, client: &Node) -> Result<(usize, Rounds)> {
    let gateway = Gateway::start(net, &watching::many_routes(ROUTES, (8010, 9180)))?;
    watching::ask_each(&mut http::Client::connect(client, at(8010))?, ROUTES)?;
    let mut took = Rounds::default();
    let mut series = 0;
    for _ in 0..20 {
        let began = Instant::now();
        let page = http::get(client, at(9180), "/metrics")?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        series = watching::series(&page);
    }
    drop(gateway);
    ensure!(series >= 10_000, "only {series} series");
    Ok((series, took))
}

fn show_tables(all: &BTreeMap<&str, Seen>, lines: f64, series: usize, scrape: &Rounds, effort: Effort) {
    let (rounds, seconds) = (effort.rounds * PARTS, effort.round.as_secs_f64() / PARTS as f64);
    let what = format!(
        "128-byte bodies, 64 connections, 1 worker; medians of {rounds} x {seconds} s; all at most {GOAL} of nothing"
    );
    println!("\n{}  {}", show::bold("What seeing costs"), show::dim(&what));
    let rows: Vec<Vec<String>> = NAMES
        .iter()
        .filter_map(|name| {
            let Seen { costs, share } = all.get(name)?;
            let [name, cpu, range, _, rate] = show::cost(name, &costs.cpu_us, &costs.rate, 0.0);
            Some(vec![name, cpu, range, format!("{:.3}", share.median()), rate])
        })
        .collect();
    println!("{}", show::table(&["", "CPU µs/request", "range", "÷ nothing", "requests/s"], &rows));
    println!(
        "  lines of the log a second of CPU: {} (at least {})",
        show::grouped(lines),
        show::grouped(LINES)
    );
    println!(
        "  metrics, {} series: {:.1} ms (below {})",
        show::grouped(series as f64),
        scrape.median(),
        SCRAPE.as_millis()
    );
}
