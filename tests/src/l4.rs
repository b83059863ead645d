//! L4 services in the lab: backends as targets by any way of forwarding, and real packets to them.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    backend::{self, Backend},
    flood::{Bare, attach_bare},
    gateway::Gateway,
    lock::Turn,
    net::{Net, Node, ip_batch},
    process::Process,
    tools,
};

/// Virtual addresses that are nobody's own.
pub const VIRTUAL4: &str = "10.98.0.5";
pub const VIRTUAL6: &str = "fd98::5";

/// A service, made twice: on [`VIRTUAL4`] as `name`, and on [`VIRTUAL6`] as `name6`.
#[derive(Debug, Clone)]
pub struct Service {
    pub name: &'static str,
    pub protocol: &'static str,
    pub port: u16,
    /// More of its table.
    pub more: String,
}

impl Service {
    /// The lab's backends.
    pub fn web() -> Service {
        Service { name: "web", protocol: "tcp", port: backend::PORT, more: String::new() }
    }

    /// What a test binds itself.
    pub fn own(name: &'static str, protocol: &'static str) -> Service {
        Service { name, protocol, port: OWN_PORT, more: String::new() }
    }

    pub fn with(self, more: impl Into<String>) -> Service {
        Service { more: more.into(), ..self }
    }
}

/// Of [`Service::own`].
pub const OWN_PORT: u16 = 9000;

/// What to set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub forward: &'static str,
    pub backends: usize,
    /// This many of them are targets at the start.
    pub targets: usize,
    pub services: Vec<Service>,
    /// More of the config: whole tables; `[kernel]` comes first.
    pub more: String,
}

impl Setup {
    pub fn new(forward: &'static str, backends: usize) -> Setup {
        let services = vec![Service::web()];
        Setup { forward, backends, targets: backends, services, more: String::new() }
    }
}

/// A gateway with services, and their targets.
#[derive(Debug)]
pub struct Rig {
    pub gateway: Gateway,
    /// At the nodes' own addresses.
    pub backends: Vec<Backend>,
    /// At the virtual addresses; none with nat.
    pub virtuals: Vec<Backend>,
    _programs: Vec<Process>,
    setup: Setup,
    pub net: Net,
    _turn: Turn,
}

impl Rig {
    pub fn new(turn: Turn, setup: Setup) -> Result<Rig> {
        let net = Net::simple(setup.backends)?;
        net.for_forwarding()?;
        let backends = backend::start_all(&net)?;
        let mut virtuals = Vec::new();
        // A veth hands on all that a program answers only to an end with a program of its own.
        let mut programs = vec![attach_bare(&net.client(1).namespace, Node::INTERFACE, Bare::Pass)?];
        if setup.forward != "nat" {
            // Replies of targets have no other way here than through the gateway's stack.
            net.gateway.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
            for n in 1..=setup.backends {
                let node = net.backend(n);
                own_virtuals(node)?;
                virtuals.push(Backend::start_at(
                    node,
                    &node.role,
                    (at4(backend::PORT), at6(backend::PORT)),
                    None,
                )?);
                if setup.forward != "dsr" {
                    programs.push(decap(node)?);
                }
            }
        }
        let gateway = Gateway::start(&net, &config(&net, &setup, setup.targets))?;
        Ok(Rig { gateway, backends, virtuals, _programs: programs, setup, net, _turn: turn })
    }

    /// Reloads with so many targets.
    pub fn reload(&self, targets: usize) -> Result<()> {
        self.gateway.write(&config(&self.net, &self.setup, targets))?;
        self.gateway.cli(&["reload"])?.ok().map(drop)
    }

    pub fn packets(&self, reason: &str) -> Result<u64> {
        Ok(self.gateway.metrics()?.packets(reason))
    }

    /// `gateway service show NAME -o json`.
    pub fn show(&self, service: &str) -> Result<Value> {
        self.gateway.cli(&["service", "show", service, "-o", "json"])?.ok()?.json()
    }

    /// Where a process on backend node `n` has to listen to be the target of a service.
    pub fn listen_at(&self, n: usize, port: u16, v6: bool) -> SocketAddr {
        let node = self.net.backend(n);
        match (self.setup.forward, v6) {
            ("nat", false) => (node.v4(), port).into(),
            ("nat", true) => (node.v6(), port).into(),
            _ => at(port, v6),
        }
    }

    /// Ends what answers on backend node `n`, without a word.
    pub fn kill(&mut self, n: usize) {
        let all = self.backends.iter_mut().chain(&mut self.virtuals);
        all.filter(|backend| backend.name == format!("b{n}")).for_each(Backend::kill);
    }
}

fn config(net: &Net, setup: &Setup, targets: usize) -> String {
    let mut text = format!("[kernel]\ninterfaces = {}\n{}\n", net.all_interfaces(), setup.more);
    for service in &setup.services {
        for v6 in [false, true] {
            let Service { name, protocol, port, more } = service;
            let target = |n| match v6 {
                false => SocketAddr::from((net.backend(n).v4(), *port)),
                true => SocketAddr::from((net.backend(n).v6(), *port)),
            };
            let to: Vec<String> = (1..=targets).map(|n| format!("\"{}\"", target(n))).collect();
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "[service.{name}{}]\nbind = \"{}\"\nprotocol = \"{protocol}\"\nto = [{}]\nforward = \"{}\"\n{more}\n",
                if v6 { "6" } else { "" },
                at(*port, v6),
                to.join(", "),
                setup.forward,
            );
        }
    }
    text
}

/// Gives a node the virtual addresses, as targets of all but nat have them.
fn own_virtuals(node: &Node) -> Result<()> {
    let batch = format!("addr add {VIRTUAL4}/32 dev lo\naddr add {VIRTUAL6}/128 dev lo nodad\n");
    ip_batch(Some(&node.namespace), &batch, false)
}

/// `gateway decap` on a target, ready.
fn decap(node: &Node) -> Result<Process> {
    let mut command = node.namespace.command(tools::gateway()?)?;
    command.args(["decap", Node::INTERFACE, "--from", "10.77.0.0/16", "--from", "fd77::/16"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(command)?;
    let mut said = String::new();
    BufReader::new(process.child.stdout.take().context("no stdout")?).read_line(&mut said)?;
    ensure!(said.contains("native"), "{said}");
    Ok(process)
}

pub fn at4(port: u16) -> SocketAddr {
    at(port, false)
}

pub fn at6(port: u16) -> SocketAddr {
    at(port, true)
}

/// A virtual address's port.
pub fn at(port: u16, v6: bool) -> SocketAddr {
    let address = if v6 { VIRTUAL6 } else { VIRTUAL4 };
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}
