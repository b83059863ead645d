//! What an HTTP/1.1 client sends, as it came: each request's head is looked at as it was on the wire, also when it was
//! pipelined behind another. hyper shows only what it made of it.
//!
//! Where a head begins is where the body before it ended, so that is followed too. For most requests there is none, and
//! nothing behind it.

use bytes::Bytes;

use crate::upstream::http1::{Decoder, Framing};

/// Bytes behind the request at hand: hyper reads no further than one buffer ahead.
const MOST_AHEAD: usize = 1 << 20;

#[derive(Debug)]
pub struct Inbound {
    /// Of the request at hand, from its beginning at least to its head's end; or of the next one, while it comes.
    head: Vec<u8>,
    /// What comes next.
    body: Body,
    /// What came behind the request at hand.
    ahead: Vec<u8>,
    /// The request at hand was answered.
    answered: bool,
}

#[derive(Debug)]
enum Body {
    /// It is a head that comes.
    NotYet,
    Following(Decoder),
    /// Where it ends is not known: hyper takes for a body what we do not.
    Lost,
}

impl Default for Inbound {
    fn default() -> Self {
        Inbound { head: Vec::new(), body: Body::NotYet, ahead: Vec::new(), answered: false }
    }
}

impl Inbound {
    pub fn received(&mut self, bytes: &[u8]) {
        match &mut self.body {
            Body::NotYet => self.head.extend_from_slice(bytes),
            Body::Lost => {}
            Body::Following(decoder) if decoder.done() => self.keep(bytes),
            Body::Following(Decoder::Length(left)) if *left > bytes.len() as u64 => {
                *left -= bytes.len() as u64;
            }
            Body::Following(decoder) => {
                let mut input = Bytes::copy_from_slice(bytes);
                while !input.is_empty() && !decoder.done() {
                    if decoder.decode(&mut input).is_err() {
                        self.body = Body::Lost;
                        return;
                    }
                }
                self.keep(&input);
                self.next();
            }
        }
    }

    /// The head of the request at hand, and maybe more. Empty: it is not known.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Some of a head is here, whose request has not begun.
    pub fn has_unbegun(&self) -> bool {
        matches!(self.body, Body::NotYet) && !self.head.is_empty()
    }

    /// All of the request at hand is here, and nothing of another.
    pub fn is_whole(&self) -> bool {
        matches!(&self.body, Body::Following(decoder) if decoder.done()) && self.ahead.is_empty()
    }

    /// The head at hand is so long, and a body so delimited follows it.
    pub fn begin_body(&mut self, head: usize, body: Framing) {
        self.body = Body::Following(Decoder::new(body));
        if head < self.head.len() {
            let behind = self.head.split_off(head);
            self.received(&behind);
        }
    }

    /// The request at hand was answered; what came behind its body is the next one's beginning.
    pub fn answered(&mut self) {
        self.answered = true;
        self.next();
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.ahead.extend_from_slice(bytes);
        if self.ahead.len() > MOST_AHEAD {
            self.body = Body::Lost;
        }
    }

    fn next(&mut self) {
        match &self.body {
            _ if !self.answered => {}
            Body::Following(decoder) if decoder.done() => {
                self.head.clear();
                self.head.append(&mut self.ahead);
                self.body = Body::NotYet;
                self.answered = false;
            }
            Body::Lost => self.head.clear(),
            Body::Following(_) | Body::NotYet => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// The head that comes behind a request with this body, sent in pieces of every size.
    fn next(body: &[u8], framing: Framing) -> Vec<u8> {
        let sent = [HEAD, body, GET].concat();
        let mut heads: Vec<Vec<u8>> = (1..=sent.len())
            .map(|size| {
                let mut inbound = Inbound::default();
                let mut begun = false;
                for piece in sent.chunks(size) {
                    inbound.received(piece);
                    if !begun && inbound.head().len() >= HEAD.len() {
                        assert!(inbound.head().starts_with(HEAD));
                        inbound.begin_body(HEAD.len(), framing);
                        begun = true;
                    }
                    // Answered before all of it is here, or after.
                    if size % 2 == 0 && begun {
                        inbound.answered();
                    }
                }
                if size % 2 == 1 {
                    inbound.answered();
                }
                inbound.head().to_vec()
            })
            .collect();
        heads.dedup();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads.remove(0)
    }

    #[test]
    fn a_pipelined_head_is_known_whatever_is_before_it() {
        assert_eq!(next(b"", Framing::Length(0)), GET);
        assert_eq!(next(b"GET /", Framing::Length(5)), GET);
        assert_eq!(next(b"3\r\nabc\r\n0\r\n\r\n", Framing::Chunked), GET);
        assert_eq!(next(b"a;x=y\r\n0123456789\r\n0\r\na: b\r\n\r\n", Framing::Chunked), GET);
    }

    #[test]
    fn behind_a_body_that_cannot_be_followed_no_head_is_known() {
        let mut inbound = Inbound::default();
        inbound.received(&[HEAD, b"3\nabc\r\n0\r\n\r\n", GET].concat());
        inbound.begin_body(HEAD.len(), Framing::Chunked);
        inbound.answered();
        assert_eq!(inbound.head(), b"");
    }
}
