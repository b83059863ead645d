//! API keys: secrets that say whose they are.

use std::sync::Arc;

use http::request;

use super::{
    Caller,
    consumers::{Consumers, Found},
    jwt,
    place::Place,
};
use crate::{
    config::{model::Whence, units::Moment},
    observe::stats::AuthResult,
};

/// A longer one is none.
const LONGEST: usize = 512;

#[derive(Debug)]
pub struct ApiKey {
    places: Vec<Place>,
    consumers: Arc<Consumers>,
}

impl ApiKey {
    pub fn new(from: &[Whence], consumers: Arc<Consumers>) -> Self {
        ApiKey { places: from.iter().map(Place::new).collect(), consumers }
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    pub fn check(&self, head: &request::Parts, now: Moment) -> Result<Arc<Caller>, AuthResult> {
        for place in &self.places {
            let key = match place.find(head) {
                Ok(Some(key)) => key,
                Ok(None) => continue,
                Err(_) => return Err(AuthResult::Malformed),
            };
            if key.is_empty() || key.len() > LONGEST {
                return Err(AuthResult::Malformed);
            }
            return match self.consumers.of_key(&key, now) {
                Found::Caller(caller) => Ok(caller),
                Found::Expired => Err(AuthResult::Expired),
                Found::Unknown => Err(AuthResult::Unknown),
            };
        }
        Err(AuthResult::Missing)
    }

    pub fn challenge(&self, realm: &str, found: AuthResult) -> String {
        match self.places.iter().any(|place| matches!(place, Place::Scheme(_))) {
            true => jwt::bearer(realm, found),
            // None is registered; RFC 9110 section 15.5.2 wants one.
            false => format!("ApiKey realm=\"{realm}\""),
        }
    }
}
