//! Fields that ask for more than passing the message on: Connection, Upgrade, Expect, and what time does.

use crate::corpus::{
    Corpus,
    Expect::{self, Either, Passed, Refused},
    SMUGGLED, chunked, ended, post, request,
};

pub fn add(corpus: &mut Corpus) {
    hop_by_hop(corpus);
    upgrades(corpus);
    expectations(corpus);
    methods(corpus);
    pauses(corpus);
}

fn length() -> String {
    format!("Content-Length: {}\r\n", SMUGGLED.len())
}

/// RFC 9110 section 7.6.1: to drop what framing, routing and access stand on.
fn hop_by_hop(corpus: &mut Corpus) {
    for (name, option) in [
        ("content-length", "Content-Length"),
        ("host", "Host"),
        ("authorization", "Authorization"),
        ("cookie", "Cookie"),
        ("x-forwarded-for", "X-Forwarded-For"),
        ("via", "Via"),
        ("x-request-id", "X-Request-Id"),
        ("close and content-length", "close, content-length"),
        ("keep-alive and host", "keep-alive, HOST"),
        ("empty items", ",,content-length,,"),
        ("connection", "connection"),
        ("forwarded", "Forwarded"),
        ("many", "a, b, c, d, e, content-length, f"),
        ("quotes", "\"content-length\""),
        ("spaces", "content-length close"),
        ("nothing", ""),
    ] {
        let fields = format!("Connection: {option}\r\nAuthorization: Basic YTpi\r\n{}", length());
        corpus.raw(format!("connection/{name}"), Passed, post(fields, SMUGGLED));
    }
    let fields = format!("Connection: close\r\nConnection: content-length\r\n{}", length());
    corpus.raw("connection/twice", Passed, post(fields, SMUGGLED));
    let fields = format!("Proxy-Connection: keep-alive\r\nKeep-Alive: timeout=1\r\n{}", length());
    corpus.raw("connection/of proxies", Passed, post(fields, SMUGGLED));
    let fields = "Connection: transfer-encoding, close\r\nTransfer-Encoding: chunked\r\n";
    corpus.raw("connection/transfer-encoding", Passed, post(fields, chunked()));
    corpus.raw(
        "connection/te",
        Passed,
        post("Connection: te\r\nTE: chunked, trailers\r\nTransfer-Encoding: chunked\r\n", chunked()),
    );
}

/// RFC 9110 section 7.8.
fn upgrades(corpus: &mut Corpus) {
    let websocket = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let get = "GET /p/0000 HTTP/1.1";
    let cases: [(&str, Expect, String, String); 11] = [
        ("h2c", Either, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n".into(), String::new()),
        ("h2c with a body", Either, format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n{}", length()), SMUGGLED.into()),
        ("h2c without being listed", Either, "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n".into(), String::new()),
        ("websocket", Either, websocket.into(), String::new()),
        ("websocket with a body", Either, format!("{websocket}{}", length()), SMUGGLED.into()),
        ("websocket with chunks", Either, format!("{websocket}Transfer-Encoding: chunked\r\n"), chunked()),
        ("websocket without being listed", Either, format!("Upgrade: websocket\r\n{}", length()), SMUGGLED.into()),
        ("websocket of another version", Either, websocket.replace("13", "777"), String::new()),
        ("two protocols", Either, websocket.replace("websocket\r\nSec", "websocket, h2c\r\nSec"), String::new()),
        ("TLS", Either, "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n".into(), String::new()),
        ("empty", Either, "Connection: upgrade\r\nUpgrade:\r\n".into(), String::new()),
    ];
    for (name, expect, fields, body) in cases {
        corpus.raw(format!("upgrade/{name}"), expect, request(get, fields, body));
    }
    let old = request("GET /p/0000 HTTP/1.0", websocket, "");
    corpus.raw("upgrade/websocket in HTTP 1.0", Either, old);
}

/// RFC 9110 section 10.1.1.
fn expectations(corpus: &mut Corpus) {
    for (name, expect, value) in [
        ("100-continue", Passed, "100-continue"),
        ("upper case", Either, "100-CONTINUE"),
        ("another", Either, "200-ok"),
        ("empty", Either, ""),
        ("space before", Either, " 100-continue"),
        ("line", Either, "y 100-continue"),
        ("list", Either, "100-continue, 100-continue"),
        ("parameter", Either, "100-continue;x"),
    ] {
        let fields = format!("Expect: {value}\r\n{}", length());
        corpus.raw(format!("expect/{name}"), expect, post(fields, SMUGGLED));
    }
    let head = post(format!("Expect: 100-continue\r\n{}", length()), "");
    corpus.pieces("expect/body after a pause", Passed, &[&head, SMUGGLED.as_bytes()]);
    corpus.pieces("expect/no body at all", Refused, &[&head]);
    corpus.raw(
        "expect/on a GET without a body",
        Either,
        request("GET /p/0000 HTTP/1.1", "Expect: 100-continue\r\n", ""),
    );
    corpus.raw(
        "expect/on a HEAD without a body",
        Either,
        request("HEAD /p/0000 HTTP/1.1", "Expect: 100-continue\r\n", ""),
    );
    let fields = format!("Expect: 100-continue\r\nExpect: 100-continue\r\n{}", length());
    corpus.raw("expect/twice", Either, post(fields, SMUGGLED));
    let old = request("POST /p/0000 HTTP/1.0", format!("Expect: 100-continue\r\n{}", length()), SMUGGLED);
    corpus.raw("expect/in HTTP 1.0", Either, old);
}

fn methods(corpus: &mut Corpus) {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "DELETE", "PROPFIND", "LOCK"] {
        let line = format!("{method} /p/0000 HTTP/1.1");
        corpus.raw(
            format!("method/{method} with chunks"),
            Either,
            request(&line, "Transfer-Encoding: chunked\r\n", chunked()),
        );
        let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", ended().len());
        corpus.raw(format!("method/{method} with both lengths"), Refused, request(&line, both, ended()));
    }
    for (name, field) in [
        ("x-http-method-override", "X-HTTP-Method-Override: HEAD\r\n"),
        ("x-original-url", "X-Original-URL: /s/0000\r\n"),
        ("x-rewrite-url", "X-Rewrite-URL: /s/0000\r\n"),
    ] {
        corpus.raw(format!("method/{name}"), Passed, post(format!("{field}{}", length()), SMUGGLED));
    }
    let old = "Connection: keep-alive\r\n";
    corpus.raw("method/HTTP 1.0 kept alive", Passed, request("GET /p/0000 HTTP/1.0", old, ""));
    let old = format!("Connection: keep-alive\r\n{}", length());
    corpus.raw(
        "method/HTTP 1.0 kept alive with a body",
        Passed,
        request("GET /p/0000 HTTP/1.0", old, SMUGGLED),
    );
}

/// A reader that gives up waiting must not take what comes later for something new.
fn pauses(corpus: &mut Corpus) {
    let head = post(length(), "");
    let (line, fields) = head.split_at(22);
    corpus.pieces("pause/behind the request line", Passed, &[line, fields, SMUGGLED.as_bytes()]);
    let (cr, lf) = head.split_at(head.len() - 1);
    corpus.pieces("pause/inside the last line end", Passed, &[cr, lf, SMUGGLED.as_bytes()]);
    let chunks = chunked();
    let coded = "Transfer-Encoding: chunked\r\n";
    for at in [1, 3, 4, chunks.len() - 7, chunks.len() - 5, chunks.len() - 4, chunks.len() - 1] {
        let (first, second) = chunks.split_at(at);
        let head = post(coded, first);
        corpus.pieces(format!("pause/chunks at {at}"), Passed, &[&head, second.as_bytes()]);
    }
    let short = post(length(), "GET");
    corpus.pieces("pause/body that never ends", Refused, &[&short]);
    corpus.pieces("pause/chunks that never end", Refused, &[&post(coded, "5\r\nabc")]);
    corpus.pieces("pause/head that never ends", Refused, &[b"GET /p/0000 HTTP/1.1\r\nHost: gw.test\r\nX: "]);
}
