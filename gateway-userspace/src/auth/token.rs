//! Signed tokens in their compact form: taken apart, strictly (RFC 7515 section 7.1, RFC 7519, RFC 8725).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};

/// A longer one is none.
pub const LONGEST: usize = 8192;

/// How a token may be signed. There is no "none": it cannot even be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By their names (RFC 7518 section 3.1, RFC 8037 section 3.1).
    pub const ALL: [(Algorithm, &'static str); 13] = [
        (Algorithm::Hs256, "HS256"),
        (Algorithm::Hs384, "HS384"),
        (Algorithm::Hs512, "HS512"),
        (Algorithm::Rs256, "RS256"),
        (Algorithm::Rs384, "RS384"),
        (Algorithm::Rs512, "RS512"),
        (Algorithm::Ps256, "PS256"),
        (Algorithm::Ps384, "PS384"),
        (Algorithm::Ps512, "PS512"),
        (Algorithm::Es256, "ES256"),
        (Algorithm::Es384, "ES384"),
        (Algorithm::Es512, "ES512"),
        (Algorithm::EdDsa, "EdDSA"),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Algorithm::ALL.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    pub fn name(self) -> &'static str {
        Algorithm::ALL[self as usize].1
    }

    /// Signed by who checks it too.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
    }
}

/// A token whose signature was not checked yet: nothing in it is to be believed.
#[derive(Debug)]
pub struct Token<'a> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    /// In lower case, without `application/`.
    pub kind: Option<String>,
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
    payload: Vec<u8>,
}

/// Only what is read. A key that a token brings along (`jwk`, `x5c`) or points to (`jku`, `x5u`) is never looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'a> Token<'a> {
    /// `None`: it is none.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut parts = text.split(|byte| *byte == b'.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || signature.is_empty() {
            return None;
        }
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).ok();
        // Of a field that is there twice serde makes an error.
        let Header { alg, kid, typ, crit } = serde_json::from_slice(&decode(header)?).ok()?;
        // RFC 7515 section 4.1.11: what must be understood, and is not.
        if crit.is_some() {
            return None;
        }
        let kind = typ.map(|typ| {
            let typ = typ.to_ascii_lowercase();
            typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
        });
        Some(Token {
            algorithm: Algorithm::named(&alg)?,
            kid,
            kind,
            signed: text.get(..header.len() + 1 + payload.len())?,
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }

    /// What it says, for who has checked the signature. `None`: it is no object.
    pub fn claims(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(&self.payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str, signature: &[u8]) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        format!("{}.{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()), encode(signature))
    }

    #[test]
    fn algorithms_are_at_their_places() {
        for (at, (algorithm, name)) in Algorithm::ALL.iter().enumerate() {
            assert_eq!((*algorithm as usize, Algorithm::named(name)), (at, Some(*algorithm)));
        }
    }

    #[test]
    fn a_token_is_three_parts_with_a_known_algorithm_and_nothing_that_must_be_understood() {
        let good = token(
            r#"{"alg":"ES256","kid":"k","typ":"application/AT+jwt","jku":"https://evil.test"}"#,
            "{}",
            b"s",
        );
        let parsed = Token::parse(good.as_bytes()).unwrap();
        assert_eq!((parsed.algorithm, parsed.kid.as_deref()), (Algorithm::Es256, Some("k")));
        assert_eq!(parsed.kind.as_deref(), Some("at+jwt"));
        assert_eq!(parsed.signed, good.rsplit_once('.').unwrap().0.as_bytes());
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":"es256"}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":["ES256"]}"#,
            r#"{"alg":"ES256","alg":"HS256"}"#,
            r#"{"alg":"ES256","kid":"a","kid":"b"}"#,
            r#"{"alg":"ES256","kid":1}"#,
            r#"{"alg":"ES256","b64":false,"crit":["b64"]}"#,
            r#"{"alg":"ES256"} x"#,
            "[]",
            "",
        ] {
            assert!(Token::parse(token(header, "{}", b"s").as_bytes()).is_none(), "{header}");
        }
        for text in [
            "",
            ".",
            "..",
            "a.b.c",
            &good[1..],
            &format!("{good}="),
            &format!("{good}.x"),
            &format!("{good} "),
        ] {
            assert!(Token::parse(text.as_bytes()).is_none(), "{text}");
        }
        // No signature, and one with bits that nothing says.
        let (unsigned, _) = good.rsplit_once('.').unwrap();
        assert!(Token::parse(format!("{unsigned}.").as_bytes()).is_none());
        assert!(Token::parse(format!("{unsigned}.cx").as_bytes()).is_none());
        assert!(
            Token::parse(
                token(&format!(r#"{{"alg":"ES256","x":"{}"}}"#, "x".repeat(9000)), "{}", b"s").as_bytes()
            )
            .is_none()
        );
    }
}
