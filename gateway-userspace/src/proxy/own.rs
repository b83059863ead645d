//! Answers of the gateway's own, in place of an upstream's.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

use super::{body::ResponseBody, exchange::Exchange, headers::X_REQUEST_ID};

/// An answer with what every one of ours has. The exchange knows its status already.
pub fn answer(
    exchange: Exchange,
    status: StatusCode,
    fields: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    let id = exchange.id();
    let hsts = exchange.state.listener.hsts.clone();
    let mut response = Response::new(ResponseBody::own(body, exchange));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    *headers = fields;
    headers.insert(X_REQUEST_ID, id);
    headers.extend(hsts.map(|hsts| (header::STRICT_TRANSPORT_SECURITY, hsts)));
    response
}

/// As [`answer`]; where the request's body was not read the connection ends with it, and it says so.
pub fn last_answer(
    exchange: Exchange,
    status: StatusCode,
    mut fields: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    if exchange.state.body_unread.get() {
        fields.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    answer(exchange, status, fields, body)
}
