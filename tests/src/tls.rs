//! A client that speaks TLS, for what curl does not tell.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};

use crate::{certs::Issued, net::Node};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a client trusts, shows, offers, and remembers: clones share their session tickets.
#[derive(Debug, Clone)]
pub struct TlsClient(Arc<ClientConfig>);

pub type TlsConnection = StreamOwned<ClientConnection, TcpStream>;

impl TlsClient {
    /// `ca`: PEM. `shown`: a client certificate.
    pub fn new(ca: &str, shown: Option<&Issued>, alpn: &[&str]) -> Result<TlsClient> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(authority?)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => builder.with_client_auth_cert(
                CertificateDer::pem_slice_iter(shown.chain.as_bytes()).collect::<Result<_, _>>()?,
                PrivateKeyDer::from_pem_slice(shown.key.as_bytes())?,
            )?,
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsClient(Arc::new(config)))
    }

    /// One whose every handshake is a whole one.
    pub fn without_resumption(&self) -> TlsClient {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::disabled();
        TlsClient(Arc::new(config))
    }

    /// One for which no time passes: it believes its tickets to be good for ever.
    pub fn timeless(&self) -> TlsClient {
        let mut config = ClientConfig::clone(&self.0);
        config.time_provider = Arc::new(Then(UnixTime::now()));
        TlsClient(Arc::new(config))
    }

    /// Connects and shakes hands.
    pub fn connect(&self, node: &Node, at: SocketAddr, name: &str) -> Result<TlsConnection> {
        self.over(node.namespace.run(|| TcpStream::connect_timeout(&at, PATIENCE))??, name)
    }

    /// Shakes hands on a connection.
    pub fn over(&self, stream: TcpStream, name: &str) -> Result<TlsConnection> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned())?;
        let mut connection = StreamOwned::new(ClientConnection::new(self.0.clone(), name)?, stream);
        while connection.conn.is_handshaking() {
            connection.conn.complete_io(&mut connection.sock).context("handshake")?;
        }
        Ok(connection)
    }

    /// One request on a connection of its own; whether the session was resumed, and the answer.
    pub fn get(&self, node: &Node, at: SocketAddr, name: &str) -> Result<(bool, String)> {
        let mut connection = self.connect(node, at, name)?;
        write!(connection, "GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        // Fails unless the end is told by close_notify.
        connection.read_to_end(&mut answer).context("answer")?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok((connection.conn.handshake_kind() == Some(HandshakeKind::Resumed), answer))
    }
}

/// A clock that stands.
#[derive(Debug)]
struct Then(UnixTime);

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// The certificate that the other side showed, as DER.
pub fn shown(connection: &TlsConnection) -> Option<Vec<u8>> {
    Some(connection.conn.peer_certificates()?.first()?.to_vec())
}

/// The first certificate of a PEM.
pub fn der(pem: &str) -> Result<Vec<u8>> {
    Ok(CertificateDer::from_pem_slice(pem.as_bytes())?.to_vec())
}
