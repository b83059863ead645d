//! From checked values to the [model](super::model), and the checks that take more than one value.

mod acme;
mod alert;
mod auth;
mod balancing;
mod cache;
mod guard;
mod health;
mod kernel;
mod limit;
mod listener;
mod overlap;
mod predicates;
mod rewrite;
mod route;
mod seeing;
mod service;
mod shape;
mod splice;
mod system;
mod tls;
mod upstream;
mod version;

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    error::{Problem, ProblemKind, Problems},
    include::{absolute, beside},
    model::{Bucket, Config, Upstream},
    node::{Fields, FromValue, Value},
    units::{ByteSize, Place, Rate},
};

/// Each part is built for itself, so that a problem in one does not hide those of another. What cannot be built at
/// all is left out: its problem has been told, so the result is not used.
pub(crate) fn config(root: &Fields, mut files: Vec<PathBuf>, problems: &mut Problems) -> Option<Config> {
    overlap::overlaps(root, problems);
    let mut certs = tls::certs(root, problems);
    let mut listeners = listener::listeners(root, problems);
    let services = service::services(root, problems);
    let declared = root.named("upstream");
    let mut upstreams: BTreeMap<String, Upstream> = declared
        .iter()
        .filter_map(|(name, fields)| Some((name.clone(), upstream::upstream(name, fields, problems)?)))
        .collect();
    tls::upstreams(declared, root, problems);
    balancing::fallbacks(declared, problems);
    let limits = limit::limits(root, problems);
    let (auths, consumers) = (auth::auths(root, problems), auth::consumers(root, problems));
    let routes = route::routes(root, declared, &mut upstreams, problems);
    let caches = cache::caches(root, problems);
    let acme = acme::acme(root);
    acme::issue(acme.as_ref(), root, &routes, &mut listeners, &mut certs, problems);
    let mut kernel = kernel::kernel(&root.table("kernel"), problems);
    limit::in_kernel(&limits, &mut kernel.limit, root, problems);
    files.extend(kernel.block.files.iter().cloned());
    // A part of the file that could not be read as such may well hold the listeners or the routes.
    let only_services = !root.named("service").is_empty()
        && root.named("listener").is_empty()
        && root.named("route").is_empty();
    let only_redirects =
        !listeners.is_empty() && listeners.values().all(|listener| listener.redirect.is_some());
    if !root.broken && !only_services {
        for (what, none, example) in [
            ("listener", listeners.is_empty(), "[listener.web] with bind = \":80\""),
            ("route", routes.is_empty() && !only_redirects, "[route.all] with to = [\"127.0.0.1:3000\"]"),
        ] {
            if none && root.named(what).is_empty() {
                let at = Place { line: 0, column: 0, ..root.at.clone() };
                let problem = Problem::new(ProblemKind::Missing, &at, format!("there is no {what}"));
                problems.push(problem.hint(format!("add {example}")));
            }
        }
    }
    let gateway = system::gateway(&root.table("gateway"));
    Some(Config {
        access_log: seeing::access_log(root, &gateway.name, problems),
        gateway,
        kernel,
        listeners,
        certs,
        acme,
        upstreams,
        routes,
        services,
        caches,
        limits,
        penalty: limit::penalty(root),
        shared: limit::shared(root, problems),
        auths,
        consumers,
        tracing: seeing::tracing(root, problems),
        alerts: alert::alerts(root, problems),
        notify: alert::notify(root, problems),
        metrics: system::metrics(&root.table("metrics")),
        admin: system::admin(root, problems),
        state: auth::state(&root.table("state"), problems),
        files,
    })
}

/// A token bucket at `key`: a rate, or a table of a rate and a burst.
fn bucket(fields: &Fields, key: &str) -> Option<Bucket> {
    let (rate, burst): (Rate, Option<u64>) = rate_and_burst(fields, key)?;
    // Float to integer saturates, and a rate is positive and finite.
    let burst = burst.unwrap_or((rate.per_second.ceil() as u64).clamp(1, 1_000_000_000));
    Some(Bucket { rate, burst })
}

/// As [`bucket`], of bytes: a full one has room for any frame, unless told otherwise.
fn bytes(fields: &Fields, key: &str) -> Option<Bucket> {
    let (rate, burst): (Rate, Option<ByteSize>) = rate_and_burst(fields, key)?;
    let burst = burst.map_or((rate.per_second.ceil() as u64).clamp(64 << 10, 1 << 40), |size| size.0);
    Some(Bucket { rate, burst })
}

fn rate_and_burst<T: FromValue>(fields: &Fields, key: &str) -> Option<(Rate, Option<T>)> {
    match &fields.node(key)?.value {
        Value::Table(bucket) => Some((bucket.get("rate")?, bucket.get("burst"))),
        Value::Rate(rate) => Some((*rate, None)),
        _ => None,
    }
}

/// A file that the table at `fields` names, as an absolute path.
fn file(fields: &Fields, key: &str) -> PathBuf {
    absolute(&beside(&fields.place(key), fields.or_default::<PathBuf>(key)))
}

/// Reports elements that are there twice, each at its second place, and keeps the first of them.
fn distinct<T: PartialEq + Clone + Ord>(
    fields: &Fields,
    key: &str,
    list: Vec<T>,
    problems: &mut Problems,
    say: impl Fn(&T) -> String,
) -> Vec<T> {
    let mut seen = std::collections::BTreeMap::new();
    let places: Vec<Place> = match fields.node(key).map(|node| &node.value) {
        Some(Value::List(nodes)) => nodes.iter().map(|node| node.at.clone()).collect(),
        _ => Vec::new(),
    };
    let mut kept = Vec::with_capacity(list.len());
    for (index, element) in list.into_iter().enumerate() {
        let at = places.get(index).unwrap_or(&fields.at);
        if let Some(first) = seen.insert(element.clone(), at) {
            let message = format!("{} is there twice, first at {first}", say(&element));
            problems.push(Problem::new(ProblemKind::Duplicate, at, message));
        } else {
            kept.push(element);
        }
    }
    kept
}
