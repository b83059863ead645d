//! Floods from real attackers beside an honest client: S12, S18. What each is refused by has a limit in the config, a
//! reason, a count and points that lead to a ban.

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    http2::{self, HEADERS, Http2, PING, RST_STREAM},
    prelude::*,
    process::resident,
    tls::TlsClient,
};

struct Lab {
    authority: Authority,
    rig: Rig,
}

const SECURE: SocketAddr = SocketAddr::new(IpAddr::V4(VIP4), 443);

/// A client and an attacker; port 80 in clear and 443 by TLS, each with `max` of its own.
fn lab(plain: &str, secure: &str, more: &str) -> Result<Lab> {
    let turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[gateway]\nworkers = 2\n[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n{plain}\n\
         [listener.secure]\nbind = \":443\"\ntls = {{ cert = \"main\" }}\n{secure}\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n\
         [route.all]\nto = {}\n{more}\n",
        targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    let authority = Authority::new()?;
    authority.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    gateway.run()?;
    Ok(Lab { authority, rig: Rig::of(gateway, backends, net, turn) })
}

impl Lab {
    fn attacker(&self) -> &Node {
        self.rig.net.attacker()
    }

    /// The attacker's n-th address: each misdeed has one of its own.
    fn address(&self, n: u16) -> IpAddr {
        self.attacker().many_v4(n).into()
    }

    /// One of the attacker's connections in clear.
    fn attack(&self, n: u16) -> Result<Client> {
        Client::connect_from(self.attacker(), self.rig.gateway.at4(), Some(self.address(n)))
    }

    fn refused(&self, listener: &str, reason: &str) -> Result<f64> {
        let labels = [("listener", listener), ("reason", reason)];
        Ok(self.rig.gateway.metrics()?.sum("connections_refused_total", &labels))
    }

    /// The honest client's handshakes and requests, of which none may fail.
    fn honest(&self, times: usize) -> Result<()> {
        let client = TlsClient::new(&self.authority.pem, None, &["http/1.1"])?;
        for _ in 0..times {
            client.get(self.rig.net.client(1), SECURE, "shop.test")?;
            ensure!(self.rig.client()?.get("/")?.status == 200);
        }
        Ok(())
    }

    /// The ban that the attacker's n-th address has earned.
    fn banned(&self, n: u16) -> Result<Value> {
        let address = self.address(n).to_string();
        within(Duration::from_secs(10), &format!("{address} is banned"), || {
            let bans = self.rig.gateway.cli(&["ban", "list", "-o", "json"])?.ok()?.json()?;
            let bans = bans.as_array().cloned().unwrap_or_default();
            Ok(bans.into_iter().find(|ban| {
                ban["cidr"].as_str().is_some_and(|cidr| cidr.split('/').next() == Some(&address))
            }))
        })
    }
}

// S18
#[test]
fn one_source_gets_so_many_connections_and_others_are_none_the_worse() -> Result<()> {
    lab_test!();
    let lab = lab(
        "max = { connections_per_source = 10 }",
        "",
        "[penalty]\nthreshold = 100\nflood = 5\nfor = \"1h\"\nwhere = \"kernel\"",
    )?;
    let (node, at, from) = (lab.attacker(), lab.rig.gateway.at4(), lab.address(1));
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut client = lab.attack(1)?;
        ensure!(client.get("/")?.status == 200);
        held.push(client);
    }
    // The next ones are reset, so soon that some are never seen open.
    for _ in 0..5 {
        if let Ok(stream) = node.connect(at, Some(from)) {
            Client::over(stream)?.closed(Duration::from_secs(2))?;
        }
    }
    assert_eq!(lab.refused("web", "source_connections")?, 5.0);
    lab.honest(3)?;
    assert_eq!(held[0].get("/")?.status, 200, "those that it has go on");
    // A place is free again when a connection ends.
    held.truncate(5);
    eventually("a place is free", || Ok(lab.attack(1)?.get("/").is_ok_and(|answer| answer.status == 200)))?;
    // Who goes on is banned, in the kernel.
    for _ in 0..60 {
        held.extend(
            node.connect_within(Duration::from_millis(100), at, Some(from))
                .ok()
                .map(Client::over)
                .transpose()?,
        );
    }
    let ban = lab.banned(1)?;
    assert_eq!((&ban["where"], &ban["by"]), (&json!("kernel"), &json!("penalty")), "{ban}");
    assert!(ban["why"].as_str().is_some_and(|why| why.contains("floods")), "{ban}");
    assert!(!node.gets_through(at, from)?, "its SYNs are dropped");
    lab.honest(3)
}

// S18
#[test]
fn a_source_behind_a_proxy_is_counted_by_itself_and_the_proxy_never() -> Result<()> {
    lab_test!();
    let lab =
        lab("max = { connections_per_source = 3 }\nproxy_protocol = { from = \"10.0.0.0/8\" }", "", "")?;
    let behind = |client: &str| -> Result<Client> {
        let mut connection = lab.attack(1)?;
        connection.send(format!("PROXY TCP4 {client} 192.0.2.1 4000 80\r\n"))?;
        Ok(connection)
    };
    let mut held = Vec::new();
    for n in 0..8 {
        let mut client = behind(&format!("203.0.113.{n}"))?;
        ensure!(client.get("/")?.status == 200);
        held.push(client);
    }
    for n in 0..3 {
        let mut client = behind("198.51.100.7")?;
        ensure!(client.get("/")?.status == 200, "{n}");
        held.push(client);
    }
    behind("198.51.100.7")?.closed(Duration::from_secs(2))?;
    assert_eq!(lab.refused("web", "source_connections")?, 1.0);
    ensure!(behind("198.51.100.8")?.get("/")?.status == 200);
    Ok(())
}

// S18
#[test]
fn a_flood_of_tls_handshakes_is_refused_before_anything_is_computed() -> Result<()> {
    lab_test!();
    let lab = lab(
        "",
        "max = { handshakes_per_source = \"10/m\" }",
        "[penalty]\nthreshold = 1000\nflood = 5\nfor = \"1h\"\nwhere = \"kernel\"",
    )?;
    let (node, from) = (lab.attacker(), lab.address(1));
    let client = TlsClient::new(&lab.authority.pem, None, &["http/1.1"])?;
    let mut shaken = 0;
    for _ in 0..30 {
        // Some are reset before they are seen open.
        let connected = node.connect(SECURE, Some(from));
        shaken += usize::from(connected.is_ok_and(|stream| client.over(stream, "shop.test").is_ok()));
    }
    assert_eq!(shaken, 10);
    let metrics = lab.rig.gateway.metrics()?;
    let limited = metrics.sum("tls_handshakes_total", &[("listener", "secure"), ("result", "limited")]);
    assert_eq!((limited, lab.refused("secure", "source_handshakes")?), (20.0, 20.0));
    lab.honest(3)?;
    // A reload forgets nothing.
    lab.rig.gateway.cli(&["reload"])?.ok()?;
    let again = node.connect(SECURE, Some(from));
    assert!(again.is_err() || again.is_ok_and(|stream| client.over(stream, "shop.test").is_err()));
    // Other addresses have budgets of their own.
    let other = node.connect(SECURE, Some(lab.address(2)))?;
    assert!(client.over(other, "shop.test").is_ok());
    for _ in 0..250 {
        drop(node.connect_within(Duration::from_millis(100), SECURE, Some(from)));
    }
    let ban = lab.banned(1)?;
    assert_eq!((&ban["where"], &ban["by"]), (&json!("kernel"), &json!("penalty")), "{ban}");
    lab.honest(3)
}

// S12, S18
#[test]
fn slow_heads_slow_bodies_and_slow_reads_have_a_reason_and_earn_a_ban() -> Result<()> {
    lab_test!();
    let lab = lab(
        "timeout = { header = \"300ms\", idle = \"5s\", body = \"300ms\" }",
        "",
        "[penalty]\nthreshold = 40\nslow = 20\nfor = \"1h\"\nwhere = \"http\"\nwithin = \"1h\"",
    )?;
    let misdeeds: [(u16, &str, &str); 3] = [
        (1, "header_timeout", "GET / HTTP/1.1\r\nhost: a\r\nx-drip: "),
        (2, "body_timeout", "POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf"),
        (3, "write_timeout", "GET /big?bytes=100000000 HTTP/1.1\r\nhost: a\r\n\r\n"),
    ];
    for (n, why, bytes) in misdeeds {
        let address = lab.address(n).to_string();
        for times in 1..=2 {
            let mut client = lab.attack(n)?;
            client.send(bytes)?;
            lab.honest(1)?;
            let told = |line: &&Value| line["why"] == why && line["client"] == address.as_str();
            eventually(why, || Ok(lab.rig.gateway.log()?.iter().filter(told).count() == times))?;
        }
        // The second was the last straw.
        let ban = lab.banned(n)?;
        assert!(ban["why"] == "slow requests" && ban["where"] == "http", "{why}: {ban}");
        lab.attack(n)?.get("/")?.refused(403, "banned")?;
        let counted = lab.rig.gateway.metrics()?.sum("http_errors_total", &[("reason", why)]);
        assert!(counted >= 2.0, "{why}: {counted}");
    }
    lab.honest(1)
}

// S13, S18: CVE-2023-44487 (rapid reset), CVE-2019-9512 (floods of PING)
#[test]
fn abuse_of_http_2_has_a_reason_and_earns_a_ban() -> Result<()> {
    lab_test!();
    let lab = lab("", "", "[penalty]\nthreshold = 5\nflood = 5\nfor = \"1h\"\nwhere = \"http\"")?;
    let connect = |n| Http2::connect_from(lab.attacker(), lab.rig.gateway.at4(), Some(lab.address(n)));
    // Requests that are taken back at once.
    let mut client = connect(1)?;
    let until_closed =
        |client: &mut Http2, send: &mut dyn FnMut(&mut Http2, u32) -> Result<()>| -> Result<()> {
            let end = Instant::now() + Duration::from_secs(20);
            for n in 0.. {
                ensure!(Instant::now() < end, "it is served for ever");
                if send(client, n).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        };
    until_closed(&mut client, &mut |client, n| {
        let stream = 2 * n + 1;
        client.request(stream, &http2::get("a", &[]))?;
        client.send(RST_STREAM, 0, stream, &8u32.to_be_bytes())
    })?;
    assert_eq!(lab.banned(1)?["why"], "floods");
    // PINGs that ask for nothing but answers.
    let mut client = connect(2)?;
    until_closed(&mut client, &mut |client, _| client.send(PING, 0, 0, &[0; 8]))?;
    assert_eq!(lab.banned(2)?["why"], "floods");
    // A head without an end (CVE-2024-27316).
    let mut client = connect(3)?;
    client.send(HEADERS, http2::END_STREAM, 1, &http2::get("a", &[]))?;
    let more = http2::field("x-more", "y".repeat(100));
    until_closed(&mut client, &mut |client, _| client.send(http2::CONTINUATION, 0, 1, &more.repeat(100)))?;
    assert_eq!(lab.banned(3)?["why"], "floods");
    assert_eq!(lab.refused("web", "http2_abuse")?, 3.0);
    lab.honest(2)
}

// S18
#[test]
fn field_names_that_collide_are_few_before_they_cost_anything() -> Result<()> {
    lab_test!();
    let lab = lab("", "", "[penalty]\nthreshold = 5\nflood = 5\nfor = \"1h\"\nwhere = \"http\"")?;
    // As many names as fit: hashed with a random key wherever there are many, and refused by number first.
    let names: String = (0..3000).map(|n| format!("k{n:04}: v\r\n")).collect();
    let mut client = lab.attack(1)?;
    let began = Instant::now();
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{names}\r\n"))?;
    client.response()?.refused(431, "header_too_large")?;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(lab.banned(1)?["why"], "floods");
    lab.honest(1)
}

// S18
#[test]
fn a_body_that_would_unpack_to_much_more_is_passed_on_as_it_came() -> Result<()> {
    lab_test!();
    let lab = lab("", "", "")?;
    // 200 MiB of zeros are 200 KB by gzip.
    let made = std::process::Command::new("sh").args(["-c", "head -c 200M /dev/zero | gzip -9"]).output()?;
    let packed = made.stdout;
    ensure!(made.status.success() && (100_000..1_000_000).contains(&packed.len()), "{} bytes", packed.len());
    let before = resident(lab.rig.gateway.pid())?;
    for _ in 0..4 {
        let mut client = lab.rig.client()?;
        client.send(format!(
            "POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            packed.len()
        ))?;
        client.send(&packed)?;
        assert!(client.response()?.body == packed);
    }
    let grown = resident(lab.rig.gateway.pid())?.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    Ok(())
}
