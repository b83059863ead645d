//! A ClientHello as bytes (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2), and what comes back.

use std::io::Read;

use lab::prelude::*;

pub const TLS10: u16 = 0x0301;
pub const TLS11: u16 = 0x0302;
pub const TLS12: u16 = 0x0303;
pub const TLS13: u16 = 0x0304;

#[derive(Debug, Clone)]
pub struct Hello {
    /// The one in the hello itself: the highest of who knows no extension for it.
    pub version: u16,
    /// In the extension; empty: without it.
    pub versions: Vec<u16>,
    pub suites: Vec<u16>,
    pub compression: Vec<u8>,
    pub name: String,
    /// More extensions: their numbers and contents.
    pub more: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// One that is good for TLS 1.2 and 1.3.
    pub fn new(name: &str) -> Hello {
        Hello {
            version: TLS12,
            versions: vec![TLS13, TLS12],
            suites: vec![0x1301, 0x1302, 0xc02b, 0xc02f],
            compression: vec![0],
            name: name.to_owned(),
            more: Vec::new(),
        }
    }

    /// The handshake message.
    fn message(&self) -> Vec<u8> {
        let numbers =
            |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
        let mut extensions = Vec::new();
        let mut add = |kind: u16, body: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(long(body));
        };
        add(0, &long(&[&[0][..], &long(self.name.as_bytes())].concat()));
        // x25519 and P-256; uncompressed points.
        add(10, &long(&numbers(&[0x001d, 0x0017])));
        add(11, &[1, 0]);
        // ECDSA and RSA, with SHA-256 and, of old, SHA-1.
        add(13, &long(&numbers(&[0x0403, 0x0804, 0x0401, 0x0203, 0x0201])));
        add(0xff01, &[0]);
        if !self.versions.is_empty() {
            add(43, &short(&numbers(&self.versions)));
            add(45, &[1, 1]);
            // Any 32 bytes are a point of x25519, all but.
            add(51, &long(&[&numbers(&[0x001d])[..], &long(&[9; 32])].concat()));
        }
        for (kind, body) in &self.more {
            add(*kind, body);
        }
        let body = [
            &self.version.to_be_bytes()[..],
            &[0x5a; 32],
            &[0],
            &long(&numbers(&self.suites)),
            &short(&self.compression),
            &long(&extensions),
        ]
        .concat();
        let [_, a, b, c] = (body.len() as u32).to_be_bytes();
        [&[1, a, b, c][..], &body].concat()
    }

    pub fn record(&self) -> Vec<u8> {
        self.in_records(0x4000)
    }

    /// So many bytes a record.
    pub fn in_records(&self, most: usize) -> Vec<u8> {
        let records = self
            .message()
            .chunks(most)
            .map(|piece| [&[0x16, 3, 1][..], &long(piece)].concat())
            .collect::<Vec<_>>();
        records.concat()
    }
}

fn short(body: &[u8]) -> Vec<u8> {
    [&[body.len() as u8][..], body].concat()
}

fn long(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes()[..], body].concat()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A ServerHello.
    Hello {
        version: u16,
        suite: u16,
        compression: u8,
        random: Vec<u8>,
    },
    Alert(u8),
    Closed,
}

impl Answer {
    pub fn read(from: &mut impl Read) -> Result<Answer> {
        let mut head = [0; 5];
        if from.read_exact(&mut head).is_err() {
            return Ok(Answer::Closed);
        }
        let mut body = vec![0; u16::from_be_bytes([head[3], head[4]]) as usize];
        from.read_exact(&mut body).context("a record that is not whole")?;
        match (head[0], body.as_slice()) {
            (0x15, [_, alert]) => Ok(Answer::Alert(*alert)),
            (0x16, [2, _, _, _, hello @ ..]) => {
                server_hello(hello).context("a ServerHello that is not whole")
            }
            _ => bail!("neither hello nor alert: {head:?} {body:?}"),
        }
    }
}

fn server_hello(hello: &[u8]) -> Option<Answer> {
    let number = |at: usize| Some(u16::from_be_bytes([*hello.get(at)?, *hello.get(at + 1)?]));
    let random = hello.get(2..34)?.to_vec();
    let mut at = 35 + *hello.get(34)? as usize;
    let (mut version, suite, compression) = (number(0)?, number(at)?, *hello.get(at + 2)?);
    at += 5;
    while let (Some(kind), Some(length)) = (number(at), number(at + 2)) {
        if kind == 43 {
            version = number(at + 4)?;
        }
        at += 4 + length as usize;
    }
    Some(Answer::Hello { version, suite, compression, random })
}
