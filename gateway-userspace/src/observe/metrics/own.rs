//! The gateway itself: its config, what it tells others, its workers, its process.

use std::{sync::atomic::Ordering::Relaxed, time::SystemTime};

use super::{page::Page, registry};
use crate::{
    daemon::Control,
    observe::{process, trace},
};

pub fn all(control: &Control, page: &mut Page<'_>) {
    config(control, page);
    told(control, page);
    let help = "The share of the last ten seconds that a worker was busy";
    page.gauges("worker_busy_ratio", help, |of| {
        for (index, ratio) in control.workers.busy_ratios().into_iter().enumerate() {
            of.value(&[("worker", &index.to_string())], ratio);
        }
    });
    page.gauges("build_info", "1, with what is running", |of| {
        of.flag(&[("version", env!("CARGO_PKG_VERSION")), ("commit", crate::COMMIT)], true);
    });
    process(control, page);
}

fn since_epoch(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn config(control: &Control, page: &mut Page<'_>) {
    let state = control.state();
    let generation = control.snapshot.load().generation;
    page.gauges("config_generation", "Configs taken since start", |of| of.count(&[], generation));
    page.counters("config_reloads_total", "Reloads by result", |of| {
        of.count(&[("result", "ok")], state.reloads_ok);
        of.count(&[("result", "error")], state.reloads_failed);
    });
    page.gauges("config_last_success_timestamp_seconds", "When a config was last taken", |of| {
        of.value(&[], since_epoch(state.last_success));
    });
}

/// Alerts, lines of the log and spans.
fn told(control: &Control, page: &mut Page<'_>) {
    page.gauges("alerts_firing", "1 while an alert fires", |of| {
        for row in control.alerts.rows() {
            of.flag(&[("alert", &row.alert)], row.state == "firing");
        }
    });
    page.counters("alert_messages_total", "Messages of alerts by result", |of| {
        for (name, (sent, failed)) in control.alerts.told() {
            of.count(&[("notify", &name), ("result", "sent")], sent);
            of.count(&[("notify", &name), ("result", "failed")], failed);
        }
    });
    let lines = &control.access_log.counts;
    page.counters("access_log_lines_total", "Access log lines by what became of them", |of| {
        for (result, n) in [
            ("written", &lines.written),
            ("dropped", &lines.dropped),
            ("failed", &lines.failed),
            ("sampled", &lines.sampled),
        ] {
            of.count(&[("result", result)], n.load(Relaxed));
        }
    });
    trace::begin_counts();
    registry::all(page);
}

fn process(control: &Control, page: &mut Page<'_>) {
    let usage = process::usage();
    page.gauges("process_start_time_seconds", "When the process started", |of| {
        of.value(&[], since_epoch(control.started_at));
    });
    page.counters("process_cpu_seconds_total", "CPU time, user and system", |of| {
        of.value(&[], usage.cpu_seconds);
    });
    page.gauges("process_resident_memory_bytes", "Resident memory", |of| of.count(&[], usage.resident_bytes));
    page.gauges("process_open_fds", "Open file descriptors", |of| of.count(&[], usage.open_fds));
    page.gauges("process_max_fds", "File descriptors that may be open", |of| of.count(&[], usage.max_fds));
}
