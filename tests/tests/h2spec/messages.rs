//! Requests: RFC 9113 section 8.

use super::*;

const MALFORMED: Then = Then::Resets(&[PROTOCOL_ERROR]);

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "a");

fn with(field: (&str, &str)) -> Vec<u8> {
    head(&[METHOD, SCHEME, PATH, AUTHORITY, field])
}

#[test]
fn section_8_1_framing() -> Result<()> {
    let length = |length: &str| frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", length)]));
    let trailers = |flags, fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | flags, 1, &block(fields));
    let sum = [("x-sum", "1")];
    run(vec![
        case(
            "8.1/1",
            "HEADERS in the middle of a body",
            vec![open(1), trailers(0, &sum), data(1, b"x")],
            MALFORMED,
        ),
        // A stream error by the RFC; h2 leaves it out, and so nobody behind sees it.
        case(
            "8.1/2",
            "a pseudo field in trailers",
            vec![open(1), frame(DATA, 0, 1, b"x"), trailers(END_STREAM, &[METHOD])],
            Then::Answers,
        ),
        case("8.1.1/1", "less than Content-Length", vec![length("2"), data(1, b"x")], MALFORMED),
        case("8.1.1/2", "more than Content-Length", vec![length("1"), data(1, b"xy")], MALFORMED),
        case(
            "8.1.1/3",
            "more, in two frames",
            vec![length("3"), frame(DATA, 0, 1, b"xy"), data(1, b"zz")],
            MALFORMED,
        ),
        case(
            "8.1.1/4",
            "Content-Length of a request without a body",
            vec![with(("content-length", "1"))],
            MALFORMED,
        ),
        case(
            "8.1.1/5",
            "less, with trailers",
            vec![length("2"), frame(DATA, 0, 1, b"x"), trailers(END_STREAM, &sum)],
            MALFORMED,
        ),
        case(
            "8.4/1",
            "PUSH_PROMISE of a client",
            vec![open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
    ])
}

#[test]
fn section_8_2_fields() -> Result<()> {
    run(vec![
        case("8.2.1/1", "a name with a capital", vec![with(("X-Upper", "1"))], MALFORMED),
        case("8.2.1/2", "a name with a space", vec![with(("x y", "1"))], MALFORMED),
        case("8.2.1/3", "a name with a colon", vec![with(("x:y", "1"))], MALFORMED),
        case("8.2.1/4", "no name", vec![with(("", "1"))], MALFORMED),
        case("8.2.1/5", "a name with a control character", vec![with(("x\u{7f}", "1"))], MALFORMED),
        case("8.2.1/6", "a value with a line's end", vec![with(("x", "a\r\nb: c"))], MALFORMED),
        case("8.2.1/7", "a value with a NUL", vec![with(("x", "a\0b"))], MALFORMED),
        case("8.2.2/1", "Connection", vec![with(("connection", "keep-alive"))], MALFORMED),
        case("8.2.2/2", "Transfer-Encoding", vec![with(("transfer-encoding", "chunked"))], MALFORMED),
        case("8.2.2/3", "Keep-Alive", vec![with(("keep-alive", "1"))], MALFORMED),
        case("8.2.2/4", "Proxy-Connection", vec![with(("proxy-connection", "close"))], MALFORMED),
        case("8.2.2/5", "Upgrade", vec![with(("upgrade", "h2c"))], MALFORMED),
        case("8.2.2/6", "TE of something else", vec![with(("te", "gzip"))], MALFORMED),
    ])
}

#[test]
fn section_8_3_pseudo_fields() -> Result<()> {
    let twice = |field| head(&[METHOD, SCHEME, PATH, AUTHORITY, field]);
    let late = head(&[METHOD, SCHEME, AUTHORITY, ("x", "1"), PATH]);
    let connect = |fields: &[(&str, &str)]| head(&[&[(":method", "CONNECT")], fields].concat());
    run(vec![
        case("8.3/1", "one that is not known", vec![with((":other", "1"))], MALFORMED),
        case("8.3/2", "one of answers", vec![with((":status", "200"))], MALFORMED),
        case("8.3/3", "one behind other fields", vec![late], MALFORMED),
        case("8.3.1/1", "an empty path", vec![head(&[METHOD, SCHEME, (":path", ""), AUTHORITY])], MALFORMED),
        case("8.3.1/2", "no method", vec![head(&[SCHEME, PATH, AUTHORITY])], MALFORMED),
        case("8.3.1/3", "no scheme", vec![head(&[METHOD, PATH, AUTHORITY])], MALFORMED),
        case("8.3.1/4", "no path", vec![head(&[METHOD, SCHEME, AUTHORITY])], MALFORMED),
        case("8.3.1/5", "two methods", vec![twice(METHOD)], MALFORMED),
        case("8.3.1/6", "two schemes", vec![twice(SCHEME)], MALFORMED),
        case("8.3.1/7", "two paths", vec![twice(PATH)], MALFORMED),
        case("8.3.1/8", "two authorities", vec![twice(AUTHORITY)], MALFORMED),
        case(
            "8.3.1/9",
            "an authority with a user",
            vec![head(&[METHOD, SCHEME, PATH, (":authority", "u@a")])],
            Then::Refuses,
        ),
        case("8.5/1", "CONNECT with a path", vec![connect(&[SCHEME, PATH, AUTHORITY])], MALFORMED),
        case("8.5/2", "CONNECT without an authority", vec![connect(&[])], Then::Refuses),
        case(
            "8441/4",
            ":protocol of another method",
            vec![head(&[METHOD, (":protocol", "websocket"), SCHEME, PATH, AUTHORITY])],
            MALFORMED,
        ),
    ])
}
