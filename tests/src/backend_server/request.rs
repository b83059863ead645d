//! Reading requests, leniently: what the gateway sends is for the tests to judge.

use std::{
    io::{self, Read},
    net::TcpStream,
};

/// A request's head, and its body once read.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A number in the query, or a default.
    pub fn number(&self, name: &str, default: u64) -> u64 {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or(default)
    }
}

pub struct Reader<'a> {
    stream: &'a TcpStream,
    unread: Vec<u8>,
}

fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl<'a> Reader<'a> {
    pub fn new(stream: &'a TcpStream) -> Self {
        Reader { stream, unread: Vec::new() }
    }

    /// The next request's head; `None` when the connection ends before one.
    pub fn head(&mut self) -> io::Result<Option<Request>> {
        let Some(head) = self.until(b"\r\n\r\n")? else { return Ok(None) };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let mut words = lines.next().unwrap_or("").split(' ');
        let mut word = || words.next().unwrap_or("").to_owned();
        let (method, target) = (word(), word());
        Ok(Some(Request { method, target, headers: fields(lines), body: Vec::new(), trailers: Vec::new() }))
    }

    /// Reads the request's body into it.
    pub fn body(&mut self, request: &mut Request) -> io::Result<()> {
        let chunked = request.header("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked"));
        if !chunked {
            let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            request.body = self.exactly(length)?;
            return Ok(());
        }
        loop {
            let line = self.until(b"\r\n")?.ok_or_else(ended)?;
            let size = String::from_utf8_lossy(&line).trim().to_owned();
            let size =
                usize::from_str_radix(size.split(';').next().unwrap_or(""), 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            let mut chunk = self.exactly(size + 2)?;
            chunk.truncate(size);
            request.body.extend(chunk);
        }
        loop {
            let line = self.until(b"\r\n")?.ok_or_else(ended)?;
            if line == b"\r\n" {
                return Ok(());
            }
            request.trailers.extend(fields([String::from_utf8_lossy(&line).trim_end()].into_iter()));
        }
    }

    /// Blocks until the other side closes, whatever it sends.
    pub fn gone(&mut self) -> io::Result<()> {
        while self.fill()? > 0 {
            self.unread.clear();
        }
        Ok(())
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let rest = self.unread.split_off(at + end.len());
                return Ok(Some(std::mem::replace(&mut self.unread, rest)));
            }
            if self.fill()? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(ended()) };
            }
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            if self.fill()? == 0 {
                return Err(ended());
            }
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let n = self.stream.read(&mut buffer)?;
        self.unread.extend(buffer.iter().take(n));
        Ok(n)
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let split = lines.filter_map(|line| line.split_once(':'));
    split.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}
