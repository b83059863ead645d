//! Client certificates: whom the authorities of the listener have named. That a certificate is theirs, and not revoked, TLS
//! has made sure of.

use std::sync::Arc;

use aws_lc_rs::digest;
use x509_parser::{extensions::GeneralName, prelude::*};

use super::{Caller, consumers::Consumers, gate::Asking};
use crate::{config::model::CertMark, hex, observe::stats::AuthResult};

/// What a certificate says of who has it.
pub fn marks(der: &[u8]) -> Vec<CertMark> {
    let sum = digest::digest(&digest::SHA256, der);
    let mut marks = vec![CertMark::Sha256(hex::text(sum.as_ref()))];
    let Ok((_, cert)) = X509Certificate::from_der(der) else { return marks };
    marks.push(CertMark::Subject(cert.subject().to_string()));
    let names = cert.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    marks.extend(names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(CertMark::Dns(name.to_ascii_lowercase())),
        GeneralName::URI(uri) => Some(CertMark::Uri((*uri).to_owned())),
        GeneralName::RFC822Name(email) => Some(CertMark::Email((*email).to_owned())),
        _ => None,
    }));
    marks
}

pub fn check(consumers: &Consumers, asking: &Asking<'_>) -> Result<Arc<Caller>, AuthResult> {
    let marks = asking.marks.ok_or(AuthResult::Missing)?;
    let mut callers = marks.iter().filter_map(|mark| consumers.of_cert(mark));
    let first = callers.next().ok_or(AuthResult::Unknown)?;
    match callers.all(|other| Arc::ptr_eq(first, other)) {
        true => Ok(first.clone()),
        // Of two consumers.
        false => Err(AuthResult::Malformed),
    }
}
