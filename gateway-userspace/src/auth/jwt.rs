//! JSON Web Tokens (RFC 7519, RFC 8725, RFC 9068): who made one, for whom, until when, and whom it names.

use std::{borrow::Cow, pin::Pin, sync::Arc, time::Duration};

use http::request;
use serde_json::{Map, Value};

use super::{
    Caller, Check, No, Outcome,
    consumers::Consumers,
    gate::Asking,
    jwks::Jwks,
    keys::KeySet,
    memory::{Owner, Remembered},
    place::Place,
    token::{Algorithm, Token},
};
use crate::{config::model::KeyHash, observe::stats::AuthResult};

/// A claim that names somebody is no longer.
const LONGEST_NAME: usize = 200;

#[derive(Debug)]
pub struct Jwt {
    pub rules: Rules,
    pub keys: Keys,
    pub places: Vec<Place>,
    pub consumers: Arc<Consumers>,
    /// Only consumers of the config may call.
    pub known: bool,
    pub owner: Owner,
}

#[derive(Debug)]
pub enum Keys {
    Fixed(KeySet),
    Published(Arc<Jwks>),
}

/// What a token has to say.
#[derive(Debug)]
pub struct Rules {
    pub issuer: String,
    /// Any one of them.
    pub audience: Vec<String>,
    /// `typ`, in lower case.
    pub kind: Option<String>,
    pub algorithms: Vec<Algorithm>,
    pub skew: Duration,
    /// The claim that names the consumer.
    pub consumer: String,
}

impl Jwt {
    pub fn check<'a>(&'a self, asking: &'a Asking<'a>) -> Check<'a> {
        let text = match token_of(&self.places, asking.head) {
            Ok(text) => text,
            Err(result) => return Check::Done(Err(result.into())),
        };
        let name = asking.memory.name(self.owner, &text);
        if let Some(caller) = asking.memory.recall(&name, asking.now.seconds, self.epoch()) {
            return Check::Done(Ok(caller));
        }
        match self.verify(&text, &name, asking) {
            Err(AuthResult::Unknown | AuthResult::Unavailable) if self.may_have_more() => {
                Check::Later(self.verify_later(text, name, asking))
            }
            result => Check::Done(result.map_err(No::from)),
        }
    }

    fn epoch(&self) -> u64 {
        match &self.keys {
            Keys::Fixed(_) => 0,
            Keys::Published(jwks) => jwks.epoch(),
        }
    }

    fn may_have_more(&self) -> bool {
        matches!(&self.keys, Keys::Published(jwks) if jwks.may_have_more())
    }

    fn verify_later<'a>(
        &'a self,
        text: Cow<'a, [u8]>,
        name: KeyHash,
        asking: &'a Asking<'a>,
    ) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
        Box::pin(async move {
            if let Keys::Published(jwks) = &self.keys {
                jwks.more().await;
            }
            Ok(self.verify(&text, &name, asking)?)
        })
    }

    fn verify(&self, text: &[u8], name: &KeyHash, asking: &Asking<'_>) -> Result<Arc<Caller>, AuthResult> {
        let token = Token::parse(text).ok_or(AuthResult::Malformed)?;
        self.rules.fits(&token)?;
        let epoch = self.epoch();
        let verified = match &self.keys {
            Keys::Fixed(keys) => keys.verify(&token),
            Keys::Published(jwks) => jwks.keys().ok_or(AuthResult::Unavailable)?.verify(&token),
        };
        match verified {
            None => return Err(AuthResult::Unknown),
            Some(false) => return Err(AuthResult::Signature),
            Some(true) => {}
        }
        let claims = token.claims().ok_or(AuthResult::Malformed)?;
        let until = self.rules.hold(&claims, asking.now.seconds)?;
        let caller = self.caller(claims)?;
        asking.memory.remember(*name, Remembered { caller: caller.clone(), until, epoch });
        Ok(caller)
    }

    fn caller(&self, claims: Map<String, Value>) -> Result<Arc<Caller>, AuthResult> {
        let named = claims.get(&self.rules.consumer).and_then(Value::as_str).ok_or(AuthResult::Claims)?;
        if named.is_empty() || named.len() > LONGEST_NAME || named.chars().any(char::is_control) {
            return Err(AuthResult::Claims);
        }
        let known = self.consumers.named(named);
        if known.is_none() && self.known {
            return Err(AuthResult::Claims);
        }
        Ok(Arc::new(Caller {
            scopes: scopes(&claims),
            consumer: known.map_or_else(|| named.into(), |known| known.consumer.clone()),
            tier: known.and_then(|known| known.tier.clone()),
            grants: known.map(|known| known.grants.clone()).unwrap_or_default(),
            claims: Some(Arc::new(claims)),
            ..Caller::default()
        }))
    }
}

/// RFC 6750 section 3: no error for who has sent nothing.
pub fn bearer(realm: &str, found: AuthResult) -> String {
    match found {
        AuthResult::Missing => format!("Bearer realm=\"{realm}\""),
        _ => format!("Bearer realm=\"{realm}\", error=\"invalid_token\""),
    }
}

fn token_of<'a>(places: &[Place], head: &'a request::Parts) -> Result<Cow<'a, [u8]>, AuthResult> {
    for place in places {
        match place.find(head) {
            Ok(Some(token)) => return Ok(token),
            Ok(None) => {}
            Err(_) => return Err(AuthResult::Malformed),
        }
    }
    Err(AuthResult::Missing)
}

impl Rules {
    /// What can be told before the signature is checked.
    fn fits(&self, token: &Token<'_>) -> Result<(), AuthResult> {
        if !self.algorithms.contains(&token.algorithm) {
            return Err(AuthResult::Signature);
        }
        match &self.kind {
            // RFC 8725 section 3.11: tokens of one kind are not taken for another.
            Some(kind) if token.kind.as_ref() != Some(kind) => Err(AuthResult::Claims),
            _ => Ok(()),
        }
    }

    /// Until when the token is good, if it is good now.
    fn hold(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, AuthResult> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.issuer) {
            return Err(AuthResult::Claims);
        }
        let meant = |audience: &str| self.audience.iter().any(|ours| ours == audience);
        let for_us = match claims.get("aud") {
            Some(Value::String(audience)) => meant(audience),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).any(meant),
            _ => false,
        };
        if !for_us {
            return Err(AuthResult::Claims);
        }
        let skew = self.skew.as_secs();
        let until = date(claims, "exp")?.ok_or(AuthResult::Claims)?.saturating_add(skew);
        if now >= until {
            return Err(AuthResult::Expired);
        }
        for begins in ["nbf", "iat"] {
            if date(claims, begins)?.is_some_and(|begins| begins > now.saturating_add(skew)) {
                return Err(AuthResult::Early);
            }
        }
        Ok(until)
    }
}

/// RFC 7519 section 2: NumericDate, perhaps with a fraction.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, AuthResult> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_u64().or_else(|| {
                // From float to integer saturates.
                number.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64)
            });
            whole.map(Some).ok_or(AuthResult::Claims)
        }
        Some(_) => Err(AuthResult::Claims),
    }
}

/// `scope` (RFC 8693 section 4.2), or `scp` as some write it: a text with spaces, or a list. Sorted.
fn scopes(claims: &Map<String, Value>) -> Arc<[Arc<str>]> {
    let mut scopes: Vec<Arc<str>> = match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Value::String(text)) => {
            text.split(' ').filter(|scope| !scope.is_empty()).map(Arc::from).collect()
        }
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(Arc::from).collect(),
        _ => Vec::new(),
    };
    scopes.sort_unstable();
    scopes.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::auth::{keys::tests::es256, memory::Memory};
    use crate::config::units::Moment;

    fn jwt(jwk: Value) -> Jwt {
        let algorithms = vec![Algorithm::Es256];
        let keys = KeySet::published(json!({ "keys": [jwk] }).to_string().as_bytes(), &algorithms).unwrap();
        let rules = Rules {
            issuer: "https://id.test/".into(),
            audience: vec!["api".into(), "other".into()],
            kind: None,
            algorithms,
            skew: Duration::from_secs(30),
            consumer: "azp".into(),
        };
        let store = crate::auth::KeyStore::open(std::path::Path::new("none"), &Arc::default()).unwrap();
        Jwt {
            rules,
            keys: Keys::Fixed(keys),
            places: vec![Place::Scheme("bearer")],
            consumers: Arc::new(Consumers::new(&BTreeMap::new(), store.into())),
            known: false,
            owner: Owner::fresh(),
        }
    }

    struct Nobody;

    impl crate::auth::Elsewhere for Nobody {
        fn ask<'a>(
            &'a self,
            _: &'a str,
            _: request::Parts,
            _: Duration,
        ) -> Pin<Box<dyn Future<Output = Option<crate::auth::Answered>> + 'a>> {
            Box::pin(std::future::ready(None))
        }
    }

    fn check(jwt: &Jwt, memory: &Memory, token: &str, now: u64) -> Result<Arc<Caller>, AuthResult> {
        let head = http::Request::get("/").header("authorization", format!("Bearer {token}"));
        let head = head.body(()).unwrap().into_parts().0;
        let asking = Asking {
            head: &head,
            now: Moment { seconds: now },
            worker: 0,
            memory,
            marks: None,
            has_body: false,
            elsewhere: &Nobody,
        };
        match jwt.check(&asking) {
            Check::Done(result) => result.map_err(|no| no.result),
            Check::Later(_) => panic!("the keys are there"),
        }
    }

    #[test]
    fn claims_are_checked_with_skew_and_a_good_token_is_remembered_until_it_expires() {
        let (sign, jwk) = es256("k");
        let (jwt, memory) = (jwt(jwk), Memory::default());
        let good = json!({ "iss": "https://id.test/", "aud": ["x", "api"], "exp": 1000, "nbf": 900, "azp": "app", "scope": "b a" });
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            sign(&claims.to_string())
        };
        let token = sign(&good.to_string());
        let caller = check(&jwt, &memory, &token, 1029).unwrap();
        assert_eq!((&*caller.consumer, caller.scopes.len()), ("app", 2));
        // From memory now, and no longer than it is good.
        assert!(Arc::ptr_eq(&caller, &check(&jwt, &memory, &token, 1029).unwrap()));
        assert_eq!(check(&jwt, &memory, &token, 1030), Err(AuthResult::Expired));
        assert_eq!(check(&jwt, &Memory::default(), &token, 869), Err(AuthResult::Early));
        for (expected, token) in [
            (AuthResult::Claims, with("iss", json!("https://id.test"))),
            (AuthResult::Claims, with("iss", json!(["https://id.test/"]))),
            (AuthResult::Claims, with("aud", json!("apis"))),
            (AuthResult::Claims, with("aud", json!([]))),
            (AuthResult::Claims, with("aud", Value::Null)),
            (AuthResult::Claims, with("exp", Value::Null)),
            (AuthResult::Claims, with("exp", json!("9999"))),
            (AuthResult::Claims, with("exp", json!(-1))),
            (AuthResult::Claims, with("azp", json!(7))),
            (AuthResult::Claims, with("azp", json!("a\nb"))),
            (AuthResult::Claims, with("azp", json!(""))),
            (AuthResult::Early, with("iat", json!(2000))),
            (AuthResult::Malformed, sign("[]")),
            (AuthResult::Malformed, sign("not json")),
            (AuthResult::Unknown, es256("other").0(&good.to_string())),
        ] {
            assert_eq!(check(&jwt, &memory, &token, 1000).unwrap_err(), expected, "{token}");
        }
        assert!(check(&jwt, &memory, &with("exp", json!(1e300)), 1000).is_ok());
        // Another's signature by the same name.
        assert_eq!(check(&jwt, &memory, &es256("k").0(&good.to_string()), 1000), Err(AuthResult::Signature));
        assert_eq!(
            check(&Jwt { known: true, ..jwt }, &Memory::default(), &token, 1000),
            Err(AuthResult::Claims)
        );
    }
}
