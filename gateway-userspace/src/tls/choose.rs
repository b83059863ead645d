//! Which certificate a client gets: by the name it asks for (SNI) and the names in the certificates.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    acme::{ALPN, Challenges},
    cert::Cert,
};

#[derive(Debug)]
pub struct Chooser {
    pub certs: Vec<Arc<Cert>>,
    index: ArcSwap<Index>,
    /// Where certificates are got by ACME.
    challenges: Option<Arc<Challenges>>,
}

/// Candidates by name, in the config's order: several where keys differ in kind (ECDSA and RSA).
#[derive(Debug, Default)]
struct Index {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// `*.example.com` as `example.com`.
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Chooser {
    pub fn new(certs: Vec<Arc<Cert>>, challenges: Option<Arc<Challenges>>) -> Self {
        let index = ArcSwap::from_pointee(Index::of(&certs));
        Chooser { certs, index, challenges }
    }

    /// After a certificate changed.
    pub fn choose_anew(&self) {
        self.index.store(Arc::new(Index::of(&self.certs)));
    }
}

impl Index {
    fn of(certs: &[Arc<Cert>]) -> Index {
        let mut index = Index::default();
        for pair in certs.iter().filter_map(|cert| cert.pair()) {
            index.add(&pair.facts.names, &pair.key);
        }
        index
    }

    fn add(&mut self, names: &[String], key: &Arc<CertifiedKey>) {
        for name in names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, &**name),
            };
            map.entry(name.into()).or_default().push(key.clone());
        }
        self.all.push(key.clone());
    }

    /// An exact name before a wildcard, which stands for one label (RFC 9525 section 6.3); else any.
    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let named = name.and_then(|name| {
            let parent = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(parent)
        });
        named.map_or(&self.all, Vec::as_slice)
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(challenges) = &self.challenges
            && hello.alpn().is_some_and(|mut offered| offered.any(|name| name == ALPN))
        {
            return challenges.certificate(hello.server_name()?);
        }
        let index = self.index.load();
        let candidates = index.candidates(hello.server_name());
        let schemes = hello.signature_schemes();
        let usable = candidates.iter().find(|key| key.key.choose_scheme(schemes).is_some());
        usable.or(candidates.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{crypto::aws_lc_rs, pki_types::PrivateKeyDer};

    use super::*;

    fn key(name: &str) -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let der = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = aws_lc_rs::default_provider();
        Arc::new(CertifiedKey::from_der(vec![made.cert.der().clone()], der, &provider).unwrap())
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_the_first_certificate_is_for_the_rest() {
        let mut index = Index::default();
        let keys = ["first.test", "*.shop.test", "www.shop.test"].map(|name| {
            let key = key(name);
            index.add(&[name.to_owned()], &key);
            key
        });
        let chosen = |name: Option<&str>| {
            let chosen = &index.candidates(name)[0];
            keys.iter().position(|key| Arc::ptr_eq(key, chosen)).unwrap()
        };
        assert_eq!(chosen(Some("www.shop.test")), 2);
        assert_eq!(chosen(Some("api.shop.test")), 1);
        for other in
            [Some("a.b.shop.test"), Some("shop.test"), Some("elsewhere.test"), Some("first.test"), None]
        {
            assert_eq!(chosen(other), 0, "{other:?}");
        }
    }
}
