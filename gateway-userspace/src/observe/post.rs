//! A POST to a collector or a webhook: one connection each, within a time, and no more of the answer than is needed.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};

use crate::fetch::{FetchError, fetch};

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

/// What it was answered, if it was taken.
pub async fn post(url: &str, kind: &str, body: Vec<u8>) -> Result<Bytes, PostError> {
    let uri = check(url).map_err(PostError::Url)?;
    tokio::time::timeout(PATIENCE, exchange(&uri, kind, body)).await.map_err(|_| PostError::Late)?
}

async fn exchange(uri: &Uri, kind: &str, body: Vec<u8>) -> Result<Bytes, PostError> {
    let request = Request::post("/").header(header::CONTENT_TYPE, kind);
    let answer = fetch(uri, None, request, body.into(), ANSWER).await.map_err(|error| match error {
        // A secret may be in the path: only the host is ever told.
        FetchError::Connect(error) => {
            PostError::Connect(uri.host().unwrap_or_default().to_owned(), error.to_string())
        }
        FetchError::Broken(error) => PostError::Broken(error.to_string()),
    })?;
    let text = answer.body.unwrap_or_default();
    if answer.status.is_success() {
        return Ok(text);
    }
    let text: String = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).take(200).collect();
    Err(PostError::Status(answer.status.as_u16(), text))
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
