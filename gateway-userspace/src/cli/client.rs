//! Asking the running gateway over its admin socket.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::{Error, Global};

/// Long enough for a drain of the largest config's load.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn get(global: &Global, path: &str) -> Result<Value, Error> {
    send(global, Method::GET, path, String::new())
}

pub fn post(global: &Global, path: &str, body: Option<Value>) -> Result<Value, Error> {
    send(global, Method::POST, path, body.map(|body| body.to_string()).unwrap_or_default())
}

pub fn delete(global: &Global, path: &str) -> Result<Value, Error> {
    send(global, Method::DELETE, path, String::new())
}

/// POSTs what may take `patience`.
pub fn post_within(global: &Global, path: &str, body: Value, patience: Duration) -> Result<Value, Error> {
    send_within(global, Method::POST, path, body.to_string(), patience)
}

/// Sends `body` and waits for the answer; a refusal is an error.
pub fn send(global: &Global, method: Method, path: &str, body: String) -> Result<Value, Error> {
    send_within(global, method, path, body, PATIENCE)
}

fn send_within(
    global: &Global,
    method: Method,
    path: &str,
    body: String,
    patience: Duration,
) -> Result<Value, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Other(format!("cannot start a runtime: {error}")))?;
    let exchange = exchange(global, method, path, body);
    runtime
        .block_on(async { tokio::time::timeout(patience, exchange).await })
        .map_err(|_| Error::Other(format!("the gateway did not answer within {patience:?}")))?
}

/// GETs what may never end: hands `each` every piece as it comes, until it returns false.
pub fn stream(global: &Global, path: &str, mut each: impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Other(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(async {
        let response = respond(global, Method::GET, path, String::new()).await?;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
            let problem = serde_json::from_slice(&body).unwrap_or(Value::Null);
            return Err(refusal(status, &problem, &body));
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data()
                && !each(&data)
            {
                break;
            }
        }
        Ok(())
    })
}

fn broken(error: hyper::Error) -> Error {
    Error::Other(format!("the gateway broke off: {error}"))
}

async fn exchange(global: &Global, method: Method, path: &str, body: String) -> Result<Value, Error> {
    let response = respond(global, method, path, body).await?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
    let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status.is_success() { Ok(value) } else { Err(refusal(status, &value, &body)) }
}

async fn respond(
    global: &Global,
    method: Method,
    path: &str,
    body: String,
) -> Result<http::Response<hyper::body::Incoming>, Error> {
    let socket = global.socket();
    let stream = UnixStream::connect(&socket).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Privilege(format!(
            "no permission to use {}\n  hint: run as root, or as a member of the socket's group",
            socket.display()
        )),
        _ => Error::NotRunning { socket: socket.display().to_string(), error: error.to_string() },
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "gateway")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Error::Usage(format!("cannot ask for {path}: {error}")))?;
    sender.send_request(request).await.map_err(broken)
}

fn refusal(status: StatusCode, problem: &Value, body: &[u8]) -> Error {
    let detail = problem["detail"].as_str().map(str::to_owned);
    let detail = detail.unwrap_or_else(|| format!("{status}: {}", String::from_utf8_lossy(body)));
    if problem["type"] == "bad_config" {
        return Error::Refused(format!("the config is bad, the old one stays\n{detail}"));
    }
    Error::Refused(detail)
}
