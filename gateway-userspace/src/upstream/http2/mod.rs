//! HTTP/2 to targets (RFC 9113): a request is a stream of a connection that others share.
//!
//! h2 speaks it. A [`Connection`] is a task of the worker, which h2 needs to read and write for all streams; a
//! [`Stream`] is polled by its request's task and wakes that directly, as an HTTP/1.1 connection does.

mod connection;
mod head;
mod pool;
mod sending;

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Frame, SizeHint};

pub use self::{connection::Connection, pool::Pool};
use self::{connection::Shared, sending::Sending};
use super::{
    Target,
    http1::{Broken, Failed, Head, MAX_INTERIM, Malformed, Outgoing, Switch, may_trail},
};
use crate::{net::StreamIo, proxy::RequestBody};

/// One request and its answer. Dropping it before its end takes the request back (RST_STREAM).
pub struct Stream {
    shared: Rc<Shared>,
    sender: SendRequest<Bytes>,
    /// Of a connection that had answered before.
    proven: bool,
    request: Option<(Request<()>, RequestBody)>,
    opening: Opening,
    sending: Sending,
    /// What is sent on a stream that is opened to something else than an answer.
    outward: Option<SendStream<Bytes>>,
    answer: Option<ResponseFuture>,
    body: Option<RecvStream>,
    size: Option<u64>,
    interim: u8,
    /// The target says that it did nothing with the request.
    refused: bool,
    /// It was told that something went wrong; else who drops it lost patience.
    failed: bool,
    ended: bool,
}

/// What the stream is to be opened to.
enum Opening {
    /// It is a request.
    No,
    /// A WebSocket, and the answer to its key.
    Asked(HeaderValue),
    /// To something that HTTP/2 does not have.
    Unknown,
}

impl Stream {
    fn new(connection: &Connection) -> Self {
        connection.shared.enter();
        Stream {
            shared: connection.shared.clone(),
            sender: connection.sender(),
            proven: connection.shared.proven.get(),
            request: None,
            opening: Opening::No,
            sending: Sending::default(),
            outward: None,
            answer: None,
            body: None,
            size: None,
            interim: 0,
            refused: false,
            failed: false,
            ended: false,
        }
    }

    pub fn target(&self) -> &Arc<Target> {
        self.shared.gauge.target()
    }

    /// Whether its connection had answered before, and so may have been closed meanwhile, as is its right.
    pub fn proven(&self) -> bool {
        self.proven
    }

    pub fn begin(&mut self, request: &Outgoing, body: RequestBody, scheme: &'static str) {
        let address = &self.target().name;
        let head = match &request.switch {
            Switch::Upgrade(protocol) => match protocol.as_bytes().eq_ignore_ascii_case(b"websocket") {
                true => head::websocket(request, scheme, address).map(|(head, accept)| {
                    self.opening = Opening::Asked(accept);
                    head
                }),
                false => {
                    self.opening = Opening::Unknown;
                    None
                }
            },
            Switch::No | Switch::Trailers => head::request(request, scheme, address),
        };
        self.request = head.map(|head| (head, body));
    }

    /// Sends the request and waits for its answer's head. The body may go on being sent while the answer comes.
    /// `interim` is shown 1xx answers.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut impl FnMut(Head),
    ) -> Poll<Result<Head, Failed>> {
        if self.answer.is_none() {
            ready!(self.poll_may_open(cx))?;
            let Some((request, body)) = self.request.take() else { return Poll::Ready(Err(Failed::Unfit)) };
            let opens = matches!(self.opening, Opening::Asked(_));
            match self.sender.send_request(request, body.is_empty() && !opens) {
                Ok((answer, sender)) if opens => {
                    self.answer = Some(answer);
                    self.outward = Some(sender);
                }
                Ok((answer, sender)) => {
                    self.answer = Some(answer);
                    self.sending.begin(sender, body);
                }
                Err(error) => {
                    self.sending.hold(body);
                    self.failed = true;
                    // The connection has just ended, and nothing of it is on its way; or h2 does not take it at all.
                    self.refused = error.is_io() || error.is_go_away() || error.is_reset();
                    let failed =
                        if self.refused { Failed::Closed { received: false } } else { Failed::Unfit };
                    return Poll::Ready(Err(failed));
                }
            }
        }
        if self.sending.poll(cx).is_err() {
            self.failed = true;
            return Poll::Ready(Err(Failed::Cut));
        }
        let Some(answer) = &mut self.answer else { return Poll::Pending };
        while let Poll::Ready(Some(Ok(hint))) = answer.poll_informational(cx) {
            self.interim += 1;
            match head::answer(hint) {
                Ok((head, ())) if self.interim <= MAX_INTERIM => interim(head),
                _ => return Poll::Ready(Err(self.malformed())),
            }
        }
        match ready!(std::pin::Pin::new(answer).poll(cx)) {
            Ok(response) => match head::answer(response) {
                Ok((mut head, body)) => {
                    self.shared.proven.set(true);
                    self.sending.forget();
                    self.open(&mut head);
                    self.size = length(&head.headers);
                    self.ended = body.is_end_stream();
                    self.body = Some(body);
                    Poll::Ready(Ok(head))
                }
                Err(Malformed) => Poll::Ready(Err(self.malformed())),
            },
            Err(error) => Poll::Ready(Err(self.fail(&error))),
        }
    }

    /// Whether the target opens streams to what the request asks for. Its settings say so (RFC 8441 section 3).
    fn poll_may_open(&self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        match self.opening {
            Opening::No => return Poll::Ready(Ok(())),
            Opening::Unknown => return Poll::Ready(Err(Failed::NoUpgrade)),
            Opening::Asked(_) => {}
        }
        if !self.sender.is_extended_connect_protocol_enabled() {
            ready!(self.shared.poll_greeted(cx));
        }
        // Whether the connection has ended meanwhile is found out when it is used.
        Poll::Ready(match self.sender.is_extended_connect_protocol_enabled() || self.shared.over() {
            true => Ok(()),
            false => Err(Failed::NoUpgrade),
        })
    }

    /// Makes the answer that opens the stream a 101.
    fn open(&mut self, head: &mut Head) {
        if let Opening::Asked(accept) = std::mem::replace(&mut self.opening, Opening::No) {
            match (head.status.is_success(), &mut self.outward) {
                (true, _) => head::opened(head, accept),
                (false, Some(outward)) => drop(outward.send_data(Bytes::new(), true)),
                (false, None) => {}
            }
        }
    }

    /// After a 101: what carries the bytes.
    pub fn into_upgraded(mut self) -> Option<StreamIo<Stream>> {
        let (send, recv) = (self.outward.take()?, self.body.take()?);
        self.ended = true;
        Some(StreamIo::new(send, recv, self))
    }

    fn malformed(&mut self) -> Failed {
        self.failed = true;
        Failed::Malformed
    }

    /// RFC 9113 section 8.7: what GOAWAY leaves out and REFUSED_STREAM ends was not looked at.
    fn fail(&mut self, error: &h2::Error) -> Failed {
        tracing::debug!(target = %self.target().name, %error, "HTTP/2 stream failed");
        self.failed = true;
        let by_target = error.is_remote();
        self.refused |= by_target && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
        match broken(error) {
            Broken::Malformed => Failed::Malformed,
            Broken::Closed => Failed::Closed { received: false },
        }
    }

    /// The body of a request that failed, if all of it is still there.
    pub fn take_unsent_body(&mut self) -> Option<RequestBody> {
        self.sending.take_body()
    }

    /// The target did nothing with the request.
    pub fn untouched(&self) -> bool {
        self.refused
    }

    /// The next frame of the answer's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.sending.poll(cx).is_err() {
            self.failed = true;
            return Poll::Ready(Some(Err(Broken::Closed)));
        }
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else { return Poll::Ready(None) };
        loop {
            match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The client has taken what came before. An error is one of the connection, which tells itself.
                    let _ = body.flow_control().release_capacity(data.len());
                    self.ended = body.is_end_stream();
                    if data.is_empty() && !self.ended {
                        continue;
                    }
                    self.size = self.size.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.break_off(&error)))),
                None => break,
            }
        }
        match ready!(body.poll_trailers(cx)) {
            Ok(trailers) => {
                self.ended = true;
                let trailers = trailers.map(clean).filter(|trailers| !trailers.is_empty());
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => Poll::Ready(Some(Err(self.break_off(&error)))),
        }
    }

    fn break_off(&mut self, error: &h2::Error) -> Broken {
        tracing::debug!(target = %self.target().name, %error, "HTTP/2 answer broke off");
        self.failed = true;
        broken(error)
    }

    pub fn body_ended(&self) -> bool {
        self.ended
    }

    pub fn body_size(&self) -> SizeHint {
        match (self.ended, self.size) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(size)) => SizeHint::with_exact(size),
            (false, None) => SizeHint::default(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.leave();
        if !self.ended && !self.failed && self.answer.is_some() {
            self.shared.doubt();
        }
    }
}

/// What h2 found out by itself is what the target should not have sent.
fn broken(error: &h2::Error) -> Broken {
    if error.is_library() { Broken::Malformed } else { Broken::Closed }
}

/// As [`head::answer`] made sure, there is one at most.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Without what may not stand in trailers.
fn clean(trailers: HeaderMap) -> HeaderMap {
    if trailers.keys().all(may_trail) {
        return trailers;
    }
    trailers
        .iter()
        .filter(|(name, _)| may_trail(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
