//! Who may call.

use serde_json::{Value, json};

use super::{listener::secret, some};
use crate::config::{
    model::{
        Allow, Auth, AuthKind, Consumer, Demand, ForwardAuth, Guard, JwtAuth, JwtKeys, Origin, RouteAuth,
        SecurityHeaders, State, Whence,
    },
    units::{ByteSize, Prefixes, show_duration},
};

pub(super) fn auth(auth: &Auth) -> Value {
    let own = match &auth.kind {
        AuthKind::ApiKey { from } => some([("from", Some(places(from)))]),
        AuthKind::Jwt(jwt) => self::jwt(jwt),
        AuthKind::Basic | AuthKind::Mtls => json!({}),
        AuthKind::Hmac { window } => json!({ "window": show_duration(*window) }),
        AuthKind::Forward(way) => forward(way),
    };
    let mut shown = some([("type", Some(json!(auth.kind.word())))]);
    let common = some([
        ("keep", (!matches!(auth.kind, AuthKind::Mtls | AuthKind::Forward(_))).then(|| json!(auth.keep))),
        ("realm", Some(json!(auth.realm))),
    ]);
    if let (Value::Object(shown), Value::Object(own), Value::Object(common)) = (&mut shown, own, common) {
        shown.extend(own);
        shown.extend(common);
    }
    shown
}

fn forward(way: &ForwardAuth) -> Value {
    json!({
        "to": way.to,
        "path": way.path,
        "send": way.send,
        "copy": way.copy,
        "consumer": format!("header:{}", way.consumer),
        "timeout": show_duration(way.timeout),
        "on_error": if way.open { "pass" } else { "refuse" },
    })
}

fn places(from: &[Whence]) -> Value {
    from.iter().map(ToString::to_string).collect()
}

fn jwt(jwt: &JwtAuth) -> Value {
    let (mut jwks, mut ca, mut every, mut shared) = (None, None, None, None);
    match &jwt.keys {
        JwtKeys::Url { url, ca: file, every: pause } => {
            jwks = Some(json!(url));
            ca = file.as_ref().map(|file| json!(file.to_string_lossy()));
            every = Some(json!(show_duration(*pause)));
        }
        JwtKeys::File(file) => jwks = Some(json!(file.to_string_lossy())),
        JwtKeys::Secret(place) => shared = Some(secret(place)),
    }
    some([
        ("from", Some(places(&jwt.from))),
        ("issuer", Some(json!(jwt.issuer))),
        ("audience", Some(json!(jwt.audience))),
        ("jwks", jwks),
        ("ca", ca),
        ("refresh", every),
        ("secret", shared),
        ("algorithms", Some(jwt.algorithms.iter().map(|algorithm| algorithm.name()).collect())),
        ("consumer", Some(json!(format!("claim:{}", jwt.consumer)))),
        ("known", Some(json!(jwt.known))),
        ("skew", Some(json!(show_duration(jwt.skew)))),
        ("typ", jwt.kind.as_ref().map(|kind| json!(kind))),
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
    let secrets = consumer.secrets.iter().map(|one| {
        some([
            ("id", Some(json!(one.id))),
            ("secret", Some(secret(&one.secret))),
            ("until", one.until.map(|until| json!(until))),
        ])
    });
    some([
        ("tier", consumer.tier.as_ref().map(|tier| json!(tier))),
        ("grant", Some(json!(consumer.grants))),
        ("keys", Some(keys.collect())),
        ("secrets", (!consumer.secrets.is_empty()).then(|| secrets.collect())),
        ("password", (!consumer.passwords.is_empty()).then(|| json!(consumer.passwords))),
        (
            "certs",
            (!consumer.certs.is_empty()).then(|| consumer.certs.iter().map(ToString::to_string).collect()),
        ),
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

pub(super) fn state(state: &State) -> Value {
    let old: Vec<Value> = state.old_keys.iter().map(secret).collect();
    some([
        ("directory", Some(json!(state.directory.to_string_lossy()))),
        ("key", state.key.as_ref().map(secret)),
        ("old_keys", (!old.is_empty()).then(|| json!(old))),
    ])
}

/// Of a route, each under its own key.
pub(super) fn guard(guard: &Guard) -> [(&'static str, Option<Value>); 6] {
    let prefixes = |prefixes: &Option<Prefixes>| prefixes.as_ref().map(|prefixes| json!(prefixes.listed()));
    let max = some([
        ("header", guard.header.map(|size| json!(ByteSize(size as u64)))),
        ("body", guard.body.map(|size| json!(ByteSize(size)))),
        ("json_depth", guard.json.map(|json| json!(json.depth))),
        ("json_items", guard.json.and_then(|json| json.items).map(|items| json!(items))),
    ]);
    let limited = guard.header.is_some() || guard.body.is_some() || guard.json.is_some();
    let csrf = |origins: &Vec<Origin>| match origins.is_empty() {
        true => json!(true),
        false => json!({ "origins": origins.iter().map(ToString::to_string).collect::<Vec<_>>() }),
    };
    [
        ("allow_from", prefixes(&guard.allow_from)),
        ("deny_from", prefixes(&guard.deny_from)),
        ("max", limited.then_some(max)),
        ("content_types", guard.content_types.as_ref().map(|types| json!(types))),
        ("encoded_slash", guard.encoded_slash.then(|| json!("refuse"))),
        ("csrf", guard.csrf.as_ref().map(csrf)),
    ]
}

pub(super) fn security_headers(headers: &SecurityHeaders) -> Value {
    let or_off = |value: &Option<String>| json!(value.as_deref().unwrap_or("off"));
    some([
        ("frame", Some(or_off(&headers.frame))),
        ("referrer", Some(or_off(&headers.referrer))),
        ("csp", headers.csp.as_ref().map(|csp| json!(csp))),
        ("permissions", headers.permissions.as_ref().map(|policy| json!(policy))),
    ])
}
