//! The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): what a proxy in front says of the client before
//! anything else, and what we say to those behind.
//!
//! [`parse`] and [`write`] are pure; [`read`] takes a header from a socket and not a byte more.

mod parse;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use parse::{Malformed, parse};
pub use read::{Refused, read};
pub use write::{own, write};

/// What version 2 begins with: no version 1 header, and nothing that a client of HTTP or TLS sends.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// The longest version 1 header (section 2.1), line end and all.
const MOST_V1: usize = 107;
/// The fixed part of a version 2 header.
const FIXED_V2: usize = 16;
/// The longest version 2 header that is taken: addresses and extensions (TLVs), of which the largest in use are client
/// certificates.
const MOST_V2: usize = 16 * 1024;

/// A header that is whole and well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub version: Version,
    pub says: Says,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            Version::V1 => "v1",
            Version::V2 => "v2",
        }
    }
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// The proxy's own: a health check, say.
    Local,
    /// Somebody's of whom no address can be told: "UNKNOWN", AF_UNSPEC, or a family that is none of TCP's.
    Unknown,
    /// IPv4-mapped addresses are IPv4.
    Proxied { source: SocketAddr, destination: SocketAddr },
}
