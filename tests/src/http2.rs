//! HTTP/2 frame by frame, for what no well-behaved client or server sends.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::net::Node;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `:method: GET`, `:scheme: http`, `:path: /`, in HPACK's static table.
pub const GET: &[u8] = &[0x82, 0x86, 0x84];

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `:status: 200`, in HPACK's static table.
pub const OK: &[u8] = &[0x88];

/// A connection whose preface is through.
#[derive(Debug)]
pub struct Http2 {
    pub stream: TcpStream,
}

impl Http2 {
    pub fn connect(node: &Node, at: SocketAddr) -> Result<Http2> {
        Http2::connect_from(node, at, None)
    }

    pub fn connect_from(node: &Node, at: SocketAddr, from: Option<IpAddr>) -> Result<Http2> {
        let mut stream = node.connect(at, from)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        stream.write_all(PREFACE)?;
        let mut client = Http2 { stream };
        client.send(SETTINGS, 0, 0, &[])?;
        Ok(client)
    }

    /// The next client of a backend, as whose side it is spoken from then on. `settings`: pairs of id and value.
    pub fn accept(listener: &TcpListener, settings: &[(u16, u32)]) -> Result<Http2> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).context("no preface")?;
        ensure!(preface == *PREFACE, "not HTTP/2: {preface:?}");
        let mut server = Http2 { stream };
        let pair = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        server.send(SETTINGS, 0, 0, &settings.iter().map(pair).collect::<Vec<_>>().concat())?;
        server.send(SETTINGS, ACK, 0, &[])?;
        Ok(server)
    }

    /// The next request's stream.
    pub fn next_request(&mut self) -> Result<u32> {
        Ok(self.until("a request", |frame| frame.kind == HEADERS)?.stream)
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&frame(kind, flags, stream, payload))?)
    }

    /// A request without a body: pseudo fields and fields as HPACK.
    pub fn request(&mut self, stream: u32, block: &[u8]) -> Result<()> {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, block)
    }

    /// The next frame that is no SETTINGS, WINDOW_UPDATE or answer to a PING of ours; PINGs are answered. `None`: closed.
    pub fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            let Some(frame) = self.any()? else { return Ok(None) };
            match frame.kind {
                SETTINGS | 8 => {}
                PING if frame.flags & ACK != 0 => {}
                PING => self.send(PING, ACK, 0, &frame.payload)?,
                _ => return Ok(Some(frame)),
            }
        }
    }

    /// The next frame, whatever it is. `None`: closed.
    pub fn any(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 9];
        if self.stream.read_exact(&mut head).is_err() {
            return Ok(None);
        }
        let [a, b, c, kind, flags, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).context("a frame's payload")?;
        let stream = u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff;
        Ok(Some(Frame { kind, flags, stream, payload }))
    }

    /// Reads until a frame is as wanted.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            match self.frame()? {
                Some(frame) if wanted(&frame) => return Ok(frame),
                Some(_) => {}
                None => bail!("closed before: {what}"),
            }
        }
        bail!("not within ten seconds: {what}")
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A field as HPACK: a literal that is not indexed, neither name nor value compressed; each shorter than 127 bytes.
pub fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let text = |text: &[u8]| [&[text.len() as u8][..], text].concat();
    [vec![0], text(name.as_ref()), text(value.as_ref())].concat()
}

/// GET / of this authority, and more fields.
pub fn get(authority: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let more = fields.iter().map(|(name, value)| field(name, value)).collect::<Vec<_>>().concat();
    [GET, &field(":authority", authority), &more].concat()
}
