//! Answers out of the cache: whole, a part, or that the client has it already.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::StoredBody;
use crate::{
    cache::{
        Cache,
        entry::{Body, Entry},
        fill::{Draft, Reader},
        range::{Part, part},
        status::Status,
        validators::{self, Condition, condition},
    },
    observe::stats::CacheResult,
    proxy::{
        body::ResponseBody,
        exchange::Exchange,
        headers::{X_REQUEST_ID, remove_hop_by_hop},
    },
    upstream::http1,
};
use bytes::Bytes;
use std::time::{Duration, SystemTime};

pub const CACHE_STATUS: http::HeaderName = http::HeaderName::from_static("cache-status");

/// What was done, for the log, the metric and the client.
pub struct Done {
    pub result: CacheResult,
    pub status: Status,
}

impl Done {
    pub fn note(&self, cache: &Cache, exchange: &Exchange) {
        exchange.set_cache(self.result);
        cache.stats.count(exchange.state.worker.index, self.result);
    }
}

/// From what is stored. `request`: the client's fields. The request's body was not sent anywhere.
pub fn stored(entry: &Entry, request: &HeaderMap, done: &Done, exchange: Exchange) -> Response<ResponseBody> {
    let now = exchange.state.worker.wall_clock(exchange.started());
    let mut headers = copied(&entry.headers);
    let age = entry.terms.age_told(now);
    // One that came just now is no older than it says itself.
    if age > 0 || matches!(done.status, Status::Hit { .. }) {
        headers.insert(header::AGE, HeaderValue::from(age));
    }
    if entry.status == StatusCode::OK {
        if condition(request, &entry.headers) == Condition::NotModified {
            return not_modified(headers, done, exchange);
        }
        if let Some(range) = request.get(header::RANGE)
            && !exchange.is_head()
            && validators::if_range(request, &entry.headers)
        {
            match part(range.as_bytes(), entry.body.length) {
                Part::Whole => {}
                Part::Of(part) => {
                    let of = format!("bytes {}-{}/{}", part.start, part.end - 1, entry.body.length);
                    headers.extend(HeaderValue::try_from(of).ok().map(|of| (header::CONTENT_RANGE, of)));
                    let status = StatusCode::PARTIAL_CONTENT;
                    return body(
                        status,
                        headers,
                        &entry.body,
                        part.start,
                        part.end - part.start,
                        done,
                        exchange,
                    );
                }
                Part::Unsatisfiable => return unsatisfiable(entry, done, exchange),
            }
        }
    }
    body(entry.status, headers, &entry.body, 0, entry.body.length, done, exchange)
}

/// With room for what is added, in memory that was used before.
fn copied(fields: &HeaderMap) -> HeaderMap {
    const MORE: usize = 6;
    let mut headers = http1::spare();
    headers.reserve(fields.len() + MORE);
    fields.iter().for_each(|(name, value)| {
        headers.append(name.clone(), value.clone());
    });
    headers
}

fn body(
    status: StatusCode,
    mut headers: HeaderMap,
    body: &Body,
    start: u64,
    length: u64,
    done: &Done,
    exchange: Exchange,
) -> Response<ResponseBody> {
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if exchange.is_head() || length == 0 {
        return respond(status, headers, done, exchange, |exchange| {
            ResponseBody::own(Bytes::new(), exchange)
        });
    }
    respond(status, headers, done, exchange, |exchange| match &*body.pieces {
        // Both are within the piece.
        [one] => ResponseBody::own(one.slice(start as usize..(start + length) as usize), exchange),
        _ => ResponseBody::Stored(Box::new(StoredBody::of(body.pieces.clone(), start, length, exchange))),
    })
}

/// RFC 9110 section 15.4.5.
fn not_modified(mut headers: HeaderMap, done: &Done, exchange: Exchange) -> Response<ResponseBody> {
    validators::keep_of_not_modified(&mut headers);
    respond(StatusCode::NOT_MODIFIED, headers, done, exchange, |exchange| {
        exchange.complete();
        ResponseBody::own(Bytes::new(), exchange)
    })
}

/// RFC 9110 section 15.5.17.
fn unsatisfiable(entry: &Entry, done: &Done, exchange: Exchange) -> Response<ResponseBody> {
    let mut headers = HeaderMap::new();
    let of = HeaderValue::try_from(format!("bytes */{}", entry.body.length));
    headers.extend(of.ok().map(|of| (header::CONTENT_RANGE, of)));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    respond(StatusCode::RANGE_NOT_SATISFIABLE, headers, done, exchange, |exchange| {
        ResponseBody::own(Bytes::new(), exchange)
    })
}

/// From what is on its way. `idle`: how long nothing may come of it.
pub fn growing(
    draft: &Draft,
    reader: Reader,
    request: &HeaderMap,
    idle: Duration,
    done: &Done,
    exchange: Exchange,
) -> Response<ResponseBody> {
    let mut headers = draft.headers.clone();
    let age = draft.terms.age_told(SystemTime::now());
    if age > 0 {
        headers.insert(header::AGE, HeaderValue::from(age));
    }
    if draft.status == StatusCode::OK && condition(request, &headers) == Condition::NotModified {
        return not_modified(headers, done, exchange);
    }
    if exchange.is_head() {
        return respond(draft.status, headers, done, exchange, |exchange| {
            ResponseBody::own(Bytes::new(), exchange)
        });
    }
    respond(draft.status, headers, done, exchange, |exchange| {
        ResponseBody::Stored(Box::new(StoredBody::growing(reader, draft.length, idle, exchange)))
    })
}

/// Whether a client has what an upstream answers already: its conditions were not passed on.
pub fn has_it_already(request: &HeaderMap, status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK && condition(request, headers) == Condition::NotModified
}

/// In place of an answer that is not stored.
pub fn not_modified_instead(
    mut headers: HeaderMap,
    via: &HeaderValue,
    done: &Done,
    exchange: Exchange,
) -> Response<ResponseBody> {
    remove_hop_by_hop(&mut headers);
    headers.append(header::VIA, via.clone());
    not_modified(headers, done, exchange)
}

fn respond(
    status: StatusCode,
    mut headers: HeaderMap,
    done: &Done,
    exchange: Exchange,
    body: impl FnOnce(Exchange) -> ResponseBody,
) -> Response<ResponseBody> {
    exchange.answers(status);
    headers.insert(X_REQUEST_ID, exchange.id());
    headers.append(CACHE_STATUS, done.status.value());
    if let Some(hsts) = &exchange.state.listener.hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    let mut response = Response::new(body(exchange));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
