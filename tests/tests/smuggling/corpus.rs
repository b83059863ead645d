//! The payloads: what each sends, and what has to come of it.

use lab::http2;

/// The second request that a payload tries to get past the gateway. `0000` becomes the payload's number.
pub const SMUGGLED: &str = "GET /s/0000 HTTP/1.1\r\nHost: gw.test\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No server's answer, and no server sees it to its end.
    Refused,
    /// One server's answer, and the server sees one request.
    Passed,
    /// One of the two.
    Either,
    /// Legal, but no server has to know it: it may be answered with an error, as what is no request is.
    Unknown,
}

#[derive(Debug, Clone)]
pub enum Form {
    /// Pieces that are sent with a pause between them.
    Http1(Vec<Vec<u8>>),
    /// Frames, behind a connection's preface.
    Http2(Vec<u8>),
}

#[derive(Debug, Clone)]
pub struct Payload {
    pub name: String,
    pub number: usize,
    pub expect: Expect,
    pub form: Form,
}

impl Payload {
    /// Paths of the request itself, and of the one it tries to smuggle.
    pub fn paths(&self) -> (String, String) {
        (format!("/p/{:04}", self.number), format!("/s/{:04}", self.number))
    }
}

#[derive(Debug, Default)]
pub struct Corpus(pub Vec<Payload>);

impl Corpus {
    pub fn all() -> Corpus {
        let mut corpus = Corpus::default();
        crate::controls::add(&mut corpus);
        crate::transfer_encoding::add(&mut corpus);
        crate::content_length::add(&mut corpus);
        crate::chunks::add(&mut corpus);
        crate::lines::add(&mut corpus);
        crate::targets::add(&mut corpus);
        crate::semantics::add(&mut corpus);
        crate::http2_names::add(&mut corpus);
        crate::http2_framing::add(&mut corpus);
        corpus
    }

    fn push(&mut self, name: String, expect: Expect, form: impl FnOnce(&dyn Fn(&[u8]) -> Vec<u8>) -> Form) {
        let number = self.0.len() + 1;
        let form = form(&|bytes| numbered(bytes, number));
        self.0.push(Payload { name, number, expect, form });
    }

    pub fn raw(&mut self, name: impl Into<String>, expect: Expect, bytes: impl AsRef<[u8]>) {
        self.push(name.into(), expect, |fit| Form::Http1(vec![fit(bytes.as_ref())]));
    }

    pub fn pieces(&mut self, name: impl Into<String>, expect: Expect, pieces: &[&[u8]]) {
        self.push(name.into(), expect, |fit| Form::Http1(pieces.iter().map(|piece| fit(piece)).collect()));
    }

    pub fn frames(&mut self, name: impl Into<String>, expect: Expect, frames: &[u8]) {
        self.push(name.into(), expect, |fit| Form::Http2(fit(frames)));
    }

    /// Stream 1: HEADERS with this block, and what follows it.
    pub fn stream(&mut self, name: impl Into<String>, expect: Expect, block: &[u8], end: bool, rest: &[u8]) {
        let flags = http2::END_HEADERS | if end { http2::END_STREAM } else { 0 };
        let frames = [http2::frame(http2::HEADERS, flags, 1, block), rest.to_vec()].concat();
        self.frames(name, expect, &frames);
    }
}

/// Puts the payload's number into its paths; lengths stay as they are.
fn numbered(bytes: &[u8], number: usize) -> Vec<u8> {
    let digits = format!("{number:04}");
    let mut out = bytes.to_vec();
    let marks = [b"/p/0000", b"/s/0000"];
    let found: Vec<usize> =
        (0..out.len()).filter(|&at| marks.iter().any(|mark| out[at..].starts_with(*mark))).collect();
    for at in found {
        out[at + 3..at + 7].copy_from_slice(digits.as_bytes());
    }
    out
}

/// A POST with these fields (whole lines) and this body.
pub fn post(fields: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST /p/0000 HTTP/1.1", fields, body)
}

pub fn request(line: &str, fields: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    [line.as_bytes(), b"\r\nHost: gw.test\r\n", fields.as_ref(), b"\r\n", body.as_ref()].concat()
}

/// A chunked body that holds the smuggled request as its data.
pub fn chunked() -> String {
    format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())
}

/// A chunked body that is empty, and the smuggled request behind it.
pub fn ended() -> String {
    format!("0\r\n\r\n{SMUGGLED}")
}
