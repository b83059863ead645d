//! One request and its answer on a stream of a client's connection.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;

use crate::{
    hpack,
    net::StreamIo,
    proxy::{
        body::ResponseBody, connection::ClientState, handler, headers, incoming::Incoming, tunnel, websocket,
    },
};

/// Handles the request and writes its answer. Dropping this before its end resets the stream.
pub async fn serve(state: Rc<ClientState>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (mut head, frames) = request.into_parts();
    let head_only = head.method == Method::HEAD;
    // What comes on a stream that is opened by CONNECT is no body.
    let (body, frames) = match head.method == Method::CONNECT {
        true => (Incoming::None, Some(frames)),
        false => (Incoming::of_stream(frames, &head.headers, &state), None),
    };
    super::as_http1(&mut head);
    let response = {
        let mut handling = pin!(handler::handle(state.clone(), head, body));
        poll_fn(|cx| {
            let answer = handling.as_mut().poll(cx);
            for interim in state.interim.borrow_mut().drain(..) {
                // A stream that is over takes none, and tells so itself.
                let _ = respond.send_informational(interim);
            }
            match answer {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                // The client may take its request back.
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        })
        .await
    };
    let Some(response) = response else { return };
    let (mut head, body) = response.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6; hyper sees to it in HTTP/1.1.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head.headers.entry(header::DATE).or_insert_with(|| state.worker.date());
    if let (Some(frames), Some(tunnel)) = (frames, state.tunnel.take()) {
        websocket::opened(&mut head);
        if let Ok(stream) = respond.send_response(Response::from_parts(head, ()), false) {
            state.tunnelled.set(true);
            tunnel::run(tunnel, StreamIo::new(stream, frames, ()), Bytes::new()).await;
        }
        return;
    }
    hpack::spare_table(&mut head.headers);
    let ended = body.is_end_stream();
    if !ended && let Some(length) = body.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let last = ended || head_only;
    match respond.send_response(Response::from_parts(head, ()), last) {
        Ok(_) if last => {}
        Ok(stream) => write(body, stream).await,
        Err(error) => {
            tracing::debug!(%error, "cannot answer on a stream");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Writes an answer's body as the client takes it.
async fn write(mut body: ResponseBody, mut stream: SendStream<Bytes>) {
    let mut held = None;
    poll_fn(|cx| {
        loop {
            match poll_write(&mut body, &mut stream, &mut held, cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// One frame. False: there are no more. `held`: one that waits for the client's window, and whether it is the last.
fn poll_write(
    body: &mut ResponseBody,
    stream: &mut SendStream<Bytes>,
    held: &mut Option<(Bytes, bool)>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    if stream.poll_reset(cx).is_ready() {
        return Poll::Ready(false);
    }
    if held.is_some() {
        while stream.capacity() == 0 {
            let Some(Ok(_)) = ready!(stream.poll_capacity(cx)) else { return Poll::Ready(false) };
        }
    }
    if let Some((data, last)) = held.take() {
        return Poll::Ready(stream.send_data(data, last).is_ok() && !last);
    }
    let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
        Some(Ok(frame)) => frame,
        Some(Err(_)) => {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Poll::Ready(false);
        }
        None => {
            let _ = stream.send_data(Bytes::new(), true);
            return Poll::Ready(false);
        }
    };
    match frame.into_data() {
        Ok(data) if data.is_empty() => {
            let last = body.is_end_stream();
            Poll::Ready(stream.send_data(data, last).is_ok() && !last)
        }
        Ok(data) => {
            // One byte of room is enough to leave a whole piece with h2, which keeps it until there is room for the rest.
            // More would be taken from other streams before there is anything to send.
            stream.reserve_capacity(1);
            *held = Some((data, body.is_end_stream()));
            Poll::Ready(true)
        }
        Err(frame) => {
            stream.reserve_capacity(0);
            // Whether they went or not, nothing comes after them.
            let _ = stream.send_trailers(frame.into_trailers().unwrap_or_default());
            Poll::Ready(false)
        }
    }
}
