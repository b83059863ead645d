//! Notices when certificates' files change.
//!
//! The folders are watched rather than the files, because files are replaced rather than written, and in Kubernetes
//! the link that changes is the folder's (`..data`).

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Files are read when they have been left alone for this long: a chain and its key are written one after
/// the other.
const SETTLE: Duration = Duration::from_millis(150);
/// … or after this long, if they are written all the time.
const AT_MOST: Duration = Duration::from_millis(600);

/// Tells that something changed.
#[derive(Debug, Clone, Default)]
pub struct Changes(Arc<Notify>);

impl Changes {
    /// Waits for a change, and then until things have settled.
    pub async fn next(&self) {
        self.0.notified().await;
        let settled = async { while tokio::time::timeout(SETTLE, self.0.notified()).await.is_ok() {} };
        let _ = tokio::time::timeout(AT_MOST, settled).await;
    }
}

/// The folders under watch.
#[derive(Debug, Default)]
pub struct Watch {
    folders: BTreeSet<PathBuf>,
    /// Of files that count: there may be others in the same folders.
    names: BTreeSet<OsString>,
    /// Gone without anything to watch, or where the kernel refuses.
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches the folders of these files, and no others, from now on.
    pub fn set(&mut self, files: &[PathBuf], changes: &Changes) {
        // A link may be replaced where it points to as well.
        let targets = files.iter().filter_map(|file| file.canonicalize().ok());
        let all: Vec<PathBuf> = files.iter().cloned().chain(targets).collect();
        let folders = all.iter().filter_map(|file| Some(file.parent()?.to_path_buf())).collect();
        let names = all.iter().filter_map(|file| Some(file.file_name()?.to_owned())).collect();
        if (&folders, &names) == (&self.folders, &self.names) {
            return;
        }
        *self = Watch { folders, names, watcher: None };
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
        let names = self.names.clone();
        let counts = move |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            // `..data` and what it points to.
            names.contains(name) || name.as_encoded_bytes().starts_with(b"..")
        };
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change; reading them ourselves would go on for ever. What was missed may be anything.
            let change = event.map_or(true, |event| {
                event.need_rescan() || !event.kind.is_access() && event.paths.iter().any(&counts)
            });
            if change {
                changes.notify_one();
            }
        })?;
        for folder in &self.folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}
