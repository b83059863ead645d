//! Kept connections of one worker, by target.
//!
//! The last one put back is the first one taken, so a worker keeps as few busy as it needs and the rest age out.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Target, connection::Connection};

#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<usize, Vec<Kept>>>,
}

struct Kept {
    connection: Box<Connection>,
    until: Instant,
}

/// A connection holds its target, so as long as one is kept no other target can have its place in memory.
fn key(target: &Arc<Target>) -> usize {
    Arc::as_ptr(target) as usize
}

impl Pool {
    /// An open connection to `target`, the youngest first.
    pub fn take(&self, target: &Arc<Target>) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&key(target))?;
        while let Some(mut last) = kept.pop() {
            if last.connection.alive() {
                last.connection.count_idle(false);
                return Some(last.connection);
            }
        }
        None
    }

    /// Keeps a connection for `idle_for`, unless `max` are kept already.
    pub fn put(&self, connection: Box<Connection>, max: usize, idle_for: Duration, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(key(connection.target())).or_default();
        if kept.len() < max {
            connection.count_idle(true);
            kept.push(Kept { connection, until: now + idle_for });
        }
    }

    /// Closes what is too old or was closed by its peer. Called every second or so.
    pub fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        for kept in idle.values_mut() {
            kept.retain_mut(|kept| kept.until > now && kept.connection.alive());
        }
        idle.retain(|_, kept| !kept.is_empty());
    }
}
