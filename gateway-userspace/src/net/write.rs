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
    match together(slices, |bytes| Pin::new(&mut *stream).poll_write(cx, bytes)) {
        Some(result) => result,
        None => Pin::new(stream).poll_write_vectored(cx, slices),
    }
}

/// Shows what is in several buffers as one, if it is one or little.
pub fn together<R>(slices: &[IoSlice<'_>], show: impl FnOnce(&[u8]) -> R) -> Option<R> {
    if let [only] = slices {
        return Some(show(only));
    }
    if slices.iter().map(|slice| slice.len()).sum::<usize>() > TOGETHER {
        return None;
    }
    Some(SCRATCH.with_borrow_mut(|together| {
        together.clear();
        slices.iter().for_each(|slice| together.extend_from_slice(slice));
        show(together)
    }))
}
