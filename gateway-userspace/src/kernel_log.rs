//! Sampled drops from the kernel half, into the process log.

use std::sync::Arc;

use crate::daemon::Control;

/// At most this many a second are logged, whatever the kernel half samples.
const PER_SECOND: usize = 10;

/// Forwards samples for as long as the daemon runs.
pub async fn forward(control: Arc<Control>) {
    let mut every = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        every.tick().await;
        let samples = control.kernel.samples();
        let left_out = samples.len().saturating_sub(PER_SECOND);
        for sample in samples.into_iter().take(PER_SECOND) {
            tracing::debug!(sample = %serde_json::to_string(&sample).unwrap_or_default(), "dropped in the kernel");
        }
        if left_out > 0 {
            tracing::debug!(left_out, "more samples of dropped packets");
        }
    }
}
