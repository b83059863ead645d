//! Sockets: listening, passing on, reading, writing.

mod backlog;
mod datagram;
mod limits;
mod listen;
pub mod pages;
pub mod pass;
mod read;
mod shared;
mod stream_io;
mod text;
mod write;

use std::net::SocketAddr;

pub use backlog::{Backlog, backlog};
pub use datagram::{Datagrams, Ends, bind_datagrams, connected, send};
pub use limits::{Spare, is_ours, most_descriptors, raise_descriptors};
pub use listen::{bind_all, extend};
pub use read::read_into;
pub use shared::SharedWords;
pub use stream_io::StreamIo;
pub use text::{put_ip, put_socket};
pub use write::{together, write_slices};

/// With an IPv4-mapped IPv6 address as IPv4.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
