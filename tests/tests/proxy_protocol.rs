//! S12: the client's address by the PROXY protocol, and its way on to upstreams.

use std::io::Write;

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    curl::Curl,
    peers,
    prelude::*,
};

const TLS_PORT: u16 = 443;

struct Rig {
    gateway: Gateway,
    net: Net,
    _backends: Vec<Backend>,
    _turn: lab::lock::Turn,
}

/// `from`: whose headers are believed, beside `more` of the listener's keys.
fn rig(backends: usize, from: impl Fn(&Net) -> String, more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::of(2, 0, backends)?;
    let backends = start_all(&net)?;
    let from = from(&net);
    let config = format!(
        "[gateway]\nworkers = 2\nlog = {{ level = \"debug\" }}\n\
         [listener.web]\nbind = \":80\"\nproxy_protocol = {{ from = [{from}] }}\n{more}\n\
         [listener.secure]\nbind = \":{TLS_PORT}\"\nproxy_protocol = {{ from = [{from}] }}\ntls = {{ cert = \"main\" }}\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n\
         [route.all]\nto = {}\n",
        targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    let authority = Authority::new()?;
    authority.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    Ok(Rig { gateway, net, _backends: backends, _turn: turn })
}

fn first_client(net: &Net) -> String {
    format!("\"{}\", \"{}\"", net.client(1).v4(), net.client(1).v6())
}

impl Rig {
    fn results(&self, listener: &str, result: &str) -> Result<f64> {
        let labels = [("listener", listener), ("result", result)];
        Ok(self.gateway.metrics()?.sum("proxy_protocol_total", &labels))
    }

    fn begin(&self, bytes: impl AsRef<[u8]>) -> Result<Client> {
        let mut client = Client::connect(self.net.client(1), self.gateway.at4())?;
        client.send(bytes)?;
        Ok(client)
    }
}

fn saw(answer: &Value, name: &str) -> String {
    http::echoed(answer, name).into_iter().next().unwrap_or_default()
}

const LINE: &str = "PROXY TCP4 198.51.100.7 203.0.113.1 4711 80\r\n";

#[test]
fn the_address_in_the_header_is_the_client_s_everywhere() -> Result<()> {
    lab_test!();
    let rig = rig(1, first_client, "")?;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\xcb\0\x71\x01\x12\x67\0\x50";
    for (n, header) in [LINE.as_bytes(), v2].into_iter().enumerate() {
        let mut client = rig.begin(header)?;
        // Of every request of the connection, not just the first.
        for m in 0..2 {
            let path = format!("/echo/{n}-{m}");
            let answer = client.get(&path)?;
            let seen = answer.json()?;
            assert_eq!(saw(&seen, "x-forwarded-for"), "198.51.100.7");
            assert!(saw(&seen, "forwarded").starts_with("for=198.51.100.7;"), "{seen}");
            let line = rig.gateway.log_of_path(&path)?;
            assert_eq!(line["client"], "198.51.100.7");
            let peer: SocketAddr = line["peer"].as_str().unwrap_or("").parse()?;
            assert_eq!(peer.ip(), rig.net.client(1).v4());
        }
    }
    assert_eq!(rig.results("web", "ok")?, 2.0);
    Ok(())
}

#[test]
fn curl_says_it_before_tls() -> Result<()> {
    lab_test!();
    let rig = rig(1, first_client, "")?;
    let (ca, resolve) = (rig.gateway.file("ca.pem").display().to_string(), format!("shop.test:443:{VIP4}"));
    let url = "https://shop.test/echo/curl";
    let own = ["--cacert", &ca, "--resolve", &resolve, url];
    let answer = Curl::run(rig.net.client(1), &[&["--haproxy-protocol"], &own[..]].concat())?;
    assert_eq!((answer.code, answer.status, answer.version.as_str()), (0, 200, "2"), "{answer:?}");
    assert_eq!(saw(&answer.json()?, "x-forwarded-for"), rig.net.client(1).v4().to_string());
    assert_eq!(rig.results("secure", "ok")?, 1.0);
    // Without, what comes is no header but a handshake.
    let answer = Curl::run(rig.net.client(1), &own)?;
    assert_eq!(answer.code, 35, "{answer:?}");
    assert_eq!(rig.results("secure", "absent")?, 1.0);
    // Who is not listed is served without.
    let answer = Curl::run(rig.net.client(2), &own)?;
    assert_eq!((answer.code, answer.status), (0, 200), "{answer:?}");
    assert_eq!(saw(&answer.json()?, "x-forwarded-for"), rig.net.client(2).v4().to_string());
    Ok(())
}

#[test]
fn who_must_send_a_header_and_does_not_is_refused() -> Result<()> {
    lab_test!();
    let rig = rig(1, first_client, "timeout = { header = \"300ms\" }")?;
    for (sent, result) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "absent"),
        ("PROXY TCP4 198.51.100.7 203.0.113.1 4711\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", "malformed"),
        ("PROXY TCP4 198.51.100.7 203.0.113.1 47", "timeout"),
        ("", "timeout"),
    ] {
        let before = rig.results("web", result)?;
        let mut client = rig.begin(sent)?;
        assert_eq!(client.until_closed()?, 0, "{sent:?}");
        eventually("it is counted", || Ok(rig.results("web", result)? == before + 1.0))?;
    }
    drop(rig.begin("PROXY")?);
    eventually("one that went away is counted", || Ok(rig.results("web", "gone")? == 1.0))?;
    rig.gateway.says("the PROXY line of version 1 is malformed")?;
    eventually("no connection is left", || {
        Ok(rig.gateway.metrics()?.sum("connections_active", &[("listener", "web")]) == 0.0)
    })
}

#[test]
fn who_is_not_listed_is_served_without_a_header_and_not_believed() -> Result<()> {
    lab_test!();
    let rig = rig(1, first_client, "")?;
    let other = rig.net.client(2);
    let answer = http::get(other, rig.gateway.at4(), "/echo/plain")?;
    assert_eq!(saw(&answer.json()?, "x-forwarded-for"), other.v4().to_string());
    let mut client = Client::connect(other, rig.gateway.at4())?;
    client.send(format!("{LINE}GET /echo/spoofed HTTP/1.1\r\nhost: a\r\n\r\n"))?;
    let refused = client.response()?;
    assert_eq!(refused.status, 400, "{refused:?}");
    Ok(())
}

#[test]
fn headers_that_name_nobody_leave_the_peer_s_address() -> Result<()> {
    lab_test!();
    let rig = rig(1, first_client, "")?;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".as_slice();
    for (n, header) in [b"PROXY UNKNOWN\r\n".as_slice(), local].into_iter().enumerate() {
        let path = format!("/echo/{n}");
        let seen = rig.begin(header)?.get(&path)?.json()?;
        assert_eq!(saw(&seen, "x-forwarded-for"), rig.net.client(1).v4().to_string());
    }
    assert_eq!((rig.results("web", "ok")?, rig.results("web", "local")?), (1.0, 1.0));
    Ok(())
}

#[test]
fn a_header_that_comes_byte_by_byte_is_one() -> Result<()> {
    lab_test!();
    let rig = rig(1, first_client, "")?;
    let mut client = rig.begin("")?;
    client.stream.set_nodelay(true)?;
    for byte in LINE.bytes() {
        client.stream.write_all(&[byte])?;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(saw(&client.get("/echo/slow")?.json()?, "x-forwarded-for"), "198.51.100.7");
    Ok(())
}

#[test]
fn haproxy_in_front_tells_its_clients_addresses_by_either_version() -> Result<()> {
    lab_test!();
    let rig = rig(1, first_client, "")?;
    let front = rig.net.client(1);
    let places: Vec<SocketAddr> = ["127.0.0.1:8001", "127.0.0.1:8002", "[::1]:8003"]
        .iter()
        .map(|place| place.parse())
        .collect::<Result<_, _>>()?;
    let sections: String =
        [(places[0], "send-proxy"), (places[1], "send-proxy-v2"), (places[2], "send-proxy-v2")]
            .iter()
            .map(|(listen, how)| {
                format!(
                    "listen l{}\n  mode tcp\n  bind {listen}\n  server g {VIP4}:80 {how}{}\n",
                    listen.port(),
                    if *how == "send-proxy-v2" { " proxy-v2-options crc32c,unique-id" } else { "" }
                )
            })
            .collect();
    let _haproxy = peers::haproxy(front, places[0], &sections)?;
    for (place, client) in places.iter().zip(["127.0.0.1", "127.0.0.1", "::1"]) {
        let path = format!("/echo/{}", place.port());
        let seen = http::get(front, *place, &path)?.json()?;
        assert_eq!(saw(&seen, "x-forwarded-for"), client);
        assert_eq!(rig.gateway.log_of_path(&path)?["client"], client);
    }
    Ok(())
}

#[test]
fn ip_hash_goes_by_the_address_in_the_header() -> Result<()> {
    lab_test!();
    let rig = rig(3, first_client, "")?;
    let config = std::fs::read_to_string(rig.gateway.config())?;
    let config = config.replace(
        "[route.all]\nto = ",
        "[route.all]\nto = \"hashed\"\n[upstream.hashed]\nbalance = \"ip-hash\"\nto = ",
    );
    rig.gateway.write(&config)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let at = |client: u8| -> Result<String> {
        let header = format!("PROXY TCP4 198.51.100.{client} 203.0.113.1 4711 80\r\n");
        Ok(rig.begin(header)?.get("/")?.backend().to_owned())
    };
    let mut seen = BTreeSet::new();
    for client in 0..20 {
        let first = at(client)?;
        assert_eq!(at(client)?, first);
        seen.insert(first);
    }
    assert!(seen.len() > 1, "{seen:?}");
    Ok(())
}

/// nginx as a server that takes connections only with a header, and says what was in it.
fn told_to_nginx(version: &str) -> Result<()> {
    let _turn = shared()?;
    let net = Net::of(2, 0, 1)?;
    let at = net.backend(1).at(8080);
    let nginx = peers::nginx(
        net.backend(1),
        at,
        &format!(
            "log_format told '$proxy_protocol_addr $request_uri';
             server {{ listen {at} proxy_protocol; access_log access.log told; return 200 \
             '$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port'; }}"
        ),
    )?;
    let gateway = Gateway::start(
        &net,
        &format!(
            "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\nreal_ip = {{ from = \"{}\" }}\n\
             [upstream.told]\nto = [\"{at}\"]\nproxy_protocol = \"{version}\"\n\
             health = {{ path = \"/healthz\", every = \"100ms\", rise = 1, fall = 1 }}\n\
             [route.all]\nto = \"told\"\n",
            net.client(2).v4()
        ),
    )?;
    eventually("a check was taken", || Ok(nginx.log().contains("/healthz")))?;
    let mut one = Client::connect(net.client(1), gateway.at4())?;
    let mut two = Client::connect(net.client(2), gateway.at4())?;
    // In turns, so that a connection that is kept would be the other one's.
    for _ in 0..3 {
        for (client, node) in [(&mut one, net.client(1)), (&mut two, net.client(2))] {
            let port = client.stream.local_addr()?.port();
            let told = client.get("/")?.text();
            assert_eq!(told, format!("{}|{port}|{VIP4}|80", node.v4()));
        }
    }
    // Whom a trusted proxy names, though from another family and without a port, of which nginx makes nothing.
    two.send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 2001:db8::1\r\n\r\n")?;
    assert_eq!(two.response()?.text(), format!("2001:db8::1||::ffff:{VIP4}|80"));
    let six = http::get(net.client(1), gateway.at6(), "/")?.text();
    assert!(
        six.starts_with(&format!("{}|", net.client(1).v6())) && six.ends_with(&format!("|{VIP6}|80")),
        "{six}"
    );
    // Checks are nobody's connections: they tell no client's address.
    let checks = nginx.log();
    let mut checks = checks.lines().filter(|line| line.ends_with("/healthz"));
    assert!(checks.all(|line| line == "- /healthz"), "{}", nginx.log());
    assert_eq!(gateway.metrics()?.sum("upstream_up", &[("upstream", "told")]), 1.0);
    Ok(())
}

#[test]
fn nginx_behind_is_told_by_version_1() -> Result<()> {
    lab_test!();
    told_to_nginx("v1")
}

#[test]
fn nginx_behind_is_told_by_version_2() -> Result<()> {
    lab_test!();
    told_to_nginx("v2")
}

#[test]
fn a_shadow_is_told_too() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backend = Backend::start(net.backend(1))?;
    let at = net.backend(2).at(8080);
    let nginx = peers::nginx(
        net.backend(2),
        at,
        &format!(
            "log_format told '$proxy_protocol_addr $request_uri';
             server {{ listen {at} proxy_protocol; access_log access.log told; return 200 ok; }}"
        ),
    )?;
    let gateway = Gateway::start(
        &net,
        &format!(
            "[listener.web]\nbind = \":80\"\n[upstream.shadow]\nto = [\"{at}\"]\nproxy_protocol = \"v2\"\n\
             [route.all]\nto = [\"{}\"]\nmirror = {{ to = \"shadow\" }}\n",
            backend.addr
        ),
    )?;
    for n in 0..3 {
        assert_eq!(http::get(net.client(1), gateway.at4(), &format!("/{n}"))?.status, 200);
    }
    let client = net.client(1).v4();
    eventually("the shadow was told", || Ok((0..3).all(|n| nginx.log().contains(&format!("{client} /{n}")))))
}
