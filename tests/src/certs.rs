//! Certificates made for a test.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

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
    serial: u64,
}

/// The next certificate's; never small, as those of real ones are not.
static SERIAL: AtomicU64 = AtomicU64::new(0x7100_0000_0000_0001);

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

    /// As a public authority issues them: for less than three months, and with where to ask for revocations.
    pub fn issue_public(&self, key: KeyPair, names: &[&str]) -> Result<Issued> {
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("lab"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let uris = vec!["http://crl.test/lab.crl".to_owned()];
        params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        params.not_before = (now - day).into();
        params.not_after = (now + 80 * day).into();
        self.sign_as(params, key)
    }

    /// A client's, with this subject, and this URI where there is one, such as a SPIFFE id.
    pub fn issue_client(&self, common_name: &str, uri: Option<&str>) -> Result<Issued> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names =
            uri.into_iter().map(|uri| Ok(SanType::URI(uri.try_into()?))).collect::<Result<_>>()?;
        self.sign(params, KeyPair::generate()?, 4000)
    }

    fn issue_for(&self, key: KeyPair, names: &[&str], year: i32) -> Result<Issued> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "lab");
        self.sign(params, key, year)
    }

    fn sign(&self, mut params: CertificateParams, key: KeyPair, year: i32) -> Result<Issued> {
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        self.sign_as(params, key)
    }

    fn sign_as(&self, mut params: CertificateParams, key: KeyPair) -> Result<Issued> {
        params.use_authority_key_identifier_extension = true;
        let serial = SERIAL.fetch_add(1, Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        let chain = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { chain, key: key.serialize_pem(), serial })
    }

    /// A list of certificates that count no more, PEM, good until the beginning of a year.
    pub fn revoke(&self, revoked: &[&Issued], until: i32) -> Result<String> {
        let at = |year| date_time_ymd(year, 1, 1);
        let entry = |issued: &&Issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: at(2024),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: at(2024),
            next_update: at(until),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

impl Issued {
    /// As NAME.pem and NAME.key.
    pub fn write(&self, directory: &Path, name: &str) -> Result<()> {
        std::fs::write(directory.join(format!("{name}.pem")), &self.chain)?;
        let key = directory.join(format!("{name}.key"));
        std::fs::write(&key, &self.key)?;
        Ok(std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600))?)
    }
}
