//! SCRAM (RFC 5802, RFC 7677): a password is proven without being sent, and the other side proves that it knows it.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// More than anybody needs: a broker shall not keep us busy.
const MOST_ITERATIONS: u32 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// One authentication.
pub struct Exchange {
    hash: Hash,
    nonce: String,
    first: String,
    /// What the server must prove itself with.
    signature: Option<hmac::Tag>,
}

impl Exchange {
    pub fn new(hash: Hash, user: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Exchange { hash, first: format!("n={user},r={nonce}"), nonce, signature: None }
    }

    /// `client-first-message`
    pub fn first(&self) -> String {
        format!("n,,{}", self.first)
    }

    /// `client-final-message`. `None`: that is no `server-first-message`.
    pub fn last(&mut self, server: &[u8], password: &[u8]) -> Option<String> {
        let server = std::str::from_utf8(server).ok()?;
        let Challenge { nonce, salt, iterations } = challenge(server)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return None;
        }
        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(self.hash.pbkdf2(), iterations, &salt, password, &mut salted);
        let keyed = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(self.hash.hmac(), key), text);
        let client_key = keyed(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        // "biws" is "n,,".
        let without_proof = format!("c=biws,r={nonce}");
        let all = format!("{},{server},{without_proof}", self.first);
        let signed = keyed(stored_key.as_ref(), all.as_bytes());
        let server_key = keyed(&salted, b"Server Key");
        self.signature = Some(keyed(server_key.as_ref(), all.as_bytes()));
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signed.as_ref()).map(|(a, b)| a ^ b).collect();
        Some(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether a `server-final-message` is of one that knows the password.
    pub fn is_proven(&self, server: &[u8]) -> bool {
        let proof = std::str::from_utf8(server).ok().and_then(|text| text.strip_prefix("v="));
        let proof = proof.and_then(|text| STANDARD.decode(text.split(',').next().unwrap_or(text)).ok());
        match (proof, &self.signature) {
            (Some(proof), Some(signature)) => {
                constant_time::verify_slices_are_equal(&proof, signature.as_ref()).is_ok()
            }
            _ => false,
        }
    }
}

#[derive(Debug)]
pub struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

/// A `server-first-message`.
pub fn challenge(text: &str) -> Option<Challenge<'_>> {
    let mut fields = text.split(',');
    let mut field = |name: &str| fields.next()?.strip_prefix(name);
    let (nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
    let iterations: NonZeroU32 = iterations.parse().ok()?;
    let salt = STANDARD.decode(salt).ok()?;
    (iterations.get() <= MOST_ITERATIONS).then_some(Challenge { nonce, salt, iterations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_example_of_rfc_7677() {
        let mut exchange = Exchange::new(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(exchange.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server =
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(
            exchange.last(server, b"pencil").unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(exchange.is_proven(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!exchange.is_proven(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!exchange.is_proven(b"e=invalid-proof"));
    }

    #[test]
    fn a_server_with_another_nonce_or_endless_work_is_none() {
        for wrong in [
            "r=abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=xbcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            "r=abcd,s=?,i=4096",
            "m=x,r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "",
        ] {
            let mut exchange = Exchange::new(Hash::Sha512, "user", "abc".into());
            assert_eq!(exchange.last(wrong.as_bytes(), b"pencil"), None, "{wrong}");
        }
        assert!(!Exchange::new(Hash::Sha256, "a,b=c", "abc".into()).is_proven(b"v="));
    }
}
