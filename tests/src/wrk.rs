//! wrk as a load generator: many keep-alive connections, as fast as they go.

use std::{
    io::Read,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{net::Node, process::Process, sys::ChildSetup, tools};

/// Prints what wrk measured as one JSON line.
const REPORT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50":%d,"p99":%d,"max":%d}\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"#;

/// How much load, for how long.
#[derive(Debug, Clone)]
pub struct Load {
    pub connections: usize,
    pub duration: Duration,
    pub path: String,
    pub cpu: Option<usize>,
    /// A connection for each request.
    pub fresh: bool,
    /// Over TLS, whose handshake is done anew for each connection; nothing is verified.
    pub tls: bool,
    /// Default: the address.
    pub host: Option<String>,
}

impl Load {
    pub fn new(connections: usize, duration: Duration) -> Load {
        Load { connections, duration, path: "/".into(), cpu: None, fresh: false, tls: false, host: None }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub requests: u64,
    pub seconds: f64,
    /// Connections that failed, broke or were not made, and answers that are not 2xx or 3xx.
    pub errors: u64,
    pub timeouts: u64,
    pub p50_us: u64,
    pub p99_us: u64,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds.max(1e-9)
    }
}

/// A wrk under way.
#[derive(Debug)]
pub struct Wrk {
    process: Process,
    limit: Duration,
    _scratch: tempfile::TempDir,
}

impl Wrk {
    pub fn start(node: &Node, to: impl Into<SocketAddr>, load: &Load) -> Result<Wrk> {
        let program = tools::find("wrk").context("wrk is not installed; `cargo xtask setup` installs it")?;
        let scratch = crate::cleanup::scratch()?;
        let script = scratch.path().join("report.lua");
        std::fs::write(&script, REPORT)?;
        let seconds = load.duration.as_secs().max(1);
        let mut command: Command = node.namespace.command(program)?;
        command.args(["-t1", &format!("-c{}", load.connections), &format!("-d{seconds}s"), "--latency"]);
        if load.fresh {
            command.args(["-H", "Connection: close"]);
        }
        if let Some(host) = &load.host {
            command.args(["-H", &format!("Host: {host}")]);
        }
        let scheme = if load.tls { "https" } else { "http" };
        command.arg("-s").arg(&script).arg(format!("{scheme}://{}{}", to.into(), load.path));
        command.on_cpu(load.cpu).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Ok(Wrk {
            process: Process::start(command)?,
            limit: Duration::from_secs(seconds + 15),
            _scratch: scratch,
        })
    }

    pub fn running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Ends it before its time.
    pub fn end(self) -> Result<Outcome> {
        self.process.signal(libc::SIGINT)?;
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Outcome> {
        self.process.wait(self.limit)?;
        let mut text = String::new();
        self.process.child.stdout.take().context("no stdout")?.read_to_string(&mut text)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("JSON "))
            .with_context(|| format!("wrk: {text}"))?;
        let all: Value = serde_json::from_str(line)?;
        let number = |name: &str| all[name].as_u64().unwrap_or(0);
        ensure!(number("us") > 0, "wrk did not run: {line}");
        Ok(Outcome {
            requests: number("requests"),
            seconds: number("us") as f64 / 1e6,
            errors: ["connect", "read", "write", "status"].map(number).iter().sum(),
            timeouts: number("timeout"),
            p50_us: number("p50"),
            p99_us: number("p99"),
        })
    }

    pub fn run(node: &Node, to: impl Into<SocketAddr>, load: &Load) -> Result<Outcome> {
        Wrk::start(node, to, load)?.finish()
    }
}
