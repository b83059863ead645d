//! Transfer-Encoding written so that some readers take it and others do not (RFC 9112 sections 5.1, 6.1 and 7).

use crate::corpus::{
    Corpus,
    Expect::{self, Either, Passed, Refused},
    chunked, ended, post,
};

/// Lines that name the field in a way that is an error, or that say something other than `chunked` once.
const BROKEN: [(&str, &[u8]); 44] = [
    ("plain", b"Transfer-Encoding: chunked\r\n"),
    ("lower case", b"transfer-encoding: chunked\r\n"),
    ("upper case", b"TRANSFER-ENCODING: CHUNKED\r\n"),
    ("mixed case", b"tRANSFER-eNCODING: cHuNkEd\r\n"),
    ("space before colon", b"Transfer-Encoding : chunked\r\n"),
    ("tab before colon", b"Transfer-Encoding\t: chunked\r\n"),
    ("vertical tab before colon", b"Transfer-Encoding\x0b: chunked\r\n"),
    ("form feed before colon", b"Transfer-Encoding\x0c: chunked\r\n"),
    ("NUL before colon", b"Transfer-Encoding\0: chunked\r\n"),
    ("CR before colon", b"Transfer-Encoding\r: chunked\r\n"),
    ("LF before colon", b"Transfer-Encoding\n: chunked\r\n"),
    ("NBSP before colon", b"Transfer-Encoding\xa0: chunked\r\n"),
    ("space before name", b" Transfer-Encoding: chunked\r\n"),
    ("tab before name", b"\tTransfer-Encoding: chunked\r\n"),
    ("no space after colon", b"Transfer-Encoding:chunked\r\n"),
    ("tab after colon", b"Transfer-Encoding:\tchunked\r\n"),
    ("vertical tab in value", b"Transfer-Encoding: \x0bchunked\r\n"),
    ("form feed in value", b"Transfer-Encoding: \x0cchunked\r\n"),
    ("vertical tab behind value", b"Transfer-Encoding: chunked\x0b\r\n"),
    ("NUL behind value", b"Transfer-Encoding: chunked\0\r\n"),
    ("DEL behind value", b"Transfer-Encoding: chunked\x7f\r\n"),
    ("high byte behind value", b"Transfer-Encoding: chunked\xff\r\n"),
    ("high byte before value", b"Transfer-Encoding: \xffchunked\r\n"),
    ("NBSP before value", b"Transfer-Encoding: \xa0chunked\r\n"),
    ("NEL before value", b"Transfer-Encoding: \x85chunked\r\n"),
    ("space behind value", b"Transfer-Encoding: chunked \r\n"),
    ("tab behind value", b"Transfer-Encoding: chunked\t\r\n"),
    ("double quotes", b"Transfer-Encoding: \"chunked\"\r\n"),
    ("single quotes", b"Transfer-Encoding: 'chunked'\r\n"),
    ("x-chunked", b"Transfer-Encoding: x-chunked\r\n"),
    ("xchunked", b"Transfer-Encoding: xchunked\r\n"),
    ("chunk", b"Transfer-Encoding: chunk\r\n"),
    ("empty", b"Transfer-Encoding:\r\n"),
    ("identity", b"Transfer-Encoding: identity\r\n"),
    ("identity, chunked", b"Transfer-Encoding: identity, chunked\r\n"),
    ("chunked, identity", b"Transfer-Encoding: chunked, identity\r\n"),
    ("chunked, chunked", b"Transfer-Encoding: chunked, chunked\r\n"),
    ("gzip, chunked", b"Transfer-Encoding: gzip, chunked\r\n"),
    ("empty items", b"Transfer-Encoding: ,chunked,\r\n"),
    ("parameter", b"Transfer-Encoding: chunked;q=1\r\n"),
    ("twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    ("twice, identity last", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    ("twice, identity first", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
    ("folded", b"Transfer-Encoding:\r\n chunked\r\n"),
];

/// Other fields, which a careless reader takes for this one.
const OTHERS: [(&str, &[u8]); 9] = [
    ("underscore", b"Transfer_Encoding: chunked\r\n"),
    ("no dash", b"TransferEncoding: chunked\r\n"),
    ("longer", b"X-Transfer-Encoding: chunked\r\n"),
    ("content", b"Content-Transfer-Encoding: chunked\r\n"),
    ("in a value", b"X: Transfer-Encoding: chunked\r\n"),
    ("behind an encoded line end", b"X: a%0d%0aTransfer-Encoding: chunked\r\n"),
    ("in a value behind CR", b"X: a\rTransfer-Encoding: chunked\r\n"),
    ("te", b"TE: chunked\r\n"),
    ("in connection", b"Connection: transfer-encoding\r\nTransfer_Encoding: chunked\r\n"),
];

pub fn add(corpus: &mut Corpus) {
    for (name, lines) in BROKEN {
        corpus.raw(format!("te/{name}/cl.te"), Refused, length_first(lines));
        corpus.raw(
            format!("te/{name}/te.cl"),
            Refused,
            post([b"Content-Length: 4\r\n", lines].concat(), chunked()),
        );
    }
    for (name, lines) in OTHERS {
        let expect = if lines.contains(&b'\r') && name.ends_with("CR") { Refused } else { Either };
        corpus.raw(format!("te/other field/{name}"), expect, length_first(lines));
    }
    alone(corpus);
    for (name, lines) in [
        ("behind the first line end", &b"X: y\nTransfer-Encoding: chunked\r\n"[..]),
        ("between bare line ends", b"X: y\n\nTransfer-Encoding: chunked\r\n"),
    ] {
        corpus.raw(format!("te/{name}"), Refused, length_first(lines));
    }
    for (name, order) in [("length first", true), ("length last", false)] {
        let (length, coding) = ("Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n");
        let fields = if order { [length, coding].concat() } else { [coding, length].concat() };
        corpus.raw(format!("te/a length of zero/{name}"), Refused, post(fields, chunked()));
    }
}

/// CL.TE: whoever takes the length sees one request; the smuggled one is behind the last chunk.
fn length_first(lines: &[u8]) -> Vec<u8> {
    let body = ended();
    post([format!("Content-Length: {}\r\n", body.len()).as_bytes(), lines].concat(), body)
}

/// Without a length: whoever does not take the coding sees no body, and another request in it.
fn alone(corpus: &mut Corpus) {
    let cases: [(&str, Expect, &[u8]); 10] = [
        ("space behind", Either, b"Transfer-Encoding: chunked \r\n"),
        ("upper case", Passed, b"Transfer-Encoding: CHUNKED\r\n"),
        ("twice", Refused, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("list", Refused, b"Transfer-Encoding: gzip, chunked\r\n"),
        ("identity", Refused, b"Transfer-Encoding: identity\r\n"),
        ("wrong order", Refused, b"Transfer-Encoding: chunked, gzip\r\n"),
        ("quotes", Refused, b"Transfer-Encoding: \"chunked\"\r\n"),
        ("comma", Refused, b"Transfer-Encoding: chunked,\r\n"),
        ("parameter", Refused, b"Transfer-Encoding: chunked;x\r\n"),
        ("in connection too", Passed, b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n"),
    ];
    for (name, expect, lines) in cases {
        corpus.raw(format!("te/alone/{name}"), expect, post(lines, chunked()));
    }
    let old = crate::corpus::request("POST /p/0000 HTTP/1.0", "Transfer-Encoding: chunked\r\n", chunked());
    corpus.raw("te/alone/HTTP 1.0", Refused, old);
    let old = "Connection: keep-alive\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    corpus.raw(
        "te/HTTP 1.0 with both",
        Refused,
        crate::corpus::request("POST /p/0000 HTTP/1.0", old, chunked()),
    );
}
