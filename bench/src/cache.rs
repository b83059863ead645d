//! What a hit costs: CPU time a request that is answered from memory, beside nginx's proxy_cache (in tmpfs) and Varnish,
//! one worker each, what a second worker adds, and what an entry takes beside Varnish's.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    http::Client,
    net::{Namespace, Net, Node},
    process::resident,
    wrk::{Load, Wrk},
};
use serde_json::{Value, json};

use crate::{
    Effort, MEASURED_CPU, OTHER_CPU, at,
    peers::{self, Peer},
    show,
    stats::{Costs, loaded},
};

/// Of the best peer, at most.
const GOAL: f64 = 0.8;
const TWO_WORKERS: f64 = 1.8;
/// For what one takes.
const ENTRIES: u64 = 20_000;
const SIZES: [(&str, &str); 2] = [("1KiB", "/1024"), ("100KiB", "/102400")];

pub fn run(effort: Effort) -> Result<Value> {
    let net = Net::of(1, 0, 0)?;
    let backend = at(8080);
    let _backend = peers::nginx_backend(&net.gateway, backend, OTHER_CPU)?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \"{}\"\n[access_log]\nto = \"off\"\n\
         [cache.all]\nmemory = \"256MiB\"\nttl = \"1h\"\n[route.all]\nto = [\"{backend}\"]\ncache = \"all\"\n\
         [metrics]\nbind = \"off\"\n[kernel]\nmode = \"off\"\nsteer = \"off\"\n",
        at(8003)
    );
    let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
    let gateway = Gateway::start_with(&net, &config, options)?;
    let two = config.replace("workers = 1", "workers = 2").replace(":8003", ":8004");
    let two = Gateway::start_with(&net, &two, Options { quiet: true, ..Options::default() })?;
    let beside = Options { cpu: Some(OTHER_CPU), quiet: true, ..Options::default() };
    let beside = Gateway::start_with(&net, &config.replace(":8003", ":8005"), beside)?;
    let nginx = nginx(&net.gateway, at(8001), backend)?;
    let mut programs = vec![("gateway", gateway.pid(), 8003), ("nginx", nginx.process.id(), 8001)];
    let varnish = varnish(&net.gateway, at(8002), backend);
    match &varnish {
        Ok(varnish) => programs.push(("varnish", varnish.process.id(), 8002)),
        Err(error) => println!("{}", show::dim(&format!("without Varnish: {error:#}"))),
    }
    let client = Node::of_namespace(net.gateway.clone());
    let mut report = serde_json::Map::new();
    for (name, path) in SIZES {
        let all = measure(&client, &programs, path, effort)?;
        show_table(name, &all, effort);
        let figures = all.iter().map(|(program, figures)| {
            let figures =
                json!({ "cpu_us_per_hit": figures.cpu_us.json(), "hits_per_second": figures.rate.json() });
            ((*program).to_owned(), figures)
        });
        report.insert(
            name.into(),
            json!({ "goal_times_best_peer": GOAL, "programs": figures.collect::<Value>() }),
        );
    }
    report.insert("two_workers".into(), scaling(&client, [gateway.pid(), beside.pid(), two.pid()], effort)?);
    programs.retain(|(name, ..)| *name != "nginx");
    report.insert("bytes_per_entry".into(), memory(&client, &programs)?);
    Ok(report.into())
}

/// Hits a second on two workers beside one, as far as their CPU time says: with a CPU for each they would be so many. One of
/// the two shares its CPU with the clients, so it is beside one worker that does and one that does not.
fn scaling(client: &Node, [alone, beside, two]: [u32; 3], effort: Effort) -> Result<Value> {
    let programs = [("alone", alone, 8003), ("beside", beside, 8005), ("two", two, 8004)];
    let all = measure(client, &programs, SIZES[0].1, effort)?;
    let of = |name| all.get(name).map_or(0.0, |figures: &Costs| figures.cpu_us.median());
    let (alone, beside, two) = (of("alone"), of("beside"), of("two"));
    let times = (alone + beside) / two;
    println!(
        "\n{}  {times:.2} times the hits of one (goal {TWO_WORKERS}): {two:.2} µs a hit; one alone on its CPU \
         {alone:.2}, one that shares it with the clients {beside:.2}",
        show::bold("Two workers")
    );
    let costs = json!({ "two": two, "alone": alone, "beside_clients": beside });
    Ok(json!({ "times_one": times, "goal": TWO_WORKERS, "cpu_us_per_hit": costs }))
}

/// What an entry of 1 KiB adds to the memory of those who keep it there.
fn memory(client: &Node, programs: &[(&'static str, u32, u16)]) -> Result<Value> {
    let mut rows = Vec::new();
    let mut report = serde_json::Map::new();
    for &(name, pid, port) in programs {
        let before = resident(pid)?;
        let mut asked = Client::connect(client, at(port))?;
        for n in 0..ENTRIES {
            let answer = asked.get(&format!("/1024?{n}"))?;
            ensure!(answer.status == 200, "{name}: {answer:?}");
        }
        let each = resident(pid)?.saturating_sub(before) / ENTRIES;
        rows.push(vec![name.to_owned(), each.to_string()]);
        report.insert(name.into(), each.into());
    }
    println!("\n{}  {}", show::bold("An entry's memory"), show::dim("1 KiB, bytes beside what was there"));
    println!("{}", show::table(&["", "bytes"], &rows));
    Ok(report.into())
}

fn measure(
    client: &Node,
    programs: &[(&'static str, u32, u16)],
    path: &str,
    effort: Effort,
) -> Result<BTreeMap<&'static str, Costs>> {
    let mut all: BTreeMap<&str, Costs> = BTreeMap::new();
    for round in 0..=effort.rounds {
        for &(name, pid, port) in programs {
            let load = Load {
                connections: 64,
                // The first fills the caches as well.
                duration: effort.lasts(round),
                path: path.to_owned(),
                cpu: Some(OTHER_CPU),
                fresh: false,
                tls: false,
                host: None,
            };
            let (cpu, outcome) = loaded(name, pid, || Wrk::run(client, at(port), &load))?;
            if round > 0 {
                all.entry(name).or_default().push(cpu, &outcome);
            }
        }
    }
    Ok(all)
}

fn show_table(size: &str, all: &BTreeMap<&str, Costs>, effort: Effort) {
    let (rounds, seconds) = (effort.rounds, effort.round.as_secs());
    let what = format!(
        "{size} from memory, 64 connections, 1 worker, no log; median of {rounds} x {seconds} s; at most {GOAL} of the best"
    );
    println!("\n{}  {}", show::bold("A hit's cost"), show::dim(&what));
    let ours = all.get("gateway").map_or(0.0, |figures| figures.cpu_us.median());
    let rows: Vec<Vec<String>> = ["gateway", "nginx", "varnish"]
        .iter()
        .filter_map(|name| {
            let figures = all.get(name)?;
            Some(show::cost(name, &figures.cpu_us, &figures.rate, ours).to_vec())
        })
        .collect();
    println!("{}", show::table(&["", "CPU µs/hit", "range", "gateway ÷ it", "hits/s"], &rows));
}

fn nginx(namespace: &Namespace, listen: SocketAddr, backend: SocketAddr) -> Result<Peer> {
    // In memory, as the others' caches are.
    let files = tempfile::Builder::new().prefix("gateway-bench-").tempdir_in("/dev/shm")?.keep();
    lab::cleanup::note_directory(&files);
    let http = format!(
        "access_log off; sendfile on;
         proxy_cache_path {} keys_zone=all:16m max_size=256m inactive=1h;
         server {{
             listen {listen};
             location / {{
                 proxy_pass http://{backend};
                 proxy_cache all;
                 proxy_cache_valid 200 1h;
                 proxy_cache_lock on;
                 add_header X-Cache-Status $upstream_cache_status;
             }}
         }}",
        files.display()
    );
    peers::nginx_with(namespace, listen, MEASURED_CPU, &http)
}

fn varnish(namespace: &Namespace, listen: SocketAddr, backend: SocketAddr) -> Result<Peer> {
    let dir = lab::peers::folder()?;
    let work = dir.path().join("work").display().to_string();
    let (listen_text, backend) = (listen.to_string(), backend.to_string());
    let arguments = [
        "-F",
        "-n",
        &work,
        "-a",
        &listen_text,
        "-b",
        &backend,
        "-s",
        "malloc,256m",
        "-t",
        "3600",
        "-p",
        "thread_pools=1",
        "-j",
        "none",
    ];
    lab::peers::run(namespace, "varnishd", &arguments, dir, listen, Some(MEASURED_CPU)).context("varnishd")
}
