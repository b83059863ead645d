//! Frames: RFC 9113 sections 4 and 6.

use super::*;
use http2::CONTINUATION;

/// A frame whose length is not that of its payload as it should be, of a kind.
fn sized(kind: u8, stream: u32, length: usize) -> Vec<u8> {
    frame(kind, 0, stream, &vec![0; length])
}

#[test]
fn section_4_frame_format_and_size() -> Result<()> {
    let mut reserved = frame(PING, 0, 0, b"12345678");
    reserved[5] = 0x80;
    let big = frame(DATA, END_STREAM, 1, &[b'x'; 16_384]);
    let long = [&http2::get("a", &[])[..], &[0; 16_384]].concat();
    run(vec![
        case("4.1/1", "a type that is not known", vec![sized(0x42, 0, 8), sized(0x42, 1, 8)], Then::Lives),
        case("4.1/2", "flags that are not known", vec![frame(PING, 0xfe, 0, &[0; 8])], Then::Lives),
        case("4.1/3", "the reserved bit", vec![reserved], Then::Lives),
        case("4.2/1", "DATA as large as may be", vec![open(1), big], Then::Answers),
        case("4.2/2", "DATA too large", vec![open(1), sized(DATA, 1, 16_385)], Then::Resets(SIZE)),
        case(
            "4.2/3",
            "HEADERS too large",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &long)],
            Then::Ends(SIZE),
        ),
        case("4.2/4", "a frame that is not known, too large", vec![sized(0x42, 0, 16_385)], Then::Ends(SIZE)),
        case(
            "4.3/1",
            "a head that is no HPACK",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x8f, 0xff, 0xff, 0xff, 0xff, 0xff])],
            Then::Ends(COMPRESSION),
        ),
        case(
            "4.3/2",
            "PRIORITY in a head",
            vec![frame(HEADERS, 0, 1, http2::GET), priority(1, 0)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "4.3/3",
            "another stream's HEADERS in a head",
            vec![frame(HEADERS, 0, 1, http2::GET), get(3)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.5/1",
            "a frame that is not known in a head",
            vec![frame(HEADERS, 0, 1, http2::GET), sized(0x42, 1, 1)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case("5.5/2", "a setting that is not known", vec![setting(0x7f, 1)], Then::Lives),
    ])
}

#[test]
fn section_6_1_data() -> Result<()> {
    run(vec![
        case("6.1/1", "on no stream", vec![data(0, b"x")], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.1/2", "on a stream that is half-closed", vec![get(1), data(1, b"x")], Then::Resets(CLOSED)),
        case(
            "6.1/3",
            "more padding than frame",
            vec![open(1), frame(DATA, END_STREAM | PADDED, 1, b"\x09body")],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.1/4",
            "as much padding as frame",
            vec![open(1), frame(DATA, END_STREAM | PADDED, 1, b"\x05body")],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.1/5",
            "padding without a length",
            vec![open(1), frame(DATA, END_STREAM | PADDED, 1, b"")],
            Then::Ends(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
    ])
}

#[test]
fn section_6_2_headers() -> Result<()> {
    let ended = END_HEADERS | END_STREAM;
    run(vec![
        case("6.2/1", "on no stream", vec![get(0)], Then::Ends(&[PROTOCOL_ERROR])),
        case(
            "6.2/2",
            "more padding than frame",
            vec![frame(HEADERS, ended | PADDED, 1, &[&[99][..], http2::GET].concat())],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2/3",
            "DATA in a head",
            vec![frame(HEADERS, 0, 1, http2::GET), data(1, b"x")],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2/4",
            "PING in a head",
            vec![frame(HEADERS, 0, 1, http2::GET), sized(PING, 0, 8)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2/5",
            "SETTINGS in a head",
            vec![frame(HEADERS, 0, 1, http2::GET), sized(SETTINGS, 0, 0)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2/6",
            "too short for its priority",
            vec![frame(HEADERS, ended | PRIORITISED, 1, &[0; 3])],
            Then::Ends(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
    ])
}

#[test]
fn section_6_3_and_5_3_priority() -> Result<()> {
    let own = [&1u32.to_be_bytes()[..], &[15], &http2::get("a", &[])].concat();
    run(vec![
        case("6.3/1", "on no stream", vec![priority(0, 1)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.3/2", "of four bytes", vec![open(1), sized(PRIORITY, 1, 4)], Then::Resets(SIZE)),
        case("6.3/3", "of six bytes", vec![open(1), sized(PRIORITY, 1, 6)], Then::Resets(SIZE)),
        case(
            "5.3.1/1",
            "HEADERS that depend on themselves",
            vec![frame(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, &own)],
            Then::Resets(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.3.1/2",
            "PRIORITY that depends on itself",
            vec![open(1), priority(1, 1)],
            Then::Resets(&[PROTOCOL_ERROR]),
        ),
    ])
}

#[test]
fn section_6_4_rst_stream() -> Result<()> {
    run(vec![
        case("6.4/1", "on no stream", vec![reset(0, 8)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.4/2", "on an idle stream", vec![reset(1, 8)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.4/3", "of three bytes", vec![open(1), sized(RST_STREAM, 1, 3)], Then::Ends(SIZE)),
        case("6.4/4", "of five bytes", vec![open(1), sized(RST_STREAM, 1, 5)], Then::Ends(SIZE)),
    ])
}

#[test]
fn section_6_5_settings() -> Result<()> {
    let window = vec![setting(4, 100), setting(4, 1)];
    run(vec![
        case(
            "6.5/1",
            "an acknowledgement with settings",
            vec![frame(SETTINGS, ACK, 0, &[0; 6])],
            Then::Ends(SIZE),
        ),
        case("6.5/2", "on a stream", vec![sized(SETTINGS, 1, 0)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.5/3", "of three bytes", vec![sized(SETTINGS, 0, 3)], Then::Ends(SIZE)),
        case("6.5/4", "of seven bytes", vec![sized(SETTINGS, 0, 7)], Then::Ends(SIZE)),
        case("6.5.2/1", "ENABLE_PUSH of two", vec![setting(2, 2)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.5.2/2", "INITIAL_WINDOW_SIZE above 31 bits", vec![setting(4, 1 << 31)], Then::Ends(WINDOW)),
        case(
            "6.5.2/3",
            "MAX_FRAME_SIZE below 16,384",
            vec![setting(5, 16_383)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2/4",
            "MAX_FRAME_SIZE above 24 bits",
            vec![setting(5, 1 << 24)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2/5",
            "MAX_FRAME_SIZE as large as may be",
            vec![setting(5, (1 << 24) - 1), get(1)],
            Then::Answers,
        ),
        case("6.5.2/6", "HEADER_TABLE_SIZE of nothing", vec![setting(1, 0), get(1)], Then::Answers),
        case("6.5.2/7", "a setting that is not known", vec![setting(0x7f, 1)], Then::Lives),
        case(
            "6.5.3/1",
            "one value after another",
            [window, vec![setting(4, 65_535), get(1)]].concat(),
            Then::Answers,
        ),
        case("8441/3", "ENABLE_CONNECT_PROTOCOL of a client", vec![setting(8, 1), get(1)], Then::Answers),
    ])
}

// 6.5.3, 6.7: in their order, and as they came.
#[test]
fn settings_and_pings_are_acknowledged() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = connect(&rig)?;
    let mut acks = 0;
    client.stream.write_all(&[setting(3, 7), frame(PING, 0, 0, b"abcdefgh")].concat())?;
    loop {
        let frame = client.any()?.context("closed")?;
        match frame.kind {
            SETTINGS if frame.flags & ACK != 0 => acks += 1,
            PING => {
                assert_eq!((frame.flags, &frame.payload[..], acks), (ACK, &b"abcdefgh"[..], 2));
                return Ok(());
            }
            _ => {}
        }
    }
}

#[test]
fn section_6_7_ping_and_6_8_goaway() -> Result<()> {
    run(vec![
        case("6.7/1", "on a stream", vec![sized(PING, 1, 8)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.7/2", "of seven bytes", vec![sized(PING, 0, 7)], Then::Ends(SIZE)),
        case("6.7/3", "of nine bytes", vec![sized(PING, 0, 9)], Then::Ends(SIZE)),
        case("6.8/1", "GOAWAY on a stream", vec![goaway(1, 0)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.8/2", "GOAWAY too short", vec![sized(GOAWAY, 0, 7)], Then::Ends(SIZE)),
        case(
            "6.8/3",
            "what is under way is answered after GOAWAY",
            vec![get(1), goaway(0, 0)],
            Then::Answers,
        ),
    ])
}

#[test]
fn section_6_9_window_update() -> Result<()> {
    const MOST: u32 = (1 << 31) - 1;
    run(vec![
        case("6.9/1", "of nothing", vec![grow(0, 0)], Then::Ends(&[PROTOCOL_ERROR])),
        case("6.9/2", "of nothing on a stream", vec![open(1), grow(1, 0)], Then::Resets(&[PROTOCOL_ERROR])),
        case("6.9/3", "of three bytes", vec![sized(WINDOW_UPDATE, 0, 3)], Then::Ends(SIZE)),
        case("6.9/4", "of five bytes", vec![sized(WINDOW_UPDATE, 0, 5)], Then::Ends(SIZE)),
        case(
            "6.9.1/1",
            "the connection's window beyond 31 bits",
            vec![grow(0, MOST), grow(0, MOST)],
            Then::Ends(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.1/2",
            "a stream's window beyond 31 bits",
            vec![open(1), grow(1, MOST), grow(1, MOST)],
            Then::Resets(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.2/1",
            "by a setting beyond 31 bits",
            vec![open(1), grow(1, MOST - 65_535), setting(4, 65_536)],
            Then::Resets(&[FLOW_CONTROL_ERROR]),
        ),
    ])
}

// 6.9.1, 6.9.2
#[test]
fn no_more_is_sent_than_windows_allow_whatever_becomes_of_them() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let of = |client: &mut Http2| {
        client.until("data", |frame| frame.kind == DATA).map(|frame| frame.payload.len())
    };
    // One byte, and no more for a while.
    let mut client = connect(&rig)?;
    client.stream.write_all(&[setting(4, 1), get(1)].concat())?;
    assert_eq!(of(&mut client)?, 1);
    lives(&mut client)?;
    // None; then the setting changes.
    let mut client = connect(&rig)?;
    client.stream.write_all(&[setting(4, 0), get(1)].concat())?;
    client.until("a head", |frame| frame.kind == HEADERS)?;
    client.stream.write_all(&setting(4, 3))?;
    assert_eq!(of(&mut client)?, 3);
    // Below zero: only what is above it again counts.
    let mut client = connect(&rig)?;
    client.stream.write_all(&[setting(4, 3), get(1)].concat())?;
    assert_eq!(of(&mut client)?, 3);
    client.stream.write_all(&[setting(4, 1), grow(1, 2)].concat())?;
    lives(&mut client)?;
    client.stream.write_all(&grow(1, 1))?;
    assert_eq!(of(&mut client)?, 1);
    Ok(())
}

#[test]
fn section_6_10_continuation() -> Result<()> {
    let begun = || frame(HEADERS, END_STREAM, 1, &http2::get("a", &[]));
    let more = |flags, stream| frame(CONTINUATION, flags, stream, &http2::field("x", "1"));
    run(vec![
        case("6.10/1", "many", vec![begun(), more(0, 1), more(0, 1), more(END_HEADERS, 1)], Then::Answers),
        case(
            "6.10/2",
            "DATA behind one",
            vec![begun(), more(0, 1), data(1, b"x")],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case("6.10/3", "on no stream", vec![begun(), more(END_HEADERS, 0)], Then::Ends(&[PROTOCOL_ERROR])),
        case(
            "6.10/4",
            "on another stream",
            vec![begun(), more(END_HEADERS, 3)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.10/5",
            "behind a head's end",
            vec![open(1), more(END_HEADERS, 1)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.10/6",
            "behind its own end",
            vec![begun(), more(END_HEADERS, 1), more(END_HEADERS, 1)],
            Then::Ends(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case(
            "6.10/7",
            "behind DATA",
            vec![open(1), frame(DATA, 0, 1, b"x"), more(END_HEADERS, 1)],
            Then::Ends(&[PROTOCOL_ERROR]),
        ),
        case("6.10/8", "behind nothing", vec![more(END_HEADERS, 1)], Then::Ends(&[PROTOCOL_ERROR])),
    ])
}
