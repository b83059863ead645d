//! Another process takes the place of a running gateway: O5.

use std::{
    net::{TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
};

use lab::{
    backend::{start_all, targets},
    gateway::{Options, simple_config},
    http2::{self, Http2},
    packet::{Frame, Sender},
    prelude::*,
    websocket::Socket,
};

const LIMIT: Duration = Duration::from_secs(10);

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(turn: lab::lock::Turn, config: impl FnOnce(&[Backend]) -> String) -> Result<Rig> {
    let net = Net::of(1, 1, 2)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &config(&backends))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn get(&self) -> Result<Response> {
        http::get(self.net.client(1), self.gateway.at4(), "/")
    }

    fn requests(&self) -> Result<f64> {
        Ok(self.gateway.metrics()?.sum("http_requests_total", &[("route", "all"), ("code", "200")]))
    }
}

/// Connections made one after the other, up to 250 a second by each thread, each for one request.
struct Short<'a> {
    made: &'a AtomicU64,
    failed: mpsc::Sender<String>,
    done: &'a AtomicBool,
}

impl Short<'_> {
    fn go_on(&self, to: SocketAddr) {
        let mut next = Instant::now();
        while !self.done.load(Relaxed) {
            if let Err(error) = one(to) {
                // The test reads them all in the end.
                let _ = self.failed.send(format!("{error:#}"));
            }
            self.made.fetch_add(1, Relaxed);
            next = (next + Duration::from_millis(4)).max(Instant::now() - Duration::from_millis(100));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// Connections that come whether the last one was answered or not, a thousand a second, and go without a word.
fn knock(to: SocketAddr, done: &AtomicBool, failed: &mpsc::Sender<String>) -> u64 {
    let (began, mut made) = (Instant::now(), 0);
    while !done.load(Relaxed) {
        while made < began.elapsed().as_millis() as u64 {
            match TcpStream::connect_timeout(&to, LIMIT) {
                // With a reset: ports in TIME_WAIT would be used up.
                Ok(stream) => drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
                Err(error) => drop(failed.send(format!("cannot connect: {error}"))),
            }
            made += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    made
}

fn one(to: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect_timeout(&to, LIMIT).context("cannot connect")?;
    let answer = Client::over(stream)?.get("/")?;
    ensure!(answer.status == 200 && answer.body.len() == 128, "{answer:?}");
    Ok(())
}

// O5, K17
#[test]
fn fifty_upgrades_under_a_thousand_connects_a_second_lose_nothing_and_the_kernel_half_limits_on() -> Result<()>
{
    lab_test!();
    let mut rig = rig(alone()?, |backends| {
        // Only the attacker is limited.
        format!(
            "[gateway]\ndrain = \"5s\"\n{}[kernel]\nlimit = {{ packets = {{ rate = \"1/h\", burst = 20 }}, \
             exempt = [\"10.77.0.0/16\", \"fd77::/16\"] }}\n",
            simple_config(backends)
        )
    })?;
    let attacker = rig.net.attacker().clone();
    let sink = rig.net.gateway.run(|| UdpSocket::bind((VIP4, 7777)))??;
    sink.set_read_timeout(Some(Duration::from_millis(300)))?;
    let sender = Sender::open(&attacker)?;
    let packet = |n: u16| Frame::udp(&attacker, (attacker.many_v4(n), 1000), (VIP4, 7777)).bytes();
    let got = || (0..100).take_while(|_| sink.recv(&mut [0; 64]).is_ok()).count();
    sender.send_all(&vec![packet(1); 30])?;
    assert_eq!(got(), 20, "drained");

    let (made, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (failed, failures) = mpsc::channel();
    let client = rig.net.client(1).clone();
    let to = rig.gateway.at4();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let knocks = std::thread::scope(|scope| -> Result<u64> {
        let knocking = {
            let (client, failed, done) = (&client, failed.clone(), &done);
            scope.spawn(move || client.namespace.run(|| knock(to, done, &failed)).unwrap())
        };
        for _ in 0..4 {
            let short = Short { made: &made, failed: failed.clone(), done: &done };
            let client = &client;
            scope.spawn(move || client.namespace.run(|| short.go_on(to)).unwrap());
        }
        scope.spawn(|| {
            while !done.load(Relaxed) {
                sender.send_all(&[packet(1)]).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut upgrade = || -> Result<()> {
            for round in 0..50 {
                let began = Instant::now();
                rig.gateway.upgrade(&[])?.ok().with_context(|| format!("upgrade {round}"))?;
                slowest = slowest.max(began.elapsed());
            }
            Ok(())
        };
        let upgraded = upgrade();
        done.store(true, Relaxed);
        upgraded?;
        Ok(knocking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    drop(failed);
    let (made, failed) = (made.into_inner(), failures.iter().collect::<Vec<_>>());
    let rate = |n: u64| n as f64 / began.elapsed().as_secs_f64();
    let (connects, requests) = (rate(knocks), rate(made));
    eprintln!(
        "{connects:.0} connects and {requests:.0} requests a second; the slowest upgrade took {slowest:?}"
    );
    assert!(failed.is_empty(), "{} of {made} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    assert!(connects > 950.0, "{connects:.0} connects a second");
    assert!(requests > 100.0, "the load was no load: {requests:.0} requests a second");
    assert_eq!(got(), 0, "a packet of a drained source came through");
    sender.send_all(&vec![packet(2); 30])?;
    assert_eq!(got(), 20, "new sources are limited too");
    // The last one drains, and what it has counted is not lost.
    rig.gateway.predecessor_ends(LIMIT)?;
    within(LIMIT, "all are counted", || Ok((rig.requests()? == made as f64).then_some(())))
        .with_context(|| format!("{made} made, {:?} counted", rig.requests()))?;
    assert_eq!(rig.gateway.metrics()?.sum("config_generation", &[]), 51.0);
    Ok(())
}

// O5
#[test]
fn open_connections_finish_in_the_old_process_until_the_drain_limit() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?, |backends| {
        format!(
            "[gateway]\ndrain = \"5s\"\n[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n\
             [route.all]\nto = {}\nupgrade = [\"websocket\"]\n",
            targets(backends)
        )
    })?;
    let (client, at) = (rig.net.client(1).clone(), rig.gateway.at4());
    let old = rig.gateway.pid();
    let mut socket = Socket::open(&client, at, "/ws")?;
    let mut idle = Client::connect(&client, at)?;
    idle.get("/")?;
    let mut busy = Client::connect(&client, at)?;
    busy.send("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhe")?;
    let mut streams = Http2::connect(&client, at)?;
    streams.request(1, &http2::get("a", &[]))?;
    streams.until("an answer", |frame| frame.kind == http2::DATA)?;
    // With the WebSocket.
    eventually("two are under way", || Ok(rig.gateway.metrics()?.sum("http_active_requests", &[]) == 2.0))?;

    let upgraded = rig.gateway.upgrade(&[])?.ok()?.json()?;
    let began = Instant::now();
    assert_eq!(upgraded["draining"], old);
    assert_ne!(rig.gateway.status()?["pid"], old);
    assert_eq!(rig.gateway.status()?["state"], "running");
    idle.closed(Duration::from_secs(1))?;
    streams.until("GOAWAY", |frame| frame.kind == http2::GOAWAY)?;
    busy.send("llo")?;
    let answer = busy.response()?;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(answer.text(), "hello");
    while began.elapsed() < Duration::from_millis(4300) {
        assert_eq!(socket.echo("still there?")?, "still there?");
        assert_eq!(rig.get()?.status, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(rig.gateway.predecessor_ends(LIMIT)?.code(), Some(0));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(4900) && took < Duration::from_millis(6500), "{took:?}");
    assert!(socket.echo("and now?").is_err());
    assert_eq!(rig.get()?.status, 200);
    assert!(rig.gateway.socket().exists(), "the old process took the admin socket with it");
    assert_eq!(rig.gateway.stop()?.code(), Some(0));
    assert!(!rig.gateway.socket().exists());
    Ok(())
}

/// A program of the shell's.
fn script(rig: &Rig, name: &str, text: &str) -> Result<String> {
    let path = rig.gateway.file(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

// O5
#[test]
fn a_new_process_that_does_not_come_up_leaves_the_old_one_as_it_was() -> Result<()> {
    lab_test!();
    let config = |backends: &[Backend]| {
        format!(
            "{}[kernel]\nlimit = {{ packets = {{ rate = \"1/h\", burst = 20 }}, exempt = [\"10.77.0.0/16\"] }}\n",
            simple_config(backends)
        )
    };
    let mut rig = rig(shared()?, config)?;
    let pid = rig.gateway.pid();
    let attacker = rig.net.attacker().clone();
    let sink = rig.net.gateway.run(|| UdpSocket::bind((VIP4, 7777)))??;
    sink.set_read_timeout(Some(Duration::from_millis(300)))?;
    let sender = Sender::open(&attacker)?;
    let passed = |n: u16| -> Result<usize> {
        sender.send_all(&vec![Frame::udp(&attacker, (attacker.many_v4(n), 1), (VIP4, 7777)).bytes(); 30])?;
        Ok((0..30).take_while(|_| sink.recv(&mut [0; 64]).is_ok()).count())
    };
    assert_eq!(passed(1)?, 20);
    rig.gateway.cli(&["ban", "add", &attacker.many_v4(9).to_string()])?.ok()?;

    let occupied = rig.net.gateway.run(|| std::net::TcpListener::bind("127.0.0.1:9181"))??;
    let good = config(&rig.backends);
    let cases: [(&str, Option<String>, &str, &str); 6] = [
        ("no program", Some("/nowhere/gateway".into()), &good, "cannot start /nowhere/gateway"),
        ("no gateway", Some(script(&rig, "ends", "exit 7")?), &good, "exit code 7"),
        ("no end", Some(script(&rig, "hangs", "exec sleep 60")?), &good, "not ready within 2s"),
        ("another language", Some("/bin/cat".into()), &good, "ended before it was ready"),
        ("a bad config", None, "[listener.web]\nbind = \":http\"\n", "gateway.toml:2:"),
        (
            "a port that is taken",
            None,
            &format!("{good}[metrics]\nbind = \"127.0.0.1:9181\"\n"),
            "127.0.0.1:9181",
        ),
    ];
    for (what, binary, config, why) in cases {
        rig.gateway.write(config)?;
        let mut arguments = vec!["--timeout", if what == "no end" { "2s" } else { "20s" }];
        arguments.extend(binary.as_deref());
        let refused = rig.gateway.cli(&[&["upgrade"][..], &arguments].concat()).context(what)?;
        assert!(refused.code == 5 && refused.stderr.contains(why), "{what}: {refused:?}");
        assert_eq!(rig.gateway.status()?["pid"], pid, "{what}");
        assert_eq!(rig.get()?.status, 200, "{what}");
        assert_eq!(passed(1)?, 0, "{what}: a drained source");
    }
    drop(occupied);
    // The kernel half went there and back for the last one.
    let status = rig.gateway.status()?;
    assert_eq!(status["kernel"]["steering"]["on"], true, "{}", status["kernel"]);
    assert_eq!(status["kernel"]["interfaces"][0]["mode"], "native", "{}", status["kernel"]);
    assert_eq!((passed(2)?, passed(9)?), (20, 0));
    rig.gateway.cli(&["kernel", "verify"])?.ok()?;
    rig.gateway.cli(&["ban", "del", &attacker.many_v4(9).to_string()])?.ok()?;
    assert_eq!(passed(9)?, 20);
    rig.gateway.write(&good)?;
    rig.gateway.upgrade(&[])?.ok()?;
    assert_ne!(rig.gateway.status()?["pid"], pid);
    assert_eq!((rig.get()?.status, passed(1)?), (200, 0));
    rig.gateway.predecessor_ends(LIMIT)?;
    Ok(())
}

// O5
#[test]
fn another_number_of_workers_takes_over_every_socket() -> Result<()> {
    lab_test!();
    let config = |backends: &[Backend], workers: usize, steer: &str| {
        format!("[gateway]\nworkers = {workers}\n{}[kernel]\nsteer = \"{steer}\"\n", simple_config(backends))
    };
    let mut rig = rig(shared()?, |backends| config(backends, 2, "off"))?;
    for (workers, steer) in [(4, "off"), (1, "off"), (3, "ip-hash"), (1, "ip-hash"), (2, "ip-hash")] {
        rig.gateway.write(&config(&rig.backends, workers, steer))?;
        rig.gateway.upgrade(&[])?.ok()?;
        assert_eq!(rig.gateway.status()?["workers"], workers);
        // Clients enough that no socket is without any.
        for n in 0..40 {
            let from = rig.net.client(1).many_v4(n).into();
            let answer = http::get_from(rig.net.client(1), rig.gateway.at4(), from, "/")?;
            assert_eq!(answer.status, 200, "{workers} workers, steering {steer}");
        }
        rig.gateway.predecessor_ends(LIMIT)?;
    }
    Ok(())
}

// O5
#[test]
fn what_operators_and_checks_said_and_what_was_counted_goes_on() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\nto = {}\n\
             health = {{ path = \"/healthz\", every = \"30s\", fall = 1, rise = 1 }}\n",
            targets(backends)
        )
    })?;
    let drained = format!("pool/{}", rig.backends[0].addr);
    rig.gateway.cli(&["target", "drain", &drained, "--for", "1h"])?.ok()?;
    for _ in 0..20 {
        assert_eq!(rig.get()?.backend(), "b2");
    }
    rig.gateway.cli(&["reload"])?.ok()?;
    eventually("twenty are counted and logged", || {
        let lines = rig.gateway.metrics()?.sum("access_log_lines_total", &[("result", "written")]);
        Ok(rig.requests()? == 20.0 && lines == 20.0)
    })?;
    let before = rig.gateway.metrics()?;
    rig.gateway.upgrade(&[])?.ok()?;
    let after = rig.gateway.metrics()?;
    for (metric, labels) in [
        ("http_requests_total", [("route", "all")]),
        ("upstream_requests_total", [("upstream", "pool")]),
        ("http_request_duration_seconds_count", [("route", "all")]),
        ("connections_total", [("protocol", "h1")]),
        ("config_reloads_total", [("result", "ok")]),
        ("access_log_lines_total", [("result", "written")]),
    ] {
        let (was, is) = (before.sum(metric, &labels), after.sum(metric, &labels));
        assert!(was > 0.0 && is >= was, "{metric}: {was}, then {is}");
    }
    assert_eq!(after.sum("config_generation", &[]), 3.0);
    let target = &rig.gateway.status()?["upstreams"]["pool"]["targets"][0];
    assert_eq!(target["overrides"]["state"]["value"], "drain", "{target}");
    let left = target["overrides"]["state"]["left_seconds"].as_u64().context("no end")?;
    assert!((3500..=3600).contains(&left), "{left}");
    for _ in 0..10 {
        assert_eq!(rig.get()?.backend(), "b2");
    }
    rig.gateway.cli(&["target", "up", &drained])?.ok()?;
    let answers: BTreeSet<String> =
        (0..4).map(|_| Ok(rig.get()?.backend().to_owned())).collect::<Result<_>>()?;
    assert_eq!(answers.len(), 2);
    // What a check found is known at once, though the next one is half a minute away.
    rig.backends[1].health(500)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let down = |gateway: &Gateway| -> Result<bool> {
        Ok(gateway.status()?["upstreams"]["pool"]["targets"][1]["healthy"] == false)
    };
    eventually("b2 is down", || down(&rig.gateway))?;
    rig.backends[1].health(200)?;
    let slow = "health = { path = \"/slow-header?ms=900\"";
    let config = std::fs::read_to_string(rig.gateway.config())?;
    std::fs::write(rig.gateway.config(), config.replace("health = { path = \"/healthz\"", slow))?;
    rig.gateway.upgrade(&[])?.ok()?;
    assert!(down(&rig.gateway)?, "forgotten");
    Ok(())
}

// O5
#[test]
fn sigusr2_upgrades_to_what_is_in_the_programs_place_and_tells_the_service_manager() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let scratch = lab::cleanup::scratch()?;
    let binary: PathBuf = scratch.path().join("gateway");
    let install = || -> Result<()> {
        let fresh = scratch.path().join("fresh");
        std::fs::copy(lab::tools::gateway()?, &fresh)?;
        std::fs::rename(fresh, &binary)?;
        Ok(())
    };
    install()?;
    let options = Options { binary: Some(binary.clone()), ..Options::default() };
    let mut gateway = Gateway::start_with(&net, &simple_config(&backends), options)?;
    let old = gateway.pid();
    install()?;
    let running = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe"));
    assert!(running(old)?.display().to_string().ends_with("(deleted)"));
    gateway.signal(libc::SIGUSR2)?;
    let told = gateway.tells("MAINPID=")?;
    let new: u32 =
        told.lines().find_map(|line| line.strip_prefix("MAINPID=")?.parse().ok()).context("no pid")?;
    gateway.succeeded_by(new);
    assert!(told.contains("READY=1"), "{told}");
    assert_eq!(running(new)?, binary);
    eventually("the new one serves", || Ok(gateway.status()?["pid"] == new))?;
    assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 200);
    assert_eq!(gateway.predecessor_ends(LIMIT)?.code(), Some(0));
    // A message that the old one was stopping would be taken for the service's end.
    gateway.signal(libc::SIGHUP)?;
    let told = gateway.tells("RELOADING=1")?;
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    Ok(())
}

// O4, O5
#[test]
fn a_connection_made_just_before_gets_its_first_answer_and_no_second() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n[listener.plain]\nbind = \":81\"\n[route.all]\nto = {}\n",
            targets(backends)
        )
    })?;
    let node = rig.net.client(1).clone();
    for port in [80, 81] {
        let mut client = Client::connect(&node, (VIP4, port))?;
        let silent = Client::connect(&node, (VIP4, port))?;
        rig.gateway.signal(libc::SIGTERM)?;
        eventually("draining", || Ok(rig.gateway.ops("/readyz")?.status == 503))?;
        let answer = client.get("/")?;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        // One that says nothing is not waited for longer.
        { silent }.closed(Duration::from_secs(2))?;
        assert_eq!(rig.gateway.wait(Duration::from_secs(2))?.code(), Some(0));
        rig.gateway.run()?;
    }
    Ok(())
}

#[test]
fn two_upgrades_at_once_are_one() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?, simple_config)?;
    let hanging = script(&rig, "hangs", "exec sleep 60")?;
    let mut command = rig.gateway.cli_command()?;
    let mut first = command
        .args(["upgrade", &hanging, "--timeout", "3s"])
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    rig.gateway.says("upgrading")?;
    let second = rig.gateway.cli(&["upgrade"])?;
    assert!(second.code == 5 && second.stderr.contains("an upgrade is under way"), "{second:?}");
    let reload = rig.gateway.cli(&["reload"])?;
    assert!(reload.code == 5 && reload.stderr.contains("an upgrade is under way"), "{reload:?}");
    assert_eq!(first.wait()?.code(), Some(5));
    rig.gateway.upgrade(&[])?.ok()?;
    // To stop wins over to upgrade.
    let mut command = rig.gateway.cli_command()?;
    let mut third = command.args(["upgrade", &hanging]).stderr(std::process::Stdio::piped()).spawn()?;
    eventually("the third begins", || {
        Ok(rig.gateway.stderr().iter().filter(|line| line.contains("upgrading")).count() >= 3)
    })?;
    assert_eq!(rig.gateway.stop()?.code(), Some(0));
    assert_eq!(third.wait()?.code(), Some(5));
    Ok(())
}
