//! Heads of answers: RFC 9112, read strictly. What two readers could take differently is no answer.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::body::Framing;

/// Bytes of an answer's head.
pub const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

/// An upstream's answer but for its body.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub framing: Framing,
    /// The connection may be used again after this answer.
    pub keep_alive: bool,
    /// It came by HTTP/2.
    pub http2: bool,
}

/// Not HTTP, or more of it than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads a head from the start of `input`, and how long it is. `None`: more of it has to come. `spare` is a header map
/// whose memory is used.
pub fn parse(input: &Bytes, asked: &Method, spare: HeaderMap) -> Result<Option<(Head, usize)>, Malformed> {
    let mut fields = [MaybeUninit::uninit(); MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let length = match httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        input,
        &mut fields,
    ) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Ok(None),
        _ => return Err(Malformed),
    };
    // The parser takes it for a line's end (RFC 9112 section 2.2), others for a part of a value.
    let pairs = input[..length].iter().zip(&input[1..length]);
    if input[0] == b'\n'
        || pairs.fold(false, |bare, (before, byte)| bare | (*byte == b'\n') & (*before != b'\r'))
    {
        return Err(Malformed);
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
    let mut facts = Facts::default();
    let mut headers = spare;
    // Two more are added on the way to the client.
    headers.reserve(parsed.headers.len() + 2);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        let value = HeaderValue::from_maybe_shared(input.slice_ref(field.value)).map_err(|_| Malformed)?;
        facts.see(&name, field.value)?;
        headers.append(name, value);
    }
    let is_11 = parsed.version == Some(1);
    let keep_alive = if is_11 { !facts.close } else { facts.keep_alive && !facts.close };
    let framing = facts.framing(status, asked, is_11)?;
    Ok(Some((Head { status, headers, framing, keep_alive, http2: false }, length)))
}

/// What the fields say of the message itself.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Facts {
    fn see(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Malformed> {
        match *name {
            header::CONTENT_LENGTH => {
                let length = decimal(value).ok_or(Malformed)?;
                // Twice is once too often, also when both say the same.
                if self.length.replace(length).is_some() {
                    return Err(Malformed);
                }
            }
            header::TRANSFER_ENCODING => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                self.chunked = true;
            }
            header::CONNECTION => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 section 6.3.
    fn framing(&self, status: StatusCode, asked: &Method, is_11: bool) -> Result<Framing, Malformed> {
        let never = status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || *asked == Method::HEAD;
        Ok(match (self.chunked, self.length) {
            // One of them is not true, and whoever believes the other sees another answer.
            (true, Some(_)) => return Err(Malformed),
            (true, None) if !is_11 => return Err(Malformed),
            _ if never => Framing::Length(0),
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        })
    }
}

/// Digits and nothing else: no sign, no space, no list.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0u64, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, asked: Method) -> Result<Option<(Head, usize)>, Malformed> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), &asked, HeaderMap::new())
    }

    fn framing(fields: &str) -> Result<Framing, Malformed> {
        read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), Method::GET)
            .map(|read| read.expect("a whole head").0.framing)
    }

    #[test]
    fn a_head_is_read_and_its_length_told() {
        let (head, length) =
            read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nx-a: 2\r\n\r\nok", Method::GET)
                .unwrap()
                .unwrap();
        assert_eq!((head.status, head.framing, head.keep_alive), (StatusCode::OK, Framing::Length(2), true));
        assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(length, 54);
        assert!(read("HTTP/1.1 200 OK\r\nContent-Le", Method::GET).unwrap().is_none());
    }

    #[test]
    fn a_length_is_told_once_and_in_digits_only() {
        assert_eq!(framing("content-length: 7\r\n"), Ok(Framing::Length(7)));
        assert_eq!(framing("transfer-encoding: Chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(framing(""), Ok(Framing::UntilClose));
        for fields in [
            "content-length: 7\r\ncontent-length: 7\r\n",
            "content-length: 7, 7\r\n",
            "content-length: +7\r\n",
            "content-length:\r\n",
            "content-length: 0x7\r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length: 7\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: identity\r\n",
        ] {
            assert_eq!(framing(fields), Err(Malformed), "{fields}");
        }
    }

    #[test]
    fn some_answers_have_no_body_whatever_their_fields_say() {
        let of = |status: &str, asked| {
            read(&format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\n"), asked)
                .unwrap()
                .unwrap()
                .0
                .framing
        };
        assert_eq!(of("204 No Content", Method::GET), Framing::Length(0));
        assert_eq!(of("304 Not Modified", Method::GET), Framing::Length(0));
        assert_eq!(of("200 OK", Method::HEAD), Framing::Length(0));
        assert_eq!(of("200 OK", Method::GET), Framing::Length(9));
    }

    #[test]
    fn connections_are_kept_by_the_version_s_own_rule() {
        let keeps = |text: &str| read(text, Method::GET).unwrap().unwrap().0.keep_alive;
        assert!(keeps("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nconnection: x, Close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(keeps("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn what_is_not_an_answer_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\n",
            "HTTP/1.1 200 OK\r\nspace : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(read(text, Method::GET).map(drop), Err(Malformed), "{text:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(read(&many, Method::GET).map(drop), Err(Malformed));
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD));
        assert_eq!(read(&long, Method::GET).map(drop), Err(Malformed));
    }
}
