//! The real nginx, as a backend.

use std::{net::TcpStream, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    cleanup,
    net::Node,
    process::{Process, quiet},
    tools,
    wait::within,
};

/// A running nginx and its folder.
#[derive(Debug)]
pub struct Nginx {
    pub process: Process,
    dir: TempDir,
}

impl Nginx {
    /// A folder for what the config refers to; nothing runs yet.
    pub fn prepare() -> Result<TempDir> {
        let dir = cleanup::scratch()?;
        // The worker gives root up and still has to write its log.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))?;
        Ok(dir)
    }

    /// Runs with these directives inside `http { … }` until it listens on `port` of the node.
    pub fn start(node: &Node, dir: TempDir, port: u16, http: &str) -> Result<Nginx> {
        let config = format!(
            "worker_processes 1; pid nginx.pid; error_log error.log info;\n\
             events {{ worker_connections 2000; }}\nhttp {{ access_log access.log; {http} }}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), config)?;
        let program =
            tools::find("nginx").context("nginx is not installed; `cargo xtask setup` installs it")?;
        let mut command = node.namespace.command(program)?;
        quiet(&mut command).arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-g", "daemon off;"]);
        command.current_dir(dir.path()).stderr(std::fs::File::create(dir.path().join("output"))?);
        let mut process = Process::start(command)?;
        let at = node.at(port);
        let up = within(Duration::from_secs(10), "nginx listens", || {
            ensure!(process.ended().is_none(), "it ended");
            Ok(node.namespace.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(1)))?.ok())
        });
        up.with_context(|| std::fs::read_to_string(dir.path().join("output")).unwrap_or_default())?;
        Ok(Nginx { process, dir })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
