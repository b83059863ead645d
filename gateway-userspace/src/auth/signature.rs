//! Signed requests: HTTP Message Signatures (RFC 9421) by HMAC-SHA256, with the body's digest (RFC 9530), within a window of
//! time, and each only once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header, request};

use super::{Caller, gate::Asking, seen::Seen};
use crate::{config::units::Moment, observe::stats::AuthResult};

/// Of `Signature-Input`, and of `Signature`.
const LONGEST: usize = 4096;
/// Components that a signature covers, at most.
const MOST_COMPONENTS: usize = 32;

pub const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
pub const SIGNATURE: HeaderName = HeaderName::from_static("signature");
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// What a signature has to cover, however long the request is; with a body its digest as well.
const COVERED: [&str; 4] = ["@method", "@authority", "@path", "@query"];

#[derive(Debug)]
pub struct Signed {
    /// By `keyid`.
    pub keys: HashMap<String, SigningKey>,
    pub window: Duration,
    pub seen: Arc<Seen>,
}

#[derive(Debug)]
pub struct SigningKey {
    pub caller: Arc<Caller>,
    pub key: hmac::Key,
    pub until: Option<Moment>,
}

/// What a body must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyDigest {
    sha512: bool,
    value: Vec<u8>,
}

/// One member of `Signature-Input`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Input<'a> {
    label: &'a str,
    components: Vec<&'a str>,
    /// Everything behind the label: the value of `@signature-params`.
    params: &'a str,
    created: Option<u64>,
    expires: Option<u64>,
    keyid: Option<&'a str>,
    algorithm: Option<&'a str>,
}

impl Signed {
    pub fn check(&self, asking: &Asking<'_>) -> Result<Arc<Caller>, AuthResult> {
        let head = asking.head;
        let input = match (only(&head.headers, &SIGNATURE_INPUT)?, only(&head.headers, &SIGNATURE)?) {
            (None, None) => return Err(AuthResult::Missing),
            (Some(input), Some(signature)) => (input, signature),
            _ => return Err(AuthResult::Malformed),
        };
        let (input, signature) = (Input::parse(input.0).ok_or(AuthResult::Malformed)?, input.1);
        let tag = signature_of(signature, input.label).ok_or(AuthResult::Malformed)?;
        // The algorithm is the key's; one that is named beside must be that.
        if input.algorithm.is_some_and(|algorithm| algorithm != "hmac-sha256") {
            return Err(AuthResult::Signature);
        }
        let digest = covers(&input, head, asking.has_body)?;
        let key = input.keyid.and_then(|keyid| self.keys.get(keyid)).ok_or(AuthResult::Unknown)?;
        let base = base(&input, head).ok_or(AuthResult::Malformed)?;
        // In constant time.
        hmac::verify(&key.key, base.as_bytes(), &tag).map_err(|_| AuthResult::Signature)?;
        let now = asking.now.seconds;
        if key.until.is_some_and(|until| until <= asking.now) {
            return Err(AuthResult::Expired);
        }
        let until = self.fresh(&input, now)?;
        self.seen.once(&tag, until, now)?;
        Ok(match digest {
            None => key.caller.clone(),
            Some(digest) => Arc::new(Caller { body: Some(digest), ..(*key.caller).clone() }),
        })
    }

    /// Until when it could come again.
    fn fresh(&self, input: &Input<'_>, now: u64) -> Result<u64, AuthResult> {
        const AHEAD: u64 = 30;
        let created = input.created.ok_or(AuthResult::Claims)?;
        if created > now + AHEAD {
            return Err(AuthResult::Early);
        }
        let until = created.saturating_add(self.window.as_secs()).min(input.expires.unwrap_or(u64::MAX));
        if now >= until { Err(AuthResult::Expired) } else { Ok(until) }
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AuthResult> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) if field.len() <= LONGEST => {
            field.to_str().map(Some).map_err(|_| AuthResult::Malformed)
        }
        _ => Err(AuthResult::Malformed),
    }
}

/// The digest of the body, where there is one.
fn covers(
    input: &Input<'_>,
    head: &request::Parts,
    has_body: bool,
) -> Result<Option<BodyDigest>, AuthResult> {
    let covered = |wanted: &str| input.components.contains(&wanted);
    let query = |wanted: &&&str| **wanted != "@query" || head.uri.query().is_some();
    if !COVERED.iter().filter(query).all(|wanted| covered(wanted)) {
        return Err(AuthResult::Claims);
    }
    let digest = only(&head.headers, &CONTENT_DIGEST)?;
    match digest {
        None if has_body => Err(AuthResult::Claims),
        None => Ok(None),
        Some(_) if !covered("content-digest") => Err(AuthResult::Claims),
        Some(text) => BodyDigest::parse(text).map(Some).ok_or(AuthResult::Malformed),
    }
}

/// RFC 9421 section 2.5. `None`: a component is not there, or not once.
fn base(input: &Input<'_>, head: &request::Parts) -> Option<String> {
    let mut base = String::new();
    for component in &input.components {
        let value = match *component {
            "@method" => head.method.as_str().to_owned(),
            "@authority" => head.headers.get(header::HOST)?.to_str().ok()?.to_ascii_lowercase(),
            "@path" => head.uri.path().to_owned(),
            "@query" => format!("?{}", head.uri.query().unwrap_or_default()),
            derived if derived.starts_with('@') => return None,
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                let mut values = Vec::new();
                for value in head.headers.get_all(name) {
                    values.push(value.to_str().ok()?.trim());
                }
                if values.is_empty() {
                    return None;
                }
                values.join(", ")
            }
        };
        base.push_str(&format!("\"{component}\": {value}\n"));
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(input.params);
    Some(base)
}

impl<'a> Input<'a> {
    /// A dictionary of one inner list of strings, with parameters (RFC 8941 section 3.2). Components have no parameters.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (label, params) = text.split_once('=')?;
        if !is_key(label) {
            return None;
        }
        let (list, mut rest) = params.strip_prefix('(')?.split_once(')')?;
        let mut components = Vec::new();
        for item in list.split(' ').filter(|item| !item.is_empty()) {
            let name = item.strip_prefix('"')?.strip_suffix('"')?;
            let plain = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_@.!#$%&'*+^`|~".contains(&byte)
            };
            if name.is_empty() || !name.bytes().all(plain) || components.contains(&name) {
                return None;
            }
            components.push(name);
        }
        if components.len() > MOST_COMPONENTS {
            return None;
        }
        let mut input =
            Input { label, components, params, created: None, expires: None, keyid: None, algorithm: None };
        while let Some(param) = rest.strip_prefix(';') {
            let (key, value) = param.trim_start_matches(' ').split_once('=')?;
            let (value, after) = match value.strip_prefix('"') {
                Some(text) => {
                    let (text, after) = text.split_once('"')?;
                    // What is escaped has no place in what is asked for here.
                    if text.contains('\\') || !text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
                        return None;
                    }
                    (text, after)
                }
                None => {
                    let end = value.find(';').unwrap_or(value.len());
                    let (number, after) = value.split_at_checked(end)?;
                    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                        return None;
                    }
                    (number, after)
                }
            };
            let twice = match key {
                "created" => input.created.replace(value.parse().ok()?).is_some(),
                "expires" => input.expires.replace(value.parse().ok()?).is_some(),
                "keyid" => input.keyid.replace(value).is_some(),
                "alg" => input.algorithm.replace(value).is_some(),
                "nonce" | "tag" => false,
                _ => return None,
            };
            if twice {
                return None;
            }
            rest = after;
        }
        rest.is_empty().then_some(input)
    }
}

fn is_key(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

/// `label=:base64:` (RFC 8941 section 3.3.5).
pub fn signature_of(text: &str, label: &str) -> Option<Vec<u8>> {
    let value = text.trim().strip_prefix(label)?.strip_prefix("=:")?.strip_suffix(':')?;
    STANDARD.decode(value).ok()
}

impl BodyDigest {
    /// `sha-256=:base64:` or `sha-512=:base64:` (RFC 9530 section 2).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (sha512, length) = match text.split_once('=')?.0 {
            "sha-256" => (false, 32),
            "sha-512" => (true, 64),
            _ => return None,
        };
        let value = signature_of(text, if sha512 { "sha-512" } else { "sha-256" })?;
        (value.len() == length).then_some(BodyDigest { sha512, value })
    }

    pub fn is_of(&self, body: &[u8]) -> bool {
        let algorithm = if self.sha512 { &digest::SHA512 } else { &digest::SHA256 };
        digest::digest(algorithm, body).as_ref() == self.value
    }
}

impl SigningKey {
    pub fn new(caller: Arc<Caller>, secret: &[u8], until: Option<Moment>) -> Self {
        SigningKey { caller, key: hmac::Key::new(hmac::HMAC_SHA256, secret), until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_one_list_of_components_with_known_parameters() {
        let text = r#"sig1=("@method" "x-a");created=1618884473;keyid="acme/k1";alg="hmac-sha256";nonce="n";expires=5"#;
        let input = Input::parse(text).unwrap();
        assert_eq!((input.label, &input.components[..]), ("sig1", &["@method", "x-a"][..]));
        assert_eq!(
            (input.created, input.expires, input.keyid),
            (Some(1_618_884_473), Some(5), Some("acme/k1"))
        );
        assert_eq!(input.params, &text["sig1=".len()..]);
        for wrong in [
            "",
            "sig1",
            "sig1=",
            "sig1=()x",
            "sig1=(\"a\"",
            "sig1=(a)",
            "sig1=(\"a\";sf)",
            "sig1=(\"A\")",
            "sig1=(\"a\" \"a\")",
            "sig1=(\"a\");created=x",
            "sig1=(\"a\");created=-1",
            "sig1=(\"a\");created=1;created=2",
            "sig1=(\"a\");keyid=\"a\\\"b\"",
            "sig1=(\"a\");keyid=\"a",
            "sig1=(\"a\");other=1",
            "sig1=(\"a\"), sig2=(\"a\")",
            "Sig=(\"a\")",
        ] {
            assert_eq!(Input::parse(wrong), None, "{wrong}");
        }
    }

    /// RFC 9421 appendix B.2.5: its key, its request, its signature.
    #[test]
    fn the_vector_of_the_rfc_verifies() {
        let secret =
            "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
        let head = http::Request::post("/foo?param=Value&Pet=dog")
            .header("host", "example.com")
            .header("date", "Tue, 20 Apr 2021 02:07:55 GMT")
            .header("content-type", "application/json");
        let head = head.body(()).unwrap().into_parts().0;
        let input = Input::parse(
            r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
        );
        let base = base(&input.unwrap(), &head).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(secret).unwrap());
        let tag = signature_of("sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:", "sig-b25").unwrap();
        assert!(hmac::verify(&key, base.as_bytes(), &tag).is_ok(), "{base}");
    }

    #[test]
    fn digests_are_of_known_kinds_and_whole() {
        let digest = BodyDigest::parse("sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:").unwrap();
        assert!(digest.is_of(br#"{"hello": "world"}"#) && !digest.is_of(b""));
        for wrong in [
            "",
            "sha-256=:AAAA:",
            "md5=:AAAA:",
            "sha-256=X48E",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:, sha-512=:x:",
        ] {
            assert_eq!(BodyDigest::parse(wrong), None, "{wrong}");
        }
    }
}
