//! What grows with the config: a request's cost with many routes and many targets, and a reload of many routes; and with the
//! workers: a request's cost on two of them beside one.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    net::{Net, Node},
    wrk::{Load, Wrk},
};
use serde_json::{Value, json};

use crate::{
    Effort, MEASURED_CPU, OTHER_CPU, at, half_rate, peers, show,
    stats::{Costs, Rounds, loaded},
};

const ROUTES: usize = 10_000;
const TARGETS: usize = 1000;
const CONNECTIONS: usize = 64;
/// Times what a small config takes.
const GOAL: f64 = 1.05;

struct Case {
    name: &'static str,
    gateway: Gateway,
    port: u16,
    cpu_us: Rounds,
}

pub fn run(effort: Effort) -> Result<Value> {
    let net = Net::of(1, 0, 0)?;
    // Every address of 127.0.0.0/8 is this host's.
    let backend = SocketAddr::from(([0, 0, 0, 0], 8080));
    let _backend = peers::nginx_backend(&net.gateway, backend, OTHER_CPU)?;
    let client = Node::of_namespace(net.gateway.clone());
    let mut cases = Vec::new();
    for (index, (name, routes, targets)) in
        [("1 route, 2 targets", 1, 2), ("10,000 routes", ROUTES, 2), ("1000 targets", 1, TARGETS)]
            .into_iter()
            .enumerate()
    {
        let port = 8001 + index as u16;
        let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
        let gateway = Gateway::start_with(&net, &config(port, routes, targets), options)?;
        cases.push(Case { name, gateway, port, cpu_us: Rounds::default() });
    }
    for round in 0..=effort.rounds {
        for case in &mut cases {
            let load = || load(&client, case.port, effort.lasts(round))?.finish();
            let (cpu, outcome) = loaded(case.name, case.gateway.pid(), load)?;
            if round > 0 {
                case.cpu_us.push(cpu.as_secs_f64() * 1e6 / outcome.requests as f64);
            }
        }
    }
    show_costs(&cases);
    let costs: serde_json::Map<_, _> =
        cases.iter().map(|case| (case.name.to_owned(), case.cpu_us.json())).collect();
    let reload = reload(&cases[1], &client, effort)?;
    drop(cases);
    let workers = workers(effort)?;
    Ok(json!({ "cpu_us_per_request": costs, "reload": reload, "workers": workers }))
}

/// With two workers a request may cost so many times what it costs with one. With a CPU for each and for the load they would
/// answer twice as many less that.
const TWO_WORKERS: f64 = 1.1;

/// On two CPUs, which the load and the backend are on as well: what workers do to each other shows in what a request costs.
fn workers(effort: Effort) -> Result<Value> {
    let net = Net::of(1, 0, 0)?;
    let backend = at(8080);
    let _backend = peers::nginx_backend(&net.gateway, backend, OTHER_CPU)?;
    let client = Node::of_namespace(net.gateway.clone());
    let start = |workers: u16| {
        let port = 8000 + workers;
        let config = format!(
            "[gateway]\nworkers = {workers}\n[metrics]\nbind = \"127.0.0.1:{}\"\n[listener.web]\nbind = \"127.0.0.1:{port}\"\n\
             [route.all]\nto = [\"{backend}\"]\n[kernel]\nmode = \"off\"\nsteer = \"off\"\n",
            port + 1000
        );
        let options = Options { quiet: true, ..Options::default() };
        Ok::<_, anyhow::Error>((Gateway::start_with(&net, &config, options)?, port, Costs::default()))
    };
    let mut both = [start(1)?, start(2)?];
    for round in 0..=effort.rounds {
        for (gateway, port, costs) in &mut both {
            let load = Load::new(CONNECTIONS, effort.lasts(round));
            let (cpu, outcome) = loaded("workers", gateway.pid(), || Wrk::run(&client, at(*port), &load))?;
            if round > 0 {
                costs.push(cpu, &outcome);
            }
        }
    }
    let [one, two] = both.map(|(_, _, costs)| costs);
    println!(
        "\na request with two workers costs {:.2} of one with one: {:.2} µs, {:.2} µs (goal: {TWO_WORKERS}); {} and {} a second, with the \
         load on the same CPUs",
        two.cpu_us.median() / one.cpu_us.median(),
        two.cpu_us.median(),
        one.cpu_us.median(),
        show::grouped(two.rate.median()),
        show::grouped(one.rate.median()),
    );
    let figures = |costs: &Costs| json!({ "cpu_us_per_request": costs.cpu_us.json(), "requests_per_second": costs.rate.json() });
    Ok(json!({ "1": figures(&one), "2": figures(&two) }))
}

/// The last route is the one that is asked for.
fn config(port: u16, routes: usize, targets: usize) -> String {
    let target = |n: usize| format!("\"127.1.{}.{}:8080\"", n / 250, n % 250 + 1);
    let targets: Vec<String> = (0..targets).map(target).collect();
    let route = |n: usize| format!("[route.r{n}]\nhost = \"h{n}.test\"\npath = \"/\"\nto = \"pool\"\n");
    let routes: String = (0..routes - 1).map(route).collect();
    format!(
        "[gateway]\nworkers = 1\n[metrics]\nbind = \"127.0.0.1:{}\"\n[listener.web]\nbind = \"127.0.0.1:{port}\"\n\
         [upstream.pool]\nto = [{}]\n{routes}[route.asked]\nhost = \"asked.test\"\npath = \"/\"\nto = \"pool\"\n\
         [route.half]\nhost = \"127.0.0.1\"\nto = \"pool\"\n[kernel]\nmode = \"off\"\nsteer = \"off\"\n",
        port + 1000,
        targets.join(", ")
    )
}

fn load(client: &Node, port: u16, duration: Duration) -> Result<Wrk> {
    let load =
        Load { cpu: Some(OTHER_CPU), host: Some("asked.test".into()), ..Load::new(CONNECTIONS, duration) };
    Wrk::start(client, at(port), &load)
}

fn show_costs(cases: &[Case]) {
    println!(
        "\n{}  {}",
        show::bold("Large configs"),
        show::dim(&format!("128-byte bodies, 1 worker; at most {GOAL} of a small one"))
    );
    let small = cases.first().map_or(0.0, |case| case.cpu_us.median());
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|case| {
            let cpu = case.cpu_us.median();
            vec![case.name.to_owned(), format!("{cpu:.2}"), format!("{:.2}", cpu / small)]
        })
        .collect();
    println!("{}", show::table(&["", "CPU µs/request", "÷ small"], &rows));
}

/// With all routes: how long the command takes, and what clients notice, while they ask for half of what can be served. And how
/// long it takes while they ask for all of it.
fn reload(case: &Case, client: &Node, effort: Effort) -> Result<Value> {
    let (mut took, mut calm, mut busy, mut full) =
        (Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default());
    let peak = load(client, case.port, effort.round)?.finish()?.rate();
    let ask = || half_rate::ask(client, case.port, ("/", CONNECTIONS), peak / 2.0, effort.round);
    let text = std::fs::read_to_string(case.gateway.config())?;
    let mut reloads = 0;
    let mut once = || -> Result<f64> {
        std::thread::sleep(effort.round / 3);
        // One route is another each time.
        reloads += 1;
        let other = format!("host = \"g{reloads}.test\"");
        std::fs::write(case.gateway.config(), text.replacen("host = \"h0.test\"", &other, 1))?;
        let began = Instant::now();
        case.gateway.cli(&["reload"])?.ok()?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    for _ in 0..effort.rounds {
        calm.push(ask()?.p99_us as f64 / 1e3);
        let (outcome, reload) = std::thread::scope(|scope| {
            let asking = scope.spawn(ask);
            let reload = once();
            (asking.join(), reload)
        });
        let Ok(outcome) = outcome else { anyhow::bail!("the load panicked") };
        busy.push(outcome?.p99_us as f64 / 1e3);
        took.push(reload?);
        let running = load(client, case.port, effort.round)?;
        full.push(once()?);
        ensure!(running.finish()?.errors == 0, "a reload cost answers");
    }
    println!(
        "a reload with {} routes under half of the load that can be served: {:.0} ms (goal: 200), under all of it {:.0}; \
         p99 {:.2} ms with one, {:.2} without (goal: 2 more)",
        show::grouped(ROUTES as f64),
        took.median(),
        full.median(),
        busy.median(),
        calm.median()
    );
    let (took, full) = (took.json(), full.json());
    Ok(json!({ "ms": took, "ms_under_all": full, "p99_ms": busy.json(), "p99_ms_without": calm.json() }))
}
