//! HTTP/2 to clients: P2, O4, S13. The numbers are sections of RFC 9113.

use std::process::Stdio;

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    curl::Curl,
    http2::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, RST_STREAM},
    prelude::*,
};

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

/// Port 80 in clear and 443 by TLS, both HTTP/1.1 and HTTP/2; `more` goes to the one in clear.
fn rig(more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n{more}\n\
         [listener.secure]\nbind = \":443\"\ntls = {{ cert = \"main\" }}\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n\
         [route.all]\nto = {to}\nearly_hints = true\n\
         [route.closed]\npath = \"/closed/*\"\nto = {to}\n",
        to = targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    let authority = Authority::new()?;
    authority.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn http2(&self) -> Result<Http2> {
        Http2::connect(self.net.client(1), self.gateway.at4())
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Result<Curl> {
        let (url, ca) =
            (format!("https://shop.test{path}"), self.gateway.file("ca.pem").display().to_string());
        let resolve = format!("shop.test:443:{VIP4}");
        Curl::run(self.net.client(1), &[&["--cacert", &ca, "--resolve", &resolve, &url], arguments].concat())
    }

    /// How stream 1 ends with this request, alone or with its connection (section 5.4.2 leaves that to us).
    fn refused_stream(&self, block: &[u8]) -> Result<Option<u32>> {
        let mut client = self.http2()?;
        client.request(1, block)?;
        Ok(client.until("it is refused", |frame| matches!(frame.kind, RST_STREAM | GOAWAY))?.code())
    }
}

fn saw(answer: &Curl, name: &str) -> Result<Vec<String>> {
    Ok(http::echoed(&answer.json()?, name))
}

// P2
#[test]
fn curl_chooses_http_2_by_alpn_and_http_1_1_if_told() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let answer = rig.curl("/echo?v=2", &["--http2", "-H", "cookie: a=1", "-H", "te: trailers"])?;
    assert_eq!((answer.status, &*answer.version), (200, "2"), "{answer:?}");
    assert_eq!(saw(&answer, "host")?, ["shop.test"]);
    assert_eq!(saw(&answer, "x-forwarded-proto")?, ["https"]);
    assert_eq!(saw(&answer, "te")?, ["trailers"]);
    assert_eq!(answer.header("connection"), None);
    let line = rig.gateway.log_line("v=2", |line| line["query"] == "v=2")?;
    assert_eq!((line["proto"].as_str(), line["host"].as_str()), (Some("h2"), Some("shop.test")));
    assert_eq!(rig.curl("/", &["--http1.1"])?.version, "1.1");
    let metrics = rig.gateway.metrics()?;
    let of = |protocol| metrics.sum("connections_total", &[("listener", "secure"), ("protocol", protocol)]);
    assert_eq!((of("h1"), of("h2")), (1.0, 1.0));
    Ok(())
}

// P2
#[test]
fn prior_knowledge_and_http_1_1_share_a_port() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let url = format!("http://{VIP4}/echo");
    let answer = Curl::run(rig.net.client(1), &["--http2-prior-knowledge", &url])?;
    assert_eq!((answer.status, &*answer.version), (200, "2"), "{answer:?}");
    let mut old = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    assert_eq!(old.get("/")?.status, 200);
    Ok(())
}

// P2
#[test]
fn large_bodies_pass_both_ways_with_and_without_a_length() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(rig.gateway.file("body"), &body)?;
    let file = rig.gateway.file("body").display().to_string();
    let data = format!("@{file}");
    for more in
        [&["--data-binary", &data][..], &["-X", "POST", "-T", &file, "-H", "transfer-encoding: chunked"]]
    {
        let answer = rig.curl("/echo-body", &[&["--http2"], more].concat())?;
        assert_eq!((answer.status, &*answer.version), (200, "2"), "{}", answer.errors);
        assert!(answer.body == body, "{} bytes came back", answer.body.len());
    }
    Ok(())
}

// P2
#[test]
fn a_hundred_streams_at_once_all_get_their_answers() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let mut h2load = rig.net.client(1).namespace.command("h2load")?;
    h2load.args(["-n", "5000", "-c", "1", "-m", "100", &format!("http://{VIP4}/")]).stdin(Stdio::null());
    let output = String::from_utf8_lossy(&h2load.output()?.stdout).into_owned();
    assert!(output.contains("5000 succeeded, 0 failed"), "{output}");
    assert_eq!(rig.backends[0].stats()?.requests, 5000);
    Ok(())
}

/// A head that ends nothing: an interim one, or one with a body to come.
fn next_head(client: &mut Http2, what: &str) -> Result<http2::Frame> {
    let head = client.until(what, |frame| frame.kind == HEADERS)?;
    ensure!(head.flags & END_STREAM == 0, "{what}: {head:?}");
    Ok(head)
}

// P1: RFC 9110 section 10.1.1
#[test]
fn clients_that_wait_for_100_continue_get_it_when_their_body_is_wanted() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let post = |path: &str, fields: &[(&str, &str)]| {
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
            ("content-length", "4"),
        ];
        let fields = head.iter().chain(fields);
        fields.map(|(name, value)| http2::field(name, value)).collect::<Vec<_>>().concat()
    };
    let expect = [("expect", "100-Continue")];
    let mut client = rig.http2()?;
    client.send(HEADERS, END_HEADERS, 1, &post("/echo-body", &expect))?;
    // Not 200, which would be 0x88.
    assert_ne!(next_head(&mut client, "100")?.payload.first(), Some(&0x88));
    client.send(DATA, END_STREAM, 1, b"body")?;
    assert_eq!(next_head(&mut client, "200")?.payload.first(), Some(&0x88));
    assert_eq!(client.until("the body", |frame| frame.kind == DATA)?.payload, b"body");
    // Who does not ask, or has sent it already, is not told; nor is one whose body is not wanted.
    client.send(HEADERS, END_HEADERS, 3, &post("/echo-body", &[]))?;
    client.send(DATA, END_STREAM, 3, b"body")?;
    assert_eq!(next_head(&mut client, "200")?.payload.first(), Some(&0x88));
    let both = [
        http2::frame(HEADERS, END_HEADERS, 5, &post("/echo-body", &expect)),
        http2::frame(DATA, END_STREAM, 5, b"body"),
    ];
    std::io::Write::write_all(&mut client.stream, &both.concat())?;
    let own = |frame: &http2::Frame| frame.kind == HEADERS && frame.stream == 5;
    assert_eq!(client.until("200", own)?.payload.first(), Some(&0x88));
    client.send(HEADERS, END_HEADERS, 7, &post("/closed/..;x", &expect))?;
    let refused = client.until("400", |frame| frame.kind == HEADERS && frame.stream == 7)?;
    // 400 in HPACK's static table.
    assert_eq!(refused.payload.first(), Some(&0x8c));
    // A client that others wrote.
    let answer = rig.curl("/echo-body", &["--http2", "-H", "expect: 100-continue", "-d", "body"])?;
    assert_eq!((answer.status, answer.text().ends_with("body")), (200, true), "{answer:?}");
    assert!(answer.head.starts_with("http/2 100"), "{}", answer.head);
    Ok(())
}

// P1: RFC 8297
#[test]
fn early_hints_come_before_the_answer_and_at_once() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let mut client = rig.http2()?;
    let path = [&[0x82, 0x86][..], &http2::field(":path", "/103?ms=1500"), &http2::field(":authority", "a")]
        .concat();
    let began = Instant::now();
    client.request(1, &path)?;
    assert_ne!(next_head(&mut client, "103")?.payload.first(), Some(&0x88));
    assert!(began.elapsed() < Duration::from_millis(1000), "{:?}", began.elapsed());
    assert_eq!(next_head(&mut client, "200")?.payload.first(), Some(&0x88));
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    let answer = rig.curl("/103", &["--http2"])?;
    let (hint, last) = answer.head.split_once("\r\n\r\n").context("one head only")?;
    assert!(hint.starts_with("http/2 103") && hint.contains("link: </style.css>; rel=preload"), "{hint}");
    assert!(last.starts_with("http/2 200"), "{last}");
    let mut nghttp = rig.net.client(1).namespace.command("nghttp")?;
    nghttp.args(["-v", &format!("http://{VIP4}/103")]).stdin(Stdio::null());
    let told = String::from_utf8_lossy(&nghttp.output()?.stdout).into_owned();
    let statuses: Vec<&str> =
        told.lines().filter_map(|line| line.split_once(":status: ")).map(|line| line.1).collect();
    assert_eq!(statuses, ["103", "200"], "{told}");
    Ok(())
}

// 8.1, 5.4.2: a stream that is reset is no request that has ended.
#[test]
fn a_body_that_is_taken_back_has_no_end_at_the_backend() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    for (n, code) in [8u32, 0, 1].into_iter().enumerate() {
        let mut client = rig.http2()?;
        let post = [(":method", "POST"), (":scheme", "http"), (":path", "/echo-body"), (":authority", "a")];
        let post = post.iter().map(|(name, value)| http2::field(name, value)).collect::<Vec<_>>().concat();
        client.send(HEADERS, END_HEADERS, 1, &post)?;
        client.send(DATA, 0, 1, b"half of a sent")?;
        rig.backends[0].until("it comes", |stats| stats.requests == n as u64 + 1)?;
        client.send(RST_STREAM, 0, 1, &code.to_be_bytes())?;
        rig.backends[0]
            .until("it is given up", |stats| stats.aborted == n as u64 + 1)
            .with_context(|| format!("reset with {code}"))?;
    }
    let line = rig.gateway.log_of_path("/echo-body")?;
    assert_eq!(line["why"], "client_gone", "{line}");
    Ok(())
}

// 8.1: RFC 9110 section 9.3.2
#[test]
fn answers_to_head_have_no_body_whoever_gives_them() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    for (stream, path, status) in [(1, "/", 0x88), (3, "/closed/..;x", 0x8c)] {
        let fields = [(":method", "HEAD"), (":scheme", "http"), (":path", path), (":authority", "a")];
        let head = fields.iter().map(|(name, value)| http2::field(name, value)).collect::<Vec<_>>().concat();
        let mut client = rig.http2()?;
        client.request(stream, &head)?;
        let answer = client.until("an answer", |frame| matches!(frame.kind, HEADERS | DATA))?;
        assert_eq!((answer.kind, answer.payload.first()), (HEADERS, Some(&status)), "{path}");
        assert_eq!(answer.flags & END_STREAM, END_STREAM, "{path}");
    }
    Ok(())
}

// P2
#[test]
fn trailers_come_after_the_body() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let mut client = rig.http2()?;
    let path =
        [&[0x82, 0x86][..], &http2::field(":path", "/trailers"), &http2::field(":authority", "a")].concat();
    client.request(1, &[path, http2::field("te", "trailers")].concat())?;
    client.until("the body", |frame| frame.kind == DATA)?;
    let last = client.until("the trailers", |frame| frame.kind == HEADERS)?;
    assert_eq!(last.flags & END_STREAM, END_STREAM);
    Ok(())
}

// 8.2.1, 8.2.2
#[test]
fn fields_that_http_2_does_not_have_reset_the_stream() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    for (name, value) in [
        ("Upper", "1"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
    ] {
        assert_eq!(rig.refused_stream(&http2::get("a", &[(name, value)]))?, Some(PROTOCOL_ERROR), "{name}");
    }
    // What h2 takes for a name and HTTP/1.1 does not (RFC 9110 section 5.1).
    let mut client = rig.http2()?;
    client.request(1, &http2::get("a", &[("\"x\"", "1")]))?;
    let refused = client.until("an answer", |frame| frame.kind == DATA)?;
    assert!(String::from_utf8_lossy(&refused.payload).contains("bad_request"));
    // What would be two fields, or two requests, in HTTP/1.1.
    for value in ["1\r\nx-smuggled: 1", "1\n", "1\0"] {
        let mut client = rig.http2()?;
        client.request(1, &http2::get("a", &[("x-a", value)]))?;
        client.until("refused", |frame| matches!(frame.kind, RST_STREAM | GOAWAY))?;
    }
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    Ok(())
}

// 8.3
#[test]
fn pseudo_fields_must_be_there_once_in_front_and_known() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let authority = http2::field(":authority", "a");
    for block in [
        [&[0x86, 0x84][..], &authority].concat(),
        [&[0x82, 0x86][..], &authority].concat(),
        [http2::GET, &authority, &http2::field("x", "1"), &[0x82]].concat(),
        [http2::GET, &[0x82], &authority].concat(),
        [http2::GET, &authority, &http2::field(":unknown", "1")].concat(),
        [http2::GET, &authority, &http2::field(":status", "200")].concat(),
    ] {
        assert_eq!(rig.refused_stream(&block)?, Some(PROTOCOL_ERROR), "{block:x?}");
    }
    Ok(())
}

// 8.3.1, 8.1.1
#[test]
fn a_host_beside_another_authority_and_a_wrong_length_never_reach_a_backend() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    for fields in [
        &[("host", "b")][..],
        &[("content-length", "5")],
        &[("content-length", "0"), ("content-length", "1")],
        &[("host", "a"), ("host", "a")],
    ] {
        let mut client = rig.http2()?;
        client.request(1, &http2::get("a", fields))?;
        let answer = client.until("refused", |frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY))?;
        // 400 is number 12 of the static table.
        assert!(answer.kind != HEADERS || answer.payload.first() == Some(&0x8c), "{fields:?}: {answer:x?}");
    }
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    let mut client = rig.http2()?;
    client.request(1, &http2::get("a", &[("host", "A")]))?;
    assert_eq!(client.until("200", |frame| frame.kind == HEADERS)?.payload.first(), Some(&0x88));
    Ok(())
}

// 5.1.2
#[test]
fn a_stream_too_many_is_refused_and_the_others_go_on() -> Result<()> {
    lab_test!();
    let rig = rig("max = { streams = 2 }")?;
    let mut client = rig.http2()?;
    // The limit holds once it is acknowledged.
    client.send(http2::SETTINGS, http2::ACK, 0, &[])?;
    for stream in [1, 3, 5] {
        client.send(HEADERS, END_HEADERS, stream, &http2::get("a", &[]))?;
    }
    let refused = client.until("refused", |frame| frame.kind == RST_STREAM)?;
    assert_eq!((refused.stream, refused.code()), (5, Some(REFUSED_STREAM)));
    client.send(DATA, END_STREAM, 1, &[])?;
    assert_eq!(client.until("an answer", |frame| frame.kind == HEADERS)?.stream, 1);
    Ok(())
}

// S13: CVE-2023-44487
#[test]
fn a_client_that_takes_its_requests_back_at_once_is_cut_off() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let mut client = rig.http2()?;
    let mut sent = 0;
    for stream in (1..40_001).step_by(2) {
        let pair = [
            http2::frame(HEADERS, END_HEADERS | END_STREAM, stream, &http2::get("a", &[])),
            http2::frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
        ];
        if std::io::Write::write_all(&mut client.stream, &pair.concat()).is_err() {
            break;
        }
        sent += 1;
    }
    within(Duration::from_secs(10), "it is closed", || Ok(client.frame()?.is_none().then_some(())))?;
    let reached = rig.backends[0].stats()?.requests;
    ensure!(reached < 1000, "{reached} of {sent} requests reached the backend");
    assert_eq!(Client::connect(rig.net.client(1), rig.gateway.at4())?.get("/")?.status, 200);
    Ok(())
}

// S13: 6.10
#[test]
fn a_head_that_never_ends_and_floods_of_nothing_end_the_connection() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let mut endless = rig.http2()?;
    endless.send(HEADERS, 0, 1, &http2::get("a", &[]))?;
    let piece = http2::frame(CONTINUATION, 0, 1, &http2::field("x", "y".repeat(100)).repeat(100));
    let mut taken = 0;
    while taken < 1000 && std::io::Write::write_all(&mut endless.stream, &piece).is_ok() {
        taken += 1;
    }
    ensure!(taken < 1000, "ten megabytes of one head were taken");
    let mut pings = rig.http2()?;
    let ping = http2::frame(PING, 0, 0, &[0; 8]).repeat(1000);
    let mut reader = pings.stream.try_clone()?;
    let drain = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let mut taken = 0;
    while taken < 1000 && std::io::Write::write_all(&mut pings.stream, &ping).is_ok() {
        taken += 1;
    }
    ensure!(taken < 1000, "a million pings were taken");
    drop(drain.join());
    Ok(())
}

// O4
#[test]
fn at_stop_a_goaway_is_sent_and_requests_under_way_are_answered() -> Result<()> {
    lab_test!();
    let mut rig = rig("")?;
    let mut client = rig.http2()?;
    client.send(HEADERS, END_HEADERS, 1, &http2::get("a", &[("content-length", "2")]))?;
    // Known to be under way.
    eventually("a request is under way", || {
        Ok(rig.gateway.metrics()?.sum("http_active_requests", &[("listener", "web")]) == 1.0)
    })?;
    rig.gateway.signal(libc::SIGTERM)?;
    client.until("GOAWAY", |frame| frame.kind == GOAWAY && frame.code() == Some(0))?;
    client.send(DATA, END_STREAM, 1, b"ab")?;
    let answer = client.until("the answer", |frame| frame.kind == HEADERS)?;
    assert_eq!(answer.payload.first(), Some(&0x88));
    assert!(rig.gateway.wait(Duration::from_secs(10))?.success());
    Ok(())
}

// P2
#[test]
fn idle_connections_end_with_a_goaway() -> Result<()> {
    lab_test!();
    let rig = rig("timeout = { idle = \"300ms\" }")?;
    let mut client = rig.http2()?;
    client.request(1, &http2::get("a", &[]))?;
    client.until("the answer", |frame| frame.kind == HEADERS)?;
    client.until("GOAWAY", |frame| frame.kind == GOAWAY && frame.code() == Some(0))?;
    within(Duration::from_secs(5), "it is closed", || Ok(client.frame()?.is_none().then_some(())))
}

// P2, RFC 9110 section 8.6
#[test]
fn a_204_has_no_length_whatever_the_upstream_says() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    for version in ["--http2", "--http1.1"] {
        let fields = ["-H", "x-status: 204", "-H", "x-raw: content-length: 5"];
        let answer = rig.curl("/made", &[&[version][..], &fields].concat())?;
        assert_eq!((answer.code, answer.status), (0, 204), "{answer:?}");
        assert_eq!(answer.header("content-length"), None, "{answer:?}");
    }
    Ok(())
}
