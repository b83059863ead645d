//! Frames that RFC 9113 does not allow, and what it says of them: the numbers are its sections. S13, P2.

use lab::{
    backend::targets,
    http2::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, Http2, PING,
        RST_STREAM, SETTINGS,
    },
    prelude::*,
};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

fn rig() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n[route.all]\nto = {}\n",
            targets(backends)
        )
    })
}

fn http2(rig: &Rig) -> Result<Http2> {
    Http2::connect(rig.net.client(1), rig.gateway.at4())
}

/// The connection ends with one of these errors.
fn ends(rig: &Rig, what: &str, codes: &[u32], frames: &[Vec<u8>]) -> Result<()> {
    let mut client = http2(rig)?;
    for frame in frames {
        // It may be over before all of it is sent.
        let _ = std::io::Write::write_all(&mut client.stream, frame);
    }
    let goaway = client.until("GOAWAY", |frame| frame.kind == GOAWAY).context(what.to_owned())?;
    ensure!(
        goaway.code().is_some_and(|code| codes.contains(&code)),
        "{what}: {:?} instead of {codes:?}",
        goaway.code()
    );
    Ok(())
}

fn setting(number: u16, value: u32) -> Vec<u8> {
    http2::frame(SETTINGS, 0, 0, &[&number.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn get(stream: u32) -> Vec<u8> {
    http2::frame(HEADERS, END_HEADERS | END_STREAM, stream, &http2::get("a", &[]))
}

fn open(stream: u32) -> Vec<u8> {
    http2::frame(HEADERS, END_HEADERS, stream, &http2::get("a", &[]))
}

// h2 says FRAME_SIZE_ERROR of some of them, and of others PROTOCOL_ERROR.
#[test]
fn frames_of_the_wrong_size_end_the_connection() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let frame = http2::frame;
    for (what, frames) in [
        ("4.2: more than the frame size we take", vec![open(1), frame(DATA, 0, 1, &[0; 16_385])]),
        ("6.4: a RST_STREAM of three bytes", vec![open(1), frame(RST_STREAM, 0, 1, &[0; 3])]),
        ("6.5: SETTINGS of five bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])]),
        ("6.5: an acknowledgement with settings", vec![frame(SETTINGS, ACK, 0, &[0; 6])]),
        ("6.7: a PING of seven bytes", vec![frame(PING, 0, 0, &[0; 7])]),
        ("6.9: a WINDOW_UPDATE of three bytes", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])]),
    ] {
        ends(&rig, what, &[FRAME_SIZE_ERROR, PROTOCOL_ERROR], &frames)?;
    }
    Ok(())
}

#[test]
fn frames_where_none_may_be_are_protocol_errors() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let frame = http2::frame;
    for (what, frames) in [
        ("5.1: DATA on an idle stream", vec![frame(DATA, 0, 1, b"x")]),
        ("5.1: RST_STREAM on an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])]),
        ("5.1: WINDOW_UPDATE on an idle stream", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])]),
        ("5.1.1: a stream of even number", vec![get(2)]),
        ("6.1: DATA on no stream", vec![frame(DATA, 0, 0, b"x")]),
        ("6.1: more padding than frame", vec![open(1), frame(DATA, 8, 1, &[9, 1])]),
        ("6.2: HEADERS on no stream", vec![get(0)]),
        (
            "6.2: a head that another frame breaks",
            vec![frame(HEADERS, 0, 1, http2::GET), frame(PING, 0, 0, &[0; 8])],
        ),
        ("6.4: RST_STREAM on no stream", vec![frame(RST_STREAM, 0, 0, &[0; 4])]),
        ("6.5: SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, &[])]),
        ("6.5.2: ENABLE_PUSH of two", vec![setting(2, 2)]),
        ("6.5.2: MAX_FRAME_SIZE too small", vec![setting(5, 16_383)]),
        ("6.5.2: MAX_FRAME_SIZE too large", vec![setting(5, 1 << 24)]),
        (
            "6.6: PUSH_PROMISE of a client",
            vec![open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])],
        ),
        ("6.7: PING on a stream", vec![frame(PING, 0, 1, &[0; 8])]),
        ("6.8: GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])]),
        ("6.9: WINDOW_UPDATE of nothing", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])]),
        ("6.10: CONTINUATION of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, http2::GET)]),
    ] {
        ends(&rig, what, &[PROTOCOL_ERROR], &frames)?;
    }
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    Ok(())
}

// 6.9.1
#[test]
fn windows_that_grow_too_large_are_flow_control_errors() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let most = http2::frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes());
    ends(&rig, "the connection's", &[FLOW_CONTROL_ERROR], &[most])?;
    let mut client = http2(&rig)?;
    let most = http2::frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffffu32.to_be_bytes());
    std::io::Write::write_all(&mut client.stream, &[open(1), most].concat())?;
    let end = client.until("its end", |frame| matches!(frame.kind, GOAWAY | RST_STREAM))?;
    assert_eq!(end.code(), Some(FLOW_CONTROL_ERROR), "a stream's: {end:?}");
    Ok(())
}

// 6.3, 6.5.2: h2 names another error than the RFC does, and ends the connection where its stream would be enough.
#[test]
fn bad_priorities_and_initial_windows_end_the_connection() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    ends(
        &rig,
        "a PRIORITY of four bytes",
        &[PROTOCOL_ERROR],
        &[open(1), http2::frame(PRIORITY, 0, 1, &[0; 4])],
    )?;
    ends(&rig, "INITIAL_WINDOW_SIZE above 31 bits", &[PROTOCOL_ERROR], &[setting(4, 1 << 31)])
}

// 5.2, 6.9.2
#[test]
fn no_more_is_sent_than_the_client_s_window_takes() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = http2(&rig)?;
    let big =
        [&[0x82, 0x86][..], &http2::field(":path", "/big?bytes=100000"), &http2::field(":authority", "a")]
            .concat();
    let head = http2::frame(HEADERS, END_HEADERS | END_STREAM, 1, &big);
    std::io::Write::write_all(&mut client.stream, &[setting(4, 10), head].concat())?;
    client.until("the answer's head", |frame| frame.kind == HEADERS)?;
    assert_eq!(client.until("data", |frame| frame.kind == DATA)?.payload.len(), 10);
    // Nothing more comes, but the connection lives: what is next is the answer to a PING.
    client.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 7])?;
    assert_eq!(client.until("data", |frame| frame.kind == DATA)?.payload.len(), 7);
    client.send(WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0])?;
    let more: &dyn Fn(&Frame) -> bool = &|frame| frame.kind == DATA;
    let mut taken = 17;
    while taken < 17 + 65_535 - 17 {
        taken += client.until("data", more)?.payload.len();
    }
    // The connection's own window, 65535 bytes, is used up now.
    assert_eq!(taken, 65_535);
    Ok(())
}

// 5.1: half-closed and closed streams; 5.1.1: numbers only grow
#[test]
fn what_comes_on_a_stream_that_is_over_is_an_error() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for (what, frames, codes) in [
        (
            "DATA behind END_STREAM",
            vec![get(1), http2::frame(DATA, 0, 1, b"x")],
            [STREAM_CLOSED, PROTOCOL_ERROR],
        ),
        ("HEADERS behind END_STREAM", vec![get(1), get(1)], [STREAM_CLOSED, PROTOCOL_ERROR]),
        ("a lower number", vec![get(5), get(3)], [PROTOCOL_ERROR, STREAM_CLOSED]),
    ] {
        let mut client = http2(&rig)?;
        frames.iter().try_for_each(|frame| std::io::Write::write_all(&mut client.stream, frame))?;
        let end = client.until("its end", |frame| matches!(frame.kind, GOAWAY | RST_STREAM)).context(what)?;
        ensure!(end.code().is_some_and(|code| codes.contains(&code)), "{what}: {end:?}");
    }
    Ok(())
}

// 4.1, 5.5, 6.5.2
#[test]
fn frames_settings_and_flags_that_are_not_known_are_ignored() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = http2(&rig)?;
    let unknown = [setting(0x99, 7), http2::frame(0x42, 0xff, 0, b"what"), http2::frame(0x42, 0, 1, b"ever")];
    let head = http2::frame(HEADERS, END_HEADERS | END_STREAM | 0x40, 1, &http2::get("a", &[]));
    std::io::Write::write_all(&mut client.stream, &[unknown.concat(), head].concat())?;
    let answer = client.until("an answer", |frame| frame.kind == HEADERS)?;
    // 200 is 8 in HPACK's static table.
    assert_eq!(answer.payload.first(), Some(&0x88));
    Ok(())
}
