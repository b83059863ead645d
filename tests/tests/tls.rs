//! TLS at listeners: S8, S9.

use std::io::Read;

use lab::{
    backend::{start_all, targets},
    certs::{Authority, Issued},
    curl::Curl,
    prelude::*,
    tls::{self, TlsClient},
};

const TLS_PORT: u16 = 443;

struct Rig {
    gateway: Gateway,
    authority: Authority,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((VIP4, port))
}

/// Certificates `main` for shop.test and `wild` for *.wild.test, and what a test adds to the listener's `tls` and to
/// the config.
fn rig(tls: &str, more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let authority = Authority::new()?;
    let mut gateway = Gateway::prepare(&net, &config(&backends, tls, more), Default::default())?;
    let directory = gateway.file("");
    authority.issue(&["shop.test"])?.write(&directory, "main")?;
    authority.issue(&["*.wild.test"])?.write(&directory, "wild")?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    Ok(Rig { gateway, authority, backends, net, _turn: turn })
}

fn config(backends: &[Backend], tls: &str, more: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\n\
         [listener.secure]\nbind = \":{TLS_PORT}\"\ntls = {{ cert = [\"main\", \"wild\"]{tls} }}\n{more}\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n\
         [cert.wild]\nchain = \"wild.pem\"\nkey = {{ file = \"wild.key\" }}\n\
         [route.all]\nto = {}\nupgrade = [\"websocket\"]\n",
        targets(backends)
    )
}

impl Rig {
    fn path(&self, name: &str) -> String {
        self.gateway.file(name).display().to_string()
    }

    /// curl to a host name, trusting the test's authority.
    fn curl(&self, host: &str, path: &str, arguments: &[&str]) -> Result<Curl> {
        let resolve = format!("{host}:{TLS_PORT}:{VIP4}");
        let (ca, url) = (self.path("ca.pem"), format!("https://{host}{path}"));
        let own = ["--cacert", &ca, "--resolve", &resolve, &url];
        Curl::run(self.net.client(1), &[&own[..], arguments].concat())
    }

    fn client(&self) -> Result<TlsClient> {
        TlsClient::new(&self.authority.pem, None, &[])
    }
}

fn saw(answer: &Curl, name: &str) -> Result<String> {
    Ok(http::echoed(&answer.json()?, name).into_iter().next().unwrap_or_default())
}

// S8
#[test]
fn curl_speaks_tls_1_2_and_1_3_and_upstreams_are_told_https() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    for (version, arguments) in
        [("1.2", ["--tlsv1.2", "--tls-max", "1.2"]), ("1.3", ["--tlsv1.3", "--tls-max", "1.3"])]
    {
        let path = format!("/echo?v={version}");
        let answer = rig.curl("shop.test", &path, &arguments)?;
        assert_eq!((answer.code, answer.status), (0, 200), "{answer:?}");
        assert_eq!(saw(&answer, "x-forwarded-proto")?, "https");
        assert!(saw(&answer, "forwarded")?.contains("proto=https"), "{}", answer.text());
        let line = rig.gateway.log_line(version, |line| line["query"] == format!("v={version}"))?;
        assert_eq!((line["tls"].as_str(), line["proto"].as_str()), (Some(version), Some("h2")));
        let labels = [("listener", "secure"), ("version", version), ("result", "ok")];
        assert_eq!(rig.gateway.metrics()?.sum("tls_handshakes_total", &labels), 1.0);
    }
    Ok(())
}

// S8
#[test]
fn a_version_below_the_oldest_is_refused() -> Result<()> {
    lab_test!();
    let rig = rig(", min = \"1.3\"", "")?;
    assert_eq!(rig.curl("shop.test", "/", &["--tlsv1.3"])?.status, 200);
    assert_eq!(rig.curl("shop.test", "/", &["--tls-max", "1.2"])?.code, 35);
    let labels = [("listener", "secure"), ("result", "failed")];
    assert_eq!(rig.gateway.metrics()?.sum("tls_handshakes_total", &labels), 1.0);
    // Older than anything offered.
    let mut openssl = rig.net.client(1).namespace.command("openssl")?;
    openssl.args([
        "s_client",
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
        "-connect",
        &at(TLS_PORT).to_string(),
    ]);
    openssl.stdin(std::process::Stdio::null());
    assert!(!openssl.output()?.status.success());
    Ok(())
}

// S8
#[test]
fn the_host_name_asked_for_chooses_the_certificate() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    for (host, good) in
        [("shop.test", true), ("a.wild.test", true), ("a.b.wild.test", false), ("other.test", false)]
    {
        // 60: curl does not find the name in the certificate that it is shown.
        let code = rig.curl(host, "/", &[])?.code;
        assert_eq!(code, if good { 0 } else { 60 }, "{host}");
    }
    Ok(())
}

// S8
#[test]
fn large_bodies_and_websockets_pass_through_tls() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(rig.gateway.file("body"), &body)?;
    let data = format!("@{}", rig.path("body"));
    let answer = rig.curl("shop.test", "/echo-body", &["--data-binary", &data])?;
    assert_eq!(answer.status, 200, "{}", answer.errors);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    let mut upgraded = rig.client()?.connect(rig.net.client(1), at(TLS_PORT), "shop.test")?;
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";
    let request = format!(
        "GET /ws HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}\r\n"
    );
    std::io::Write::write_all(&mut upgraded, request.as_bytes())?;
    let mut head = [0; 12];
    upgraded.read_exact(&mut head)?;
    assert_eq!(&head, b"HTTP/1.1 101");
    Ok(())
}

// S8
#[test]
fn sessions_are_resumed_at_any_worker_and_after_a_reload() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let (client, node) = (rig.client()?, rig.net.client(1));
    assert!(!client.get(node, at(TLS_PORT), "shop.test")?.0);
    for _ in 0..8 {
        assert!(client.get(node, at(TLS_PORT), "shop.test")?.0);
    }
    rig.gateway.write(&config(&rig.backends, ", min = \"1.3\"", ""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert!(client.get(node, at(TLS_PORT), "shop.test")?.0);
    Ok(())
}

// S8: the server's part; that clients forget old tickets by themselves is left out.
#[test]
fn tickets_are_good_within_their_key_s_time_at_any_worker_and_never_after() -> Result<()> {
    lab_test!();
    let rig = rig(", ticket_rotation = \"2s\"", "")?;
    let node = rig.net.client(1);
    let shake = |client: &TlsClient| Ok(client.get(node, at(TLS_PORT), "shop.test")?.0);
    let fresh = || -> Result<TlsClient> {
        let client = rig.client()?.timeless();
        ensure!(!shake(&client)?, "a new client comes back");
        Ok(client)
    };
    for round in 1..=2 {
        // Within, wherever the connection goes: each time a new ticket of the same key or the next.
        let clients = (0..8).map(|_| fresh()).collect::<Result<Vec<_>>>()?;
        for client in &clients {
            ensure!(shake(client)?, "round {round}: not resumed at once");
        }
        // By the key before the one that is in use now, too.
        std::thread::sleep(Duration::from_millis(1500));
        ensure!(
            clients.iter().map(shake).collect::<Result<Vec<_>>>()?.iter().all(|resumed| *resumed),
            "round {round}"
        );
        // Twice a key's time and more: at no worker, whether anybody came meanwhile or not.
        std::thread::sleep(Duration::from_millis(4200));
        for client in &clients {
            ensure!(!shake(client)?, "round {round}: resumed by a key that is gone");
        }
    }
    Ok(())
}

// S8
#[test]
fn a_new_certificate_is_in_use_within_a_second_and_no_handshake_fails() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let (client, node) = (rig.client()?, rig.net.client(1));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| -> Result<()> {
        let load: Vec<_> = (0..2)
            .map(|_| {
                let (stop, rig) = (&stop, &rig);
                scope.spawn(move || -> Result<u32> {
                    let mut done = 0;
                    while !stop.load(order) {
                        // Without tickets: every handshake is a whole one.
                        rig.client()?.get(rig.net.client(1), at(TLS_PORT), "shop.test")?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        let swapped = (0..5).try_for_each(|_| swap(&rig, &client, node));
        stop.store(true, order);
        let mut done = 0;
        for one in load {
            done += one.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        swapped?;
        ensure!(done > 50, "only {done} handshakes");
        Ok(())
    })?;
    let labels = [("listener", "secure"), ("result", "failed")];
    assert_eq!(rig.gateway.metrics()?.sum("tls_handshakes_total", &labels), 0.0);
    Ok(())
}

fn swap(rig: &Rig, client: &TlsClient, node: &Node) -> Result<()> {
    let new = rig.authority.issue(&["shop.test"])?;
    new.write(&rig.gateway.file(""), "main")?;
    let wanted = tls::der(&new.chain)?;
    within(Duration::from_secs(1), "the new certificate is shown", || {
        let shown = tls::shown(&client.connect(node, at(TLS_PORT), "shop.test")?);
        Ok((shown.as_ref() == Some(&wanted)).then_some(()))
    })
}

// S8
#[test]
fn a_bad_pair_is_refused_and_the_old_one_stays() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let node = rig.net.client(1);
    let good = std::fs::read_to_string(rig.gateway.file("main.pem"))?;
    let other = rig.authority.issue(&["shop.test"])?;
    // A certificate without its key.
    std::fs::write(rig.gateway.file("main.pem"), &other.chain)?;
    rig.gateway.says("certificate not reloaded, the old one stays")?;
    let shown = tls::shown(&rig.client()?.connect(node, at(TLS_PORT), "shop.test")?);
    assert_eq!(shown, Some(tls::der(&good)?));
    let status = rig.gateway.cli(&["status"])?;
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.stdout.contains("is not that of the certificate"), "{status:?}");
    let listed = rig.gateway.cli(&["cert", "list", "-o", "json"])?.ok()?.json()?;
    assert!(listed["main"]["error"].is_string() && listed["wild"]["error"].is_null(), "{listed}");
    // A reload reads the files too, and neither takes up the bad pair nor fails by it.
    rig.gateway.cli(&["reload"])?.ok()?;
    // Its key comes after it: now they are a pair.
    std::fs::write(rig.gateway.file("main.key"), &other.key)?;
    rig.gateway.says("a new certificate is in use")?;
    assert_eq!(rig.gateway.cli(&["status"])?.code, 0);
    let shown = rig.gateway.cli(&["cert", "show", "main"])?.ok()?;
    assert!(shown.stdout.contains("shop.test"), "{shown:?}");
    let expiry = rig.gateway.metrics()?.sum("cert_expiry_timestamp_seconds", &[("cert", "main")]);
    assert!(expiry > 1_700_000_000.0);
    Ok(())
}

// S8
#[test]
fn a_start_or_reload_with_a_new_certificate_that_cannot_be_used_is_refused_with_its_place() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let more = "[cert.third]\nchain = \"third.pem\"\nkey = { env = \"NO_SUCH_KEY\" }\n";
    rig.gateway.write(&(config(&rig.backends, "", "") + more))?;
    let refused = rig.gateway.cli(&["reload"])?;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("cert.third: cannot read"), "{refused:?}");
    assert_eq!(rig.curl("shop.test", "/", &[])?.status, 200);
    Ok(())
}

// S9
#[test]
fn a_required_client_certificate_is_required_and_must_be_from_the_authority() -> Result<()> {
    lab_test!();
    let rig = rig(", client_ca = \"ca.pem\", client = \"require\"", "")?;
    let node = rig.net.client(1);
    assert!(rig.client()?.get(node, at(TLS_PORT), "shop.test").is_err());
    let known = rig.authority.issue(&["someone"])?;
    TlsClient::new(&rig.authority.pem, Some(&known), &[])?.get(node, at(TLS_PORT), "shop.test")?;
    let stranger = Authority::new()?.issue(&["someone"])?;
    let stranger = TlsClient::new(&rig.authority.pem, Some(&stranger), &[])?;
    assert!(stranger.get(node, at(TLS_PORT), "shop.test").is_err());
    Ok(())
}

// S9
#[test]
fn a_requested_client_certificate_may_be_missing_but_not_bad() -> Result<()> {
    lab_test!();
    let rig = rig(", client_ca = \"ca.pem\", client = \"request\"", "")?;
    let node = rig.net.client(1);
    rig.client()?.get(node, at(TLS_PORT), "shop.test")?;
    let stranger: Issued = Authority::new()?.issue(&["someone"])?;
    let stranger = TlsClient::new(&rig.authority.pem, Some(&stranger), &[])?;
    assert!(stranger.get(node, at(TLS_PORT), "shop.test").is_err());
    Ok(())
}

// S9
#[test]
fn a_revoked_client_certificate_opens_nothing_from_the_moment_the_list_changes() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let authority = Authority::new()?;
    let tls = ", client_ca = \"ca.pem\", client_crl = \"crl.pem\"";
    let mut gateway = Gateway::prepare(&net, &config(&backends, tls, ""), Default::default())?;
    let directory = gateway.file("");
    authority.issue(&["shop.test"])?.write(&directory, "main")?;
    authority.issue(&["*.wild.test"])?.write(&directory, "wild")?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    std::fs::write(gateway.file("crl.pem"), authority.revoke(&[], 4000)?)?;
    gateway.run()?;
    let (node, lost, kept) = (net.client(1), authority.issue(&["lost"])?, authority.issue(&["kept"])?);
    let as_who = |who: &Issued| TlsClient::new(&authority.pem, Some(who), &[]);
    let (lost, kept) = ((as_who(&lost)?, lost), (as_who(&kept)?, kept));
    for (client, _) in [&lost, &kept] {
        client.get(node, at(TLS_PORT), "shop.test")?;
        assert!(client.get(node, at(TLS_PORT), "shop.test")?.0, "its ticket is good");
    }
    std::fs::write(gateway.file("crl.pem"), authority.revoke(&[&lost.1], 4000)?)?;
    // Also by the ticket that it has.
    eventually("it is refused", || Ok(lost.0.get(node, at(TLS_PORT), "shop.test").is_err()))?;
    kept.0.get(node, at(TLS_PORT), "shop.test")?;
    // What is no list changes nothing, and is told.
    std::fs::write(gateway.file("crl.pem"), "nonsense")?;
    gateway.says("clients are still checked as before")?;
    assert!(lost.0.get(node, at(TLS_PORT), "shop.test").is_err());
    kept.0.get(node, at(TLS_PORT), "shop.test")?;
    // After its end a list lets nobody in.
    std::fs::write(gateway.file("crl.pem"), authority.revoke(&[], 2025)?)?;
    eventually("all are refused", || Ok(as_who(&kept.1)?.get(node, at(TLS_PORT), "shop.test").is_err()))?;
    drop(turn);
    Ok(())
}

// S9
#[test]
fn hosts_have_authorities_of_clients_of_their_own_and_no_connection_leads_to_another_s() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let (node, team) = (rig.net.client(1), Authority::new()?);
    std::fs::write(rig.gateway.file("team.pem"), &team.pem)?;
    let clients = ", clients = { \"admin.wild.test\" = { client_ca = \"ca.pem\" }, \
                   \"*.wild.test\" = { client_ca = \"team.pem\", client = \"request\" } }";
    rig.gateway.write(&config(&rig.backends, clients, ""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let (known, member) = (rig.authority.issue(&["someone"])?, team.issue(&["someone"])?);
    let opens = |who: Option<&Issued>| -> Result<[bool; 3]> {
        // Each without a ticket.
        let open = |host: &str| -> Result<bool> {
            Ok(TlsClient::new(&rig.authority.pem, who, &[])?.get(node, at(TLS_PORT), host).is_ok())
        };
        Ok([open("shop.test")?, open("admin.wild.test")?, open("other.wild.test")?])
    };
    assert_eq!(opens(None)?, [true, false, true]);
    let told = |host: &str| -> Result<Value> {
        let url = format!("https://{host}:{TLS_PORT}/");
        Ok(rig.gateway.cli(&["explain", "GET", &url, "-o", "json"])?.ok()?.json()?["client_cert"].take())
    };
    let rules = |host: &str, required: bool, ca: &str| json!({ "required": required, "ca": rig.gateway.file(ca), "host": host });
    assert_eq!(told("shop.test")?, Value::Null);
    assert_eq!(told("admin.wild.test")?, rules("admin.wild.test", true, "ca.pem"));
    assert_eq!(told("Other.Wild.test")?, rules("*.wild.test", false, "team.pem"));
    let shown = rig.gateway.cli(&["explain", "GET", &format!("https://a.wild.test:{TLS_PORT}/")])?.ok()?;
    assert!(shown.stdout.contains("checked if shown, from "), "{}", shown.stdout);
    assert_eq!(opens(Some(&known))?, [true, true, false]);
    assert_eq!(opens(Some(&member))?, [true, false, true]);
    // Who has shaken hands for one host asks for another, in any spelling.
    for host in
        ["admin.wild.test", "ADMIN.Wild.test", "admin.wild.test.", "admin.wild.test:8443", "x.wild.test"]
    {
        for version in ["--http1.1", "--http2"] {
            let refused = rig.curl("shop.test", "/", &[version, "-H", &format!("host: {host}")])?;
            assert_eq!(refused.status, 421, "{host} by {version}");
        }
    }
    assert_eq!(rig.curl("shop.test", "/", &["-H", "host: elsewhere.test"])?.status, 200);
    rig.gateway.log_line("it has its reason", |line| line["why"] == "misdirected")?;
    // Authorities are watched, those of hosts as well.
    std::fs::write(rig.gateway.file("team.pem"), &rig.authority.pem)?;
    eventually("others are known", || Ok(opens(Some(&known))? == [true, true, true]))?;
    assert_eq!(opens(Some(&member))?, [true, false, false]);
    Ok(())
}

// S9
#[test]
fn tickets_from_before_client_certificates_were_required_open_nothing() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let (client, node) = (rig.client()?, rig.net.client(1));
    client.get(node, at(TLS_PORT), "shop.test")?;
    rig.gateway.write(&config(&rig.backends, ", client_ca = \"ca.pem\"", ""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert!(client.get(node, at(TLS_PORT), "shop.test").is_err());
    Ok(())
}

// S13
#[test]
fn a_handshake_that_does_not_go_on_is_cut() -> Result<()> {
    lab_test!();
    let rig = rig("", "timeout = { header = \"300ms\" }")?;
    let mut client = Client::connect(rig.net.client(1), at(TLS_PORT))?;
    client.send([0x16, 0x03, 0x01])?;
    client.closed(Duration::from_secs(2))?;
    let labels = [("listener", "secure"), ("result", "timeout")];
    eventually("it is counted", || Ok(rig.gateway.metrics()?.sum("tls_handshakes_total", &labels) == 1.0))
}

// S8
#[test]
fn redirects_to_https_keep_host_and_path_and_answers_by_tls_ask_to_stay_there() -> Result<()> {
    lab_test!();
    let rig = rig(
        "",
        "hsts = { max_age = \"365d\", subdomains = true }\n[listener.web]\nbind = \":80\"\nredirect = \"https\"",
    )?;
    let mut client = Client::connect(rig.net.client(1), at(80))?;
    client.send("GET /a%20b?c=d HTTP/1.1\r\nhost: shop.test:80\r\n\r\n")?;
    let answer = client.response()?;
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://shop.test/a%20b?c=d")));
    assert_eq!(answer.header("strict-transport-security"), None);
    client.send("POST /x HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 2\r\n\r\nab")?;
    let answer = client.response()?;
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://shop.test/x")));
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    let secure = rig.curl("shop.test", "/", &[])?;
    let hsts = "max-age=31536000; includesubdomains";
    assert_eq!((secure.status, secure.header("strict-transport-security")), (200, Some(hsts)));
    Ok(())
}

// O4
#[test]
fn idle_tls_connections_are_closed_properly_at_stop() -> Result<()> {
    lab_test!();
    let mut rig = rig("", "")?;
    let mut idle = rig.client()?.connect(rig.net.client(1), at(TLS_PORT), "shop.test")?;
    std::io::Write::write_all(&mut idle, b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n")?;
    let mut some = [0; 15];
    idle.read_exact(&mut some)?;
    assert!(rig.gateway.stop()?.success());
    // An end without close_notify would be an error.
    idle.read_to_end(&mut Vec::new())?;
    Ok(())
}

// S8
#[test]
fn a_request_in_clear_where_tls_is_spoken_is_told_so() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let mut client = Client::connect(rig.net.client(1), at(TLS_PORT))?;
    let answer = client.get("/")?;
    answer.refused(400, "plain_http")?;
    client.closed(Duration::from_secs(3))?;
    let line = rig.gateway.log_of(&answer)?;
    assert_eq!((&line["why"], &line["status"]), (&json!("plain_http"), &json!(400)), "{line}");
    let failed = rig.gateway.metrics()?.sum("tls_handshakes_total", &[("result", "failed")]);
    assert_eq!((failed, rig.backends[0].stats()?.requests), (1.0, 0));
    assert_eq!(rig.curl("shop.test", "/", &[])?.status, 200);
    Ok(())
}
