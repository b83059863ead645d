//! Who made a request: what a route's `auth` found out, for the other policies.

pub use crate::auth::Caller;
