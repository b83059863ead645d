//! `[route.NAME]`: what it takes and where it leads.

use std::collections::BTreeMap;

use super::{
    distinct,
    predicates::{predicates, ties},
    rewrite, upstream,
};
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{Destination, PathPattern, Route, Upstream},
    node::{Fields, Value},
    table::{Kind, ROOT, Section},
    units::quote,
};

/// `declared`: the upstreams of the config, right or wrong. Those that routes make are added to `upstreams`.
pub(super) fn routes(
    root: &Fields,
    declared: &BTreeMap<String, Fields>,
    upstreams: &mut BTreeMap<String, Upstream>,
    problems: &mut Problems,
) -> BTreeMap<String, Route> {
    let mut routes = BTreeMap::new();
    let mut whole = Vec::new();
    for (name, fields) in root.named("route") {
        let before = problems.count();
        let path: PathPattern = fields.or_default("path");
        let to = rewrite::answer(&fields, &path, problems)
            .or_else(|| to(&name, &fields, declared, upstreams, problems).map(Destination::Upstream));
        let hosts = distinct(&fields, "host", fields.get("host").unwrap_or_default(), problems, |host| {
            format!("host \"{host}\"")
        });
        let upgrade =
            distinct(&fields, "upgrade", fields.or_default("upgrade"), problems, |protocol: &String| {
                format!("protocol \"{protocol}\"")
            });
        let route = Route {
            at: fields.at.clone(),
            hosts,
            rewrite: rewrite::rewrite(&fields, &path, problems),
            path,
            when: predicates(&fields, problems),
            to: to.unwrap_or(Destination::Upstream(String::new())),
            upgrade,
            early_hints: fields.or_default("early_hints"),
        };
        // With a predicate that is wrong or not supported, whether it ties is anyone's guess.
        if !fields.broken && problems.count() == before {
            whole.push((name.clone(), route.clone()));
        }
        routes.insert(name, route);
    }
    ties(whole, problems);
    routes
}

fn to(
    name: &str,
    fields: &Fields,
    declared: &BTreeMap<String, Fields>,
    upstreams: &mut BTreeMap<String, Upstream>,
    problems: &mut Problems,
) -> Option<String> {
    let node = fields.node("to")?;
    if let Value::Text(wanted) = &node.value {
        if !declared.contains_key(wanted) {
            let hint = did_you_mean(wanted, declared.keys().map(String::as_str), quote);
            let problem = Problem::new(
                ProblemKind::Undefined,
                &node.at,
                format!("upstream {} is not defined", quote(wanted)),
            );
            problems.push(problem.hint(hint.unwrap_or_else(|| none_near(wanted, declared))));
        }
        return Some(wanted.clone());
    }
    if let Some(taken) = declared.get(name) {
        let message = format!(
            "the targets of `route.{name}` would make an upstream \"{name}\", which is defined already, at {}",
            taken.at
        );
        let hint = format!("write to = \"{name}\" to use that one, or rename the route");
        problems.push(Problem::new(ProblemKind::Conflict, &node.at, message).hint(hint));
        return None;
    }
    upstreams.insert(name.to_owned(), upstream::anonymous(node, upstream_section(), problems)?);
    Some(name.to_owned())
}

fn none_near(wanted: &str, declared: &BTreeMap<String, Fields>) -> String {
    let names: Vec<String> = declared.keys().take(8).map(|name| quote(name)).collect();
    match names.len() {
        0 => format!("add [upstream.{wanted}], or write the targets here: to = [\"127.0.0.1:3000\"]"),
        _ => {
            format!("defined: {}{}", names.join(", "), if declared.len() > names.len() { ", …" } else { "" })
        }
    }
}

fn upstream_section() -> &'static Section {
    match ROOT.key("upstream").map(|key| &key.kind) {
        Some(Kind::Named(section)) => section,
        _ => unreachable!("the table has upstreams by name"),
    }
}
