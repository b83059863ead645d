//! The cases of h2spec (which is in none of the registries that `cargo xtask setup` installs from) as frames of our own: what
//! RFC 9113 and RFC 7541 say of each, by section. P2, S13.
//!
//! As h2spec has it, a connection's error is a GOAWAY with one of these codes, or the connection's end; a stream's is that, or a
//! RST_STREAM with one of them.

mod frames;
mod generic;
mod hpack;
mod messages;
mod streams;

use std::io::Write;

use lab::{
    backend::targets,
    http2::{
        self, ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS,
    },
    prelude::*,
};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

// h2 says PROTOCOL_ERROR in place of all others when it ends a connection: the right one is what the RFC asks for.
const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
const WINDOW: &[u32] = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];
const COMPRESSION: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];

const MOST_STREAMS: u32 = 20;

/// What a client does.
enum Step {
    Send(Vec<u8>),
    /// Waits for the end of the answer on a stream.
    Answered(u32),
}

/// What must come of it.
enum Then {
    /// The connection ends, with one of these errors if it says so.
    Ends(&'static [u32]),
    /// Stream 1 is reset, or the connection ends.
    Resets(&'static [u32]),
    /// The same of another stream.
    ResetsAt(u32, &'static [u32]),
    /// Stream 1 is answered 400, or reset.
    Refuses,
    /// Stream 1 is answered 200.
    Answers,
    /// The connection lives on.
    Lives,
}

struct Case {
    /// Section and number.
    id: &'static str,
    what: &'static str,
    steps: Vec<Step>,
    then: Then,
}

fn case(id: &'static str, what: &'static str, sends: Vec<Vec<u8>>, then: Then) -> Case {
    Case { id, what, steps: sends.into_iter().map(Step::Send).collect(), then }
}

fn rig() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\nmax = {{ streams = {MOST_STREAMS} }}\n\
             [route.all]\nto = {}\n",
            targets(backends)
        )
    })
}

fn connect(rig: &Rig) -> Result<Http2> {
    Http2::connect(rig.net.client(1), rig.gateway.at4())
}

/// Runs all, and tells of all that fail.
fn run(cases: Vec<Case>) -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut failed = Vec::new();
    for case in &cases {
        if let Err(error) = try_one(&rig, case) {
            failed.push(format!("{} {}: {error:#}", case.id, case.what));
        }
    }
    ensure!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
    ensure!(!rig.gateway.stderr().iter().any(|line| line.contains("panicked")), "the gateway panicked");
    Ok(())
}

fn try_one(rig: &Rig, case: &Case) -> Result<()> {
    let mut client = connect(rig)?;
    for step in &case.steps {
        match step {
            // It may be over before all of it is sent.
            Step::Send(bytes) => drop(client.stream.write_all(bytes)),
            Step::Answered(stream) => {
                client
                    .until("an answer", |frame| frame.stream == *stream && frame.flags & END_STREAM != 0)?;
            }
        }
    }
    match case.then {
        Then::Ends(codes) => ends(&mut client, |frame| frame.kind == GOAWAY, codes),
        Then::Resets(codes) => resets(&mut client, 1, codes),
        Then::ResetsAt(stream, codes) => resets(&mut client, stream, codes),
        Then::Refuses => refuses(&mut client),
        Then::Answers => answers(&mut client, 1),
        Then::Lives => lives(&mut client),
    }
}

fn resets(client: &mut Http2, stream: u32, codes: &[u32]) -> Result<()> {
    let wanted = |frame: &Frame| frame.kind == GOAWAY || frame.kind == RST_STREAM && frame.stream == stream;
    ends(client, wanted, codes)
}

/// The next frame of the kind that is wanted has one of these codes; or there is none, and the connection is closed.
fn ends(client: &mut Http2, wanted: impl Fn(&Frame) -> bool, codes: &[u32]) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(5);
    client.stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    while Instant::now() < until {
        let Some(frame) = client.any()? else {
            ensure!(Instant::now() < until, "it goes on");
            return Ok(());
        };
        if wanted(&frame) {
            let code = frame.code();
            ensure!(code.is_some_and(|code| codes.contains(&code)), "{code:?} instead of {codes:?}");
            return Ok(());
        }
    }
    bail!("it goes on")
}

/// How a stream goes on: its head, or its end.
fn outcome(client: &mut Http2, stream: u32) -> Result<Frame> {
    client.until("an answer", |frame| {
        matches!(frame.kind, RST_STREAM | GOAWAY) || frame.kind == HEADERS && frame.stream == stream
    })
}

/// 200 is 0x88 in HPACK's static table.
fn answers(client: &mut Http2, stream: u32) -> Result<()> {
    let head = outcome(client, stream)?;
    // The dynamic table's size may come first.
    let block = head.payload.strip_prefix(b"\x20").unwrap_or(&head.payload);
    ensure!(head.kind == HEADERS && block.first() == Some(&0x88), "{head:?}");
    Ok(())
}

/// 400 is 0x8c. RFC 9113 section 8.1.1 lets it be an answer.
fn refuses(client: &mut Http2) -> Result<()> {
    let end = outcome(client, 1)?;
    ensure!(end.kind == RST_STREAM || end.kind == HEADERS && end.payload.first() == Some(&0x8c), "{end:?}");
    Ok(())
}

fn lives(client: &mut Http2) -> Result<()> {
    client.send(PING, 0, 0, b"stillyou")?;
    loop {
        let frame = client.any()?.context("it ends")?;
        ensure!(frame.kind != GOAWAY, "{frame:?}");
        if frame.kind == PING && frame.payload == b"stillyou" {
            return Ok(());
        }
    }
}

use http2::frame;

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &http2::get("a", &[]))
}

/// A request whose body follows.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post(&[]))
}

/// POST /echo-body as HPACK.
fn post(fields: &[(&str, &str)]) -> Vec<u8> {
    block(
        &[&[(":method", "POST"), (":scheme", "http"), (":path", "/echo-body"), (":authority", "a")], fields]
            .concat(),
    )
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().map(|(name, value)| http2::field(name, value)).collect::<Vec<_>>().concat()
}

/// A head without a body.
fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

fn setting(number: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&number.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn grow(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes)
}

fn goaway(stream: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, stream, &[&[0; 4][..], &code.to_be_bytes()].concat())
}

fn priority(stream: u32, depends_on: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&depends_on.to_be_bytes()[..], &[15]].concat())
}

/// 3.4: what both sides begin with.
#[test]
fn sections_3_connection_prefaces() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = connect(&rig)?;
    let first = client.any()?.context("closed")?;
    assert_eq!((first.kind, first.flags & ACK, first.stream), (SETTINGS, 0, 0), "{first:?}");
    // And ours is acknowledged (6.5.3).
    loop {
        let frame = client.any()?.context("closed")?;
        if frame.kind == SETTINGS {
            assert_eq!((frame.flags, frame.payload.len()), (ACK, 0));
            break;
        }
    }
    for preface in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "PRI * HTTP/2.0\r\n\r\nNO\r\n\r\n"] {
        let mut client = rig.client()?;
        client.send(preface)?;
        let mut client = Http2 { stream: client.stream };
        ends(&mut client, |frame| frame.kind == GOAWAY, &[PROTOCOL_ERROR])
            .with_context(|| preface.to_owned())?;
    }
    // Something else than SETTINGS comes first.
    let mut client = rig.client()?;
    client.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &get(1)].concat())?;
    let mut client = Http2 { stream: client.stream };
    ends(&mut client, |frame| frame.kind == GOAWAY, &[PROTOCOL_ERROR])
}
