//! Certificates made for a test.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority of the test's own.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "lab authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { pem, issuer: Issuer::new(params, key) })
    }

    /// P-256, for these host names and addresses.
    pub fn issue(&self, names: &[&str]) -> Result<Issued> {
        self.issue_until(names, 4000)
    }

    /// As [`Authority::issue`], with a key of RSA.
    pub fn issue_rsa(&self, names: &[&str]) -> Result<Issued> {
        self.issue_for(KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?, names, 4000)
    }

    /// As [`Authority::issue`], until the end of a year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Result<Issued> {
        self.issue_for(KeyPair::generate()?, names, year)
    }

    fn issue_for(&self, key: KeyPair, names: &[&str], year: i32) -> Result<Issued> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "lab");
        params.use_authority_key_identifier_extension = true;
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let chain = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { chain, key: key.serialize_pem() })
    }
}

impl Issued {
    /// As NAME.pem and NAME.key.
    pub fn write(&self, directory: &Path, name: &str) -> Result<()> {
        std::fs::write(directory.join(format!("{name}.pem")), &self.chain)?;
        std::fs::write(directory.join(format!("{name}.key")), &self.key)?;
        Ok(())
    }
}
