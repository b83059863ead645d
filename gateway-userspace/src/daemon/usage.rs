//! Who called which version outlasts the process: handed over at an upgrade, in a file over a restart.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use super::control::Control;
use crate::{config::units::Moment, seal::FileError, version::usage::Kept};

const PURPOSE: &str = "usage";

/// By route and version.
pub type Usages = BTreeMap<String, BTreeMap<String, Kept>>;

impl Control {
    pub(super) fn usages(&self) -> Usages {
        let now = Moment::of(SystemTime::now());
        let mut usages = Usages::new();
        for ((route, version), usage) in self.registry.usages() {
            usages.entry(route).or_default().insert(version, usage.kept(now));
        }
        usages
    }

    /// What is of versions that there are no longer is forgotten.
    pub(super) fn recall_usages(&self, usages: &Usages) {
        let now = Moment::of(SystemTime::now());
        for ((route, version), usage) in self.registry.usages() {
            if let Some(kept) = usages.get(&route).and_then(|versions| versions.get(&version)) {
                usage.recall(kept, now);
            }
        }
    }

    /// Of the process before, which ended.
    pub(super) fn load_usages(&self) {
        let (file, vault) = (self.usages_file(), self.snapshot.load().tls.vault.clone());
        let read = vault.read(&file, PURPOSE).and_then(|kept| {
            let failed = |error: serde_json::Error| FileError::new(&file, std::io::Error::from(error));
            kept.map(|kept| serde_json::from_slice(&kept.plain).map_err(failed)).transpose()
        });
        match read {
            Ok(Some(usages)) => self.recall_usages(&usages),
            Ok(None) => {}
            Err(error) => tracing::warn!("who called which version is not known any more: {error}"),
        }
    }

    /// Writes the file, where any route has versions. Not while another process does it.
    pub(super) fn keep_usages(&self) {
        let usages = self.usages();
        if usages.is_empty() || *self.silent.borrow() {
            return;
        }
        let (file, vault) = (self.usages_file(), self.snapshot.load().tls.vault.clone());
        let written = serde_json::to_vec(&usages)
            .map_err(|error| FileError::new(&file, std::io::Error::from(error)))
            .and_then(|text| vault.write(&file, PURPOSE, &text));
        if let Err(error) = written {
            tracing::debug!("who called which version is not kept: {error}");
        }
    }

    fn usages_file(&self) -> PathBuf {
        self.snapshot.load().config.state.directory.join("usage.json")
    }
}
