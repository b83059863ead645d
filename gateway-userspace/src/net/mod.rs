//! Sockets: listeners and reading.

mod listen;
mod read;

pub use listen::bind_all;
pub use read::read_into;
