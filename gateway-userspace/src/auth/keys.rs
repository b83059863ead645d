//! Keys that tokens are checked with (RFC 7517, RFC 7518 section 6, RFC 8037). What a key may be used for is fixed when it
//! is read, so what a token says of itself can only choose among that.

use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rsa::PublicKeyComponents,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use super::token::{Algorithm, Token};

/// More are left out.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    uses: Vec<(Algorithm, Verifier)>,
}

#[derive(Debug)]
enum Verifier {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

/// A key as it is published (RFC 7517 section 4).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

impl KeySet {
    /// From a JWK Set. Keys that are of no use here are left out (RFC 7517 section 5), secrets always: what is published
    /// is none.
    ///
    /// # Errors
    /// It is no set, or none of its keys can be used.
    pub fn published(json: &[u8], allowed: &[Algorithm]) -> Result<KeySet, String> {
        let set: Published =
            serde_json::from_slice(json).map_err(|error| format!("it is no JWK set: {error}"))?;
        let keys = set.keys.into_iter().take(MOST);
        let keys: Vec<Key> = keys
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
            .filter_map(|jwk| jwk.key(allowed))
            .collect();
        match keys.is_empty() {
            true => Err("it has no key for the algorithms that are allowed".into()),
            false => Ok(KeySet { keys }),
        }
    }

    /// One secret, for those of the algorithms that take one.
    pub fn secret(secret: &[u8], allowed: &[Algorithm]) -> KeySet {
        let uses = allowed.iter().filter_map(|algorithm| {
            let hmac = match algorithm {
                Algorithm::Hs256 => hmac::HMAC_SHA256,
                Algorithm::Hs384 => hmac::HMAC_SHA384,
                Algorithm::Hs512 => hmac::HMAC_SHA512,
                _ => return None,
            };
            Some((*algorithm, Verifier::Secret(Box::new(hmac::Key::new(hmac, secret)))))
        });
        KeySet { keys: vec![Key { kid: None, uses: uses.collect() }] }
    }

    /// Whether a key made the token. `None`: there is no key that it can be checked with.
    pub fn verify(&self, token: &Token<'_>) -> Option<bool> {
        let named = |key: &&Key| match (&token.kid, &key.kid) {
            (Some(wanted), Some(kid)) => wanted == kid,
            // A secret has no name; nor need a token that any key could have made.
            _ => token.kid.is_none() || matches!(key.uses.first(), Some((_, Verifier::Secret(_)))),
        };
        let mut fit = self.keys.iter().filter(named).filter_map(|key| key.of(token.algorithm));
        let first = fit.next()?;
        // Without a name, which one is meant must be beyond doubt.
        if token.kid.is_none() && fit.next().is_some() {
            return None;
        }
        Some(first.verify(token))
    }
}

impl Key {
    fn of(&self, algorithm: Algorithm) -> Option<&Verifier> {
        self.uses.iter().find(|(known, _)| *known == algorithm).map(|(_, verifier)| verifier)
    }
}

impl Verifier {
    fn verify(&self, token: &Token<'_>) -> bool {
        match self {
            Verifier::Public(key) => key.verify_sig(token.signed, &token.signature).is_ok(),
            // In constant time.
            Verifier::Secret(key) => hmac::verify(key, token.signed, &token.signature).is_ok(),
        }
    }
}

impl Jwk {
    fn key(&self, allowed: &[Algorithm]) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig")
            || self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
        {
            return None;
        }
        let named = match &self.alg {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        let fits = |algorithm: &&Algorithm| named.is_none_or(|named| named == **algorithm);
        let uses: Vec<(Algorithm, Verifier)> = allowed
            .iter()
            .filter(fits)
            .filter_map(|algorithm| Some((*algorithm, self.verifier(*algorithm)?)))
            .collect();
        (!uses.is_empty()).then(|| Key { kid: self.kid.clone(), uses })
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<Verifier> {
        let decode = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
        let (scheme, bytes): (&'static dyn VerificationAlgorithm, Vec<u8>) =
            match (&*self.kty, self.crv.as_deref(), algorithm) {
                ("RSA", ..) => {
                    let components = PublicKeyComponents { n: decode(&self.n)?, e: decode(&self.e)? };
                    (rsa(algorithm)?, components.as_der().ok()?.as_ref().to_vec())
                }
                ("EC", Some("P-256"), Algorithm::Es256) => {
                    (&signature::ECDSA_P256_SHA256_FIXED, point(decode(&self.x)?, decode(&self.y)?, 32)?)
                }
                ("EC", Some("P-384"), Algorithm::Es384) => {
                    (&signature::ECDSA_P384_SHA384_FIXED, point(decode(&self.x)?, decode(&self.y)?, 48)?)
                }
                ("EC", Some("P-521"), Algorithm::Es512) => {
                    (&signature::ECDSA_P521_SHA512_FIXED, point(decode(&self.x)?, decode(&self.y)?, 66)?)
                }
                ("OKP", Some("Ed25519"), Algorithm::EdDsa) => (&signature::ED25519, decode(&self.x)?),
                _ => return None,
            };
        ParsedPublicKey::new(scheme, bytes).ok().map(Verifier::Public)
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Uncompressed (SEC 1 section 2.3.3).
fn point(x: Vec<u8>, y: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
    };

    use super::*;

    pub fn encode(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A key of an issuer's: it signs, and its public half is published as this.
    pub fn es256(kid: &str) -> (impl Fn(&str) -> String, Value) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = pair.public_key().as_ref();
        let jwk = serde_json::json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": encode(&public[1..33]), "y": encode(&public[33..]) });
        let header = encode(format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#));
        let sign = move |claims: &str| {
            let signed = format!("{header}.{}", encode(claims));
            let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", encode(signature))
        };
        (sign, jwk)
    }

    fn set(keys: &[Value], allowed: &[Algorithm]) -> Result<KeySet, String> {
        KeySet::published(serde_json::json!({ "keys": keys }).to_string().as_bytes(), allowed)
    }

    fn verify(set: &KeySet, token: &str) -> Option<bool> {
        set.verify(&Token::parse(token.as_bytes()).unwrap())
    }

    #[test]
    fn a_key_verifies_what_it_signed_and_nothing_else() {
        let ((sign, jwk), (other, second)) = (es256("a"), es256("b"));
        let keys = set(&[jwk.clone(), second], &[Algorithm::Es256, Algorithm::Rs256]).unwrap();
        let token = sign("{}");
        assert_eq!(verify(&keys, &token), Some(true));
        assert_eq!(verify(&keys, &other("{}")), Some(true));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        assert_eq!(verify(&keys, &format!("{header}.{}.{signature}", encode(r#"{"x":1}"#))), Some(false));
        assert_eq!(verify(&keys, &format!("{signed}.{}", encode([0; 64]))), Some(false));
        assert_eq!(verify(&keys, &format!("{signed}.{}", encode([0; 3]))), Some(false));
        // A key of nobody's, and none at all where any of two could be meant.
        assert_eq!(verify(&keys, &es256("c").0("{}")), None);
        let nameless = format!("{}.{}.{signature}", encode(r#"{"alg":"ES256"}"#), encode("{}"));
        assert_eq!(verify(&keys, &nameless), None);
        assert_eq!(verify(&set(&[jwk], &[Algorithm::Es256]).unwrap(), &nameless), Some(false));
    }

    #[test]
    fn a_public_key_is_never_a_secret() {
        let (_, jwk) = es256("a");
        let all: Vec<Algorithm> = Algorithm::ALL.iter().map(|(algorithm, _)| *algorithm).collect();
        let public = jwk["x"].as_str().unwrap().to_owned();
        let keys = set(&[jwk], &all).unwrap();
        let signed = format!("{}.{}", encode(r#"{"alg":"HS256","kid":"a"}"#), encode("{}"));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), signed.as_bytes());
        assert_eq!(verify(&keys, &format!("{signed}.{}", encode(tag))), None);
        // Nor is what is published as a secret one.
        let oct = serde_json::json!({ "kty": "oct", "kid": "s", "k": encode("secret"), "alg": "HS256" });
        assert!(set(&[oct], &all).is_err());
    }

    #[test]
    fn a_key_is_used_only_for_what_it_says_and_is_allowed() {
        let (sign, mut jwk) = es256("a");
        assert!(set(std::slice::from_ref(&jwk), &[Algorithm::Rs256, Algorithm::EdDsa]).is_err());
        jwk["alg"] = "ES384".into();
        assert!(set(std::slice::from_ref(&jwk), &[Algorithm::Es256, Algorithm::Es384]).is_err());
        jwk["alg"] = "ES256".into();
        assert_eq!(
            verify(&set(std::slice::from_ref(&jwk), &[Algorithm::Es256]).unwrap(), &sign("{}")),
            Some(true)
        );
        jwk["use"] = "enc".into();
        assert!(set(&[jwk], &[Algorithm::Es256]).is_err());
        for odd in ["", "{}", "[]", r#"{"keys":1}"#, r#"{"keys":[1,{},{"kty":"EC"}]}"#] {
            assert!(KeySet::published(odd.as_bytes(), &[Algorithm::Es256]).is_err(), "{odd}");
        }
    }

    #[test]
    fn ed25519_and_secrets_verify_too() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": "e", "x": encode(pair.public_key().as_ref()) });
        let signed = format!("{}.{}", encode(r#"{"alg":"EdDSA","kid":"e"}"#), encode("{}"));
        let token = format!("{signed}.{}", encode(pair.sign(signed.as_bytes())));
        assert_eq!(verify(&set(&[jwk], &[Algorithm::EdDsa]).unwrap(), &token), Some(true));
        let signed = format!("{}.{}", encode(r#"{"alg":"HS512","kid":"any"}"#), encode("{}"));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, b"secret"), signed.as_bytes());
        let token = format!("{signed}.{}", encode(tag));
        assert_eq!(verify(&KeySet::secret(b"secret", &[Algorithm::Hs512]), &token), Some(true));
        assert_eq!(verify(&KeySet::secret(b"other", &[Algorithm::Hs512]), &token), Some(false));
        assert_eq!(verify(&KeySet::secret(b"secret", &[Algorithm::Hs256]), &token), None);
    }
}
