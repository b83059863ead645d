//! The real gRPC library (Python's grpcio), as a backend and as a client.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{net::Node, process::Process, tools, wait::eventually};

/// Where gRPC backends listen.
pub const PORT: u16 = 50051;

/// A running server, see `server.py`.
#[derive(Debug)]
pub struct GrpcServer {
    pub process: Process,
    pub addr: SocketAddr,
}

impl GrpcServer {
    pub fn start(node: &Node) -> Result<GrpcServer> {
        let addr = node.at(PORT);
        let mut command = python(node, include_str!("server.py"), addr)?;
        // It ends with its input.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process = Process::start(command)?;
        eventually("the gRPC server listens", || {
            ensure!(process.ended().is_none(), "it ended");
            Ok(node.connect(addr, None).is_ok())
        })?;
        Ok(GrpcServer { process, addr })
    }
}

/// A client with a channel of its own, see `client.py`.
#[derive(Debug)]
pub struct GrpcClient {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _process: Process,
}

impl GrpcClient {
    pub fn start(node: &Node, to: SocketAddr) -> Result<GrpcClient> {
        let mut command = python(node, include_str!("client.py"), to)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let stdin = process.child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(process.child.stdout.take().context("no stdout")?);
        Ok(GrpcClient { stdin, stdout, _process: process })
    }

    /// Begins a call; [`GrpcClient::outcome`] waits for it.
    pub fn begin(&mut self, call: &Value) -> Result<()> {
        Ok(writeln!(self.stdin, "{call}")?)
    }

    pub fn outcome(&mut self) -> Result<Value> {
        let mut outcome = String::new();
        self.stdout.read_line(&mut outcome)?;
        serde_json::from_str(&outcome).context("the gRPC client did not answer")
    }

    pub fn call(&mut self, call: &Value) -> Result<Value> {
        self.begin(call)?;
        self.outcome()
    }
}

fn python(node: &Node, program: &str, address: SocketAddr) -> Result<Command> {
    let interpreter =
        tools::find("python3").context("python3 is not installed; `cargo xtask setup` installs it")?;
    let mut command = node.namespace.command(interpreter)?;
    command.env("PYTHONPATH", packages()?).env("PYTHONDONTWRITEBYTECODE", "1");
    // A proxy of the environment is not for the lab.
    command.env("no_proxy", "*").args(["-c", program, &address.to_string()]);
    Ok(command)
}

/// Where `cargo xtask setup` installs Python's packages.
fn packages() -> Result<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python"));
    ensure!(path.join("grpc").is_dir(), "grpcio is not installed; `cargo xtask setup` installs it");
    Ok(path)
}
