//! Waiting for what is to happen, never for time to pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

const POLL: Duration = Duration::from_millis(5);

/// Asks until it gets an answer; an error with the last question's failure when the time is over.
pub fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let answer = ask();
        if let Ok(Some(answer)) = answer {
            return Ok(answer);
        }
        if Instant::now() > end {
            match answer {
                Err(error) => return Err(error.context(format!("after {limit:?} still not: {what}"))),
                _ => bail!("after {limit:?} still not: {what}"),
            }
        }
        std::thread::sleep(POLL);
    }
}

/// Asks until it is so, for ten seconds at most.
pub fn eventually(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    within(Duration::from_secs(10), what, || Ok(ask()?.then_some(())))
}

/// Checks a time limit by what `once` measured, in microseconds by the gateway's own log: it never fires early, and within
/// 50 ms at least once in five times. A machine that others use too holds things up, but not every time.
pub fn fires(limit: Duration, mut once: impl FnMut(u32) -> Result<u64>) -> Result<()> {
    let mut all = Vec::new();
    for n in 0..5 {
        let took = Duration::from_micros(once(n)?);
        all.push(took);
        // The runtime's timer counts milliseconds.
        ensure!(took + Duration::from_millis(2) >= limit, "{took:?}, before {limit:?} were over");
        if took <= limit + Duration::from_millis(50) {
            return Ok(());
        }
    }
    bail!("{all:?} instead of {limit:?}")
}
