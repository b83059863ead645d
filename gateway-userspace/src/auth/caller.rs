//! Who made a request.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::BodyDigest;

/// Who made a request, as far as its credentials prove it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of a `[consumer.NAME]`, or what a token says.
    pub consumer: Arc<str>,
    pub tier: Option<Arc<str>>,
    /// Of the consumer's, sorted.
    pub grants: Arc<[Arc<str>]>,
    /// Of the token's, sorted.
    pub scopes: Arc<[Arc<str>]>,
    /// What the token says.
    pub claims: Option<Arc<Map<String, Value>>>,
    /// Fields for the upstream, in place of what the client has sent in them. `None`: none.
    pub fields: Vec<(HeaderName, Option<HeaderValue>)>,
    /// What the body must be, for the signature to hold.
    pub body: Option<BodyDigest>,
}

impl Caller {
    /// One of the config's.
    pub fn granted(&self, grant: &str) -> bool {
        among(&self.grants, grant)
    }

    /// Of two that were found out for one request: who it is, the first says; what both have counts.
    pub fn joined(&self, other: &Caller) -> Arc<Caller> {
        let both = |one: &[Arc<str>], two: &[Arc<str>]| {
            let mut all: Vec<Arc<str>> = one.iter().chain(two).cloned().collect();
            all.sort_unstable();
            all.dedup();
            all.into()
        };
        Arc::new(Caller {
            consumer: self.consumer.clone(),
            tier: self.tier.clone(),
            // Another's grants are not the first one's.
            grants: self.grants.clone(),
            scopes: both(&self.scopes, &other.scopes),
            claims: self.claims.clone().or_else(|| other.claims.clone()),
            fields: [&self.fields[..], &other.fields[..]].concat(),
            body: self.body.clone().or_else(|| other.body.clone()),
        })
    }

    pub fn has_scope(&self, scope: &str) -> bool {
        among(&self.scopes, scope)
    }

    pub fn claims(&self, name: &str, value: &str) -> bool {
        let is = |claim: &Value| match claim {
            Value::String(text) => text == value,
            Value::Bool(truth) => value == if *truth { "true" } else { "false" },
            Value::Number(number) => number.to_string() == value,
            _ => false,
        };
        match self.claim(name) {
            Some(Value::Array(all)) => all.iter().any(is),
            Some(one) => is(one),
            None => false,
        }
    }

    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.as_ref()?.get(name)
    }
}

fn among(sorted: &[Arc<str>], wanted: &str) -> bool {
    sorted.binary_search_by(|known| (**known).cmp(wanted)).is_ok()
}
