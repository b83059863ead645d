//! Seeing what happens: why a request was refused, counters and histograms, the access log, the process log.
//!
//! Everything a worker writes on the hot path is its own shard: single-writer atomics and a private buffer,
//! read or taken by other threads only when somebody asks.

pub mod access_log;
pub mod alert;
pub mod collector;
pub mod events;
mod json;
pub mod kafka;
pub mod latency;
pub mod metrics;
pub mod pcapng;
pub mod post;
pub mod process;
pub mod process_log;
pub mod stats;
pub mod trace;
mod why;

pub use access_log::rfc3339;
pub use why::Why;
