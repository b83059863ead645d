//! What is sent upstream: a request's head as bytes, and its body as it comes.

use std::{
    io::IoSlice,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};
use http_body::Body;

use super::Wire;
use crate::{
    net::write_slices,
    observe::{Why, trace::Parent},
    proxy::{Cut, RequestBody},
};

/// A request on its way to an upstream. The head stays as the client sent it: what ends here is left out, and what we
/// add is added, when it is written.
#[derive(Debug)]
pub struct Outgoing {
    pub head: request::Parts,
    pub switch: Switch,
    /// Whole lines in wire format: who the client is, where the request came by. The same for all of a client's
    /// requests to one host.
    pub about: Rc<[u8]>,
    pub id: HeaderValue,
    /// Its trace, where the head does not name it.
    pub trace: Option<Parent>,
}

/// What `Connection` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch {
    No,
    /// `TE: trailers`.
    Trailers,
    /// To this protocol.
    Upgrade(HeaderValue),
}

/// How the request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// The head says so many bytes, of which these are left.
    Length(u64),
    Chunked,
}

impl Outgoing {
    /// Appends the head; `chunked`: the body has no length.
    pub(crate) fn write(&self, chunked: bool, empty: bool, out: &mut Vec<u8>) {
        let Outgoing { head, switch, about, id, trace } = self;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        for (name, value) in &head.headers {
            if !ends_here(name) {
                field(out, name.as_str(), value.as_bytes());
            }
        }
        match switch {
            Switch::No => {}
            Switch::Trailers => out.extend_from_slice(b"connection: te\r\nte: trailers\r\n"),
            Switch::Upgrade(protocol) => {
                out.extend_from_slice(b"connection: upgrade\r\n");
                field(out, "upgrade", protocol.as_bytes());
            }
        }
        if chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if empty && expects_body(&head.method) && !head.headers.contains_key(header::CONTENT_LENGTH) {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        out.extend_from_slice(about);
        field(out, "x-request-id", id.as_bytes());
        if let Some(trace) = trace {
            out.extend_from_slice(b"traceparent: ");
            trace.write(out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A field's line in wire format; a value has no line ends in it.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A length that cannot be read is none to keep: the body then breaks it.
fn framing(headers: &HeaderMap) -> Framing {
    headers.get(header::CONTENT_LENGTH).map_or(Framing::Chunked, |length| {
        Framing::Length(length.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0))
    })
}

/// RFC 9110 section 8.6.
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Hop-by-hop fields (RFC 9110 section 7.6.1; what `Connection` lists is gone already), and what clients say of
/// themselves, which nobody vouches for.
pub fn ends_here(name: &HeaderName) -> bool {
    // Standard names compare as numbers.
    match *name {
        header::HOST
        | header::USER_AGENT
        | header::ACCEPT
        | header::ACCEPT_ENCODING
        | header::ACCEPT_LANGUAGE
        | header::COOKIE
        | header::CONTENT_TYPE
        | header::CONTENT_LENGTH => false,
        header::CONNECTION
        | header::TE
        | header::TRANSFER_ENCODING
        | header::UPGRADE
        | header::EXPECT
        | header::PROXY_AUTHORIZATION
        | header::FORWARDED => true,
        _ => match name.as_str().strip_prefix('x') {
            Some(rest) => vouches(rest),
            None => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
        },
    }
}

/// Of a name that begins with `x`. A `_` is a `-` to those who hand fields on as variables (RFC 3875 section 4.1.18).
fn vouches(rest: &str) -> bool {
    let apart = ['-', '_'];
    match rest.strip_prefix(apart).and_then(|rest| rest.split_once(apart)) {
        Some(("forwarded", what)) => FORWARDED.contains(&what),
        Some(named) => named == ("real", "ip") || named == ("request", "id"),
        None => false,
    }
}

/// Of `X-Forwarded-`: what tells of where a request came by. Other ones are between the config and its upstreams.
const FORWARDED: [&str; 9] = ["for", "host", "proto", "port", "server", "prefix", "scheme", "ssl", "by"];

/// The part of a request that has not been written yet.
#[derive(Default)]
pub struct Sending {
    /// The head, then what goes before a body's data and after its end.
    text: Vec<u8>,
    data: Bytes,
    /// Goes after the data.
    tail: &'static [u8],
    /// Bytes of `text`, `data` and `tail` together that are written.
    written: usize,
    body: Option<(RequestBody, Framing)>,
    /// Nothing more comes from the body.
    ended: bool,
    /// Anything went out.
    began: bool,
    /// What was written may not have gone out.
    unflushed: bool,
}

/// Why a request was not sent to its end.
#[derive(Debug)]
pub enum SendFailed {
    /// The socket took no more.
    Socket(std::io::Error),
    /// The client's side ended it.
    Body(Cut),
}

impl Sending {
    /// Another request. Memory is used again.
    pub fn begin(&mut self, request: &Outgoing, body: RequestBody) {
        self.clear();
        (self.began, self.unflushed) = (false, false);
        let empty = body.is_empty();
        let framing = framing(&request.head.headers);
        request.write(!empty && framing == Framing::Chunked, empty, &mut self.text);
        self.ended = empty;
        self.body = (!empty).then_some((body, framing));
    }

    pub fn done(&self) -> bool {
        self.ended && self.left() == 0 && !self.unflushed
    }

    /// Nothing was written.
    pub fn untouched(&self) -> bool {
        !self.began
    }

    /// The whole body again, if nothing of it was written.
    pub fn take_body(&mut self) -> Option<RequestBody> {
        if self.began {
            return None;
        }
        let Some((mut body, _)) = self.body.take() else { return Some(RequestBody::Empty) };
        if !self.data.is_empty() {
            body.push_back(std::mem::take(&mut self.data));
        }
        Some(body)
    }

    /// What is left need not be sent any more.
    pub fn give_up(&mut self) {
        (self.ended, self.unflushed) = (true, false);
        let data = std::mem::take(&mut self.data);
        self.clear();
        // Whoever tries again wants it.
        self.data = data;
        self.written = self.data.len();
    }

    fn clear(&mut self) {
        self.text.clear();
        self.data.clear();
        (self.tail, self.written) = (b"", 0);
    }

    /// Gives large buffers back, once what is in them is written.
    pub fn rest(&mut self) {
        if self.text.capacity() > 4096
            && let Some(written) = self.written.checked_sub(self.text.len())
        {
            (self.text, self.written) = (Vec::new(), written);
        }
    }

    fn left(&self) -> usize {
        self.text.len() + self.data.len() + self.tail.len() - self.written
    }

    /// Writes as much as the socket takes and the body has.
    pub fn poll<S: Wire>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), SendFailed>> {
        // The first piece of a body usually is there with the head, and goes out together with it.
        if !self.began && !self.ended && self.data.is_empty() {
            let _ = self.poll_body(cx)?;
        }
        loop {
            while self.left() > 0 {
                let n = ready!(self.poll_write(stream, cx)).map_err(SendFailed::Socket)?;
                if n == 0 {
                    return Poll::Ready(Err(SendFailed::Socket(std::io::ErrorKind::WriteZero.into())));
                }
                self.began = true;
                self.written += n;
                self.unflushed = S::HOLDS_BACK;
            }
            if S::HOLDS_BACK && self.unflushed {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(SendFailed::Socket)?;
                self.unflushed = false;
            }
            if self.ended {
                self.body = None;
                return Poll::Ready(Ok(()));
            }
            self.clear();
            ready!(self.poll_body(cx))?;
        }
    }

    fn poll_write(&mut self, stream: &mut impl Wire, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut skip = self.written;
        let rest = [&self.text[..], &self.data[..], self.tail].map(|part| {
            let from = skip.min(part.len());
            skip -= from;
            IoSlice::new(&part[from..])
        });
        let first = rest.iter().position(|part| !part.is_empty()).unwrap_or(0);
        let end = rest.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        write_slices(stream, cx, &rest[first..end.max(first)])
    }

    /// Takes the next frame of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFailed>> {
        let Some((body, framing)) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose().map_err(SendFailed::Body)?;
        let last = frame.is_none() || body.is_end_stream();
        if let Framing::Length(left) = framing {
            let came =
                frame.as_ref().and_then(http_body::Frame::data_ref).map_or(0, |data| data.len() as u64);
            // What is more or less than announced would be taken for the next request, or the next for it.
            match left.checked_sub(came) {
                Some(rest) if rest == 0 || !last => *left = rest,
                _ => return Poll::Ready(Err(SendFailed::Body(Cut(Why::BadRequest)))),
            }
        }
        let framing = *framing;
        match frame.map(http_body::Frame::into_data) {
            Some(Ok(data)) => self.data(data, framing),
            Some(Err(frame)) => {
                if let (Ok(trailers), Framing::Chunked) = (frame.into_trailers(), framing) {
                    self.end(&trailers);
                    self.ended = true;
                }
                return Poll::Ready(Ok(()));
            }
            None => {}
        }
        // Trailers may still come behind the last chunk.
        if last && (framing != Framing::Chunked || self.data.is_empty()) {
            if framing == Framing::Chunked {
                self.end(&HeaderMap::new());
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }

    fn data(&mut self, data: Bytes, framing: Framing) {
        if framing == Framing::Chunked && !data.is_empty() {
            use std::io::Write as _;
            // Writing to a vector cannot fail.
            let _ = write!(self.text, "{:x}\r\n", data.len());
            self.tail = b"\r\n";
        }
        self.data = data;
    }

    fn end(&mut self, trailers: &HeaderMap) {
        self.text.extend_from_slice(b"0\r\n");
        for (name, value) in trailers {
            if may_trail(name) {
                field(&mut self.text, name.as_str(), value.as_bytes());
            }
        }
        self.text.extend_from_slice(b"\r\n");
    }
}

/// RFC 9110 section 6.5.1: nothing that decides about framing, routing or who asks.
pub fn may_trail(name: &HeaderName) -> bool {
    // What HTTP/2 lets pass for a name, and is no token.
    !name.as_str().contains('"')
        && !ends_here(name)
        && !matches!(
            *name,
            header::HOST
                | header::CONTENT_LENGTH
                | header::CONTENT_TYPE
                | header::CONTENT_ENCODING
                | header::CONTENT_RANGE
                | header::TRAILER
                | header::AUTHORIZATION
                | header::COOKIE
                | header::CACHE_CONTROL
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(request: http::request::Builder, switch: Switch) -> Outgoing {
        Outgoing {
            head: request.body(()).unwrap().into_parts().0,
            switch,
            about: Rc::from(&b"via: 1.1 gateway\r\n"[..]),
            id: HeaderValue::from_static("7"),
            trace: None,
        }
    }

    fn written(request: http::request::Builder, switch: Switch, chunked: bool) -> String {
        let mut out = Vec::new();
        outgoing(request, switch).write(chunked, !chunked, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_ends_here_is_left_out_and_what_we_add_comes_last() {
        let request = http::Request::get("/a?b")
            .header("host", "a")
            .header("x-request-id", "forged")
            .header("x-forwarded-for", "forged")
            .header("x-forwarded-server", "forged")
            .header("x-forwarded-prefix", "/forged")
            .header("proxy-authorization", "Basic eDp5")
            .header("connection", "close")
            .header("via", "1.0 other")
            .header("x-a", "1")
            .header("x-a", "2");
        assert_eq!(
            written(request, Switch::No, false),
            "GET /a?b HTTP/1.1\r\nhost: a\r\nvia: 1.0 other\r\nx-a: 1\r\nx-a: 2\r\nvia: 1.1 gateway\r\nx-request-id: 7\r\n\r\n"
        );
    }

    #[test]
    fn a_protocol_to_switch_to_is_named() {
        let websocket = Switch::Upgrade(HeaderValue::from_static("websocket"));
        let text = written(http::Request::get("/").header("upgrade", "h2c"), websocket, false);
        assert!(text.contains("\r\nconnection: upgrade\r\nupgrade: websocket\r\n"), "{text}");
        assert!(!text.contains("h2c"), "{text}");
        let text = written(http::Request::get("/"), Switch::Trailers, false);
        assert!(text.contains("\r\nconnection: te\r\nte: trailers\r\n"), "{text}");
    }

    #[test]
    fn a_body_is_announced() {
        let text = written(http::Request::post("/"), Switch::No, true);
        assert!(text.contains("\r\ntransfer-encoding: chunked\r\n") && !text.contains("content-length"));
        assert!(written(http::Request::post("/"), Switch::No, false).contains("\r\ncontent-length: 0\r\n"));
        assert!(!written(http::Request::get("/"), Switch::No, false).contains("content-length"));
        let given = http::Request::post("/").header("content-length", "0");
        assert_eq!(written(given, Switch::No, false).matches("content-length: 0\r\n").count(), 1);
    }

    #[test]
    fn trailers_cannot_say_what_heads_decide() {
        let mut sending = Sending::default();
        let mut trailers = HeaderMap::new();
        for name in ["x-sum", "host", "content-length", "transfer-encoding", "x-forwarded-for"] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        trailers.insert(HeaderName::from_lowercase(b"\"x\"").unwrap(), HeaderValue::from_static("1"));
        sending.end(&trailers);
        assert_eq!(sending.text, b"0\r\nx-sum: 1\r\n\r\n");
    }

    /// What a request with this field and body puts on the wire, or that it does not.
    fn sent(field: (&'static str, &'static str), body: &'static [u8]) -> Result<Vec<u8>, SendFailed> {
        use std::io::Read as _;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let request = outgoing(http::Request::post("/").header(field.0, field.1), Switch::No);
            let mut sending = Sending::default();
            sending.begin(&request, RequestBody::Kept(Bytes::from_static(body)));
            std::future::poll_fn(|cx| sending.poll(&mut stream, cx)).await?;
            assert!(sending.done() && !sending.untouched());
            drop(stream);
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            Ok(received)
        })
    }

    #[test]
    fn a_body_is_as_long_as_announced_or_the_request_fails() {
        assert!(sent(("content-length", "4"), b"abcd").unwrap().ends_with(b"\r\n\r\nabcd"));
        for length in ["3", "5", "x"] {
            assert!(
                matches!(sent(("content-length", length), b"abcd"), Err(SendFailed::Body(_))),
                "{length}"
            );
        }
        assert!(sent(("x-a", "1"), b"abcd").unwrap().ends_with(b"\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"));
    }
}
