//! Sockets: listening, reading, writing.

mod listen;
mod read;
mod write;

pub use listen::bind_all;
pub use read::read_into;
pub use write::{together, write_slices};
