//! Writing to a socket the way that costs the kernel least.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// Up to this many bytes are copied together: for so few, one buffer and `send` are cheaper than `writev`.
const TOGETHER: usize = 2048;

thread_local! {
    /// Where small messages are put together; whatever the socket does not take is put together anew.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(TOGETHER));
}

/// Writes from several buffers. Returns how many bytes were taken.
pub fn write_slices(
    stream: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    if let [only] = slices {
        return stream.poll_write(cx, only);
    }
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    if total > TOGETHER {
        return stream.poll_write_vectored(cx, slices);
    }
    SCRATCH.with_borrow_mut(|together| {
        together.clear();
        slices.iter().for_each(|slice| together.extend_from_slice(slice));
        stream.poll_write(cx, together)
    })
}
