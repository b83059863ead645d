//! `[route.NAME]`: what it takes and where it leads.

use std::collections::BTreeMap;

use super::{
    auth, cache, distinct, guard, limit,
    predicates::{predicates, ties},
    rewrite, shape, upstream, version,
};
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{
        Compare, Destination, Mirror, MirrorVersion, PathPattern, RetryOn, Route, RouteRetry, RouteTimeout,
        Split, Sticky, Upstream,
    },
    node::{Fields, Node, Value},
    table::{Kind, ROOT, Section},
    units::{ByteSize, Percent, Place, quote},
};

/// `declared`: the upstreams of the config, right or wrong. Those that routes make are added to `upstreams`.
pub(super) fn routes(
    root: &Fields,
    declared: &BTreeMap<String, Fields>,
    upstreams: &mut BTreeMap<String, Upstream>,
    problems: &mut Problems,
) -> BTreeMap<String, Route> {
    let mut routes = BTreeMap::new();
    let limits = root.named("limit");
    let mut whole = Vec::new();
    let (auths, caches) = (root.named("auth"), root.named("cache"));
    for (name, fields) in root.named("route") {
        let before = problems.count();
        let route = versioned(name, fields, (declared, auths, caches, limits), upstreams, problems);
        // With a predicate that is wrong or not supported, whether it ties is anyone's guess.
        if !fields.broken && problems.count() == before {
            whole.push(name.as_str());
        }
        routes.insert(name.clone(), route);
    }
    let whole = whole.into_iter().filter_map(|name| Some((name, routes.get(name)?)));
    ties(whole.collect(), problems);
    routes
}

/// The upstreams, the ways of knowing a caller, the caches and the limits that a config has, right or wrong.
type Declared<'a> = (&'a Named, &'a Named, &'a Named, &'a Named);
type Named = BTreeMap<String, Fields>;

/// A route with its versions.
fn versioned(
    name: &str,
    fields: &Fields,
    declared: Declared<'_>,
    upstreams: &mut BTreeMap<String, Upstream>,
    problems: &mut Problems,
) -> Route {
    let mut path: PathPattern = fields.or_default("path");
    let segment = if version::is_in_path(fields) { version::take_segment(&mut path) } else { 0 };
    let mut one = |name: &str, fields: &Fields, problems: &mut Problems| {
        route(name, fields, path.clone(), declared, upstreams, problems)
    };
    let base = one(name, fields, problems);
    if let (Some(node), None) =
        (base.mirror.as_ref().and_then(|mirror| mirror.version.as_ref()), fields.node("version"))
    {
        let message =
            format!("`mirror.version`: the route has no versions, so there is no {}", quote(&node.name));
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("mirror"), message));
    }
    let versions = version::versions(name, fields, (&base, segment), problems, one);
    Route { versions, ..base }
}

/// `name`: of an upstream that it makes; `path`: where there is a version in the route's, without it.
fn route(
    name: &str,
    fields: &Fields,
    path: PathPattern,
    (declared, auths, caches, limits): Declared<'_>,
    upstreams: &mut BTreeMap<String, Upstream>,
    problems: &mut Problems,
) -> Route {
    let to = rewrite::answer(fields, &path, problems)
        .or_else(|| to(name, fields, declared, upstreams, problems))
        .or_else(|| version::instead_of_to(fields));
    if let Some(to) = &to {
        needs_upstreams(fields, to, problems);
    }
    let goes_up = to.as_ref().is_none_or(|to| !to.upstreams().is_empty()) || fields.node("version").is_some();
    let hosts = distinct(fields, "host", fields.get("host").unwrap_or_default(), problems, |host| {
        format!("host \"{host}\"")
    });
    let upgrade = distinct(fields, "upgrade", fields.or_default("upgrade"), problems, |protocol: &String| {
        format!("protocol \"{protocol}\"")
    });
    Route {
        at: fields.at.clone().into(),
        hosts,
        rewrite: rewrite::rewrite(fields, &path, problems),
        path,
        when: predicates(fields, problems),
        cors: shape::cors(fields, problems),
        compress: shape::compress(fields, problems),
        client_cache: cache::client(fields),
        cache: cache::of_route(fields, caches, goes_up, problems),
        mirror: mirror(fields, declared, problems),
        limits: limit::of_route(fields, limits, problems),
        to: to.unwrap_or(Destination::Upstream(String::new())),
        upgrade,
        early_hints: fields.or_default("early_hints"),
        grpc_web: fields.or_default("grpc_web"),
        timeout: timeout(fields),
        retry: retry(fields),
        guard: guard::guard(fields, problems),
        security_headers: guard::security_headers(fields),
        auth: auth::route_auth(fields, auths, problems),
        allow: auth::allow(fields, problems),
        versions: None,
    }
}

fn to(
    name: &str,
    fields: &Fields,
    declared: &BTreeMap<String, Fields>,
    upstreams: &mut BTreeMap<String, Upstream>,
    problems: &mut Problems,
) -> Option<Destination> {
    let node = fields.node("to")?;
    match &node.value {
        Value::Text(wanted) => {
            defined(wanted, &node.at, declared, problems);
            Some(Destination::Upstream(wanted.clone()))
        }
        Value::Map(shares) => Some(Destination::Split(split(shares, &node.at, fields, declared, problems))),
        _ => targets(name, node, declared, upstreams, problems).map(Destination::Upstream),
    }
}

fn split(
    shares: &BTreeMap<String, Node>,
    at: &Place,
    fields: &Fields,
    declared: &BTreeMap<String, Fields>,
    problems: &mut Problems,
) -> Split {
    shares.iter().for_each(|(wanted, node)| defined(wanted, &node.at, declared, problems));
    let weight = |node: &Node| match node.value {
        Value::Int(weight) => u32::try_from(weight).unwrap_or(u32::MAX),
        _ => 0,
    };
    let shares: Vec<(String, u32)> = shares.iter().map(|(name, node)| (name.clone(), weight(node))).collect();
    // Where a weight is wrong, that has been told.
    if !fields.broken && shares.iter().all(|(_, weight)| *weight == 0) {
        let hint = "give one of them a weight: { items-v2 = 95, items-v1 = 5 }".to_owned();
        problems.push(Problem::new(ProblemKind::Value, at, "no upstream gets any request").hint(hint));
    }
    Split { shares, sticky: fields.get::<String>("sticky").map(sticky) }
}

fn sticky(text: String) -> Sticky {
    match text.split_once(':') {
        Some(("cookie", name)) => Sticky::Cookie(name.into()),
        Some((_, name)) => Sticky::Header(name.into()),
        None => Sticky::Ip,
    }
}

fn timeout(fields: &Fields) -> RouteTimeout {
    let Some(timeout) = fields.written("timeout") else { return RouteTimeout::default() };
    RouteTimeout {
        first_byte: timeout.get("first_byte"),
        idle: timeout.get("idle"),
        total: timeout.get("total"),
    }
}

fn retry(fields: &Fields) -> RouteRetry {
    let Some(retry) = fields.written("retry") else { return RouteRetry::default() };
    let words: Option<Vec<&'static str>> = retry.get("on");
    RouteRetry {
        on: words.map(|words| RetryOn::from_words(&words)),
        tries: retry.get("tries"),
        per_try: retry.get("per_try"),
    }
}

/// Only several upstreams can be kept to, and only what goes to one can be copied.
fn needs_upstreams(fields: &Fields, to: &Destination, problems: &mut Problems) {
    let wrong = [
        (
            "sticky",
            !matches!(to, Destination::Split(_) | Destination::Versions),
            "`sticky` is for several upstreams: to = { a = 95, b = 5 }",
        ),
        (
            "mirror",
            to.upstreams().is_empty() && *to != Destination::Versions,
            "`mirror` copies what goes to an upstream, and this route has none",
        ),
    ];
    for (key, _, message) in wrong.iter().filter(|(key, wrong, _)| *wrong && fields.node(key).is_some()) {
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), *message));
    }
}

fn mirror(fields: &Fields, declared: &BTreeMap<String, Fields>, problems: &mut Problems) -> Option<Mirror> {
    let fields = fields.written("mirror")?;
    let (to, name) = (fields.get::<String>("to"), fields.get::<String>("version"));
    if to.is_some() && name.is_some() {
        let message = "`mirror` goes either to an upstream or to a version's";
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("version"), message));
    }
    match &to {
        Some(to) => defined(to, &fields.place("to"), declared, problems),
        None => drop(name.as_ref()?),
    }
    let share: Percent = fields.or_default("share");
    if share.0 > 1.0 {
        let message = format!("`mirror.share`: there is no more than 100%, found {share}");
        problems.push(Problem::new(ProblemKind::Value, &fields.place("share"), message));
    }
    let body: ByteSize = fields.or_default("body");
    Some(Mirror {
        to: to.unwrap_or_default(),
        share,
        body: body.0 as usize,
        queue: fields.or_default("queue"),
        // The rest of it is known when the versions are.
        version: name.map(|name| Box::new(MirrorVersion { name, ..MirrorVersion::default() })),
        compare: compare(fields),
    })
}

fn compare(mirror: &Fields) -> Option<Compare> {
    let node = mirror.node("compare")?;
    let fields = match &node.value {
        Value::Table(fields) => fields.clone(),
        Value::Bool(true) => Fields::empty(shape::section(mirror, "compare")?, node.at.clone()),
        _ => return None,
    };
    let body: ByteSize = fields.or_default("body");
    Some(Compare {
        ignore: fields.or_default("ignore"),
        headers: fields.or_default("headers"),
        body: body.0 as usize,
    })
}

pub(super) fn defined(
    wanted: &str,
    at: &Place,
    declared: &BTreeMap<String, Fields>,
    problems: &mut Problems,
) {
    if !declared.contains_key(wanted) {
        let hint = did_you_mean(wanted, declared.keys().map(String::as_str), quote);
        let message = format!("upstream {} is not defined", quote(wanted));
        let problem = Problem::new(ProblemKind::Undefined, at, message);
        problems.push(problem.hint(hint.unwrap_or_else(|| none_near(wanted, declared))));
    }
}

/// An upstream of the route's own; its name.
fn targets(
    name: &str,
    node: &Node,
    declared: &BTreeMap<String, Fields>,
    upstreams: &mut BTreeMap<String, Upstream>,
    problems: &mut Problems,
) -> Option<String> {
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
