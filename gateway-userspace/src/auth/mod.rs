//! Who calls, and whether they may: what `[auth.NAME]`, `[consumer.NAME]`, and a route's `auth` and `allow` say.
//!
//! Each way to tell who calls is one file. A route with `auth` has a [`Gate`]; a route without has nothing of this.
//! See docs/auth.md.

mod allow;
mod api_key;
mod caller;
mod consumers;
mod gate;
mod place;

use std::{collections::BTreeMap, sync::Arc};

pub use caller::Caller;
pub use consumers::Consumers;
pub use gate::{Asking, Gate, Refused};

use crate::{
    config::model::{self, AuthKind, Config},
    observe::stats::{AuthResult, AuthStats, Registry},
};
use api_key::ApiKey;
use place::Place;

/// All of `[auth.NAME]` and `[consumer.NAME]`, compiled.
#[derive(Debug)]
pub struct Auths {
    ways: BTreeMap<String, Arc<Way>>,
    pub consumers: Arc<Consumers>,
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
}

impl Auths {
    pub fn new(config: &Config, registry: &Registry) -> Self {
        let consumers = Arc::new(Consumers::new(&config.consumers));
        let way = |(name, auth): (&String, &model::Auth)| {
            let kind = match &auth.kind {
                AuthKind::ApiKey { from } => Kind::ApiKey(ApiKey::new(from, consumers.clone())),
            };
            (
                name.clone(),
                Arc::new(Way {
                    kind,
                    keep: auth.keep,
                    realm: auth.realm.clone(),
                    stats: registry.auth(name),
                }),
            )
        };
        Auths { ways: config.auths.iter().map(way).collect(), consumers }
    }

    /// What a route asks for. `None`: nothing.
    pub fn gate(&self, route: &model::Route) -> Option<Gate> {
        let wanted = route.auth.as_ref()?;
        // The config's reader knows that they exist.
        let ways = wanted.names.iter().filter_map(|name| self.ways.get(name).cloned());
        Some(Gate::new(ways.collect(), wanted.all, route.allow.as_ref()))
    }
}

impl Way {
    fn check(&self, asking: &Asking<'_>) -> Result<Arc<Caller>, AuthResult> {
        match &self.kind {
            Kind::ApiKey(way) => way.check(asking.head, asking.now),
        }
    }

    fn places(&self) -> &[Place] {
        match &self.kind {
            Kind::ApiKey(way) => way.places(),
        }
    }

    /// For `WWW-Authenticate`, after this was found.
    fn challenge(&self, found: AuthResult) -> String {
        match &self.kind {
            Kind::ApiKey(way) => way.challenge(&self.realm, found),
        }
    }
}
