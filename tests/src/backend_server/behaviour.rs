//! What each path does. Numbers come from the query, `ms` being milliseconds.

use std::{
    io::{self, Write},
    net::TcpStream,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

use serde_json::json;
use tungstenite::{Message, WebSocket, handshake::derive_accept_key, protocol::Role};

use super::{
    State,
    request::{Reader, Request},
};

/// The body of an ordinary answer, 128 bytes as in the benches.
pub const BODY: [u8; 128] = [b'x'; 128];

/// Answers; whether the connection can take another request. An error is an answer that nobody waited for.
pub fn answer(
    state: &State,
    out: &TcpStream,
    connection: u64,
    reader: &mut Reader<'_>,
    request: &mut Request,
) -> io::Result<bool> {
    let identity = format!("x-backend: {}\r\nx-connection: {connection}\r\nserver: lab\r\n", state.name);
    let mut out = Answer { out, identity, head_only: request.method == "HEAD" };
    let path = request.path().to_owned();
    // These two are about what comes before the request's body.
    if path == "/refuse-100" {
        out.full(417, "", b"not wanted")?;
        return Ok(false);
    }
    if request.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
        out.bytes(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if path != "/unread" {
        reader.body(request)?;
    }
    if path != "/healthz" {
        thread::sleep(Duration::from_millis(state.slow.load(Relaxed)));
        let fail = state.fail.load(Relaxed);
        if fail != 0 {
            out.full(fail, "", b"")?;
            return Ok(true);
        }
    }
    let ms = Duration::from_millis(request.number("ms", 0));
    match path.as_str() {
        "/healthz" => out.full(state.health.load(Relaxed), "", b"")?,
        "/echo" => out.full(200, "content-type: application/json\r\n", echo(request).as_bytes())?,
        "/echo-body" => out.full(200, &answered(request), &request.body)?,
        "/slow-header" => {
            thread::sleep(ms);
            out.full(200, "", &BODY)?;
        }
        "/slow-body" | "/sse" => stream(&mut out, &path, request, ms)?,
        "/chunked" | "/trailers" => chunked(&mut out, &path, request)?,
        "/big" => big(&mut out, request.number("bytes", 1 << 20) as usize)?,
        "/hop" => out.full(
            200,
            "connection: x-secret, keep-alive\r\nkeep-alive: timeout=9\r\nx-secret: 1\r\n",
            &BODY,
        )?,
        "/via" => out.full(200, "via: 1.1 backend\r\nproxy-authenticate: Basic realm=x\r\n", &BODY)?,
        "/103" => {
            out.bytes(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")?;
            thread::sleep(ms);
            out.full(200, "", &BODY)?;
        }
        "/text" => {
            let line = b"The quick brown fox jumps over the lazy dog, again and again.\n";
            let bytes = request.number("bytes", 10_000) as usize;
            let body: Vec<u8> = line.iter().copied().cycle().take(bytes).collect();
            let marked =
                if request.number("no-transform", 0) > 0 { "cache-control: no-transform\r\n" } else { "" };
            let fields = "content-type: text/plain; charset=utf-8\r\netag: \"v1\"\r\naccess-control-allow-origin: *\r\n";
            out.full(200, &format!("{fields}{marked}"), &body)?
        }
        made if made.starts_with("/made") => self::made(state, &mut out, request)?,
        // What an answer says that it cost: in its body, as a language model does, and in a field.
        "/usage" => {
            let (tokens, cost) = (request.number("tokens", 0), request.number("cost", 0));
            let body = format!("{{\"usage\":{{\"total_tokens\":{tokens}}}}}");
            let fields = format!("content-type: application/json\r\nx-cost: {cost}\r\n");
            out.full(200, &fields, body.as_bytes())?
        }
        "/usage-events" => {
            let tokens = request.number("tokens", 0);
            let body = format!(
                "data: {{\"usage\":null}}\n\ndata: {{\"usage\":{{\"total_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n"
            );
            out.full(200, "content-type: text/event-stream\r\n", body.as_bytes())?
        }
        "/no-length" => {
            out.head(200, "connection: close\r\n")?;
            out.bytes(&BODY)?;
            return Ok(false);
        }
        "/ws" => {
            websocket(&mut out, request)?;
            return Ok(false);
        }
        "/close-after" => {
            out.full(200, "", &BODY)?;
            return Ok(false);
        }
        echoed if echoed.starts_with("/echo/") => {
            out.full(200, "content-type: application/json\r\n", echo(request).as_bytes())?
        }
        _ => match path.strip_prefix("/status/").and_then(|status| status.parse().ok()) {
            Some(status) => out.full(status, "", b"")?,
            None if is_broken(&path) => return broken(&mut out, &path, reader),
            None => out.full(200, "", &BODY)?,
        },
    }
    Ok(true)
}

/// The fields that `x-answer` asks for, apart by `|`.
fn answered(request: &Request) -> String {
    let fields = request.header("x-answer").unwrap_or_default().split('|').map(str::trim);
    fields.filter(|field| !field.is_empty()).map(|field| format!("{field}\r\n")).collect()
}

/// Answers as the request says: `x-answer` has fields, apart by `|`, `x-status` a status, `x-size` a body's length,
/// `x-ms` how long before the head, `x-pieces` how many chunks with as long between them; `x-cut` breaks off in the
/// middle; `x-raw` has lines of the head, with <CR> and <LF> in them; `x-hash` fills the body with what looks like noise,
/// and tells its hash. Each answer has a body of its own. A matching `If-None-Match` gets a 304.
fn made(state: &State, out: &mut Answer<'_>, request: &Request) -> io::Result<()> {
    let number = |name: &str| request.header(name).and_then(|text| text.parse::<u64>().ok());
    let pause = Duration::from_millis(number("x-ms").unwrap_or(0));
    let serial = state.made.fetch_add(1, Relaxed) + 1;
    let fields = answered(request);
    let raw = request.header("x-raw").map(|raw| raw.replace("<CR>", "\r").replace("<LF>", "\n") + "\r\n");
    let mut fields = format!("{fields}x-serial: {serial}\r\n{}", raw.unwrap_or_default());
    let tag = fields.lines().find_map(|line| line.strip_prefix("etag: "));
    if tag.is_some() && request.header("if-none-match") == tag {
        return out.full(304, &fields, b"");
    }
    let mut body = format!("{} {serial}\n", request.path()).into_bytes();
    if let Some(size) = number("x-size") {
        body.resize(size as usize, b'.');
    }
    if number("x-hash").is_some() {
        let seed = body.clone();
        blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut body);
        fields.push_str(&format!("x-hash: {}\r\n", blake3::hash(&body).to_hex()));
    }
    let status = number("x-status").and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
    match number("x-pieces") {
        None => {
            thread::sleep(pause);
            if number("x-cut").is_some() {
                out.head(status, &format!("{fields}content-length: {}\r\n", body.len()))?;
                out.bytes(&body[..body.len() / 2])?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            out.full(status, &fields, &body)
        }
        Some(pieces) => {
            out.head(status, &format!("{fields}transfer-encoding: chunked\r\n"))?;
            for piece in body.chunks(body.len().div_ceil(pieces.max(1) as usize)) {
                out.chunk(piece)?;
                thread::sleep(pause);
            }
            out.bytes(b"0\r\n\r\n")
        }
    }
}

fn is_broken(path: &str) -> bool {
    [
        "/hang",
        "/hang-body",
        "/hang-chunked",
        "/close",
        "/close-body",
        "/reset",
        "/reset-body",
        "/garbage",
        "/garbage-body",
        "/huge-header",
        "/half-close",
        "/half-close-body",
        "/half-close-after",
        "/unread",
    ]
    .contains(&path)
}

/// A backend that is not well.
fn broken(out: &mut Answer<'_>, path: &str, reader: &mut Reader<'_>) -> io::Result<bool> {
    match path {
        "/hang" => {
            reader.gone()?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        "/hang-body" | "/hang-chunked" => {
            match path {
                "/hang-body" => out.head(200, "content-length: 1000\r\n")?,
                _ => out.head(200, "transfer-encoding: chunked\r\n\r\n80")?,
            }
            out.bytes(&BODY)?;
            reader.gone()?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        // Says that it says no more, and goes on listening.
        "/half-close" | "/half-close-body" | "/half-close-after" => {
            match path {
                "/half-close" => {}
                "/half-close-body" => {
                    out.head(200, "content-length: 1000\r\n")?;
                    out.bytes(&BODY)?;
                }
                _ => out.full(200, "", &BODY)?,
            }
            out.out.shutdown(std::net::Shutdown::Write)?;
            reader.gone()?;
        }
        "/close-body" | "/reset-body" => {
            out.head(200, "content-length: 1000\r\n")?;
            out.bytes(&BODY)?;
            // The other side should have seen this much before the end comes.
            thread::sleep(Duration::from_millis(20));
        }
        "/garbage" => out.bytes(b"\x16\x03\x01 this is not HTTP\r\n\r\n")?,
        "/garbage-body" => {
            out.head(200, "transfer-encoding: chunked\r\n")?;
            out.bytes(b"5\r\nhello\r\nnot a size\r\n")?;
        }
        "/huge-header" => {
            let huge = format!("x-huge: {}\r\n", "h".repeat(2 << 20));
            out.full(200, &huge, b"")?;
        }
        _ => {}
    }
    if path.starts_with("/reset") {
        socket2::SockRef::from(out.out).set_linger(Some(Duration::ZERO))?;
    }
    Ok(false)
}

struct Answer<'a> {
    out: &'a TcpStream,
    /// Fields that every answer has.
    identity: String,
    head_only: bool,
}

impl Answer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// A status line and fields, each of `fields` with its line end.
    fn head(&mut self, status: u16, fields: &str) -> io::Result<()> {
        self.bytes(format!("{}\r\n", self.start(status, fields)).as_bytes())
    }

    fn start(&self, status: u16, fields: &str) -> String {
        format!("HTTP/1.1 {status} Because\r\n{}{fields}", self.identity)
    }

    fn full(&mut self, status: u16, fields: &str, body: &[u8]) -> io::Result<()> {
        let mut all = self.start(status, fields).into_bytes();
        if !matches!(status, 204 | 304) {
            all.extend(format!("content-length: {}\r\n", body.len()).bytes());
        }
        all.extend(b"\r\n");
        if !self.head_only && !matches!(status, 204 | 304) {
            all.extend(body);
        }
        self.bytes(&all)
    }

    fn chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        let mut all = format!("{:x}\r\n", chunk.len()).into_bytes();
        all.extend(chunk);
        all.extend(b"\r\n");
        self.bytes(&all)
    }
}

/// The request as it came, for tests of what is forwarded.
fn echo(request: &Request) -> String {
    let pairs =
        |fields: &[(String, String)]| -> Vec<_> { fields.iter().map(|(k, v)| json!([k, v])).collect() };
    json!({
        "method": request.method,
        "target": request.target,
        "headers": pairs(&request.headers),
        "body": String::from_utf8_lossy(&request.body),
        "trailers": pairs(&request.trailers),
    })
    .to_string()
}

/// `n` pieces, `ms` apart; the first at once.
fn stream(out: &mut Answer<'_>, path: &str, request: &Request, apart: Duration) -> io::Result<()> {
    let sse = path == "/sse";
    out.head(
        200,
        if sse {
            "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        } else {
            "transfer-encoding: chunked\r\n"
        },
    )?;
    for i in 0..request.number("n", 3) {
        if i > 0 {
            thread::sleep(apart);
        }
        out.chunk(if sse { format!("data: {i}\n\n") } else { format!("piece {i}\n") }.as_bytes())?;
    }
    out.bytes(b"0\r\n\r\n")
}

fn chunked(out: &mut Answer<'_>, path: &str, request: &Request) -> io::Result<()> {
    let trailers = path == "/trailers";
    out.head(
        200,
        if trailers {
            "trailer: x-sum\r\ntransfer-encoding: chunked\r\n"
        } else {
            "transfer-encoding: chunked\r\n"
        },
    )?;
    let piece = vec![b'c'; request.number("size", 1000) as usize];
    for _ in 0..request.number("n", 3) {
        out.chunk(&piece)?;
    }
    out.bytes(if trailers { b"0\r\nx-sum: 42\r\n\r\n" } else { b"0\r\n\r\n" })
}

fn big(out: &mut Answer<'_>, mut bytes: usize) -> io::Result<()> {
    out.head(200, &format!("content-length: {bytes}\r\n"))?;
    let piece = [b'b'; 64 * 1024];
    while bytes > 0 {
        let n = bytes.min(piece.len());
        out.bytes(piece.get(..n).unwrap_or(&piece))?;
        bytes -= n;
    }
    Ok(())
}

/// Echoes messages until closed.
fn websocket(out: &mut Answer<'_>, request: &Request) -> io::Result<()> {
    let Some(key) = request.header("sec-websocket-key") else {
        return out.full(426, "upgrade: websocket\r\n", b"");
    };
    let accept = derive_accept_key(key.as_bytes());
    out.head(
        101,
        &format!("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n"),
    )?;
    let mut socket = WebSocket::from_raw_socket(out.out.try_clone()?, Role::Server, None);
    while let Ok(message) = socket.read() {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).map_err(io::Error::other)?;
        }
    }
    Ok(())
}
