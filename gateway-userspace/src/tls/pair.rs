//! A certificate chain and its key, read and checked.

use std::{fs, io, path::PathBuf, sync::Arc};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::store::purpose;
use crate::{
    config::model::Cert,
    seal::{self, FileError, SecretError, Vault},
};

/// No chain is larger; what is, is something else.
const MOST: u64 = 1 << 20;

/// What handshakes use, and what people want to know of it.
#[derive(Debug)]
pub struct Pair {
    pub key: Arc<CertifiedKey>,
    pub facts: Facts,
}

/// What a certificate says of itself. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Host names and addresses that it is for, in lower case.
    pub names: Vec<String>,
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal.
    pub serial: String,
    pub not_before: i64,
    pub not_after: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} is larger than 1 MiB: it is no certificate", path.display())]
    TooLarge { path: PathBuf },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Kept(#[from] FileError),
    #[error("{} has no certificate in PEM (-----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} is not a certificate: {error}", path.display())]
    BadCertificate { path: PathBuf, error: String },
    #[error("the key in {place} cannot be used: {error}")]
    BadKey { place: String, error: String },
    #[error("the key in {place} is not that of the certificate in {}", chain.display())]
    Mismatch { place: String, chain: PathBuf },
}

impl PairError {
    /// It is there, and sealed with a key that is not ours.
    pub fn is_sealed(&self) -> bool {
        matches!(self, PairError::Kept(error) if error.is_sealed())
    }
}

impl Pair {
    /// `vault`: what a pair that came by ACME is sealed with.
    pub fn read(name: &str, config: &Cert, vault: &Vault) -> Result<Pair, PairError> {
        let path = config.chain.clone();
        let (pem, key) = if config.issued.is_some() {
            let missing = || FileError::new(&path, io::Error::from(io::ErrorKind::NotFound));
            let both = vault.read(&path, &purpose(&path))?.ok_or_else(missing)?.plain;
            (both.clone(), both)
        } else {
            let pem = Zeroizing::new(read(&path)?);
            let warn = |error: SecretError| tracing::warn!(cert = name, "the certificate's key: {error}");
            (pem, seal::read_telling(&config.key, warn)?)
        };
        let bad = |error: String| PairError::BadCertificate { path: path.clone(), error };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| bad(e.to_string()))?;
        let Some(leaf) = chain.first() else { return Err(PairError::NoCertificate { path }) };
        let facts = Facts::of(leaf).map_err(bad)?;
        let place = seal::place(&config.key);
        let bad_key = |error: String| PairError::BadKey { place: place.clone(), error };
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| bad_key(e.to_string()))?;
        let key = match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(key) => key,
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(PairError::Mismatch { place, chain: path });
            }
            Err(error) => return Err(bad_key(error.to_string())),
        };
        Ok(Pair { key: Arc::new(key), facts })
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, PairError> {
    let failed = |error| PairError::Read { path: path.clone(), error };
    if fs::metadata(path).map_err(failed)?.len() > MOST {
        return Err(PairError::TooLarge { path: path.clone() });
    }
    fs::read(path).map_err(failed)
}

impl Facts {
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Result<Facts, String> {
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let alternative = cert.subject_alternative_name().map_err(|error| error.to_string())?;
        let names = alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        Ok(Facts {
            names: names.iter().filter_map(name).collect(),
            subject: cert.subject().to_string(),
            issuer: cert.issuer().to_string(),
            serial: cert.raw_serial_as_string().replace(':', ""),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
        })
    }

    /// `now`: seconds since 1970.
    pub fn expired(&self, now: i64) -> bool {
        now > self.not_after
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            let v6 = || <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            v4.or_else(|_| v6()).ok()
        }
        _ => None,
    }
}
