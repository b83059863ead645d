//! `[cert.NAME]`, alive: the pair in use, and why a newer one is not.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use serde_json::json;

use super::pair::{Facts, Pair, PairError};
use crate::{config::model, observe::events, seal::Vault};

#[derive(Debug)]
pub struct Cert {
    pub name: String,
    pub config: model::Cert,
    vault: Arc<Vault>,
    /// `None`: the first one has yet to be got by ACME.
    pair: ArcSwapOption<Pair>,
    /// Why what is in the files now is not in use.
    error: Mutex<Option<String>>,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error("the certificate has expired already")]
    Expired,
}

impl Cert {
    pub fn load(name: &str, config: &model::Cert, vault: &Arc<Vault>) -> Result<Cert, PairError> {
        let pair = match Pair::read(name, config, vault) {
            Ok(pair) => Some(pair),
            // It will be got anew.
            Err(error) if config.issued.is_some() && !error.is_sealed() => None,
            Err(error) => return Err(error),
        };
        if pair.as_ref().is_some_and(|pair| pair.facts.expired(now())) {
            tracing::warn!(cert = name, "the certificate has expired");
        }
        Ok(Cert {
            name: name.to_owned(),
            config: config.clone(),
            vault: vault.clone(),
            pair: ArcSwapOption::from_pointee(pair),
            error: Mutex::default(),
        })
    }

    /// Whether `config` names the same files, which are sealed in the same way.
    pub fn is_from(&self, config: &model::Cert, vault: &Arc<Vault>) -> bool {
        self.config.chain == config.chain
            && self.config.key == config.key
            && self.config.issued == config.issued
            && (config.issued.is_none() || Arc::ptr_eq(&self.vault, vault))
    }

    pub fn pair(&self) -> Option<Arc<Pair>> {
        self.pair.load_full()
    }

    pub fn facts(&self) -> Option<Facts> {
        Some(self.pair.load().as_ref()?.facts.clone())
    }

    /// It could not be renewed.
    pub fn failed(&self, error: String) {
        tracing::error!(cert = self.name, "no certificate by ACME: {error}");
        events::tell("cert", json!({ "cert": self.name, "ok": false, "error": error }));
        *self.lock() = Some(error);
    }

    pub fn error(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again; whether there is another pair in use now.
    pub fn refresh(&self) -> bool {
        let read =
            Pair::read(&self.name, &self.config, &self.vault).map_err(RefreshError::from).and_then(|new| {
                let same = self.pair.load().as_ref().is_some_and(|old| old.key.cert == new.key.cert);
                if !same && new.facts.expired(now()) { Err(RefreshError::Expired) } else { Ok((same, new)) }
            });
        match read {
            // The same certificate with another encoding of its key is no change worth telling.
            Ok((true, _)) => {
                *self.lock() = None;
                false
            }
            Ok((false, new)) => {
                let new = Arc::new(new);
                self.pair.store(Some(new.clone()));
                *self.lock() = None;
                // Now it is so.
                tracing::info!(cert = self.name, names = ?new.facts.names, "a new certificate is in use");
                events::tell("cert", json!({ "cert": self.name, "ok": true, "serial": new.facts.serial }));
                true
            }
            // There is none yet.
            Err(RefreshError::Pair(error))
                if self.config.issued.is_some() && self.pair.load().is_none() && !error.is_sealed() =>
            {
                false
            }
            Err(error) => {
                let text = error.to_string();
                if self.error().as_deref() != Some(&text) {
                    tracing::error!(cert = self.name, "certificate not reloaded, the old one stays: {text}");
                    events::tell("cert", json!({ "cert": self.name, "ok": false, "error": text }));
                }
                *self.lock() = Some(text);
                false
            }
        }
    }
}

/// Seconds since 1970, as certificates count.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
