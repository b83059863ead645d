//! Clients that send garbage, too much, or too slowly.

use lab::{
    backend::{start_all, targets},
    prelude::*,
    process::resident,
    wait::fires,
};

fn rig() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\nmax = {{ header = \"8KiB\", body = \"1MiB\", connections = 100 }}\n\
             timeout = {{ header = \"500ms\", idle = \"700ms\", body = \"500ms\" }}\n[route.all]\nto = {}\n",
            targets(backends)
        )
    })
}

/// Sends bytes that must be refused so, after which the connection must be closed and nothing have gone upstream.
fn refuses(rig: &Rig, bytes: impl AsRef<[u8]>, status: u16, why: &str) -> Result<()> {
    let shown: String = String::from_utf8_lossy(bytes.as_ref()).chars().take(80).collect();
    let mut client = rig.client()?;
    // It may be refused, and the connection closed, before all of it is sent.
    let _ = client.send(bytes);
    let answer = client.response().with_context(|| format!("no answer to {shown:?}"))?;
    answer.refused(status, why).with_context(|| format!("{shown:?}"))?;
    client.closed(Duration::from_secs(3)).with_context(|| format!("{shown:?}"))
}

/// The gateway is none the worse for it.
fn still_serves(rig: &Rig) -> Result<()> {
    ensure!(rig.client()?.get("/")?.status == 200);
    Ok(())
}

#[test]
fn what_is_not_http_is_a_bad_request() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nna me: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: \x00\r\n\r\n",
        b"\xff\xfe\xfd\xfc / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        refuses(&rig, garbage, 400, "bad_request")?;
    }
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    still_serves(&rig)
}

// RFC 9112 sections 3.2, 6.1 and 6.3
#[test]
fn ambiguous_requests_are_refused_and_never_forwarded() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for fields in [
        "host: a\r\nhost: b\r\n",
        "",
        "host: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n",
        "host: a\r\ncontent-length: -1\r\n",
        "host: a\r\ncontent-length: 4x\r\n",
        "host: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n",
        "host: a\r\ntransfer-encoding: gzip\r\n",
        "host: a\r\ntransfer-encoding: chunked, identity\r\n",
        "host: a\r\nx: 1\r\n folded: 2\r\n",
    ] {
        refuses(&rig, format!("POST / HTTP/1.1\r\n{fields}\r\n"), 400, "bad_request")?;
    }
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    still_serves(&rig)
}

#[test]
fn a_head_over_the_limit_is_too_large() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let big = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    refuses(&rig, big, 431, "header_too_large")?;
    for size in [17_000, 40_000, 70_000] {
        let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(size));
        refuses(&rig, long, 414, "uri_too_long")?;
    }
    let many: String = (0..101).map(|i| format!("x-{i}: a\r\n")).collect();
    refuses(&rig, format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431, "header_too_large")?;
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    still_serves(&rig)
}

#[test]
fn a_body_over_the_limit_is_too_large_whether_declared_or_not() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let declared = "POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 1048577\r\n\r\n";
    refuses(&rig, declared, 413, "body_too_large")?;
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    let mut chunked = b"POST /echo-body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..17 {
        chunked.extend(b"10000\r\n");
        chunked.extend(vec![b'x'; 0x10000]);
        chunked.extend(b"\r\n");
    }
    refuses(&rig, chunked, 413, "body_too_large")?;
    let exact = vec![b'x'; 1 << 20];
    let mut client = rig.client()?;
    client.send("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n")?;
    client.send(&exact)?;
    assert_eq!(client.response()?.body, exact);
    still_serves(&rig)
}

// T8: 408, its own reason, within 50 ms
#[test]
fn a_head_that_drips_in_is_timed_out() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    fires(Duration::from_millis(500), |_| {
        let mut client = rig.client()?;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n")?;
        for _ in 0..3 {
            client.send("x: y\r\n")?;
            std::thread::sleep(Duration::from_millis(100));
        }
        let answer = client.response()?;
        answer.refused(408, "header_timeout")?;
        client.closed(Duration::from_secs(1))?;
        rig.gateway.log_of(&answer)?["us"].as_u64().context("no time")
    })?;
    still_serves(&rig)
}

#[test]
fn an_idle_connection_is_closed_without_a_word() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.get("/")?;
    let began = Instant::now();
    client.closed(Duration::from_secs(3))?;
    let took = began.elapsed().as_millis();
    assert!((600..1100).contains(&took), "{took} ms");
    // Nothing was ever sent on this one.
    rig.client()?.closed(Duration::from_secs(3))
}

// T8: 408, its own reason, within 50 ms
#[test]
fn a_body_that_stops_coming_is_timed_out() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    fires(Duration::from_millis(500), |_| {
        let mut client = rig.client()?;
        client.send("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")?;
        let answer = client.response()?;
        answer.refused(408, "body_timeout")?;
        client.closed(Duration::from_secs(1))?;
        let line = rig.gateway.log_of(&answer)?;
        ensure!(line["why"] == "body_timeout", "{line}");
        line["us"].as_u64().context("no time")
    })?;
    still_serves(&rig)
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /big?bytes=100000000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    client.head()?;
    rig.backends[0].until("its answer was cut", |stats| stats.aborted == 1)?;
    still_serves(&rig)
}

#[test]
fn more_connections_than_allowed_are_closed_at_once_and_the_others_live_on() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut open = (0..100).map(|_| rig.client()).collect::<Result<Vec<_>>>()?;
    eventually("100 are open", || Ok(rig.gateway.metrics()?.sum("connections_active", &[]) >= 100.0))?;
    // It may be reset so soon that the client never sees it open.
    match rig.net.client(1).connect(rig.gateway.at4(), None) {
        Ok(stream) => Client::over(stream)?.closed(Duration::from_millis(500))?,
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert_eq!(open[0].get("/")?.status, 200);
    drop(open);
    eventually("they are gone", || Ok(rig.gateway.metrics()?.sum("connections_active", &[]) == 0.0))?;
    still_serves(&rig)
}

#[test]
fn requests_for_what_a_gateway_does_not_do_are_refused() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let connect = "CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n\r\n";
    let answer = http::exchange(rig.net.client(1), rig.gateway.at4(), connect)?;
    assert!((400..600).contains(&answer.status), "{answer:?}");
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    still_serves(&rig)
}

#[test]
fn idle_connections_keep_no_buffers() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::simple(&net, &backends)?;
    let memory = || resident(gateway.pid());
    let mut idle = Vec::new();
    // Few at once: what those that are awake take is not given back to the system, but used again.
    let mut open = |n: usize| -> Result<()> {
        for _ in 0..n {
            let mut client = Client::connect(net.client(1), gateway.at4())?;
            ensure!(client.get("/")?.status == 200);
            idle.push(client);
        }
        // They go to sleep after a quarter of a second; nobody is told.
        std::thread::sleep(Duration::from_millis(600));
        Ok(())
    };
    open(50)?;
    let before = memory()?;
    for _ in 0..10 {
        open(50)?;
    }
    let each = memory()?.saturating_sub(before) / 500;
    assert!(each < 6 * 1024, "{each} bytes an idle connection");
    Ok(())
}

#[test]
fn without_a_descriptor_left_connections_are_turned_away_and_nobody_is_blamed() -> Result<()> {
    lab_test!();
    let rig = Rig::start(1, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"one\"\n[upstream.one]\nto = {}\n\
             eject = {{ errors = 1, within = \"10s\", for = \"60s\", at_most = \"100%\" }}\nhealth = {{ tcp = true, every = \"100ms\", fall = 1 }}\n",
            targets(backends)
        )
    })?;
    let mut first = rig.client()?;
    assert_eq!(first.get("/")?.status, 200);
    let pid = rig.gateway.pid();
    let limit = |descriptors: usize| -> Result<()> {
        let limit = format!("--nofile={descriptors}:");
        let done =
            std::process::Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status()?;
        ensure!(done.success(), "prlimit failed");
        Ok(())
    };
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    limit(open + 20)?;
    // Those that are taken answer, by the connection to the backend that there is; the others are closed at once.
    let (mut taken, mut turned_away) = (Vec::new(), 0);
    for _ in 0..60 {
        match rig.client().and_then(|mut client| client.get("/").map(|answer| (client, answer))) {
            Ok((client, answer)) => {
                assert_eq!(answer.status, 200);
                taken.push(client);
            }
            Err(_) => turned_away += 1,
        }
    }
    assert!(turned_away >= 30 && taken.len() >= 5, "{turned_away} turned away, {} taken", taken.len());
    assert_eq!(first.get("/")?.status, 200);
    // Another connection to the backend cannot be made, which is not the backend's fault.
    first.send("GET /slow-header?ms=800 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    std::thread::sleep(Duration::from_millis(100));
    let last = taken.last_mut().context("none was taken")?;
    last.get("/")?.refused(503, "no_resources")?;
    assert_eq!(first.response()?.status, 200);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(last.get("/")?.status, 200, "neither ejected nor unhealthy");
    drop(taken);
    limit(1000)?;
    eventually("new connections are served", || Ok(still_serves(&rig).is_ok()))?;
    let metrics = rig.gateway.metrics()?;
    assert!(
        metrics.sum("connections_total", &[("protocol", "over_limit")]) >= f64::from(turned_away),
        "{turned_away}"
    );
    assert!(metrics.sum("upstream_connects_total", &[("result", "no_resources")]) >= 1.0);
    let shown = rig.gateway.cli(&["upstream", "show", "one", "-o", "json"])?.ok()?.stdout;
    assert!(!shown.contains("\"ejected\""), "{shown}");
    rig.gateway.says("cannot take more connections")
}
