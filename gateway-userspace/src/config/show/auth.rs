//! Who may call.

use serde_json::{Value, json};

use super::some;
use crate::config::model::{Allow, Auth, AuthKind, Consumer, Demand, RouteAuth};

pub(super) fn auth(auth: &Auth) -> Value {
    let AuthKind::ApiKey { from } = &auth.kind;
    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
    some([
        ("type", Some(json!(auth.kind.word()))),
        ("from", Some(json!(from))),
        ("keep", Some(json!(auth.keep))),
        ("realm", Some(json!(auth.realm))),
    ])
}

pub(super) fn consumer(consumer: &Consumer) -> Value {
    let keys = consumer.keys.iter().map(|key| {
        some([
            ("id", Some(json!(key.id))),
            ("hash", Some(json!(key.hash.to_string()))),
            ("until", key.until.map(|until| json!(until))),
        ])
    });
    some([
        ("tier", consumer.tier.as_ref().map(|tier| json!(tier))),
        ("grant", Some(json!(consumer.grants))),
        ("keys", Some(keys.collect())),
    ])
}

pub(super) fn route_auth(auth: &RouteAuth) -> Value {
    listed(auth.all, auth.names.iter().cloned())
}

pub(super) fn allow(allow: &Allow) -> Value {
    let one = |demand: &Demand| listed(demand.all, demand.rights.iter().map(ToString::to_string));
    match allow {
        Allow::Always(demand) => one(demand),
        Allow::ByMethod(methods) => {
            methods.iter().map(|(method, demand)| (method.clone(), one(demand))).collect()
        }
    }
}

fn listed(all: bool, words: impl Iterator<Item = String>) -> Value {
    all.then(|| "all".to_owned()).into_iter().chain(words).map(Value::String).collect()
}
