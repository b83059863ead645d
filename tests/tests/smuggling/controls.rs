//! Requests that nothing is wrong with: they show that servers see what passes.

use crate::corpus::{Corpus, Expect::Passed, SMUGGLED, chunked, post, request};

pub fn add(corpus: &mut Corpus) {
    corpus.raw("control/get", Passed, request("GET /p/0000 HTTP/1.1", "", ""));
    corpus.raw("control/head", Passed, request("HEAD /p/0000 HTTP/1.1", "", ""));
    corpus.raw("control/length", Passed, post(format!("Content-Length: {}\r\n", SMUGGLED.len()), SMUGGLED));
    corpus.raw("control/chunked", Passed, post("Transfer-Encoding: chunked\r\n", chunked()));
    corpus.raw(
        "control/trailers",
        Passed,
        post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"),
    );
    let get = request("GET /p/0000 HTTP/1.1", format!("Content-Length: {}\r\n", SMUGGLED.len()), SMUGGLED);
    corpus.raw("control/get with a body", Passed, get);
    let cut = post(format!("Content-Length: {}\r\n", SMUGGLED.len()), "");
    corpus.pieces("control/pause before the body", Passed, &[&cut, SMUGGLED.as_bytes()]);
    let halves = chunked();
    let (first, second) = halves.split_at(20);
    let head = post("Transfer-Encoding: chunked\r\n", first);
    corpus.pieces("control/pause inside a chunk", Passed, &[&head, second.as_bytes()]);
}
