//! A POST to a collector or a webhook: one connection each, within a time, and no more of the answer than is needed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::tls;

const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are looked at.
const ANSWER: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("no such place: {0}")]
    Url(String),
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    #[error("no answer: {0}")]
    Broken(String),
    #[error("no answer within {PATIENCE:?}")]
    Late,
    #[error("answered {0}: {1}")]
    Status(u16, String),
}

impl PostError {
    /// Whether the same may do later (RFC 9110 section 15.6, and OTLP's list of what to try again).
    pub fn passes(&self) -> bool {
        match self {
            PostError::Status(status, _) => matches!(status, 408 | 429 | 500..),
            PostError::Url(_) => false,
            _ => true,
        }
    }
}

/// Whether it is a place to post to: says what is wrong with another.
pub fn check(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err("it does not begin with http:// or https:// and a host".into()),
    }
}

pub async fn post(url: &str, kind: &str, body: Vec<u8>) -> Result<(), PostError> {
    let uri = check(url).map_err(PostError::Url)?;
    tokio::time::timeout(PATIENCE, exchange(&uri, kind, body)).await.map_err(|_| PostError::Late)?
}

async fn exchange(uri: &Uri, kind: &str, body: Vec<u8>) -> Result<(), PostError> {
    let host = uri.host().unwrap_or_default();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    // A secret may be in the path: only the host is ever told.
    let failed = |error: &dyn std::fmt::Display| PostError::Connect(host.to_owned(), error.to_string());
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| failed(&error))?;
    if !secure {
        return send(stream, uri, kind, body).await;
    }
    let roots = tls::of_the_system().map_err(|error| failed(&error))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    send(stream.map_err(|error| failed(&error))?, uri, kind, body).await
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
    kind: &str,
    body: Vec<u8>,
) -> Result<(), PostError> {
    let broken = |error: &dyn std::fmt::Display| PostError::Broken(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header("host", uri.authority().map_or("", |authority| authority.as_str()))
        .header("content-type", kind)
        .header("user-agent", concat!("gateway/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let text = Limited::new(response.into_body(), ANSWER).collect().await;
    connection.abort();
    if status.is_success() {
        return Ok(());
    }
    let text = text.map(|body| body.to_bytes()).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).take(200).collect();
    Err(PostError::Status(status.as_u16(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_http_or_https_with_a_host() {
        assert!(check("http://127.0.0.1:4318/v1/traces").is_ok() && check("https://[::1]/x?y").is_ok());
        for wrong in ["127.0.0.1:4318", "ftp://a/", "http://", "a", "", "http:///x"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
