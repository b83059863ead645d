//! The count of open connections.

use std::{cell::Cell, sync::Arc};

use super::Target;

/// Counts a connection as busy or idle for as long as it lives.
pub struct Gauge {
    target: Arc<Target>,
    worker: usize,
    idle: Cell<bool>,
}

impl Gauge {
    pub fn new(target: Arc<Target>, worker: usize) -> Self {
        target.stats.shards.of(worker).busy.add(1);
        Gauge { target, worker, idle: Cell::new(false) }
    }

    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    pub fn set_idle(&self, idle: bool) {
        if self.idle.replace(idle) != idle {
            let shard = self.target.stats.shards.of(self.worker);
            let step = if idle { 1 } else { -1 };
            shard.idle.add(step);
            shard.busy.add(-step);
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.set_idle(false);
        self.target.stats.shards.of(self.worker).busy.add(-1);
    }
}
