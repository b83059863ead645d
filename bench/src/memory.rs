//! Resident memory: at rest, with idle client connections that have each had one answer, with ones whose requests are under
//! way, and with idle ones of HTTP/2.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    backend::Backend,
    gateway::{Gateway, Options},
    http::Client,
    http2::{self, END_STREAM, HEADERS, Http2},
    net::{Net, VIP4},
    process::resident,
};
use serde_json::{Value, json};

use crate::{
    MEASURED_CPU, OTHER_CPU,
    peers::{self, Places},
    show,
};

const IDLE: usize = 5000;
/// Each has a connection of its own to the backend as well.
const ACTIVE: usize = 1000;
const HTTP2: usize = 2000;
/// gateway takes a connection's buffers back after two seconds without a request.
const SETTLE: Duration = Duration::from_secs(4);
/// What is asked for where no answer is to come before the measuring is over.
const SLOW: &str = "/slow-header?ms=60000";

/// Of which memory is measured, each in processes of its own: what one has given back, the next would use again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Idle,
    Active,
    Http2,
}

/// Bytes with so many connections, and without.
#[derive(Debug, Clone, Copy)]
struct Grown {
    before: u64,
    after: u64,
    connections: usize,
}

/// By program and kind.
type Figures = BTreeMap<(&'static str, Kind), Grown>;

const PROGRAMS: [&str; 3] = ["gateway", "nginx", "haproxy"];

pub fn run() -> Result<Value> {
    lab::sys::raise_open_files()?;
    let net = Net::of(1, 0, 1)?;
    let backend = net.backend(1).at(8080);
    let _backend = peers::nginx_backend(&net.backend(1).namespace, backend, OTHER_CPU)?;
    let slow = Backend::start_as(net.backend(1), "slow", 8081, Some(OTHER_CPU))?;
    peers::log_sink(&net.gateway, at(5140))?;
    let mut figures = Figures::new();
    // What one has listened at may be closed a little later than it ends.
    let mut ports = (8100..).step_by(20);
    for kind in [Kind::Idle, Kind::Active, Kind::Http2] {
        for name in PROGRAMS {
            // HAProxy is beside for what is idle only.
            if kind == Kind::Idle || name != "haproxy" {
                let port = ports.next().unwrap_or_default();
                figures.insert((name, kind), measure(&net, (name, port), kind, backend, slow.addr)?);
            }
        }
    }
    show_table(&figures);
    let each = |name, kind| figures.get(&(name, kind)).map(Grown::each);
    Ok(json!({
        "connections": IDLE,
        "programs": PROGRAMS.iter().filter_map(|name| {
            let idle = figures.get(&(name, Kind::Idle))?;
            Some(((*name).to_owned(), json!({
                "rest_bytes": idle.before, "idle_connections_bytes": idle.after,
                "bytes_an_active_connection": each(name, Kind::Active),
                "bytes_a_connection_of_http2": each(name, Kind::Http2),
            })))
        }).collect::<serde_json::Map<_, _>>(),
    }))
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((VIP4, port))
}

fn show_table(figures: &Figures) {
    println!(
        "\n{}  {}",
        show::bold("Memory"),
        show::dim(&format!(
            "resident, all processes of each, 1 worker; {IDLE} idle keep-alive connections, {ACTIVE} with a request under \
             way, {HTTP2} idle ones of HTTP/2"
        ))
    );
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let each = |name, kind| {
        figures.get(&(name, kind)).map_or("–".to_owned(), |grown| format!("{:.1}", grown.each() / 1024.0))
    };
    let row = |name: &&'static str| {
        let idle = figures.get(&(*name, Kind::Idle))?;
        let kinds = [Kind::Idle, Kind::Active, Kind::Http2].map(|kind| each(*name, kind));
        Some([&[(*name).to_owned(), mib(idle.before), mib(idle.after)][..], &kinds].concat())
    };
    let rows: Vec<Vec<String>> = PROGRAMS.iter().filter_map(row).collect();
    let header = ["", "at rest MiB", "idle MiB", "KiB an idle one", "an active one", "one of HTTP/2"];
    println!("{}", show::table(&header, &rows));
}

/// Starts a program, and opens connections to it.
fn measure(
    net: &Net,
    (name, port): (&str, u16),
    kind: Kind,
    backend: SocketAddr,
    slow: SocketAddr,
) -> Result<Grown> {
    let http2 = port + 10;
    let places = Places { listen: at(port), tls: None, backend, grpc: backend, log_sink: at(5140) };
    match name {
        "gateway" => {
            let config = format!(
                "[gateway]\nworkers = 1\n[listener.web]\nbind = \":{port}\"\n[listener.h2]\nbind = \":{http2}\"\nprotocols = [\"h2\"]\n\
                 [route.all]\nto = [\"{backend}\"]\n[route.slow]\npath = \"/slow-header\"\nto = \"slow\"\n\
                 [upstream.slow]\nto = [\"{slow}\"]\ntimeout = {{ first_byte = \"2m\" }}\n"
            );
            let options = Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() };
            let gateway = Gateway::start_with(net, &config, options)?;
            Grown::by(gateway.pid(), net, kind, port)
        }
        "nginx" => {
            let more = format!(
                "listen {} http2; location /slow-header {{ proxy_pass http://{slow}; proxy_http_version 1.1; \
                 proxy_set_header Connection ''; proxy_read_timeout 2m; }}",
                at(http2)
            );
            let nginx = peers::nginx_proxy(&net.gateway, places, MEASURED_CPU, "", &more)?;
            Grown::by(nginx.process.id(), net, kind, port)
        }
        _ => {
            let haproxy = peers::haproxy(&net.gateway, places, MEASURED_CPU)?;
            Grown::by(haproxy.process.id(), net, kind, port)
        }
    }
}

impl Grown {
    fn by(pid: u32, net: &Net, kind: Kind, port: u16) -> Result<Grown> {
        match kind {
            Kind::Idle => Grown::while_held(pid, IDLE, || answered(net, at(port))),
            Kind::Active => Grown::while_held(pid, ACTIVE, || under_way(net, at(port))),
            Kind::Http2 => Grown::while_held(pid, HTTP2, || of_http2(net, at(port + 10))),
        }
    }

    fn while_held<T>(pid: u32, connections: usize, open: impl FnOnce() -> Result<T>) -> Result<Grown> {
        let before = resident(pid)?;
        let _held = open()?;
        // Memory that is given back is given back after a while, not upon an event that could be awaited.
        std::thread::sleep(SETTLE);
        Ok(Grown { before, after: resident(pid)?, connections })
    }

    fn each(&self) -> f64 {
        self.after.saturating_sub(self.before) as f64 / self.connections as f64
    }
}

fn connected(net: &Net, to: SocketAddr, connections: usize) -> Result<Vec<Client>> {
    let streams = net.client(1).namespace.run(|| {
        (0..connections)
            .map(|_| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(3)))
            .collect::<Result<Vec<_>, _>>()
    })??;
    streams.into_iter().map(Client::over).collect()
}

/// Connections, each with one request answered.
fn answered(net: &Net, to: SocketAddr) -> Result<Vec<Client>> {
    let mut open = connected(net, to, IDLE)?;
    for connection in &mut open {
        ensure!(connection.get("/")?.status == 200, "no answer from {to}");
    }
    Ok(open)
}

/// Connections, each with one request that is not answered yet.
fn under_way(net: &Net, to: SocketAddr) -> Result<Vec<Client>> {
    let mut open = connected(net, to, ACTIVE)?;
    for connection in &mut open {
        connection.send(format!("GET {SLOW} HTTP/1.1\r\nhost: a.test\r\n\r\n"))?;
    }
    Ok(open)
}

/// As [`answered`], of HTTP/2.
fn of_http2(net: &Net, to: SocketAddr) -> Result<Vec<Http2>> {
    let one = || -> Result<Http2> {
        let mut connection = Http2::connect(net.client(1), to)?;
        connection.request(1, &http2::get("a.test", &[]))?;
        connection.until("an answer's head", |frame| frame.kind == HEADERS)?;
        connection.until("its end", |frame| frame.flags & END_STREAM != 0)?;
        Ok(connection)
    };
    (0..HTTP2).map(|_| one()).collect()
}
