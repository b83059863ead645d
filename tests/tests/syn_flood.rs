//! SYN floods from spoofed sources, and clients that are there: K13.

use std::io::{Read as _, Write as _};

use lab::{
    backend::start_all,
    flood::{Bare, Flood, attach_bare},
    prelude::*,
};

const SERVICE4: &str = "10.98.0.5";
const SERVICE6: &str = "fd98::5";
const SERVICE_PORT: u16 = 8080;
/// Connections of each family that are tried in a flood.
const TRIES: usize = 100;

struct Rig {
    gateway: Gateway,
    net: Net,
    _backends: Vec<Backend>,
    /// What a veth does not hand on to its stack at once unless it has a program: frames that were answered (XDP_TX).
    _receiver: lab::process::Process,
    _turn: lab::lock::Turn,
}

/// A proxy on port 80 and two L4 services, with cookies above so many SYNs a second.
fn rig(above: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    net.for_forwarding()?;
    let backends = start_all(&net)?;
    let config = format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = [\"{to}\"]\n\
         [kernel]\ninterfaces = {}\nsyn_cookies = {{ above = \"{above}\" }}\n\
         [service.web]\nbind = \"{SERVICE4}:{SERVICE_PORT}\"\nto = [\"{to}\"]\nforward = \"nat\"\n\
         [service.web6]\nbind = \"[{SERVICE6}]:{SERVICE_PORT}\"\nto = [\"{}\"]\nforward = \"nat\"\n",
        net.all_interfaces(),
        backends[0].addr6,
        to = backends[0].addr,
    );
    let gateway = Gateway::start(&net, &config)?;
    let receiver = attach_bare(&net.client(1).namespace, Node::INTERFACE, Bare::Pass)?;
    Ok(Rig { gateway, net, _backends: backends, _receiver: receiver, _turn: turn })
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), SERVICE_PORT)
}

impl Rig {
    /// SYNs from ever new sources.
    fn flood(&self, to: SocketAddr, seconds: u64) -> Result<lab::flood::Running> {
        let from: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::new(172, 16, 0, 1).into(),
            SocketAddr::V6(_) => "2001:db8::1".parse()?,
        };
        let flood = Flood {
            from,
            udp: false,
            spoof: true,
            rate: 100_000,
            duration: Duration::from_secs(seconds),
            ..Flood::new(self.net.attacker(), to, Duration::ZERO)
        };
        flood.start(self.net.attacker())
    }

    fn packets(&self, reason: &str) -> Result<u64> {
        Ok(self.gateway.metrics()?.packets(reason))
    }

    fn attacked(&self, so: bool) -> Result<()> {
        let wait = Duration::from_secs(20);
        within(wait, "the attack", || Ok((self.attack()? == so).then_some(())))
    }

    fn attack(&self) -> Result<bool> {
        let status = self.gateway.cli(&["kernel", "status", "-o", "json"])?.ok()?.json()?;
        let attack = status["syn"]["attack"].as_bool();
        attack.with_context(|| format!("{status}"))
    }

    /// How many of so many connections, each from an address of its own, are answered.
    fn answered(&self, to: SocketAddr, first: u16) -> usize {
        let client = self.net.client(1);
        let try_one = |n: u16| -> Result<()> {
            let from: IpAddr =
                if to.is_ipv4() { client.many_v4(first + n).into() } else { client.v6().into() };
            let response = Client::connect_from(client, to, Some(from))?.get("/")?;
            ensure!(response.status == 200, "{}", response.status);
            Ok(())
        };
        (0..TRIES as u16).filter(|n| try_one(*n).inspect_err(|error| eprintln!("{error:#}")).is_ok()).count()
    }
}

#[test]
fn clients_connect_while_a_flood_runs() -> Result<()> {
    lab_test!();
    let rig = rig("1k/s")?;
    for to in [rig.gateway.at4(), rig.gateway.at6()] {
        let flood = rig.flood(to, 8)?;
        rig.attacked(true)?;
        let answered = rig.answered(to, 1000);
        let queue = rig.net.gateway.output("ss", &["-ltnH", "sport = :80"])?;
        let half_open = rig.net.gateway.output("ss", &["-tnH", "state", "syn-recv"])?;
        let sent = flood.finish()?;
        eprintln!(
            "{to}: {answered} of {TRIES}, {:.0} SYNs/s\n{queue}{}",
            sent.rate(),
            half_open.lines().count()
        );
        assert!(answered * 100 >= TRIES * 99, "{to}: {answered}");
        assert!(half_open.lines().count() < 1200, "{half_open}");
        rig.attacked(false)?;
    }
    assert!(rig.packets("syn_cookie")? > 10_000);
    Ok(())
}

#[test]
fn services_are_reached_while_a_flood_runs() -> Result<()> {
    lab_test!();
    let rig = rig("1k/s")?;
    for to in [at(SERVICE4), at(SERVICE6)] {
        let flood = rig.flood(to, 8)?;
        rig.attacked(true)?;
        let before = rig.packets("service")?;
        let answered = rig.answered(to, 2000);
        let passed = rig.packets("service")? - before;
        let sent = flood.finish()?;
        eprintln!("{to}: {answered} of {TRIES}, {:.0} SYNs/s, {passed} packets to targets", sent.rate());
        assert!(answered * 100 >= TRIES * 99, "{to}: {answered}");
        // What clients sent, and none of the flood: the table of connections has no entry of it.
        assert!(passed < TRIES as u64 * 12, "{passed}");
        rig.attacked(false)?;
    }
    assert!(rig.packets("syn_challenge")? > 10_000);
    // IPv4 clients have an address each, IPv6 clients are one source.
    assert!(rig.packets("syn_verified")? >= TRIES as u64);
    Ok(())
}

#[test]
fn options_survive_and_data_is_right() -> Result<()> {
    lab_test!();
    let rig = rig("1k/s")?;
    let client = rig.net.client(1);
    // What a connection is like without a flood.
    let plain: Vec<String> =
        [rig.gateway.at4(), rig.gateway.at6()].iter().map(|to| rig.options(*to)).collect::<Result<_>>()?;
    for (to, plain) in [rig.gateway.at4(), rig.gateway.at6()].into_iter().zip(plain) {
        let flood = rig.flood(to, 8)?;
        rig.attacked(true)?;
        let before = rig.packets("syn_cookie")?;
        assert_eq!(rig.options(to)?, plain, "{to}");
        assert!(rig.packets("syn_cookie")? > before);
        // More than fits an unscaled window many times over, both ways.
        let body: Vec<u8> = (0..4_000_000u32).map(|n| ((n * 31) >> 3) as u8).collect();
        let mut connection = client.connect(to, None)?;
        let head = format!(
            "POST /echo-body HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut reader = connection.try_clone()?;
        let (sent, answer) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| -> std::io::Result<()> {
                connection.write_all(head.as_bytes())?;
                connection.write_all(&body)
            });
            let mut answer = Vec::new();
            let read = reader.read_to_end(&mut answer);
            (writer.join(), read.map(|_| answer))
        });
        let answer = answer?;
        sent.map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        let split = answer.windows(4).position(|w| w == b"\r\n\r\n").context("no head")? + 4;
        eprintln!("{to}: {}", String::from_utf8_lossy(&answer[..split]));
        assert_eq!(answer.len() - split, body.len(), "{to}");
        assert!(answer[split..] == body, "{to}");
        flood.finish()?;
        rig.attacked(false)?;
    }
    Ok(())
}

impl Rig {
    /// The options of a new connection: its side's and, in the namespace of the gateway, the other's.
    fn options(&self, to: SocketAddr) -> Result<String> {
        let client = self.net.client(1);
        let connection = Client::connect(client, to)?;
        let port = connection.stream.local_addr()?.port();
        let mut all = String::new();
        for (namespace, end) in [(&client.namespace, "sport"), (&self.net.gateway, "dport")] {
            let filter = format!("{end} = :{port}");
            let text = namespace.output("ss", &["-tinH", "state", "established", &filter])?;
            let words = text.split_whitespace();
            let kept = words.filter(|w| ["ts", "sack"].contains(w) || w.starts_with("wscale:"));
            all.push_str(&format!("{end}: {}; ", kept.collect::<Vec<_>>().join(" ")));
        }
        ensure!(all.contains("wscale"), "{all}");
        Ok(all)
    }
}

#[test]
fn below_the_threshold_nothing_is_touched() -> Result<()> {
    lab_test!();
    let rig = rig("100k/s")?;
    let text = |path: &str| rig.net.gateway.output("cat", &[path]);
    assert_eq!(text("/proc/sys/net/ipv4/tcp_timestamps")?.trim(), "2");
    assert_eq!(text("/proc/sys/net/ipv4/tcp_syncookies")?.trim(), "1");
    for to in [rig.gateway.at4(), rig.gateway.at6(), at(SERVICE4), at(SERVICE6)] {
        assert_eq!(rig.answered(to, 3000), TRIES, "{to}");
    }
    assert_eq!(rig.packets("syn_cookie")? + rig.packets("syn_challenge")? + rig.packets("syn_verified")?, 0);
    assert!(!rig.attack()?);
    let Rig { mut gateway, net, .. } = rig;
    gateway.stop()?;
    assert_eq!(net.gateway.output("cat", &["/proc/sys/net/ipv4/tcp_timestamps"])?.trim(), "1");
    Ok(())
}
