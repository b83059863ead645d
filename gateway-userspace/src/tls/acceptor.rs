//! A listener's side of handshakes.

use std::{fmt, io, path::PathBuf, sync::Arc};

use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    acme::{self, Challenges},
    cert::Cert,
    choose::Chooser,
    trust,
};
use crate::config::model::{Alpn, ClientAuth, Tls, TlsVersion};

/// `tls = { … }`, compiled. Shared by all workers, so that a ticket from one is good at any.
pub struct Acceptor {
    pub config: Arc<ServerConfig>,
    chooser: Arc<Chooser>,
    settings: Tls,
    /// The file's content: what clients were checked against when they got their tickets.
    client_ca: Option<Vec<u8>>,
    tickets: Arc<dyn ProducesTickets>,
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptorError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} has no authority in it that can be used: {error}", path.display())]
    BadAuthority { path: PathBuf, error: String },
    #[error("this system has no authorities to trust: name some with `ca`")]
    NoAuthorities,
    #[error("`sni` is not a name: {0}")]
    BadName(String),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// `before`: the listener's last one. It is kept if nothing changed, and its tickets if whom they let in did not.
    pub fn new(
        settings: &Tls,
        certs: Vec<Arc<Cert>>,
        challenges: &Arc<Challenges>,
        before: Option<&Arc<Acceptor>>,
    ) -> Result<Arc<Acceptor>, AcceptorError> {
        let client_ca = match &settings.client {
            Some(client) => Some(trust::read(&client.ca)?),
            None => None,
        };
        if let Some(before) = before
            && before.settings == *settings
            && before.client_ca == client_ca
            && before.chooser.certs.iter().map(Arc::as_ptr).eq(certs.iter().map(Arc::as_ptr))
        {
            return Ok(before.clone());
        }
        // A ticket stands for the client certificate that was checked when it was given.
        let same_clients = |before: &&Arc<Acceptor>| {
            before.client_ca == client_ca && before.settings.client == settings.client
        };
        let tickets = match before.filter(same_clients) {
            Some(before) => before.tickets.clone(),
            None => aws_lc_rs::Ticketer::new()?,
        };
        let challenges = settings.auto.then(|| challenges.clone());
        let chooser = Arc::new(Chooser::new(certs, challenges));
        let config = server_config(settings, client_ca.as_deref(), chooser.clone(), tickets.clone())?;
        let settings = settings.clone();
        Ok(Arc::new(Acceptor { config: Arc::new(config), chooser, settings, client_ca, tickets }))
    }

    /// After a certificate changed.
    pub fn choose_anew(&self) {
        self.chooser.choose_anew();
    }
}

fn server_config(
    settings: &Tls,
    client_ca: Option<&[u8]>,
    chooser: Arc<Chooser>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, AcceptorError> {
    let versions: &[_] = match settings.min {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(versions)?;
    let builder = match (&settings.client, client_ca) {
        (Some(client), Some(ca)) => builder.with_client_cert_verifier(verifier(client, ca)?),
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(chooser);
    config.alpn_protocols = settings.alpn.iter().map(|alpn| Alpn::name(*alpn).into()).collect();
    if settings.auto {
        config.alpn_protocols.push(acme::ALPN.into());
    }
    config.ignore_client_order = true;
    config.ticketer = tickets;
    // One is what a client uses up with its next connection; each costs an encryption and 200 bytes.
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// Ours, with AES-128 before AES-256: it is as good against everything known, and its hash costs a handshake a sixth
/// less where the CPU does SHA-256 itself.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 2,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 3,
        _ => 4,
    });
    provider
}

fn verifier(client: &ClientAuth, ca: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, AcceptorError> {
    let bad = |error: String| AcceptorError::BadAuthority { path: client.ca.clone(), error };
    let roots = trust::authorities(&client.ca, ca)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if client.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| bad(error.to_string()))
}
