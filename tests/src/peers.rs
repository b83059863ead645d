//! The real nginx and HAProxy, as proxies in front of the gateway and as servers behind it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    cleanup,
    net::Node,
    process::{Process, quiet},
    tools,
    wait::within,
};

/// A running one; its files are gone with it.
#[derive(Debug)]
pub struct Peer {
    _process: Process,
    dir: TempDir,
}

impl Peer {
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }
}

/// An nginx with these servers; `listen` is one of their addresses, waited for.
pub fn nginx(node: &Node, listen: SocketAddr, servers: &str) -> Result<Peer> {
    let dir = scratch()?;
    let config = format!(
        "worker_processes 1; pid nginx.pid; error_log error.log; events {{ worker_connections 256; }}
         http {{ access_log off; {servers} }}"
    );
    std::fs::write(dir.path().join("nginx.conf"), config)?;
    let path = dir.path().display().to_string();
    start(node, "nginx", &["-p", &path, "-c", "nginx.conf", "-g", "daemon off;"], dir, listen)
}

/// An HAProxy with these sections; `listen` is one of their addresses, waited for.
pub fn haproxy(node: &Node, listen: SocketAddr, sections: &str) -> Result<Peer> {
    let dir = scratch()?;
    let config = dir.path().join("haproxy.cfg");
    let defaults = "defaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n";
    std::fs::write(&config, format!("global\n  maxconn 256\n{defaults}{sections}\n"))?;
    let config = config.display().to_string();
    start(node, "haproxy", &["-db", "-f", &config], dir, listen)
}

fn scratch() -> Result<TempDir> {
    let dir = cleanup::scratch()?;
    // Workers give root up and still have to write there.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    Ok(dir)
}

fn start(node: &Node, program: &str, arguments: &[&str], dir: TempDir, listen: SocketAddr) -> Result<Peer> {
    let path = tools::find(program)
        .with_context(|| format!("{program} is not installed; `cargo xtask setup` installs it"))?;
    let mut command = node.namespace.command(path)?;
    let output = dir.path().join("output");
    quiet(command.args(arguments)).stderr(std::fs::File::create(&output)?);
    let mut process = Process::start(command)?;
    let up = within(Duration::from_secs(10), &format!("{program} listens"), || {
        ensure!(process.ended().is_none(), "it ended");
        Ok(node.namespace.run(|| std::net::TcpStream::connect(listen))?.ok())
    });
    up.with_context(|| std::fs::read_to_string(&output).unwrap_or_default())?;
    Ok(Peer { _process: process, dir })
}
