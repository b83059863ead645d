//! Checks by HTTP/2.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use h2::client;
use http::{HeaderMap, Request, Response, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{AGENT, Failure, Probed};
use crate::upstream::{http1::MAX_HEAD, link::Raw};

/// The status of a GET.
pub async fn get(raw: Raw, target: &Probed<'_>, path: &str) -> Result<u16, Failure> {
    let request = Request::get(uri(target, path)?).header(header::USER_AGENT, AGENT).body(())?;
    Ok(ask(raw, request, None).await?.head.status().as_u16())
}

pub fn uri(target: &Probed<'_>, path: &str) -> Result<Uri, Failure> {
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    Ok(Uri::builder().scheme(scheme).authority(target.name).path_and_query(path).build()?)
}

/// What came back. Of a longer body only the beginning, and no trailers then.
pub struct Answer {
    pub head: Response<()>,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

/// Sends a request on a connection of its own.
pub async fn ask(raw: Raw, request: Request<()>, body: Option<Bytes>) -> Result<Answer, Failure> {
    match raw {
        Raw::Plain(stream) => on(stream, request, body).await,
        Raw::Tls(stream, _) => on(stream, request, body).await,
    }
}

async fn on<S>(stream: S, request: Request<()>, body: Option<Bytes>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, mut connection) = client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEAD as u32)
        .handshake::<_, Bytes>(stream)
        .await?;
    let exchange = async {
        let (answer, mut sending) = sender.ready().await?.send_request(request, body.is_none())?;
        if let Some(body) = body {
            sending.send_data(body, true)?;
        }
        let (head, mut body) = answer.await?.into_parts();
        let head = Response::from_parts(head, ());
        Ok(match body.data().await.transpose()? {
            Some(body) => Answer { head, body, trailers: HeaderMap::new() },
            None => Answer { head, body: Bytes::new(), trailers: body.trailers().await?.unwrap_or_default() },
        })
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection has to be polled for the answer to come, and may well end together with it.
    let mut ended = false;
    poll_fn(|cx| {
        ended = ended || std::pin::Pin::new(&mut connection).poll(cx).is_ready();
        match exchange.as_mut().poll(cx) {
            Poll::Pending if ended => Poll::Ready(Err("it closed the connection".into())),
            other => other,
        }
    })
    .await
}
