//! Sampled drops from the kernel half, into the process log and to whoever observes.

use std::{sync::Arc, time::Duration};

use crate::{daemon::Control, observe::events};

/// At most this many a second are logged and remembered, whatever the kernel half samples.
const PER_SECOND: usize = 10;
/// How soon somebody who observes is shown a drop.
const SOON: Duration = Duration::from_millis(100);

/// Forwards samples for as long as the daemon runs.
pub async fn forward(control: Arc<Control>) {
    let mut left = PER_SECOND;
    let mut left_out = 0;
    let mut second = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(if events::listening() { SOON } else { Duration::from_secs(1) }).await;
        if second.elapsed() >= Duration::from_secs(1) {
            if left_out > 0 {
                tracing::debug!(left_out, "more samples of dropped packets");
            }
            (left, left_out, second) = (PER_SECOND, 0, tokio::time::Instant::now());
        }
        let listening = events::listening();
        for sample in control.kernel.samples() {
            if left == 0 {
                left_out += 1;
            } else {
                left -= 1;
                tracing::debug!(sample = %serde_json::to_string(&sample).unwrap_or_default(), "dropped in the kernel");
            }
            if listening || left > 0 {
                events::tell("drop", serde_json::to_value(&sample).unwrap_or_default());
            }
        }
    }
}
