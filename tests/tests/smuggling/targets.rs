//! Request lines, targets and versions (RFC 9112 section 3).

use crate::corpus::{
    Corpus,
    Expect::{Either, Passed, Refused, Unknown},
    SMUGGLED, request,
};

pub fn add(corpus: &mut Corpus) {
    for (name, line) in [
        ("two spaces before the target", "GET  /p/0000 HTTP/1.1"),
        ("two spaces behind the target", "GET /p/0000  HTTP/1.1"),
        ("tab before the target", "GET\t/p/0000 HTTP/1.1"),
        ("tab behind the target", "GET /p/0000\tHTTP/1.1"),
        ("space before the method", " GET /p/0000 HTTP/1.1"),
        ("space at the end", "GET /p/0000 HTTP/1.1 "),
        ("space in the target", "GET /p/0000 /x HTTP/1.1"),
        ("vertical tab between", "GET\x0b/p/0000\x0bHTTP/1.1"),
        ("NUL in the target", "GET /p/0000\0 HTTP/1.1"),
        ("no version", "GET /p/0000"),
        ("HTTP 0.9", "GET /p/0000 HTTP/0.9"),
        ("HTTP 1.2", "GET /p/0000 HTTP/1.2"),
        ("HTTP 2.0", "GET /p/0000 HTTP/2.0"),
        ("HTTP 1", "GET /p/0000 HTTP/1"),
        ("HTTP 1.10", "GET /p/0000 HTTP/1.10"),
        ("HTTP 01.1", "GET /p/0000 HTTP/01.1"),
        ("HTTP 1,1", "GET /p/0000 HTTP/1,1"),
        ("lower case version", "GET /p/0000 http/1.1"),
        ("mixed case version", "GET /p/0000 Http/1.1"),
        ("another protocol", "GET /p/0000 ICY/1.1"),
        ("two versions", "GET /p/0000 HTTP/1.1 HTTP/1.1"),
        ("no slash", "GET p/0000 HTTP/1.1"),
        ("no target", "GET HTTP/1.1"),
        ("colon in the method", "GE:T /p/0000 HTTP/1.1"),
        ("brackets in the method", "GET[] /p/0000 HTTP/1.1"),
        ("high byte in the method", "GÉT /p/0000 HTTP/1.1"),
        ("CONNECT", "CONNECT gw.test:80 HTTP/1.1"),
        ("CONNECT to a path", "CONNECT /p/0000 HTTP/1.1"),
        ("authority form", "GET gw.test:80 HTTP/1.1"),
        ("asterisk", "GET * HTTP/1.1"),
        ("absolute form with userinfo", "GET http://gw.test@other.test/p/0000 HTTP/1.1"),
        ("absolute form of another scheme", "GET ftp://gw.test/p/0000 HTTP/1.1"),
        ("absolute form without a host", "GET http:///p/0000 HTTP/1.1"),
        ("absolute form with a bad port", "GET http://gw.test:x/p/0000 HTTP/1.1"),
        ("dot segments", "GET /p/../s/0000 HTTP/1.1"),
        ("encoded dot segments", "GET /p/%2e%2e/s/0000 HTTP/1.1"),
        ("half-encoded dot segments", "GET /p/.%2e/s/0000 HTTP/1.1"),
        ("dot segments with backslashes", "GET /p\\..\\s/0000 HTTP/1.1"),
        ("dot segment at the end", "GET /p/0000/.. HTTP/1.1"),
        ("one dot", "GET /./p/0000 HTTP/1.1"),
        ("dot segment with a parameter", "GET /p/..;/s/0000 HTTP/1.1"),
        ("encoded slashes of dot segments", "GET /p/..%2fs/0000 HTTP/1.1"),
        ("encoded backslashes of dot segments", "GET /p/..%5cs/0000 HTTP/1.1"),
        ("backslash for slash", "GET \\p/0000 HTTP/1.1"),
        ("encoded NUL", "GET /p/0000%00 HTTP/1.1"),
        ("broken escape", "GET /p/0000%4 HTTP/1.1"),
        ("escape of no digits", "GET /p/0000%zz HTTP/1.1"),
        ("wide escape", "GET /p/0000%u002e HTTP/1.1"),
        ("high bytes", "GET /p/0000é HTTP/1.1"),
        ("high bytes in the query", "GET /p/0000?é HTTP/1.1"),
        ("fragment", "GET /p/0000#x HTTP/1.1"),
        ("fragment with a query", "GET /p/0000#?x HTTP/1.1"),
        ("fragment behind a host", "GET http://gw.test#:81/p/0000 HTTP/1.1"),
    ] {
        corpus.raw(format!("target/{name}"), Refused, request(line, "", ""));
    }
    for (name, line) in [
        ("two slashes", "GET //p/0000 HTTP/1.1"),
        ("two slashes inside", "GET /x//p/0000 HTTP/1.1"),
        ("encoded slash", "GET /p/0000%2fx HTTP/1.1"),
        ("encoded backslash", "GET /p/0000%5cx HTTP/1.1"),
        ("backslash", "GET /p/0000\\x HTTP/1.1"),
        ("parameter", "GET /p/0000;x=1 HTTP/1.1"),
        ("encoded line end", "GET /p/0000%0d%0aX HTTP/1.1"),
        ("encoded line end in the query", "GET /p/0000?x=%0d%0aHost:%20x HTTP/1.1"),
        ("encoded twice", "GET /p/0000%252e%252e HTTP/1.1"),
        ("overlong encoding", "GET /p/0000%c0%ae HTTP/1.1"),
        ("question marks", "GET /p/0000??x?y HTTP/1.1"),
        ("quotes", "GET /p/0000\"x HTTP/1.1"),
        ("angle brackets", "GET /p/0000<x> HTTP/1.1"),
        ("braces", "GET /p/0000{x} HTTP/1.1"),
        ("preface of HTTP 2", "PRI * HTTP/2.0"),
    ] {
        corpus.raw(format!("target/{name}"), Either, request(line, "", ""));
    }
    for (name, line) in [
        ("asterisk of OPTIONS", "OPTIONS * HTTP/1.1"),
        ("lower case method", "get /p/0000 HTTP/1.1"),
        ("unknown method", "FROB /p/0000 HTTP/1.1"),
        ("method of symbols", "!#$ /p/0000 HTTP/1.1"),
    ] {
        corpus.raw(format!("target/{name}"), Unknown, request(line, "", ""));
    }
    for (name, line) in [
        ("absolute form", "GET http://gw.test/p/0000 HTTP/1.1"),
        ("absolute form against Host", "GET http://other.test/p/0000 HTTP/1.1"),
        ("absolute form without a path", "GET http://gw.test?/p/0000 HTTP/1.1"),
        ("absolute form by https", "GET https://gw.test/p/0000 HTTP/1.1"),
        ("absolute form in upper case", "GET HTTP://gw.test/p/0000 HTTP/1.1"),
    ] {
        corpus.raw(format!("target/{name}"), Passed, request(line, "", ""));
    }
    corpus.raw("target/HTTP 0.9 without fields", Refused, format!("GET /p/0000\r\n\r\n{SMUGGLED}"));
    corpus.raw(
        "target/a target of 70 KB",
        Refused,
        request(&format!("GET /p/0000?{} HTTP/1.1", "a".repeat(70_000)), "", ""),
    );
    corpus.raw(
        "target/absolute form and two hosts",
        Refused,
        request("GET http://gw.test/p/0000 HTTP/1.1", "Host: other.test\r\n", ""),
    );
    corpus.raw("target/absolute form and no host", Either, "GET http://gw.test/p/0000 HTTP/1.1\r\n\r\n");
    corpus.raw(
        "target/absolute form and a bad host",
        Either,
        "GET http://gw.test/p/0000 HTTP/1.1\r\nHost: a b\r\n\r\n",
    );
}
