//! What limits cost and save: CPU time of a refused request beside nginx's `limit_req`; and what is left of a backend's work
//! when five times as much is asked of it as it can do, by 20 greedy consumers beside 20 honest ones.
//!
//! What a banned source costs the kernel is in `cargo bench --bench kernel`, how exact limits are in `cargo bench --bench limit`.

mod overload;

use anyhow::{Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    net::{Net, Node},
    process::cpu_time,
    wrk::{Load, Wrk},
};
use serde_json::{Value, json};

use crate::{Effort, MEASURED_CPU, OTHER_CPU, at, peers, show, stats::Rounds};

/// Of nginx's 429, at most.
const GOAL: f64 = 0.9;

#[derive(Default)]
struct Figures {
    cpu_us: Rounds,
    rate: Rounds,
}

pub fn run(effort: Effort) -> Result<Value> {
    Ok(json!({ "refusal": refusals(effort)?, "overload": overload::run(effort)? }))
}

fn refusals(effort: Effort) -> Result<Value> {
    let net = Net::of(1, 0, 0)?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \"{}\"\n[access_log]\nto = \"off\"\n\
         [limit.few]\nrate = \"1/h\"\nkey = \"ip\"\n[route.all]\nto = [\"127.0.0.1:1\"]\nlimit = \"few\"\n\
         [kernel]\nmode = \"off\"\nsteer = \"off\"\n",
        at(8003)
    );
    let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
    let gateway = Gateway::start_with(&net, &config, options)?;
    let http = format!(
        "access_log off; limit_req_zone $binary_remote_addr zone=few:10m rate=1r/m; limit_req_status 429;
         server {{ listen {}; limit_req zone=few; location / {{ return 204; }} location /proxied {{ proxy_pass http://127.0.0.1:1; }} }}",
        at(8001)
    );
    // `return` is answered before limits are asked: what is refused has to be proxied.
    let nginx = peers::nginx_with(&net.gateway, at(8001), MEASURED_CPU, &http)?;
    let client = Node::of_namespace(net.gateway.clone());
    let programs = [("gateway", gateway.pid(), 8003), ("nginx", nginx.process.id(), 8001)];
    let mut all = [Figures::default(), Figures::default()];
    for round in 0..=effort.rounds {
        for ((name, pid, port), figures) in programs.iter().zip(&mut all) {
            let load =
                Load { path: "/proxied".into(), cpu: Some(OTHER_CPU), ..Load::new(64, effort.lasts(round)) };
            let before = cpu_time(*pid)?;
            let outcome = Wrk::run(&client, at(*port), &load)?;
            let cpu = cpu_time(*pid)?.saturating_sub(before);
            // One, or a few, may have been let in.
            ensure!(
                outcome.errors + 100 >= outcome.requests && outcome.requests > 1000,
                "{name}: {outcome:?}"
            );
            if round > 0 {
                figures.cpu_us.push(cpu.as_secs_f64() * 1e6 / outcome.requests as f64);
                figures.rate.push(outcome.rate());
            }
        }
    }
    let [ours, theirs] = &all;
    let (rounds, seconds) = (effort.rounds, effort.round.as_secs());
    let what = format!(
        "429 to a client over its limit, 64 connections, 1 worker; median of {rounds} x {seconds} s; goal {GOAL}"
    );
    println!("\n{}  {}", show::bold("A refusal's cost"), show::dim(&what));
    let median = ours.cpu_us.median();
    let rows = [("gateway", ours), ("nginx", theirs)]
        .map(|(name, figures)| show::cost(name, &figures.cpu_us, &figures.rate, median).to_vec());
    println!("{}", show::table(&["", "CPU µs/429", "range", "gateway ÷ it", "429/s"], &rows));
    Ok(json!({
        "goal_times_nginx": GOAL,
        "gateway": { "cpu_us": ours.cpu_us.json(), "per_second": ours.rate.json() },
        "nginx": { "cpu_us": theirs.cpu_us.json(), "per_second": theirs.rate.json() },
    }))
}
