//! Asking for a URL as a client would, so that a cache has the answer.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    config::model::Bind,
    daemon::Control,
    fetch::{AGENT, addressed, ask_at},
    proxy::explain::{self, RequestSpec},
};

const PATIENCE: Duration = Duration::from_secs(50);

/// `{"url": "https://shop.test/items/1", "headers": [["accept-encoding", "gzip"]]}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

/// Answers `{"status": 200, "cache": "gateway; fwd=miss; stored"}`.
pub async fn warm(
    State(control): State<Arc<Control>>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let Wanted { url, headers } = wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?.0;
    let uri: Uri = url.parse().map_err(|error| Problem::bad_request(format!("the URL {url:?}: {error}")))?;
    let (addr, secure) = {
        let spec = RequestSpec {
            method: "GET".into(),
            url,
            headers: Vec::new(),
            from: None,
            listener: None,
            consumer: None,
        };
        let snapshot = control.snapshot.load();
        let listener = explain::listener(&snapshot, &spec, &uri).map_err(Problem::bad_request)?;
        if listener.config.proxy_protocol.is_some() {
            let name = &listener.name;
            let why = format!("the listener {name} takes connections with the PROXY protocol only");
            return Err(Problem::bad_request(why));
        }
        (reached_at(listener.config.bind), listener.tls.is_some())
    };
    let name = secure.then(|| uri.host().unwrap_or_default());
    let asked = tokio::time::timeout(PATIENCE, ask_at(addr, name, request(&uri, &headers)?)).await;
    let failed = |why: String| Problem::new(StatusCode::BAD_GATEWAY, "not_warmed", why);
    let answer = asked.map_err(|_| failed(format!("{uri}: no answer within {PATIENCE:?}")))?;
    let answer = answer.map_err(|error| failed(format!("{uri}: {error}")))?;
    let cache = answer.headers.get("cache-status").and_then(|status| status.to_str().ok());
    Ok(Json(json!({ "status": answer.status.as_u16(), "cache": cache })))
}

fn reached_at(bind: Bind) -> SocketAddr {
    match bind {
        Bind::Any(port) => (Ipv4Addr::LOCALHOST, port).into(),
        Bind::Addr(addr) if !addr.ip().is_unspecified() => addr,
        Bind::Addr(SocketAddr::V4(addr)) => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        Bind::Addr(SocketAddr::V6(addr)) => (Ipv6Addr::LOCALHOST, addr.port()).into(),
    }
}

fn request(uri: &Uri, headers: &[(String, String)]) -> Result<Request<Full<Bytes>>, Problem> {
    let mut request = addressed(Request::builder(), uri);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        request = request.header(header::USER_AGENT, AGENT);
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Full::default()).map_err(|error| Problem::bad_request(format!("the header: {error}")))
}
