//! What a wrong config says: every problem, with its place and its cure, to the letter.

mod auth;
mod balancing;
mod cache;
mod files;
mod routes;
mod services;
mod tls;
mod told;
mod values;
mod versions;
mod whole;

use std::path::Path;

use gateway::config;

/// Checks that `toml` as gateway.toml gives exactly `expected`.
fn says(toml: &str, expected: &str) {
    let errors = config::parse(toml, Path::new("gateway.toml")).expect_err("it is wrong");
    assert_eq!(errors.to_string(), expected.trim_start());
}
