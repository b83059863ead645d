//! Giving the kernel half to the process that takes this one's place, and taking it back if that fails.
//!
//! What is pinned stays as it is meanwhile, as when the daemon is killed (see `pins`): the programs go on, and the next
//! one adopts them. Beside that goes what only a daemon's memory knows.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{KernelError, KernelPlane, State, sysctls::Sysctls, tell};
use crate::config::model;

/// What the maps do not hold.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inheritance {
    /// Kernel settings that were changed for services, with the values that were there before.
    for_services: BTreeMap<PathBuf, String>,
    /// Likewise for SYN cookies.
    for_syn: BTreeMap<PathBuf, String>,
    /// Why each prefix is banned.
    bans: BTreeMap<String, String>,
}

impl Inheritance {
    /// Nobody needs the changed settings any more.
    fn put_back(self) {
        for changed in [self.for_services, self.for_syn] {
            let mut sysctls = Sysctls::default();
            sysctls.inherit(changed);
            sysctls.restore();
        }
    }
}

impl KernelPlane {
    /// Lets another process adopt everything; from now on this one's is off. Without a bpffs to pin to, nothing can be
    /// adopted, and the programs end here.
    pub fn hand_over(&self, cfg: &model::Kernel) -> Inheritance {
        let mut state = self.lock();
        let State::On(loaded) = &*state else { return Inheritance::default() };
        let bans = loaded.bans.iter().map(|(prefix, ban)| (prefix.to_string(), ban.why.clone()));
        let inheritance = Inheritance {
            for_services: loaded.services.changed_settings(),
            for_syn: loaded.syn.changed_settings(),
            bans: bans.collect(),
        };
        *state = State::Off(Box::new(tell::status_off(cfg, Some(&KernelError::HandedOver))));
        inheritance
    }

    /// Takes up what [`Self::hand_over`] gave, after a start that has adopted the rest.
    pub fn inherit(&self, inheritance: Inheritance) {
        let State::On(loaded) = &mut *self.lock() else { return inheritance.put_back() };
        loaded.services.inherit_settings(inheritance.for_services);
        loaded.syn.inherit_settings(inheritance.for_syn);
        for (prefix, ban) in &mut loaded.bans {
            if let Some(why) = inheritance.bans.get(&prefix.to_string()) {
                ban.why = why.clone();
            }
        }
    }

    /// Starts again after [`Self::hand_over`], over what is pinned by now, whoever pinned it. Services and listeners
    /// have to be told anew.
    ///
    /// # Errors
    /// As [`Self::start`]; it stays off.
    pub fn reclaim(&self, cfg: &model::Kernel, inheritance: Inheritance) -> Result<(), KernelError> {
        let fresh = Self::start(cfg)?;
        fresh.inherit(inheritance);
        let fresh = fresh.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        *self.lock() = fresh;
        Ok(())
    }
}
