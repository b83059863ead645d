//! What a request costs: CPU time a request, by body size and with a connection for each, one worker each.
//!
//! All are on one CPU, one at a time under load; wrk and the backend (an nginx) are on the other. Everything talks
//! over the loopback of one namespace. Access log and metrics are on in all of them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    net::Net,
    process::cpu_time,
    wrk::{Load, Wrk},
};
use serde_json::{Value, json};

use crate::{
    Effort, MEASURED_CPU, OTHER_CPU,
    peers::{self, Places},
    show,
    stats::Rounds,
};

struct Scenario {
    name: &'static str,
    title: &'static str,
    path: &'static str,
    connections: usize,
    /// A connection for each request.
    fresh: bool,
    /// Times what the best peer takes that must not be exceeded.
    goal: f64,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "128B", title: "128-byte bodies", path: "/", connections: 64, fresh: false, goal: 0.9 },
    Scenario {
        name: "10KiB",
        title: "10 KiB bodies",
        path: "/10240",
        connections: 64,
        fresh: false,
        goal: 0.9,
    },
    Scenario {
        name: "1MiB",
        title: "1 MiB bodies",
        path: "/1048576",
        connections: 16,
        fresh: false,
        goal: 1.0,
    },
    Scenario {
        name: "new",
        title: "128-byte bodies, a connection for each",
        path: "/",
        connections: 64,
        fresh: true,
        goal: 1.0,
    },
];

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[derive(Debug, Default)]
struct Figures {
    cpu_us: Rounds,
    rate: Rounds,
    p50_us: Rounds,
    p99_us: Rounds,
}

pub fn run(effort: Effort) -> Result<Value> {
    let net = Net::of(1, 0, 0)?;
    let (backend, sink) = (at(8080), at(5140));
    let _backend = peers::nginx_backend(&net.gateway, backend, OTHER_CPU)?;
    peers::log_sink(&net.gateway, sink)?;
    let places = |port| Places { listen: at(port), backend, log_sink: sink };
    let nginx = peers::nginx_proxy(&net.gateway, places(8001), MEASURED_CPU, "", "")?;
    let haproxy = peers::haproxy(&net.gateway, places(8002), MEASURED_CPU)?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \"127.0.0.1:8003\"\n[route.all]\nto = [\"{backend}\"]\n\
         [kernel]\nmode = \"off\"\nsteer = \"off\"\n"
    );
    let gateway = Gateway::start_with(
        &net,
        &config,
        Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() },
    )?;
    let programs = [
        ("gateway", gateway.pid(), 8003),
        ("nginx", nginx.process.id(), 8001),
        ("haproxy", haproxy.process.id(), 8002),
    ];
    // wrk runs where the lab's loopback is.
    let client = lab::net::Node::of_namespace(net.gateway.clone());
    let mut report = serde_json::Map::new();
    for scenario in &SCENARIOS {
        let all = measure(scenario, &client, &programs, effort)?;
        show_table(scenario, &all, effort);
        let programs: serde_json::Map<_, _> =
            all.iter().map(|(name, figures)| ((*name).to_owned(), figures.json())).collect();
        report.insert(
            scenario.name.into(),
            json!({ "connections": scenario.connections, "path": scenario.path, "fresh": scenario.fresh,
                    "rounds": effort.rounds, "round_seconds": effort.round.as_secs(),
                    "goal_times_best_peer": scenario.goal, "programs": programs }),
        );
    }
    Ok(report.into())
}

impl Figures {
    fn json(&self) -> Value {
        json!({ "cpu_us_per_request": self.cpu_us.json(), "requests_per_second": self.rate.json(),
                "p50_us": self.p50_us.json(), "p99_us": self.p99_us.json() })
    }
}

/// All programs in turn, round by round.
fn measure(
    scenario: &Scenario,
    client: &lab::net::Node,
    programs: &[(&'static str, u32, u16)],
    effort: Effort,
) -> Result<BTreeMap<&'static str, Figures>> {
    let mut all: BTreeMap<&str, Figures> = BTreeMap::new();
    for round in 0..=effort.rounds {
        for &(name, pid, port) in programs {
            // Round 0 warms up.
            let duration = if round == 0 { Duration::from_secs(1) } else { effort.round };
            let load = Load {
                cpu: Some(OTHER_CPU),
                path: scenario.path.into(),
                fresh: scenario.fresh,
                ..Load::new(scenario.connections, duration)
            };
            let before = cpu_time(pid)?;
            let outcome = Wrk::run(client, at(port), &load)?;
            let cpu = cpu_time(pid)?.saturating_sub(before);
            ensure!(outcome.errors == 0 && outcome.requests > 0, "{name}: {outcome:?}");
            if round > 0 {
                let figures = all.entry(name).or_default();
                figures.cpu_us.push(cpu.as_secs_f64() * 1e6 / outcome.requests as f64);
                figures.rate.push(outcome.rate());
                figures.p50_us.push(outcome.p50_us as f64);
                figures.p99_us.push(outcome.p99_us as f64);
            }
        }
    }
    Ok(all)
}

fn show_table(scenario: &Scenario, all: &BTreeMap<&str, Figures>, effort: Effort) {
    println!(
        "\n{}  {}",
        show::bold("A request's cost"),
        show::dim(&format!(
            "{}, {} connections, 1 worker, log and metrics on; median of {} x {} s; at most {} of the best",
            scenario.title,
            scenario.connections,
            effort.rounds,
            effort.round.as_secs(),
            scenario.goal
        ))
    );
    let ours = all.get("gateway").map_or(0.0, |figures| figures.cpu_us.median());
    let rows: Vec<Vec<String>> = ["gateway", "nginx", "haproxy"]
        .iter()
        .filter_map(|name| {
            let figures = all.get(name)?;
            let cpu = figures.cpu_us.median();
            Some(vec![
                (*name).to_owned(),
                format!("{cpu:.2}"),
                format!("{:.2}–{:.2}", figures.cpu_us.min(), figures.cpu_us.max()),
                format!("{:.2}", ours / cpu),
                show::grouped(figures.rate.median()),
                format!("{:.2}", figures.p50_us.median() / 1000.0),
                format!("{:.2}", figures.p99_us.median() / 1000.0),
            ])
        })
        .collect();
    println!(
        "{}",
        show::table(
            &["", "CPU µs/request", "range", "gateway ÷ it", "requests/s", "p50 ms", "p99 ms"],
            &rows
        )
    );
}
