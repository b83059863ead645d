//! The userspace half of gateway. Dependencies between modules point down this list.

pub mod admin;
pub mod auth;
pub mod balance;
pub mod cache;
pub mod cli;
pub mod config;
mod crc32c;
pub mod daemon;
mod fetch;
#[cfg(test)]
mod fuzz;
mod hex;
mod hpack;
pub mod kernel;
mod kernel_log;
pub mod limit;
pub mod net;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod proxy_protocol;
pub mod request;
pub mod route;
pub mod runtime;
pub mod seal;
pub mod service;
pub mod splice;
mod sync;
pub mod tls;
pub mod upstream;
pub mod version;

/// The commit this was built from, or "unknown".
pub const COMMIT: &str = match option_env!("GATEWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
