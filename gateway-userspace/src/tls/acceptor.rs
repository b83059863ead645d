//! A listener's side of handshakes.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ProducesTickets, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    acme::{self, Challenges},
    cert::Cert,
    choose::Chooser,
    tickets::Rotating,
    trust,
};
use crate::config::model::{Alpn, ClientAuth, Tls, TlsVersion};

/// `tls = { … }`, compiled. Shared by all workers, so that a ticket from one is good at any.
pub struct Acceptor {
    config: ArcSwap<ServerConfig>,
    chooser: Arc<Chooser>,
    settings: Tls,
    clients: Mutex<Clients>,
}

/// Whom tickets stand for.
struct Clients {
    /// What they were checked against when they got theirs.
    files: Option<ClientFiles>,
    tickets: Arc<dyn ProducesTickets>,
}

/// Contents of `client_ca` and `client_crl`.
#[derive(PartialEq)]
struct ClientFiles {
    ca: Vec<u8>,
    crl: Option<Vec<u8>>,
}

impl ClientFiles {
    fn read(client: &ClientAuth) -> Result<ClientFiles, AcceptorError> {
        let crl = client.crl.as_ref().map(|path| trust::read(path)).transpose()?;
        Ok(ClientFiles { ca: trust::read(&client.ca)?, crl })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptorError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} has no authority in it that can be used: {error}", path.display())]
    BadAuthority { path: PathBuf, error: String },
    #[error("{} is no revocation list: {error}", path.display())]
    BadList { path: PathBuf, error: String },
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
        let files = settings.client.as_ref().map(ClientFiles::read).transpose()?;
        let mut tickets = None;
        if let Some(before) = before {
            let clients = before.lock();
            if before.settings == *settings
                && clients.files == files
                && before.chooser.certs.iter().map(Arc::as_ptr).eq(certs.iter().map(Arc::as_ptr))
            {
                return Ok(before.clone());
            }
            // A ticket stands for the client certificate that was checked when it was given.
            let same_keys = before.settings.ticket_rotation == settings.ticket_rotation;
            if same_keys && before.settings.client == settings.client && clients.files == files {
                tickets = Some(clients.tickets.clone());
            }
        }
        let tickets = match tickets {
            Some(tickets) => tickets,
            None => Arc::new(Rotating::new(settings.ticket_rotation)?),
        };
        let challenges = settings.auto.then(|| challenges.clone());
        let chooser = Arc::new(Chooser::new(certs, challenges));
        let config = server_config(settings, files.as_ref(), chooser.clone(), tickets.clone())?;
        Ok(Arc::new(Acceptor {
            config: ArcSwap::from_pointee(config),
            chooser,
            settings: settings.clone(),
            clients: Mutex::new(Clients { files, tickets }),
        }))
    }

    /// For the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads whose certificates are believed, and which are revoked, again. Whether that has changed.
    ///
    /// # Errors
    /// The files cannot be used; what was in them before still counts.
    pub fn refresh_clients(&self) -> Result<bool, AcceptorError> {
        let Some(client) = &self.settings.client else { return Ok(false) };
        let files = ClientFiles::read(client)?;
        let mut clients = self.lock();
        if clients.files.as_ref() == Some(&files) {
            return Ok(false);
        }
        let tickets: Arc<dyn ProducesTickets> = Arc::new(Rotating::new(self.settings.ticket_rotation)?);
        let config = server_config(&self.settings, Some(&files), self.chooser.clone(), tickets.clone())?;
        self.config.store(Arc::new(config));
        *clients = Clients { files: Some(files), tickets };
        Ok(true)
    }

    /// Files of clients' certificates.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let client = self.settings.client.as_ref();
        client.into_iter().flat_map(|client| std::iter::once(client.ca.clone()).chain(client.crl.clone()))
    }

    /// After a certificate changed.
    pub fn choose_anew(&self) {
        self.chooser.choose_anew();
    }
}

fn server_config(
    settings: &Tls,
    files: Option<&ClientFiles>,
    chooser: Arc<Chooser>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, AcceptorError> {
    let versions: &[_] = match settings.min {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(versions)?;
    let builder = match (&settings.client, files) {
        (Some(client), Some(files)) => builder.with_client_cert_verifier(verifier(client, files)?),
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

fn verifier(client: &ClientAuth, files: &ClientFiles) -> Result<Arc<dyn ClientCertVerifier>, AcceptorError> {
    let roots = trust::authorities(&client.ca, &files.ca)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let (Some(path), Some(pem)) = (&client.crl, &files.crl) {
        builder = builder.with_crls(trust::revoked(path, pem)?).enforce_revocation_expiration();
    }
    let builder = if client.required { builder } else { builder.allow_unauthenticated() };
    let bad = |error: VerifierBuilderError| match (error, &client.crl) {
        (VerifierBuilderError::InvalidCrl(error), Some(path)) => {
            AcceptorError::BadList { path: path.clone(), error: format!("{error:?}") }
        }
        (error, _) => AcceptorError::BadAuthority { path: client.ca.clone(), error: error.to_string() },
    };
    builder.build().map_err(bad)
}
