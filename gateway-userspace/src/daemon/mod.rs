//! The daemon: start-up order, workers, signals, reload, drain.
//!
//! The main thread is the control thread: admin API, metrics, health checks, signals, the kernel half's upkeep. Each
//! worker is a thread of its own that only ever serves traffic.

mod acme;
mod certs;
mod control;
mod services;
mod signals;
mod start;
mod workers;

pub use control::{Control, Reach, Reload, ReloadError, Request};
pub use start::{Options, Source, run};
