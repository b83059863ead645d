//! What the two halves agree on.
#![cfg_attr(not(feature = "user"), no_std)]
