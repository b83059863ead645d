//! Reading from a tokio socket into hyper's buffer, with the number of bytes told: hyper-util's adapter hides it.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::ReadBufCursor;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

/// Reads into hyper's buffer. Returns how many bytes arrived.
pub fn read_into(stream: &mut TcpStream, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<usize>> {
    // SAFETY: tokio's `poll_read` writes initialised bytes only and reports them through `filled`; nothing here
    // de-initialises any.
    let spare: &mut [MaybeUninit<u8>] = unsafe { cursor.as_mut() };
    let mut buf = ReadBuf::uninit(spare);
    match Pin::new(stream).poll_read(cx, &mut buf) {
        Poll::Ready(Ok(())) => {
            let n = buf.filled().len();
            // SAFETY: exactly `n` bytes were filled, and so initialised, just above.
            unsafe { cursor.advance(n) };
            Poll::Ready(Ok(n))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}
