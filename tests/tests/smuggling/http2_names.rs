//! HTTP/2 fields that would be more than one line, or another line, in HTTP/1.1 (RFC 9113 sections 8.2 and 8.3).

use lab::http2::{DATA, END_STREAM, field, frame};

use crate::corpus::{
    Corpus,
    Expect::{Either, Passed, Refused, Unknown},
    SMUGGLED,
};

/// Pseudo fields of a GET, with one of them replaced.
pub fn get(replaced: &str, value: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, usual) in
        [(":method", "GET"), (":scheme", "http"), (":authority", "gw.test"), (":path", "/p/0000")]
    {
        block.extend(field(name, if name == replaced { value } else { usual.as_bytes() }));
    }
    block
}

fn with(name: &[u8], value: &[u8]) -> Vec<u8> {
    [get("", b""), field(name, value)].concat()
}

pub fn add(corpus: &mut Corpus) {
    corpus.stream("h2/control/get", Passed, &get("", b""), true, &[]);
    values(corpus);
    names(corpus);
    pseudo(corpus);
    connection(corpus);
}

fn values(corpus: &mut Corpus) {
    let cases: [(&str, &[u8]); 14] = [
        ("CRLF and a field", b"y\r\nTransfer-Encoding: chunked"),
        ("CRLF and a request", b"y\r\n\r\nGET /s/0000 HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("LF and a field", b"y\nTransfer-Encoding: chunked"),
        ("LF and a request", b"y\n\nGET /s/0000 HTTP/1.1\nHost: gw.test\n\n"),
        ("CR and a field", b"y\rTransfer-Encoding: chunked"),
        ("CRLF only", b"\r\n"),
        ("CRLF in front", b"\r\ny"),
        ("CRLF behind", b"y\r\n"),
        ("NUL", b"y\0z"),
        ("NUL behind", b"y\0"),
        ("vertical tab", b"y\x0bz"),
        ("DEL", b"y\x7fz"),
        ("escape", b"y\x1bz"),
        ("folded", b"y\r\n z"),
    ];
    for (name, value) in cases {
        corpus.stream(format!("h2/value/{name}"), Refused, &with(b"x", value), true, &[]);
    }
    for (name, value) in [
        ("space in front", &b" y"[..]),
        ("space behind", b"y "),
        ("tab in front", b"\ty"),
        ("high bytes", b"\xffy"),
    ] {
        corpus.stream(format!("h2/value/{name}"), Either, &with(b"x", value), true, &[]);
    }
}

fn names(corpus: &mut Corpus) {
    let cases: [(&str, &[u8]); 20] = [
        ("upper case", b"X"),
        ("upper case inside", b"xY"),
        ("colon inside", b"x:y"),
        ("colon behind", b"x:"),
        ("colon and a value", b"transfer-encoding: chunked\r\nx"),
        ("CRLF", b"x\r\ny"),
        ("CRLF and a request", b"x: y\r\n\r\nGET /s/0000 HTTP/1.1\r\nhost: gw.test\r\n\r\nz"),
        ("LF", b"x\ny"),
        ("CR", b"x\ry"),
        ("NUL", b"x\0y"),
        ("space inside", b"x y"),
        ("space behind", b"transfer-encoding "),
        ("space in front", b" transfer-encoding"),
        ("tab behind", b"transfer-encoding\t"),
        ("empty", b""),
        ("high byte", b"x\xff"),
        ("DEL", b"x\x7f"),
        ("slash", b"x/y"),
        ("quotes", b"\"x\""),
        ("upper case framing", b"Transfer-Encoding"),
    ];
    for (name, field) in cases {
        corpus.stream(format!("h2/name/{name}"), Refused, &with(field, b"chunked"), true, &[]);
    }
    corpus.stream("h2/name/underscore", Either, &with(b"transfer_encoding", b"chunked"), true, &[]);
}

fn pseudo(corpus: &mut Corpus) {
    let replaced: [(&str, &str, &[u8]); 25] = [
        ("path with a space", ":path", b"/p/0000 HTTP/1.1"),
        ("path with a request", ":path", b"/p/0000 HTTP/1.1\r\nHost: gw.test\r\n\r\nGET /s/0000"),
        ("path with CRLF", ":path", b"/p/0000\r\nx: y"),
        ("path with LF", ":path", b"/p/0000\nx: y"),
        ("path with a tab", ":path", b"/p/0000\tx"),
        ("path with NUL", ":path", b"/p/0000\0x"),
        ("path without a slash", ":path", b"p/0000"),
        ("path that is empty", ":path", b""),
        ("path that is an asterisk", ":path", b"*"),
        ("path with dot segments", ":path", b"/p/../s/0000"),
        ("path with encoded dot segments", ":path", b"/p/%2e%2e/s/0000"),
        ("method with a space", ":method", b"GET /s/0000 HTTP/1.1"),
        ("method with CRLF", ":method", b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\nGET"),
        ("method that is empty", ":method", b""),
        ("method with NUL", ":method", b"GET\0"),
        ("method with a colon", ":method", b"G:ET"),
        ("authority with CRLF", ":authority", b"gw.test\r\nx: y"),
        ("authority with a space", ":authority", b"gw.test x"),
        ("authority with a path", ":authority", b"gw.test/x"),
        ("authority with userinfo", ":authority", b"user@gw.test"),
        ("authority that is empty", ":authority", b""),
        ("authority with a bad port", ":authority", b"gw.test:x"),
        ("scheme with CRLF", ":scheme", b"http\r\nx: y"),
        ("scheme with a slash", ":scheme", b"http://gw.test/x"),
        ("scheme of something else", ":scheme", b"ftp"),
    ];
    for (name, field, value) in replaced {
        corpus.stream(format!("h2/pseudo/{name}"), Refused, &get(field, value), true, &[]);
    }
    corpus.stream("h2/pseudo/path with a fragment", Either, &get(":path", b"/p/0000#x"), true, &[]);
    corpus.stream("h2/pseudo/absolute path", Either, &get(":path", b"http://gw.test/p/0000"), true, &[]);
    corpus.stream("h2/pseudo/path that is a query", Either, &get(":path", b"?/p/0000"), true, &[]);
    corpus.stream("h2/pseudo/path of two slashes", Either, &get(":path", b"//p/0000"), true, &[]);
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().flat_map(|(name, value)| field(name, value)).collect::<Vec<u8>>()
    };
    let (method, scheme, authority, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "gw.test"), (":path", "/p/0000"));
    for (name, fields) in [
        ("path twice", vec![method, scheme, authority, path, (":path", "/s/0000")]),
        ("method twice", vec![method, (":method", "POST"), scheme, authority, path]),
        ("authority twice", vec![method, scheme, authority, (":authority", "other.test"), path]),
        ("scheme twice", vec![method, scheme, (":scheme", "https"), authority, path]),
        ("no path", vec![method, scheme, authority]),
        ("no method", vec![scheme, authority, path]),
        ("no scheme", vec![method, authority, path]),
        ("behind a field", vec![method, scheme, authority, ("x", "y"), path]),
        ("unknown", vec![method, scheme, authority, path, (":x", "y")]),
        ("of answers", vec![method, scheme, authority, path, (":status", "200")]),
        ("protocol without being asked", vec![method, scheme, authority, path, (":protocol", "websocket")]),
        ("host of another name", vec![method, scheme, authority, path, ("host", "other.test")]),
        ("two hosts", vec![method, scheme, authority, path, ("host", "gw.test"), ("host", "other.test")]),
        ("hosts only, two", vec![method, scheme, path, ("host", "gw.test"), ("host", "other.test")]),
        ("neither authority nor host", vec![method, scheme, path]),
        ("CONNECT", vec![(":method", "CONNECT"), authority]),
        ("CONNECT with a path", vec![(":method", "CONNECT"), scheme, authority, path]),
    ] {
        corpus.stream(format!("h2/pseudo/{name}"), Refused, &pairs(&fields), true, &[]);
    }
    // RFC 8441: taken for a WebSocket's start, to which these servers do not agree; what follows must not reach them.
    let websocket = pairs(&[(":method", "CONNECT"), (":protocol", "websocket"), scheme, authority, path]);
    let data = frame(DATA, 0, 1, SMUGGLED.as_bytes());
    let last = frame(DATA, END_STREAM, 1, SMUGGLED.as_bytes());
    corpus.stream("h2/pseudo/extended CONNECT", Unknown, &websocket, true, &[]);
    corpus.stream("h2/pseudo/extended CONNECT with data", Unknown, &websocket, false, &data);
    corpus.stream("h2/pseudo/extended CONNECT with data and an end", Unknown, &websocket, false, &last);
    let length = [websocket, field("content-length", SMUGGLED.len().to_string())].concat();
    corpus.stream("h2/pseudo/extended CONNECT with a length", Unknown, &length, false, &last);
    for (name, fields) in [
        ("host only", vec![method, scheme, path, ("host", "gw.test")]),
        ("host of the same name", vec![method, scheme, authority, path, ("host", "gw.test")]),
        (
            "host of the same name twice",
            vec![method, scheme, authority, path, ("host", "gw.test"), ("host", "gw.test")],
        ),
        ("host that is empty", vec![method, scheme, authority, path, ("host", "")]),
    ] {
        corpus.stream(format!("h2/pseudo/{name}"), Either, &pairs(&fields), true, &[]);
    }
}

/// RFC 9113 section 8.2.2: what is of one connection in HTTP/1.1 is nothing in HTTP/2.
fn connection(corpus: &mut Corpus) {
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "close"),
        ("connection", "content-length"),
        ("keep-alive", "timeout=1"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "chunked, trailers"),
    ] {
        corpus.stream(
            format!("h2/connection/{name}: {value}"),
            Refused,
            &with(name.as_bytes(), value.as_bytes()),
            true,
            &[],
        );
    }
    corpus.stream("h2/connection/te: trailers", Passed, &with(b"te", b"trailers"), true, &[]);
    corpus.stream("h2/connection/http2-settings", Either, &with(b"http2-settings", b"AAMAAABk"), true, &[]);
    corpus.stream("h2/connection/expect", Either, &with(b"expect", b"100-continue"), true, &[]);
}
