//! What the two halves agree on: how a packet is read, how a bucket counts, how a source is hashed, what a
//! verdict is called and how the maps between them are laid out.
//!
//! Pure functions over plain values: no allocation, nothing but `core` (the feature `user` adds what only
//! userspace needs), so the same code runs in the kernel, on the host and under test.
#![cfg_attr(not(any(test, feature = "user")), no_std)]
#![deny(unsafe_code)]

pub mod bucket;
pub mod capture;
pub mod checksum;
pub mod clock;
pub mod flow;
pub mod forward;
pub mod hash;
pub mod maglev;
pub mod maps;
pub mod packet;
pub mod service;
pub mod source;
pub mod syn;
pub mod table;
pub mod verdict;
