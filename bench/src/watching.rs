//! What watching costs: `gateway top` on its pages, the dashboard in a browser, what metrics of 10,000 routes take, and
//! what requests feel of metrics of 5,000 that are read each second.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{ChildStdin, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    http,
    net::{Net, Node},
    process::{Process, cpu_time, resident},
    tools,
    wrk::{Load, Wrk},
};
use serde_json::{Value, json};

use crate::{Effort, MEASURED_CPU, OTHER_CPU, at, half_rate, show, stats::Rounds};

/// Of a core, for whoever looks and for the gateway that is looked at.
const GOAL: f64 = 0.01;
const ROUTES: usize = 10_000;
/// Of requests while metrics of 5,000 routes are read, of what it is else; and how long that may take.
const P99: f64 = 1.1;
const SCRAPE_MS: u64 = 100;
const TOKEN: &str = "the-token-of-the-bench";

/// Logs in, and leaves the overview open, with its questions every second, until it is told to end.
const BROWSE: &str = r#"
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
    browser = playwright.chromium.launch(executable_path=sys.argv[3], args=flags)
    page = browser.new_page()
    page.goto(sys.argv[1])
    page.get_by_label("Token of").fill(sys.argv[2])
    page.keyboard.press("Enter")
    page.wait_for_selector("main h1")
    print("there", flush=True)
    page.wait_for_timeout(float(sys.argv[4]) * 1000)
"#;

/// Shares of a core.
#[derive(Debug)]
struct Cost {
    who: &'static str,
    /// Of the one that looks; `None`: a browser.
    own: Option<f64>,
    /// Of the gateway, above what it takes unwatched.
    gateway: f64,
}

pub fn run(net: &Net, effort: Effort) -> Result<Value> {
    let span = (effort.round * effort.rounds as u32).max(Duration::from_secs(10));
    let costs = costs(net, span)?;
    let memory = memory(net)?;
    let scraped = scraped(net, effort)?;
    show_tables(&costs, &memory, &scraped, span);
    let rows = costs.iter().map(|cost| json!({ "who": cost.who, "own": cost.own, "gateway": cost.gateway }));
    Ok(
        json!({ "goal_of_a_core": GOAL, "watching": rows.collect::<Value>(), "routes": memory.json(), "scraped": scraped.json() }),
    )
}

/// With some of everything, and the kernel half where it can be had.
fn config() -> String {
    let mut config = format!(
        "[gateway]\nworkers = 1\n[admin.http]\nbind = \"{}\"\ntoken = {{ file = \"token\" }}\n\
         [listener.web]\nbind = \":80\"\n[cache.c]\n[limit.few]\nrate = \"100/s\"\nkey = [\"ip\"]\n[kernel]\nmode = \"auto\"\n",
        at(9900)
    );
    for n in 0..100 {
        // Writing to a text does not fail.
        let _ = write!(
            config,
            "[route.r{n}]\npath = \"/r{n}/*\"\nto = [\"127.0.0.1:{}\"]\nlimit = [\"few\"]\n",
            3000 + n
        );
    }
    config
}

fn costs(net: &Net, span: Duration) -> Result<Vec<Cost>> {
    let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
    let mut gateway = Gateway::prepare(net, &config(), options)?;
    std::fs::write(gateway.file("token"), TOKEN)?;
    std::fs::set_permissions(gateway.file("token"), std::fs::Permissions::from_mode(0o600))?;
    gateway.run()?;
    std::thread::sleep(Duration::from_secs(2));
    let share = |pid: u32| -> Result<f64> {
        let before = cpu_time(pid)?;
        std::thread::sleep(span);
        Ok(cpu_time(pid)?.saturating_sub(before).as_secs_f64() / span.as_secs_f64())
    };
    let unwatched = share(gateway.pid())?;
    let mut costs = Vec::new();
    for (who, key) in [("top, routes", b"1"), ("top, sources", b"4")] {
        let (top, mut keys) = top(net, &gateway)?;
        keys.write_all(key)?;
        let pid = descendant_like(top.id(), "top")?;
        std::thread::sleep(Duration::from_secs(1));
        let before = cpu_time(pid)?;
        let watched = share(gateway.pid())?;
        let own = cpu_time(pid)?.saturating_sub(before).as_secs_f64() / span.as_secs_f64();
        costs.push(Cost { who, own: Some(own), gateway: (watched - unwatched).max(0.0) });
        drop((top, keys));
    }
    if let Some(_browser) = browser(net, span)? {
        let watched = share(gateway.pid())?;
        costs.push(Cost { who: "dashboard", own: None, gateway: (watched - unwatched).max(0.0) });
    }
    Ok(costs)
}

/// script(1) is a terminal.
fn top(net: &Net, gateway: &Gateway) -> Result<(Process, ChildStdin)> {
    let (program, socket) = (tools::gateway()?, gateway.socket());
    let run = format!("stty rows 24 cols 80; exec {} --socket {} top", program.display(), socket.display());
    let mut command = net.gateway.command("script")?;
    command.args(["-q", "-e", "-c", &run, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut top = Process::start(command)?;
    let keys = top.child.stdin.take().context("no stdin")?;
    std::thread::sleep(Duration::from_secs(1));
    Ok((top, keys))
}

/// The process below this one whose arguments end so.
fn descendant_like(pid: u32, last: &str) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).rfind(|part| !part.is_empty()) == Some(last.as_bytes()) {
            return Ok(child);
        }
        if let Ok(found) = descendant_like(child, last) {
            return Ok(found);
        }
    }
    anyhow::bail!("no {last} below {pid}")
}

/// `None`: there is none.
fn browser(net: &Net, span: Duration) -> Result<Option<Process>> {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python");
    let Some(chromium) =
        tools::find("chromium").filter(|_| std::path::Path::new(packages).join("playwright").is_dir())
    else {
        return Ok(None);
    };
    let seconds = (span * 2).as_secs().to_string();
    let mut command = net.gateway.command("python3")?;
    command.args(["-c", BROWSE, &format!("http://{}/", at(9900)), TOKEN]).arg(chromium).arg(seconds);
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").env("no_proxy", "*");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut browser = Process::start(command)?;
    let mut line = String::new();
    BufReader::new(browser.child.stdout.take().context("no stdout")?).read_line(&mut line)?;
    ensure!(line.trim() == "there", "the browser did not get in");
    std::thread::sleep(Duration::from_secs(2));
    Ok(Some(browser))
}

/// Bytes of memory with so many routes.
#[derive(Debug)]
struct Memory {
    started: u64,
    /// After each was asked once, and again.
    asked: [u64; 2],
    scrape: Duration,
    series: usize,
}

impl Memory {
    fn json(&self) -> Value {
        json!({
            "routes": ROUTES, "bytes_at_start": self.started, "bytes_asked_once": self.asked[0],
            "bytes_asked_again": self.asked[1], "series": self.series, "scrape_ms": self.scrape.as_secs_f64() * 1e3,
        })
    }
}

fn memory(net: &Net) -> Result<Memory> {
    let gateway = Gateway::start(net, &many_routes(ROUTES, (8011, 9181)))?;
    let client = Node::of_namespace(net.gateway.clone());
    let mut connection = http::Client::connect(&client, at(8011))?;
    let started = resident(gateway.pid())?;
    let mut ask = || -> Result<u64> {
        ask_each(&mut connection, ROUTES)?;
        resident(gateway.pid())
    };
    let asked = [ask()?, ask()?];
    let began = Instant::now();
    let page = http::get(&client, at(9181), "/metrics")?;
    let scrape = began.elapsed();
    Ok(Memory { started, asked, scrape, series: series(&page) })
}

/// What is asked for beside metrics, and how.
const PATH: &str = "/r7";
const CONNECTIONS: usize = 16;

/// Requests beside metrics of 5,000 routes.
#[derive(Debug, Default)]
struct Scraped {
    /// Of requests, in microseconds: while nobody reads, and while somebody does each second.
    p99: [Rounds; 2],
    /// Milliseconds to read them.
    took: Rounds,
}

impl Scraped {
    fn ratio(&self) -> f64 {
        self.p99[1].median() / self.p99[0].median().max(1.0)
    }

    fn json(&self) -> Value {
        json!({
            "p99_us": self.p99[0].json(), "p99_us_scraped": self.p99[1].json(), "ratio": self.ratio(),
            "goal_ratio": P99, "scrape_ms": self.took.json(), "goal_ms": SCRAPE_MS,
        })
    }
}

/// While half of what can be served is asked for: at its peak whatever else has to be done shows in what waits. The gateway has
/// both CPUs, as who reads is a thread of its own.
fn scraped(net: &Net, effort: Effort) -> Result<Scraped> {
    let gateway = Gateway::start(net, &many_routes(5000, (8012, 9182)))?;
    let client = Node::of_namespace(net.gateway.clone());
    ask_each(&mut http::Client::connect(&client, at(8012))?, 5000)?;
    let lasts = effort.round.max(Duration::from_secs(3));
    let all_of_it = Load { path: PATH.into(), cpu: Some(OTHER_CPU), ..Load::new(CONNECTIONS, lasts) };
    let peak = Wrk::run(&client, at(8012), &all_of_it)?.rate();
    let mut all = Scraped::default();
    for round in 0..=effort.rounds * 2 {
        let reads = round % 2 == 0;
        let over = AtomicBool::new(false);
        let (outcome, took) = std::thread::scope(|scope| -> Result<_> {
            let reader = scope.spawn(|| {
                let mut took = Vec::new();
                while reads && !over.load(Relaxed) {
                    let began = Instant::now();
                    // What goes wrong shows in what it takes.
                    let _ = http::get(&client, at(9182), "/metrics");
                    took.push(began.elapsed());
                    std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
                }
                took
            });
            let outcome = half_rate::ask(&client, 8012, (PATH, CONNECTIONS), peak / 2.0, lasts);
            over.store(true, Relaxed);
            let Ok(took) = reader.join() else { anyhow::bail!("the reader panicked") };
            Ok((outcome?, took))
        })?;
        // Round 0 warms up.
        if round > 0 {
            all.p99[usize::from(reads)].push(outcome.p99_us as f64);
            took.iter().for_each(|took| all.took.push(took.as_secs_f64() * 1e3));
        }
    }
    drop(gateway);
    Ok(all)
}

/// A config of so many routes that answer by themselves.
pub fn many_routes(routes: usize, (port, metrics): (u16, u16)) -> String {
    let mut config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \"{}\"\n[metrics]\nbind = \"{}\"\n[access_log]\nto = \"off\"\n\
         [kernel]\nmode = \"off\"\nsteer = \"off\"\n",
        at(port),
        at(metrics)
    );
    for n in 0..routes {
        // Writing to a text does not fail.
        let _ =
            write!(config, "[route.r{n}]\npath = \"/r{n}\"\nrespond = {{ status = 200, body = \"x\" }}\n");
    }
    config
}

/// Asks each of them once.
pub fn ask_each(connection: &mut http::Client, routes: usize) -> Result<()> {
    for n in 0..routes {
        ensure!(connection.get(&format!("/r{n}"))?.status == 200);
    }
    Ok(())
}

/// How many there are on a page of metrics.
pub fn series(page: &http::Response) -> usize {
    page.text().lines().filter(|line| !line.starts_with('#')).count()
}

fn show_tables(costs: &[Cost], memory: &Memory, scraped: &Scraped, span: Duration) {
    let what = format!("{} s each; at most {:.0}% of a core each", span.as_secs(), GOAL * 100.0);
    println!("\n{}  {}", show::bold("What watching costs"), show::dim(&what));
    let percent = |share: f64| format!("{:.2}%", share * 100.0);
    let rows: Vec<Vec<String>> = costs
        .iter()
        .map(|cost| vec![cost.who.into(), cost.own.map_or("–".into(), percent), percent(cost.gateway)])
        .collect();
    println!("{}", show::table(&["", "its own", "the gateway's, above unwatched"], &rows));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "  {} routes: {:.0} MiB, each asked once {:.0} MiB, again {:.0} MiB; {} series in {:.0} ms",
        show::grouped(ROUTES as f64),
        mib(memory.started),
        mib(memory.asked[0]),
        mib(memory.asked[1]),
        show::grouped(memory.series as f64),
        memory.scrape.as_secs_f64() * 1e3
    );
    println!(
        "  5 000 routes: read in {:.0} ms (below {SCRAPE_MS}); p99 of requests meanwhile {:.2} of what it is else (below {P99})",
        scraped.took.median(),
        scraped.ratio()
    );
}
