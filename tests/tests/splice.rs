//! K21, P8: L4 services through userspace.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
};

use lab::{
    backend::start_all,
    certs::Authority,
    curl::Curl,
    peers,
    prelude::*,
    tls::{self, TlsClient},
    transfer,
};

const PORT: u16 = 5432;

fn at() -> SocketAddr {
    SocketAddr::from((VIP4, PORT))
}

/// XDP is off: nothing else forwards.
fn start(net: &Net, service: &str) -> Result<Gateway> {
    Gateway::start(net, &config(service))
}

fn config(service: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\nlog = {{ level = \"debug\" }}\n[kernel]\nmode = \"off\"\n\
         [service.db]\nbind = \":{PORT}\"\npath = \"splice\"\n{service}\n"
    )
}

fn to(backends: &[Backend]) -> String {
    format!("to = {}", lab::backend::targets(backends))
}

fn line(gateway: &Gateway, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    gateway.log_line(what, |line| line["service"] == "db" && wanted(line))
}

#[test]
fn http_passes_through_and_a_connection_has_a_line() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let gateway = start(&net, &to(&backends))?;
    let mut client = Client::connect(net.client(1), at())?;
    for _ in 0..3 {
        let answer = client.get("/echo/1")?;
        assert_eq!((answer.status, answer.backend()), (200, "b1"));
        assert_eq!(answer.header("via"), None, "nobody touched it");
    }
    drop(client);
    let seen = line(&gateway, "the connection", |_| true)?;
    assert_eq!(seen["client"], net.client(1).v4().to_string());
    assert_eq!(seen["proto"], "tcp");
    assert_eq!(seen["target"], backends[0].addr.to_string());
    assert_eq!(seen.get("why"), None, "{seen}");
    assert!(seen["bytes_in"].as_u64() > Some(100) && seen["bytes_out"].as_u64() > Some(100), "{seen}");
    let six = http::get(net.client(1), (VIP6, PORT), "/")?;
    assert_eq!(six.status, 200);
    let metrics = gateway.metrics()?;
    assert_eq!(metrics.sum("connections_total", &[("listener", "service/db"), ("protocol", "tcp")]), 2.0);
    assert_eq!(metrics.sum("service_connections_total", &[("service", "db")]), 2.0);
    let listed = gateway.cli(&["service", "list"])?.ok()?.stdout;
    assert!(listed.contains("tcp splice") && listed.contains("1/1"), "{listed}");
    assert_eq!(gateway.cli(&["status"])?.code, 0, "all is well without XDP");
    Ok(())
}

#[test]
fn a_hundred_megabytes_pass_each_way_with_half_closed_ends() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let server = net.backend(1);
    let gateway = start(&net, &format!("to = \"{}\"", server.at(9000)))?;
    let file = gateway.file("noise");
    transfer::noise(&file, 100 << 20)?;
    let whole = transfer::sha256(std::fs::File::open(&file)?)?;
    let hashes = transfer::there_and_back(net.client(1), at(), server, server.at(9000), &file)?;
    assert_eq!((&hashes.up, &hashes.down), (&whole, &whole));
    let seen = line(&gateway, "the transfer", |_| true)?;
    assert_eq!((seen["bytes_in"].as_u64(), seen["bytes_out"].as_u64()), (Some(100 << 20), Some(100 << 20)));
    assert_eq!(seen.get("why"), None, "{seen}");
    assert_eq!(gateway.metrics()?.sum("service_bytes_total", &[("service", "db")]), f64::from(200 << 20));
    Ok(())
}

#[test]
fn a_reset_is_passed_on_as_one() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let server = net.backend(1);
    let gateway = start(&net, &format!("to = \"{}\"", server.at(9000)))?;
    let listener = server.namespace.run(|| TcpListener::bind(server.at(9000)))??;
    let mut client = net.client(1).connect(at(), None)?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.write_all(b"hello")?;
    let (mut accepted, _) = listener.accept()?;
    accepted.read_exact(&mut [0; 5])?;
    accepted.write_all(b"half of an ans")?;
    socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO))?;
    client.read_exact(&mut [0; 14])?;
    drop(accepted);
    let error = client.read(&mut [0; 10]).expect_err("what was cut looks whole");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(line(&gateway, "the connection", |_| true)?["why"], "upstream_reset");

    let client = net.client(1).connect(at(), None)?;
    let (mut accepted, _) = listener.accept()?;
    accepted.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    drop(client);
    let error = accepted.read(&mut [0; 10]).expect_err("what was cut looks whole");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    Ok(())
}

#[test]
fn an_idle_connection_is_closed_and_there_are_so_many_at_most() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let more = format!("{}\ntimeout = {{ idle = \"300ms\" }}\nmax = {{ connections = 2 }}", to(&backends));
    let gateway = start(&net, &more)?;
    let mut one = Client::connect(net.client(1), at())?;
    assert_eq!(one.get("/")?.status, 200);
    let mut two = Client::connect(net.client(1), at())?;
    assert_eq!(two.get("/")?.status, 200);
    // It is reset, maybe before the client knows that it was connected.
    let three = Client::connect(net.client(1), at()).and_then(|mut three| three.get("/"));
    assert!(three.is_err(), "a third one is taken");
    assert_eq!(one.until_closed()?, 0);
    assert_eq!(line(&gateway, "the idle one", |_| true)?["why"], "idle_timeout");
    eventually("there is room again", || {
        Ok(http::get(net.client(1), at(), "/").is_ok_and(|answer| answer.status == 200))
    })?;
    let metrics = gateway.metrics()?;
    assert!(
        metrics.sum("connections_total", &[("listener", "service/db"), ("protocol", "over_limit")]) >= 1.0
    );
    Ok(())
}

#[test]
fn balance_goes_by_turns_by_connections_and_by_address() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let gateway = start(&net, &format!("{}\nbalance = \"round-robin\"", to(&backends)))?;
    let ask = |from: u16| -> Result<String> {
        let answer = http::get_from(net.client(1), at(), net.client(1).many_v4(from).into(), "/")?;
        Ok(answer.backend().to_owned())
    };
    let turns: Vec<String> = (0..4).map(|_| ask(1)).collect::<Result<_>>()?;
    assert_eq!(turns[0], turns[2]);
    assert_ne!(turns[0], turns[1]);

    gateway.write(&config(&format!("{}\nbalance = \"ip-hash\"", to(&backends))))?;
    gateway.cli(&["reload"])?.ok()?;
    let mut seen = BTreeSet::new();
    for from in 0..16 {
        let first = ask(from)?;
        assert_eq!(ask(from)?, first);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2);

    gateway.write(&config(&format!("{}\nbalance = \"least-conn\"", to(&backends))))?;
    gateway.cli(&["reload"])?.ok()?;
    let mut open: Vec<Client> = Vec::new();
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..6 {
        let mut client = Client::connect(net.client(1), at())?;
        *counts.entry(client.get("/")?.backend().to_owned()).or_default() += 1;
        open.push(client);
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3, 3]);
    Ok(())
}

#[test]
fn a_target_that_is_down_or_drained_gets_no_new_connections() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let health = "health = { path = \"/healthz\", every = \"50ms\", rise = 1, fall = 1 }";
    let gateway = start(&net, &format!("{}\nbalance = \"round-robin\"\n{health}", to(&backends)))?;
    let seen = || -> Result<BTreeSet<String>> {
        (0..6).map(|_| Ok(http::get(net.client(1), at(), "/")?.backend().to_owned())).collect()
    };
    assert_eq!(seen()?.len(), 2);
    // Down.
    backends[0].health(500)?;
    eventually("only b2 is used", || Ok(seen()? == ["b2".to_owned()].into()))?;
    backends[0].health(200)?;
    eventually("both are used", || Ok(seen()?.len() == 2))?;
    // Drained: what is open goes on.
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(net.client(1), at())?;
        client.get("/")?;
        open.push(client);
    }
    let name = format!("db/{}", backends[1].addr);
    gateway.cli(&["target", "drain", &name])?.ok()?;
    eventually("only b1 is used", || Ok(seen()? == ["b1".to_owned()].into()))?;
    for client in &mut open {
        assert_eq!(client.get("/")?.status, 200);
    }
    let shown = gateway.cli(&["service", "show", "db", "-o", "json"])?.ok()?.json()?;
    assert_eq!(shown["targets"][1]["state"], "draining");
    assert_eq!(shown["targets"][1]["active"], 1);
    gateway.cli(&["target", "up", &name])?.ok()?;
    eventually("both are used", || Ok(seen()?.len() == 2))?;
    // One that refuses is passed over at once.
    gateway.write(&config(&format!("{}\nbalance = \"round-robin\"", to(&backends))))?;
    gateway.cli(&["reload"])?.ok()?;
    backends[0].down()?;
    assert_eq!(seen()?, ["b2".to_owned()].into());
    backends[1].down()?;
    assert!(http::get(net.client(1), at(), "/").is_err());
    line(&gateway, "refused", |line| line["why"] == "upstream_connect_refused" && line["tries"] == 2)?;
    Ok(())
}

#[test]
fn a_reload_closes_nothing_and_a_stop_waits() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let mut gateway = start(&net, &format!("to = \"{}\"", backends[0].addr))?;
    let mut client = Client::connect(net.client(1), at())?;
    assert_eq!(client.get("/")?.backend(), "b1");
    gateway.write(&config(&format!("to = \"{}\"", backends[1].addr)))?;
    gateway.cli(&["reload"])?.ok()?;
    assert_eq!(http::get(net.client(1), at(), "/")?.backend(), "b2");
    assert_eq!(client.get("/")?.backend(), "b1", "it was not cut");
    // Gone from the config: nobody new comes in.
    gateway.write(
        "[kernel]\nmode = \"off\"\n[listener.a]\nbind = \":1\"\n[route.a]\nto = [\"127.0.0.1:1\"]\n",
    )?;
    gateway.cli(&["reload"])?.ok()?;
    eventually("the port is closed", || Ok(net.client(1).connect(at(), None).is_err()))?;
    assert_eq!(client.get("/")?.backend(), "b1", "it was not cut");
    gateway.signal(libc::SIGTERM)?;
    gateway.says("stopping")?;
    assert_eq!(client.get("/")?.backend(), "b1", "it was not cut");
    client.stream.shutdown(Shutdown::Write)?;
    assert!(gateway.wait(Duration::from_secs(10))?.success());
    Ok(())
}

fn udp(net: &Net, more: &str) -> Result<Gateway> {
    start(net, &format!("protocol = \"udp\"\n{more}"))
}

/// Answers every datagram with its own name, the sender's address and what it got.
fn echo(node: &Node, addr: SocketAddr) -> Result<()> {
    let name = node.role.clone();
    let socket = node.namespace.run(|| std::net::UdpSocket::bind(addr))??;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{name} {from} ").into_bytes();
            answer.extend(buffer.get(..n).unwrap_or_default());
            // The client may be gone.
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(())
}

/// An [`echo`] at each of two backends; `to` of a service over them.
fn two_echoes(net: &Net) -> Result<String> {
    let [one, two] = [1, 2].map(|n| (net.backend(n), net.backend(n).at(9000)));
    echo(one.0, one.1)?;
    echo(two.0, two.1)?;
    Ok(format!("to = [\"{}\", \"{}\"]", one.1, two.1))
}

/// Connected, so that answers from any other address are not received.
fn client(node: &Node, to: impl Into<SocketAddr>) -> Result<std::net::UdpSocket> {
    let to = to.into();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = node.namespace.run(|| std::net::UdpSocket::bind(any))??;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// The backend that answers, where its datagrams come from, and what it got.
fn ask(socket: &std::net::UdpSocket, text: &str) -> Result<(String, String, String)> {
    socket.send(text.as_bytes())?;
    let mut buffer = vec![0; 65_536];
    let n = socket.recv(&mut buffer)?;
    let answer = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).into_owned();
    let mut words = answer.splitn(3, ' ').map(str::to_owned);
    let mut next = || words.next().unwrap_or_default();
    Ok((next(), next(), next()))
}

#[test]
fn udp_sessions_keep_their_target_and_expire() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let to = two_echoes(&net)? + "\nbalance = \"round-robin\"";
    let gateway = udp(&net, &format!("{to}\ntimeout = {{ idle = \"500ms\" }}"))?;
    let (a, b) = (client(net.client(1), at())?, client(net.client(1), at())?);
    let first = ask(&a, "x")?;
    let other = ask(&b, "x")?;
    assert_ne!(first.0, other.0, "in turns");
    for n in 0..5 {
        let text = format!("datagram {n}");
        assert_eq!(ask(&a, &text)?, (first.0.clone(), first.1.clone(), text));
    }
    assert_eq!(gateway.metrics()?.sum("connections_active", &[("listener", "service/db")]), 2.0);
    eventually("the sessions are over", || {
        Ok(gateway.metrics()?.sum("connections_active", &[("listener", "service/db")]) == 0.0)
    })?;
    let seen = line(&gateway, "a session", |line| {
        line["target"].as_str().is_some_and(|t| t.starts_with(&net.backend(1).v4().to_string()))
    })?;
    assert_eq!((seen["proto"].as_str(), seen.get("why")), (Some("udp"), None));
    assert!(seen["bytes_in"].as_u64() > Some(0) && seen["bytes_out"] != 0, "{seen}");
    // A new one has a new socket.
    assert_ne!(ask(&a, "x")?.1, first.1);
    Ok(())
}

// K21, O5
#[test]
fn udp_sessions_outlast_an_upgrade_and_new_ones_go_to_the_new_process() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let to = two_echoes(&net)? + "\nbalance = \"round-robin\"";
    let mut gateway = udp(&net, &format!("{to}\ntimeout = {{ idle = \"2s\" }}"))?;
    let sockets = (0..16).map(|_| client(net.client(1), at())).collect::<Result<Vec<_>>>()?;
    let first = sockets.iter().map(|socket| ask(socket, "x")).collect::<Result<Vec<_>>>()?;
    let asking = std::sync::atomic::AtomicBool::new(true);
    let told = std::thread::scope(|scope| -> Result<usize> {
        let all = scope.spawn(|| -> Result<usize> {
            let mut asked = 0;
            while asking.load(std::sync::atomic::Ordering::Relaxed) {
                for (socket, first) in sockets.iter().zip(&first) {
                    let answer = ask(socket, "more").with_context(|| format!("datagram {asked}"))?;
                    // By the same target, and for it from the same socket.
                    ensure!((&answer.0, &answer.1) == (&first.0, &first.1), "{answer:?} after {first:?}");
                    asked += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(asked)
        });
        let upgraded = gateway.upgrade(&[]).and_then(|told| told.ok());
        std::thread::sleep(Duration::from_secs(1));
        asking.store(false, std::sync::atomic::Ordering::Relaxed);
        upgraded?;
        all.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert!(told > 500, "{told} datagrams");
    let active =
        || -> Result<f64> { Ok(gateway.metrics()?.sum("connections_active", &[("listener", "service/db")])) };
    let fresh = client(net.client(1), at())?;
    ask(&fresh, "x")?;
    eventually("the new process has the new one", || Ok(active()? >= 1.0))?;
    // The old one ends with its sessions, long before its drain limit.
    assert!(gateway.predecessor_ends(Duration::from_secs(10))?.success());
    for socket in &sockets {
        assert_eq!(ask(socket, "x")?.2, "x");
    }
    Ok(())
}

#[test]
fn udp_answers_come_from_the_address_that_was_asked_however_large() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let server = net.backend(1);
    echo(server, server.at(9000))?;
    let _gateway = udp(&net, &format!("to = \"{}\"", server.at(9000)))?;
    let long = "x".repeat(20_000);
    let gateways_end = std::net::Ipv4Addr::from(u32::from(net.client(1).v4()) - 1);
    for to in [at(), SocketAddr::from((VIP6, PORT)), SocketAddr::from((gateways_end, PORT))] {
        let socket = client(net.client(1), to)?;
        for text in ["", "short", &long] {
            assert_eq!(ask(&socket, text).with_context(|| format!("{to} {}", text.len()))?.2, text);
        }
    }
    Ok(())
}

#[test]
fn udp_sessions_are_so_many_at_most_and_leave_a_target_that_is_down() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let to = two_echoes(&net)?;
    let mut gateway = udp(&net, &format!("{to}\nmax = {{ connections = 2 }}"))?;
    let (a, b, c) =
        (client(net.client(1), at())?, client(net.client(1), at())?, client(net.client(1), at())?);
    let first = ask(&a, "x")?;
    ask(&b, "x")?;
    c.set_read_timeout(Some(Duration::from_millis(300)))?;
    assert!(ask(&c, "x").is_err(), "a third session");
    let labels = [("listener", "service/db"), ("protocol", "over_limit")];
    assert!(gateway.metrics()?.sum("connections_total", &labels) >= 1.0);
    assert_eq!(ask(&a, "y")?.0, first.0);
    let addr = net.backend(if first.0 == "b1" { 1 } else { 2 }).at(9000);
    gateway.cli(&["target", "down", &format!("db/{addr}")])?.ok()?;
    eventually("it goes elsewhere", || Ok(ask(&a, "z")?.0 != first.0))?;
    // Sessions do not hold a stop up.
    let began = Instant::now();
    assert!(gateway.stop()?.success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}

/// Certificates for a.test and b.test, each on a backend's nginx of its own that says its name.
struct Named {
    gateway: Gateway,
    authority: Authority,
    net: Net,
    _nginx: Vec<peers::Peer>,
    _turn: lab::lock::Turn,
}

fn named(service: impl Fn(&Net) -> String) -> Result<Named> {
    let turn = shared()?;
    let net = Net::simple(2)?;
    let authority = Authority::new()?;
    let mut nginx = Vec::new();
    let mut gateway = Gateway::prepare(&net, &config(&service(&net)), Default::default())?;
    for (n, name) in [(1, "a.test"), (2, "b.test")] {
        let node = net.backend(n);
        authority.issue(&[name, "*.b.test", "deep.a.test"])?.write(&gateway.file(""), name)?;
        let path = |end: &str| gateway.file(&format!("{name}.{end}")).display().to_string();
        let server = format!(
            "server {{ listen {at} ssl; listen {proxied} ssl proxy_protocol; ssl_certificate {}; ssl_certificate_key {};
             ssl_protocols TLSv1.2 TLSv1.3;
             return 200 '{name} $proxy_protocol_addr'; }}",
            path("pem"),
            path("key"),
            at = node.at(443),
            proxied = node.at(444),
        );
        nginx.push(peers::nginx(node, node.at(443), &server)?);
    }
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    Ok(Named { gateway, authority, net, _nginx: nginx, _turn: turn })
}

fn by_name(net: &Net, port: u16, more: &str) -> String {
    let (a, b) = (net.backend(1).at(port), net.backend(2).at(port));
    format!("sni = {{ \"a.test\" = [\"{a}\"], \"*.b.test\" = [\"{b}\"], \"b.test\" = \"{b}\" }}\n{more}")
}

impl Named {
    fn curl(&self, name: &str, arguments: &[&str]) -> Result<Curl> {
        let ca = self.gateway.file("ca.pem").display().to_string();
        let (resolve, url) = (format!("{name}:{PORT}:{VIP4}"), format!("https://{name}:{PORT}/"));
        let own = ["--cacert", &ca, "--resolve", &resolve, &url];
        Curl::run(self.net.client(1), &[&own[..], arguments].concat())
    }
}

#[test]
fn tls_is_routed_by_the_name_asked_for_without_decrypting() -> Result<()> {
    lab_test!();
    let rig = named(|net| by_name(net, 443, ""))?;
    for (name, expected) in [("a.test", "a.test"), ("b.test", "b.test"), ("x.b.test", "b.test")] {
        for version in ["--tlsv1.2", "--tlsv1.3"] {
            let answer = rig.curl(name, &[version, "--tls-max", &version[6..]])?;
            assert_eq!((answer.code, answer.text()), (0, format!("{expected} ")), "{answer:?}");
        }
        let seen = line(&rig.gateway, name, |line| line["host"] == name)?;
        assert_eq!(seen.get("tls"), None, "it was not decrypted");
    }
    // The certificate is the backend's own: the gateway has none.
    let client = TlsClient::new(&rig.authority.pem, None, &[])?;
    let connection = client.connect(rig.net.client(1), at(), "a.test")?;
    let own = tls::der(&std::fs::read_to_string(rig.gateway.file("a.test.pem"))?)?;
    assert_eq!(tls::shown(&connection), Some(own));
    Ok(())
}

#[test]
fn a_name_that_leads_nowhere_is_refused_and_so_is_what_is_no_tls() -> Result<()> {
    lab_test!();
    let rig = named(|net| by_name(net, 443, "timeout = { header = \"300ms\" }"))?;
    let mut openssl = rig.net.client(1).namespace.command("openssl")?;
    openssl.args(["s_client", "-servername", "other.test", "-connect", &at().to_string()]);
    let output = openssl.stdin(std::process::Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && said.contains("unrecognized name"), "{said}");
    let mut openssl = rig.net.client(1).namespace.command("openssl")?;
    openssl.args(["s_client", "-noservername", "-connect", &at().to_string()]);
    assert!(!openssl.stdin(std::process::Stdio::null()).output()?.status.success());
    line(&rig.gateway, "a name", |line| line["why"] == "no_route" && line["host"] == "other.test")?;
    line(&rig.gateway, "no name", |line| line["why"] == "no_route" && line.get("host").is_none())?;

    let mut client = Client::connect(rig.net.client(1), at())?;
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")?;
    assert_eq!(client.until_closed()?, 0);
    line(&rig.gateway, "no TLS", |line| line["why"] == "tls_failed")?;
    let mut client = Client::connect(rig.net.client(1), at())?;
    client.send([22, 3, 1, 2])?;
    assert_eq!(client.until_closed()?, 0);
    line(&rig.gateway, "too slow", |line| line["why"] == "header_timeout")?;
    assert_eq!(rig.gateway.metrics()?.sum("service_errors_total", &[("reason", "no_route")]), 2.0);
    Ok(())
}

#[test]
fn other_names_and_none_go_to_the_default_targets() -> Result<()> {
    lab_test!();
    let rig = named(|net| {
        let (a, b) = (net.backend(1).at(443), net.backend(2).at(443));
        format!("to = \"{a}\"\nsni.\"b.test\" = \"{b}\"")
    })?;
    assert_eq!(rig.curl("deep.a.test", &[])?.text(), "a.test ");
    assert_eq!(rig.curl("b.test", &[])?.text(), "b.test ");
    let mut openssl = rig.net.client(1).namespace.command("openssl")?;
    openssl.args(["s_client", "-noservername", "-connect", &at().to_string()]);
    let output = openssl.stdin(std::process::Stdio::null()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn the_client_s_address_comes_in_and_goes_out_by_the_proxy_protocol() -> Result<()> {
    lab_test!();
    let rig = named(|net| {
        let own = net.client(1).v4();
        by_name(
            net,
            444,
            &format!("proxy_protocol = {{ from = \"{own}\", send = \"v2\" }}\ntimeout.header = \"500ms\""),
        )
    })?;
    let own = rig.net.client(1).v4();
    let answer = rig.curl("a.test", &["--haproxy-protocol"])?;
    assert_eq!(answer.text(), format!("a.test {own}"), "{answer:?}");
    // Told by a balancer in front, in clear, before the handshake.
    let front: SocketAddr = "127.0.0.1:8001".parse()?;
    let _haproxy = peers::haproxy(
        rig.net.client(1),
        front,
        &format!("listen l\n  mode tcp\n  bind {front}\n  server g {} send-proxy-v2\n", at()),
    )?;
    let ca = rig.gateway.file("ca.pem").display().to_string();
    let (resolve, url) = ("b.test:8001:127.0.0.1", "https://b.test:8001/");
    let answer = Curl::run(rig.net.client(1), &["--cacert", &ca, "--resolve", resolve, url])?;
    assert_eq!(answer.text(), "b.test 127.0.0.1", "{answer:?}");
    line(&rig.gateway, "behind haproxy", |line| line["client"] == "127.0.0.1")?;
    // Without a header nothing is served.
    assert_ne!(rig.curl("a.test", &[])?.code, 0);
    line(&rig.gateway, "no header", |line| line["why"] == "proxy_header")?;
    let labels = [("listener", "service/db"), ("result", "absent")];
    assert_eq!(rig.gateway.metrics()?.sum("proxy_protocol_total", &labels), 1.0);
    Ok(())
}

#[test]
fn tls_can_end_at_the_gateway() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let service = format!(
        "{}\ntls = {{ cert = \"main\" }}\n[cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}",
        to(&backends)
    );
    let authority = Authority::new()?;
    let mut gateway = Gateway::prepare(&net, &config(&service), Default::default())?;
    authority.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(gateway.file("body"), &body)?;
    let (ca, data) =
        (gateway.file("ca.pem").display().to_string(), gateway.file("body").display().to_string());
    let (resolve, url) = (format!("shop.test:{PORT}:{VIP4}"), format!("https://shop.test:{PORT}/echo-body"));
    let data = format!("@{data}");
    let answer =
        Curl::run(net.client(1), &["--cacert", &ca, "--resolve", &resolve, &url, "--data-binary", &data])?;
    assert_eq!((answer.code, answer.version.as_str()), (0, "1.1"), "{answer:?}");
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    let seen = line(&gateway, "the connection", |_| true)?;
    assert_eq!((seen["tls"].as_str(), seen["host"].as_str()), (Some("1.3"), Some("shop.test")));
    let labels = [("listener", "service/db"), ("result", "ok")];
    assert_eq!(gateway.metrics()?.sum("tls_handshakes_total", &labels), 1.0);
    Ok(())
}
