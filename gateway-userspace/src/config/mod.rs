//! The config as written: parsed, checked, never used on the hot path.

pub mod model;
pub mod units;
