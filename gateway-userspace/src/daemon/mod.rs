//! The daemon: start-up order, workers, signals, reload, drain, upgrade in place.
//!
//! The main thread is the control thread: admin API, metrics, health checks, signals, the kernel half's upkeep. Each
//! worker is a thread of its own that only ever serves traffic.

mod acme;
mod adapt;
mod alerts;
mod attend;
mod bans;
mod busy;
mod certs;
mod control;
mod discover;
mod ends;
mod handover;
mod heap;
mod inherited;
mod manager;
mod memory;
mod privileges;
mod recent;
mod services;
mod shared;
mod signals;
mod start;
mod succession;
mod takeover;
mod upgrade;
mod upkeep;
mod usage;
mod workers;

pub use control::{Control, Reach, Reload, ReloadError, Request};
pub use discover::Known;
pub use recent::Losses;
pub use shared::{News, parse as parse_news};
pub use start::{Options, Source, run};
pub use upgrade::{Upgrade, UpgradeError};
