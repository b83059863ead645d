//! Sockets: listening, passing on, reading, writing.

mod listen;
pub mod pass;
mod read;
mod write;

pub use listen::{bind_all, extend};
pub use read::read_into;
pub use write::{together, write_slices};
