//! The gateway's own answers: RFC 9457 problem details that say why.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{body::ResponseBody, connection::ClientState, exchange::Exchange, grpc, own, real_ip};
use crate::{observe::Why, upstream::http1};

/// As [`response`], with another status, members of its own (RFC 9457 section 3.2) and header fields.
pub fn detailed(
    exchange: Exchange,
    why: Why,
    status: StatusCode,
    more: serde_json::Value,
    mut fields: HeaderMap,
) -> Response<ResponseBody> {
    if let Some(kind) = exchange.grpc() {
        return grpc::refuse(exchange, why, kind);
    }
    exchange.refuse_with(why, status);
    let mut body = serde_json::json!({ "type": why.name(), "title": why.title(), "status": status.as_u16() });
    if let (Some(body), serde_json::Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
        body.insert("why".into(), why.name().into());
        body.insert("id".into(), exchange.id().to_str().unwrap_or("-").into());
    }
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    own::last_answer(exchange, status, fields, Bytes::from(body.to_string()))
}

fn body(why: Why, id: &str) -> String {
    let (name, status) = (why.name(), why.status());
    // Every value is from a closed set or hexadecimal: nothing to escape. Joined rather than formatted: refusing has to
    // be cheap.
    [
        r#"{"type":""#,
        name,
        r#"","title":""#,
        why.title(),
        r#"","status":"#,
        status.as_str(),
        r#","why":""#,
        name,
        r#"","id":""#,
        id,
        r#""}"#,
    ]
    .concat()
}

/// Answers a request that was read.
pub fn response(exchange: Exchange, why: Why) -> Response<ResponseBody> {
    response_with(exchange, why, http1::spare())
}

/// As [`response`], with these fields too.
pub fn response_with(exchange: Exchange, why: Why, mut fields: HeaderMap) -> Response<ResponseBody> {
    if let Some(kind) = exchange.grpc() {
        return grpc::refuse(exchange, why, kind);
    }
    exchange.refuse(why);
    let body = Bytes::from(exchange.with_id(|id| body(why, id)));
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    own::last_answer(exchange, why.status(), fields, body)
}

/// Answers a request whose head could not be read, on the bare socket, and accounts for it. False if the client is gone.
pub async fn write_raw(stream: &mut (impl AsyncWrite + Unpin), state: &Rc<ClientState>, why: Why) -> bool {
    real_ip::forget(state);
    let exchange = Exchange::begin(state.clone(), None);
    exchange.refuse(why);
    let id = exchange.id();
    let id = id.to_str().unwrap_or("-");
    let body = body(why, id);
    let status = why.status();
    let text = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         x-request-id: {id}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or(""),
        body.len(),
    );
    exchange.add_bytes_out(body.len() as u64);
    exchange.complete();
    drop(exchange);
    let limit = state.listener.config.timeout.body;
    let writing = async {
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await
    };
    matches!(tokio::time::timeout(limit, writing).await, Ok(Ok(())))
}
