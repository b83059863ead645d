//! A backend in its own namespace, as a test drives it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{net::Node, process::Process, sys::ChildSetup, tools, wait::eventually};

/// Where backends listen.
pub const PORT: u16 = 8080;

/// A running backend, named as its node unless told otherwise.
#[derive(Debug)]
pub struct Backend {
    pub name: String,
    pub addr: SocketAddr,
    pub addr6: SocketAddr,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    process: Process,
}

/// What a backend has counted.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub connections: u64,
    pub open: u64,
    pub requests: u64,
    pub checks: u64,
    pub aborted: u64,
    pub paths: BTreeMap<String, u64>,
    pub peers: Vec<SocketAddr>,
}

impl Backend {
    pub fn start(node: &Node) -> Result<Backend> {
        Backend::start_as(node, &node.role, PORT, None)
    }

    /// Under another name, on another port, and pinned to a CPU if given.
    pub fn start_as(node: &Node, name: &str, port: u16, cpu: Option<usize>) -> Result<Backend> {
        Backend::start_at(node, name, (node.at(port), SocketAddr::from((node.v6(), port))), cpu)
    }

    /// At addresses that the node has besides its own.
    pub fn start_at(
        node: &Node,
        name: &str,
        (addr, addr6): (SocketAddr, SocketAddr),
        cpu: Option<usize>,
    ) -> Result<Backend> {
        let mut command = node.namespace.command(tools::lab()?)?;
        command.args(["backend", name, &addr.to_string(), &addr6.to_string()]);
        command.on_cpu(cpu).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let stdin = process.child.stdin.take().context("no stdin")?;
        let mut stdout = BufReader::new(process.child.stdout.take().context("no stdout")?);
        let mut ready = String::new();
        stdout.read_line(&mut ready)?;
        ensure!(ready.contains("ready"), "backend {name} did not start: {ready}");
        Ok(Backend { name: name.to_owned(), addr, addr6, pipes: Mutex::new((stdin, stdout)), process })
    }

    pub fn tell(&self, command: &str) -> Result<Value> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(pipes.0, "{command}")?;
        let mut answer = String::new();
        pipes.1.read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).context("the backend did not answer")?;
        ensure!(answer.get("error").is_none(), "{command}: {answer}");
        Ok(answer)
    }

    pub fn stats(&self) -> Result<Stats> {
        let all = self.tell("stats")?;
        let number = |name: &str| all[name].as_u64().unwrap_or(0);
        let paths = all["paths"].as_object().into_iter().flatten();
        let peers = all["peers"].as_array().into_iter().flatten();
        Ok(Stats {
            connections: number("connections"),
            open: number("open"),
            requests: number("requests"),
            checks: number("checks"),
            aborted: number("aborted"),
            paths: paths.map(|(path, n)| (path.clone(), n.as_u64().unwrap_or(0))).collect(),
            peers: peers.filter_map(|peer| peer.as_str()?.parse().ok()).collect(),
        })
    }

    /// Waits until its counts are so.
    pub fn until(&self, what: &str, so: impl Fn(&Stats) -> bool) -> Result<()> {
        eventually(&format!("{}: {what}", self.name), || Ok(so(&self.stats()?)))
            .with_context(|| format!("{:?}", self.stats()))
    }

    /// What `/healthz` answers from now on.
    pub fn health(&self, status: u16) -> Result<()> {
        self.tell(&format!("health {status}")).map(drop)
    }

    /// Every answer but those to checks takes so long from now on.
    pub fn slow(&self, ms: u64) -> Result<()> {
        self.tell(&format!("slow {ms}")).map(drop)
    }

    /// Every answer but those to checks has this status from now on; 0: no more.
    pub fn fail(&self, status: u16) -> Result<()> {
        self.tell(&format!("fail {status}")).map(drop)
    }

    /// Refuses connections and cuts those there are.
    pub fn down(&self) -> Result<()> {
        self.tell("down").map(drop)
    }

    pub fn up(&self) -> Result<()> {
        self.tell("up").map(drop)
    }

    /// Ends without a word.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// One on each backend node of a network.
pub fn start_all(net: &crate::net::Net) -> Result<Vec<Backend>> {
    net.nodes().iter().filter(|node| node.role.starts_with('b')).map(Backend::start).collect()
}

/// The addresses of backends as a TOML list.
pub fn targets(backends: &[Backend]) -> String {
    format!(
        "[{}]",
        backends.iter().map(|backend| format!("\"{}\"", backend.addr)).collect::<Vec<_>>().join(", ")
    )
}
