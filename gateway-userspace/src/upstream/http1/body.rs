//! Bodies of answers as they come off the socket: RFC 9112 sections 6.3 and 7.1.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::head::Malformed;

/// Bytes of a chunk's extensions, and of all trailer fields.
const MAX_EXTENSION: usize = 4096;
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 64;

/// How an answer's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Takes a body out of the bytes that carry it.
#[derive(Debug)]
pub enum Decoder {
    /// Bytes that are left.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Decoder::Done,
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::Chunked(Chunked::default()),
            Framing::UntilClose => Decoder::UntilClose,
        }
    }

    pub fn done(&self) -> bool {
        matches!(self, Decoder::Done)
    }

    pub fn size_hint(&self) -> SizeHint {
        match self {
            Decoder::Length(left) => SizeHint::with_exact(*left),
            Decoder::Done => SizeHint::with_exact(0),
            Decoder::Chunked(_) | Decoder::UntilClose => SizeHint::default(),
        }
    }

    /// The next frame in `input`, which is used up as far as it goes. `None`: there is none, or not yet.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Frame<Bytes>>, Malformed> {
        match self {
            Decoder::Done => Ok(None),
            Decoder::UntilClose => Ok((!input.is_empty()).then(|| Frame::data(std::mem::take(input)))),
            Decoder::Length(left) => {
                let data = take(input, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Decoder::Done;
                }
                Ok((!data.is_empty()).then(|| Frame::data(data)))
            }
            Decoder::Chunked(chunked) => {
                let frame = chunked.decode(input)?;
                if chunked.at == At::End {
                    *self = Decoder::Done;
                }
                Ok(frame)
            }
        }
    }
}

fn take(input: &mut Bytes, most: u64) -> Bytes {
    if input.len() as u64 <= most { std::mem::take(input) } else { input.split_to(most as usize) }
}

/// The chunked transfer coding.
#[derive(Debug, Default)]
pub struct Chunked {
    at: At,
    /// Bytes of the extension so far.
    extension: usize,
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a chunk's size, after so many digits.
    Size {
        value: u64,
        digits: u8,
    },
    /// Spaces behind the size.
    Blank {
        size: u64,
    },
    /// Between the size and its line's end.
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers,
    End,
}

impl Default for At {
    fn default() -> Self {
        At::Size { value: 0, digits: 0 }
    }
}

impl Chunked {
    fn decode(&mut self, input: &mut Bytes) -> Result<Option<Frame<Bytes>>, Malformed> {
        while !input.is_empty() {
            match self.at {
                At::End => break,
                At::Trailers => {
                    if let Some(trailers) = self.trailers(input)? {
                        return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                    }
                }
                At::Data { left } => {
                    let data = take(input, left);
                    let left = left - data.len() as u64;
                    self.at = if left == 0 { At::DataCr } else { At::Data { left } };
                    if self.at == At::DataCr && input.starts_with(b"\r\n") {
                        input.advance(2);
                        self.at = At::default();
                    }
                    // The last chunk usually comes along: whoever asks for the next frame learns of the end.
                    return Ok(Some(Frame::data(data)));
                }
                _ => {
                    let byte = input.get_u8();
                    self.at = self.step(byte)?;
                }
            }
        }
        Ok(None)
    }

    /// One byte of what is around the chunks' data.
    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                // 15 digits fit whatever they are.
                if digits == 15 {
                    return Err(Malformed);
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                At::Size { value: value << 4 | digit, digits: digits + 1 }
            }
            (At::Size { digits: 0, .. }, _) => return Err(Malformed),
            (At::Size { value: size, .. } | At::Blank { size } | At::Extension { size }, b'\r') => {
                At::SizeLf { size }
            }
            (At::Size { value: size, .. } | At::Blank { size }, b';') => {
                self.extension = 0;
                At::Extension { size }
            }
            // RFC 9112 section 7.1.1: only an extension may follow them, or "1 0" might be one chunk of 16 bytes.
            (At::Size { value: size, .. }, b' ' | b'\t') => {
                self.extension = 1;
                At::Blank { size }
            }
            (At::Blank { size }, b' ' | b'\t') if self.extension < MAX_EXTENSION => {
                self.extension += 1;
                At::Blank { size }
            }
            (At::Extension { size }, _) if byte != b'\n' && byte != 0 && self.extension < MAX_EXTENSION => {
                self.extension += 1;
                At::Extension { size }
            }
            (At::SizeLf { size: 0 }, b'\n') => At::Trailers,
            (At::SizeLf { size }, b'\n') => At::Data { left: size },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::default(),
            _ => return Err(Malformed),
        })
    }

    /// The trailer section, once it is whole.
    fn trailers(&mut self, input: &mut Bytes) -> Result<Option<HeaderMap>, Malformed> {
        if self.trailers.is_empty() && input.starts_with(b"\r\n") {
            input.advance(2);
            self.at = At::End;
            return Ok(Some(HeaderMap::new()));
        }
        while !input.is_empty() {
            self.trailers.push(input.get_u8());
            if self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n") {
                self.at = At::End;
                return fields(&std::mem::take(&mut self.trailers)).map(Some);
            }
            if self.trailers.len() >= MAX_TRAILERS {
                return Err(Malformed);
            }
        }
        Ok(None)
    }
}

fn fields(text: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let mut headers = HeaderMap::new();
    if text == b"\r\n" {
        return Ok(headers);
    }
    // As in heads.
    if memchr::memchr_iter(b'\n', text).any(|at| at == 0 || text[at - 1] != b'\r') {
        return Err(Malformed);
    }
    match httparse::parse_headers(text, &mut parsed) {
        Ok(httparse::Status::Complete((length, fields))) if length == text.len() => {
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
                headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?);
            }
            Ok(headers)
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All of a body that comes in these pieces: its data, its trailers, whether it ended.
    fn whole(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, HeaderMap, bool), Malformed> {
        let mut decoder = Decoder::new(framing);
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while !input.is_empty() && !decoder.done() {
                match decoder.decode(&mut input)? {
                    Some(frame) => match frame.into_data() {
                        Ok(bytes) => data.extend_from_slice(&bytes),
                        Err(frame) => trailers.extend(frame.into_trailers().ok().into_iter().flatten()),
                    },
                    None => assert!(input.is_empty() || decoder.done()),
                }
            }
        }
        Ok((data, trailers, decoder.done()))
    }

    fn chunked(text: &[u8]) -> Result<(Vec<u8>, HeaderMap, bool), Malformed> {
        let in_one = whole(Framing::Chunked, &[text]);
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(in_one, whole(Framing::Chunked, &single), "pieces change nothing");
        in_one
    }

    #[test]
    fn a_length_counts_down() {
        assert_eq!(whole(Framing::Length(4), &[b"ab", b"cd"]).unwrap().0, b"abcd");
        assert!(!whole(Framing::Length(4), &[b"ab", b"c"]).unwrap().2);
        let mut decoder = Decoder::new(Framing::Length(2));
        let mut input = Bytes::from_static(b"abHTTP/1.1");
        decoder.decode(&mut input).unwrap();
        assert!(decoder.done() && input == "HTTP/1.1", "what is behind it is left");
    }

    #[test]
    fn chunks_with_sizes_of_any_case_extensions_and_trailers_are_read() {
        let (data, trailers, done) =
            chunked(b"5\r\nhello\r\n00A;a=\"b\"\r\n0123456789\r\n0\r\nx-sum: 1\r\nx-b: 2\r\n\r\n").unwrap();
        assert_eq!(data, b"hello0123456789");
        assert_eq!((trailers["x-sum"].as_bytes(), trailers.len(), done), (&b"1"[..], 2, true));
        let (data, trailers, done) = chunked(b"1 \r\na\r\n0\r\n\r\n").unwrap();
        assert!(data == b"a" && trailers.is_empty() && done);
    }

    #[test]
    fn chunks_that_two_readers_could_take_differently_are_refused() {
        for text in [
            &b"\r\na"[..],
            b"g\r\n",
            b"-1\r\n",
            b"0x1\r\na\r\n",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n\n",
            b"1\r\ra",
            b"1;a\nb\r\na\r\n",
            b"1 0\r\na\r\n",
            b"0\t1\r\n\r\n",
            b"1;\0\r\na\r\n",
            b"1234567890123456\r\n",
            b"0\r\n bad\r\n\r\n",
            b"0\r\nx : 1\r\n\r\n",
            b"0\r\nx: 1\ny: 2\r\n\r\n",
        ] {
            assert_eq!(chunked(text).map(|_| ()), Err(Malformed), "{:?}", String::from_utf8_lossy(text));
        }
        let long = [b"1;".to_vec(), vec![b'x'; MAX_EXTENSION + 1]].concat();
        assert!(chunked(&long).is_err());
        let long = [b"0\r\nx: ".to_vec(), vec![b'x'; MAX_TRAILERS]].concat();
        assert!(chunked(&long).is_err());
    }

    proptest! {
        #[test]
        fn whatever_was_chunked_comes_out_again(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8)) {
            let mut text = Vec::new();
            for part in &parts {
                text.extend(format!("{:x}\r\n", part.len()).bytes());
                text.extend(part);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\n\r\n");
            let (data, _, done) = chunked(&text).unwrap();
            prop_assert!(done);
            prop_assert_eq!(data, parts.concat());
        }

        #[test]
        fn no_input_makes_it_panic(text in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b';'), any::<u8>()], 0..200)) {
            let _ = chunked(&text);
        }
    }
}
