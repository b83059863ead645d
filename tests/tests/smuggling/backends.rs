//! Servers that others wrote, each telling which requests it saw.

use std::{path::PathBuf, process::Stdio};

use lab::{
    prelude::*,
    process::{Lines, Process},
    tools,
};

const PORT: u16 = 8080;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Node,
    Python,
}

impl Kind {
    /// The program it needs, and how to get it.
    fn program(self) -> &'static str {
        match self {
            Kind::Nginx => "nginx",
            Kind::Node => "node",
            Kind::Python => "python3",
        }
    }

    pub fn missing(self) -> Option<String> {
        let program = self.program();
        tools::missing(program)
            .then(|| format!("`{program}` is not installed; `cargo xtask setup` installs it"))
    }
}

/// A request that a server saw to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
}

/// What a server saw.
#[derive(Debug, Default)]
pub struct Account {
    pub seen: Vec<Seen>,
    /// What it took for no request at all.
    pub bad: Vec<String>,
}

pub struct Server {
    pub addr: SocketAddr,
    kind: Kind,
    lines: Lines,
    dir: tempfile::TempDir,
    _process: Process,
}

impl Server {
    pub fn start(kind: Kind, node: &Node) -> Result<Server> {
        let dir = lab::cleanup::scratch()?;
        let addr = node.at(PORT);
        let place = dir.path().display().to_string();
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = dir.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        let mut command = node.namespace.command(tools::find(kind.program()).context("not installed")?)?;
        match kind {
            Kind::Nginx => {
                let conf = include_str!("servers/nginx.conf");
                let conf = conf.replace("DIR", &place).replace("ADDRESS", &addr.to_string());
                command.args(["-p", &place, "-g", "daemon off;", "-c"]).arg(file("nginx.conf", &conf)?);
            }
            Kind::Node => {
                command.arg(file("server.js", include_str!("servers/node.js"))?);
            }
            Kind::Python => {
                command.arg(file("server.py", include_str!("servers/python.py"))?);
            }
        }
        if kind != Kind::Nginx {
            command.args([addr.ip().to_string(), addr.port().to_string()]);
        }
        let mut process = Process::start({
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            command
        })?;
        let lines = process.child.stdout.take().map(Lines::collect).unwrap_or_default();
        eventually("the server listens", || Ok(node.connect(addr, None).is_ok()))?;
        Ok(Server { addr, kind, lines, dir, _process: process })
    }

    pub fn account(&self) -> Account {
        let mut account = Account::default();
        let lines = match self.kind {
            Kind::Nginx => {
                let log = std::fs::read(self.dir.path().join("access.log")).unwrap_or_default();
                String::from_utf8_lossy(&log).lines().map(str::to_owned).collect()
            }
            Kind::Node | Kind::Python => self.lines.all(),
        };
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            match (self.kind, words.as_slice()) {
                (_, ["BAD", ..]) => account.bad.push(line.clone()),
                (Kind::Nginx, [method, path, _, "200"]) | (Kind::Node | Kind::Python, [method, path, _]) => {
                    account.seen.push(Seen { method: (*method).to_owned(), path: (*path).to_owned() });
                }
                // Given up by the gateway before its end.
                (Kind::Nginx, [_, path, _, "400" | "408" | "499"]) if path.starts_with("/p/") => {}
                (_, ["READY"]) => {}
                _ => account.bad.push(line.clone()),
            }
        }
        account
    }
}
