//! Side-by-side measurements of gateway and its peers, and the demo.
//!
//! Everything runs in the lab's namespaces. A figure is the median of several rounds, and the rounds of the programs
//! that are compared are interleaved, so that what else the machine does hits all of them alike.

pub mod cache;
pub mod demo;
pub mod flood;
pub mod half_rate;
pub mod hostile;
pub mod l4;
pub mod limit;
pub mod memory;
pub mod peers;
pub mod proxy;
pub mod scale;
pub mod seeing;
pub mod show;
pub mod stats;
pub mod watching;

use std::{net::SocketAddr, time::Duration};

/// The CPU of what is measured, and the one of everything else.
pub const MEASURED_CPU: usize = 0;
pub const OTHER_CPU: usize = 1;

/// How much measuring.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    pub round: Duration,
}

impl Effort {
    pub const FULL: Effort = Effort { rounds: 7, round: Duration::from_secs(5) };
    pub const QUICK: Effort = Effort { rounds: 2, round: Duration::from_secs(2) };

    /// How long a round lasts. Round 0 warms up, and does not count.
    pub fn lasts(&self, round: usize) -> Duration {
        if round == 0 { Duration::from_secs(1) } else { self.round }
    }
}

/// On the loopback, where most of what is measured listens.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
