//! One line a request, whatever became of it, with the times of its way (M4).

use std::io::Write as _;

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    http2::{GET, Http2},
    prelude::*,
    tls::TlsClient,
};

use super::rig;

fn secure(port: u16) -> SocketAddr {
    SocketAddr::from((VIP4, port))
}

/// A gateway that speaks TLS at 443, and ends it for a service at 5432.
fn tls_rig() -> Result<(Rig, Authority)> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let to = targets(&backends);
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n\
         [listener.secure]\nbind = \":443\"\ntls = {{ cert = \"main\" }}\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n[route.all]\nto = {to}\n\
         [service.db]\nbind = \":5432\"\npath = \"splice\"\ntls = {{ cert = \"main\" }}\nto = {to}\n"
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    let authority = Authority::new()?;
    authority.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    gateway.run()?;
    Ok((Rig::of(gateway, backends, net, turn), authority))
}

/// While it stands still, whatever a client does is there at once when it goes on.
fn while_it_stands(gateway: &Gateway, client: impl FnOnce() -> Result<()>) -> Result<()> {
    gateway.signal(libc::SIGSTOP)?;
    let done = client();
    gateway.signal(libc::SIGCONT)?;
    done
}

/// The lines of these paths, in which nothing else is told of than of clients that are gone.
fn are_gone(gateway: &Gateway, paths: &[&str]) -> Result<()> {
    let all = eventually("every request has its line", || Ok(gateway.log()?.len() == paths.len()));
    all.with_context(|| format!("{:?}", gateway.log()))?;
    let lines = gateway.log()?;
    let mut logged: Vec<&str> = lines.iter().filter_map(|line| line["path"].as_str()).collect();
    logged.sort_unstable();
    assert_eq!(logged, paths);
    for line in &lines {
        assert_eq!((&line["why"], &line["status"]), (&json!("client_gone"), &json!(499)), "{line}");
    }
    let metrics = gateway.metrics()?;
    assert_eq!(metrics.sum("http_requests_total", &[("code", "499")]), paths.len() as f64);
    assert_eq!(metrics.sum("http_errors_total", &[("reason", "client_gone")]), paths.len() as f64);
    assert_eq!(metrics.sum("http_active_requests", &[]), 0.0);
    Ok(())
}

// M4
#[test]
fn a_request_whose_client_is_gone_with_it_has_its_line_and_is_counted() -> Result<()> {
    lab_test!();
    let (rig, authority) = tls_rig()?;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    let trust = TlsClient::new(&authority.pem, None, &["http/1.1"])?;
    let mut tls = trust.connect(rig.net.client(1), secure(443), "shop.test")?;
    while_it_stands(&rig.gateway, || {
        let mut plain = rig.client()?;
        plain.send(ask("/hang?plain"))?;
        let mut posts = rig.client()?;
        posts.send("POST /hang?post HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")?;
        let mut resets = rig.client()?;
        resets.send(ask("/hang?reset"))?;
        socket2::SockRef::from(&resets.stream).set_linger(Some(Duration::ZERO))?;
        write!(tls, "{}", ask("/hang?tls"))?;
        tls.conn.send_close_notify();
        tls.flush()?;
        drop(tls);
        let mut http2 = Http2::connect(rig.net.client(1), rig.gateway.at4())?;
        for stream in [1, 3, 5] {
            http2.request(stream, &[GET, &lab::http2::field(":authority", "a.test")].concat())?;
        }
        Ok(())
    })?;
    are_gone(&rig.gateway, &["/", "/", "/", "/hang", "/hang", "/hang", "/hang"])
}

// M4
#[test]
fn a_client_that_leaves_before_its_body_has_ended_is_gone_and_one_whose_body_is_wrong_is_told() -> Result<()>
{
    lab_test!();
    let rig = rig()?;
    let post = |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\n{rest}");
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let bodies = [
        ("/echo-body?length", "content-length: 50\r\n\r\nhello".to_owned()),
        ("/echo-body?none", "content-length: 50\r\n\r\n".to_owned()),
        ("/echo-body?chunk", format!("{chunked}a\r\nhello")),
        ("/echo-body?size", format!("{chunked}5\r\nhello\r\n1")),
        ("/echo-body?end", format!("{chunked}5\r\nhello\r\n")),
        ("/echo-body?trailers", format!("{chunked}5\r\nhello\r\n0\r\na: b\r\n")),
    ];
    for reset in [false, true] {
        for (path, rest) in &bodies {
            let mut client = rig.client()?;
            client.send(post(path, rest))?;
            let active = || -> Result<f64> { Ok(rig.gateway.metrics()?.sum("http_active_requests", &[])) };
            eventually("it has begun", || Ok(active()? == 1.0))?;
            if reset {
                socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO))?;
            }
            drop(client);
            eventually("it is over", || Ok(active()? == 0.0))?;
        }
    }
    are_gone(&rig.gateway, &["/echo-body"; 12])?;
    let mut client = rig.client()?;
    client.send(post("/echo-body", &format!("{chunked}5\r\nhello!\r\n0\r\n\r\n")))?;
    client.response()?.refused(400, "bad_request")
}

// M4
#[test]
fn of_requests_that_came_together_the_last_is_begun_too_though_nobody_waits_for_it() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    while_it_stands(&rig.gateway, || {
        let mut client = rig.client()?;
        client.send("GET /first HTTP/1.1\r\nhost: a\r\n\r\nGET /hang HTTP/1.1\r\nhost: a\r\n\r\n")
    })?;
    eventually("both have their lines", || Ok(rig.gateway.log()?.len() == 2))?;
    let lines = rig.gateway.log()?;
    let of = |path: &str| lines.iter().find(|line| line["path"] == path).context("no line").cloned();
    assert_eq!((&of("/first")?["status"], &of("/hang")?["why"]), (&json!(200), &json!("client_gone")));
    Ok(())
}

// M4
#[test]
fn half_a_head_has_a_line_and_a_connection_without_a_request_has_none() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    drop(rig.client()?);
    let mut client = rig.client()?;
    client.send("GET /half HTTP/1.1\r\nho")?;
    drop(client);
    let mut client = rig.client()?;
    assert_eq!(client.get("/whole")?.status, 200);
    drop(client);
    eventually("two lines", || Ok(rig.gateway.log()?.len() == 2))?;
    let lines = rig.gateway.log()?;
    let half = lines.iter().find(|line| line["path"].is_null()).context("no such line")?;
    assert_eq!((&half["why"], &half["method"]), (&json!("client_gone"), &json!(null)), "{half}");
    Ok(())
}

// M4
#[test]
fn the_handshake_is_in_the_line_of_a_connections_first_request_and_in_no_other() -> Result<()> {
    lab_test!();
    let (rig, authority) = tls_rig()?;
    let client = rig.net.client(1);
    let slowly = |alpn: &[&str], port: u16| {
        let stream = client.connect(secure(port), None)?;
        // The gateway waits for the client's first message.
        std::thread::sleep(Duration::from_millis(120));
        TlsClient::new(&authority.pem, None, alpn)?.over(stream, "shop.test")
    };
    let mut http1 = slowly(&["http/1.1"], 443)?;
    for path in ["/one", "/two"] {
        write!(http1, "GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n")?;
        rig.gateway.log_of_path(path)?;
    }
    let times = |line: &Value| (line["us_tls"].as_u64(), line["us"].as_u64().unwrap_or(0));
    let (tls, us) = times(&rig.gateway.log_of_path("/one")?);
    assert!(tls.is_some_and(|tls| (100_000..10_000_000).contains(&tls) && us < tls), "{tls:?} {us}");
    assert_eq!(times(&rig.gateway.log_of_path("/two")?).0, None);
    let at = "https://shop.test/three";
    let resolve = format!("shop.test:443:{VIP4}");
    let ca = rig.gateway.file("ca.pem");
    std::fs::write(&ca, &authority.pem)?;
    let ca = ca.display().to_string();
    let arguments = ["--http2", "--resolve", &resolve, "--cacert", &ca, at, "https://shop.test/four"];
    client
        .namespace
        .output("curl", &[&["-sS", "-o", "/dev/null", "-o", "/dev/null"], &arguments[..]].concat())?;
    let three = rig.gateway.log_of_path("/three")?;
    assert!(times(&three).0.is_some_and(|tls| tls > 0) && three["proto"] == "h2", "{three}");
    assert_eq!(times(&rig.gateway.log_of_path("/four")?).0, None);
    assert_eq!(times(&rig.gateway.log_of_path("/two")?).0, None);
    let mut service = slowly(&[], 5432)?;
    write!(service, "GET / HTTP/1.0\r\n\r\n")?;
    drop(service);
    let line = rig.gateway.log_line("the service's", |line| line["service"] == "db")?;
    assert!(times(&line).0.is_some_and(|tls| tls >= 100_000), "{line}");
    // In clear there is none.
    let plain = rig.client()?.get("/plain")?;
    assert_eq!(times(&rig.gateway.log_of(&plain)?).0, None);
    Ok(())
}
