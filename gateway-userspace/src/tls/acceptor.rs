//! A listener's side of handshakes.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
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
use crate::{
    config::model::{Alpn, ClientAuth, HostPattern, Tls, TlsVersion},
    route::{Hosts, host_name},
    sync::lock,
};

/// `tls = { … }`, compiled. Shared by all workers, so that a ticket from one is good at any.
pub struct Acceptor {
    own: Side,
    /// Other rules for client certificates, for who asks for these names.
    others: Vec<(HostPattern, Side)>,
    /// Their places.
    by_name: Hosts<usize>,
    chooser: Arc<Chooser>,
    settings: Tls,
}

/// Which rules for client certificates a handshake was by: the listener's own, or those of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules(Option<usize>);

/// One way to shake hands.
struct Side {
    client: Option<ClientAuth>,
    config: ArcSwap<ServerConfig>,
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

    fn of(client: Option<&ClientAuth>) -> Result<Option<ClientFiles>, AcceptorError> {
        client.map(ClientFiles::read).transpose()
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

impl Side {
    /// `before`: the same one of the listener's last config. Its tickets are good here if whom they let in did not change.
    fn new(
        settings: &Tls,
        (client, files): (Option<&ClientAuth>, Option<ClientFiles>),
        chooser: &Arc<Chooser>,
        before: Option<&Side>,
        same_keys: bool,
    ) -> Result<Side, AcceptorError> {
        // A ticket stands for the client certificate that was checked when it was given.
        let kept = before.filter(|before| same_keys && before.client.as_ref() == client).and_then(|before| {
            let clients = before.lock();
            (clients.files == files).then(|| clients.tickets.clone())
        });
        let tickets = match kept {
            Some(tickets) => tickets,
            None => Arc::new(Rotating::new(settings.ticket_rotation)?),
        };
        let checked = client.zip(files.as_ref());
        let config = server_config(settings, checked, chooser.clone(), tickets.clone())?;
        Ok(Side {
            client: client.cloned(),
            config: ArcSwap::from_pointee(config),
            clients: Mutex::new(Clients { files, tickets }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        lock(&self.clients)
    }

    fn refresh(&self, settings: &Tls, chooser: &Arc<Chooser>) -> Result<bool, AcceptorError> {
        let Some(client) = &self.client else { return Ok(false) };
        let files = ClientFiles::read(client)?;
        let mut clients = self.lock();
        if clients.files.as_ref() == Some(&files) {
            return Ok(false);
        }
        let tickets: Arc<dyn ProducesTickets> = Arc::new(Rotating::new(settings.ticket_rotation)?);
        let config = server_config(settings, Some((client, &files)), chooser.clone(), tickets.clone())?;
        self.config.store(Arc::new(config));
        *clients = Clients { files: Some(files), tickets };
        Ok(true)
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
        let files = ClientFiles::of(settings.client.as_ref())?;
        let of_others = settings.clients.iter().map(|(_, client)| ClientFiles::of(Some(client)));
        let of_others = of_others.collect::<Result<Vec<_>, _>>()?;
        if let Some(before) = before
            && before.settings == *settings
            && before.chooser.certs.iter().map(Arc::as_ptr).eq(certs.iter().map(Arc::as_ptr))
            && before
                .sides()
                .zip(std::iter::once(&files).chain(&of_others))
                .all(|(side, files)| side.lock().files == *files)
        {
            return Ok(before.clone());
        }
        let challenges = settings.auto.then(|| challenges.clone());
        let chooser = Arc::new(Chooser::new(certs, challenges));
        let same_keys =
            before.is_some_and(|before| before.settings.ticket_rotation == settings.ticket_rotation);
        let side = |client: Option<&ClientAuth>, files, before: Option<&Side>| {
            Side::new(settings, (client, files), &chooser, before, same_keys)
        };
        let own = side(settings.client.as_ref(), files, before.map(|before| &before.own))?;
        let other = |((name, client), files): (&(HostPattern, ClientAuth), _)| {
            let before = before.and_then(|before| before.others.iter().find(|(other, _)| other == name));
            Ok((name.clone(), side(Some(client), files, before.map(|(_, side)| side))?))
        };
        let others = settings.clients.iter().zip(of_others).map(other);
        let others = others.collect::<Result<Vec<_>, AcceptorError>>()?;
        let by_name = others.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        Ok(Arc::new(Acceptor { own, others, by_name, chooser, settings: settings.clone() }))
    }

    /// For the next handshake, whatever name it asks for: of who is no listener.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.own.config.load_full()
    }

    /// Whether client certificates are another matter for some names than for others.
    pub fn goes_by_name(&self) -> bool {
        !self.others.is_empty()
    }

    /// By which rules a handshake is that asks for a name.
    pub fn config_for(&self, name: Option<&str>) -> (Rules, Arc<ServerConfig>) {
        let rules = self.rules_for(name);
        let side = rules.0.and_then(|at| self.others.get(at)).map_or(&self.own, |(_, side)| side);
        (rules, side.config.load_full())
    }

    /// The rules of a host, as a request or a handshake names it; the listener's own where no name fits.
    pub fn rules_for(&self, host: Option<&str>) -> Rules {
        let mut buffer = [0; 255];
        let host = host.and_then(|host| host_name(host, &mut buffer));
        Rules(host.and_then(|host| self.by_name.fitting(host).next()).copied())
    }

    /// What clients of a host must show, and by the rules of which name; without one by the listener's own.
    pub fn client_auth(&self, host: &str) -> Option<(Option<&HostPattern>, &ClientAuth)> {
        match self.rules_for(Some(host)).0.and_then(|at| self.others.get(at)) {
            Some((name, side)) => Some((Some(name), side.client.as_ref()?)),
            None => Some((None, self.own.client.as_ref()?)),
        }
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.own).chain(self.others.iter().map(|(_, side)| side))
    }

    /// Reads whose certificates are believed, and which are revoked, again. Whether that has changed.
    ///
    /// # Errors
    /// The files cannot be used; what was in them before still counts.
    pub fn refresh_clients(&self) -> Result<bool, AcceptorError> {
        let refreshed = self.sides().map(|side| side.refresh(&self.settings, &self.chooser));
        // All of them, whatever becomes of one.
        let refreshed: Vec<_> = refreshed.collect();
        refreshed.into_iter().try_fold(false, |any, one| Ok(any | one?))
    }

    /// Files of clients' certificates.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let clients = self.sides().filter_map(|side| side.client.as_ref());
        clients.flat_map(|client| std::iter::once(client.ca.clone()).chain(client.crl.clone()))
    }

    /// After a certificate changed.
    pub fn choose_anew(&self) {
        self.chooser.choose_anew();
    }
}

fn server_config(
    settings: &Tls,
    checked: Option<(&ClientAuth, &ClientFiles)>,
    chooser: Arc<Chooser>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, AcceptorError> {
    let versions: &[_] = match settings.min {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(versions)?;
    let builder = match checked {
        Some((client, files)) => builder.with_client_cert_verifier(verifier(client, files)?),
        None => builder.with_no_client_auth(),
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
