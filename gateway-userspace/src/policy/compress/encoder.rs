//! The three encoders behind one face: bytes in, bytes out, and a flush that lets what went in come out.

use std::{
    fmt,
    io::{self, Write},
};

use bytes::Bytes;

use crate::config::model::Coding;

/// Levels that cost about as much time a byte as gzip's default for a better ratio, with windows that keep an encoder
/// below a MiB or two: there is one a compressed answer under way.
const GZIP_LEVEL: u32 = 5;
const BROTLI_LEVEL: u32 = 4;
const BROTLI_WINDOW: u32 = 18;
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW: u32 = 19;

pub enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    pub fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => {
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Brotli => {
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_LEVEL, BROTLI_WINDOW);
                Encoder::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.write_all(data),
            Encoder::Brotli(encoder) => encoder.write_all(data),
            Encoder::Zstd(encoder) => encoder.write_all(data),
        }
    }

    /// A decoder gets all that was written so far from what [`Encoder::take`] gives then.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// How much [`Encoder::take`] would give.
    pub fn ready(&mut self) -> usize {
        self.out().len()
    }

    pub fn take(&mut self) -> Bytes {
        std::mem::take(self.out()).into()
    }

    /// What is left.
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Encoder::Gzip(encoder) => encoder.finish()?.into(),
            Encoder::Brotli(encoder) => encoder.into_inner().into(),
            Encoder::Zstd(encoder) => encoder.finish()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // What is cut short gives what came before the cut.
        let _ = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out),
        };
        out
    }

    #[test]
    fn what_was_flushed_can_be_read_before_the_end() {
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let mut encoder = Encoder::new(coding).unwrap();
            let mut sent = Vec::new();
            let mut plain = Vec::new();
            for i in 0..50 {
                let piece = format!("data: event {i}\n\n").repeat(i * 10 + 1);
                plain.extend_from_slice(piece.as_bytes());
                encoder.write(piece.as_bytes()).unwrap();
                encoder.flush().unwrap();
                sent.extend_from_slice(&encoder.take());
                assert_eq!(decode(coding, &sent), plain, "{coding:?} after {i}");
            }
            sent.extend_from_slice(&encoder.finish().unwrap());
            assert_eq!(decode(coding, &sent), plain, "{coding:?}");
            assert!(sent.len() < plain.len() / 4, "{coding:?}: {} of {}", sent.len(), plain.len());
        }
    }
}
