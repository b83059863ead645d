//! A backend of 20 slots that serves each request in 20 ms, in the order in which they come, and so 1000 a second. 20 greedy
//! consumers ask for 5000 together, 20 honest ones for 20 each, less than an equal share. An answer counts if it comes within
//! 250 ms.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    net::{Namespace, Net, Node},
    overload::{Kind, Slots, load},
    peers::Peer,
};
use serde_json::{Value, json};

use crate::{Effort, MEASURED_CPU, at, peers, show, stats::Rounds};

const SLOTS: usize = 20;
const SERVICE: Duration = Duration::from_millis(20);
const PEAK: f64 = 1000.0;
const CONSUMERS: usize = 20;
const IN_TIME: Duration = Duration::from_millis(250);
const HONEST: Kind = Kind { name: "honest", consumers: CONSUMERS, connections: 4, rate: 20.0 };
const GREEDY: Kind = Kind { name: "greedy", consumers: CONSUMERS, connections: 15, rate: 250.0 };
/// Goals: of the peak, and of what honest consumers ask for.
const GOODPUT: f64 = 0.9;
const FAIR: f64 = 0.95;

#[derive(Default)]
struct Figures {
    goodput: Rounds,
    honest: Rounds,
}

pub fn run(effort: Effort) -> Result<Value> {
    let net = Net::of(1, 0, 0)?;
    let backend = Slots::listen(&net.gateway, at(8090), SLOTS, SERVICE)?;
    let fronts = [
        ("gateway, a rate each", Front::Gateway("[limit.each]\nkey = \"host\"\nrate = \"25/s\"\n", "each")),
        (
            "gateway, dynamic",
            Front::Gateway(
                "[limit.all]\nmode = \"dynamic\"\nfair = \"host\"\n\
                 rate = { from = \"100/s\", to = \"5000/s\" }\ntarget = { p99 = \"150ms\" }\n",
                "all",
            ),
        ),
        (
            "gateway, dynamic, at once",
            Front::Gateway(
                "[limit.all]\nmode = \"dynamic\"\nfair = \"host\"\nunit = \"connections\"\n\
                 max = { from = 10, to = 1000 }\ntarget = { p99 = \"150ms\" }\n",
                "all",
            ),
        ),
        ("nginx limit_req, a rate each", Front::Nginx),
        ("envoy adaptive_concurrency", Front::Envoy),
        ("nothing", Front::Gateway("", "")),
    ];
    let mut all = Vec::new();
    for (name, front) in fronts {
        match measure(&net, &front, effort) {
            Ok(figures) => all.push((name, figures)),
            Err(error) => println!("{}", show::dim(&format!("without {name}: {error:#}"))),
        }
    }
    drop(backend);
    let what = format!(
        "{PEAK} a second can be served, 5400 are asked for; answers within {} ms; goals {GOODPUT} and {FAIR}",
        IN_TIME.as_millis()
    );
    println!("\n{}  {}", show::bold("Overload"), show::dim(&what));
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(name, figures)| {
            let share = |rounds: &Rounds| format!("{:.1} %", rounds.median() * 100.0);
            vec![(*name).to_owned(), share(&figures.goodput), share(&figures.honest)]
        })
        .collect();
    println!("{}", show::table(&["", "of the peak", "of what honest ones ask"], &rows));
    let rows = all.iter().map(|(name, figures)| {
        let figures = json!({ "goodput": figures.goodput.json(), "honest": figures.honest.json() });
        ((*name).to_owned(), figures)
    });
    Ok(json!({ "goal_goodput": GOODPUT, "goal_honest": FAIR, "fronts": rows.collect::<Value>() }))
}

enum Front {
    /// Limits, and their names in a route.
    Gateway(&'static str, &'static str),
    Nginx,
    Envoy,
}

fn measure(net: &Net, front: &Front, effort: Effort) -> Result<Figures> {
    let listen = at(8091);
    let (mut gateway, mut peer) = (None, None);
    match front {
        Front::Gateway(limits, names) => gateway = Some(start(net, limits, names, listen)?),
        Front::Nginx => peer = Some(nginx(&net.gateway, listen)?),
        Front::Envoy => peer = Some(envoy(&net.gateway, listen)?),
    }
    let client = Node::of_namespace(net.gateway.clone());
    let mut figures = Figures::default();
    for round in 0..=effort.rounds.min(3) {
        // The first lets controllers find their place.
        let lasts = if round == 0 { Duration::from_secs(20) } else { effort.round * 2 };
        let counts = load(&client, listen, &[HONEST, GREEDY], IN_TIME, lasts);
        if round > 0 {
            let seconds = lasts.as_secs_f64();
            figures
                .goodput
                .push(counts.iter().map(|fared| fared.in_time).sum::<u64>() as f64 / seconds / PEAK);
            figures.honest.push(counts[0].in_time as f64 / (HONEST.asks() * seconds));
        }
    }
    drop((gateway, peer));
    Ok(figures)
}

fn start(net: &Net, limits: &str, names: &str, listen: SocketAddr) -> Result<Gateway> {
    let limit = if names.is_empty() { String::new() } else { format!("limit = [\"{names}\"]\n") };
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \"{listen}\"\n[access_log]\nto = \"off\"\n{limits}\
         [upstream.slots]\nto = [\"{}\"]\n[route.all]\nto = \"slots\"\n{limit}[metrics]\nbind = \"off\"\n[kernel]\nmode = \"off\"\nsteer = \"off\"\n",
        at(8090)
    );
    let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
    Gateway::start_with(net, &config, options)
}

fn nginx(namespace: &Namespace, listen: SocketAddr) -> Result<Peer> {
    let http = format!(
        "access_log off; limit_req_zone $http_host zone=each:10m rate=25r/s; limit_req_status 429;
         upstream slots {{ server {}; keepalive 512; }}
         server {{ listen {listen}; limit_req zone=each burst=25 nodelay;
                   location / {{ proxy_pass http://slots; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}",
        at(8090)
    );
    peers::nginx_with(namespace, listen, MEASURED_CPU, &http)
}

fn envoy(namespace: &Namespace, listen: SocketAddr) -> Result<Peer> {
    ensure!(!lab::tools::missing("envoy"), "envoy is not installed");
    let dir = lab::cleanup::scratch()?;
    let config = format!(
        r#"static_resources:
  listeners:
  - name: web
    address: {{ socket_address: {{ address: {}, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config: {{ virtual_hosts: [{{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: slots }} }}] }}] }}
          http_filters:
          - name: envoy.filters.http.adaptive_concurrency
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency
              gradient_controller_config:
                sample_aggregate_percentile: {{ value: 90 }}
                concurrency_limit_params: {{ concurrency_update_interval: 0.1s }}
                min_rtt_calc_params: {{ interval: 30s, request_count: 50 }}
              enabled: {{ default_value: true, runtime_key: "adaptive" }}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: slots
    type: STATIC
    connect_timeout: 1s
    circuit_breakers: {{ thresholds: [{{ max_connections: 10000, max_pending_requests: 10000, max_requests: 10000 }}] }}
    load_assignment:
      cluster_name: slots
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 8090 }} }} }} }}] }}]
"#,
        listen.ip(),
        listen.port()
    );
    let path = dir.path().join("envoy.yaml");
    std::fs::write(&path, config)?;
    let path = path.display().to_string();
    let arguments = ["-c", &path, "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"];
    lab::peers::run(namespace, "envoy", &arguments, dir, listen, Some(MEASURED_CPU))
}
