//! Milliseconds since the process first asked: small enough for atomics, the same for all threads.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Never 0, which stands for "not at all".
pub fn now_ms() -> u64 {
    millis(START.elapsed()).max(1)
}

pub fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
