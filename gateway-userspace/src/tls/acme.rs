//! What an ACME authority (RFC 8555) finds when it looks whether a name is ours.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{crypto::aws_lc_rs, pki_types::PrivateKeyDer, sign::CertifiedKey};

/// RFC 8737 section 3.
pub const ALPN: &[u8] = b"acme-tls/1";

/// RFC 8555 section 8.3.
const HTTP_PATH: &str = "/.well-known/acme-challenge/";

/// Answers to the challenges at hand. Read by workers, written by the control thread.
#[derive(Debug, Default)]
pub struct Challenges(ArcSwap<Answers>);

#[derive(Debug, Default, Clone)]
struct Answers {
    /// tls-alpn-01, by host name.
    certificates: HashMap<String, Arc<CertifiedKey>>,
    /// http-01: key authorizations by token.
    tokens: HashMap<String, Arc<str>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    #[error("the challenge's certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the challenge's certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// Takes an answer back when dropped.
#[derive(Debug)]
pub struct Answering {
    challenges: Arc<Challenges>,
    key: String,
}

impl Challenges {
    pub(super) fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificates.get(host).cloned()
    }

    /// What is to be sent for this path.
    pub fn at(&self, path: &str) -> Option<Arc<str>> {
        self.0.load().tokens.get(path.strip_prefix(HTTP_PATH)?).cloned()
    }

    /// tls-alpn-01: `digest` is that of the key authorization.
    ///
    /// # Errors
    /// No certificate can be made for this name.
    pub fn answer_tls(self: &Arc<Self>, host: &str, digest: &[u8]) -> Result<Answering, ChallengeError> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let chain = vec![params.self_signed(&key)?.der().clone()];
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        // The pair fits. To check that would be to read the certificate, whose extension is critical and known to few.
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(der)?;
        let pair = Arc::new(CertifiedKey::new(chain, key));
        Ok(self.change(host, |answers, host| drop(answers.certificates.insert(host, pair.clone()))))
    }

    /// http-01.
    pub fn answer_http(self: &Arc<Self>, token: &str, authorization: &str) -> Answering {
        let text: Arc<str> = authorization.into();
        self.change(token, |answers, token| drop(answers.tokens.insert(token, text.clone())))
    }

    fn change(self: &Arc<Self>, key: &str, add: impl Fn(&mut Answers, String)) -> Answering {
        self.0.rcu(|answers| {
            let mut answers = Answers::clone(answers);
            add(&mut answers, key.to_owned());
            answers
        });
        Answering { challenges: self.clone(), key: key.to_owned() }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.challenges.0.rcu(|answers| {
            let mut answers = Answers::clone(answers);
            answers.certificates.remove(&self.key);
            answers.tokens.remove(&self.key);
            answers
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_for_as_long_as_it_is_held() {
        let challenges = Arc::new(Challenges::default());
        let path = "/.well-known/acme-challenge/token";
        let http = challenges.answer_http("token", "token.thumb");
        let tls = challenges.answer_tls("a.example", &[7; 32]).unwrap();
        assert_eq!(challenges.at(path).as_deref(), Some("token.thumb"));
        for other in ["/token", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/token/"] {
            assert_eq!(challenges.at(other), None);
        }
        assert!(
            challenges.certificate("a.example").is_some() && challenges.certificate("b.example").is_none()
        );
        drop((http, tls));
        assert!(challenges.at(path).is_none() && challenges.certificate("a.example").is_none());
    }
}
