//! An answer's body on its way past whoever reads what the request cost out of it. Nothing is held back: what passes is
//! kept, of JSON all of it up to a bound, of an event stream one event at a time.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;

use super::{
    body::{Cut, ResponseBody},
    exchange::Exchange,
};
use crate::request::media_type;

/// A longer answer's, or event's, cost is not known: it is 0.
const MOST: usize = 1 << 20;

pub struct Metered {
    inner: ResponseBody,
    reader: Option<Reader>,
}

/// Finds numbers in what passes.
pub struct Reader {
    events: bool,
    pointers: Vec<String>,
    kept: Vec<u8>,
    /// Too long: the rest is not looked at.
    lost: bool,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

impl Metered {
    pub fn new(inner: ResponseBody, pointers: Vec<String>, headers: &HeaderMap) -> Self {
        Metered { inner, reader: Reader::new(pointers, headers) }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Some(reader) = &mut self.reader {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let found = frame.data_ref().map(|data| reader.read(data)).unwrap_or_default();
                    self.tell(found);
                    if self.inner.is_end_stream() {
                        self.end();
                    }
                }
                Poll::Ready(None) => self.end(),
                _ => {}
            }
        }
        polled
    }

    fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.tell(reader.end());
        }
    }

    fn tell(&self, found: Vec<(String, u64)>) {
        if let Some(exchange) = self.exchange() {
            found.iter().for_each(|(pointer, value)| exchange.cost_found(pointer, *value));
        }
    }

    pub fn exchange(&self) -> Option<&Exchange> {
        self.inner.exchange()
    }

    /// What is left of it, past nobody.
    pub fn into_inner(mut self) -> ResponseBody {
        self.end();
        std::mem::replace(&mut self.inner, ResponseBody::Nothing)
    }

    pub fn ended(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Metered {
    /// A stream that a client gave up cost what its last event said.
    fn drop(&mut self) {
        self.end();
    }
}

impl Reader {
    /// `None`: it is nothing that can be read.
    pub fn new(pointers: Vec<String>, headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = media_type(kind);
        let events = kind == "text/event-stream";
        let json = kind == "application/json" || kind.ends_with("+json");
        let plain = headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
        (plain && (events || json)).then(|| Reader { events, pointers, kept: Vec::new(), lost: false })
    }

    /// The numbers that are known with it.
    pub fn read(&mut self, data: &[u8]) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        if !self.events {
            self.keep(data);
            return found;
        }
        let mut rest = data;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            self.keep(&rest[..end]);
            found.extend(self.line());
            rest = &rest[end + 1..];
        }
        self.keep(rest);
        found
    }

    /// All of it has passed.
    pub fn end(mut self) -> Vec<(String, u64)> {
        match self.events {
            true => self.line(),
            false if self.lost => Vec::new(),
            false => numbers(&self.pointers, &self.kept),
        }
    }

    fn keep(&mut self, data: &[u8]) {
        if self.lost || self.kept.len() + data.len() > MOST {
            self.lost = true;
            self.kept = Vec::new();
            return;
        }
        self.kept.extend_from_slice(data);
    }

    /// A whole line of an event stream.
    fn line(&mut self) -> Vec<(String, u64)> {
        let found = match self.kept.strip_prefix(b"data:") {
            Some(json) if !self.lost => numbers(&self.pointers, json.trim_ascii_start()),
            _ => Vec::new(),
        };
        self.kept.clear();
        self.lost = false;
        found
    }
}

fn numbers(pointers: &[String], json: &[u8]) -> Vec<(String, u64)> {
    // Most events of a stream are not those that tell: whoever has no such name in it is not parsed.
    let last = |pointer: &String| {
        let name = pointer.rsplit('/').next().unwrap_or_default().to_owned();
        name.contains('~') || memchr::memmem::find(json, name.as_bytes()).is_some()
    };
    if !pointers.iter().any(last) {
        return Vec::new();
    }
    let Ok(value) = serde_json::from_slice::<Value>(json) else { return Vec::new() };
    let number = |pointer: &String| {
        let number = value.pointer(pointer)?;
        let number = number.as_u64().or_else(|| Some(number.as_f64()?.clamp(0.0, 1e15) as u64))?;
        Some((pointer.clone(), number))
    };
    pointers.iter().filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(kind: &str, pointer: &str) -> Option<Reader> {
        let headers = [(header::CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect();
        Reader::new(vec![pointer.to_owned()], &headers)
    }

    fn read(kind: &str, pointer: &str, pieces: &[&str]) -> Vec<u64> {
        let mut reader = reader(kind, pointer).unwrap();
        let mut found: Vec<_> = pieces.iter().flat_map(|piece| reader.read(piece.as_bytes())).collect();
        found.extend(reader.end());
        found.into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn numbers_are_found_however_the_body_comes() {
        let json = r#"{"choices": [], "usage": {"total_tokens": 42}}"#;
        for cut in 0..json.len() {
            let pieces = [&json[..cut], &json[cut..]];
            assert_eq!(read("application/json; charset=utf-8", "/usage/total_tokens", &pieces), [42]);
        }
        assert_eq!(read("application/vnd.a+json", "", &["7"]), [7]);
        assert_eq!(read("application/json", "/usage/total_tokens", &[r#"{"usage": null}"#]), [0u64; 0]);
        assert_eq!(read("application/json", "/n", &[r#"{"n": -5}"#]), [0]);
        assert_eq!(read("application/json", "/n", &["{\"n\": 5"]), [0u64; 0]);
    }

    #[test]
    fn of_an_event_stream_every_event_is_read() {
        let stream =
            "data: {\"n\": 1}\n\nevent: x\r\ndata:{\"n\": 2}\r\n\r\ndata: [DONE]\n\ndata: {\"n\": 3}";
        for cut in 0..stream.len() {
            assert_eq!(read("text/event-stream", "/n", &[&stream[..cut], &stream[cut..]]), [1, 2, 3]);
        }
    }

    #[test]
    fn what_is_too_long_or_coded_is_not_read() {
        assert!(reader("text/html", "/n").is_none());
        let long = format!("{{\"n\": 1, \"pad\": \"{}\"}}", "x".repeat(MOST));
        assert_eq!(read("application/json", "/n", &[&long]), [0u64; 0]);
        let event = format!("data: {long}\n\ndata: {{\"n\": 2}}\n\n");
        assert_eq!(read("text/event-stream", "/n", &[&event]), [2]);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(Reader::new(vec!["/n".into()], &headers).is_none());
    }
}
