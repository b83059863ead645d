//! The time that buckets are kept in: nanoseconds since 1970 at which the process began, and then by the monotonic
//! clock. It never steps while the process runs, and another process on this host goes on with the same words.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

static ANCHOR: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), wall_ns()));

/// Now, for buckets.
#[inline]
pub fn now_ns() -> u64 {
    let (began, wall) = *ANCHOR;
    wall + u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX >> 1)
}

/// Now by the wall clock, for windows that begin with its minutes and days. POSIX time has no leap seconds: a day
/// is 86 400 s of it, and summer time does not concern UTC.
#[inline]
pub fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 1)
}
