//! The kernel half's buckets: K2, K15, R6, R12, and the same client on the same worker.

use lab::{
    backend::start_all,
    flood::Flood,
    gateway::simple_config,
    packet::{Frame, Inside, SYN, Sender},
    prelude::*,
};

/// Nothing listens here: what passes costs a reset and no more packets of the same source.
const CLOSED: u16 = 9;

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(turn: lab::lock::Turn, kernel: &str) -> Result<Rig> {
    let net = Net::of(1, 1, 1)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &format!("{}[kernel]\n{kernel}\n", simple_config(&backends)))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn reload(&self, kernel: &str) -> Result<()> {
        self.gateway.write(&format!("{}[kernel]\n{kernel}\n", simple_config(&self.backends)))?;
        self.gateway.cli(&["reload"])?.ok().map(drop)
    }

    fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(self.gateway.metrics()?.packets(reason))
    }

    fn flood(&self, from: impl Into<IpAddr>, rate: u64, seconds: u64) -> Flood {
        let from = from.into();
        let to = if from.is_ipv4() { (IpAddr::from(VIP4), CLOSED) } else { (IpAddr::from(VIP6), CLOSED) };
        let duration = Duration::from_secs(seconds);
        Flood { from, rate, syn: false, ..Flood::new(self.net.attacker(), to, duration) }
    }

    /// Floods, and returns packets passed and how many a bucket of this rate and burst allows.
    fn passed_and_allowed(&self, flood: &Flood, reason: &str, rate: f64, burst: f64) -> Result<(f64, f64)> {
        let before = self.dropped(reason)?;
        let sent = flood.run(self.net.attacker())?;
        let passed = sent.packets - (self.dropped(reason)? - before);
        ensure!(sent.packets as f64 > 1.5 * (burst + rate * sent.seconds), "too few to tell: {sent:?}");
        Ok((passed as f64, burst + rate * sent.seconds))
    }
}

// K2
#[test]
fn a_flood_passes_what_its_packet_bucket_allows_to_one_percent_at_any_rate() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?, "limit = {}")?;
    for (i, (rate, burst, flood)) in
        [(100, 50, 2_000), (2_000, 500, 8_000), (20_000, 40_000, 60_000)].iter().enumerate()
    {
        rig.reload(&format!("limit = {{ packets = {{ rate = \"{rate}/s\", burst = {burst} }} }}"))?;
        let flood = rig.flood(rig.net.attacker().many_v4(i as u16), *flood, 5);
        let (passed, allowed) =
            rig.passed_and_allowed(&flood, "limit_packets", f64::from(*rate), f64::from(*burst))?;
        let ratio = passed / allowed;
        eprintln!("{rate}/s: passed {passed}, allowed {allowed}, ratio {ratio:.4}");
        assert!((0.99..=1.01).contains(&ratio), "{rate}/s: passed {passed}, allowed {allowed}");
    }
    Ok(())
}

// K2
#[test]
fn a_syn_flood_passes_what_its_bucket_of_new_connections_allows() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?, "limit = { new = { rate = \"200/s\", burst = 400 } }")?;
    let flood = Flood { syn: true, udp: false, ..rig.flood(rig.net.attacker().v4(), 4_000, 4) };
    let (passed, allowed) = rig.passed_and_allowed(&flood, "limit_new", 200.0, 400.0)?;
    assert!(passed <= allowed + 1.0 && passed >= 0.98 * allowed, "passed {passed}, allowed {allowed}");
    // UDP and established connections are no new connections.
    let before = rig.dropped("limit_new")?;
    rig.flood(rig.net.attacker().v4(), 4_000, 1).run(rig.net.attacker())?;
    assert_eq!(rig.dropped("limit_new")?, before);
    Ok(())
}

// K2
#[test]
fn one_clients_flood_does_not_touch_anothers_bucket() -> Result<()> {
    lab_test!();
    let rig = rig(
        alone()?,
        "limit = { packets = { rate = \"500/s\", burst = 500 }, new = { rate = \"1/m\", burst = 20 } }",
    )?;
    let flood = Flood { syn: true, ..rig.flood(rig.net.attacker().v4(), 20_000, 3) };
    let running = flood.start(rig.net.attacker())?;
    eventually("it is limited", || Ok(rig.dropped("limit_packets")? > 1000))?;
    let client = rig.net.client(1);
    for i in 0..60 {
        // Twenty connections for each of three addresses: as many as one bucket holds.
        let from = client.many_v4(i / 20).into();
        let answer =
            http::get_from(client, rig.gateway.at4(), from, "/").with_context(|| format!("request {i}"))?;
        assert_eq!(answer.status, 200);
    }
    running.finish()?;
    assert!(!rig.net.client(1).gets_through(rig.gateway.at4(), client.many_v4(0).into())?, "a 21st at once");
    Ok(())
}

// K2, K3
#[test]
fn one_client_on_two_cpus_gets_one_bucket() -> Result<()> {
    lab_test!();
    let (rate, burst) = (10_000.0, 10_000.0);
    let rig = rig(alone()?, "limit = { packets = { rate = \"10k/s\", burst = 10_000 } }")?;
    let (attacker, client) = (rig.net.attacker(), rig.net.client(1));
    let one = Flood { cpu: Some(0), ..rig.flood(attacker.many_v4(1), 30_000, 4) };
    let other = Flood { cpu: Some(1), ..one.clone() };
    let (one, other) = (one.start(attacker)?, other.start(client)?);
    let (one, other) = (one.finish()?, other.finish()?);
    let passed = (one.packets + other.packets - rig.dropped("limit_packets")?) as f64;
    let allowed = burst + rate * one.seconds.max(other.seconds);
    let ratio = passed / allowed;
    assert!((0.97..=1.02).contains(&ratio), "passed {passed}, allowed {allowed}: {ratio}");
    Ok(())
}

// K2
#[test]
fn exempt_sources_are_not_limited() -> Result<()> {
    lab_test!();
    let exempt = "limit = { packets = { rate = \"1/s\", burst = 1 }, exempt = [\"10.102.7.0/24\", \"fd78:0:0:2::/64\"] }";
    let rig = rig(shared()?, exempt)?;
    let attacker = rig.net.attacker();
    let to4 = (VIP4, CLOSED);
    let many = |from: IpAddr, to: IpAddr| vec![Frame::udp(attacker, (from, 1000), (to, CLOSED)).bytes(); 50];
    let sender = Sender::open(attacker)?;
    sender.send_all(&many(attacker.many_v4(0x0701).into(), to4.0.into()))?;
    sender.send_all(&many(attacker.many_v6(1).into(), VIP6.into()))?;
    eventually("100 are exempt", || Ok(rig.dropped("exempt")? == 100))?;
    assert_eq!(rig.dropped("limit_packets")?, 0);
    sender.send_all(&many(attacker.many_v4(0x0801).into(), to4.0.into()))?;
    eventually("49 of 50 are dropped", || Ok(rig.dropped("limit_packets")? >= 48))
}

// R6
#[test]
fn addresses_of_one_64_share_a_bucket_and_another_64_has_its_own() -> Result<()> {
    lab_test!();
    let limit = "limit = { packets = { rate = \"1/s\", burst = 100 }";
    let rig = rig(shared()?, &format!("{limit} }}"))?;
    let attacker = rig.net.attacker();
    let sender = Sender::open(attacker)?;
    let frame = |from: Ipv6Addr| Frame::udp(attacker, (from, 1000), (VIP6, CLOSED)).bytes();
    let of_one: Vec<_> = (0..4096).map(|n| frame(attacker.many_v6(n))).collect();
    let began = Instant::now();
    sender.send_all(&of_one)?;
    let refilled = began.elapsed().as_secs() + 1;
    eventually("all were judged", || Ok(rig.dropped("limit_packets")? + 100 + refilled >= 4096))?;
    assert!(rig.dropped("limit_packets")? <= 4096 - 100);
    let before = rig.dropped("limit_packets")?;
    let neighbour = Ipv6Addr::new(0xfd78, 0, 0, 0x99, 0, 0, 0, 1);
    sender.send_all(&vec![frame(neighbour); 50])?;
    // One more of the first proves that the fifty have been judged.
    sender.send_all(&of_one[..5])?;
    eventually("the first is still over", || Ok(rig.dropped("limit_packets")? > before))?;
    assert!(rig.dropped("limit_packets")? <= before + 5);
    // A /48 is wider: both share one bucket now.
    rig.reload(&format!("{limit}, ipv6_prefix = 48 }}"))?;
    let before = rig.dropped("limit_packets")?;
    sender
        .send_all(&(0..400).map(|n| frame(Ipv6Addr::new(0xfd79, 0, 0, n, 0, 0, 0, 1))).collect::<Vec<_>>())?;
    eventually("300 of 400 are dropped", || Ok(rig.dropped("limit_packets")? >= before + 295))
}

// R12
#[test]
fn eight_workers_share_one_counter() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    let backends = start_all(&net)?;
    let limit = "[gateway]\nworkers = 8\n[kernel]\nlimit = { new = { rate = \"1/h\", burst = 100 } }\n";
    let gateway = Gateway::start(&net, &format!("{}{limit}", simple_config(&backends)))?;
    let client = net.client(1);
    let mut served = 0;
    while served < 200 && client.gets_through(gateway.at4(), client.v4().into())? {
        served += 1;
    }
    assert!((99..=101).contains(&served), "{served} of 100");
    Ok(())
}

// K15
#[test]
fn every_packet_has_one_reason_and_the_reasons_add_up_to_all_packets() -> Result<()> {
    lab_test!();
    let rig = rig(
        shared()?,
        "limit = { packets = { rate = \"10/s\", burst = 10 } }\nblock = { cidrs = [\"10.102.9.0/24\"] }",
    )?;
    let attacker = rig.net.attacker();
    let counted = || -> Result<u64> {
        Ok(rig.gateway.metrics()?.sum("kernel_packets_total", &[("interface", "atk")]) as u64)
    };
    let received = || -> Result<u64> {
        rig.net.link("atk")?["stats64"]["rx"]["packets"].as_u64().context("no rx counter")
    };
    let (counted_before, received_before) = (counted()?, received()?);
    let mut frames = Vec::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        // xorshift64: the same frames in every run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for i in 0..2000u16 {
        let udp = Frame::udp(attacker, (attacker.many_v4(i), 1), (VIP4, CLOSED)).bytes();
        frames.push(udp.clone());
        let mut broken = udp;
        for _ in 0..4 {
            let at = 12 + (random() % 40) as usize;
            broken[at] = random() as u8;
        }
        broken.truncate(14 + (random() % 46) as usize);
        frames.push(broken);
    }
    Sender::open(attacker)?.send_all(&frames)?;
    let expected = received()? - received_before;
    ensure!(expected >= 4000, "{expected} received");
    eventually("the reasons add up", || Ok(counted()? - counted_before == received()? - received_before))?;
    let by_reason = rig.gateway.metrics()?.by("kernel_packets_total", "reason", &[("interface", "atk")]);
    eprintln!("{by_reason:?}");
    assert!(by_reason.values().filter(|n| **n > 0.0).count() >= 4, "{by_reason:?}");
    let bytes = rig.gateway.metrics()?.sum("kernel_bytes_total", &[("interface", "atk")]);
    assert!(bytes > 14.0 * 4000.0);
    assert_eq!(http::get(rig.net.client(1), rig.gateway.at4(), "/")?.status, 200);
    Ok(())
}

// K2
#[test]
fn the_busiest_limited_sources_are_shown() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?, "limit = { packets = { rate = \"100/s\", burst = 100 } }")?;
    let from = rig.net.attacker().v4();
    rig.flood(from, 5_000, 1).run(rig.net.attacker())?;
    for command in [["kernel", "sources"], ["limit", "top"]] {
        let shown = rig.gateway.cli(&command)?.ok()?;
        assert!(shown.stdout.contains(&from.to_string()), "{command:?}: {}", shown.stdout);
    }
    Ok(())
}

/// The upstream connection that a GET on a new connection from this address ends up on. Each worker has its own pool,
/// so the same connection means the same worker.
fn worker(rig: &Rig, from: IpAddr) -> Result<String> {
    let to = if from.is_ipv4() { rig.gateway.at4() } else { rig.gateway.at6() };
    let answer = http::get_from(rig.net.client(1), to, from, "/")?;
    Ok(answer.header("x-connection").context("no x-connection")?.to_owned())
}

#[test]
fn the_same_client_always_reaches_the_same_worker_and_all_workers_get_clients() -> Result<()> {
    lab_test!();
    let rig = {
        let net = Net::of(1, 1, 1)?;
        let backends = start_all(&net)?;
        let config = format!("{}[gateway]\nworkers = 4\n", simple_config(&backends));
        let gateway = Gateway::start(&net, &config)?;
        Rig { gateway, backends, net, _turn: shared()? }
    };
    let client = rig.net.client(1);
    let mut homes = BTreeMap::new();
    for round in 0..4 {
        for i in 0..48 {
            for from in [IpAddr::from(client.many_v4(i)), IpAddr::from(client.many_v6(u64::from(i) << 32))] {
                let home = worker(&rig, from)?;
                let before = homes.insert(from, home.clone());
                assert!(before.as_ref().is_none_or(|before| *before == home), "round {round}: {from} moved");
            }
        }
    }
    let workers: BTreeSet<&String> = homes.values().collect();
    assert_eq!(workers.len(), 4);
    assert_eq!(rig.backends[0].stats()?.connections, 4);
    Ok(())
}

#[test]
fn a_syn_to_a_closed_port_is_refused_as_without_a_gateway() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?, "limit = {}")?;
    let client = rig.net.client(1);
    let refused = client.connect((VIP4, CLOSED).into(), None);
    assert_eq!(refused.err().map(|error| error.kind()), Some(std::io::ErrorKind::ConnectionRefused));
    let odd = Frame::new(client, (client.v4(), 5), (VIP4, 80), Inside::tcp(SYN | 0x01));
    Sender::open(client)?.send(&odd)?;
    eventually("SYN with FIN is dropped", || Ok(rig.dropped("bad_tcp_flags")? == 1))
}
