//! What upstreams send.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Body as _;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::upstream::http1::{
    body::{Decoder, Framing},
    head::{Malformed, parse},
};

/// A head is whole at its end and not before, its lines end in CRLF, and its body's end is told in one way.
pub fn head(bytes: &[u8]) {
    let read = |bytes: &[u8]| parse(&Bytes::copy_from_slice(bytes), &Method::GET, HeaderMap::new());
    let Ok(Some((head, length))) = read(bytes) else { return };
    let text = &bytes[..length];
    for end in (0..length).filter(|at| *at < 64 || length - at < 64) {
        assert!(matches!(read(&bytes[..end]), Ok(None)), "read to {length}, and also to {end}");
    }
    let bare = text.iter().enumerate().any(|(at, byte)| *byte == b'\n' && !text[..at].ends_with(b"\r"));
    assert!(!bare, "a bare line feed");
    let named = |name: &str| head.headers.get_all(name).iter().count();
    assert!(named("content-length") + named("transfer-encoding") <= 1, "two lengths");
    match head.framing {
        Framing::Length(length) if length > 0 => {
            // Zeros may stand before it.
            let told = head.headers["content-length"].to_str().ok().and_then(|text| text.parse().ok());
            assert_eq!(told, Some(length))
        }
        Framing::Chunked => assert_eq!(named("transfer-encoding"), 1),
        Framing::Length(_) | Framing::UntilClose => {}
    }
}

/// What came out of a chunked body: its data, its trailers, how many bytes it took. `None`: it did not end.
type Read = Result<Option<(Vec<u8>, HeaderMap, usize)>, Malformed>;

fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut data, mut trailers, mut taken) = (Vec::new(), HeaderMap::new(), 0);
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while !input.is_empty() && !decoder.done() {
            let before = input.len();
            let frame = decoder.decode(&mut input)?;
            taken += before - input.len();
            match frame.map(http_body::Frame::into_data) {
                Some(Ok(bytes)) => data.extend_from_slice(&bytes),
                Some(Err(frame)) => trailers.extend(frame.into_trailers().ok().into_iter().flatten()),
                None => assert!(input.is_empty() || decoder.done(), "stuck"),
            }
        }
    }
    Ok(decoder.done().then_some((data, trailers, taken)))
}

/// Pieces change nothing, and hyper reads the same from what is taken here.
pub fn body(bytes: &[u8]) {
    let whole = decoded(std::iter::once(bytes));
    assert_eq!(whole, decoded(bytes.chunks(1)), "byte by byte");
    for at in (1..bytes.len()).step_by(bytes.len() / 16 + 1) {
        let (first, second) = bytes.split_at(at);
        assert_eq!(whole, decoded([first, second].into_iter()), "in two pieces at {at}");
    }
    if let Ok(Some((data, trailers, _))) = whole {
        let (theirs, end) = hyper_reads(bytes);
        assert!(end, "hyper does not see the end");
        assert_eq!(data, theirs, "hyper sees other data");
        assert!(trailers.iter().all(|(name, _)| !name.as_str().is_empty()));
    }
}

/// The same answer as hyper's client reads it: its data, and whether it ended well.
fn hyper_reads(body: &[u8]) -> (Vec<u8>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return (Vec::new(), false) };
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(body.len() + 1024);
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(ours)).await else {
            return (Vec::new(), false);
        };
        let asked = sender.send_request(http::Request::new(Empty::<Bytes>::new()));
        let (mut asked, mut connection) = (Box::pin(asked), Box::pin(connection));
        // The request must be out before its answer comes.
        let mut cx = Context::from_waker(Waker::noop());
        assert!(asked.as_mut().poll(&mut cx).is_pending());
        let _ = connection.as_mut().poll(&mut cx);
        let written = theirs.write_all(&[head, body].concat()).await;
        assert!(written.is_ok() && theirs.shutdown().await.is_ok());
        let answer = poll_fn(|cx| {
            let _ = connection.as_mut().poll(cx);
            asked.as_mut().poll(cx)
        });
        let Ok(answer) = answer.await else { return (Vec::new(), false) };
        let (mut body, mut data, mut over) = (answer.into_body(), Vec::new(), false);
        loop {
            let frame = poll_fn(|cx| {
                if !over {
                    over = connection.as_mut().poll(cx).is_ready();
                }
                Poll::Ready(match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(frame) => Some(frame),
                    Poll::Pending if over => None,
                    Poll::Pending => return Poll::Pending,
                })
            });
            match frame.await {
                Some(None) => return (data, true),
                Some(Some(Ok(frame))) => data.extend(frame.into_data().unwrap_or_default()),
                Some(Some(Err(_))) | None => return (data, false),
            }
        }
    })
}
