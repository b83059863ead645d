//! Who changed what by the admin API, or tried to: for each request that is more than a look a line in the process log,
//! and one of JSON in `admin.audit`.

use std::{
    fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::SystemTime,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use serde_json::{Value, json};

use super::peer::Peer;
use crate::{daemon::Control, observe::rfc3339};

pub async fn audit(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| *peer);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let answer = next.run(request).await;
    let (who, status) = (peer.map_or("unknown".into(), Peer::name), answer.status().as_u16());
    let pid = peer.and_then(Peer::pid).unwrap_or_default();
    tracing::info!(target: "audit", who, %method, path = uri.path(), status, pid, "admin API");
    let file = control.snapshot.load().config.admin.audit.clone();
    if let Some(file) = file {
        let line = line(peer, &who, &method, &uri, status);
        if let Err(error) = append(&file, &line) {
            tracing::error!("admin.audit: {}: {error}", file.display());
        }
    }
    answer
}

fn line(peer: Option<Peer>, who: &str, method: &Method, uri: &axum::http::Uri, status: u16) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut line = json!({ "ts": rfc3339(now.as_secs()), "who": who });
    if let Some(Peer::User { uid, pid }) = peer {
        line["uid"] = json!(uid);
        line["pid"] = json!(pid);
    }
    if let Some(Peer::Remote(address)) = peer {
        line["from"] = json!(address);
    }
    line["method"] = json!(method.as_str());
    line["path"] = json!(uri.path());
    if let Some(query) = uri.query() {
        line["query"] = json!(query);
    }
    line["status"] = json!(status);
    line["result"] = json!(if status < 400 { "done" } else { "refused" });
    line
}

/// Opened each time: it may have been moved away.
fn append(file: &Path, line: &Value) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o600).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())
}
