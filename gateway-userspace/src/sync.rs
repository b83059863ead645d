//! Locks.

use std::sync::PoisonError;
pub use std::sync::{Mutex, MutexGuard};

/// Also after a panic elsewhere: what these guard is whole at every moment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
