//! The userspace half of gateway. Dependencies between modules point down this list.

pub mod cli;
pub mod daemon;
pub mod admin;
pub mod config;
pub mod runtime;
pub mod proxy;
pub mod route;
pub mod upstream;
pub mod balance;
pub mod net;
pub mod kernel;
pub mod observe;
