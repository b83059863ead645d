//! Who made a request.

use std::sync::Arc;

use serde_json::{Map, Value};

/// Who made a request, as far as its credentials prove it.
#[derive(Debug, Default, PartialEq, Eq)]
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
}

impl Caller {
    /// One of the config's.
    pub fn granted(&self, grant: &str) -> bool {
        among(&self.grants, grant)
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
