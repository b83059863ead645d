//! Requests that change things: what they change is no longer stored.

use std::sync::Arc;

use http::{Method, Response, Uri, header, request};

use super::{consumer, past, text};
use crate::{
    cache::{Cache, key, status::Forward},
    proxy::{
        body::{ResponseBody, Sent},
        exchange::Exchange,
        policed::Way,
    },
};

/// Another method: what it changes is no longer stored (RFC 9111 section 4.4).
pub(super) async fn change(
    way: Way<'_>,
    cache: &Arc<Cache>,
    exchange: Exchange,
    head: request::Parts,
    body: Sent,
) -> Response<ResponseBody> {
    if matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return past(way, cache, Forward::Method, exchange, head, body).await;
    }
    let (uri, headers) = (head.uri.clone(), head.headers.clone());
    let (client, consumer) = (exchange.state.kept_client(), consumer(&exchange));
    let response = past(way, cache, Forward::Method, exchange, head, body).await;
    if !response.status().is_success() && !response.status().is_redirection() {
        return response;
    }
    let host = text(&headers, header::HOST);
    let asked = key::Asked {
        scheme: client.scheme,
        forwarded_host: client.told.as_ref().and_then(|told| told.host.as_deref()),
        host,
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
        consumer: consumer.as_deref(),
        body: None,
    };
    cache.invalidate(&asked);
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(other) = same_origin(text(response.headers(), name), host, uri.path()) {
            cache.invalidate(&key::Asked { path: other.path(), query: other.query(), ..asked });
        }
    }
    response
}

/// A reference to the same host, resolved as far as servers use it.
fn same_origin(reference: &str, host: &str, base: &str) -> Option<Uri> {
    if reference.is_empty() || reference.starts_with("//") {
        return None;
    }
    if reference.starts_with('/') {
        return reference.parse().ok();
    }
    if !reference.contains("://") {
        let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
        return format!("{folder}/{reference}").parse().ok();
    }
    let uri: Uri = reference.parse().ok()?;
    uri.authority().is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host)).then_some(uri)
}
