//! `[cache.NAME]`, and which one a route uses.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::distinct;
use crate::cache::disk::place::least_size;
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    include::{absolute, beside},
    model::{Cache, CacheDisk, ClientCache, KeyPart},
    node::Fields,
    units::{ByteSize, quote},
};

pub(super) fn caches(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Cache> {
    let named = root.named("cache");
    named.iter().map(|(name, fields)| (name.clone(), cache(name, fields, problems))).collect()
}

fn cache(name: &str, fields: &Fields, problems: &mut Problems) -> Cache {
    let stale = fields.table("stale");
    let long = |key: &str| stale.or_default::<Option<Duration>>(key).unwrap_or_default();
    let size = |key: &str| fields.or_default::<ByteSize>(key).0;
    let cache = Cache {
        at: fields.at.clone().into(),
        memory: size("memory"),
        disk: disk(fields),
        ttl: fields.or_default("ttl"),
        override_ttl: fields.or_default("override"),
        negative: fields.or_default("negative"),
        heuristic: fields.or_default("heuristic"),
        while_revalidate: long("while_revalidate"),
        if_error: long("if_error"),
        key: parts(fields, "key", problems),
        bypass: parts(fields, "bypass", problems),
        methods: distinct(fields, "methods", fields.or_default("methods"), problems, |method| quote(method)),
        max_request: size("max_request"),
        coalesce: fields.or_default("coalesce"),
        max_body: size("max_body"),
        variants: fields.or_default("variants"),
        store_set_cookie: fields.or_default("store_set_cookie"),
    };
    if cache.override_ttl && cache.ttl.is_none() && !fields.broken {
        let message = format!("`cache.{name}.override` needs a `ttl` that holds instead");
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("override"), message);
        problems.push(problem.hint("add ttl = \"30s\"".to_owned()));
    }
    if cache.max_body > cache.memory / 4 && !fields.broken {
        let most = ByteSize(cache.memory / 4);
        let message =
            format!("`cache.{name}.max_body`: one response may take a quarter of `memory` at most, {most}");
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("max_body"), message);
        problems.push(problem.hint("set max_body lower, or memory higher".to_owned()));
    }
    if cache.methods.iter().any(|method| *method != "GET")
        && !cache.key.contains(&KeyPart::Body)
        && !fields.broken
    {
        let message =
            format!("`cache.{name}.methods`: requests that differ by their bodies need \"body\" in `key`");
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("methods"), message);
        problems.push(problem.hint("add key = [\"host\", \"path\", \"query\", \"body\"]".to_owned()));
    }
    check_disk(name, &cache, fields, problems);
    cache
}

fn disk(cache: &Fields) -> Option<CacheDisk> {
    let at = cache.node("disk")?.at.clone();
    let fields = cache.table("disk");
    Some(CacheDisk {
        at: at.into(),
        path: absolute(&beside(&fields.place("path"), fields.get::<PathBuf>("path")?)),
        size: fields.get::<ByteSize>("size")?.0,
    })
}

fn check_disk(name: &str, cache: &Cache, fields: &Fields, problems: &mut Problems) {
    let Some(disk) = &cache.disk else { return };
    let least = least_size(cache.max_body);
    if disk.size < least && !fields.broken {
        let message = format!(
            "`cache.{name}.disk.size`: with a `max_body` of {} it must be {} or more",
            ByteSize(cache.max_body),
            ByteSize(least)
        );
        let problem = Problem::new(ProblemKind::Conflict, &fields.table("disk").place("size"), message);
        problems.push(problem.hint("set size higher, or max_body lower".to_owned()));
    }
}

fn parts(fields: &Fields, key: &str, problems: &mut Problems) -> Vec<KeyPart> {
    let texts = distinct(fields, key, fields.or_default(key), problems, |text: &String| quote(text));
    let parts: Vec<KeyPart> = texts.iter().filter_map(|text| KeyPart::parse(text)).collect();
    let some = parts.iter().find(|part| matches!(part, KeyPart::Parameter(_)));
    if let (true, "key", Some(some)) = (parts.contains(&KeyPart::Query), key, some) {
        let message = format!("\"query\" is all parameters, \"{some}\" too");
        let problem = Problem::new(ProblemKind::Conflict, &fields.place(key), message);
        problems.push(problem.hint("leave one of them out".to_owned()));
    }
    parts
}

pub(super) fn client(route: &Fields) -> Option<ClientCache> {
    route.node("client_cache")?;
    let fields = route.table("client_cache");
    Some(ClientCache {
        control: fields.get("control"),
        over: fields.or_default("override"),
        etag: fields.or_default("etag"),
        max: fields.or_default::<ByteSize>("max").0,
    })
}

/// The cache that a route names.
pub(super) fn of_route(
    route: &Fields,
    known: &BTreeMap<String, Fields>,
    goes_up: bool,
    problems: &mut Problems,
) -> Option<String> {
    let name: String = route.get("cache")?;
    let place = route.place("cache");
    if !known.contains_key(&name) {
        let hint = did_you_mean(&name, known.keys().map(String::as_str), quote);
        let problem =
            Problem::new(ProblemKind::Undefined, &place, format!("cache {} is not defined", quote(&name)));
        problems.push(problem.hint(hint.unwrap_or_else(|| format!("add [cache.{name}]"))));
    }
    if !goes_up {
        let message = "`cache` keeps what an upstream answers, and this route has none";
        problems.push(Problem::new(ProblemKind::Conflict, &place, message));
    }
    Some(name)
}
