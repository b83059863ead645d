//! `methods`, `headers` and `query` of a route, and which routes tie.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
};

use super::distinct;
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{HostPattern, Matcher, PathPattern, Predicates, Route, Segment},
    node::{Fields, Node, Value},
    units::Place,
};

pub(super) fn predicates(fields: &Fields, problems: &mut Problems) -> Predicates {
    let methods: Vec<String> = fields.get("methods").unwrap_or_default();
    Predicates {
        methods: distinct(fields, "methods", methods, problems, |method| format!("method \"{method}\"")),
        headers: matchers(fields.map("headers")),
        query: matchers(fields.map("query")),
    }
}

fn matchers(map: BTreeMap<String, Node>) -> Vec<(String, Matcher)> {
    let matcher = |node: &Node| match &node.value {
        Value::Bool(true) => Some(Matcher::Present),
        Value::Bool(false) => Some(Matcher::Absent),
        Value::Text(text) => Some(Matcher::Is(text.clone())),
        Value::Table(table) => table.get("regex").map(Matcher::Like),
        _ => None,
    };
    map.iter().filter_map(|(name, node)| Some((name.clone(), matcher(node)?))).collect()
}

/// What decides which requests a path takes: parameters' names do not.
#[derive(PartialEq, Eq, Hash)]
struct Shape(Vec<Option<String>>, bool);

impl Shape {
    fn of(path: &PathPattern) -> Self {
        let segment = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(text.clone()),
            Segment::Parameter(_) => None,
            // No segment of a path has a slash in it.
            Segment::Version(_) => Some("/".to_owned()),
        };
        Shape(path.segments.iter().map(segment).collect(), path.rest)
    }
}

/// Two routes of the same host and the same path that some request meets, with as many predicates: neither is the
/// more specific.
pub(super) fn ties(mut routes: Vec<(&str, &Route)>, problems: &mut Problems) {
    fn key(at: &Place) -> (&OsStr, u32, u32) {
        (at.file.as_os_str(), at.line, at.column)
    }
    routes.sort_by(|(_, a), (_, b)| key(&a.at).cmp(&key(&b.at)));
    type Earlier<'a> = Vec<(&'a str, &'a Route)>;
    let mut seen: HashMap<(Option<&HostPattern>, Shape, usize), Earlier<'_>> = HashMap::new();
    for (name, route) in routes {
        let hosts: Vec<_> = match route.hosts.is_empty() {
            true => vec![None],
            false => route.all_hosts().map(Some).collect(),
        };
        let mut told = false;
        for (host, path) in hosts.into_iter().flat_map(|host| route.all_paths().map(move |path| (host, path)))
        {
            let earlier = seen.entry((host, Shape::of(path), route.when.count())).or_default();
            let tied = earlier.iter().find(|(_, first)| !first.when.excludes(&route.when));
            if let Some((first, at)) = tied.filter(|_| !told).map(|(first, route)| (first, &route.at)) {
                let shown = host.map_or("any host".into(), |host| format!("host \"{host}\""));
                let message = format!(
                    "route `{name}` takes the same requests ({shown}, path \"{path}\") as route `{first}` at {at}"
                );
                let hint = "the most specific route wins, so give one of them another host or path, or one more of \
                            `methods`, `headers` and `query`";
                problems.push(Problem::new(ProblemKind::Conflict, &route.at, message).hint(hint.to_owned()));
                told = true;
            }
            // Of routes that tie, the first stands for all: a thousand of the same are a thousand problems, not a million.
            if tied.is_none() {
                earlier.push((name, route));
            }
        }
    }
}
