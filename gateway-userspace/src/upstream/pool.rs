//! Kept connections of one worker, by target.
//!
//! The last one put back is the first one taken, so a worker keeps as few busy as it needs and the rest age out.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Target, http2, link::Link};

/// Indexed by the targets' slots. Targets come with configs, so it stays small.
#[derive(Default)]
pub struct Pool {
    kept: RefCell<Vec<Vec<Kept>>>,
    pub http2: Rc<http2::Pool>,
}

struct Kept {
    connection: Box<Link>,
    until: Instant,
}

impl Pool {
    /// An open connection to `target`, the youngest first.
    pub fn take(&self, target: &Arc<Target>) -> Option<Box<Link>> {
        let mut targets = self.kept.borrow_mut();
        let kept = targets.get_mut(target.slot)?;
        while let Some(mut last) = kept.pop() {
            if last.connection.alive() {
                last.connection.count_idle(false);
                return Some(last.connection);
            }
        }
        None
    }

    /// Keeps a connection for `idle_for`, unless `max` are kept already.
    pub fn put(&self, connection: Box<Link>, max: usize, idle_for: Duration, now: Instant) {
        let mut targets = self.kept.borrow_mut();
        let slot = connection.target().slot;
        if targets.len() <= slot {
            targets.resize_with(slot + 1, Vec::new);
        }
        if targets[slot].len() < max && !connection.target().retired() {
            connection.count_idle(true);
            targets[slot].push(Kept { connection, until: now + idle_for });
        }
    }

    /// Closes what is too old, was closed by its peer, or leads to a target that is no longer configured. Called every second or so.
    pub fn sweep(&self, now: Instant) {
        self.http2.sweep(now);
        for kept in self.kept.borrow_mut().iter_mut() {
            kept.retain_mut(|kept| {
                kept.until > now && !kept.connection.target().retired() && kept.connection.alive()
            });
            if kept.is_empty() {
                kept.shrink_to_fit();
            }
        }
    }
}
