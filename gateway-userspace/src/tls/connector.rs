//! An upstream's side of handshakes.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs,
    pki_types::ServerName,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{acceptor::AcceptorError, cert::Cert, trust};
use crate::{
    config::model::{TlsVersion, UpstreamTls},
    upstream::clock::now_ms,
};

/// Boxed: it is large, and most connections are without.
pub type TlsStream = Box<tokio_rustls::client::TlsStream<TcpStream>>;

/// Protocols that are offered by ALPN, the preferred one first.
pub type Offer = &'static [&'static [u8]];

/// Sessions that are kept for a target; with TLS 1.3 each is good for one connection.
const SESSIONS: usize = 32;
/// Targets come and go by DNS: beyond so many, sessions are forgotten.
const MOST_TARGETS: usize = 4096;
/// Between two words in the log of handshakes that fail.
const QUIET_MS: u64 = 10_000;

/// `tls = { … }` of an upstream, compiled. Shared by all workers; touched once a connection.
pub struct Connector {
    settings: UpstreamTls,
    cert: Option<Arc<Cert>>,
    name: Option<ServerName<'static>>,
    trust: Mutex<Trust>,
    told: AtomicU64,
}

/// What follows from whose certificates are believed.
struct Trust {
    /// The file's content.
    ca: Option<Vec<u8>>,
    /// Of which each target has a copy of its own, as it has sessions of its own.
    base: ClientConfig,
    /// Of targets that were found by their names.
    names: HashMap<SocketAddr, ServerName<'static>>,
    targets: HashMap<(SocketAddr, Offer), Arc<ClientConfig>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Connector {
    /// `before`: the upstream's last one, which is kept if nothing changed.
    pub fn new(
        settings: &UpstreamTls,
        cert: Option<Arc<Cert>>,
        before: Option<&Arc<Connector>>,
    ) -> Result<Arc<Connector>, AcceptorError> {
        let ca = settings.ca.as_deref().map(trust::read).transpose()?;
        if let Some(before) = before
            && before.settings == *settings
            && before.lock().ca == ca
            && before.cert.as_ref().map(Arc::as_ptr) == cert.as_ref().map(Arc::as_ptr)
        {
            return Ok(before.clone());
        }
        let name = match &settings.sni {
            Some(name) => {
                Some(ServerName::try_from(name.clone()).map_err(|_| AcceptorError::BadName(name.clone()))?)
            }
            None => None,
        };
        let base = client_config(settings, ca.as_deref(), cert.clone())?;
        let trust = Mutex::new(Trust { ca, base, names: HashMap::new(), targets: HashMap::new() });
        Ok(Arc::new(Connector { settings: settings.clone(), cert, name, trust, told: AtomicU64::new(0) }))
    }

    fn lock(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads whose certificates are believed again. Whether that has changed. Connections that were made before stay.
    ///
    /// # Errors
    /// The file cannot be used; what was in it before still counts.
    pub fn refresh_authorities(&self) -> Result<bool, AcceptorError> {
        let Some(path) = self.file() else { return Ok(false) };
        let ca = Some(trust::read(path)?);
        let mut trust = self.lock();
        if trust.ca == ca {
            return Ok(false);
        }
        let base = client_config(&self.settings, ca.as_deref(), self.cert.clone())?;
        let names = std::mem::take(&mut trust.names);
        *trust = Trust { ca, base, names, targets: HashMap::new() };
        Ok(true)
    }

    /// That of the authorities.
    pub fn file(&self) -> Option<&Path> {
        self.settings.ca.as_deref()
    }

    /// After a certificate changed: sessions stand for the one that was shown when they began.
    pub fn forget(&self) {
        self.lock().targets.clear();
    }

    /// Shakes hands with the target at `addr`, offering `alpn`. The caller bounds the time.
    pub async fn connect(&self, stream: TcpStream, addr: SocketAddr, alpn: Offer) -> io::Result<TlsStream> {
        let (config, found) = self.config_for(addr, alpn);
        let name = self.name.clone().or(found).unwrap_or_else(|| ServerName::from(addr.ip()));
        let connector = TlsConnector::from(config);
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                self.tell(addr, &error);
                Err(error)
            }
        }
    }

    /// By which names targets were found: their certificates are for these, unless `sni` says another.
    pub fn name_targets(&self, found: impl Iterator<Item = (SocketAddr, String)>) {
        let names = found.filter_map(|(addr, name)| Some((addr, ServerName::try_from(name).ok()?)));
        let names: HashMap<_, _> = names.collect();
        let mut trust = self.lock();
        let Trust { names: known, targets, .. } = &mut *trust;
        // Sessions are of a name.
        targets.retain(|(addr, _), _| known.get(addr) == names.get(addr));
        *known = names;
    }

    fn config_for(&self, addr: SocketAddr, alpn: Offer) -> (Arc<ClientConfig>, Option<ServerName<'static>>) {
        let mut trust = self.lock();
        let Trust { base, targets, names, .. } = &mut *trust;
        if targets.len() >= MOST_TARGETS {
            targets.clear();
        }
        let fresh = || {
            let mut config = base.clone();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        (targets.entry((addr, alpn)).or_insert_with(fresh).clone(), names.get(&addr).cloned())
    }

    fn tell(&self, target: SocketAddr, error: &io::Error) {
        let (now, told) = (now_ms(), self.told.load(Relaxed));
        let due = told == 0 || now.saturating_sub(told) >= QUIET_MS;
        if due && self.told.compare_exchange(told, now.max(1), Relaxed, Relaxed).is_ok() {
            tracing::warn!(%target, %error, "TLS with an upstream failed");
        }
    }
}

fn client_config(
    settings: &UpstreamTls,
    ca: Option<&[u8]>,
    cert: Option<Arc<Cert>>,
) -> Result<ClientConfig, AcceptorError> {
    let versions: &[_] = match settings.min {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match (settings.verify, &settings.ca, ca) {
        (false, _, _) => builder.dangerous().with_custom_certificate_verifier(Arc::new(trust::Anyone)),
        (true, Some(path), Some(pem)) => builder.with_root_certificates(trust::authorities(path, pem)?),
        (true, _, _) => builder.with_root_certificates(trust::of_the_system()?),
    };
    Ok(match cert {
        Some(cert) => builder.with_client_cert_resolver(Arc::new(Shown(cert))),
        None => builder.with_no_client_auth(),
    })
}

/// The client certificate, as it is in its files now.
#[derive(Debug)]
struct Shown(Arc<Cert>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.pair()?.key.clone();
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
