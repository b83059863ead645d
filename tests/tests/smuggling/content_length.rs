//! Content-Length written so that readers disagree about the number (RFC 9112 section 6.3, RFC 9110 section 8.6).

use crate::corpus::{
    Corpus,
    Expect::{Either, Passed, Refused},
    SMUGGLED, post, request,
};

pub fn add(corpus: &mut Corpus) {
    let n = SMUGGLED.len();
    // Whoever reads no number takes the body for another request.
    let broken: [(&str, Vec<u8>); 29] = [
        ("plus", format!("Content-Length: +{n}\r\n").into()),
        ("minus", format!("Content-Length: -{n}\r\n").into()),
        ("minus zero", b"Content-Length: -0\r\n".to_vec()),
        ("hexadecimal", format!("Content-Length: 0x{n:x}\r\n").into()),
        ("octal", format!("Content-Length: 0o{n:o}\r\n").into()),
        ("exponent", b"Content-Length: 4e1\r\n".to_vec()),
        ("fraction", format!("Content-Length: {n}.0\r\n").into()),
        ("underscore", b"Content-Length: 4_0\r\n".to_vec()),
        ("inner space", b"Content-Length: 4 0\r\n".to_vec()),
        ("letters behind", format!("Content-Length: {n}abc\r\n").into()),
        ("semicolon", format!("Content-Length: {n};a=b\r\n").into()),
        ("list of equals", format!("Content-Length: {n}, {n}\r\n").into()),
        ("list of others", format!("Content-Length: 0, {n}\r\n").into()),
        ("comma behind", format!("Content-Length: {n},\r\n").into()),
        ("comma before", format!("Content-Length: ,{n}\r\n").into()),
        ("twice, zero first", format!("Content-Length: 0\r\nContent-Length: {n}\r\n").into()),
        ("twice, zero last", format!("Content-Length: {n}\r\nContent-Length: 0\r\n").into()),
        ("empty", b"Content-Length:\r\n".to_vec()),
        ("spaces only", b"Content-Length:   \r\n".to_vec()),
        ("quotes", format!("Content-Length: \"{n}\"\r\n").into()),
        ("more than 64 bits", b"Content-Length: 18446744073709551616\r\n".to_vec()),
        ("wraps to a small number", format!("Content-Length: 184467440737095516{}\r\n", 16 + n).into()),
        ("very many digits", format!("Content-Length: {}\r\n", "9".repeat(100)).into()),
        ("NUL", format!("Content-Length: {n}\0\r\n").into()),
        ("vertical tab", format!("Content-Length: \x0b{n}\r\n").into()),
        ("high digits", "Content-Length: ٤٠\r\n".as_bytes().to_vec()),
        ("space before colon", format!("Content-Length : {n}\r\n").into()),
        ("folded", format!("Content-Length:\r\n {n}\r\n").into()),
        ("folded zero", format!("Content-Length: {n}\r\n 0\r\n").into()),
    ];
    for (name, lines) in broken {
        corpus.raw(format!("cl/{name}"), Refused, post(lines, SMUGGLED));
    }
    let fine: [(&str, String); 5] = [
        ("leading zeros", format!("Content-Length: 000{n}\r\n")),
        ("spaces around", format!("Content-Length:  {n} \r\n")),
        ("tabs around", format!("Content-Length:\t{n}\t\r\n")),
        ("no space", format!("Content-Length:{n}\r\n")),
        ("twice the same", format!("Content-Length: {n}\r\nContent-Length: {n}\r\n")),
    ];
    for (name, lines) in fine {
        corpus.raw(format!("cl/{name}"), Either, post(lines, SMUGGLED));
    }
    corpus.raw(
        "cl/zeros of different length",
        Either,
        post(format!("Content-Length: {n}\r\nContent-Length: 0{n}\r\n"), SMUGGLED),
    );
    corpus.raw(
        "cl/underscore in the name",
        Either,
        post(format!("Content-Length: {n}\r\nContent_Length: 0\r\n"), SMUGGLED),
    );
    corpus.raw(
        "cl/HTTP 1.0",
        Passed,
        request("POST /p/0000 HTTP/1.0", format!("Content-Length: {n}\r\n"), SMUGGLED),
    );
    corpus.raw("cl/longer than the body", Refused, post(format!("Content-Length: {}\r\n", n + 1), SMUGGLED));
    corpus.raw(
        "cl/CL.0 on a GET",
        Passed,
        request("GET /p/0000 HTTP/1.1", format!("Content-Length: {n}\r\n"), SMUGGLED),
    );
    corpus.raw(
        "cl/CL.0 on a HEAD",
        Either,
        request("HEAD /p/0000 HTTP/1.1", format!("Content-Length: {n}\r\n"), SMUGGLED),
    );
    corpus.raw(
        "cl/CL.0 on OPTIONS",
        Passed,
        request("OPTIONS /p/0000 HTTP/1.1", format!("Content-Length: {n}\r\n"), SMUGGLED),
    );
    corpus.raw(
        "cl/CL.0 on DELETE",
        Passed,
        request("DELETE /p/0000 HTTP/1.1", format!("Content-Length: {n}\r\n"), SMUGGLED),
    );
    corpus.raw(
        "cl/CL.0 on TRACE",
        Either,
        request("TRACE /p/0000 HTTP/1.1", format!("Content-Length: {n}\r\n"), SMUGGLED),
    );
    let head = post(format!("Content-Length: {n}\r\n"), "");
    let (first, second) = SMUGGLED.split_at(5);
    corpus.pieces("cl/pause inside the body", Passed, &[&head, first.as_bytes(), second.as_bytes()]);
}
