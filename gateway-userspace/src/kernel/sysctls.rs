//! Kernel settings that are changed while the daemon runs, and put back when it stops.

use std::{collections::BTreeMap, fs, path::PathBuf};

/// Kernel settings that were changed, with their old values.
#[derive(Debug, Default)]
pub struct Sysctls(BTreeMap<PathBuf, String>);

impl Sysctls {
    /// Sets one, unless it is so already; `what` it is for goes to the log. One that is not there is not wanted.
    pub fn set(&mut self, path: PathBuf, value: &str, what: &str) {
        let Ok(old) = fs::read_to_string(&path) else { return };
        if old.trim() == value || self.0.contains_key(&path) {
            return;
        }
        match fs::write(&path, value) {
            Ok(()) => {
                tracing::info!("kernel: {} is {value} now, for {what}", path.display());
                self.0.insert(path, old);
            }
            Err(error) => tracing::warn!(
                "kernel: {} must be {value} for {what}, and cannot be set: {error}",
                path.display()
            ),
        }
    }

    pub fn restore(&mut self) {
        for (path, old) in std::mem::take(&mut self.0) {
            // With its line's end: an empty value cannot be written otherwise.
            let _ = fs::write(path, old);
        }
    }
}
