//! `[route.NAME.version]`: each version as a route of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::distinct;
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{
        Afterwards, ApiVersion, Brownout, Canary, Deprecated, Destination, HostPattern, MirrorVersion,
        PathPattern, Route, Segment, Shape, Sticky, Strip, Sunset, VersionSource, Versions,
    },
    node::{Fields, Value},
    units::{Moment, Percent, VersionForm, VersionName, quote},
};

/// The segment that stands for the version, where the route's path has one.
const PARAMETER: &str = "version";

/// Takes `{version}` out of a path; where it was, else where a version goes: in front.
pub(super) fn take_segment(path: &mut PathPattern) -> usize {
    let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(name) if name == PARAMETER);
    match path.segments.iter().position(is_it) {
        Some(at) => {
            path.segments.remove(at);
            at
        }
        None => 0,
    }
}

/// Whether the version is looked for in the path.
pub(super) fn is_in_path(route: &Fields) -> bool {
    let versions = route.table("version");
    let from: Vec<String> = versions.get("from").unwrap_or_default();
    from.iter().any(|source| source == "path")
}

/// The route's keys as they are for a version.
fn inherit(route: &Fields, version: &Fields) -> Fields {
    const ANSWERS: [&str; 3] = ["to", "respond", "redirect"];
    /// What goes with a destination.
    const WITH_IT: [&str; 3] = ["sticky", "mirror", "rewrite"];
    let has = |keys: &[&str]| keys.iter().any(|key| version.map.contains_key(key));
    let replaced = has(&ANSWERS);
    let answered = has(&["respond", "redirect"]);
    let mut map: BTreeMap<_, _> = version
        .map
        .iter()
        .filter(|(key, _)| route.section.key(key).is_some())
        .map(|(key, node)| (*key, node.clone()))
        .collect();
    for (key, node) in &route.map {
        let left = *key == "version"
            || replaced && (ANSWERS.contains(key) || *key == "sticky")
            || answered && WITH_IT.contains(key);
        if !left {
            map.entry(key).or_insert_with(|| node.clone());
        }
    }
    Fields { section: route.section, at: version.at.clone(), map, broken: version.broken }
}

/// `build`: the route of these fields; an upstream that it makes has this name.
pub(super) fn versions(
    name: &str,
    route: &Fields,
    (base, segment): (&Route, usize),
    problems: &mut Problems,
    mut build: impl FnMut(&str, &Fields, &mut Problems) -> Route,
) -> Option<Box<Versions>> {
    let fields = route.written("version")?;
    let mut builder = Builder { path: format!("route.{name}.version"), fields, problems };
    let names = builder.names();
    let sources = builder.sources();
    let aliases = builder.aliases(&names);
    let known = |wanted: &str| names.iter().find(|name| name.as_str() == wanted);
    let default = fields.get::<String>("default").and_then(|wanted| {
        let wanted = aliases.get(&wanted).unwrap_or(&wanted);
        builder.defined(fields, "default", wanted, &names).then(|| wanted.clone())
    });
    let mut versions = Vec::new();
    let tables = fields.named_here();
    for name_of in &names {
        let Some(own) = tables.get(name_of.as_str()) else { continue };
        let merged = inherit(route, own);
        let makes = match own.map.contains_key("to") {
            true => format!("{name}.{name_of}"),
            false => name.to_owned(),
        };
        let built = build(&makes, &merged, builder.problems);
        builder.leads_somewhere(name_of, own, &merged);
        versions.push(builder.version(name_of.clone(), own, built, &names));
    }
    builder.successors(&mut versions, sources.contains(&VersionSource::Path));
    builder.mirrors(&mut versions, &sources, segment);
    let words: BTreeSet<&str> =
        names.iter().map(VersionName::as_str).chain(aliases.keys().map(String::as_str)).collect();
    let strip: Vec<&'static str> = fields.or_default("strip");
    let strip = |what: &str| strip.contains(&what);
    let paths = match sources.contains(&VersionSource::Path) {
        true => paths(&base.path, segment, &names, &words),
        false => Vec::new(),
    };
    let hosts = match sources.contains(&VersionSource::Host) {
        true => hosts(&base.hosts, &names, &words),
        false => Vec::new(),
    };
    debug_assert!(default.as_deref().is_none_or(|default| known(default).is_some()));
    Some(Box::new(Versions {
        from: sources,
        default,
        first_wins: fields.or_default::<&str>("on_conflict") == "first",
        aliases,
        strip: Strip { path: strip("path"), query: strip("query"), header: strip("header") },
        header: fields.or_default("header"),
        versions,
        paths,
        segment,
        hosts,
    }))
}

/// The route's path with the version in it: whatever looks like one, and every word for one.
fn paths(
    path: &PathPattern,
    segment: usize,
    names: &[VersionName],
    words: &BTreeSet<&str>,
) -> Vec<PathPattern> {
    let with = |version: Segment| {
        let mut path = path.clone();
        path.segments.insert(segment.min(path.segments.len()), version);
        path
    };
    let shape = Shape::of(names);
    let literal =
        words.iter().filter(|word| !shape.takes(word)).map(|word| Segment::Literal((*word).to_owned()));
    std::iter::once(Segment::Version(shape)).chain(literal).map(with).collect()
}

/// `v2.api.example.com`, and whatever else a version is called that is one label.
fn hosts(hosts: &[HostPattern], names: &[VersionName], words: &BTreeSet<&str>) -> Vec<HostPattern> {
    let numbers = names.iter().filter_map(|name| match name.form {
        VersionForm::Number(_) => Some(format!("v{}", name.as_str().trim_start_matches(['v', 'V']))),
        _ => None,
    });
    let labels: BTreeSet<String> = words
        .iter()
        .map(|word| word.to_ascii_lowercase())
        .chain(numbers)
        .filter(|label| !label.contains('.'))
        .collect();
    let exact = hosts.iter().filter_map(|host| match host {
        HostPattern::Exact(name) => Some(name),
        HostPattern::Wildcard(_) => None,
    });
    exact
        .flat_map(|host| labels.iter().map(move |label| HostPattern::Exact(format!("{label}.{host}"))))
        .filter(|host| !hosts.contains(host))
        .collect()
}

struct Builder<'a> {
    path: String,
    fields: &'a Fields,
    problems: &'a mut Problems,
}

impl Builder<'_> {
    fn tell(&mut self, kind: ProblemKind, fields: &Fields, key: &str, message: String, hint: &str) {
        let at = if key.is_empty() { fields.at.clone() } else { fields.place(key) };
        self.problems.push(Problem::new(kind, &at, message).hint(hint.to_owned()));
    }

    /// The oldest first.
    fn names(&mut self) -> Vec<VersionName> {
        let tables = self.fields.named_here();
        let mut names: Vec<VersionName> = tables.keys().filter_map(|name| name.parse().ok()).collect();
        names.sort_by(VersionName::order);
        if tables.is_empty() && !self.fields.broken {
            let message = format!("`{}` has no version", self.path);
            let hint = format!("add [{}.v1]", self.path);
            self.tell(ProblemKind::Missing, self.fields, "", message, &hint);
        }
        let mut kept: Vec<VersionName> = Vec::new();
        for name in names {
            match kept.iter().find(|first| first.is_same(&name)) {
                Some(first) => {
                    let message = format!(
                        "the versions {} and {} are the same to clients",
                        quote(first.as_str()),
                        quote(name.as_str())
                    );
                    let at = &tables[name.as_str()];
                    self.tell(ProblemKind::Duplicate, at, "", message, "rename one of them");
                }
                None => kept.push(name),
            }
        }
        kept
    }

    fn sources(&mut self) -> Vec<VersionSource> {
        let from: Vec<String> = self.fields.get("from").unwrap_or_default();
        let source = |text: String| match text.split_once(':') {
            Some(("header", name)) => VersionSource::Header(name.into()),
            Some((_, name)) => VersionSource::Query(name.into()),
            None if text == "path" => VersionSource::Path,
            None if text == "host" => VersionSource::Host,
            None => VersionSource::Accept,
        };
        let from = from.into_iter().map(source).collect();
        distinct(self.fields, "from", from, self.problems, |source| format!("\"{source}\""))
    }

    fn aliases(&mut self, names: &[VersionName]) -> BTreeMap<String, String> {
        let mut aliases = BTreeMap::new();
        for (alias, node) in self.fields.map("aliases") {
            let Value::Text(to) = &node.value else { continue };
            let parsed: Option<VersionName> = alias.parse().ok();
            if let Some(taken) =
                names.iter().find(|name| parsed.as_ref().is_some_and(|alias| alias.is_same(name)))
            {
                let message = format!("the alias {} is the version {taken} already", quote(&alias));
                self.problems.push(Problem::new(ProblemKind::Duplicate, &node.at, message));
                continue;
            }
            if !names.iter().any(|name| name.as_str() == to) {
                self.undefined(&node.at, to, names);
                continue;
            }
            aliases.insert(alias, to.clone());
        }
        aliases
    }

    fn undefined(&mut self, at: &crate::config::units::Place, wanted: &str, names: &[VersionName]) {
        let listed = || names.iter().map(VersionName::as_str);
        let hint = did_you_mean(wanted, listed(), quote)
            .unwrap_or_else(|| format!("there are: {}", listed().map(quote).collect::<Vec<_>>().join(", ")));
        let message = format!("{} is none of the versions of `{}`", quote(wanted), self.path);
        self.problems.push(Problem::new(ProblemKind::Undefined, at, message).hint(hint));
    }

    fn defined(&mut self, fields: &Fields, key: &str, wanted: &str, names: &[VersionName]) -> bool {
        let found = names.iter().any(|name| name.as_str() == wanted);
        if !found && !self.fields.broken {
            self.undefined(&fields.place(key), wanted, names);
        }
        found
    }

    fn leads_somewhere(&mut self, name: &VersionName, own: &Fields, merged: &Fields) {
        if !["to", "respond", "redirect"].iter().any(|key| merged.map.contains_key(key)) && !merged.broken {
            let message = format!("the version {name} leads nowhere: neither it nor its route has `to`");
            self.tell(ProblemKind::Missing, own, "", message, "for example: to = \"items-v1\"");
        }
    }

    fn version(
        &mut self,
        name: VersionName,
        own: &Fields,
        route: Route,
        names: &[VersionName],
    ) -> ApiVersion {
        let successor = own.get::<String>("successor");
        let successor = successor.filter(|wanted| self.defined(own, "successor", wanted, names));
        if successor.as_deref() == Some(name.as_str()) {
            let message = format!("the version {name} cannot follow itself");
            self.tell(ProblemKind::Conflict, own, "successor", message, "name a newer one");
        }
        ApiVersion {
            deprecated: deprecated(own),
            sunset: sunset(own),
            brownouts: self.brownouts(own),
            canary: self.canary(&name, own, names, route.auth.is_some()),
            name,
            route,
            successor,
        }
    }

    fn brownouts(&mut self, own: &Fields) -> Vec<Brownout> {
        let Some(Value::List(all)) = own.node("brownout").map(|node| &node.value) else { return Vec::new() };
        let mut brownouts = Vec::new();
        for node in all {
            let Value::Table(fields) = &node.value else { continue };
            let (Some(at), Some(lasts)) = (fields.get("at"), fields.get("for")) else { continue };
            let every = fields.get("every");
            if every.is_some_and(|every| every <= lasts) {
                let message =
                    "`brownout`: it would never end, as it comes again before it is over".to_owned();
                self.tell(ProblemKind::Conflict, fields, "every", message, "make `every` longer than `for`");
            }
            brownouts.push(Brownout { at, lasts, every });
        }
        brownouts
    }

    fn canary(
        &mut self,
        name: &VersionName,
        own: &Fields,
        names: &[VersionName],
        authenticated: bool,
    ) -> Option<Canary> {
        let fields = own.written("canary")?;
        let to: String = fields.get("to")?;
        if !self.defined(fields, "to", &to, names) {
            return None;
        }
        if to == name.as_str() {
            let message = format!("`canary.to`: the version {name} is where its requests go anyway");
            self.tell(ProblemKind::Conflict, fields, "to", message, "name another version");
        }
        let share: Percent = fields.or_default("share");
        if share.0 > 1.0 {
            let message = format!("`canary.share`: there is no more than 100%, found {share}");
            self.tell(ProblemKind::Value, fields, "share", message, "100% is all of them");
        }
        let header = fields.get::<String>("header").map(|text| match text.split_once(": ") {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        });
        let tiers: Vec<String> = fields.get("tiers").unwrap_or_default();
        if share.0 == 0.0 && header.is_none() && tiers.is_empty() && !fields.broken {
            let message =
                "`canary` sends nothing anywhere: it has no share, no header and no tiers".to_owned();
            self.tell(ProblemKind::Missing, fields, "", message, "for example: share = \"5%\"");
        }
        let sticky = fields.or_default::<String>("sticky");
        let sticky = match sticky.split_once(':') {
            Some(("cookie", name)) => Sticky::Cookie(name.into()),
            Some((_, name)) => Sticky::Header(name.into()),
            None if sticky == "consumer" => Sticky::Consumer,
            None => Sticky::Ip,
        };
        if (!tiers.is_empty() || sticky == Sticky::Consumer) && !authenticated {
            let key = if tiers.is_empty() { "sticky" } else { "tiers" };
            let message = format!("`canary.{key}` needs `auth`: without it nobody is known");
            self.tell(
                ProblemKind::Conflict,
                fields,
                key,
                message,
                "add auth = [\"…\"], the name of an [auth.NAME]",
            );
        }
        Some(Canary { to, share, header, tiers, sticky, named: fields.or_default("named") })
    }

    /// Where copies for another version go, and in which form.
    fn mirrors(&mut self, versions: &mut [ApiVersion], sources: &[VersionSource], segment: usize) {
        let keeps_path = !self.fields.or_default::<Vec<&'static str>>("strip").contains(&"path");
        let in_path = sources.contains(&VersionSource::Path);
        let query = sources.iter().filter_map(|source| match source {
            VersionSource::Query(name) => Some(name.clone()),
            _ => None,
        });
        let headers = sources.iter().filter_map(|source| match source {
            VersionSource::Header(name) => Some(name.clone()),
            _ => None,
        });
        let (query, headers): (Vec<String>, Vec<String>) = (query.collect(), headers.collect());
        let tables = self.fields.named_here();
        let names: Vec<VersionName> = versions.iter().map(|version| version.name.clone()).collect();
        for at in 0..versions.len() {
            let wanted = versions[at].route.mirror.as_ref().and_then(|mirror| mirror.version.as_ref());
            let Some(wanted) = wanted.map(|version| version.name.clone()) else { continue };
            // What the route says for all versions is not for that one.
            if wanted == versions[at].name.as_str() {
                versions[at].route.mirror = None;
                continue;
            }
            let own = &tables[versions[at].name.as_str()];
            if !self.defined(own, "mirror", &wanted, &names) {
                continue;
            }
            let shadow =
                versions.iter().find(|version| version.name.as_str() == wanted).map(|version| &version.route);
            let Some((Destination::Upstream(to), rewrite)) =
                shadow.map(|route| (route.to.clone(), route.rewrite.clone()))
            else {
                let message = format!("`mirror.version`: the version {wanted} has no single upstream");
                self.tell(ProblemKind::Conflict, own, "mirror", message, "name an upstream with `to`");
                continue;
            };
            let version = MirrorVersion {
                name: wanted,
                rewrite,
                segment: (in_path && keeps_path).then_some(segment),
                query: query.clone(),
                headers: headers.clone(),
            };
            if let Some(mirror) = &mut versions[at].route.mirror {
                mirror.to = to;
                mirror.version = Some(Box::new(version));
            }
        }
    }

    /// Where none is told, the next newer version that is not deprecated.
    fn successors(&mut self, versions: &mut [ApiVersion], in_path: bool) {
        for at in 0..versions.len() {
            if versions[at].successor.is_none()
                && (versions[at].deprecated.is_some() || versions[at].sunset.is_some())
            {
                let next =
                    versions[at + 1..].iter().find(|next| next.deprecated.is_none() && next.sunset.is_none());
                versions[at].successor = next.map(|next| next.name.to_string());
            }
            let redirects =
                versions[at].sunset.as_ref().is_some_and(|sunset| sunset.then == Afterwards::Redirect);
            if redirects && (versions[at].successor.is_none() || !in_path) {
                let message =
                    format!("the version {} cannot be redirected after its sunset", versions[at].name);
                let tables = self.fields.named_here();
                let own = &tables[versions[at].name.as_str()];
                let hint = "that takes a newer version that is not deprecated (or `successor`), and `path` in `from`";
                self.tell(ProblemKind::Conflict, own, "sunset", message, hint);
            }
        }
    }
}

fn deprecated(own: &Fields) -> Option<Deprecated> {
    match &own.node("deprecated")?.value {
        Value::Date(at) => Some(Deprecated { at: *at, link: None }),
        Value::Table(fields) => Some(Deprecated { at: fields.get("at")?, link: fields.get("link") }),
        _ => None,
    }
}

fn sunset(own: &Fields) -> Option<Sunset> {
    let (at, then, link): (Moment, _, _) = match &own.node("sunset")?.value {
        Value::Date(at) => (*at, "gone", None),
        Value::Table(fields) => (fields.get("at")?, fields.or_default("then"), fields.get("link")),
        _ => return None,
    };
    let then = match then {
        "redirect" => Afterwards::Redirect,
        "serve" => Afterwards::Serve,
        _ => Afterwards::Gone,
    };
    Some(Sunset { at, then, link })
}

/// Whether a route leaves it to its versions where requests go.
pub(super) fn instead_of_to(route: &Fields) -> Option<Destination> {
    route.node("version").map(|_| Destination::Versions)
}
