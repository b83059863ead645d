//! h2load as a load generator: HTTP/2, many streams on few connections, as fast as they go, or as many a second as asked for.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{net::Node, process::Process, sys::ChildSetup, tools, wrk::Outcome};

/// How much load, for how long.
#[derive(Debug, Clone)]
pub struct Load {
    pub connections: usize,
    /// At once on each connection.
    pub streams: usize,
    pub duration: Duration,
    pub path: String,
    pub cpu: Option<usize>,
    /// By ALPN over TLS; else by prior knowledge.
    pub tls: bool,
    /// Each request has a small message of gRPC as its body.
    pub grpc: bool,
    /// HTTP/1.1 instead.
    pub http1: bool,
    /// Requests a second over all connections, whether the last ones are answered or not. Default: as fast as they go.
    pub rate: Option<f64>,
}

/// Runs it to its end.
pub fn run(node: &Node, to: impl Into<SocketAddr>, load: &Load) -> Result<Outcome> {
    let program =
        tools::find("h2load").context("h2load is not installed; `cargo xtask setup` installs it")?;
    let scratch = crate::cleanup::scratch()?;
    let (log, said) = (scratch.path().join("requests"), scratch.path().join("output"));
    let seconds = load.duration.as_secs().max(1);
    let scheme = if load.tls { "https" } else { "http" };
    let mut command: Command = node.namespace.command(program)?;
    if load.grpc {
        let message = scratch.path().join("message");
        std::fs::write(&message, [&[0, 0, 0, 0, 59][..], &[b'x'; 59]].concat())?;
        command.arg("-d").arg(message).args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
    }
    if load.http1 {
        command.arg("--h1");
    }
    if let Some(rate) = load.rate {
        command.arg(format!("--rps={:.3}", rate / load.connections.max(1) as f64));
    }
    command
        .args(["-t1", &format!("-c{}", load.connections), &format!("-m{}", load.streams)])
        .args([&format!("-D{seconds}"), "--log-file"])
        .arg(&log)
        .arg(format!("{scheme}://{}{}", to.into(), load.path))
        .on_cpu(load.cpu)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&said)?);
    Process::start(command)?.wait(Duration::from_secs(seconds + 15))?;
    outcome(&log, seconds).with_context(|| std::fs::read_to_string(&said).unwrap_or_default())
}

/// Its log has a line a request: when it began, its status (-1 where it failed), microseconds.
fn outcome(log: &Path, seconds: u64) -> Result<Outcome> {
    let text = std::fs::read_to_string(log)?;
    let mut took = Vec::new();
    let mut errors = 0;
    for line in text.lines() {
        let mut fields = line.split('\t').skip(1);
        let (status, us) = (fields.next(), fields.next().and_then(|us| us.parse::<u64>().ok()));
        match (status.and_then(|status| status.parse::<i32>().ok()), us) {
            (Some(200..400), Some(us)) => took.push(us),
            _ => errors += 1,
        }
    }
    ensure!(!took.is_empty(), "no request was answered");
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    Ok(Outcome {
        requests: took.len() as u64,
        seconds: seconds as f64,
        errors,
        timeouts: 0,
        p50_us: at(0.5),
        p99_us: at(0.99),
    })
}
