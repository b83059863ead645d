//! What must work.

use super::*;

#[test]
fn what_is_allowed_in_each_state_of_a_stream_does_no_harm() -> Result<()> {
    let closed = |more: Vec<u8>| vec![Step::Send(get(1)), Step::Answered(1), Step::Send(more)];
    let case_of = |id, what, steps| Case { id, what, steps, then: Then::Lives };
    run(vec![
        case("5.1", "idle: PRIORITY", vec![priority(1, 0), get(1)], Then::Answers),
        case("5.1", "half-closed: WINDOW_UPDATE", vec![get(1), grow(1, 100)], Then::Answers),
        case("5.1", "half-closed: PRIORITY", vec![get(1), priority(1, 0)], Then::Answers),
        case("5.1", "half-closed: RST_STREAM", vec![get(1), reset(1, 8)], Then::Lives),
        case_of("5.1", "closed: WINDOW_UPDATE", closed(grow(1, 100))),
        case_of("5.1", "closed: PRIORITY", closed(priority(1, 0))),
        case_of("5.1", "closed: RST_STREAM", closed(reset(1, 8))),
        case("5.1", "reset: WINDOW_UPDATE", vec![open(1), reset(1, 8), grow(1, 1)], Then::Lives),
        case("5.1", "reset twice", vec![open(1), reset(1, 8), reset(1, 8)], Then::Lives),
    ])
}

#[test]
fn every_kind_of_frame_is_taken() -> Result<()> {
    let padded = frame(DATA, END_STREAM | PADDED, 1, &[&[6][..], b"body", &[0; 6]].concat());
    let all_padding = frame(DATA, END_STREAM | PADDED, 1, &[&[9][..], &[0; 9]].concat());
    let padded_head = [&[3][..], &http2::get("a", &[]), &[0; 3]].concat();
    let priority_head = [&[0, 0, 0, 0, 15][..], &http2::get("a", &[])].concat();
    let both = [&[2, 0x80, 0, 0, 5, 0][..], &http2::get("a", &[]), &[0; 2]].concat();
    let ended = END_HEADERS | END_STREAM;
    let all_settings =
        [(1, 4096), (2, 0), (3, 100), (4, 65_535), (5, 16_384), (6, 100)].map(|(n, v)| setting(n, v));
    let in_pieces: Vec<Vec<u8>> = http2::get("a", &[("x-long", "yes")])
        .chunks(9)
        .map(|piece| frame(http2::CONTINUATION, 0, 1, piece))
        .chain([frame(http2::CONTINUATION, END_HEADERS, 1, &[])])
        .collect();
    run(vec![
        case("6.1", "DATA", vec![open(1), data(1, b"body")], Then::Answers),
        case(
            "6.1",
            "DATA in many frames",
            vec![open(1), frame(DATA, 0, 1, b"bo"), data(1, b"dy")],
            Then::Answers,
        ),
        case("6.1", "DATA with padding", vec![open(1), padded], Then::Answers),
        case("6.1", "DATA of padding only", vec![open(1), all_padding], Then::Answers),
        case("6.1", "DATA of nothing", vec![open(1), data(1, b"")], Then::Answers),
        case("6.2", "HEADERS", vec![get(1)], Then::Answers),
        case(
            "6.2",
            "HEADERS with padding",
            vec![frame(HEADERS, ended | PADDED, 1, &padded_head)],
            Then::Answers,
        ),
        case(
            "6.2",
            "HEADERS with priority",
            vec![frame(HEADERS, ended | PRIORITISED, 1, &priority_head)],
            Then::Answers,
        ),
        case(
            "6.2",
            "HEADERS with both",
            vec![frame(HEADERS, ended | PADDED | PRIORITISED, 1, &both)],
            Then::Answers,
        ),
        case(
            "6.3",
            "PRIORITY, also of streams that never are",
            vec![priority(1, 0), priority(9, 1), priority(1, 11)],
            Then::Lives,
        ),
        case("6.4", "RST_STREAM", vec![open(1), reset(1, 8)], Then::Lives),
        case("6.5", "SETTINGS of every kind", all_settings.to_vec(), Then::Lives),
        case("6.7", "PING", vec![frame(PING, 0, 0, b"12345678")], Then::Lives),
        case(
            "6.7",
            "PING's acknowledgement that nobody asked for",
            vec![frame(PING, ACK, 0, b"12345678")],
            Then::Lives,
        ),
        case("6.9", "WINDOW_UPDATE of the connection", vec![grow(0, 1)], Then::Lives),
        case("6.9", "WINDOW_UPDATE of a stream", vec![open(1), grow(1, 1)], Then::Lives),
        case(
            "6.10",
            "CONTINUATION",
            vec![
                frame(HEADERS, END_STREAM, 1, &http2::get("a", &[])),
                frame(http2::CONTINUATION, END_HEADERS, 1, &http2::field("x", "1")),
            ],
            Then::Answers,
        ),
        case(
            "6.10",
            "CONTINUATION of few bytes",
            [vec![frame(HEADERS, END_STREAM, 1, &[])], in_pieces].concat(),
            Then::Answers,
        ),
    ])
}

#[test]
fn requests_of_every_form_are_answered() -> Result<()> {
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &http2::field("x-sum", "1"));
    let head = |method: &str| {
        super::head(&[(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")])
    };
    run(vec![
        case("8.1", "GET", vec![head("GET")], Then::Answers),
        case("8.1", "HEAD", vec![head("HEAD")], Then::Answers),
        case("8.1", "a method that nobody knows", vec![head("FANCY")], Then::Answers),
        case("8.1", "POST", vec![open(1), data(1, b"body")], Then::Answers),
        case(
            "8.1",
            "POST with trailers",
            vec![open(1), frame(DATA, 0, 1, b"body"), trailers.clone()],
            Then::Answers,
        ),
        case("8.1", "POST with trailers and no body", vec![open(1), trailers], Then::Answers),
        case(
            "8.2.2",
            "TE: trailers",
            vec![super::head(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
                ("te", "trailers"),
            ])],
            Then::Answers,
        ),
        case(
            "8.3.1",
            "Host in place of :authority",
            vec![super::head(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")])],
            Then::Answers,
        ),
        case(
            "8.3.1",
            "OPTIONS *",
            vec![super::head(&[
                (":method", "OPTIONS"),
                (":scheme", "http"),
                (":path", "*"),
                (":authority", "a"),
            ])],
            Then::Answers,
        ),
    ])
}
