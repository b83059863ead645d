//! TLS to upstreams: S9, P6, LB10.

use lab::{
    backend::start_all,
    certs::{Authority, Issued},
    http,
    peers::{self, Peer},
    prelude::*,
    websocket::Socket,
};

const TLS_PORT: u16 = 8443;
const CLEAR_PORT: u16 = 8081;
const NAME: &str = "app.internal";

/// nginx with TLS in front of a backend of the lab, on the same node.
struct Rig {
    gateway: Gateway,
    nginx: Peer,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

/// `shown`: nginx's certificate. `server`: more of nginx's config; `tls`: of the upstream.
fn rig_with(shown: impl Fn(&Authority) -> Result<Issued>, server: &str, tls: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let authority = Authority::new()?;
    let mut gateway = Gateway::prepare(&net, &config(&net, tls), Default::default())?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    authority.issue(&["gateway"])?.write(&gateway.file(""), "own")?;
    let nginx = start_nginx(&net, &authority, shown(&authority)?, server)?;
    gateway.run()?;
    Ok(Rig { gateway, nginx, backends, net, _turn: turn })
}

fn rig(tls: &str) -> Result<Rig> {
    rig_with(|authority| authority.issue(&[NAME]), "", tls)
}

fn start_nginx(net: &Net, authority: &Authority, shown: Issued, server: &str) -> Result<Peer> {
    let dir = peers::folder()?;
    shown.write(dir.path(), "server")?;
    std::fs::write(dir.path().join("ca.pem"), &authority.pem)?;
    let node = net.node("b1");
    let http = format!(
        "access_log access.log; ssl_protocols TLSv1.2 TLSv1.3; server {{ listen {clear}; return 200; }}\n\
         server {{ listen {at} ssl; ssl_certificate server.pem; ssl_certificate_key server.key;\n\
         {server}\n\
         location = /facts {{ return 200 \"$ssl_protocol $ssl_session_reused $ssl_server_name $ssl_client_s_dn\"; }}\n\
         location / {{ proxy_pass http://{backend}; proxy_http_version 1.1; proxy_set_header host $host;\n\
         proxy_set_header upgrade $http_upgrade; proxy_set_header connection $http_connection; \
         client_max_body_size 0; proxy_request_buffering off; proxy_buffering off; }} }}",
        clear = node.at(CLEAR_PORT),
        at = node.at(TLS_PORT),
        backend = node.at(lab::backend::PORT),
    );
    peers::nginx_in(node, dir, node.at(TLS_PORT), &http)
}

fn config(net: &Net, tls: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\n[listener.web]\nbind = \":80\"\n\
         [cert.own]\nchain = \"own.pem\"\nkey = {{ file = \"own.key\" }}\n\
         [upstream.app]\nto = [\"https://{}\"]\n{tls}\n\
         [route.all]\nto = \"app\"\nupgrade = [\"websocket\"]\n",
        net.node("b1").at(TLS_PORT)
    )
}

impl Rig {
    fn get(&self, path: &str) -> Result<Response> {
        http::get(self.net.client(1), self.gateway.at4(), path)
    }

    fn connects(&self, result: &str) -> Result<f64> {
        let labels = [("upstream", "app"), ("result", result)];
        Ok(self.gateway.metrics()?.sum("upstream_connects_total", &labels))
    }
}

const VERIFIED: &str = "tls = { sni = \"app.internal\", ca = \"ca.pem\" }";

// S9
#[test]
fn a_verified_target_is_spoken_to_by_tls() -> Result<()> {
    lab_test!();
    let rig = rig(VERIFIED)?;
    let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    for _ in 0..20 {
        assert_eq!(client.get("/echo")?.status, 200);
    }
    let facts = client.get("/facts")?.text();
    assert!(facts.starts_with("TLSv1.3 ") && facts.contains(" app.internal"), "{facts}");
    assert_eq!(rig.connects("ok")?, 1.0, "the connection is kept");
    assert_eq!(rig.backends[0].stats()?.requests, 20);
    Ok(())
}

// S9
#[test]
fn what_cannot_be_verified_is_refused_and_said_so() -> Result<()> {
    lab_test!();
    type Shown = fn(&Authority) -> Result<Issued>;
    let cases: [(&str, Shown, &str); 4] = [
        ("another name", |authority| authority.issue(&["other.internal"]), VERIFIED),
        ("expired", |authority| authority.issue_until(&[NAME], 2020), VERIFIED),
        ("another authority", |_| Authority::new()?.issue(&[NAME]), VERIFIED),
        (
            "the system's authorities",
            |authority| authority.issue(&[NAME]),
            "tls = { sni = \"app.internal\" }",
        ),
    ];
    for (case, shown, tls) in cases {
        let rig = rig_with(shown, "", tls)?;
        let answer = rig.get("/echo")?;
        answer.refused(502, "upstream_tls").context(case)?;
        assert_eq!(rig.gateway.log_of(&answer)?["why"], "upstream_tls", "{case}");
        assert_eq!((rig.connects("tls")?, rig.connects("ok")?), (1.0, 0.0), "{case}");
        assert_eq!(rig.backends[0].stats()?.requests, 0, "{case}");
        rig.gateway.says("TLS with an upstream failed")?;
    }
    Ok(())
}

// S9
#[test]
fn without_a_name_the_certificate_must_be_for_the_address() -> Result<()> {
    lab_test!();
    let tls = "tls = { ca = \"ca.pem\" }";
    let good = rig_with(|authority| authority.issue(&["10.77.2.2"]), "", tls)?;
    let answer = good.get("/echo")?;
    assert_eq!(answer.status, 200, "{}: {}", good.net.node("b1").v4(), answer.text());
    drop(good);
    rig(tls)?.get("/echo")?.refused(502, "upstream_tls")
}

// S9
#[test]
fn unverified_works_and_check_warns() -> Result<()> {
    lab_test!();
    let rig = rig_with(|_| Authority::new()?.issue(&["elsewhere"]), "", "tls = { verify = false }")?;
    assert_eq!(rig.get("/echo")?.status, 200);
    let config = rig.gateway.config().display().to_string();
    let check = rig.gateway.cli(&["check", &config])?.ok()?;
    assert!(check.stderr.contains("upstream.app.tls.verify = false"), "{check:?}");
    Ok(())
}

// S9
#[test]
fn a_target_in_clear_is_no_tls_target() -> Result<()> {
    lab_test!();
    let rig = rig(VERIFIED)?;
    let plain = config(&rig.net, VERIFIED).replace(":8443", &format!(":{CLEAR_PORT}"));
    rig.gateway.write(&plain)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    rig.get("/echo")?.refused(502, "upstream_tls")
}

// S9
#[test]
fn versions_below_the_oldest_are_refused() -> Result<()> {
    lab_test!();
    let old = rig_with(|authority| authority.issue(&[NAME]), "ssl_protocols TLSv1.2;", VERIFIED)?;
    assert!(old.get("/facts")?.text().starts_with("TLSv1.2 "));
    old.gateway.write(&config(&old.net, &VERIFIED.replace(" }", ", min = \"1.3\" }")))?;
    old.gateway.cli(&["reload"])?.ok()?;
    old.get("/facts")?.refused(502, "upstream_tls")
}

const WITH_CERT: &str = "tls = { sni = \"app.internal\", ca = \"ca.pem\", cert = \"own\" }";
const ASKS: &str = "ssl_verify_client on; ssl_client_certificate ca.pem;";

// S9
#[test]
fn a_client_certificate_is_shown_and_a_new_one_is_taken_from_its_files() -> Result<()> {
    lab_test!();
    let rig =
        rig_with(|authority| authority.issue(&[NAME]), ASKS, &format!("{WITH_CERT}\npool = {{ idle = 0 }}"))?;
    let facts = rig.get("/facts")?;
    assert!(facts.status == 200 && facts.text().ends_with("CN=lab"), "{}", facts.text());
    // One that nginx does not believe.
    Authority::new()?.issue(&["gateway"])?.write(&rig.gateway.file(""), "own")?;
    rig.gateway.says("a new certificate is in use")?;
    assert_eq!(rig.get("/facts")?.status, 400);
    Ok(())
}

// S9
#[test]
fn authorities_are_read_again_when_their_file_changes() -> Result<()> {
    lab_test!();
    let rig = rig(&format!("{VERIFIED}\npool = {{ idle = 0 }}"))?;
    let good = std::fs::read(rig.gateway.file("ca.pem"))?;
    assert_eq!(rig.get("/facts")?.status, 200);
    std::fs::write(rig.gateway.file("ca.pem"), Authority::new()?.pem)?;
    rig.gateway.says("new authorities of targets are in use")?;
    // The session of before would be resumed without a look at the certificate.
    rig.get("/facts")?.refused(502, "upstream_tls")?;
    std::fs::write(rig.gateway.file("ca.pem"), "no PEM")?;
    rig.gateway.says("targets are still checked as before")?;
    std::fs::write(rig.gateway.file("ca.pem"), good)?;
    eventually("the first are believed again", || Ok(rig.get("/facts")?.status == 200))
}

// S9
#[test]
fn without_the_certificate_that_is_asked_for_there_is_no_answer() -> Result<()> {
    lab_test!();
    let rig = rig(VERIFIED)?;
    // OpenSSL breaks the handshake off, where nginx answers 400.
    let node = rig.net.node("b1");
    let mut server = node.namespace.command("openssl")?;
    let file = |name: &str| rig.nginx.file(name).display().to_string();
    server.args(["s_server", "-accept", "8444", "-www", "-Verify", "1", "-verify_return_error"]);
    server.args(["-cert", &file("server.pem"), "-key", &file("server.key"), "-CAfile", &file("ca.pem")]);
    let _server = lab::process::Process::start({
        lab::process::quiet(&mut server);
        server
    })?;
    let at = node.at(8444);
    eventually("it listens", || Ok(node.connect(at, None).is_ok()))?;
    for (tls, good) in [(VERIFIED, false), (WITH_CERT, true)] {
        rig.gateway.write(&config(&rig.net, tls).replace(":8443", ":8444"))?;
        rig.gateway.cli(&["reload"])?.ok()?;
        let answer = rig.get("/")?;
        match good {
            true => assert_eq!(answer.status, 200, "{}", answer.text()),
            false => answer.refused(502, "upstream_tls")?,
        }
    }
    Ok(())
}

// S9
#[test]
fn sessions_are_resumed() -> Result<()> {
    lab_test!();
    let rig = rig(&format!("{VERIFIED}\npool = {{ idle = 0 }}"))?;
    let facts: Vec<String> = (0..6).map(|_| Ok(rig.get("/facts")?.text())).collect::<Result<_>>()?;
    assert!(facts[0].contains(" . "), "{facts:?}");
    assert!(facts[2..].iter().all(|facts| facts.contains(" r ")), "{facts:?}");
    Ok(())
}

// S9, P1
#[test]
fn large_bodies_pass_both_ways() -> Result<()> {
    lab_test!();
    let rig = rig(VERIFIED)?;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    for _ in 0..2 {
        let head = format!("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        client.send(head)?;
        client.send(&body)?;
        let answer = client.response()?;
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} bytes came back", answer.body.len());
    }
    let sse = client.get("/sse?n=3&ms=10")?;
    assert_eq!(sse.text(), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    assert_eq!(rig.connects("ok")?, 1.0);
    Ok(())
}

// P6
#[test]
fn websockets_pass() -> Result<()> {
    lab_test!();
    let rig = rig(VERIFIED)?;
    let mut socket = Socket::open(rig.net.client(1), rig.gateway.at4(), "/ws")?;
    let long = "x".repeat(300_000);
    for text in ["hello", &long, "again"] {
        assert!(socket.echo(text)? == text);
    }
    Ok(())
}

// S9
#[test]
fn an_answer_that_is_cut_is_not_taken_for_whole() -> Result<()> {
    lab_test!();
    let mut rig = rig(VERIFIED)?;
    let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    client.send("GET /no-length?cut HTTP/1.0\r\nhost: a\r\n\r\n")?;
    assert_eq!(client.response()?.status, 200);
    let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    client.send("GET /sse?n=1000&ms=20 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    assert_eq!(client.head()?.status, 200);
    rig.nginx.process.kill();
    assert_eq!(rig.gateway.log_of_path("/sse")?["why"], "upstream_reset");
    Ok(())
}

// LB10
#[test]
fn checks_speak_tls() -> Result<()> {
    lab_test!();
    for check in ["path = \"/healthz\"", "tcp = true"] {
        let health = format!("health = {{ {check}, every = \"100ms\", rise = 1, fall = 1 }}");
        let rig = rig(&format!("{VERIFIED}\n{health}"))?;
        let up = || -> Result<bool> {
            Ok(rig.gateway.metrics()?.sum("upstream_up", &[("upstream", "app")]) == 1.0)
        };
        let seen = || -> Result<String> {
            Ok(rig.gateway.status()?["upstreams"]["app"]["targets"][0]["check"].to_string())
        };
        eventually("it is checked", || Ok(seen()? == "\"ok\""))?;
        assert!(up()?, "{check}");
        // The name is no longer right.
        let other = VERIFIED.replace("app.internal", "other.internal");
        rig.gateway.write(&config(&rig.net, &format!("{other}\n{health}")))?;
        rig.gateway.cli(&["reload"])?.ok()?;
        eventually("it is down", || Ok(!up()?))?;
        assert!(seen()?.contains("TLS: "), "{check}: {}", seen()?);
    }
    Ok(())
}

// S9
#[test]
fn a_reload_from_clear_to_tls_uses_no_kept_connection_in_clear() -> Result<()> {
    lab_test!();
    let rig = rig(VERIFIED)?;
    let clear = config(&rig.net, "").replace("https://", "http://");
    rig.gateway.write(&clear)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    // nginx says so of plain HTTP on a TLS port.
    assert_eq!(rig.get("/echo")?.status, 400);
    rig.gateway.write(&config(&rig.net, VERIFIED))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    for _ in 0..4 {
        assert_eq!(rig.get("/echo")?.status, 200);
    }
    Ok(())
}

// S9, O9
#[test]
fn names_with_https_are_looked_up_and_certificates_must_be_for_them() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let _backends = start_all(&net)?;
    let authority = Authority::new()?;
    let dns = lab::dns::Dns::start(&net.gateway, "127.0.0.1:5353".parse()?)?;
    let at = IpAddr::from(net.node("b1").v4());
    dns.addresses("app.internal.", 1, &[at]);
    dns.addresses("other.internal.", 1, &[at]);
    let upstream = |name: &str, host: &str, tls: &str| {
        format!(
            "[upstream.{name}]\nto = [\"https://{host}:{TLS_PORT}/\"]\ntls = {{ ca = \"ca.pem\"{tls} }}\n\
             [route.{name}]\nhost = \"{name}.test\"\nto = \"{name}\"\n"
        )
    };
    let config = format!(
        "[gateway]\nresolver = [\"127.0.0.1:5353\"]\n[listener.web]\nbind = \":80\"\n{}{}{}",
        upstream("app", "app.internal", ""),
        upstream("other", "other.internal", ""),
        upstream("told", "other.internal", ", sni = \"app.internal\""),
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    let _nginx = start_nginx(&net, &authority, authority.issue(&[NAME])?, "")?;
    gateway.run()?;
    let ask = |host: &str| {
        let request = format!("GET /facts HTTP/1.1\r\nhost: {host}.test\r\nconnection: close\r\n\r\n");
        http::exchange(net.client(1), gateway.at4(), request)
    };
    for host in ["app", "told"] {
        let answer = ask(host)?;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
        assert!(answer.text().contains(NAME), "{host}: {}", answer.text());
    }
    ask("other")?.refused(502, "upstream_tls")
}
