//! `[auth.NAME]`, `[consumer.NAME]`, and `auth` and `allow` of routes.

use std::collections::BTreeMap;

use super::{distinct, file, tls::secret};
use crate::auth::Algorithm;
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{
        Allow, Auth, AuthKind, CertMark, Consumer, ConsumerKey, ConsumerSecret, Demand, ForwardAuth, JwtAuth,
        JwtKeys, KeyHash, Right, RouteAuth, State, Whence,
    },
    node::{Fields, Node, Value},
    units::{Place, quote},
};

pub(super) fn auths(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Auth> {
    let (mut auths, upstreams) = (BTreeMap::new(), root.named("upstream"));
    for (name, fields) in root.named("auth") {
        if let Some(kind) = kind(name, fields, upstreams, problems) {
            let (keep, realm) = (fields.or_default("keep"), fields.or_default("realm"));
            auths.insert(name.clone(), Auth { at: fields.at.clone().into(), kind, keep, realm });
        }
    }
    auths
}

/// Of which types a key is.
const OF_TYPES: &[(&str, &[&str])] = &[
    ("from", &["api-key", "jwt"]),
    ("issuer", &["jwt"]),
    ("audience", &["jwt"]),
    ("jwks", &["jwt"]),
    ("ca", &["jwt"]),
    ("refresh", &["jwt"]),
    ("secret", &["jwt"]),
    ("algorithms", &["jwt"]),
    ("consumer", &["jwt", "forward"]),
    ("window", &["hmac"]),
    ("to", &["forward"]),
    ("path", &["forward"]),
    ("send", &["forward"]),
    ("copy", &["forward"]),
    ("timeout", &["forward"]),
    ("on_error", &["forward"]),
    ("known", &["jwt"]),
    ("skew", &["jwt"]),
    ("typ", &["jwt"]),
    ("keep", &["api-key", "jwt", "basic", "hmac"]),
];

fn kind(
    name: &str,
    fields: &Fields,
    upstreams: &BTreeMap<String, Fields>,
    problems: &mut Problems,
) -> Option<AuthKind> {
    let kind: &str = fields.get("type")?;
    for (key, types) in
        OF_TYPES.iter().filter(|(key, types)| fields.node(key).is_some() && !types.contains(&kind))
    {
        let message =
            format!("`auth.{name}.{key}` is not for type = \"{kind}\", but for {}", types.join(", "));
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message));
    }
    match kind {
        "api-key" => {
            Some(AuthKind::ApiKey { from: from(fields, Whence::Header("x-api-key".into()), problems) })
        }
        "jwt" => jwt(name, fields, problems).map(|jwt| AuthKind::Jwt(Box::new(jwt))),
        "basic" => Some(AuthKind::Basic),
        "mtls" => Some(AuthKind::Mtls),
        "hmac" => Some(AuthKind::Hmac { window: fields.or_default("window") }),
        "forward" => forward(name, fields, upstreams, problems).map(|way| AuthKind::Forward(Box::new(way))),
        _ => None,
    }
}

fn from(fields: &Fields, default: Whence, problems: &mut Problems) -> Vec<Whence> {
    let from = fields.get("from").unwrap_or_else(|| vec![default]);
    distinct(fields, "from", from, problems, |from| format!("\"{from}\""))
}

fn jwt(name: &str, fields: &Fields, problems: &mut Problems) -> Option<JwtAuth> {
    for (key, example) in [("issuer", "https://id.example.com/"), ("audience", "api.example.com")] {
        if fields.node(key).is_none() && !fields.broken {
            let message = format!("`auth.{name}.{key}` is missing: a token for anything would do");
            let problem = Problem::new(ProblemKind::Missing, &fields.at, message);
            problems.push(problem.hint(format!("for example: {key} = \"{example}\"")));
        }
    }
    let keys = jwt_keys(name, fields, problems)?;
    let symmetric = matches!(keys, JwtKeys::Secret(_));
    let words: Vec<&str> = match fields.get("algorithms") {
        Some(words) => words,
        None if symmetric => vec!["HS256"],
        None => vec!["ES256", "RS256", "EdDSA"],
    };
    let algorithms: Vec<Algorithm> = words.iter().filter_map(|word| Algorithm::named(word)).collect();
    let algorithms =
        distinct(fields, "algorithms", algorithms, problems, |one| format!("algorithm {}", one.name()));
    // Whoever knows a public key could sign with it, were it taken for a secret.
    if let Some(odd) = algorithms.iter().find(|algorithm| algorithm.is_symmetric() != symmetric) {
        let (needs, has) = if symmetric { ("jwks", "secret") } else { ("secret", "jwks") };
        let message =
            format!("`auth.{name}.algorithms`: {} needs `{needs}`, and here is `{has}`", odd.name());
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("algorithms"), message));
    }
    Some(JwtAuth {
        from: from(fields, Whence::Bearer, problems),
        issuer: fields.get("issuer")?,
        audience: distinct(fields, "audience", fields.get("audience")?, problems, |one: &String| {
            format!("audience {}", quote(one))
        }),
        keys,
        algorithms,
        consumer: consumer(name, fields, ("claim", "sub"), problems),
        known: fields.or_default("known"),
        skew: fields.or_default("skew"),
        kind: fields.get::<String>("typ").map(|kind| kind.to_ascii_lowercase()),
    })
}

/// What names the consumer. It is of one kind, which the type of the way says.
fn consumer(name: &str, fields: &Fields, (kind, default): (&str, &str), problems: &mut Problems) -> String {
    let Some(text) = fields.get::<String>("consumer") else { return default.to_owned() };
    match text.split_once(':') {
        Some((found, name)) if found == kind => name.to_owned(),
        _ => {
            let message = format!("`auth.{name}.consumer`: expected \"{kind}:NAME\", found {}", quote(&text));
            problems.push(Problem::new(ProblemKind::Conflict, &fields.place("consumer"), message));
            default.to_owned()
        }
    }
}

fn forward(
    name: &str,
    fields: &Fields,
    upstreams: &BTreeMap<String, Fields>,
    problems: &mut Problems,
) -> Option<ForwardAuth> {
    let Some(to) = fields.get::<String>("to") else {
        if !fields.broken {
            let message = format!("`auth.{name}.to` is missing: who is asked");
            let problem = Problem::new(ProblemKind::Missing, &fields.at, message);
            problems.push(problem.hint("for example: to = \"login\", an upstream".to_owned()));
        }
        return None;
    };
    super::route::defined(&to, &fields.place("to"), upstreams, problems);
    Some(ForwardAuth {
        to,
        path: fields.or_default("path"),
        send: fields.or_default("send"),
        copy: fields.or_default("copy"),
        consumer: consumer(name, fields, ("header", "x-auth-user"), problems),
        timeout: fields.or_default("timeout"),
        open: fields.or_default::<&str>("on_error") == "pass",
    })
}

fn jwt_keys(name: &str, fields: &Fields, problems: &mut Problems) -> Option<JwtKeys> {
    match (fields.get::<String>("jwks"), fields.node("secret")) {
        (Some(url), None) if url.contains("://") => {
            let ca = fields.node("ca").map(|_| file(fields, "ca"));
            Some(JwtKeys::Url { url, ca, every: fields.or_default("refresh") })
        }
        (Some(_), None) => {
            for key in ["ca", "refresh"].iter().filter(|key| fields.node(key).is_some()) {
                let message = format!("`auth.{name}.{key}` is for a URL, and `jwks` is a file");
                problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message));
            }
            Some(JwtKeys::File(file(fields, "jwks")))
        }
        (None, Some(_)) => {
            secret(&format!("auth.{name}.secret"), &fields.table("secret"), problems).map(JwtKeys::Secret)
        }
        _ => {
            if !fields.broken {
                let message = format!("`auth.{name}` must have exactly one of `jwks` and `secret`");
                let problem = Problem::new(ProblemKind::Conflict, &fields.at, message);
                problems.push(
                    problem.hint("for example: jwks = \"https://id.example.com/jwks.json\"".to_owned()),
                );
            }
            None
        }
    }
}

pub(super) fn consumers(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Consumer> {
    let mut consumers = BTreeMap::new();
    let mut hashes: BTreeMap<KeyHash, Place> = BTreeMap::new();
    let mut marks: BTreeMap<CertMark, String> = BTreeMap::new();
    for (name, fields) in root.named("consumer") {
        let mut grants = distinct(fields, "grant", fields.or_default("grant"), problems, |grant: &String| {
            format!("grant {}", quote(grant))
        });
        grants.sort_unstable();
        let keys = keys(fields, &mut hashes, problems);
        let certs: Vec<CertMark> = fields.get("certs").unwrap_or_default();
        let certs = distinct(fields, "certs", certs, problems, |mark| format!("\"{mark}\""));
        for mark in &certs {
            if let Some(other) = marks.insert(mark.clone(), name.clone()) {
                let message = format!(
                    "\"{mark}\" is of consumer {} already: it would not say who calls",
                    quote(&other)
                );
                problems.push(Problem::new(ProblemKind::Duplicate, &fields.place("certs"), message));
            }
        }
        let secrets = secrets(name, fields, problems);
        let (tier, passwords) = (fields.get("tier"), fields.get("password").unwrap_or_default());
        consumers.insert(
            name.clone(),
            Consumer { at: fields.at.clone().into(), tier, grants, keys, passwords, certs, secrets },
        );
    }
    consumers
}

fn secrets(name: &str, consumer: &Fields, problems: &mut Problems) -> Vec<ConsumerSecret> {
    let Some(Value::List(nodes)) = consumer.node("secrets").map(|node| &node.value) else {
        return Vec::new();
    };
    let mut secrets: Vec<ConsumerSecret> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let Value::Table(fields) = &node.value else { continue };
        let path = format!("consumer.{name}.secrets[{index}].secret");
        let found = fields.node("secret").and_then(|_| secret(&path, &fields.table("secret"), problems));
        let (Some(id), Some(secret)) = (fields.get::<String>("id"), found) else { continue };
        if secrets.iter().any(|secret| secret.id == id) {
            let message = format!("this consumer has a secret {} already", quote(&id));
            problems.push(Problem::new(ProblemKind::Duplicate, &fields.place("id"), message));
        }
        secrets.push(ConsumerSecret { id, secret, until: fields.get("until") });
    }
    secrets
}

/// A key says who calls: no two have the same.
fn keys(
    consumer: &Fields,
    hashes: &mut BTreeMap<KeyHash, Place>,
    problems: &mut Problems,
) -> Vec<ConsumerKey> {
    let Some(Value::List(nodes)) = consumer.node("keys").map(|node| &node.value) else { return Vec::new() };
    let mut keys: Vec<ConsumerKey> = Vec::new();
    for node in nodes {
        let Value::Table(fields) = &node.value else { continue };
        let (Some(id), Some(hash)) = (fields.get::<String>("id"), fields.get::<KeyHash>("hash")) else {
            continue;
        };
        if keys.iter().any(|key| key.id == id) {
            let message = format!("this consumer has a key {} already", quote(&id));
            problems.push(Problem::new(ProblemKind::Duplicate, &fields.place("id"), message));
        }
        let at = fields.place("hash");
        if let Some(first) = hashes.insert(hash, at.clone()) {
            let message = format!("this key is there twice, first at {first}: it would not say who calls");
            problems.push(Problem::new(ProblemKind::Duplicate, &at, message));
        }
        keys.push(ConsumerKey { id, hash, until: fields.get("until") });
    }
    keys
}

/// `auth` of a route. `declared`: the ways of the config, right or wrong.
pub(super) fn route_auth(
    route: &Fields,
    declared: &BTreeMap<String, Fields>,
    problems: &mut Problems,
) -> Option<RouteAuth> {
    let Value::List(nodes) = &route.node("auth")?.value else { return None };
    let mut names: Vec<String> = route.get("auth")?;
    names = distinct(route, "auth", names, problems, |name| format!("auth {}", quote(name)));
    let all = names.first().is_some_and(|first| first == "all") && !declared.contains_key("all");
    if all {
        names.remove(0);
    }
    for node in nodes.iter().skip(usize::from(all)) {
        let Value::Text(name) = &node.value else { continue };
        if !declared.contains_key(name) {
            let hint = did_you_mean(name, declared.keys().map(String::as_str), quote)
                .unwrap_or_else(|| format!("add [auth.{name}] with a type"));
            let message = format!("auth {} is not defined", quote(name));
            problems.push(Problem::new(ProblemKind::Undefined, &node.at, message).hint(hint));
        }
    }
    if names.is_empty() {
        let message = "`auth` has \"all\" of nothing";
        problems.push(Problem::new(ProblemKind::Value, &route.place("auth"), message));
        return None;
    }
    Some(RouteAuth { names, all })
}

pub(super) fn allow(route: &Fields, problems: &mut Problems) -> Option<Allow> {
    let node = route.node("allow")?;
    if route.node("auth").is_none() {
        let message = "`allow` needs `auth`: without it nobody is known";
        let problem = Problem::new(ProblemKind::Conflict, &node.at, message);
        problems.push(problem.hint("add auth = [\"…\"], the name of an [auth.NAME]".to_owned()));
    }
    match &node.value {
        Value::Map(methods) => {
            let one = |(method, node): (&String, &Node)| (method.clone(), demand(node, problems));
            Some(Allow::ByMethod(methods.iter().map(one).collect()))
        }
        _ => Some(Allow::Always(demand(node, problems))),
    }
}

fn demand(node: &Node, problems: &mut Problems) -> Demand {
    let Value::List(nodes) = &node.value else { return Demand { rights: Vec::new(), all: false } };
    let mut rights: Vec<Right> = Vec::new();
    let all = matches!(nodes.first().map(|node| &node.value), Some(Value::Right(Right::Grant(word))) if word == "all");
    for node in nodes.iter().skip(usize::from(all)) {
        let Value::Right(right) = &node.value else { continue };
        if rights.contains(right) {
            let message = format!("\"{right}\" is there twice");
            problems.push(Problem::new(ProblemKind::Duplicate, &node.at, message));
        }
        rights.push(right.clone());
    }
    if all && rights.is_empty() {
        problems.push(Problem::new(ProblemKind::Value, &node.at, "`allow` has \"all\" of nothing"));
    }
    Demand { rights, all }
}

/// `[state]`
pub(super) fn state(fields: &Fields, problems: &mut Problems) -> State {
    let key = fields.node("key").and_then(|_| secret("state.key", &fields.table("key"), problems));
    let mut old_keys = Vec::new();
    if let Some(Value::List(nodes)) = fields.node("old_keys").map(|node| &node.value) {
        for (index, node) in nodes.iter().enumerate() {
            let Value::Table(table) = &node.value else { continue };
            old_keys.extend(secret(&format!("state.old_keys[{index}]"), table, problems));
        }
    }
    if key.is_none() && !old_keys.is_empty() && !fields.broken {
        let message = "`state.old_keys` needs `key`, with which all is sealed from now on";
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("old_keys"), message));
    }
    State { directory: file(fields, "directory"), key, old_keys }
}
