//! One request to a server that is no upstream: a collector of traces, a webhook, an issuer of keys. A connection each; the
//! caller sets the time.

use std::{io, net::SocketAddr, path::Path};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header, request, response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    config::model::{TlsVersion, UpstreamTls},
    tls::Connector,
};

/// What the gateway calls itself.
pub const AGENT: &str = concat!("gateway/", env!("CARGO_PKG_VERSION"));

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("{0}")]
    Broken(io::Error),
}

pub struct Answer {
    pub status: StatusCode,
    /// An error: it broke off, or is longer than what was wanted.
    pub body: io::Result<Bytes>,
}

/// `uri`: http or https. `ca`: whom to trust in place of those whom the system trusts. `most`: bytes of the answer.
/// Redirects are not followed: where to is for the config to say.
pub async fn fetch(
    uri: &Uri,
    ca: Option<&Path>,
    request: request::Builder,
    body: Bytes,
    most: usize,
) -> Result<Answer, FetchError> {
    let request = addressed(request, uri)
        .header(header::USER_AGENT, AGENT)
        .body(Full::new(body))
        .map_err(|error| FetchError::Broken(io::Error::other(error)))?;
    let secure = uri.scheme_str() == Some("https");
    let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let (stream, addr) = connect(name, port).await.map_err(FetchError::Connect)?;
    let read = async |answer: Response<Incoming>| {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), most).collect().await;
        Ok(Answer { status, body: body.map(|body| body.to_bytes()).map_err(io::Error::other) })
    };
    let tls = secure.then(|| tls(name, ca, true));
    over(stream, addr, tls, request, read).await
}

/// To what a URI names, on a connection that is used once.
pub fn addressed(request: request::Builder, uri: &Uri) -> request::Builder {
    request
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::CONNECTION, "close")
}

fn tls(name: &str, ca: Option<&Path>, verify: bool) -> UpstreamTls {
    UpstreamTls {
        sni: Some(name.to_owned()),
        ca: ca.map(Path::to_owned),
        cert: None,
        verify,
        min: TlsVersion::V12,
    }
}

/// Asks whoever is at this address; `secure`: by TLS, under this name, whatever the certificate says. What comes behind the
/// answer's head is read to its end and not kept.
pub async fn ask_at(
    addr: SocketAddr,
    secure: Option<&str>,
    request: Request<Full<Bytes>>,
) -> Result<response::Parts, FetchError> {
    let stream = TcpStream::connect(addr).await.map_err(FetchError::Connect)?;
    let read = async |answer: Response<Incoming>| {
        let (head, mut body) = answer.into_parts();
        while let Some(frame) = body.frame().await {
            frame.map_err(io::Error::other)?;
        }
        Ok(head)
    };
    over(stream, addr, secure.map(|name| tls(name, None, false)), request, read).await
}

async fn connect(name: &str, port: u16) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in tokio::net::lookup_host((name, port)).await? {
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok((stream, addr)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One exchange; `tls`: after a handshake.
async fn over<T, R: Future<Output = io::Result<T>>>(
    stream: TcpStream,
    addr: SocketAddr,
    tls: Option<UpstreamTls>,
    request: Request<Full<Bytes>>,
    read: impl FnOnce(Response<Incoming>) -> R,
) -> Result<T, FetchError> {
    let Some(tls) = tls else {
        return exchange(stream, request, read).await.map_err(FetchError::Broken);
    };
    let connector =
        Connector::new(&tls, None, None).map_err(|error| FetchError::Connect(io::Error::other(error)))?;
    let stream = connector.connect(stream, addr, &[b"http/1.1"]).await.map_err(FetchError::Connect)?;
    exchange(stream, request, read).await.map_err(FetchError::Broken)
}

async fn exchange<T, R: Future<Output = io::Result<T>>>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    read: impl FnOnce(Response<Incoming>) -> R,
) -> io::Result<T> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answer = async { read(sender.send_request(request).await.map_err(io::Error::other)?).await };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // It may end before the answer was taken from it.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}
