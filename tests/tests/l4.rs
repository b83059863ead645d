//! L4 services through the kernel: real connections by every way of forwarding.

use lab::{
    backend::PORT,
    l4::{OWN_PORT, Rig, Service, Setup, at, at4, at6},
    net::ip_batch,
    packet::{Frame, Sender},
    ping,
    prelude::*,
    transfer::{noise, sha256, there_and_back},
};

fn ask(rig: &Rig, service: SocketAddr) -> Result<Response> {
    Client::connect(rig.net.client(1), service)?.get("/")
}

#[test]
fn nat_takes_connections_to_targets_and_back() -> Result<()> {
    lab_test!();
    let rig = Rig::new(shared()?, Setup::new("nat", 2))?;
    for service in [at4(PORT), at6(PORT)] {
        let mut by: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..40 {
            *by.entry(ask(&rig, service)?.backend().to_owned()).or_default() += 1;
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
        let rig = Rig::new(shared()?, Setup::new(forward, 2))?;
        let client = rig.net.client(1);
        for (v6, source) in [(false, IpAddr::from(client.v4())), (true, client.v6().into())] {
            let mut by: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..40 {
                let answer = ask(&rig, at(PORT, v6)).with_context(|| format!("{forward} {source}"))?;
                *by.entry(answer.backend().to_owned()).or_default() += 1;
            }
            assert_eq!(by.len(), 2, "{forward} {source}: {by:?}");
            let mut peers = rig.virtuals[0].stats()?.peers;
            peers.extend(rig.virtuals[1].stats()?.peers);
            assert!(peers.iter().any(|peer| peer.ip() == source), "{forward}: {peers:?}");
        }
        assert!(rig.packets("service")? > 200);
        assert_eq!(rig.packets("reply")?, 0);
    }
    Ok(())
}

#[test]
fn a_virtual_address_answers_pings_of_both_families() -> Result<()> {
    lab_test!();
    let rig = Rig::new(shared()?, Setup::new("nat", 1))?;
    let client = rig.net.client(1);
    for address in [at4(PORT).ip(), at6(PORT).ip()] {
        for bytes in [0, 56, 1400] {
            assert!(ping::answered(client, address, bytes)?, "{address}, {bytes} bytes");
        }
    }
    assert_eq!(rig.packets("echo")?, 6);
    assert!(!ping::answered(client, Ipv4Addr::new(10, 98, 0, 6).into(), 56)?, "nobody's address");
    Ok(())
}

/// A link between the client and backend 1 that is not the gateway's, and the backend's way to the client over it.
fn link_directly(net: &Net) -> Result<()> {
    let (client, backend) = (net.client(1), net.backend(1));
    let names = (client.namespace.name(), backend.namespace.name());
    ip_batch(
        None,
        &format!(
            "link add direct address 02:77:00:01:00:01 netns {} type veth peer name direct address 02:77:00:01:00:02 netns {}\n",
            names.0, names.1
        ),
        false,
    )?;
    ip_batch(Some(&client.namespace), "link set direct up\n", false)?;
    let (v4, v6) = (client.v4(), client.v6());
    let batch = format!(
        "link set direct up\nroute add {v4}/32 dev direct\nroute add {v6}/128 dev direct\n\
         neigh add {v4} lladdr 02:77:00:01:00:01 dev direct nud permanent\n\
         neigh add {v6} lladdr 02:77:00:01:00:01 dev direct nud permanent\n"
    );
    ip_batch(Some(&backend.namespace), &batch, false)
}

#[test]
fn replies_of_targets_that_answer_directly_do_not_cross_the_gateway() -> Result<()> {
    lab_test!();
    for forward in ["dsr", "ipip", "gue"] {
        let rig = Rig::new(shared()?, Setup::new(forward, 1))?;
        link_directly(&rig.net)?;
        let crossed = || rig.net.link("b1")?["stats64"]["rx"]["packets"].as_u64().context("no rx counter");
        let before = crossed()?;
        for v6 in [false, true] {
            let answer = Client::connect(rig.net.client(1), at(PORT, v6))?.get("/big?bytes=3000000")?;
            assert_eq!(answer.body.len(), 3_000_000, "{forward}, IPv6: {v6}");
        }
        let crossed = crossed()? - before;
        assert!(rig.packets("service")? > 100, "{forward}: requests and acknowledgements did");
        // Neighbour discovery and the like.
        assert!(crossed < 20, "{forward}: {crossed} packets of 4000 came from the target");
    }
    Ok(())
}

/// What a service's targets were sent, as `service show` and the metrics have it: packets, connections.
fn counted(rig: &Rig, service: &str) -> Result<(u64, u64)> {
    let shown = rig.show(service)?;
    let targets = shown["targets"].as_array().context("no targets")?;
    let sum = |key: &str| targets.iter().filter_map(|target| target[key].as_u64()).sum::<u64>();
    let metrics = rig.gateway.metrics()?;
    for target in targets {
        let labels = [("service", service), ("target", target["addr"].as_str().unwrap_or(""))];
        let exported = metrics.sum("kernel_service_packets_total", &labels) as u64;
        assert_eq!(Some(exported), target["packets"].as_u64(), "{target}");
        assert!(target["bytes"].as_u64() >= target["packets"].as_u64().map(|n| n * 60), "{target}");
    }
    Ok((sum("packets"), sum("connections")))
}

#[test]
fn counters_of_services_and_targets_are_what_was_sent() -> Result<()> {
    lab_test!();
    for forward in ["nat", "gue"] {
        let mut setup = Setup::new(forward, 2);
        setup.services.push(Service::own("dgram", "udp"));
        let rig = Rig::new(shared()?, setup)?;
        let client = rig.net.client(1);
        let sender = Sender::open(client)?;
        for v6 in [false, true] {
            let service = if v6 { "dgram6" } else { "dgram" };
            // 300 datagrams from 30 ports.
            for round in 0..10 {
                let frame = |port: u16| match v6 {
                    false => Frame::udp(client, (client.v4(), port), at4(OWN_PORT)).bytes(),
                    true => Frame::udp(client, (client.v6(), port), at6(OWN_PORT)).bytes(),
                };
                sender.send_all(&(5000..5030).map(frame).collect::<Vec<_>>())?;
                let sent = 30 * (round + 1);
                eventually("all are counted", || Ok(counted(&rig, service)? == (sent, 30)))?;
            }
            let name = service.replace("dgram", "web");
            assert_eq!(counted(&rig, &name)?, (0, 0), "another service's");
        }
        assert_eq!(rig.packets("service")?, 600, "{forward}");
        ask(&rig, at4(PORT))?;
        assert_eq!(counted(&rig, "web")?.1, 1);
    }
    Ok(())
}

#[test]
fn what_is_banned_blocked_or_over_a_limit_reaches_no_target() -> Result<()> {
    lab_test!();
    let mut setup = Setup::new("nat", 1);
    setup.services = vec![
        Service::web().with("limit = { new = { rate = \"1/h\", burst = 3 } }"),
        Service::own("dgram", "udp").with("limit = { packets = { rate = \"1/h\", burst = 5 } }"),
    ];
    setup.more = "block = { cidrs = [\"10.101.9.0/24\"] }\n".into();
    let rig = Rig::new(shared()?, setup)?;
    let client = rig.net.client(1);
    let through = |n: u16| client.gets_through(at4(PORT), client.many_v4(n).into());
    assert!(through(1)?);
    assert!(!through(9 << 8 | 1)?, "blocked");
    rig.gateway.cli(&["ban", "add", &client.many_v4(1).to_string()])?.ok()?;
    assert!(!through(1)?, "banned");
    assert!(through(2)? && through(2)? && through(2)? && !through(2)?, "three connections an hour");
    assert!(through(3)?, "each source has its own");
    // A connection is there for its client before the target's process has taken it.
    let reached = || rig.backends[0].stats().map(|stats| stats.peers.len());
    eventually("the target has those that were let through", || Ok(reached()? >= 5))?;
    let sender = Sender::open(client)?;
    let frame = Frame::udp(client, (client.many_v4(4), 5000), at4(OWN_PORT)).bytes();
    sender.send_all(&vec![frame; 20])?;
    eventually("twenty were judged", || Ok(rig.packets("limit_packets")? == 15))?;
    assert_eq!(counted(&rig, "dgram")?, (5, 1));
    assert_eq!(reached()?, 5);
    assert!(rig.packets("blocked")? > 0 && rig.packets("banned")? > 0 && rig.packets("limit_new")? > 0);
    Ok(())
}

/// The client is told that the way to the target behind the gateway is narrow.
#[test]
fn the_path_mtu_of_a_narrow_link_behind_the_gateway_is_found() -> Result<()> {
    lab_test!();
    let rig =
        Rig::new(shared()?, Setup { services: vec![Service::own("bulk", "tcp")], ..Setup::new("nat", 1) })?;
    rig.net.gateway.output("ip", &["link", "set", "b1", "mtu", "1300"])?;
    // The target keeps to it, but offers segments that do not fit, as one would that knows nothing of the link.
    let narrow = "route add 10.77.2.1/32 dev eth0 mtu 1300 advmss 1460\n\
                  route add fd77:0:0:2::1/128 dev eth0 mtu 1300 advmss 1440\n";
    ip_batch(Some(&rig.net.backend(1).namespace), narrow, false)?;
    // Next hops are remembered for 250 ms.
    std::thread::sleep(Duration::from_millis(300));
    let file = rig.gateway.file("noise");
    noise(&file, 5_000_000)?;
    let sent = sha256(std::fs::File::open(&file)?)?;
    for v6 in [false, true] {
        let told = rig.packets("too_big")?;
        let (client, server) = (rig.net.client(1), rig.net.backend(1));
        let listen = rig.listen_at(1, OWN_PORT, v6);
        let came = there_and_back(client, at(OWN_PORT, v6), server, listen, &file)?;
        assert_eq!(came.up, sent, "IPv6: {v6}");
        assert!(rig.packets("too_big")? > told, "IPv6: {v6}");
    }
    let route = rig.net.client(1).namespace.output("ip", &["route", "get", &at4(0).ip().to_string()])?;
    assert!(route.contains("mtu 1300"), "{route}");
    Ok(())
}

/// The lab's range of local ports begins at 1024.
#[test]
fn nat_and_the_host_itself_use_different_ports_to_the_same_targets() -> Result<()> {
    lab_test!();
    let mut rig = Rig::new(shared()?, Setup::new("nat", 1))?;
    let reserved = |net: &Net| {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
        net.gateway.run(read)?.context("no such setting")
    };
    assert_eq!(reserved(&rig.net)?.trim(), "1024-32767");
    // As a health check, or an upstream with the same target, connects.
    for _ in 0..200 {
        let to = rig.backends[0].addr;
        let port = rig.net.gateway.run(|| std::net::TcpStream::connect(to)?.local_addr())??.port();
        assert!(port > 32_767, "{port}");
    }
    ask(&rig, at4(PORT))?;
    assert!(rig.backends[0].stats()?.peers.last().is_some_and(|peer| peer.port() < 32_768));
    rig.gateway.stop()?;
    assert_eq!(reserved(&rig.net)?.trim(), "");
    Ok(())
}
