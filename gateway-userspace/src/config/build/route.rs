//! `[route.NAME]`: where it leads, and that no two routes tie.

use std::collections::{BTreeMap, HashMap};

use super::{distinct, upstream};
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{HostPattern, PathPattern, Route, Segment, Upstream},
    node::{Fields, Value},
    table::{Kind, ROOT, Section},
    units::{Place, quote},
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
        let to = to(&name, &fields, declared, upstreams, problems);
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
            path: fields.or_default("path"),
            to: to.unwrap_or_default(),
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

/// What decides which requests a path takes: parameters' names do not.
#[derive(PartialEq, Eq, Hash)]
struct Shape(Vec<Option<String>>, bool);

impl Shape {
    fn of(path: &PathPattern) -> Self {
        let segment = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(text.clone()),
            Segment::Parameter(_) => None,
        };
        Shape(path.segments.iter().map(segment).collect(), path.rest)
    }
}

/// Two routes of the same host and the same path: neither is the more specific.
fn ties(mut routes: Vec<(String, Route)>, problems: &mut Problems) {
    routes.sort_by(|(_, a), (_, b)| {
        let key = |at: &Place| (at.file.clone(), at.line, at.column);
        key(&a.at).cmp(&key(&b.at))
    });
    let mut seen: HashMap<(Option<&HostPattern>, Shape), (&str, &Place)> = HashMap::new();
    for (name, route) in &routes {
        let hosts: Vec<_> = match route.hosts.is_empty() {
            true => vec![None],
            false => route.hosts.iter().map(Some).collect(),
        };
        let mut told = false;
        for host in hosts {
            let earlier = *seen.entry((host, Shape::of(&route.path))).or_insert((name, &route.at));
            if earlier.0 != name && !told {
                let shown = host.map_or("any host".into(), |host| format!("host \"{host}\""));
                let (first, at) = earlier;
                let message = format!(
                    "route `{name}` takes the same requests ({shown}, path \"{}\") as route `{first}` at {at}",
                    route.path
                );
                let hint =
                    "the most specific route wins, so give one of them another host or path".to_owned();
                problems.push(Problem::new(ProblemKind::Conflict, &route.at, message).hint(hint));
                told = true;
            }
        }
    }
}
