//! Streams: RFC 9113 section 5.

use super::*;

fn more(stream: u32) -> Vec<u8> {
    frame(http2::CONTINUATION, END_HEADERS, stream, &http2::field("x", "1"))
}

fn closed(more: Vec<u8>) -> Vec<Step> {
    vec![Step::Send(get(1)), Step::Answered(1), Step::Send(more)]
}

#[test]
fn section_5_1_stream_states() -> Result<()> {
    const OVER: Then = Then::Resets(CLOSED);
    const EITHER: Then = Then::Ends(CLOSED);
    let after_end = |id, what, bytes, then| Case { id, what, steps: closed(bytes), then };
    run(vec![
        case("5.1/1", "idle: DATA", vec![data(1, b"x")], Then::Ends(&[PROTOCOL_ERROR])),
        case("5.1/2", "idle: RST_STREAM", vec![reset(1, 8)], Then::Ends(&[PROTOCOL_ERROR])),
        case("5.1/3", "idle: WINDOW_UPDATE", vec![grow(1, 1)], Then::Ends(&[PROTOCOL_ERROR])),
        case("5.1/4", "idle: CONTINUATION", vec![more(1)], Then::Ends(&[PROTOCOL_ERROR])),
        case("5.1/5", "half-closed: DATA", vec![get(1), data(1, b"x")], OVER),
        case("5.1/6", "half-closed: HEADERS", vec![get(1), get(1)], OVER),
        case("5.1/7", "half-closed: CONTINUATION", vec![get(1), more(1)], EITHER),
        case("5.1/8", "reset: DATA", vec![open(1), reset(1, 8), data(1, b"x")], OVER),
        case("5.1/9", "reset: HEADERS", vec![open(1), reset(1, 8), get(1)], OVER),
        case("5.1/10", "reset: CONTINUATION", vec![open(1), reset(1, 8), more(1)], EITHER),
        after_end("5.1/11", "closed: DATA", data(1, b"x"), OVER),
        after_end("5.1/12", "closed: HEADERS", get(1), OVER),
        after_end("5.1/13", "closed: CONTINUATION", more(1), EITHER),
    ])
}

#[test]
fn section_5_1_1_and_5_1_2_numbers_of_streams() -> Result<()> {
    let last = MOST_STREAMS * 2 + 1;
    let many = (0..=MOST_STREAMS).map(|n| open(n * 2 + 1)).collect();
    run(vec![
        case("5.1.1/1", "an even number", vec![get(2)], Then::Ends(&[PROTOCOL_ERROR])),
        case("5.1.1/2", "a number below the last", vec![open(5), get(3)], Then::Ends(&[PROTOCOL_ERROR])),
        case("5.1.1/3", "numbers that are left out", vec![get(101), reset(1, 8)], Then::Lives),
        case("5.1.1/4", "the highest number", vec![get(0x7fff_ffff)], Then::Lives),
        case(
            "5.1.2/1",
            "one more than at once",
            many,
            Then::ResetsAt(last, &[REFUSED_STREAM, PROTOCOL_ERROR]),
        ),
    ])
}

#[test]
fn section_5_4_errors() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    // 5.4.1: GOAWAY tells the last stream that was looked at, and then the connection is closed.
    let mut client = connect(&rig)?;
    client.stream.write_all(&get(1))?;
    client.until("an answer", |frame| frame.stream == 1 && frame.flags & END_STREAM != 0)?;
    client.stream.write_all(&frame(PING, 0, 3, &[0; 8]))?;
    let goaway = client.until("GOAWAY", |frame| frame.kind == GOAWAY)?;
    assert_eq!(goaway.payload.get(..4), Some(&[0, 0, 0, 1][..]), "{goaway:?}");
    assert!(client.any()?.is_none());
    // 5.4.2: a stream's error is nothing to the others.
    let mut client = connect(&rig)?;
    let bad = frame(HEADERS, END_HEADERS | END_STREAM, 3, &http2::get("a", &[("connection", "close")]));
    client.stream.write_all(&[open(1), bad].concat())?;
    let end = client.until("the error", |frame| matches!(frame.kind, RST_STREAM | GOAWAY))?;
    assert_eq!((end.kind, end.stream, end.code()), (RST_STREAM, 3, Some(PROTOCOL_ERROR)));
    client.stream.write_all(&data(1, b"x"))?;
    answers(&mut client, 1)
}

#[test]
fn section_7_errors_that_are_not_known() -> Result<()> {
    run(vec![
        case("7/1", "GOAWAY", vec![goaway(0, 0xff)], Then::Lives),
        case("7/2", "RST_STREAM", vec![open(1), reset(1, 0xff)], Then::Lives),
    ])
}
