//! Notices when certificates' files change.
//!
//! The folders are watched rather than the files, because files are replaced rather than written, and in Kubernetes
//! the link that changes is the folder's (`..data`).

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Files are read when their folders have been left alone for this long: a chain and its key are written one after
/// the other.
const SETTLE: Duration = Duration::from_millis(150);
/// … or after this long, if something in there never rests.
const AT_MOST: Duration = Duration::from_secs(2);

/// Tells that something changed.
#[derive(Debug, Clone, Default)]
pub struct Changes(Arc<Notify>);

impl Changes {
    /// Waits for a change, and then until things have settled.
    pub async fn next(&self) {
        self.0.notified().await;
        let settled = async {
            while tokio::time::timeout(SETTLE, self.0.notified()).await.is_ok() {}
        };
        let _ = tokio::time::timeout(AT_MOST, settled).await;
    }
}

/// The folders under watch.
#[derive(Debug, Default)]
pub struct Watch {
    folders: BTreeSet<PathBuf>,
    /// Gone without anything to watch, or where the kernel refuses.
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches the folders of these files, and no others, from now on.
    pub fn set(&mut self, files: &[PathBuf], changes: &Changes) {
        let mut folders: BTreeSet<PathBuf> =
            files.iter().filter_map(|file| Some(file.parent()?.to_path_buf())).collect();
        // A link may be replaced where it points to as well.
        folders.extend(files.iter().filter_map(|file| Some(file.canonicalize().ok()?.parent()?.to_path_buf())));
        if folders == self.folders {
            return;
        }
        self.watcher = None;
        self.folders = folders;
        if self.folders.is_empty() {
            return;
        }
        match self.start(changes) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => tracing::warn!(
                %error,
                "certificates' files cannot be watched: send SIGHUP after changing them"
            ),
        }
    }

    fn start(&self, changes: &Changes) -> notify::Result<RecommendedWatcher> {
        let changes = changes.0.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change; reading them ourselves would go on for ever.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                changes.notify_one();
            }
        })?;
        for folder in &self.folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}
