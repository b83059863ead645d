//! Answers that get a tag of their content, so that clients who have it already are told just that (RFC 9110
//! section 8.8.3). The body is held until it is whole: the tag stands before it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header, response};
use http_body::{Body, Frame, SizeHint};

use super::{
    body::{Cut, ResponseBody},
    exchange::Exchange,
    problem,
};
use crate::{
    cache::validators::{keep_of_not_modified, made_tag},
    policy::client_cache::Asked,
};

/// Gives an answer its tag, or says that the client has it already.
pub async fn tag(asked: &Asked<'_>, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut head, mut body) = response.into_parts();
    asked.control(head.status, &mut head.headers);
    let most = asked.policy.most;
    if !asked.wants_tag(head.status, &head.headers) || body.size_hint().lower() > most || !body.is_content() {
        return Response::from_parts(head, body);
    }
    let mut pieces = VecDeque::new();
    let mut length = 0;
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                length += data.len() as u64;
                pieces.push_back(data);
                if length > most {
                    let ahead = Ahead { pieces, rest: body };
                    return Response::from_parts(head, ResponseBody::Ahead(Box::new(ahead)));
                }
            }
            Some(Err(Cut(why))) => {
                return match body.into_exchange() {
                    Some(exchange) => problem::response(exchange, why),
                    None => Response::from_parts(head, ResponseBody::Nothing),
                };
            }
            None => break,
        }
    }
    let Some(exchange) = body.into_exchange() else {
        return Response::from_parts(head, ResponseBody::Nothing);
    };
    exchange.replace_bytes_out(length, 0);
    whole(asked, head, pieces, exchange)
}

fn whole(
    asked: &Asked<'_>,
    mut head: response::Parts,
    pieces: VecDeque<Bytes>,
    exchange: Exchange,
) -> Response<ResponseBody> {
    let tag = made_tag(&head.headers, pieces.iter());
    head.headers.insert(header::ETAG, tag);
    if asked.has(&head.headers) {
        exchange.answers(StatusCode::NOT_MODIFIED);
        head.status = StatusCode::NOT_MODIFIED;
        keep_of_not_modified(&mut head.headers);
        return Response::from_parts(head, ResponseBody::own(Bytes::new(), exchange));
    }
    let mut body = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| body.extend_from_slice(piece));
    Response::from_parts(head, ResponseBody::own(body.freeze(), exchange))
}

/// A body of which the beginning was read already.
pub struct Ahead {
    pieces: VecDeque<Bytes>,
    rest: ResponseBody,
}

impl Ahead {
    pub fn exchange(&self) -> Option<&Exchange> {
        self.rest.exchange()
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    pub fn ended(&self) -> bool {
        self.pieces.is_empty() && self.rest.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        let ahead: usize = self.pieces.iter().map(Bytes::len).sum();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + ahead as u64),
            None => SizeHint::default(),
        }
    }
}
