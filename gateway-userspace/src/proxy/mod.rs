//! One request's life, top to bottom: accept, read its head, route, send it on, bring the answer back.
//!
//! - [`connection`] owns a client connection: its socket, its timer, what happens between requests.
//! - [`handler`] is one request as a story; [`forward`] its attempts to get an answer from an upstream.
//! - [`exchange`] is what is known of a request; it writes the log line and the counters when the request ends, however
//!   it ends.

mod body;
mod cached;
mod careful;
mod checked;
mod client;
mod client_body;
mod client_io;
mod compressed;
pub mod connection;
mod errand;
mod exchange;
pub mod explain;
mod fallback;
mod forward;
pub mod front;
mod grpc;
mod grpc_web;
mod half_closed;
mod handler;
mod headers;
mod hops;
mod http2;
mod inbound;
mod incoming;
mod limited;
mod mapped;
pub(crate) mod metered;
mod mirrored;
mod own;
mod paced;
mod policed;
mod problem;
mod real_ip;
mod redirect;
pub mod reuse;
mod shadow;
pub(crate) mod strict;
mod subrequest;
mod tagged;
mod timer;
mod transport;
mod tunnel;
pub mod versioned;
mod watched;
mod websocket;
pub mod worker;

pub use body::{Cut, RequestBody};
#[cfg(test)]
pub(crate) use real_ip::elements as forwarded_elements;
pub use tunnel::Pipe;
