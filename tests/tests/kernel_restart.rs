//! The kernel half outlives its daemon: K17, K18, R15.

use std::{
    io::{Read as _, Write as _},
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use lab::{
    backend::start_all,
    gateway::simple_config,
    packet::{Frame, Sender},
    prelude::*,
    wrk::{Load, Wrk},
};

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(turn: lab::lock::Turn, kernel: &str) -> Result<Rig> {
    let net = Net::of(1, 1, 1)?;
    // Clients reach backends through the gateway's host, not through its proxy.
    net.gateway.set_sysctl("net/ipv4/ip_forward", "1")?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &format!("{}[kernel]\n{kernel}\n", simple_config(&backends)))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(self.gateway.metrics()?.packets(reason))
    }

    fn received(&self, interface: &str) -> Result<u64> {
        self.net.link(interface)?["stats64"]["rx"]["packets"].as_u64().context("no rx counter")
    }

    fn program(&self, interface: &str) -> Result<u64> {
        self.net.link(interface)?["xdp"]["prog"]["id"].as_u64().context("no program")
    }
}

// K17, K18
#[test]
fn killed_and_started_twenty_times_under_traffic_it_loses_no_connection_and_no_packet() -> Result<()> {
    lab_test!();
    let mut rig = rig(alone()?, "limit = { packets = { rate = \"10M/s\", burst = 10_000_000 } }")?;
    let client = rig.net.client(1).clone();
    let backend = rig.backends[0].addr;
    let counted = |rig: &Rig| -> Result<u64> {
        Ok(rig.gateway.metrics()?.sum("kernel_packets_total", &[("interface", "c1")]) as u64)
    };
    // What came while the program was not yet there.
    let uncounted = rig.received("c1")? - counted(&rig)?;
    let load = Load::new(8, Duration::from_secs(40));
    let mut wrk = Wrk::start(&client, backend, &load)?;
    let sink = rig.net.gateway.run(|| UdpSocket::bind((VIP4, 7777)))??;
    sink.set_read_timeout(Some(Duration::from_millis(500)))?;
    let source = client.namespace.run(|| UdpSocket::bind((client.v4(), 0)))??;
    let done = AtomicBool::new(false);
    let (sent, got) = std::thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| {
            let mut sent = 0u64;
            while !done.load(Relaxed) {
                sent += u64::from(source.send_to(b"x", (VIP4, 7777)).is_ok());
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let receiver = scope.spawn(|| {
            let mut got = 0u64;
            loop {
                match sink.recv(&mut [0; 8]) {
                    Ok(_) => got += 1,
                    Err(_) if done.load(Relaxed) => return got,
                    Err(_) => {}
                }
            }
        });
        let mut restart = || -> Result<()> {
            for round in 0..20 {
                let before = rig.program("c1")?;
                rig.gateway.kill();
                assert_eq!(rig.program("c1")?, before, "round {round}: the program goes on");
                rig.gateway.run()?;
                assert_ne!(rig.program("c1")?, before, "round {round}: replaced");
            }
            Ok(())
        };
        let restarted = restart();
        done.store(true, Relaxed);
        let (sent, got) = (sender.join().unwrap(), receiver.join().unwrap());
        restarted.map(|()| (sent, got))
    })?;
    assert!(wrk.running(), "the load must span all restarts");
    eprintln!("{sent} datagrams sent, {got} received");
    assert!(sent > 1000 && sent == got, "{sent} sent, {got} received");
    let outcome = wrk.finish()?;
    eprintln!("{outcome:?}");
    assert!(outcome.requests > 1000 && outcome.errors + outcome.timeouts == 0, "{outcome:?}");
    // Every packet went through one program or the other: the counters have no gap.
    eventually("all are counted", || Ok(counted(&rig)? + uncounted == rig.received("c1")?))?;
    Ok(())
}

// K17
#[test]
fn limits_go_on_while_the_daemon_is_dead_and_a_drained_bucket_and_a_ban_outlive_it() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?, "limit = { packets = { rate = \"1/h\", burst = 20 } }")?;
    let attacker = rig.net.attacker().clone();
    let sink = rig.net.gateway.run(|| UdpSocket::bind((VIP4, 7777)))??;
    sink.set_read_timeout(Some(Duration::from_millis(300)))?;
    let sender = Sender::open(&attacker)?;
    let send = |n: u16, packets: usize| -> Result<usize> {
        let frame = Frame::udp(&attacker, (attacker.many_v4(n), 1000), (VIP4, 7777)).bytes();
        sender.send_all(&vec![frame; packets])?;
        Ok((0..packets).take_while(|_| sink.recv(&mut [0; 64]).is_ok()).count())
    };
    rig.gateway.cli(&["ban", "add", &attacker.many_v4(3).to_string()])?.ok()?;
    assert_eq!(send(1, 30)?, 20);
    assert_eq!(send(3, 3)?, 0);
    rig.gateway.kill();
    assert_eq!(send(1, 5)?, 0, "drained, and the daemon dead");
    assert_eq!(send(2, 30)?, 20, "a new source is limited too");
    assert_eq!(send(3, 3)?, 0, "banned");
    rig.gateway.run()?;
    assert_eq!(send(1, 5)?, 0, "still drained");
    assert_eq!(send(3, 3)?, 0, "still banned");
    assert!(rig.gateway.cli(&["ban", "list"])?.stdout.contains(&attacker.many_v4(3).to_string()));
    assert_eq!(send(4, 30)?, 20);
    assert_eq!(rig.dropped("limit_packets")?, 10 + 5 + 10 + 5 + 10);
    Ok(())
}

// K17
#[test]
fn a_long_lived_connection_through_the_host_survives_the_daemon() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?, "")?;
    let client = rig.net.client(1).clone();
    let listener = rig.backends[0].addr;
    let mut stream = client.connect(listener, None)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut ask = || -> Result<()> {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")?;
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes)?;
        ensure!(bytes[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes[..n]));
        Ok(())
    };
    ask()?;
    rig.gateway.kill();
    ask()?;
    rig.gateway.run()?;
    ask()
}

// K18
#[test]
fn maps_of_another_layout_are_replaced_and_it_says_so() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?, "")?;
    rig.gateway.kill();
    let ours = std::fs::read_dir(rig.gateway.pin())?.next().context("nothing is pinned")??.path();
    let theirs = rig.gateway.pin().join("v0");
    std::fs::create_dir(&theirs)?;
    for entry in std::fs::read_dir(&ours)? {
        let entry = entry?;
        std::fs::rename(entry.path(), theirs.join(entry.file_name()))?;
    }
    rig.gateway.run()?;
    assert!(!theirs.exists());
    let said = rig.gateway.stderr().join("\n");
    assert!(said.contains("another layout"), "{said}");
    let status = rig.gateway.status()?;
    assert!(status["kernel"].to_string().contains("another layout"), "{}", status["kernel"]);
    rig.program("c1").map(drop)
}

#[test]
fn a_second_daemon_with_the_same_pins_is_refused() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?, "")?;
    let pin = rig.gateway.pin().display().to_string();
    let config = format!("{}[kernel]\npin = \"{pin}\"\n", simple_config(&rig.backends));
    let before = rig.program("c1")?;
    let mut second = Gateway::prepare(&rig.net, &config, Default::default())?;
    let (status, said) = second.run_to_end()?;
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("another gateway runs with the pins in") && said.contains(&pin), "{said}");
    assert_eq!(rig.program("c1")?, before);
    assert_eq!(http::get(rig.net.client(1), rig.gateway.at4(), "/")?.status, 200);
    Ok(())
}
