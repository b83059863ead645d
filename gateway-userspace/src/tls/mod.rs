//! TLS at listeners (certificates, which one a client gets, session tickets, client certificates) and to upstreams.
//!
//! [`Tls`] is what a config's `[cert.NAME]` and `tls = { … }` come to. Certificates outlive reloads: a changed file is
//! read anew into the [`Cert`] that handshakes use already, if it is good. rustls does the protocol, aws-lc-rs the
//! cryptography; the provider is named wherever one is needed, so no other crate's choice can change it.

mod acceptor;
pub mod acme;
mod cert;
mod choose;
mod connector;
mod pair;
mod shaken;
pub mod store;
mod tickets;
mod trust;
mod watch;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

pub use acceptor::{Acceptor, Rules};
pub use cert::{Cert, now};
pub use connector::{Connector, Offer, TlsStream};
pub use pair::{Facts, PairError};
pub use shaken::Shaken;
pub use watch::{Changes, Watch};

use crate::{
    config::{
        ConfigErrors, Problems,
        model::{AdminHttp, Config, Secret, Upstream, among_listeners},
    },
    seal::Vault,
};

/// All of a config's TLS.
#[derive(Debug, Default, Clone)]
pub struct Tls {
    pub certs: BTreeMap<String, Arc<Cert>>,
    /// By listener; those of services by [`among_listeners`].
    pub acceptors: BTreeMap<String, Arc<Acceptor>>,
    /// What ACME authorities ask for at the moment; one for all configs of a process.
    pub challenges: Arc<acme::Challenges>,
    /// By upstream.
    pub connectors: BTreeMap<String, Arc<Connector>>,
    /// What is got by ACME is sealed with it.
    pub vault: Arc<Vault>,
}

impl Tls {
    /// Reads what is new since `old`; the rest is taken over as it is.
    ///
    /// # Errors
    /// Every file that cannot be used, by its place in the config.
    pub fn load(config: &Config, vault: &Arc<Vault>, old: Option<&Tls>) -> Result<Tls, ConfigErrors> {
        let mut problems = Problems::default();
        let challenges = old.map(|old| old.challenges.clone()).unwrap_or_default();
        let mut tls = Tls { challenges, vault: vault.clone(), ..Tls::default() };
        for (name, wanted) in &config.certs {
            let kept = old.and_then(|old| old.certs.get(name)).filter(|cert| cert.is_from(wanted, vault));
            match kept.map_or_else(|| Cert::load(name, wanted, vault).map(Arc::new), |kept| Ok(kept.clone()))
            {
                Ok(cert) => drop(tls.certs.insert(name.clone(), cert)),
                Err(error) => problems.file(&wanted.at, format!("cert.{name}: {error}")),
            }
        }
        let of_listeners = config
            .listeners
            .iter()
            .map(|(name, listener)| (name.clone(), format!("listener.{name}"), &listener.at, &listener.tls));
        let of_services = config.services.iter().filter_map(|(name, service)| {
            let wanted = &service.splice.as_ref()?.tls;
            Some((among_listeners(name), format!("service.{name}"), &service.at, wanted))
        });
        let of_admin = config.admin.http.iter().map(|http| {
            (AdminHttp::AMONG_LISTENERS.to_owned(), "admin.http".to_owned(), &http.at, &http.tls)
        });
        for (name, owner, at, wanted) in of_listeners.chain(of_services).chain(of_admin) {
            let Some(wanted) = wanted else { continue };
            let certs: Option<Vec<_>> =
                wanted.certs.iter().map(|cert| tls.certs.get(cert).cloned()).collect();
            // One that is missing has been told.
            let Some(certs) = certs else { continue };
            let before = old.and_then(|old| old.acceptors.get(&name));
            match Acceptor::new(wanted, certs, &tls.challenges, before) {
                Ok(acceptor) => drop(tls.acceptors.insert(name, acceptor)),
                Err(error) => problems.file(at, format!("{owner}.tls: {error}")),
            }
        }
        for (name, upstream) in &config.upstreams {
            let Some(wanted) = &upstream.tls else { continue };
            let cert = wanted.cert.as_ref().map(|cert| tls.certs.get(cert).cloned());
            // One that is missing has been told.
            if matches!(cert, Some(None)) {
                continue;
            }
            let before = old.and_then(|old| old.connectors.get(name));
            match Connector::new(wanted, cert.flatten(), before) {
                Ok(connector) => drop(tls.connectors.insert(name.clone(), connector)),
                Err(error) => problems.file(&upstream.at, format!("upstream.{name}.tls: {error}")),
            }
        }
        problems.into_result(Some(tls))
    }

    /// Reads all certificates' files again. Says what changed in the log; a bad pair is refused and the old one stays.
    pub fn refresh(&self) {
        let changed = self.certs.values().filter(|cert| cert.refresh()).count();
        if changed > 0 {
            self.acceptors.values().for_each(|acceptor| acceptor.choose_anew());
            self.connectors.values().for_each(|connector| connector.forget());
        }
        for (name, acceptor) in &self.acceptors {
            match acceptor.refresh_clients() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(listener = %name, "new authorities or revocations of clients are in use")
                }
                Err(error) => {
                    tracing::error!(listener = %name, "clients are still checked as before: {error}");
                }
            }
        }
        self.refresh_authorities();
    }

    /// Reads again whose certificates targets' must come from.
    fn refresh_authorities(&self) {
        for (name, connector) in &self.connectors {
            match connector.refresh_authorities() {
                Ok(false) => {}
                Ok(true) => tracing::info!(upstream = %name, "new authorities of targets are in use"),
                Err(error) => {
                    tracing::error!(upstream = %name, "targets are still checked as before: {error}");
                }
            }
        }
    }

    /// Files that a change of is to be noticed.
    pub fn files(&self) -> Vec<PathBuf> {
        let of = |cert: &Arc<Cert>| {
            let key = match &cert.config.key {
                Secret::File(path) => Some(path.clone()),
                _ => None,
            };
            std::iter::once(cert.config.chain.clone()).chain(key)
        };
        let clients = self.acceptors.values().flat_map(|acceptor| acceptor.files());
        let targets = self.connectors.values().filter_map(|connector| Some(connector.file()?.to_owned()));
        self.certs.values().flat_map(of).chain(clients).chain(targets).collect()
    }
}

/// Upstreams whose certificates are not checked.
pub fn unverified(config: &Config) -> Vec<String> {
    let careless = |upstream: &Upstream| upstream.tls.as_ref().is_some_and(|tls| !tls.verify);
    let warn = |(name, upstream): (&String, &Upstream)| {
        let at = &upstream.at;
        careless(upstream).then(|| {
            format!("{at}: upstream.{name}.tls.verify = false: whoever is on the way can read and change everything")
        })
    };
    config.upstreams.iter().filter_map(warn).collect()
}
