//! What a request costs: CPU time a request, by body size and with a connection for each, one worker each.
//!
//! All are on one CPU, one at a time under load; wrk and the backend (an nginx) are on the other. Everything talks
//! over the loopback of one namespace. Access log and metrics are on in all of them. Envoy and Pingora are measured where
//! they could be installed and built.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    h2load,
    net::Net,
    wrk::{Load, Outcome, Wrk},
};
use serde_json::{Value, json};

use crate::{
    Effort, MEASURED_CPU, OTHER_CPU, at, half_rate,
    peers::{self, Certificate, Places},
    show,
    stats::{Rounds, loaded},
};

/// Ports of TLS are so far above those in clear.
const TLS: u16 = 10;

struct Scenario {
    name: &'static str,
    title: &'static str,
    path: &'static str,
    connections: usize,
    client: Client,
    /// Times what the best peer takes that must not be exceeded.
    goal: f64,
}

/// What speaks to the proxies, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Http1,
    /// A connection for each request.
    Fresh,
    Tls,
    /// A connection and a full handshake for each request.
    TlsFresh,
    /// Over TLS, so many streams at once on each connection.
    Http2(usize),
    /// Likewise, with a small message of gRPC as the body, to a backend that speaks HTTP/2 as well.
    Grpc(usize),
}

const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "128B",
        title: "128-byte bodies",
        path: "/",
        connections: 64,
        client: Client::Http1,
        goal: 0.9,
    },
    Scenario {
        name: "10KiB",
        title: "10 KiB bodies",
        path: "/10240",
        connections: 64,
        client: Client::Http1,
        goal: 0.9,
    },
    Scenario {
        name: "1MiB",
        title: "1 MiB bodies",
        path: "/1048576",
        connections: 16,
        client: Client::Http1,
        goal: 1.0,
    },
    Scenario {
        name: "new",
        title: "128-byte bodies, a connection for each",
        path: "/",
        connections: 64,
        client: Client::Fresh,
        goal: 1.0,
    },
    Scenario {
        name: "tls",
        title: "128-byte bodies over TLS 1.3",
        path: "/",
        connections: 64,
        client: Client::Tls,
        goal: 0.95,
    },
    Scenario {
        name: "handshake",
        title: "128-byte bodies, a full TLS 1.3 handshake (P-256) for each",
        path: "/",
        connections: 64,
        client: Client::TlsFresh,
        goal: 0.6,
    },
    Scenario {
        name: "h2",
        title: "128-byte bodies over HTTP/2 and TLS, 100 streams",
        path: "/",
        connections: 1,
        client: Client::Http2(100),
        goal: 0.7,
    },
    Scenario {
        name: "grpc",
        title: "gRPC, small unary calls over HTTP/2 on both sides, TLS to the client, 100 streams",
        path: "/grpc/unary",
        connections: 1,
        client: Client::Grpc(100),
        goal: 0.7,
    },
];

/// One that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    pub name: &'static str,
    pub pid: u32,
    /// In clear.
    pub port: u16,
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
    let (backend, grpc, sink) = (at(8080), at(8081), at(5140));
    let _backend = peers::nginx_backend(&net.gateway, backend, OTHER_CPU)?;
    let _grpc = peers::grpc_backend(&net.gateway, grpc, OTHER_CPU)?;
    peers::log_sink(&net.gateway, sink)?;
    let certificate = Certificate::new()?;
    let places = |port| Places {
        listen: at(port),
        tls: Some((at(port + TLS), &certificate)),
        backend,
        grpc,
        log_sink: sink,
    };
    let nginx = peers::nginx_proxy(&net.gateway, places(8001), MEASURED_CPU, "", "")?;
    let haproxy = peers::haproxy(&net.gateway, places(8002), MEASURED_CPU)?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \"127.0.0.1:8003\"\n\
         [listener.tls]\nbind = \"{}\"\ntls = {{ cert = \"lab\" }}\n\
         [cert.lab]\nchain = \"{}\"\nkey = {{ file = \"{}\" }}\n\
         [upstream.grpc]\nto = [\"{grpc}\"]\nprotocol = \"h2\"\n\
         [route.grpc]\npath = \"/grpc/*\"\nto = \"grpc\"\n\
         [route.all]\nto = [\"{backend}\"]\n[kernel]\nmode = \"off\"\nsteer = \"off\"\n",
        at(8003 + TLS),
        certificate.chain().display(),
        certificate.key().display(),
    );
    let gateway = Gateway::start_with(
        &net,
        &config,
        Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() },
    )?;
    let program = |name, pid, port| Program { name, pid, port };
    let mut programs = vec![
        program("gateway", gateway.pid(), 8003),
        program("nginx", nginx.process.id(), 8001),
        program("haproxy", haproxy.process.id(), 8002),
    ];
    let envoy = peers::envoy(&net.gateway, places(8004), MEASURED_CPU);
    let pingora = peers::pingora(&net.gateway, places(8005), MEASURED_CPU);
    for (name, peer, port) in [("envoy", &envoy, 8004), ("pingora", &pingora, 8005)] {
        match peer {
            Ok(peer) => programs.push(program(name, peer.process.id(), port)),
            Err(error) => println!("{}", show::dim(&format!("without {name}: {error:#}"))),
        }
    }
    // wrk runs where the lab's loopback is.
    let client = lab::net::Node::of_namespace(net.gateway.clone());
    let mut report = serde_json::Map::new();
    for scenario in &SCENARIOS {
        let able: Vec<Program> =
            programs.iter().filter(|program| takes(scenario, &client, program)).copied().collect();
        let all = measure(scenario, &client, &able, effort)?;
        show_table(scenario, &all, effort);
        if scenario.name == "128B" {
            let peers = all.iter().filter(|(name, _)| **name != "gateway");
            let peak = peers.map(|(_, figures)| figures.rate.median()).fold(0.0, f64::max);
            report.insert("half_rate".into(), half_rate::run(&client, &able, peak, effort)?);
        }
        let programs: serde_json::Map<_, _> =
            all.iter().map(|(name, figures)| ((*name).to_owned(), figures.json())).collect();
        report.insert(
            scenario.name.into(),
            json!({ "connections": scenario.connections, "path": scenario.path,
                    "rounds": effort.rounds, "round_seconds": effort.round.as_secs(),
                    "goal_times_best_peer": scenario.goal, "programs": programs }),
        );
    }
    Ok(report.into())
}

impl Scenario {
    /// As many requests as go in this time. Ports of TLS are [`TLS`] above those in clear.
    fn load(&self, node: &lab::net::Node, port: u16, duration: Duration) -> Result<Outcome> {
        let tls = !matches!(self.client, Client::Http1 | Client::Fresh);
        let to = at(if tls { port + TLS } else { port });
        let (connections, path, cpu) = (self.connections, self.path.to_owned(), Some(OTHER_CPU));
        match self.client {
            Client::Http2(streams) | Client::Grpc(streams) => {
                let grpc = matches!(self.client, Client::Grpc(_));
                let (http1, rate) = (false, None);
                let load = h2load::Load { connections, streams, duration, path, cpu, tls, grpc, http1, rate };
                h2load::run(node, to, &load)
            }
            client => {
                let fresh = matches!(client, Client::Fresh | Client::TlsFresh);
                Wrk::run(node, to, &Load { connections, duration, path, cpu, fresh, tls, host: None })
            }
        }
    }
}

impl Figures {
    fn json(&self) -> Value {
        json!({ "cpu_us_per_request": self.cpu_us.json(), "requests_per_second": self.rate.json(),
                "p50_us": self.p50_us.json(), "p99_us": self.p99_us.json() })
    }
}

/// Whether a program does at all what a scenario asks for: of a peer that does not, that is said.
fn takes(scenario: &Scenario, client: &lab::net::Node, program: &Program) -> bool {
    let well = scenario.load(client, program.port, Duration::from_secs(1));
    let well = well.and_then(|outcome| {
        ensure!(outcome.errors == 0 && outcome.requests > 0, "{outcome:?}");
        Ok(())
    });
    if let Err(error) = &well {
        println!("{}", show::dim(&format!("{}: without {}: {error:#}", scenario.title, program.name)));
    }
    // Of ours it is an error, which the measuring tells.
    well.is_ok() || program.name == "gateway"
}

/// All programs in turn, round by round.
fn measure(
    scenario: &Scenario,
    client: &lab::net::Node,
    programs: &[Program],
    effort: Effort,
) -> Result<BTreeMap<&'static str, Figures>> {
    let mut all: BTreeMap<&str, Figures> = BTreeMap::new();
    for round in 0..=effort.rounds {
        for &Program { name, pid, port } in programs {
            let load = || scenario.load(client, port, effort.lasts(round));
            let (cpu, outcome) = loaded(name, pid, load)?;
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
    let rows: Vec<Vec<String>> = ["gateway", "nginx", "haproxy", "envoy", "pingora"]
        .iter()
        .filter_map(|name| {
            let figures = all.get(name)?;
            let latencies = [&figures.p50_us, &figures.p99_us];
            let latencies = latencies.map(|rounds| format!("{:.2}", rounds.median() / 1000.0));
            Some([show::cost(name, &figures.cpu_us, &figures.rate, ours).as_slice(), &latencies].concat())
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
