//! Chunks whose framing readers could take differently (RFC 9112 section 7.1), and trailers that say what heads decide.

use crate::corpus::{
    Corpus,
    Expect::{self, Either, Passed, Refused},
    SMUGGLED, post,
};

fn add_one(corpus: &mut Corpus, name: &str, expect: Expect, body: impl AsRef<[u8]>) {
    corpus.raw(format!("chunks/{name}"), expect, post("Transfer-Encoding: chunked\r\n", body));
}

pub fn add(corpus: &mut Corpus) {
    sizes(corpus);
    extensions(corpus);
    ends(corpus);
    trailers(corpus);
}

fn sizes(corpus: &mut Corpus) {
    let n = SMUGGLED.len();
    let with = |size: &str| format!("{size}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    for (name, size) in [
        ("0x before the size", format!("0x{n:x}")),
        ("plus before the size", format!("+{n:x}")),
        ("minus before the size", format!("-{n:x}")),
        ("space before the size", format!(" {n:x}")),
        ("tab before the size", format!("\t{n:x}")),
        ("size in two parts", "2 8".to_owned()),
        ("size with a letter", format!("{n:x}g")),
        ("size with h", format!("{n:x}h")),
        ("empty size", String::new()),
        ("size in quotes", format!("\"{n:x}\"")),
        ("size with underscore", "2_8".to_owned()),
        ("size above 64 bits", format!("1{:016x}", n)),
        ("largest size", "ffffffffffffffff".to_owned()),
        ("largest signed size and one", "8000000000000000".to_owned()),
        ("size of 40 digits", format!("f{}", "0".repeat(39))),
        ("vertical tab behind the size", format!("{n:x}\x0b")),
        ("NUL behind the size", format!("{n:x}\0")),
        ("comma behind the size", format!("{n:x},")),
    ] {
        add_one(corpus, name, Refused, with(&size));
    }
    add_one(corpus, "leading zeros", Either, with(&format!("00000{n:x}")));
    add_one(corpus, "very many leading zeros", Either, with(&format!("{}{n:x}", "0".repeat(20))));
    add_one(corpus, "space behind the size", Either, with(&format!("{n:x} ")));
    add_one(corpus, "upper case", Passed, format!("{n:X}\r\n{SMUGGLED}\r\n0\r\n\r\n"));
    add_one(corpus, "size one too small", Refused, format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", n - 1));
    add_one(corpus, "size one too large", Refused, format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", n + 1));
    add_one(corpus, "last chunk of many zeros", Either, "3\r\nabc\r\n0000\r\n\r\n");
}

fn extensions(corpus: &mut Corpus) {
    let n = SMUGGLED.len();
    let with = |extension: &str| format!("{n:x}{extension}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    for (name, extension) in [
        ("name", ";a"),
        ("name and value", ";a=b"),
        ("quoted value", ";a=\"b\""),
        ("quoted semicolon", ";a=\";b\""),
        ("open quote", ";a=\"b"),
        ("no name", ";"),
        ("space around", " ; a = b"),
        ("high bytes", ";a=\u{ff}"),
    ] {
        add_one(corpus, &format!("extension/{name}"), Either, with(extension));
    }
    for (name, extension) in [
        ("bare LF", ";a\n"),
        ("bare LF in quotes", ";a=\"\n\""),
        ("bare LF, then a size", ";\n5"),
        ("bare CR", ";a\rb"),
        ("CRLF in quotes", ";a=\"\r\n\""),
    ] {
        add_one(corpus, &format!("extension/{name}"), Refused, with(extension));
    }
    // TERM.EXT: to whoever ends the line at LF, the rest is a chunk of its own.
    let hidden = format!("2;\nxx\r\n{:x}\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len() + 5);
    add_one(corpus, "extension/hides the end", Refused, hidden);
    add_one(corpus, "extension/very long", Refused, with(&format!(";{}", "a".repeat(20_000))));
}

fn ends(corpus: &mut Corpus) {
    let n = SMUGGLED.len();
    for (name, body) in [
        ("bare LF behind the size", format!("{n:x}\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("bare CR behind the size", format!("{n:x}\r{SMUGGLED}\r\n0\r\n\r\n")),
        ("CRCRLF behind the size", format!("{n:x}\r\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("LFCR behind the size", format!("{n:x}\n\r{SMUGGLED}\r\n0\r\n\r\n")),
        ("no line end behind the data", format!("{n:x}\r\n{SMUGGLED}0\r\n\r\n")),
        ("bare LF behind the data", format!("{n:x}\r\n{SMUGGLED}\n0\r\n\r\n")),
        ("bare CR behind the data", format!("{n:x}\r\n{SMUGGLED}\r0\r\n\r\n")),
        ("two bytes behind the data", format!("{n:x}\r\n{SMUGGLED}xx0\r\n\r\n")),
        ("line end twice behind the data", format!("{n:x}\r\n{SMUGGLED}\r\n\r\n0\r\n\r\n")),
        ("bare LF at the end", "0\n\n".to_owned()),
        ("bare LF behind the last chunk", format!("0\n\r\n{SMUGGLED}")),
        ("no last chunk", format!("{n:x}\r\n{SMUGGLED}\r\n")),
        ("no last line", "3\r\nabc\r\n0\r\n".to_owned()),
        ("only a line end", "\r\n".to_owned()),
        ("line end first", format!("\r\n{n:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
    ] {
        add_one(corpus, name, Refused, body);
    }
}

fn trailers(corpus: &mut Corpus) {
    for (name, line) in [
        ("content-length", "Content-Length: 0\r\n"),
        ("transfer-encoding", "Transfer-Encoding: chunked\r\n"),
        ("host", "Host: other.test\r\n"),
        ("connection", "Connection: close\r\n"),
        ("upgrade", "Upgrade: h2c\r\n"),
        ("authorization", "Authorization: Basic YTpi\r\n"),
        ("x-forwarded-for", "X-Forwarded-For: 127.0.0.1\r\n"),
        ("te", "TE: trailers\r\n"),
        ("expect", "Expect: 100-continue\r\n"),
    ] {
        add_one(corpus, &format!("trailers/{name}"), Either, format!("3\r\nabc\r\n0\r\n{line}\r\n"));
    }
    for (name, line) in [
        ("space before colon", "x : 1\r\n"),
        ("no colon", "x\r\n"),
        ("folded", "x: 1\r\n 2\r\n"),
        ("NUL", "x: \0\r\n"),
        ("a request", "GET /s/0000 HTTP/1.1\r\n"),
        ("bare CR", "x: 1\rContent-Length: 3\r\n"),
    ] {
        add_one(corpus, &format!("trailers/{name}"), Refused, format!("3\r\nabc\r\n0\r\n{line}\r\n"));
    }
    add_one(corpus, "trailers/bare LF", Refused, "3\r\nabc\r\n0\r\nx: 1\nContent-Length: 3\r\n\r\n");
    // What follows is taken for trailers, and left out: nothing behind it passes for a request.
    add_one(corpus, "bare LF as the last line", Either, format!("0\r\n\n{SMUGGLED}"));
    add_one(corpus, "trailers/bare LFs at the end", Either, format!("3\r\nabc\r\n0\r\nx: 1\n\n{SMUGGLED}"));
}
