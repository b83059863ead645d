//! What honest clients keep while one source attacks above the kernel half: 10 000 connections whose heads never end, and
//! TLS handshakes as fast as it can.
//!
//! The gateway, its backend and the honest clients share one CPU, the attacker has the other: what the attack costs the gateway is what
//! the honest clients lose. The kernel half limits nothing by itself here; where it is on, it drops whom L7 has banned.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{
    certs::Authority,
    gateway::{Gateway, Options},
    net::{Net, Node, VIP4},
    sys,
    tls::TlsClient,
    wrk::{Load, Wrk},
};
use serde_json::{Map, Value, json};

use crate::{
    Effort, MEASURED_CPU, OTHER_CPU,
    peers::{self, Certificate, Places},
    show,
    stats::Rounds,
};

const CONNECTIONS: usize = 32;
const SLOW: usize = 10_000;
/// Ports are few: they come from so many addresses of the attacker.
const ADDRESSES: u16 = 8;
/// Between two bytes of a head that never ends, as the usual tools have it.
const DRIP: Duration = Duration::from_secs(10);
/// An attacker does not wait for what is dropped: it tries again.
const IMPATIENCE: Duration = Duration::from_millis(5);
/// Threads that shake hands, honest and not.
const HONEST: usize = 2;
const HOSTILE: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    /// Both halves.
    Whole,
    /// Without its kernel half.
    Gateway,
    /// Without `handshakes_per_source`.
    GatewayOpen,
    Nginx,
}

struct Row {
    name: &'static str,
    key: &'static str,
    front: Front,
    attacked: bool,
    rate: Rounds,
    p99_us: Rounds,
}

fn row(name: &'static str, key: &'static str, front: Front, attacked: bool) -> Row {
    Row { name, key, front, attacked, rate: Rounds::default(), p99_us: Rounds::default() }
}

pub fn run(effort: Effort) -> Result<Value> {
    sys::raise_open_files()?;
    let net = Net::of(1, 1, 1)?;
    // More connections a minute than there are ports.
    for node in [net.client(1), net.attacker()] {
        node.namespace.set_sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        node.namespace.set_sysctl("net/ipv4/ip_local_port_range", "1024 65000")?;
    }
    let backend = net.backend(1).at(8080);
    let _backend = peers::nginx_backend(&net.backend(1).namespace, backend, MEASURED_CPU)?;
    let mut figures = Map::new();
    let mut slow = [
        row("gateway", "gateway_quiet", Front::Gateway, false),
        row("gateway, 10 000 slow heads", "gateway", Front::Gateway, true),
        row("nginx", "nginx_quiet", Front::Nginx, false),
        row("nginx, 10 000 slow heads", "nginx", Front::Nginx, true),
    ];
    for _ in 0..effort.rounds {
        for row in &mut slow {
            slow_heads(&net, backend, row, effort.round).with_context(|| row.name)?;
        }
    }
    show_table("Under slow heads", "requests/s", &slow, effort);
    let of = |key: &str| slow.iter().find(|row| row.key == key).map_or(0.0, |row| row.p99_us.median());
    let moved = 100.0 * (of("gateway") / of("gateway_quiet").max(1e-9) - 1.0);
    verdict(&format!("honest p99 moves by {moved:.1} %"), moved < 10.0);
    figures.insert("slow_heads".into(), all(&slow));

    let authority = Authority::new()?;
    let mut shaken = [
        row("gateway", "gateway_quiet", Front::Whole, false),
        row("gateway, flood", "gateway", Front::Whole, true),
        row("gateway without its kernel half, flood", "gateway_l7", Front::Gateway, true),
        row("gateway without a budget a source, flood", "gateway_open", Front::GatewayOpen, true),
        row("nginx", "nginx_quiet", Front::Nginx, false),
        row("nginx, limit_conn, flood", "nginx", Front::Nginx, true),
    ];
    for _ in 0..effort.rounds {
        for row in &mut shaken {
            handshakes(&net, backend, &authority, row, effort.round).with_context(|| row.name)?;
        }
    }
    show_table("Under a flood of TLS handshakes from one source", "handshakes/s", &shaken, effort);
    let of = |key: &str| shaken.iter().find(|row| row.key == key).map_or(0.0, |row| row.rate.median());
    let kept = 100.0 * of("gateway") / of("gateway_quiet").max(1e-9);
    verdict(&format!("honest clients keep {kept:.0} % of their handshakes"), kept >= 90.0);
    figures.insert("handshakes".into(), all(&shaken));
    Ok(Value::Object(figures))
}

/// Honest requests beside heads that never end.
fn slow_heads(net: &Net, backend: SocketAddr, row: &mut Row, duration: Duration) -> Result<()> {
    // Longer than a round lasts: nobody is cut while it is measured.
    let config = format!(
        "[listener.web]\nbind = \":80\"\ntimeout = {{ header = \"5m\" }}\n[route.all]\nto = [\"{backend}\"]\n"
    );
    let _front = start(net, backend, row.front, &config, None)?;
    let to = SocketAddr::from((VIP4, 80));
    let over = AtomicBool::new(false);
    let held = if row.attacked { hold(net.attacker(), to)? } else { Vec::new() };
    thread::scope(|scope| {
        let dripping = scope.spawn(|| drip(&held, &over));
        let load = Load { cpu: Some(MEASURED_CPU), ..Load::new(CONNECTIONS, duration) };
        let outcome = Wrk::start(net.client(1), to, &load).and_then(Wrk::finish);
        over.store(true, Relaxed);
        let alive = dripping.join().unwrap_or_default();
        let outcome = outcome?;
        ensure!(!row.attacked || alive > SLOW * 9 / 10, "only {alive} of {SLOW} slow heads were held");
        row.rate.push(outcome.rate());
        row.p99_us.push(outcome.p99_us as f64);
        Ok(())
    })
}

/// Connections with the beginning of a head.
fn hold(node: &Node, to: SocketAddr) -> Result<Vec<TcpStream>> {
    use std::io::Write;
    let mut held = Vec::with_capacity(SLOW);
    for n in 0..SLOW {
        let from = IpAddr::from(node.many_v4((n % usize::from(ADDRESSES)) as u16 + 1));
        let mut stream = node.connect(to, Some(from)).with_context(|| format!("connection {n}"))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nx-slow: ")?;
        held.push(stream);
    }
    Ok(held)
}

/// A byte to each now and then, one connection after the other; how many took theirs.
fn drip(held: &[TcpStream], over: &AtomicBool) -> usize {
    use std::io::Write;
    let (began, mut gone, mut sent) = (Instant::now(), 0, 0);
    while !over.load(Relaxed) {
        let due = (began.elapsed().as_secs_f64() / DRIP.as_secs_f64() * held.len() as f64) as usize;
        for n in sent..due {
            let refused = held.get(n % held.len()).is_some_and(|mut stream| stream.write_all(b"a").is_err());
            gone += usize::from(refused);
        }
        sent = due;
        thread::sleep(Duration::from_millis(5));
    }
    held.len().saturating_sub(gone)
}

/// Honest handshakes beside those of a flood.
fn handshakes(
    net: &Net,
    backend: SocketAddr,
    authority: &Authority,
    row: &mut Row,
    duration: Duration,
) -> Result<()> {
    let files = lab::cleanup::scratch()?;
    authority.issue(&["shop.test"])?.write(files.path(), "lab")?;
    let budget = match row.front {
        Front::Whole | Front::Gateway => "max = { handshakes_per_source = \"20/s\" }",
        Front::GatewayOpen | Front::Nginx => "",
    };
    let penalty = if row.front == Front::Whole { "[penalty]\n" } else { "" };
    // The honest client is one source as well, and must not be held to the budget of one.
    let honest = net.client(1).v4();
    let at = files.path().display();
    let config = format!(
        "[cert.main]\nchain = \"{at}/lab.pem\"\nkey = {{ file = \"{at}/lab.key\" }}\n[listener.web]\nbind = \":443\"\n\
         tls = {{ cert = \"main\" }}\n{budget}\n[route.all]\nto = [\"{backend}\"]\n{penalty}[kernel.limit]\nexempt = [\"{honest}\"]\n"
    );
    let certificate = Certificate::new()?;
    let _front = start(net, backend, row.front, &config, Some(&certificate))?;
    let trusted =
        if row.front == Front::Nginx { certificate.authority.clone() } else { authority.pem.clone() };
    let name = if row.front == Front::Nginx { "127.0.0.1" } else { "shop.test" };
    let client = TlsClient::new(&trusted, None, &["http/1.1"])?.without_resumption();
    let to = SocketAddr::from((VIP4, 443));
    let (over, done, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let took = thread::scope(|scope| {
        for n in 0..HONEST + if row.attacked { HOSTILE } else { 0 } {
            let (client, over, done, slowest) = (&client, &over, &done, &slowest);
            let is_honest = n < HONEST;
            let node = if is_honest { net.client(1) } else { net.attacker() };
            let cpu = if is_honest { MEASURED_CPU } else { OTHER_CPU };
            scope.spawn(move || {
                let _ = sys::pin_to_cpu(cpu);
                while !over.load(Relaxed) {
                    let began = Instant::now();
                    if !is_honest {
                        let _ = node
                            .connect_within(IMPATIENCE, to, None)
                            .map(|stream| client.over(stream, name).is_ok());
                    } else if client.connect(node, to, name).is_ok() {
                        done.fetch_add(1, Relaxed);
                        slowest.fetch_max(began.elapsed().as_micros() as u64, Relaxed);
                    }
                }
            });
        }
        thread::sleep(duration);
        over.store(true, Relaxed);
        began.elapsed()
    });
    let shaken = done.load(Relaxed);
    ensure!(shaken > 0, "the honest client shook no hands");
    row.rate.push(shaken as f64 / took.as_secs_f64());
    row.p99_us.push(slowest.load(Relaxed) as f64);
    Ok(())
}

/// What runs in front, for as long as it is measured.
#[expect(dead_code, reason = "it ends when it is dropped")]
enum Running {
    Gateway(Box<Gateway>),
    Nginx(peers::Peer),
}

fn start(
    net: &Net,
    backend: SocketAddr,
    front: Front,
    config: &str,
    certificate: Option<&Certificate>,
) -> Result<Running> {
    // The last one may still be closing its connections.
    lab::wait::eventually("the ports are free", || {
        let bound = |port| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        Ok(net.gateway.run(|| bound(80) && bound(443))?)
    })?;
    if front == Front::Nginx {
        let listen = SocketAddr::from((VIP4, 80));
        let tls = certificate.map(|certificate| (SocketAddr::from((VIP4, 443)), certificate));
        let places = Places { listen, tls, backend, grpc: backend, log_sink: backend };
        let zones = "limit_conn_zone $binary_remote_addr zone=c:10m; client_header_timeout 300s;";
        let nginx = peers::nginx_proxy(&net.gateway, places, MEASURED_CPU, zones, "limit_conn c 20000;")?;
        return Ok(Running::Nginx(nginx));
    }
    let mode = if front == Front::Whole { "native" } else { "off" };
    let config = format!(
        "[gateway]\nworkers = 1\n{config}[metrics]\nbind = \"off\"\n[kernel]\nmode = \"{mode}\"\nsteer = \"off\"\n"
    );
    let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
    Ok(Running::Gateway(Box::new(Gateway::start_with(net, &config, options)?)))
}

fn all(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let figures = json!({ "name": row.name, "per_second": row.rate.json(), "p99_us": row.p99_us.json() });
        (row.key.to_owned(), figures)
    };
    Value::Object(rows.iter().map(row).collect())
}

fn show_table(title: &str, what: &str, rows: &[Row], effort: Effort) {
    let rounds = format!("median of {} x {} s", effort.rounds, effort.round.as_secs());
    println!("\n{}  {}", show::bold(title), show::dim(&rounds));
    let cells = |row: &Row| {
        vec![
            row.name.to_owned(),
            show::grouped(row.rate.median()),
            format!("{:.2}", row.p99_us.median() / 1000.0),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let late = if what == "requests/s" { "p99 ms" } else { "slowest ms" };
    println!("{}", show::table(&["honest clients get", what, late], &rows));
}

fn verdict(text: &str, good: bool) {
    println!("  {}", if good { show::good(text) } else { show::bad(text) });
}
