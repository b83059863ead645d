//! Requests that ask with a body: GET with one, and POST and QUERY where the config says that they only ask.

use bytes::Bytes;
use http::{Method, header, request};
use http_body::Body;

use crate::{
    cache::Cache,
    observe::Why,
    policy::Policies,
    proxy::{body::Sent, exchange::Exchange, incoming::Incoming, policed::Way},
};

/// Whether the body, if there is one, can be a part of the key.
pub fn fits(policies: &Policies, cache: &Cache, method: &Method, body: &Incoming) -> bool {
    if body.is_end_stream() {
        return true;
    }
    // A shadow gets a body while it passes.
    cache.parts.has_body()
        && *method != Method::HEAD
        && policies.mirror.is_none()
        && body.size_hint().exact().is_some_and(|length| length <= cache.config.max_request)
}

/// All of it: no more than [`fits`] says.
///
/// # Errors
/// It does not come.
pub async fn read(way: &Way<'_>, exchange: &Exchange, body: Sent) -> Result<Bytes, Why> {
    let state = &exchange.state;
    let first_byte = way.route.upstream.as_ref().map(|upstream| way.route.first_byte(upstream));
    let body = body.into_upstream(state, first_byte.unwrap_or_default());
    body.whole(state, u64::MAX).await
}

/// What it asks for, beside what the URL says.
pub fn hash(head: &request::Parts, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    part(head.method.as_str().as_bytes());
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
        let lines: Vec<&[u8]> = head.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        part(&lines.join(&b'\n'));
    }
    part(body);
    *hasher.finalize().as_bytes()
}
