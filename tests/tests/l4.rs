//! L4 services through the kernel: real connections by every way of forwarding.

use std::net::{IpAddr, SocketAddr};

use lab::{backend::start_all, prelude::*};

/// A virtual address that is nobody's own.
const SERVICE4: &str = "10.98.0.5";
const SERVICE6: &str = "fd98::5";
const PORT: u16 = 8080;

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

/// `to` is filled in with the backends; `more` goes into the service's table.
fn rig(backends: usize, forward: &str, more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(backends)?;
    net.for_forwarding()?;
    let mut running = start_all(&net)?;
    if forward != "nat" {
        for n in 1..=backends {
            let node = net.backend(n);
            lab::net::ip_batch(
                Some(&node.namespace),
                &format!("addr add {SERVICE4}/32 dev lo\naddr add {SERVICE6}/128 dev lo nodad\n"),
                false,
            )?;
            let at = (at(SERVICE4), at(SERVICE6));
            running.push(Backend::start_at(node, &node.role, at, None)?);
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
    Ok(Rig { gateway, backends: running, net, _turn: turn })
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
