//! `[auth.NAME]`, `[consumer.NAME]`, and `auth` and `allow` of routes.

use std::collections::BTreeMap;

use super::distinct;
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{Allow, Auth, AuthKind, Consumer, ConsumerKey, Demand, KeyHash, Right, RouteAuth, Whence},
    node::{Fields, Node, Value},
    units::{Place, quote},
};

pub(super) fn auths(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Auth> {
    let mut auths = BTreeMap::new();
    for (name, fields) in root.named("auth") {
        if let Some(kind) = kind(&fields, problems) {
            let (keep, realm) = (fields.or_default("keep"), fields.or_default("realm"));
            auths.insert(name, Auth { at: fields.at.clone(), kind, keep, realm });
        }
    }
    auths
}

fn kind(fields: &Fields, problems: &mut Problems) -> Option<AuthKind> {
    match fields.get::<&str>("type")? {
        "api-key" => {
            let from = fields.get("from").unwrap_or_else(|| vec![Whence::Header("x-api-key".into())]);
            let from = distinct(fields, "from", from, problems, |from| format!("\"{from}\""));
            Some(AuthKind::ApiKey { from })
        }
        _ => None,
    }
}

pub(super) fn consumers(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Consumer> {
    let mut consumers = BTreeMap::new();
    let mut hashes: BTreeMap<KeyHash, Place> = BTreeMap::new();
    for (name, fields) in root.named("consumer") {
        let mut grants =
            distinct(&fields, "grant", fields.or_default("grant"), problems, |grant: &String| {
                format!("grant {}", quote(grant))
            });
        grants.sort_unstable();
        let keys = keys(&fields, &mut hashes, problems);
        consumers.insert(name, Consumer { at: fields.at.clone(), tier: fields.get("tier"), grants, keys });
    }
    consumers
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
