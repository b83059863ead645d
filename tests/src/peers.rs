//! Real programs beside the gateway: nginx and HAProxy as proxies in front of it and as servers behind it, and whatever a
//! bench compares it with.

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    cleanup,
    net::{Namespace, Node},
    process::{Process, quiet},
    sys::ChildSetup,
    tools,
    wait::within,
};

/// A running one; its files are gone with it.
#[derive(Debug)]
pub struct Peer {
    pub process: Process,
    dir: TempDir,
}

impl Peer {
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("access.log")).unwrap_or_default()
    }
}

/// An nginx with these servers; `listen` is one of their addresses, waited for.
pub fn nginx(node: &Node, listen: SocketAddr, servers: &str) -> Result<Peer> {
    nginx_in(node, folder()?, listen, &format!("access_log off; {servers}"))
}

/// An nginx with these directives inside `http { … }`, whose files are in `dir`, a [`folder`].
pub fn nginx_in(node: &Node, dir: TempDir, listen: SocketAddr, http: &str) -> Result<Peer> {
    let config = format!(
        "worker_processes 1; pid nginx.pid; error_log error.log info;\n\
         events {{ worker_connections 2000; }}\nhttp {{ {http} }}\n"
    );
    std::fs::write(dir.path().join("nginx.conf"), config)?;
    let path = dir.path().display().to_string();
    let arguments = ["-p", &path, "-c", "nginx.conf", "-g", "daemon off;"];
    run(&node.namespace, "nginx", &arguments, dir, listen, None)
}

/// An HAProxy with these sections; `listen` is one of their addresses, waited for.
pub fn haproxy(node: &Node, listen: SocketAddr, sections: &str) -> Result<Peer> {
    let dir = folder()?;
    let config = dir.path().join("haproxy.cfg");
    let defaults = "defaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n";
    std::fs::write(&config, format!("global\n  maxconn 256\n{defaults}{sections}\n"))?;
    let config = config.display().to_string();
    run(&node.namespace, "haproxy", &["-db", "-f", &config], dir, listen, None)
}

/// For a program's files.
pub fn folder() -> Result<TempDir> {
    let dir = cleanup::scratch()?;
    // Workers give root up and still have to write there.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))?;
    Ok(dir)
}

/// Runs a program in `dir`, which is gone with it, and waits until it listens.
pub fn run(
    namespace: &Namespace,
    program: &str,
    arguments: &[&str],
    dir: TempDir,
    listen: SocketAddr,
    cpu: Option<usize>,
) -> Result<Peer> {
    let path = tools::find(program)
        .with_context(|| format!("{program} is not installed; `cargo xtask setup` installs it"))?;
    let mut command = namespace.command(path)?;
    let output = std::fs::File::create(dir.path().join("output"))?;
    quiet(&mut command).args(arguments).current_dir(dir.path()).on_cpu(cpu).stderr(output);
    let mut process = Process::start(command)?;
    let up = within(Duration::from_secs(10), &format!("{program} listens"), || {
        ensure!(process.ended().is_none(), "it ended");
        Ok(namespace.run(|| TcpStream::connect_timeout(&listen, Duration::from_secs(1)))?.ok())
    });
    up.with_context(|| said(dir.path()))?;
    Ok(Peer { process, dir })
}

fn said(dir: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    format!("{}{}", read("output"), read("error.log"))
}
