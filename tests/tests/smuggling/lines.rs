//! Line ends, and what is in front of and between fields (RFC 9112 sections 2.2 and 5, RFC 9110 section 5.5), and Host.

use crate::corpus::{
    Corpus,
    Expect::{Either, Passed, Refused},
    SMUGGLED,
};

const HOST: &str = "Host: gw.test\r\n";

pub fn add(corpus: &mut Corpus) {
    line_ends(corpus);
    fields(corpus);
    hosts(corpus);
}

fn line_ends(corpus: &mut Corpus) {
    let n = SMUGGLED.len();
    for (name, bytes) in [
        ("bare LF everywhere", "GET /p/0000 HTTP/1.1\nHost: gw.test\n\n".to_owned()),
        ("bare LF behind the request line", format!("GET /p/0000 HTTP/1.1\n{HOST}\r\n")),
        ("bare LF behind a field", "GET /p/0000 HTTP/1.1\r\nHost: gw.test\nX: y\r\n\r\n".to_owned()),
        ("bare LF as the last line", format!("GET /p/0000 HTTP/1.1\r\n{HOST}\n")),
        ("bare LF twice in a value", format!("GET /p/0000 HTTP/1.1\r\n{HOST}X: y\n\n{SMUGGLED}")),
        ("bare LF before the request", format!("\nGET /p/0000 HTTP/1.1\r\n{HOST}\r\n")),
        ("bare CR behind the request line", format!("GET /p/0000 HTTP/1.1\r{HOST}\r\n")),
        ("bare CR behind a field", format!("GET /p/0000 HTTP/1.1\r\n{HOST}X: y\rZ: 1\r\n\r\n")),
        ("bare CR twice", format!("GET /p/0000 HTTP/1.1\r\n{HOST}X: y\r\r{SMUGGLED}")),
        ("CRCRLF behind the request line", format!("GET /p/0000 HTTP/1.1\r\r\n{HOST}\r\n")),
        ("CRCRLF behind a field", "GET /p/0000 HTTP/1.1\r\nHost: gw.test\r\r\n\r\n".to_owned()),
        ("CRCRLF as the last line", format!("GET /p/0000 HTTP/1.1\r\n{HOST}\r\r\n")),
        ("LFCR", "GET /p/0000 HTTP/1.1\n\rHost: gw.test\n\r\n\r".to_owned()),
        (
            "a length behind a bare LF",
            format!("POST /p/0000 HTTP/1.1\r\n{HOST}X: y\nContent-Length: {n}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a length behind a bare CR",
            format!("POST /p/0000 HTTP/1.1\r\n{HOST}X: y\rContent-Length: {n}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a length behind CR and space",
            format!("POST /p/0000 HTTP/1.1\r\n{HOST}X: y\r Content-Length: {n}\r\n\r\n{SMUGGLED}"),
        ),
        ("bare CR before the request", format!("\rGET /p/0000 HTTP/1.1\r\n{HOST}\r\n")),
    ] {
        corpus.raw(format!("lines/{name}"), Refused, bytes);
    }
    // RFC 9112 section 2.2: a server should ignore at least one.
    corpus.raw("lines/empty line first", Either, format!("\r\nGET /p/0000 HTTP/1.1\r\n{HOST}\r\n"));
    corpus.raw("lines/empty lines first", Either, format!("\r\n\r\n\r\nGET /p/0000 HTTP/1.1\r\n{HOST}\r\n"));
}

fn fields(corpus: &mut Corpus) {
    let n = SMUGGLED.len();
    let bodied =
        |field: &str| format!("POST /p/0000 HTTP/1.1\r\n{field}{HOST}Content-Length: {n}\r\n\r\n{SMUGGLED}");
    for (name, field) in [
        ("space before the first", " X: y\r\n"),
        ("tab before the first", "\tX: y\r\n"),
        ("space, and nothing else", " \r\n"),
        ("folded", "X: y\r\n z\r\n"),
        ("folded with a tab", "X: y\r\n\tz\r\n"),
        ("folded empty", "X: y\r\n \r\n"),
        ("folded length", "X: y\r\n Content-Length: 0\r\n"),
        ("no colon", "XYZ\r\n"),
        ("no name", ": y\r\n"),
        ("space in the name", "X Y: z\r\n"),
        ("space before the colon", "X : z\r\n"),
        ("slash in the name", "X/Y: z\r\n"),
        ("brackets in the name", "X[Y]: z\r\n"),
        ("high byte in the name", "Xé: z\r\n"),
        ("NUL in the name", "X\0Y: z\r\n"),
        ("NUL in the value", "X: y\0z\r\n"),
        ("DEL in the value", "X: y\x7fz\r\n"),
        ("escape in the value", "X: y\x1bz\r\n"),
        ("backspace in the name", "X\x08: z\r\n"),
    ] {
        corpus.raw(format!("fields/{name}"), Refused, bodied(field));
    }
    for (name, field) in [
        ("empty value", "X:\r\n"),
        ("high bytes in the value", "X: yé\r\n"),
        ("odd but legal name", "!#$%&'*+-.^_`|~0: y\r\n"),
        ("colon in the value", "X: :y:\r\n"),
    ] {
        corpus.raw(format!("fields/{name}"), Passed, bodied(field));
    }
    let many: String = (0..99).map(|i| format!("X-{i}: y\r\n")).collect();
    corpus.raw("fields/one more than fit", Refused, bodied(&many));
}

fn hosts(corpus: &mut Corpus) {
    for (name, lines) in [
        ("none", ""),
        ("twice", "Host: gw.test\r\nHost: gw.test\r\n"),
        ("twice, different", "Host: gw.test\r\nHost: other.test\r\n"),
        ("empty", "Host:\r\n"),
        ("list", "Host: gw.test, other.test\r\n"),
        ("space inside", "Host: gw.test other.test\r\n"),
        ("userinfo", "Host: user@gw.test\r\n"),
        ("path", "Host: gw.test/x\r\n"),
        ("query", "Host: gw.test?x\r\n"),
        ("fragment", "Host: gw.test#x\r\n"),
        ("backslash", "Host: gw.test\\x\r\n"),
        ("scheme", "Host: http://gw.test\r\n"),
        ("two ports", "Host: gw.test:80:81\r\n"),
        ("port of letters", "Host: gw.test:http\r\n"),
        ("port with sign", "Host: gw.test:+80\r\n"),
        ("huge port", "Host: gw.test:999999\r\n"),
        ("colon only", "Host: :80\r\n"),
        ("open bracket", "Host: [::1\r\n"),
        ("quotes", "Host: \"gw.test\"\r\n"),
        ("high bytes", "Host: gé.test\r\n"),
        ("space before the name", " Host: gw.test\r\n"),
        ("space before the colon", "Host : gw.test\r\n"),
        ("folded", "Host: gw.test\r\n other.test\r\n"),
        ("folded before", "Host:\r\n gw.test\r\n"),
        ("an encoded line end", "Host: gw.test%0d%0ax\r\n"),
        ("an encoded slash", "Host: gw.test%2fx\r\n"),
        ("semicolon", "Host: gw.test;x\r\n"),
    ] {
        corpus.raw(format!("host/{name}"), Refused, format!("GET /p/0000 HTTP/1.1\r\n{lines}\r\n"));
    }
    for (name, lines) in [
        ("spaces around", "Host:   gw.test  \r\n"),
        ("tab around", "Host:\tgw.test\t\r\n"),
        ("upper case", "HOST: GW.TEST\r\n"),
        ("dot behind", "Host: gw.test.\r\n"),
        ("empty port", "Host: gw.test:\r\n"),
        ("IPv6", "Host: [::1]:80\r\n"),
        ("beside x-forwarded-host", "Host: gw.test\r\nX-Forwarded-Host: other.test\r\n"),
        ("beside x-host", "Host: gw.test\r\nX-Host: other.test\r\n"),
    ] {
        corpus.raw(format!("host/{name}"), Either, format!("GET /p/0000 HTTP/1.1\r\n{lines}\r\n"));
    }
    corpus.raw("host/none in HTTP 1.0", Either, "GET /p/0000 HTTP/1.0\r\n\r\n");
    corpus.raw("host/twice in HTTP 1.0", Refused, "GET /p/0000 HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n");
}
