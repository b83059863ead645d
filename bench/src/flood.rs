//! What honest clients keep while one source floods as fast as the machine can.
//!
//! Eight honest clients with four keep-alive connections each share a CPU with gateway and its backend; the other CPU
//! belongs to the flood, SYNs and UDP by live frames, and to the receiving of it, as a veth's sender does that too.
//! With `receive on gateway's CPU` the flood arrives on a thread beside gateway instead.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{
    flood::{Bare, Flood, attach_bare},
    gateway::{Gateway, Options},
    net::{Net, VIP4},
    process::Process,
    wrk::{Load, Wrk},
};
use serde_json::{Value, json};

use crate::{
    Effort, MEASURED_CPU, OTHER_CPU,
    peers::{self, Peer, Places},
    show,
    stats::Rounds,
};

const CLIENTS: usize = 8;
const CONNECTIONS: usize = 4;
/// What the example config allows a source.
const LIMIT: &str =
    "limit = { packets = { rate = \"20k/s\", burst = 40_000 }, new = { rate = \"200/s\", burst = 400 } }";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    /// The kernel half towards clients and attacker.
    Gateway,
    /// The kernel half towards clients only; a bare XDP program drops all that the attacker sends.
    GatewayBareDrop,
    /// No kernel half towards anybody.
    GatewayOff,
    Nginx,
}

#[derive(Debug)]
struct Scenario {
    name: &'static str,
    key: &'static str,
    front: Front,
    flooded: bool,
    beside: bool,
    rate: Rounds,
    p99_us: Rounds,
    sent: Rounds,
}

fn scenario(name: &'static str, key: &'static str, front: Front, flooded: bool, beside: bool) -> Scenario {
    let rounds = Rounds::default;
    Scenario { name, key, front, flooded, beside, rate: rounds(), p99_us: rounds(), sent: rounds() }
}

/// What runs in front, for as long as it is measured.
enum Running {
    Gateway { _gateway: Box<Gateway>, _bare: Option<Process> },
    Nginx { _nginx: Peer, _pass: Process },
}

pub fn run(effort: Effort) -> Result<Value> {
    let net = Net::of(CLIENTS, 1, 1)?;
    let backend = net.backend(1).at(8080);
    let _backend = peers::nginx_backend(&net.backend(1).namespace, backend, MEASURED_CPU)?;
    let mut scenarios = [
        scenario("gateway, no flood", "quiet", Front::Gateway, false, false),
        scenario(
            "gateway, flood dropped by a bare XDP program",
            "bare_drop",
            Front::GatewayBareDrop,
            true,
            false,
        ),
        scenario("gateway, flood", "gateway", Front::Gateway, true, false),
        scenario("gateway without its kernel half, flood", "gateway_off", Front::GatewayOff, true, false),
        scenario("nginx, limit_req and limit_conn, no flood", "nginx_quiet", Front::Nginx, false, false),
        scenario("nginx, limit_req and limit_conn, flood", "nginx", Front::Nginx, true, false),
        scenario(
            "bare XDP program, receive on gateway's CPU",
            "bare_drop_beside",
            Front::GatewayBareDrop,
            true,
            true,
        ),
        scenario("gateway, receive on gateway's CPU", "gateway_beside", Front::Gateway, true, true),
    ];
    for _ in 0..effort.rounds {
        for scenario in &mut scenarios {
            once(&net, backend, scenario, effort.round).with_context(|| scenario.name)?;
        }
    }
    show_table(&scenarios, effort);
    let rate = |key: &str| scenarios.iter().find(|s| s.key == key).map_or(0.0, |s| s.rate.median());
    Ok(json!({
        "clients": CLIENTS, "connections": CLIENTS * CONNECTIONS, "rounds": effort.rounds,
        "round_seconds": effort.round.as_secs(),
        "kept_of_bare_drop": rate("gateway") / rate("bare_drop").max(1e-9),
        "kept_of_bare_drop_beside": rate("gateway_beside") / rate("bare_drop_beside").max(1e-9),
        "scenarios": scenarios.iter().map(|s| (s.key.to_owned(), json!({
            "name": s.name, "requests_per_second": s.rate.json(), "p99_us": s.p99_us.json(),
            "flood_packets_per_second": s.sent.json(),
        }))).collect::<serde_json::Map<_, _>>(),
    }))
}

fn once(net: &Net, backend: SocketAddr, scenario: &mut Scenario, duration: Duration) -> Result<()> {
    let running = start(net, backend, scenario.front)?;
    if scenario.beside {
        net.thread_receive("atk", MEASURED_CPU)?;
    }
    let to = SocketAddr::from((VIP4, 80));
    let load = Load { cpu: Some(MEASURED_CPU), ..Load::new(CONNECTIONS, duration) };
    let flood = scenario.flooded.then(|| {
        // It begins before the load and ends after it.
        let flood = Flood::new(net.attacker(), to, duration + Duration::from_millis(1200));
        Flood { cpu: Some(OTHER_CPU), ..flood }.start(net.attacker())
    });
    let flood = flood.transpose()?;
    std::thread::sleep(Duration::from_millis(300));
    let wrks: Vec<Wrk> =
        (1..=CLIENTS).map(|n| Wrk::start(net.client(n), to, &load)).collect::<Result<_>>()?;
    let (mut rate, mut p99) = (0.0, 0);
    for wrk in wrks {
        let outcome = wrk.finish()?;
        ensure!(outcome.requests > 0, "an honest client got nothing: {outcome:?}");
        rate += outcome.rate();
        p99 = p99.max(outcome.p99_us);
    }
    scenario.rate.push(rate);
    scenario.p99_us.push(p99 as f64);
    scenario.sent.push(match flood {
        Some(flood) => flood.finish()?.rate(),
        None => 0.0,
    });
    drop(running);
    Ok(())
}

fn start(net: &Net, backend: SocketAddr, front: Front) -> Result<Running> {
    let clients: Vec<String> = (1..=CLIENTS).map(|n| format!("\"c{n}\"")).collect();
    let kernel = match front {
        Front::Gateway => format!("[kernel]\n{LIMIT}\n"),
        Front::GatewayBareDrop => format!("[kernel]\ninterfaces = [{}]\n{LIMIT}\n", clients.join(", ")),
        Front::GatewayOff => "[kernel]\nmode = \"off\"\nsteer = \"off\"\n".to_owned(),
        Front::Nginx => {
            let places = Places {
                listen: SocketAddr::from((VIP4, 80)),
                tls: None,
                backend,
                grpc: backend,
                log_sink: backend,
            };
            let zones = "limit_req_zone $binary_remote_addr zone=r:10m rate=100000r/s;
                         limit_conn_zone $binary_remote_addr zone=c:10m;";
            let guards = "limit_req zone=r burst=100000 nodelay; limit_conn c 1000;";
            let _nginx = peers::nginx_proxy(&net.gateway, places, MEASURED_CPU, zones, guards)?;
            // Live frames need a program on the receiving end.
            return Ok(Running::Nginx { _nginx, _pass: attach_bare(&net.gateway, "atk", Bare::Pass)? });
        }
    };
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\n[route.all]\nto = [\"{backend}\"]\n{kernel}"
    );
    let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
    let _gateway = Gateway::start_with(net, &config, options)?;
    let _bare = match front {
        Front::GatewayBareDrop => Some(attach_bare(&net.gateway, "atk", Bare::Drop)?),
        Front::GatewayOff => Some(attach_bare(&net.gateway, "atk", Bare::Pass)?),
        _ => None,
    };
    Ok(Running::Gateway { _gateway: Box::new(_gateway), _bare })
}

fn show_table(scenarios: &[Scenario], effort: Effort) {
    println!(
        "\n{}  {}",
        show::bold("Under a flood"),
        show::dim(&format!(
            "{CLIENTS} honest clients, SYN and UDP from one source; median of {} x {} s",
            effort.rounds,
            effort.round.as_secs()
        ))
    );
    let rows: Vec<Vec<String>> = scenarios
        .iter()
        .map(|s| {
            vec![
                s.name.into(),
                show::grouped(s.rate.median()),
                format!("{:.1}", s.p99_us.median() / 1000.0),
                if s.flooded { format!("{:.2} M", s.sent.median() / 1e6) } else { "–".into() },
            ]
        })
        .collect();
    println!("{}", show::table(&["honest clients get", "requests/s", "p99 ms", "flood packets/s"], &rows));
    let rate = |key: &str| scenarios.iter().find(|s| s.key == key).map_or(0.0, |s| s.rate.median());
    for (ours, bare, which) in
        [("gateway", "bare_drop", ""), ("gateway_beside", "bare_drop_beside", ", received beside gateway")]
    {
        let kept = 100.0 * rate(ours) / rate(bare).max(1e-9);
        let text = format!("{kept:.0} % of what a bare XDP drop leaves{which}");
        println!("  {}", if kept >= 90.0 { show::good(&text) } else { show::bad(&text) });
    }
}
