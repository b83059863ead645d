//! Resident memory: at rest, and with 5,000 idle client connections that have each had one answer.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    gateway::{Gateway, Options},
    http::Client,
    net::{Net, VIP4},
    process::resident,
};
use serde_json::{Value, json};

use crate::{
    MEASURED_CPU, OTHER_CPU,
    peers::{self, Places},
    show,
};

const CONNECTIONS: usize = 5000;
/// gateway takes a connection's buffers back after two seconds without a request.
const SETTLE: Duration = Duration::from_secs(4);

struct Row {
    name: &'static str,
    rest: u64,
    full: u64,
}

pub fn run() -> Result<Value> {
    lab::sys::raise_open_files()?;
    let net = Net::of(1, 0, 1)?;
    let backend = net.backend(1).at(8080);
    let _backend = peers::nginx_backend(&net.backend(1).namespace, backend, OTHER_CPU)?;
    let at = |port| SocketAddr::from((VIP4, port));
    let places = |port| Places { listen: at(port), tls: None, backend, grpc: backend, log_sink: at(5140) };
    peers::log_sink(&net.gateway, at(5140))?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\n[route.all]\nto = [\"{backend}\"]\n"
    );
    let gateway = Gateway::start_with(
        &net,
        &config,
        Options { cpu: Some(MEASURED_CPU), quiet: true, ..Options::default() },
    )?;
    let nginx = peers::nginx_proxy(&net.gateway, places(8001), MEASURED_CPU, "", "")?;
    let haproxy = peers::haproxy(&net.gateway, places(8002), MEASURED_CPU)?;
    let programs = [
        ("gateway", gateway.pid(), 80),
        ("nginx", nginx.process.id(), 8001),
        ("haproxy", haproxy.process.id(), 8002),
    ];
    let mut rows = Vec::new();
    for (name, pid, port) in programs {
        let rest = resident(pid)?;
        let connections = open(&net, at(port))?;
        // Memory that is given back is given back after a while, not upon an event that could be awaited.
        std::thread::sleep(SETTLE);
        rows.push(Row { name, rest, full: resident(pid)? });
        drop(connections);
    }
    println!(
        "\n{}  {}",
        show::bold("Memory"),
        show::dim(&format!(
            "resident, all processes of each, 1 worker; {CONNECTIONS} idle keep-alive connections"
        ))
    );
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let each = |row: &Row| row.full.saturating_sub(row.rest) as f64 / CONNECTIONS as f64 / 1024.0;
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| vec![row.name.into(), mib(row.rest), mib(row.full), format!("{:.1}", each(row))])
        .collect();
    println!("{}", show::table(&["", "at rest MiB", "5,000 idle MiB", "KiB a connection"], &table));
    Ok(json!({
        "connections": CONNECTIONS,
        "programs": rows.iter().map(|row| (row.name.to_owned(), json!({
            "rest_bytes": row.rest, "idle_connections_bytes": row.full,
        }))).collect::<serde_json::Map<_, _>>(),
    }))
}

/// Opens the connections, each with one request answered.
fn open(net: &Net, to: SocketAddr) -> Result<Vec<Client>> {
    let client = net.client(1);
    let streams = client.namespace.run(|| {
        (0..CONNECTIONS)
            .map(|_| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(3)))
            .collect::<Result<Vec<_>, _>>()
    })??;
    let mut open = Vec::new();
    for stream in streams {
        let mut connection = Client::over(stream)?;
        ensure!(connection.get("/")?.status == 200, "no answer from {to}");
        open.push(connection);
    }
    Ok(open)
}
