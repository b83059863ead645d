//! Whose certificates are believed.

use std::{fs, path::Path, sync::OnceLock};

use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime, pem::PemObject},
};

use super::acceptor::AcceptorError;

/// The authorities in a PEM that was read from `path`.
pub fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, AcceptorError> {
    let bad = |error: String| AcceptorError::BadAuthority { path: path.to_owned(), error };
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem) {
        let authority = authority.map_err(|error| bad(error.to_string()))?;
        roots.add(authority).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("there is no -----BEGIN CERTIFICATE-----".into()));
    }
    Ok(roots)
}

/// The revocation lists in a PEM that was read from `path`.
pub fn revoked(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, AcceptorError> {
    let bad = |error: String| AcceptorError::BadList { path: path.to_owned(), error };
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.map_err(|error| bad(error.to_string()))?;
    if lists.is_empty() { Err(bad("there is no -----BEGIN X509 CRL-----".into())) } else { Ok(lists) }
}

/// Those of the system, read when they are first asked for. A few that cannot be used are no reason to do without the
/// rest.
pub fn of_the_system() -> Result<RootCertStore, AcceptorError> {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    if roots.is_empty() { Err(AcceptorError::NoAuthorities) } else { Ok(roots.clone()) }
}

pub fn read(path: &Path) -> Result<Vec<u8>, AcceptorError> {
    fs::read(path).map_err(|error| AcceptorError::Read { path: path.to_owned(), error })
}

/// Takes any certificate, for `verify = false`. Whoever shows it must still have its key.
#[derive(Debug)]
pub struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
