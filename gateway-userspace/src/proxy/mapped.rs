//! Bodies of JSON that are changed on their way (`rewrite.json`): held until they are whole, and passed on as others.

use std::{future::poll_fn, pin::Pin};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, response};
use http_body::Body;

use super::{
    body::{Cut, RequestBody, ResponseBody},
    exchange::Exchange,
    problem,
};
use crate::{
    observe::Why,
    policy::{
        compress::{OF_THE_BYTES, decode, weaken},
        json::{Checker, Refused, is_json},
        json_map::{Filled, LIMITS},
    },
    request::media_type,
    upstream::http1::Outgoing,
};

/// The request's body as it is to be, with a head that fits.
pub async fn request(
    map: &Filled<'_>,
    exchange: &Exchange,
    request: &mut Outgoing,
    body: RequestBody,
) -> Result<RequestBody, Why> {
    if body.is_empty() {
        return Ok(body);
    }
    let is_json = Checker::of(LIMITS, &request.head).map_err(|Refused| Why::ContentType)?;
    if is_json.is_none() {
        return Ok(body);
    }
    let most = map.map.most as u64;
    if body.size_hint().lower() > most {
        return Err(Why::BodyTooLarge);
    }
    let whole = body.whole(&exchange.state, most).await?;
    // One of chunks of which none came.
    if whole.is_empty() {
        return Ok(RequestBody::Empty);
    }
    Ok(RequestBody::kept(changed(map, request, &whole)?))
}

/// A copy's body as it is to be, with a head that fits. `None`: what came cannot be changed so.
pub fn copy(map: &Filled<'_>, request: &mut Outgoing, body: Bytes) -> Option<Bytes> {
    if Checker::of(LIMITS, &request.head).ok()?.is_none() || body.is_empty() {
        return Some(body);
    }
    if body.len() > map.map.most { None } else { changed(map, request, &body).ok() }
}

fn changed(map: &Filled<'_>, request: &mut Outgoing, whole: &[u8]) -> Result<Bytes, Why> {
    let changed = map.apply(whole).map_err(|Refused| Why::Json)?;
    let headers = &mut request.head.headers;
    OF_THE_BYTES.iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(changed.len()));
    Ok(changed.into())
}

/// A part of an answer cannot be changed: all of it is asked for.
pub fn ask_for_whole(headers: &mut HeaderMap) {
    headers.remove(header::RANGE);
    headers.remove(header::IF_RANGE);
}

/// An upstream's answer as it is to be.
pub async fn response(map: &Filled<'_>, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    let Some(exchange) = body.exchange() else { return Response::from_parts(head, body) };
    if exchange.is_refused() || !may_be_json(&head) {
        return Response::from_parts(head, body);
    }
    if exchange.is_head() || body.is_end_stream() {
        fit(map, &mut head.headers);
        return Response::from_parts(head, body);
    }
    if head.status == StatusCode::PARTIAL_CONTENT {
        return refuse(head, body, Why::UpstreamJson);
    }
    let most = map.map.most as u64;
    let (whole, body) = match whole(body, most).await {
        (Ok(whole), body) => (whole, body),
        (Err(why), body) => return refuse(head, body, why),
    };
    let changed = decode(&head.headers, &whole, most).and_then(|plain| map.apply(&plain).ok());
    let Some(changed) = changed else { return refuse(head, body, Why::UpstreamJson) };
    let Some(exchange) = body.into_exchange() else {
        return Response::from_parts(head, ResponseBody::Nothing);
    };
    exchange.replace_bytes_out(whole.len() as u64, 0);
    fit(map, &mut head.headers);
    head.headers.remove(header::CONTENT_ENCODING);
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(changed.len()));
    Response::from_parts(head, ResponseBody::own(Bytes::from(changed), exchange))
}

/// What tells of the bytes tells of others; a tag stands for what is made of those in the same way, or for nothing.
fn fit(map: &Filled<'_>, headers: &mut HeaderMap) {
    OF_THE_BYTES.iter().for_each(|name| drop(headers.remove(name)));
    headers.remove(header::TRAILER);
    match map.map.varies() {
        true => {
            headers.remove(header::ETAG);
            headers.remove(header::LAST_MODIFIED);
        }
        false => weaken(headers),
    }
}

/// By its type; of what a client has already that is not always told.
fn may_be_json(head: &response::Parts) -> bool {
    let Some(kind) = head.headers.get(header::CONTENT_TYPE) else {
        return head.status == StatusCode::NOT_MODIFIED;
    };
    is_json(&media_type(kind.to_str().unwrap_or_default()))
}

/// All of a body, if it comes and is no longer than `most`; and what is left of it.
async fn whole(mut body: ResponseBody, most: u64) -> (Result<BytesMut, Why>, ResponseBody) {
    let mut whole = BytesMut::new();
    if body.size_hint().lower() > most {
        return (Err(Why::UpstreamJson), body);
    }
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => whole.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Some(Err(Cut(why))) => return (Err(why), body),
            None => return (Ok(whole), body),
        }
        if whole.len() as u64 > most {
            return (Err(Why::UpstreamJson), body);
        }
    }
}

fn refuse(head: response::Parts, body: ResponseBody, why: Why) -> Response<ResponseBody> {
    match body.into_exchange() {
        Some(exchange) => problem::response(exchange, why),
        None => Response::from_parts(head, ResponseBody::Nothing),
    }
}
