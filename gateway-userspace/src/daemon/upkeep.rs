//! What the control thread does by itself, again and again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    control::{Control, Reach},
    heap::Heap,
    recent,
};
use crate::observe::events;

/// Once a second: expired bans and overrides, memory that is not needed any more.
pub async fn every_second(control: Arc<Control>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heap = Heap::new();
    let mut seconds: u64 = 0;
    loop {
        every.tick().await;
        heap.tick();
        control.workers.sample_busy();
        if seconds.is_multiple_of(recent::EVERY) {
            control.recent.sample(control.losses());
        }
        seconds += 1;
        if seconds.is_multiple_of(60) {
            control.keep_usages();
        }
        for cidr in control.kernel.tick() {
            events::tell("ban_over", serde_json::json!({ "cidr": cidr }));
        }
        for cidr in control.snapshot.load().limit_store.bans.sweep() {
            events::tell("ban_over", serde_json::json!({ "cidr": cidr }));
        }
        control.expire_overrides();
        control.look_at_alerts();
        let unused = control.unused();
        if !unused.is_empty() {
            tokio::task::spawn_blocking(move || drop(unused));
        }
    }
}

/// What time alone changes in upstreams: ejections that are over, targets that start slowly.
pub async fn tick_upstreams(control: Arc<Control>) {
    let mut every = tokio::time::interval(Duration::from_millis(100));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        control.snapshot.load().upstreams.values().for_each(|upstream| upstream.tick());
    }
}

/// Takes up changed files once they have been left alone for a moment: block lists always, the whole config with
/// `--watch`. The outcomes are logged.
pub async fn watch(control: Arc<Control>, whole: bool) {
    let files = |control: &Control| {
        let snapshot = control.snapshot.load();
        let config = &snapshot.config;
        stamps(if whole { &config.files } else { &config.kernel.block.files })
    };
    let mut seen = files(&control);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if files(&control) == seen {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        // As they are before they are read: what is written meanwhile is a change again.
        seen = files(&control);
        let _ = control.ask_reload(if whole { Reach::Everything } else { Reach::BlockLists }).await;
    }
}

/// What tells whether a file was written or replaced.
fn stamps(files: &[PathBuf]) -> Vec<Option<(std::time::SystemTime, u64)>> {
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.iter().map(stamp).collect()
}
