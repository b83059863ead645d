//! An issuer of tokens: keys that it publishes over HTTPS, and tokens that it signs with them.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs as provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};

use crate::{certs::Issued, net::Namespace};

/// base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key that signs tokens.
pub struct SigningKey {
    pub kid: String,
    pair: Pair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    pub fn es256(kid: &str) -> Result<SigningKey> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|error| anyhow!("{error}"))?;
        Ok(SigningKey { kid: kid.into(), pair: Pair::Es256(pair) })
    }

    pub fn rsa(kid: &str) -> Result<SigningKey> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|error| anyhow!("{error}"))?;
        Ok(SigningKey { kid: kid.into(), pair: Pair::Rsa(pair) })
    }

    pub fn ed25519(kid: &str) -> Result<SigningKey> {
        let pair = Ed25519KeyPair::generate().map_err(|error| anyhow!("{error}"))?;
        Ok(SigningKey { kid: kid.into(), pair: Pair::Ed25519(pair) })
    }

    /// Its public half (RFC 7517).
    pub fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "x": x, "y": y })
            }
            Pair::Rsa(pair) => {
                // RSAPublicKey in DER (RFC 8017 appendix A.1.1): of 2048 bits, the modulus is always in the same place.
                let modulus = &pair.public_key().as_ref()[9..9 + 256];
                json!({ "kty": "RSA", "kid": self.kid, "n": encode(modulus), "e": "AQAB" })
            }
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": encode(pair.public_key().as_ref()) })
            }
        }
    }

    /// Bytes that are public, as who wants to pass them for a secret would use them.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Es256(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// A token with the header that is usual.
    pub fn token(&self, claims: &Value) -> String {
        let algorithm = match &self.pair {
            Pair::Es256(_) => "ES256",
            Pair::Rsa(_) => "RS256",
            Pair::Ed25519(_) => "EdDSA",
        };
        self.token_with(&json!({ "alg": algorithm, "kid": self.kid, "typ": "JWT" }), claims)
    }

    /// A token that says this of itself, truly signed.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Es256(pair) => pair.sign(&random, signed.as_bytes()).map(|s| s.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding: &dyn aws_lc_rs::signature::RsaEncoding =
                    if header["alg"] == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(padding, &random, signed.as_bytes(), &mut signature).map(|()| signature)
            }
            Pair::Ed25519(pair) => Ok(pair.sign(signed.as_bytes()).as_ref().to_vec()),
        };
        format!("{signed}.{}", encode(signature.unwrap_or_default()))
    }
}

/// A token by a secret.
pub fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", encode(tag))
}

/// The server that publishes keys. It ends when it is dropped.
#[derive(Debug)]
pub struct Issuer {
    published: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    /// Serves at `at` in a namespace, with this certificate.
    pub fn start(
        namespace: &Namespace,
        at: SocketAddr,
        shown: &Issued,
        keys: &[&SigningKey],
    ) -> Result<Issuer> {
        let chain = CertificateDer::pem_slice_iter(shown.chain.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes())?;
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let listener = namespace.run(|| TcpListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let (published, asked, over) = (
            Arc::new(Mutex::new(String::new())),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (text, count, end, config) = (published.clone(), asked.clone(), over.clone(), Arc::new(config));
        let thread = std::thread::spawn(move || {
            while !end.load(Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let answer = || -> Result<()> {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                    let stream = StreamOwned::new(ServerConnection::new(config.clone())?, stream);
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    while stream.read_line(&mut line)? > 2 {
                        line.clear();
                    }
                    count.fetch_add(1, Relaxed);
                    let body = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
                    );
                    stream.get_mut().write_all(format!("{head}{body}").as_bytes())?;
                    stream.get_mut().conn.send_close_notify();
                    Ok(stream.get_mut().flush()?)
                };
                // A client that does not trust it goes away.
                let _ = answer();
            }
        });
        let issuer = Issuer { published, asked, over, thread: Some(thread) };
        issuer.publish(keys);
        Ok(issuer)
    }

    /// From now on these are its keys.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = json!({ "keys": keys }).to_string();
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
