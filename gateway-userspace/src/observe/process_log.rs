//! The process log: `tracing` to stderr, text for people, JSON for collectors.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::model::{Log, LogFormat};

/// Lets a reload change the level.
pub struct LogControl(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl LogControl {
    pub fn set_level(&self, level: &str) {
        // The level was checked with the config; a failure would mean that the subscriber is gone.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Called once, by `run`.
pub fn init(log: &Log) -> LogControl {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal() && std::env::var_os("JOURNAL_STREAM").is_some(),
    };
    let (filter, handle) = reload::Layer::new(filter(&log.level));
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        let layer = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
        let _ = registry.with(layer).try_init();
    } else {
        let layer = fmt::layer()
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        let _ = registry.with(layer).try_init();
    }
    LogControl(handle)
}
