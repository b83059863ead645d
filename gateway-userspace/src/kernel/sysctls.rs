//! Kernel settings that are changed while the daemon runs, and put back when it stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Kernel settings that were changed, with their old values.
#[derive(Debug, Default)]
pub struct Sysctls {
    changed: BTreeMap<PathBuf, String>,
    /// Those that are left as they are, and should not be.
    told: BTreeSet<PathBuf>,
}

impl Sysctls {
    /// Sets one, unless it is so already; `what` it is for goes to the log. One that is not there is not wanted.
    pub fn set(&mut self, path: PathBuf, value: &str, what: &str) {
        let Ok(old) = fs::read_to_string(&path) else { return };
        if old.trim() == value || self.changed.contains_key(&path) {
            return;
        }
        match fs::write(&path, value) {
            Ok(()) => {
                tracing::info!("kernel: {} is {value} now, for {what}", path.display());
                self.changed.insert(path, old);
            }
            Err(error) => tracing::warn!(
                "kernel: {} must be {value} for {what}, and cannot be set: {error}",
                path.display()
            ),
        }
    }

    /// Says once that one is not as it should be, where it changes more than is ours to change.
    pub fn wish(&mut self, path: &Path, value: &str, what: &str) {
        let other = fs::read_to_string(path).is_ok_and(|now| now.trim() != value);
        if other && self.told.insert(path.to_owned()) {
            tracing::warn!("kernel: {} should be {value}, for {what}", path.display());
        }
    }

    /// Those that were changed, with their old values.
    pub fn changed(&self) -> BTreeMap<PathBuf, String> {
        self.changed.clone()
    }

    /// What another process has changed is ours to put back.
    pub fn inherit(&mut self, changed: BTreeMap<PathBuf, String>) {
        for (path, old) in changed {
            self.changed.entry(path).or_insert(old);
        }
    }

    pub fn restore(&mut self) {
        for (path, old) in std::mem::take(&mut self.changed) {
            // With its line's end: an empty value cannot be written otherwise.
            let _ = fs::write(path, old);
        }
    }
}
