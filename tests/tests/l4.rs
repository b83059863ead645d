//! L4 services through the kernel: real connections by every way of forwarding.

use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use lab::{backend::start_all, prelude::*, process::Process};

/// A virtual address that is nobody's own.
const SERVICE4: &str = "10.98.0.5";
const SERVICE6: &str = "fd98::5";
const PORT: u16 = 8080;

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    decaps: Vec<Process>,
    net: Net,
    _turn: lab::lock::Turn,
}

/// `to` is filled in with the backends; `more` goes into the service's table.
fn rig(backends: usize, forward: &str, more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(backends)?;
    net.for_forwarding()?;
    let (mut running, mut decaps) = (start_all(&net)?, Vec::new());
    if forward != "nat" {
        // Replies of targets have no other way here than through the gateway's stack.
        net.gateway.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for n in 1..=backends {
            let node = net.backend(n);
            lab::net::ip_batch(
                Some(&node.namespace),
                &format!("addr add {SERVICE4}/32 dev lo\naddr add {SERVICE6}/128 dev lo nodad\n"),
                false,
            )?;
            let at = (at(SERVICE4), at(SERVICE6));
            running.push(Backend::start_at(node, &node.role, at, None)?);
            if forward != "dsr" {
                decaps.push(decap(node)?);
            }
        }
    }
    let list = |v6: bool| {
        let addrs = running.iter().take(backends).map(|b| if v6 { b.addr6 } else { b.addr });
        addrs.map(|addr| format!("\"{addr}\"")).collect::<Vec<_>>().join(", ")
    };
    let config = format!(
        "[kernel]\ninterfaces = {}\n[service.web]\nbind = \"{SERVICE4}:{PORT}\"\nto = [{}]\nforward = \"{forward}\"\n{more}\n\
         [service.web6]\nbind = \"[{SERVICE6}]:{PORT}\"\nto = [{}]\nforward = \"{forward}\"\n{more}\n",
        net.all_interfaces(),
        list(false),
        list(true),
    );
    let gateway = Gateway::start(&net, &config)?;
    Ok(Rig { gateway, backends: running, decaps, net, _turn: turn })
}

/// `gateway decap` on a target, ready.
fn decap(node: &Node) -> Result<Process> {
    let mut command = node.namespace.command(lab::tools::gateway()?)?;
    command.args(["decap", Node::INTERFACE, "--from", "10.77.0.0/16", "--from", "fd77::/16"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(command)?;
    let mut said = String::new();
    BufReader::new(process.child.stdout.take().context("no stdout")?).read_line(&mut said)?;
    ensure!(said.contains("native"), "{said}");
    Ok(process)
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), PORT)
}

impl Rig {
    fn ask(&self, service: &str) -> Result<Response> {
        Client::connect(self.net.client(1), at(service))?.get("/")
    }

    fn packets(&self, reason: &str) -> Result<u64> {
        Ok(self.gateway.metrics()?.packets(reason))
    }
}

#[test]
fn nat_takes_connections_to_targets_and_back() -> Result<()> {
    lab_test!();
    let rig = rig(2, "nat", "")?;
    for service in [SERVICE4, SERVICE6] {
        let mut by: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..40 {
            *by.entry(rig.ask(service)?.backend().to_owned()).or_default() += 1;
        }
        assert_eq!(by.len(), 2, "{service}: {by:?}");
    }
    assert!(rig.packets("service")? > 100 && rig.packets("reply")? > 100);
    let peers = rig.backends[0].stats()?.peers;
    assert!(peers.iter().all(|peer| peer.ip() != IpAddr::from(rig.net.client(1).v4())), "{peers:?}");
    Ok(())
}

#[test]
fn other_ways_of_forwarding_leave_the_clients_address_and_the_reply_to_the_target() -> Result<()> {
    lab_test!();
    for forward in ["ipip", "gue", "dsr"] {
        let rig = rig(2, forward, "")?;
        for (service, client) in
            [(SERVICE4, IpAddr::from(rig.net.client(1).v4())), (SERVICE6, rig.net.client(1).v6().into())]
        {
            let mut by: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..40 {
                let answer = rig.ask(service).with_context(|| format!("{forward} {service}"))?;
                *by.entry(answer.backend().to_owned()).or_default() += 1;
            }
            assert_eq!(by.len(), 2, "{forward} {service}: {by:?}");
            let mut peers = rig.backends[2].stats()?.peers;
            peers.extend(rig.backends[3].stats()?.peers);
            assert!(peers.iter().any(|peer| peer.ip() == client), "{forward}: {peers:?}");
        }
        assert!(rig.packets("service")? > 200);
        assert_eq!(rig.packets("reply")?, 0);
        assert_eq!(rig.decaps.len(), if forward == "dsr" { 0 } else { 2 });
    }
    Ok(())
}
