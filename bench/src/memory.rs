//! Resident memory: at rest, with idle client connections that have each had one answer, with ones whose requests are under
//! way, and with idle ones of HTTP/2.

use std::{net::SocketAddr, time::Duration};

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

struct Program {
    name: &'static str,
    pid: u32,
    port: u16,
    /// Of HTTP/2 in clear.
    http2: Option<u16>,
}

/// Bytes with so many connections, and without.
#[derive(Debug, Default, Clone, Copy)]
struct Grown {
    before: u64,
    after: u64,
    connections: usize,
}

struct Row {
    name: &'static str,
    idle: Grown,
    active: Option<Grown>,
    http2: Option<Grown>,
}

pub fn run() -> Result<Value> {
    lab::sys::raise_open_files()?;
    let net = Net::of(1, 0, 1)?;
    let backend = net.backend(1).at(8080);
    let _backend = peers::nginx_backend(&net.backend(1).namespace, backend, OTHER_CPU)?;
    let slow = Backend::start_as(net.backend(1), "slow", 8081, Some(OTHER_CPU))?;
    let at = |port| SocketAddr::from((VIP4, port));
    let places = |port| Places { listen: at(port), tls: None, backend, grpc: backend, log_sink: at(5140) };
    peers::log_sink(&net.gateway, at(5140))?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\n[listener.h2]\nbind = \":81\"\nprotocols = [\"h2\"]\n\
         [route.all]\nto = [\"{backend}\"]\n[route.slow]\npath = \"/slow-header\"\nto = \"slow\"\n\
         [upstream.slow]\nto = [\"{}\"]\ntimeout = {{ first_byte = \"2m\" }}\n",
        slow.addr
    );
    let gateway = Gateway::start_with(
        &net,
        &config,
        Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() },
    )?;
    let more = format!(
        "listen {} http2; location /slow-header {{ proxy_pass http://{}; proxy_http_version 1.1; \
         proxy_set_header Connection ''; proxy_read_timeout 2m; }}",
        at(8011),
        slow.addr
    );
    let nginx = peers::nginx_proxy(&net.gateway, places(8001), MEASURED_CPU, "", &more)?;
    let haproxy = peers::haproxy(&net.gateway, places(8002), MEASURED_CPU)?;
    let program = |name, pid, port, http2| Program { name, pid, port, http2 };
    let programs = [
        program("gateway", gateway.pid(), 80, Some(81)),
        program("nginx", nginx.process.id(), 8001, Some(8011)),
        program("haproxy", haproxy.process.id(), 8002, None),
    ];
    let rows = programs.iter().map(|program| row(&net, program)).collect::<Result<Vec<_>>>()?;
    println!(
        "\n{}  {}",
        show::bold("Memory"),
        show::dim(&format!(
            "resident, all processes of each, 1 worker; {IDLE} idle keep-alive connections, {ACTIVE} with a request under \
             way, {HTTP2} idle ones of HTTP/2"
        ))
    );
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let each = |grown: &Grown| format!("{:.1}", grown.each() / 1024.0);
    let some = |grown: &Option<Grown>| grown.as_ref().map_or("–".to_owned(), each);
    let line = |row: &Row| {
        let Row { name, idle, active, http2 } = row;
        vec![(*name).into(), mib(idle.before), mib(idle.after), each(idle), some(active), some(http2)]
    };
    let table: Vec<Vec<String>> = rows.iter().map(line).collect();
    let header = ["", "at rest MiB", "idle MiB", "KiB an idle one", "an active one", "one of HTTP/2"];
    println!("{}", show::table(&header, &table));
    Ok(json!({
        "connections": IDLE,
        "programs": rows.iter().map(|row| (row.name.to_owned(), json!({
            "rest_bytes": row.idle.before, "idle_connections_bytes": row.idle.after,
            "bytes_an_active_connection": row.active.as_ref().map(Grown::each),
            "bytes_a_connection_of_http2": row.http2.as_ref().map(Grown::each),
        }))).collect::<serde_json::Map<_, _>>(),
    }))
}

impl Grown {
    /// While what `open` makes is held.
    fn by<T>(pid: u32, connections: usize, open: impl FnOnce() -> Result<T>) -> Result<Grown> {
        let before = resident(pid)?;
        let held = open()?;
        // Memory that is given back is given back after a while, not upon an event that could be awaited.
        std::thread::sleep(SETTLE);
        let after = resident(pid)?;
        drop(held);
        std::thread::sleep(SETTLE);
        Ok(Grown { before, after, connections })
    }

    fn each(&self) -> f64 {
        self.after.saturating_sub(self.before) as f64 / self.connections as f64
    }
}

/// The most memory first: what an allocator has got once it may use again.
fn row(net: &Net, program: &Program) -> Result<Row> {
    let to = |port| SocketAddr::from((VIP4, port));
    let pid = program.pid;
    let idle = Grown::by(pid, IDLE, || answered(net, to(program.port)))?;
    // HAProxy is beside for what is idle only.
    let others = program.http2.map(|port| -> Result<_> {
        let active = Grown::by(pid, ACTIVE, || under_way(net, to(program.port)))?;
        Ok((active, Grown::by(pid, HTTP2, || of_http2(net, to(port)))?))
    });
    let others = others.transpose()?;
    Ok(Row {
        name: program.name,
        idle,
        active: others.map(|(active, _)| active),
        http2: others.map(|(_, http2)| http2),
    })
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
