//! The time that buckets are kept in: nanoseconds since 1970 at which the process began, and then by the monotonic
//! clock. It never steps while the process runs, and another process on this host goes on with the same words.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

static ANCHOR: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), wall_ns()));

/// Now, for buckets.
#[inline]
pub fn now_ns() -> u64 {
    at_ns(Instant::now())
}

/// A moment, for buckets.
#[inline]
pub fn at_ns(instant: Instant) -> u64 {
    let (began, wall) = *ANCHOR;
    wall + ns(instant.saturating_duration_since(began))
}

/// Now by the wall clock, for windows that begin with its minutes and days. POSIX time has no leap seconds: a day
/// is 86 400 s of it, and summer time does not concern UTC.
#[inline]
pub fn wall_ns() -> u64 {
    ns(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// By how much the wall clock is ahead of the other, modulo 2^64.
pub fn wall_ahead() -> u64 {
    wall_ns().wrapping_sub(now_ns())
}

#[inline]
fn ns(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}
