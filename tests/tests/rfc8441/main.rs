//! WebSockets by HTTP/2 (RFC 8441), from clients and to targets: P6.

use std::process::Stdio;

use lab::{
    backend::targets,
    http2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM},
    prelude::*,
    process::{Lines, Process},
    tools,
    websocket::Socket,
};
use tungstenite::Message;

const PORT: u16 = 8081;

/// `/node/…` is a Node server that speaks HTTP/2 and may take WebSockets; all else a backend of the lab, by HTTP/1.1.
struct Site {
    rig: Rig,
    seen: Lines,
    _node: Process,
}

fn rig(listener: &str, takes: &str) -> Result<Option<Site>> {
    let Some(program) = tools::find("node") else {
        lab::skip("WebSockets to HTTP/2", "`node` is not installed; `cargo xtask setup` installs it");
        return Ok(None);
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rfc8441/server.js");
    let rig = Rig::start(1, |backends| {
        let node = std::net::SocketAddr::new(backends[0].addr.ip(), PORT);
        format!(
            "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n{listener}\n\
             [route.all]\nto = {to}\nupgrade = [\"websocket\"]\n\
             [route.closed]\npath = \"/closed/*\"\nto = {to}\n\
             [upstream.node]\nto = [\"{node}\"]\nprotocol = \"h2\"\n\
             [route.node]\nhost = \"node.test\"\nto = \"node\"\nupgrade = [\"websocket\", \"other\"]\n",
            to = targets(backends)
        )
    })?;
    let at = rig.net.backend(1).at(PORT);
    let mut command = rig.net.backend(1).namespace.command(program)?;
    command.arg(script).args([at.ip().to_string(), PORT.to_string(), takes.to_owned()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(command)?;
    let seen = process.child.stdout.take().map(Lines::collect).unwrap_or_default();
    eventually("Node listens", || Ok(seen.contain("READY")))?;
    Ok(Some(Site { rig, seen, _node: process }))
}

impl Site {
    fn http2(&self) -> Result<Http2> {
        Http2::connect(self.rig.net.client(1), self.rig.gateway.at4())
    }

    fn socket(&self, path: &str) -> Result<Socket> {
        let stream = self.rig.net.client(1).connect(self.rig.gateway.at4(), None)?;
        Socket::over(stream, &format!("ws://node.test{path}"))
    }

    /// A request for an upgrade, by HTTP/1.1.
    fn asks(&self, path: &str, protocol: &str, fields: &str) -> Result<lab::http::Response> {
        let fields =
            format!("connection: upgrade\r\nupgrade: {protocol}\r\nsec-websocket-version: 13\r\n{fields}");
        self.rig.ask(&format!("GET {path}"), "node.test", &fields)
    }

    /// The heads of requests that Node saw for this path.
    fn seen(&self, path: &str) -> Result<Value> {
        eventually("Node sees it", || Ok(self.seen.contain(&format!("\":path\":\"{path}\""))))?;
        let lines = self.seen.all();
        let line = lines.iter().rfind(|line| line.contains(&format!("\":path\":\"{path}\"")));
        Ok(serde_json::from_str(line.context("not seen")?)?)
    }
}

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// HPACK of an extended CONNECT for a WebSocket at this path.
fn websocket(host: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", path),
        (":authority", host),
        ("sec-websocket-version", "13"),
    ];
    fields.iter().map(|(name, value)| http2::field(name, value)).collect::<Vec<_>>().concat()
}

/// A text message of less than 126 bytes as a client sends it, masked with zeros.
fn message(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text.as_bytes()].concat()
}

// P6: RFC 8441
#[test]
fn websockets_open_on_streams_and_outlast_the_idle_time() -> Result<()> {
    lab_test!();
    let Some(site) = rig("timeout = { idle = \"300ms\" }", "")? else { return Ok(()) };
    let rig = &site.rig;
    let mut client = site.http2()?;
    client.send(HEADERS, END_HEADERS, 1, &websocket("a.test", "/ws"))?;
    let answer = client.until("it is open", |frame| frame.kind == HEADERS)?;
    assert_eq!((answer.payload.first(), answer.flags & END_STREAM), (Some(&0x88), 0), "{answer:?}");
    for text in ["hello", "again"] {
        client.send(DATA, 0, 1, &message(text))?;
        let echo = client.until("the echo", |frame| frame.kind == DATA && frame.stream == 1)?;
        assert_eq!(echo.payload, [&[0x81, text.len() as u8][..], text.as_bytes()].concat());
        // Longer than the connection may idle, and beside another request.
        std::thread::sleep(Duration::from_millis(700));
        let stream = if text == "hello" { 3 } else { 5 };
        client.request(stream, &http2::get("a", &[]))?;
        client.until("an answer", |frame| frame.kind == HEADERS && frame.stream == stream)?;
    }
    let seen = rig.backends[0].stats()?;
    assert_eq!((seen.paths.get("/ws"), seen.open >= 1), (Some(&1), true));
    // A close is answered, and the stream ends.
    client.send(DATA, END_STREAM, 1, &[0x88, 0x80, 0, 0, 0, 0])?;
    client.until("it ends", |frame| frame.stream == 1 && frame.flags & END_STREAM != 0)?;
    let line = rig.gateway.log_of_path("/ws")?;
    assert_eq!((line["status"].as_u64(), line["why"].is_null()), (Some(200), true), "{line}");
    Ok(())
}

// P6: RFC 8441
#[test]
fn a_websocket_that_is_not_to_be_gets_no_open_stream() -> Result<()> {
    lab_test!();
    let Some(site) = rig("", "")? else { return Ok(()) };
    let rig = &site.rig;
    // The backend answers 200 and switches nothing; 426; other CONNECTs are refused as ever.
    let other = [
        http2::field(":method", "CONNECT"),
        http2::field(":protocol", "connect-udp"),
        http2::field(":scheme", "http"),
        http2::field(":path", "/"),
        http2::field(":authority", "a"),
    ];
    let plain = [http2::field(":method", "CONNECT"), http2::field(":authority", "a:443")];
    for (block, status) in [
        (websocket("a.test", "/"), 502),
        (websocket("a.test", "/status/403"), 403),
        (websocket("a.test", "/closed/x"), 405),
        (other.concat(), 400),
        (plain.concat(), 400),
    ] {
        let mut client = site.http2()?;
        client.send(HEADERS, END_HEADERS, 1, &block)?;
        client.until("an answer", |frame| frame.kind == HEADERS)?;
        client.send(RST_STREAM, 0, 1, &8u32.to_be_bytes())?;
        rig.gateway.log_line("it is told", |line| line["status"] == status)?;
    }
    Ok(())
}

// P6: RFC 8441 section 5
#[test]
fn a_client_by_http_1_1_has_its_websocket_at_a_target_by_http_2() -> Result<()> {
    lab_test!();
    let Some(site) = rig("timeout = { idle = \"300ms\" }", "websockets")? else { return Ok(()) };
    let mut socket = site.socket("/ws?a=1")?;
    assert_eq!(socket.echo("hello")?, "hello");
    let seen = site.seen("/ws?a=1")?;
    for (name, value) in [(":method", "CONNECT"), (":protocol", "websocket"), (":authority", "node.test")] {
        assert_eq!(seen[name], value, "{seen}");
    }
    assert_eq!(seen["sec-websocket-version"], "13");
    for name in ["sec-websocket-key", "connection", "upgrade", "host"] {
        assert!(seen[name].is_null(), "{name}: {seen}");
    }
    // More than any window, both ways; then over a reload, and longer than the connection may idle.
    let large = "x".repeat(3_000_000);
    assert!(socket.echo(&large)? == large);
    site.rig.gateway.cli(&["reload"])?.ok()?;
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(socket.echo("again")?, "again");
    // Beside others, on one connection.
    let mut more = (0..20).map(|_| site.socket("/ws")).collect::<Result<Vec<_>>>()?;
    for (n, socket) in more.iter_mut().enumerate() {
        assert_eq!(socket.echo(&n.to_string())?, n.to_string());
    }
    let connects = site.rig.gateway.metrics()?.sum("upstream_connects_total", &[("upstream", "node")]);
    assert_eq!(connects, 1.0);
    socket.0.send(Message::Ping("p".into()))?;
    assert_eq!(socket.0.read()?, Message::Pong("p".into()));
    let code = tungstenite::protocol::CloseFrame { code: 4001.into(), reason: "done".into() };
    socket.0.close(Some(code.clone()))?;
    assert_eq!(socket.0.read()?, Message::Close(Some(code)));
    drop(socket);
    let line = site.rig.gateway.log_line("it is over", |line| line["query"] == "a=1")?;
    assert_eq!((line["status"].as_u64(), line["why"].is_null()), (Some(101), true), "{line}");
    assert!(line["bytes_out"].as_u64().is_some_and(|bytes| bytes > 3_000_000), "{line}");
    Ok(())
}

// P6: RFC 8441 on both sides
#[test]
fn a_client_by_http_2_has_its_websocket_at_a_target_by_http_2() -> Result<()> {
    lab_test!();
    let Some(site) = rig("", "websockets")? else { return Ok(()) };
    let mut client = site.http2()?;
    let block = [websocket("node.test", "/ws"), http2::field("sec-websocket-protocol", "chat")].concat();
    client.send(HEADERS, END_HEADERS, 1, &block)?;
    let answer = client.until("it is open", |frame| frame.kind == HEADERS)?;
    assert_eq!((answer.payload.first(), answer.flags & END_STREAM), (Some(&0x88), 0), "{answer:?}");
    assert_eq!(site.seen("/ws")?["sec-websocket-protocol"], "chat");
    client.send(DATA, 0, 1, &message("hello"))?;
    let echo = client.until("the echo", |frame| frame.kind == DATA && frame.stream == 1)?;
    assert_eq!(echo.payload, b"\x81\x05hello");
    client.send(DATA, END_STREAM, 1, &[0x88, 0x80, 0, 0, 0, 0])?;
    client.until("it ends", |frame| frame.stream == 1 && frame.flags & END_STREAM != 0)?;
    Ok(())
}

// P6
#[test]
fn what_a_target_by_http_2_says_of_a_websocket_is_told_as_it_is() -> Result<()> {
    lab_test!();
    let Some(site) = rig("", "websockets")? else { return Ok(()) };
    let fields = format!("{KEY}sec-websocket-protocol: chat\r\n");
    let mut client = site.rig.client()?;
    client.send(format!(
        "GET /ws HTTP/1.1\r\nhost: node.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n{fields}\r\n"
    ))?;
    let opened = client.head()?;
    assert_eq!((opened.status, opened.header("upgrade")), (101, Some("websocket")));
    assert_eq!(opened.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(opened.header("sec-websocket-protocol"), Some("chat"));
    let refused = site.asks("/no", "websocket", KEY)?;
    assert_eq!((refused.status, refused.text().as_str()), (403, "plain"));
    site.asks("/ws", "websocket", "")?.refused(400, "bad_request")?;
    site.asks("/ws", "other", KEY)?.refused(502, "upstream_no_upgrade")?;
    // A stream that is reset closes the client's connection, which is no clean end.
    let mut socket = site.socket("/reset")?;
    assert!(socket.echo("hello").is_err());
    drop(socket);
    site.rig.gateway.log_of_path("/reset")?;
    // Whoever goes away takes the stream along.
    drop(site.socket("/ws")?);
    let active = || -> Result<f64> {
        Ok(site.rig.gateway.metrics()?.sum("upstream_active_requests", &[("upstream", "node")]))
    };
    eventually("nothing is under way but the first", || Ok(active()? <= 1.0))?;
    assert_eq!(site.rig.ask("GET /", "node.test", "")?.text(), "plain");
    Ok(())
}

// P6: RFC 8441 section 3
#[test]
fn a_target_by_http_2_that_takes_no_websockets_is_told_from_one_that_fails() -> Result<()> {
    lab_test!();
    let Some(site) = rig("", "nothing")? else { return Ok(()) };
    // On a connection of which nothing is known yet, and on one that has answered.
    for _ in 0..2 {
        let answer = site.asks("/ws", "websocket", KEY)?;
        answer.refused(502, "upstream_no_upgrade")?;
        assert!(answer.text().contains("RFC 8441"), "{}", answer.text());
        assert_eq!(site.rig.gateway.log_of(&answer)?["why"], "upstream_no_upgrade");
        assert_eq!(site.rig.ask("GET /", "node.test", "")?.text(), "plain");
    }
    let mut client = site.http2()?;
    client.send(HEADERS, END_HEADERS, 1, &websocket("node.test", "/ws"))?;
    client.until("an answer", |frame| frame.kind == HEADERS)?;
    site.rig
        .gateway
        .log_line("it is told", |line| line["proto"] == "h2" && line["why"] == "upstream_no_upgrade")?;
    Ok(())
}
