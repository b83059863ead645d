//! Sockets: listening, passing on, reading, writing.

mod datagram;
mod listen;
pub mod pass;
mod read;
mod write;

pub use datagram::{Datagrams, Ends, bind_datagrams, connected, send};
pub use listen::{bind_all, extend};
pub use read::read_into;
pub use write::{together, write_slices};
