//! Reading from a socket into hyper's buffer, with the bytes shown: hyper-util's adapter hides it.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, ReadBuf};

/// Reads into hyper's buffer; `see` is shown what arrived (nothing: the peer has closed).
pub fn read_into(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    mut cursor: ReadBufCursor<'_>,
    see: impl FnOnce(&[u8]),
) -> Poll<io::Result<()>> {
    // SAFETY: tokio's `poll_read` writes initialised bytes only and reports them through `filled`; nothing here
    // de-initialises any.
    let spare: &mut [MaybeUninit<u8>] = unsafe { cursor.as_mut() };
    let mut buf = ReadBuf::uninit(spare);
    match Pin::new(stream).poll_read(cx, &mut buf) {
        Poll::Ready(Ok(())) => {
            see(buf.filled());
            let n = buf.filled().len();
            // SAFETY: exactly `n` bytes were filled, and so initialised, just above.
            unsafe { cursor.advance(n) };
            Poll::Ready(Ok(()))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}
