//! Who calls, and whether they may: what `[auth.NAME]`, `[consumer.NAME]`, and a route's `auth` and `allow` say.
//!
//! Each way to tell who calls is one file. A route with `auth` has a [`Gate`]; a route without has nothing of this.
//! See docs/auth.md.

mod allow;
mod api_key;
mod basic;
mod caller;
mod consumers;
mod forward;
mod gate;
mod jwks;
mod jwt;
pub(crate) mod keys;
mod memory;
mod mtls;
pub(crate) mod place;
mod seen;
pub(crate) mod signature;
mod store;
#[cfg(test)]
mod timing;
pub(crate) mod token;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
};

use http::HeaderName;

pub use basic::check_password_hash;
pub use caller::Caller;
pub use consumers::Consumers;
pub use forward::{Answered, Elsewhere};
pub use gate::{Asking, Gate, Refused};
pub use jwks::Jwks;
pub use memory::Memory;
pub use mtls::marks;
pub use signature::BodyDigest;
pub use store::{KeyStore, Listed, StoreError};
pub use token::Algorithm;

use crate::{
    config::{
        ConfigErrors, Problems,
        model::{self, AuthKind, Config, ForwardAuth, JwtAuth, JwtKeys},
        units,
    },
    limit,
    observe::stats::{AuthResult, AuthStats, Registry},
    seal::{self, Vault},
};
use api_key::ApiKey;
use basic::Basic;
use forward::Forward;
use jwt::{Jwt, Keys, Rules};
use keys::KeySet;
use memory::Owner;
use place::Place;
use seen::Seen;
use signature::{Signed, SigningKey};

/// All of `[auth.NAME]` and `[consumer.NAME]`, compiled.
#[derive(Debug)]
pub struct Auths {
    ways: BTreeMap<String, Arc<Way>>,
    pub consumers: Arc<Consumers>,
    pub store: Arc<KeyStore>,
    /// Signatures that were used.
    seen: Arc<Seen>,
}

/// `[auth.NAME]`, compiled.
#[derive(Debug)]
pub struct Way {
    kind: Kind,
    /// Credentials go on to the upstream.
    keep: bool,
    /// What people are told that they log in to.
    realm: String,
    stats: Arc<AuthStats>,
}

#[derive(Debug)]
enum Kind {
    ApiKey(ApiKey),
    Jwt(Box<Jwt>),
    Basic(Basic),
    Mtls(Arc<Consumers>),
    Hmac(Signed),
    Forward(Box<Forward>),
}

/// Who calls, or what became of finding out.
enum Check<'a> {
    Done(Outcome),
    /// It takes time.
    Later(Pin<Box<dyn Future<Output = Outcome> + 'a>>),
}

type Outcome = Result<Arc<Caller>, No>;

/// Nobody who may.
#[derive(Debug)]
struct No {
    result: AuthResult,
    /// What the client is told, if somebody else says it.
    answer: Option<Box<Answered>>,
}

impl From<AuthResult> for No {
    fn from(result: AuthResult) -> Self {
        No { result, answer: None }
    }
}

impl Auths {
    /// `old`: those before, whose issuers' keys are still good.
    ///
    /// # Errors
    /// Every secret and key that cannot be read, by its place in the config.
    pub fn load(
        config: &Config,
        vault: &Arc<Vault>,
        old: Option<&Auths>,
        registry: &Registry,
    ) -> Result<Auths, ConfigErrors> {
        let mut problems = Problems::default();
        let store = match store(config, vault, old) {
            Ok(store) => store,
            Err(error) => {
                let file = config.files.first().cloned().unwrap_or_default();
                problems.file(&units::Place { file: Arc::new(file), line: 0, column: 0 }, error.to_string());
                return problems.into_result(None);
            }
        };
        let consumers = Arc::new(Consumers::new(&config.consumers, store.clone()));
        let beside = || limit::state_file(config).map(|file| file.with_file_name("signatures.state"));
        let seen = old.map_or_else(|| Arc::new(Seen::new(beside())), |old| old.seen.clone());
        let mut ways = BTreeMap::new();
        for (name, auth) in &config.auths {
            let kind = match &auth.kind {
                AuthKind::ApiKey { from } => Ok(Kind::ApiKey(ApiKey::new(from, consumers.clone()))),
                AuthKind::Jwt(jwt) => {
                    keys(jwt, old).map(|keys| Kind::Jwt(Box::new(self::jwt(jwt, keys, &consumers))))
                }
                AuthKind::Basic => Ok(Kind::Basic(Basic::new(&config.consumers, &consumers))),
                AuthKind::Mtls => Ok(Kind::Mtls(consumers.clone())),
                AuthKind::Hmac { window } => signing_keys(config, &consumers)
                    .map(|keys| Kind::Hmac(Signed { keys, window: *window, seen: seen.clone() })),
                AuthKind::Forward(way) => forward(way, &consumers).map(|way| Kind::Forward(Box::new(way))),
            };
            match kind {
                Ok(kind) => {
                    let (realm, stats) = (auth.realm.clone(), registry.auth(name));
                    ways.insert(name.clone(), Arc::new(Way { kind, keep: auth.keep, realm, stats }));
                }
                Err(error) => problems.file(&auth.at, format!("auth.{name}: {error}")),
            }
        }
        problems.into_result(Some(Auths { ways, consumers, store, seen }))
    }

    /// What a route asks for. `None`: nothing.
    pub fn gate(&self, route: &model::Route) -> Option<Gate> {
        let wanted = route.auth.as_ref()?;
        // The config's reader knows that they exist.
        let ways = wanted.names.iter().filter_map(|name| self.ways.get(name).cloned());
        Some(Gate::new(ways.collect(), wanted.all, route.allow.as_ref()))
    }

    /// Keys of issuers that are fetched.
    pub fn jwks(&self) -> impl Iterator<Item = &Arc<Jwks>> {
        self.ways.values().filter_map(|way| match &way.kind {
            Kind::Jwt(jwt) => match &jwt.keys {
                Keys::Published(jwks) => Some(jwks),
                Keys::Fixed(_) => None,
            },
            _ => None,
        })
    }
}

/// The one before goes on if it is the same.
fn store(config: &Config, vault: &Arc<Vault>, old: Option<&Auths>) -> Result<Arc<KeyStore>, StoreError> {
    let directory = &config.state.directory;
    match old.filter(|old| old.store.is_of(directory, vault)) {
        Some(old) => Ok(old.store.clone()),
        None => KeyStore::open(directory, vault).map(Arc::new),
    }
}

fn keys(jwt: &JwtAuth, old: Option<&Auths>) -> Result<Keys, String> {
    let allowed = &jwt.algorithms;
    match &jwt.keys {
        JwtKeys::Url { url, ca, every } => {
            let source =
                jwks::Source { url: url.clone(), ca: ca.clone(), every: *every, allowed: allowed.clone() };
            let kept = old.and_then(|old| old.jwks().find(|jwks| jwks.source == source).cloned());
            Ok(Keys::Published(kept.unwrap_or_else(|| Jwks::new(source))))
        }
        JwtKeys::File(path) => {
            let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = std::fs::read(path).map_err(|error| named(&error))?;
            KeySet::published(&text, allowed).map(Keys::Fixed).map_err(|error| named(&error))
        }
        JwtKeys::Secret(secret) => {
            let secret = seal::read(secret).map_err(|error| error.to_string())?;
            // RFC 7518 section 3.2: no shorter than the hash.
            if secret.len() < 32 {
                return Err("the secret is shorter than 32 bytes, and could be guessed".into());
            }
            Ok(Keys::Fixed(KeySet::secret(&secret, allowed)))
        }
    }
}

fn signing_keys(config: &Config, consumers: &Consumers) -> Result<HashMap<String, SigningKey>, String> {
    let mut keys = HashMap::new();
    for (name, consumer) in &config.consumers {
        for one in &consumer.secrets {
            let named = |error: String| format!("consumer.{name}.secrets, {}: {error}", one.id);
            let secret = seal::read(&one.secret).map_err(|error| named(error.to_string()))?;
            if secret.len() < 32 {
                return Err(named("the secret is shorter than 32 bytes, and could be guessed".into()));
            }
            if let Some(caller) = consumers.named(name) {
                let key = SigningKey::new(caller.clone(), &secret, one.until);
                keys.insert(format!("{name}/{}", one.id), key);
            }
        }
    }
    Ok(keys)
}

fn forward(config: &ForwardAuth, consumers: &Arc<Consumers>) -> Result<Forward, String> {
    let names = |names: &[String]| {
        names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect()
    };
    Ok(Forward {
        upstream: config.to.clone(),
        path: config.path.parse().map_err(|error| format!("path: {error}"))?,
        send: names(&config.send),
        copy: names(&config.copy),
        consumer: HeaderName::from_bytes(config.consumer.as_bytes())
            .map_err(|error| format!("consumer: {error}"))?,
        timeout: config.timeout,
        open: config.open,
        consumers: consumers.clone(),
    })
}

fn jwt(config: &JwtAuth, keys: Keys, consumers: &Arc<Consumers>) -> Jwt {
    let rules = Rules {
        issuer: config.issuer.clone(),
        audience: config.audience.clone(),
        kind: config.kind.clone(),
        algorithms: config.algorithms.clone(),
        skew: config.skew,
        consumer: config.consumer.clone(),
    };
    let places = config.from.iter().map(Place::new).collect();
    let (consumers, known) = (consumers.clone(), config.known);
    Jwt { rules, keys, places, consumers, known, owner: Owner::fresh() }
}

impl Way {
    fn check<'a>(&'a self, asking: &'a Asking<'a>) -> Check<'a> {
        match &self.kind {
            Kind::ApiKey(way) => Check::Done(way.check(asking.head, asking.now).map_err(No::from)),
            Kind::Jwt(way) => way.check(asking),
            Kind::Basic(way) => way.check(asking),
            Kind::Hmac(way) => Check::Done(way.check(asking).map_err(No::from)),
            Kind::Forward(way) => way.check(asking),
            Kind::Mtls(consumers) => Check::Done(mtls::check(consumers, asking).map_err(No::from)),
        }
    }

    fn places(&self) -> &[Place] {
        match &self.kind {
            Kind::ApiKey(way) => way.places(),
            Kind::Jwt(way) => &way.places,
            Kind::Basic(way) => &way.places,
            Kind::Hmac(_) => &SIGNATURE,
            Kind::Mtls(_) | Kind::Forward(_) => &[],
        }
    }

    /// Fields that are taken from who is asked.
    fn answers(&self) -> &[HeaderName] {
        match &self.kind {
            Kind::Forward(way) => &way.copy,
            _ => &[],
        }
    }

    /// For `WWW-Authenticate`, after this was found.
    fn challenge(&self, found: AuthResult) -> String {
        let realm = &self.realm;
        match &self.kind {
            Kind::ApiKey(way) => way.challenge(realm, found),
            Kind::Jwt(_) => jwt::bearer(realm, found),
            Kind::Basic(_) => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            // None is registered; RFC 9110 section 15.5.2 wants one.
            Kind::Hmac(_) => format!("Signature realm=\"{realm}\""),
            Kind::Forward(_) => format!("Forward realm=\"{realm}\""),
            Kind::Mtls(_) => format!("Certificate realm=\"{realm}\""),
        }
    }
}

/// Where signatures are.
static SIGNATURE: [Place; 2] =
    [Place::Header(signature::SIGNATURE_INPUT), Place::Header(signature::SIGNATURE)];
