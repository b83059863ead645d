//! HTTP/2 to upstreams: P2, P1, LB10. The numbers are sections of RFC 9113.

use std::{
    net::TcpListener,
    process::Stdio,
    thread::{self, JoinHandle},
};

use lab::{
    backend::start_all,
    certs::Authority,
    http,
    http2::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RST_STREAM},
    peers::{self, Peer},
    prelude::*,
    process::resident,
    wrk::{Load, Wrk},
};

const CLEAR: u16 = 8081;
const SECURE: u16 = 8443;
const REFUSED_STREAM: u32 = 7;

/// nginx with HTTP/2, in clear and by TLS, in front of a backend of the lab, on the same node.
struct Rig {
    gateway: Gateway,
    nginx: Peer,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

const SECURED: &str = "tls = { sni = \"app.internal\", ca = \"ca.pem\" }";

/// `server`: more of nginx's config; `more`: of the upstream.
fn rig(port: u16, server: &str, more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let authority = Authority::new()?;
    let node = net.node("b1");
    let dir = peers::folder()?;
    authority.issue(&["app.internal"])?.write(dir.path(), "server")?;
    let http = format!(
        "access_log access.log; server {{ listen {clear} http2; listen {secure} ssl http2; {server}\n\
         ssl_certificate server.pem; ssl_certificate_key server.key;\n\
         location = /facts {{ return 200 \"$server_protocol $connection $connection_requests\"; }}\n\
         location / {{ proxy_pass http://{backend}; proxy_http_version 1.1; proxy_set_header host $host;\n\
         client_max_body_size 0; proxy_request_buffering off; proxy_buffering off; }} }}",
        clear = node.at(CLEAR),
        secure = node.at(SECURE),
        backend = node.at(lab::backend::PORT),
    );
    let nginx = peers::nginx_in(node, dir, node.at(CLEAR), &http)?;
    let mut gateway = Gateway::prepare(&net, &config(node.at(port), more), Default::default())?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    Ok(Rig { gateway, nginx, backends, net, _turn: turn })
}

fn config(target: SocketAddr, more: &str) -> String {
    format!(
        "[gateway]\nworkers = 1\nname = \"edge\"\n[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n\
         max = {{ body = \"unlimited\" }}\n\
         [upstream.app]\nto = [\"{target}\"]\n{more}\n\
         [route.all]\nto = \"app\"\nearly_hints = true\n"
    )
}

impl Rig {
    fn client(&self) -> Result<Client> {
        Client::connect(self.net.client(1), self.gateway.at4())
    }

    fn connects(&self, result: &str) -> Result<f64> {
        let labels = [("upstream", "app"), ("result", result)];
        Ok(self.gateway.metrics()?.sum("upstream_connects_total", &labels))
    }

    fn retries(&self) -> Result<f64> {
        Ok(self.gateway.metrics()?.sum("upstream_retries_total", &[("upstream", "app")]))
    }
}

const H2: &str = "protocol = \"h2\"";

// P2
#[test]
fn requests_go_by_http_2_in_clear_by_tls_and_as_the_target_chooses() -> Result<()> {
    lab_test!();
    for (port, more) in [
        (CLEAR, H2.to_owned()),
        (SECURE, format!("{H2}\n{SECURED}")),
        (SECURE, format!("protocol = \"auto\"\n{SECURED}")),
    ] {
        let rig = rig(port, "", &more)?;
        let mut client = rig.client()?;
        for n in 1..10 {
            let facts = client.get("/facts")?;
            assert!(
                facts.text().starts_with("HTTP/2.0 ") && facts.text().ends_with(&format!(" {n}")),
                "{facts:?}"
            );
            assert_eq!(facts.header("via"), Some("2.0 edge"));
        }
        let seen = client.get("/echo?a=b%20c")?.json()?;
        assert_eq!(seen["target"], "/echo?a=b%20c");
        assert_eq!(
            (http::echoed(&seen, "host"), http::echoed(&seen, "via")),
            (vec!["gateway.test".into()], vec!["1.1 edge".into()])
        );
        assert_eq!(http::echoed(&seen, "x-forwarded-for"), [rig.net.client(1).v4().to_string()]);
        assert_eq!(rig.connects("ok")?, 1.0, "{more}");
    }
    // A target that only has HTTP/1.1.
    let rig = rig(lab::backend::PORT, "", "")?;
    assert_eq!(rig.client()?.get("/")?.header("via"), Some("1.1 edge"));
    Ok(())
}

// P2
#[test]
fn a_hundred_requests_at_once_share_a_connection() -> Result<()> {
    lab_test!();
    let rig = rig(CLEAR, "keepalive_requests 100000;", H2)?;
    let mut h2load = rig.net.client(1).namespace.command("h2load")?;
    h2load.args(["-n", "3000", "-c", "1", "-m", "100", &format!("http://{VIP4}/")]).stdin(Stdio::null());
    let output = String::from_utf8_lossy(&h2load.output()?.stdout).into_owned();
    assert!(output.contains("3000 succeeded, 0 failed"), "{output}");
    assert_eq!((rig.connects("ok")?, rig.backends[0].stats()?.requests), (1.0, 3000));
    Ok(())
}

// P2: 5.1.2
#[test]
fn when_a_target_takes_few_streams_there_are_more_connections() -> Result<()> {
    lab_test!();
    let rig = rig(CLEAR, "http2_max_concurrent_streams 5; keepalive_requests 100000;", H2)?;
    // The first connection learns of the limit.
    assert_eq!(rig.client()?.get("/")?.status, 200);
    let mut h2load = rig.net.client(1).namespace.command("h2load")?;
    h2load.args(["-n", "1000", "-c", "1", "-m", "20", &format!("http://{VIP4}/slow-header?ms=5")]);
    let output = String::from_utf8_lossy(&h2load.stdin(Stdio::null()).output()?.stdout).into_owned();
    assert!(output.contains("1000 succeeded, 0 failed") && output.contains("1000 2xx"), "{output}");
    let connects = rig.connects("ok")?;
    ensure!((4.0..12.0).contains(&connects), "{connects} connections");
    Ok(())
}

// P2: 6.8
#[test]
fn nothing_is_lost_when_connections_end_by_goaway_under_load() -> Result<()> {
    lab_test!();
    // nginx says GOAWAY after so many requests, and at a reload.
    let rig = rig(CLEAR, "keepalive_requests 50;", H2)?;
    let node = rig.net.client(1);
    let load = Load::new(20, Duration::from_secs(3));
    let running = Wrk::start(node, rig.gateway.at4(), &load)?;
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(500));
        rig.nginx.process.signal(libc::SIGHUP)?;
    }
    let outcome = running.finish()?;
    ensure!(outcome.requests > 500, "only {} requests", outcome.requests);
    assert_eq!((outcome.errors, outcome.timeouts), (0, 0), "of {} requests", outcome.requests);
    Ok(())
}

// P2
#[test]
fn large_bodies_pass_both_ways_with_and_without_a_length() -> Result<()> {
    lab_test!();
    let rig = rig(CLEAR, "", H2)?;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut client = rig.client()?;
    client.send(format!("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()))?;
    client.send(&body)?;
    assert!(client.response()?.body == body);
    client.send("POST /echo-body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")?;
    for piece in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len()))?;
        client.send(piece)?;
        client.send("\r\n")?;
    }
    client.send("0\r\n\r\n")?;
    assert!(client.response()?.body == body);
    client.send("HEAD /big?bytes=1000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let head = client.response_to("HEAD")?;
    assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
    for (path, status) in [("/status/204", 204), ("/status/304", 304), ("/sse?n=2&ms=1", 200)] {
        assert_eq!(client.get(path)?.status, status, "{path}");
    }
    Ok(())
}

// P2, P7
#[test]
fn a_client_that_reads_slowly_costs_little_memory_and_holds_nobody_up() -> Result<()> {
    lab_test!();
    let rig = rig(CLEAR, "", H2)?;
    assert_eq!(rig.client()?.get("/")?.status, 200);
    let before = resident(rig.gateway.pid())?;
    let mut slow: Vec<Client> = (0..8).map(|_| rig.client()).collect::<Result<_>>()?;
    for client in &mut slow {
        client.send("GET /big?bytes=100000000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        assert_eq!(client.head()?.status, 200);
    }
    let mut other = rig.client()?;
    for _ in 0..20 {
        assert_eq!(other.get("/big?bytes=300000")?.body.len(), 300_000);
        thread::sleep(Duration::from_millis(20));
    }
    let grown = resident(rig.gateway.pid())?.saturating_sub(before);
    ensure!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(rig.connects("ok")?, 1.0);
    Ok(())
}

// P7
#[test]
fn a_client_that_goes_away_takes_its_stream_with_it() -> Result<()> {
    lab_test!();
    let rig = rig(CLEAR, "", H2)?;
    let mut client = rig.client()?;
    client.send("GET /sse?n=100000&ms=5 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    assert_eq!(client.head()?.status, 200);
    drop(client);
    rig.backends[0].until("its answer was cut", |stats| stats.aborted == 1)?;
    assert_eq!(rig.client()?.get("/facts")?.status, 200);
    assert_eq!(rig.connects("ok")?, 1.0, "the connection lives on");
    Ok(())
}

// LB10
#[test]
fn checks_speak_http_2() -> Result<()> {
    lab_test!();
    for (port, tls) in [(CLEAR, ""), (SECURE, SECURED)] {
        let health = "health = { path = \"/healthz\", every = \"100ms\", rise = 1, fall = 1 }";
        let rig = rig(port, "", &format!("{H2}\n{tls}\n{health}"))?;
        let up = || -> Result<bool> {
            Ok(rig.gateway.metrics()?.sum("upstream_up", &[("upstream", "app")]) == 1.0)
        };
        rig.backends[0].until("it is checked", |stats| stats.checks > 1)?;
        assert!(up()?);
        rig.backends[0].health(500)?;
        eventually("it is down", || Ok(!up()?))?;
        rig.backends[0].health(200)?;
        eventually("it is up", up)?;
    }
    Ok(())
}

// P2
#[test]
fn a_target_that_only_has_http_1_1_is_told_from_one_that_is_down() -> Result<()> {
    lab_test!();
    let rig = rig(lab::backend::PORT, "", H2)?;
    rig.client()?.get("/")?.refused(502, "upstream_bad_response")?;
    rig.backends[0].down()?;
    eventually("it is refused", || {
        Ok(rig.client()?.get("/")?.refused(502, "upstream_connect_refused").is_ok())
    })
}

/// A backend that does what a test tells it, frame by frame.
struct Scripted {
    gateway: Gateway,
    script: JoinHandle<Result<()>>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn scripted(more: &str, script: impl FnOnce(TcpListener) -> Result<()> + Send + 'static) -> Result<Scripted> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let at = net.node("b1").at(CLEAR);
    let listener = net.node("b1").namespace.run(|| TcpListener::bind(at))??;
    let script = thread::spawn(move || script(listener));
    let gateway = Gateway::start(&net, &config(at, &format!("{H2}\n{more}")))?;
    Ok(Scripted { gateway, script, net, _turn: turn })
}

impl Scripted {
    fn client(&self) -> Result<Client> {
        Client::connect(self.net.client(1), self.gateway.at4())
    }

    fn get(&self, path: &str) -> Result<Response> {
        http::get(self.net.client(1), self.gateway.at4(), path)
    }

    /// Ends the gateway, and with it what the script still waits for.
    fn done(self) -> Result<()> {
        drop(self.gateway);
        self.script.join().map_err(|_| anyhow::anyhow!("the script panicked"))?
    }
}

// 8.7
#[test]
fn refused_streams_and_those_that_goaway_leaves_out_are_sent_again_whatever_their_method() -> Result<()> {
    lab_test!();
    let rig = scripted("retry = { on = [] }", |listener| {
        let mut first = Http2::accept(&listener, &[])?;
        let stream = first.next_request()?;
        first.until("its body", |frame| frame.kind == DATA && frame.flags & END_STREAM != 0)?;
        first.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes())?;
        let again = first.next_request()?;
        ensure!(again > stream, "not another stream");
        first.until("its body", |frame| frame.kind == DATA && frame.flags & END_STREAM != 0)?;
        // Its last stream is the one before.
        first.send(GOAWAY, 0, 0, &[stream.to_be_bytes(), 0u32.to_be_bytes()].concat())?;
        let mut second = Http2::accept(&listener, &[])?;
        let stream = second.next_request()?;
        let body = second.until("its body", |frame| frame.kind == DATA)?;
        ensure!(body.payload == b"abc", "{body:?}");
        second.send(HEADERS, END_HEADERS | END_STREAM, stream, http2::OK)?;
        // As long as the client has not seen its answer.
        let _ = second.frame();
        Ok(())
    })?;
    let mut client = rig.client()?;
    client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")?;
    assert_eq!(client.response()?.status, 200);
    let labels = [("upstream", "app"), ("reason", "stale")];
    assert_eq!(rig.gateway.metrics()?.sum("upstream_retries_total", &labels), 2.0);
    drop(client);
    rig.done()
}

// 8.7
#[test]
fn a_target_that_refuses_every_stream_is_given_up() -> Result<()> {
    lab_test!();
    let rig = scripted("", |listener| {
        let mut only = Http2::accept(&listener, &[])?;
        for _ in 0..5 {
            let stream = only.next_request()?;
            only.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes())?;
        }
        let _ = only.frame();
        Ok(())
    })?;
    rig.get("/")?.refused(502, "upstream_reset")
}

// 5.4
#[test]
fn what_is_wrong_with_an_answer_has_its_reason() -> Result<()> {
    lab_test!();
    type Script = fn(&mut Http2, u32) -> Result<()>;
    let cases: [(&str, &str, Script); 9] = [
        ("reset", "upstream_reset", |peer, stream| peer.send(RST_STREAM, 0, stream, &2u32.to_be_bytes())),
        ("closed", "upstream_reset", |peer, _| Ok(peer.stream.shutdown(std::net::Shutdown::Both)?)),
        ("garbage", "upstream_bad_response", |peer, _| {
            Ok(std::io::Write::write_all(&mut peer.stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")?)
        }),
        ("data before the head", "upstream_bad_response", |peer, stream| peer.send(DATA, 0, stream, b"x")),
        ("connection: close", "upstream_bad_response", |peer, stream| {
            let block = [http2::OK, &http2::field("connection", "close")].concat();
            peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &block)
        }),
        ("no status", "upstream_bad_response", |peer, stream| {
            peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &http2::field("x", "1"))
        }),
        ("101", "upstream_bad_response", |peer, stream| {
            peer.send(HEADERS, END_HEADERS, stream, &http2::field(":status", "101"))
        }),
        ("a line feed in a field", "upstream_bad_response", |peer, stream| {
            let block = [http2::OK, &http2::field("x", "1\r\nset-cookie: a=b")].concat();
            peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &block)
        }),
        ("a flood of fields", "upstream_bad_response", |peer, stream| {
            peer.send(HEADERS, 0, stream, http2::OK)?;
            let piece = http2::field("x", "y".repeat(100)).repeat(100);
            // It may be cut off before the end.
            for _ in 0..1000 {
                if peer.send(CONTINUATION, 0, stream, &piece).is_err() {
                    break;
                }
            }
            Ok(())
        }),
    ];
    for (case, why, answer) in cases {
        let rig = scripted("retry = { on = [] }", move |listener| {
            let mut peer = Http2::accept(&listener, &[])?;
            let stream = peer.next_request()?;
            answer(&mut peer, stream)?;
            let _ = peer.frame();
            Ok(())
        })?;
        let answer = rig.get("/")?;
        answer.refused(502, why).context(case)?;
        assert_eq!(rig.gateway.log_of(&answer)?["why"], why, "{case}");
        rig.done().context(case)?;
    }
    Ok(())
}

// 8.1.1
#[test]
fn a_body_that_is_not_as_long_as_its_head_says_is_cut() -> Result<()> {
    lab_test!();
    for (body, why) in [(&b"abcdefgh"[..], "upstream_bad_response"), (b"ab", "upstream_bad_response")] {
        let rig = scripted("", move |listener| {
            let mut peer = Http2::accept(&listener, &[])?;
            let stream = peer.next_request()?;
            let block = [http2::OK, &http2::field("content-length", "5")].concat();
            peer.send(HEADERS, END_HEADERS, stream, &block)?;
            peer.send(DATA, END_STREAM, stream, body)?;
            let _ = peer.frame();
            Ok(())
        })?;
        let mut client = rig.client()?;
        client.send("GET /short HTTP/1.1\r\nhost: a\r\n\r\n")?;
        assert!(client.response().is_err(), "{body:?}");
        assert_eq!(rig.gateway.log_of_path("/short")?["why"], why, "{body:?}");
        rig.done()?;
    }
    Ok(())
}

// P1
#[test]
fn each_limit_has_its_reason_and_a_target_that_no_longer_answers_is_left() -> Result<()> {
    lab_test!();
    let limits =
        "timeout = { first_byte = \"300ms\", idle = \"300ms\", total = \"5s\" }\nretry = { on = [] }";
    let rig = scripted(limits, |listener| {
        let mut silent = Http2::accept(&listener, &[])?;
        silent.next_request()?;
        // It does not answer the PING that comes then, and is left for another connection.
        let mut peer = Http2::accept(&listener, &[])?;
        let stream = peer.next_request()?;
        peer.send(HEADERS, END_HEADERS, stream, http2::OK)?;
        peer.send(DATA, 0, stream, b"some")?;
        while peer.frame()?.is_some() {}
        Ok(())
    })?;
    rig.get("/silent")?.refused(504, "upstream_first_byte_timeout")?;
    // Another request on that connection would wait in vain as well.
    eventually("the connection is given up", || {
        let busy = rig.gateway.metrics()?.sum("upstream_connections", &[("upstream", "app")]);
        Ok(busy == 0.0)
    })?;
    let mut client = rig.client()?;
    client.send("GET /stops HTTP/1.1\r\nhost: a\r\n\r\n")?;
    assert_eq!(client.head()?.status, 200);
    client.until_closed()?;
    assert_eq!(rig.gateway.log_of_path("/stops")?["why"], "upstream_idle_timeout");
    drop(client);
    rig.done()
}

// P1
#[test]
fn early_hints_and_trailers_pass() -> Result<()> {
    lab_test!();
    let rig = scripted("", |listener| {
        let mut peer = Http2::accept(&listener, &[])?;
        let stream = peer.next_request()?;
        let hint = [http2::field(":status", "103"), http2::field("link", "</a>")].concat();
        peer.send(HEADERS, END_HEADERS, stream, &hint)?;
        let head = [http2::OK, &http2::field("trailer", "x-sum")].concat();
        peer.send(HEADERS, END_HEADERS, stream, &head)?;
        peer.send(DATA, 0, stream, b"body")?;
        let trailers = [http2::field("x-sum", "42"), http2::field("content-length", "9")].concat();
        peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &trailers)?;
        let _ = peer.frame();
        Ok(())
    })?;
    let mut client = rig.client()?;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n")?;
    let answer = client.response()?;
    assert_eq!(answer.interim.iter().map(|hint| hint.status).collect::<Vec<_>>(), [103]);
    assert_eq!(
        (answer.text().as_str(), &answer.trailers[..]),
        ("body", &[("x-sum".into(), "42".into())][..])
    );
    drop(client);
    rig.done()
}

// P2: requests by HTTP/2 on both sides
#[test]
fn a_client_by_http_2_is_told_of_as_such() -> Result<()> {
    lab_test!();
    let rig = rig(CLEAR, "", H2)?;
    let mut client = Http2::connect(rig.net.client(1), rig.gateway.at4())?;
    let path =
        [&[0x82, 0x86][..], &http2::field(":path", "/echo"), &http2::field(":authority", "a.test")].concat();
    let cookies = [http2::field("cookie", "a=1"), http2::field("cookie", "b=2")].concat();
    client.request(1, &[path, cookies].concat())?;
    let answer = client.until("the body", |frame| frame.kind == DATA)?;
    let seen: Value = serde_json::from_slice(&answer.payload)?;
    assert_eq!(http::echoed(&seen, "via"), ["2.0 edge"]);
    assert_eq!(
        (http::echoed(&seen, "host"), http::echoed(&seen, "cookie")),
        (vec!["a.test".into()], vec!["a=1; b=2".into()])
    );
    assert_eq!(rig.retries()?, 0.0);
    Ok(())
}
