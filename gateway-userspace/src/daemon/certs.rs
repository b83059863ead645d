//! Keeping certificates as their files are.

use std::sync::Arc;

use super::control::Control;
use crate::runtime::Snapshot;
use crate::sync::lock;

impl Control {
    /// Watches the files of this snapshot's certificates, and no others. On the control thread only.
    pub fn watch_certs(&self, snapshot: &Snapshot) {
        lock(&self.cert_watch).set(&snapshot.tls.files(), &self.cert_changes);
    }
}

/// Reads certificates whose files have changed.
pub async fn follow(control: Arc<Control>) {
    loop {
        control.cert_changes.next().await;
        let snapshot = control.snapshot.load_full();
        snapshot.tls.refresh();
        // Where links point to may have changed.
        control.watch_certs(&snapshot);
    }
}
