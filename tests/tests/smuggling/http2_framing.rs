//! HTTP/2 bodies whose length is told in a way that HTTP/1.1 would believe (RFC 9113 sections 8.1 and 8.1.1), and trailers.

use lab::http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, field, frame};

use crate::{
    corpus::{
        Corpus,
        Expect::{Either, Passed, Refused},
        SMUGGLED,
    },
    http2_names::get,
};

fn post(fields: &[(&str, &str)]) -> Vec<u8> {
    let more: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    [get(":method", b"POST"), more].concat()
}

fn data(end: bool, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, if end { END_STREAM } else { 0 }, 1, bytes)
}

fn trailers(fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, fields)
}

pub fn add(corpus: &mut Corpus) {
    lengths(corpus);
    endings(corpus);
    trailing(corpus);
}

fn lengths(corpus: &mut Corpus) {
    let n = SMUGGLED.len();
    let body = data(true, SMUGGLED.as_bytes());
    let right = n.to_string();
    corpus.stream("h2/length/right", Passed, &post(&[("content-length", &right)]), false, &body);
    corpus.stream("h2/length/none", Passed, &post(&[]), false, &body);
    for (name, values) in [
        ("more than comes", vec![(n + 1).to_string()]),
        ("less than comes", vec![(n - 1).to_string()]),
        ("zero, and a body", vec!["0".to_owned()]),
        ("twice the same", vec![right.clone(), right.clone()]),
        ("twice, zero first", vec!["0".to_owned(), right.clone()]),
        ("twice, zero last", vec![right.clone(), "0".to_owned()]),
        ("plus", vec![format!("+{n}")]),
        ("minus", vec![format!("-{n}")]),
        ("hexadecimal", vec![format!("0x{n:x}")]),
        ("list", vec![format!("{n}, {n}")]),
        ("empty", vec![String::new()]),
        ("letters", vec![format!("{n}a")]),
        ("above 64 bits", vec!["18446744073709551616".to_owned()]),
        ("CRLF and a coding", vec![format!("{n}\r\ntransfer-encoding: chunked")]),
    ] {
        let fields: Vec<(&str, &str)> =
            values.iter().map(|value| ("content-length", value.as_str())).collect();
        corpus.stream(format!("h2/length/{name}"), Refused, &post(&fields), false, &body);
    }
    for (name, value) in [
        ("leading zeros", format!("000{n}")),
        ("space in front", format!(" {n}")),
        ("space behind", format!("{n} ")),
    ] {
        corpus.stream(
            format!("h2/length/{name}"),
            Either,
            &post(&[("content-length", &value)]),
            false,
            &body,
        );
    }
    corpus.stream("h2/length/of no body", Refused, &post(&[("content-length", &right)]), true, &[]);
    corpus.stream("h2/length/zero of no body", Passed, &post(&[("content-length", "0")]), true, &[]);
    corpus.stream(
        "h2/length/of no body on a GET",
        Refused,
        &[get("", b""), field("content-length", &right)].concat(),
        true,
        &[],
    );
    corpus.stream(
        "h2/length/on a GET with a body",
        Passed,
        &[get("", b""), field("content-length", &right)].concat(),
        false,
        &body,
    );
    corpus.stream("h2/length/none on a GET with a body", Passed, &get("", b""), false, &body);
    let both = [("content-length", right.as_str()), ("transfer-encoding", "chunked")];
    corpus.stream("h2/length/and a coding", Refused, &post(&both), false, &body);
    let chunks = crate::corpus::chunked();
    corpus.stream("h2/length/chunks as a body", Passed, &post(&[]), false, &data(true, chunks.as_bytes()));
    let parts = [data(false, &SMUGGLED.as_bytes()[..9]), data(true, &SMUGGLED.as_bytes()[9..])].concat();
    corpus.stream("h2/length/in two frames", Passed, &post(&[("content-length", &right)]), false, &parts);
}

fn endings(corpus: &mut Corpus) {
    let right = SMUGGLED.len().to_string();
    let whole = data(false, SMUGGLED.as_bytes());
    let head = post(&[("content-length", &right)]);
    let reset = frame(RST_STREAM, 0, 1, &8u32.to_be_bytes());
    let part = data(false, &SMUGGLED.as_bytes()[..9]);
    corpus.stream("h2/end/empty frame", Passed, &head, false, &[whole.clone(), data(true, b"")].concat());
    corpus.stream(
        "h2/end/many empty frames",
        Passed,
        &head,
        false,
        &[data(false, b"").repeat(5), whole.clone(), data(true, b"")].concat(),
    );
    corpus.stream("h2/end/reset inside the body", Refused, &head, false, &[part.clone(), reset].concat());
    corpus.stream("h2/end/never", Refused, &post(&[]), false, &part);
    corpus.stream("h2/end/early", Refused, &head, false, &data(true, &SMUGGLED.as_bytes()[..9]));
    // The answer may be on its way already.
    corpus.stream(
        "h2/end/data behind the end",
        Either,
        &head,
        false,
        &[data(true, SMUGGLED.as_bytes()), part].concat(),
    );
    let block = get("", b"");
    let (first, second) = block.split_at(10);
    let split = [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)].concat();
    corpus.frames("h2/end/head in two frames", Passed, &split);
    let between =
        [frame(HEADERS, END_STREAM, 1, first), data(true, b"x"), frame(CONTINUATION, END_HEADERS, 1, second)]
            .concat();
    corpus.frames("h2/end/data inside a head", Refused, &between);
    let padded = [&[9][..], &block, &[0; 9]].concat();
    corpus.frames("h2/end/padded head", Passed, &frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &padded));
    let padded = [&[200][..], &block].concat();
    corpus.frames(
        "h2/end/more padding than frame",
        Refused,
        &frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &padded),
    );
}

fn trailing(corpus: &mut Corpus) {
    let body = data(false, b"abc");
    let with = |fields: &[u8]| [body.clone(), trailers(fields)].concat();
    corpus.stream("h2/trailers/plain", Passed, &post(&[]), false, &with(&field("x-sum", "1")));
    corpus.stream(
        "h2/trailers/with a length",
        Passed,
        &post(&[("content-length", "3")]),
        false,
        &with(&field("x-sum", "1")),
    );
    for (name, field) in [
        ("CRLF in a value", field("x", "y\r\n\r\nGET /s/0000 HTTP/1.1\r\nhost: gw.test\r\n\r\n")),
        ("CRLF in a name", field("x: y\r\nz", "1")),
        ("upper case", field("X", "1")),
    ] {
        corpus.stream(format!("h2/trailers/{name}"), Refused, &post(&[]), false, &with(&field));
    }
    for (name, value) in [
        // h2 leaves them out.
        ("\"x\"", "y"),
        (":path", "/s/0000"),
        (":method", "GET"),
        (":status", "200"),
        ("content-length", "0"),
        ("host", "other.test"),
        ("authorization", "Basic YTpi"),
        ("x-forwarded-for", "127.0.0.1"),
        ("expect", "100-continue"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("te", "trailers"),
    ] {
        corpus.stream(format!("h2/trailers/{name}"), Either, &post(&[]), false, &with(&field(name, value)));
    }
    let short = [("content-length", "9")];
    corpus.stream(
        "h2/trailers/before the length is full",
        Refused,
        &post(&short),
        false,
        &with(&field("x-sum", "1")),
    );
    let not_ended = [body.clone(), frame(HEADERS, END_HEADERS, 1, &field("x", "1"))].concat();
    corpus.stream("h2/trailers/that do not end the stream", Refused, &post(&[]), false, &not_ended);
}
