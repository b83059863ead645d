//! Alerts: rules over the counters, looked at each second on the control thread; who is told, and what operators silence.
//!
//! What a rule measures ([`measure`]) and what becomes of it over time ([`state`]) are pure and take their time as an
//! argument. [`Alerts`] remembers, tells and survives a restart.

mod engine;
pub mod measure;
mod message;
mod state;
mod tell;

pub use engine::{Alerts, Row, Silence, now};
pub use measure::Sample;
