//! S12: the client's address from a header of a trusted proxy.

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    curl::Curl,
    peers,
    prelude::*,
};

struct Rig {
    gateway: Gateway,
    net: Net,
    _backends: Vec<Backend>,
    _turn: lab::lock::Turn,
}

/// The first of two clients is a trusted proxy.
fn rig(header: &str, more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::of(2, 0, 1)?;
    let backends = start_all(&net)?;
    let header = if header.is_empty() { String::new() } else { format!(", header = \"{header}\"") };
    let config = format!(
        "[gateway]\nworkers = 1\n\
         [listener.web]\nbind = \":80\"\nreal_ip = {{ from = [\"{}\", \"10.9.0.0/16\"]{header} }}\n{more}\n\
         [route.all]\nto = {}\n",
        net.client(1).v4(),
        targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    let authority = Authority::new()?;
    authority.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    Ok(Rig { gateway, net, _backends: backends, _turn: turn })
}

impl Rig {
    fn proxy(&self) -> String {
        self.net.client(1).v4().to_string()
    }

    /// What the backend saw of a request with these fields.
    fn ask(&self, client: &mut Client, path: &str, fields: &str) -> Result<Value> {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n"))?;
        client.response()?.json()
    }

    fn trusted(&self) -> Result<Client> {
        Client::connect(self.net.client(1), self.gateway.at4())
    }

    fn logged(&self, path: &str) -> Result<String> {
        Ok(self.gateway.log_of_path(path)?["client"].as_str().unwrap_or("").to_owned())
    }
}

#[test]
fn each_request_of_a_trusted_proxy_is_its_own_client_s() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let mut client = rig.trusted()?;
    let proxy = rig.proxy();
    for (path, told, real) in [
        ("/echo/1", "198.51.100.1", "198.51.100.1"),
        ("/echo/2", "203.0.113.9, 198.51.100.2, 10.9.0.1", "198.51.100.2"),
        ("/echo/3", "2001:db8::3", "2001:db8::3"),
    ] {
        let fields =
            format!("x-forwarded-for: {told}\r\nx-forwarded-proto: https\r\nx-forwarded-host: a.test\r\n");
        let seen = rig.ask(&mut client, path, &fields)?;
        assert_eq!(http::echoed(&seen, "x-forwarded-for"), [format!("{told}, {proxy}")]);
        assert_eq!(http::echoed(&seen, "x-forwarded-proto"), ["https"]);
        assert_eq!(http::echoed(&seen, "x-forwarded-host"), ["a.test"]);
        assert_eq!(http::echoed(&seen, "host"), ["shop.test"]);
        let node = if real.contains(':') { format!("\"[{real}]\"") } else { real.to_owned() };
        assert_eq!(http::echoed(&seen, "forwarded"), [format!("for={node};proto=https;host=a.test")]);
        assert_eq!(rig.logged(path)?, real);
        let peer = rig.gateway.log_of_path(path)?["peer"].clone();
        assert!(peer.as_str().is_some_and(|peer| peer.starts_with(&proxy)), "{peer}");
    }
    // What it says besides goes on, each if it is there once.
    let fields = "x-forwarded-for: 198.51.100.1\r\nx-forwarded-prefix: /shop\r\nx-forwarded-server: edge-1\r\n\
                  x-forwarded-port: 8443\r\nx-forwarded-port: 1\r\nx-forwarded-ssl: on\r\n";
    let seen = rig.ask(&mut client, "/echo/more", fields)?;
    assert_eq!(http::echoed(&seen, "x-forwarded-prefix"), ["/shop"]);
    assert_eq!(http::echoed(&seen, "x-forwarded-server"), ["edge-1"]);
    for name in ["x-forwarded-port", "x-forwarded-ssl"] {
        assert!(http::echoed(&seen, name).is_empty(), "{name}: {seen}");
    }
    // Without the header it is the proxy's own request.
    let seen = rig.ask(&mut client, "/echo/own", "")?;
    assert_eq!(http::echoed(&seen, "x-forwarded-for"), std::slice::from_ref(&proxy));
    assert_eq!(http::echoed(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(rig.logged("/echo/own")?, proxy);
    // One that cannot be read is nobody else's.
    rig.ask(&mut client, "/echo/before", "x-forwarded-for: 198.51.100.1\r\n")?;
    client.send("nonsense\r\n\r\n")?;
    assert_eq!(client.response()?.status, 400);
    let line = rig.gateway.log_line("the refused one", |line| line["status"] == 400)?;
    assert_eq!(line["client"], proxy.as_str());
    Ok(())
}

#[test]
fn a_spoofed_header_from_an_untrusted_peer_is_ignored() -> Result<()> {
    lab_test!();
    let spoofed = "x-forwarded-for: 198.51.100.1\r\nforwarded: for=198.51.100.1;proto=https\r\n\
                   x-forwarded-proto: https\r\nx-forwarded-host: evil.test\r\ncf-connecting-ip: 198.51.100.1\r\n";
    for header in ["x-forwarded-for", "forwarded", "cf-connecting-ip"] {
        let rig = rig(header, "")?;
        let other = rig.net.client(2);
        let mut client = Client::connect(other, rig.gateway.at4())?;
        let seen = rig.ask(&mut client, "/echo/spoofed", spoofed)?;
        let own = other.v4().to_string();
        assert_eq!(http::echoed(&seen, "x-forwarded-for"), std::slice::from_ref(&own), "{header}");
        assert_eq!(http::echoed(&seen, "forwarded"), [format!("for={own};proto=http;host=shop.test")]);
        assert_eq!(http::echoed(&seen, "x-forwarded-proto"), ["http"]);
        assert_eq!(http::echoed(&seen, "x-forwarded-host"), ["shop.test"]);
        if header == "cf-connecting-ip" {
            assert!(http::echoed(&seen, header).is_empty(), "{seen}");
        }
        assert_eq!(rig.logged("/echo/spoofed")?, own);
    }
    Ok(())
}

#[test]
fn forwarded_is_read_and_goes_on() -> Result<()> {
    lab_test!();
    let rig = rig("forwarded", "")?;
    let proxy = rig.proxy();
    let told = "for=203.0.113.9, for=\"[2001:db8::1]:4711\";proto=https;host=\"a.test:8443\"";
    let mut client = rig.trusted()?;
    let seen = rig.ask(&mut client, "/echo/1", &format!("forwarded: {told}\r\n"))?;
    assert_eq!(http::echoed(&seen, "forwarded"), [format!("{told}, for={proxy};proto=http;host=shop.test")]);
    assert_eq!(http::echoed(&seen, "x-forwarded-for"), [format!("2001:db8::1, {proxy}")]);
    assert_eq!(http::echoed(&seen, "x-forwarded-proto"), ["https"]);
    assert_eq!(http::echoed(&seen, "x-forwarded-host"), ["a.test:8443"]);
    assert_eq!(rig.logged("/echo/1")?, "2001:db8::1");
    Ok(())
}

#[test]
fn a_header_of_one_address_is_read() -> Result<()> {
    lab_test!();
    let rig = rig("cf-connecting-ip", "")?;
    let mut client = rig.trusted()?;
    let seen = rig.ask(&mut client, "/echo/1", "cf-connecting-ip: 2001:db8::1\r\n")?;
    assert_eq!(http::echoed(&seen, "x-forwarded-for"), [format!("2001:db8::1, {}", rig.proxy())]);
    assert_eq!(rig.logged("/echo/1")?, "2001:db8::1");
    Ok(())
}

#[test]
fn nginx_in_front_tells_its_clients_addresses() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let front = rig.net.client(1);
    let listen: SocketAddr = "127.0.0.1:8001".parse()?;
    let _nginx = peers::nginx(
        front,
        listen,
        &format!(
            "server {{ listen {listen}; location / {{ proxy_pass http://{VIP4}; proxy_set_header Host $host;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
        ),
    )?;
    // What the client says of itself stands before what nginx saw.
    let mut client = Client::connect(front, listen)?;
    let seen = rig.ask(&mut client, "/echo/1", "x-forwarded-for: 203.0.113.9\r\n")?;
    assert_eq!(http::echoed(&seen, "x-forwarded-for"), [format!("203.0.113.9, 127.0.0.1, {}", rig.proxy())]);
    assert_eq!(rig.logged("/echo/1")?, "127.0.0.1");
    Ok(())
}

#[test]
fn streams_of_one_http2_connection_have_clients_of_their_own() -> Result<()> {
    lab_test!();
    let rig = rig(
        "",
        "protocols = [\"h1\", \"h2\"]\ntls = { cert = \"main\" }\n[cert.main]\nchain = \"main.pem\"\nkey = { file = \"main.key\" }",
    )?;
    let (ca, resolve) = (rig.gateway.file("ca.pem").display().to_string(), format!("shop.test:80:{VIP4}"));
    let own = ["--cacert", &ca, "--resolve", &resolve];
    let first = ["-H", "x-forwarded-for: 198.51.100.1", "https://shop.test:80/echo/1"];
    let second = [
        "--next",
        "-sS",
        "--cacert",
        &ca,
        "-H",
        "x-forwarded-for: 198.51.100.2",
        "https://shop.test:80/echo/2",
    ];
    let answer = Curl::run(rig.net.client(1), &[&own[..], &first, &second].concat())?;
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(
        (rig.logged("/echo/1")?, rig.logged("/echo/2")?),
        ("198.51.100.1".into(), "198.51.100.2".into())
    );
    let one = |path: &str| Ok::<_, anyhow::Error>(rig.gateway.log_of_path(path)?["peer"].clone());
    assert_eq!(one("/echo/1")?, one("/echo/2")?, "one connection");
    Ok(())
}

#[test]
fn a_trusted_address_of_the_proxy_protocol_is_trusted() -> Result<()> {
    lab_test!();
    let rig = rig("", "proxy_protocol = { from = [\"10.77.0.0/16\"] }")?;
    // The balancer in front is nobody's proxy but passes one on that is.
    for (source, real) in [("10.9.1.1", "198.51.100.1"), ("203.0.113.1", "203.0.113.1")] {
        let mut client = Client::connect(rig.net.client(2), rig.gateway.at4())?;
        client.send(format!("PROXY TCP4 {source} {VIP4} 4711 80\r\n"))?;
        let path = format!("/echo/{source}");
        rig.ask(&mut client, &path, "x-forwarded-for: 198.51.100.1\r\n")?;
        assert_eq!(rig.logged(&path)?, real);
    }
    Ok(())
}
