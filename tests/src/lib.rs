//! The lab: network namespaces around a real `gateway`, with backends, clients and packet senders in them.
//!
//! A test (or the demo, or a bench) makes a [`net::Net`], starts [`backend::Backend`]s and a [`gateway::Gateway`] in
//! it, and talks to it as a client would. Everything is undone on drop, on panic and on Ctrl-C; what a killed run left
//! behind is swept by the next one.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, as it should"))]

pub mod backend;
pub mod backend_server;
pub mod bpf;
pub mod certs;
pub mod cleanup;
pub mod curl;
pub mod dns;
pub mod flood;
pub mod gateway;
pub mod grpc;
pub mod h2load;
pub mod http;
pub mod http2;
pub mod issuer;
pub mod l4;
pub mod lock;
pub mod metrics;
pub mod net;
pub mod overload;
pub mod packet;
pub mod peers;
pub mod ping;
pub mod process;
pub mod rig;
pub mod steady;
pub mod sys;
pub mod tls;
pub mod tools;
pub mod transfer;
pub mod vm;
pub mod wait;
pub mod websocket;
pub mod wrk;

/// What every test needs.
pub mod prelude {
    pub use crate::{
        backend::Backend,
        gateway::{Cli, Gateway},
        http::{self, Client, Response},
        lab_test,
        lock::{alone, shared},
        net::{Net, Node, VIP4, VIP6},
        rig::Rig,
        wait::{eventually, within},
    };
    pub use anyhow::{Context, Result, bail, ensure};
    pub use serde_json::{Value, json};
    pub use std::{
        collections::{BTreeMap, BTreeSet},
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
        time::{Duration, Instant},
    };
}

/// Why the lab cannot be set up here; `None` if it can.
pub fn unavailable() -> Option<String> {
    if !sys::is_root() {
        return Some("network namespaces need root".into());
    }
    tools::missing("ip").then(|| "`ip` (iproute2) is not installed; `cargo xtask setup` installs it".into())
}

/// Says on stderr, and in the file that `GATEWAY_TEST_SKIPS` names, that a test did not run.
pub fn skip(test: &str, why: &str) {
    use std::io::Write;
    eprintln!("skipped: {test}: {why}");
    if let Some(path) = std::env::var_os("GATEWAY_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // The notice above is what counts.
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}

/// Returns from a test, saying so, where the lab cannot be set up.
#[macro_export]
macro_rules! lab_test {
    () => {
        if let Some(why) = $crate::unavailable() {
            let thread = std::thread::current();
            $crate::skip(thread.name().unwrap_or("test"), &why);
            return Ok(());
        }
    };
}
