//! API versions of a route.

use serde_json::{Map, Value, json};

use super::{share, some};
use crate::config::{
    model::{ApiVersion, Brownout, Canary, Deprecated, Sunset, Versions},
    units::show_duration,
};

pub(super) fn versions(versions: &Versions) -> Value {
    let strip =
        [("path", versions.strip.path), ("query", versions.strip.query), ("header", versions.strip.header)];
    let strip = strip.into_iter().filter(|(_, on)| *on).map(|(word, _)| word).collect::<Vec<_>>();
    let keys = some([
        ("from", Some(versions.from.iter().map(|source| json!(source.to_string())).collect())),
        ("default", versions.default.as_ref().map(|default| json!(default))),
        ("on_conflict", Some(json!(if versions.first_wins { "first" } else { "refuse" }))),
        ("aliases", (!versions.aliases.is_empty()).then(|| json!(versions.aliases))),
        ("strip", Some(json!(strip))),
        ("header", Some(json!(versions.header.as_deref().unwrap_or("off")))),
    ]);
    let Value::Object(mut all) = keys else { return keys };
    all.extend(versions.versions.iter().map(|one| (one.name.to_string(), version(one))));
    Value::Object(all)
}

/// The route's keys as they are for it, and its own.
fn version(version: &ApiVersion) -> Value {
    let own = some([
        ("deprecated", version.deprecated.as_ref().map(deprecated)),
        ("sunset", version.sunset.as_ref().map(sunset)),
        ("successor", version.successor.as_ref().map(|name| json!(name))),
        (
            "brownout",
            (!version.brownouts.is_empty()).then(|| version.brownouts.iter().map(brownout).collect()),
        ),
        ("canary", version.canary.as_ref().map(canary)),
    ]);
    let mut shown: Map<String, Value> = match own {
        Value::Object(own) => own,
        _ => Map::new(),
    };
    let Value::Object(route) = super::route::route(&version.route) else { return Value::Object(shown) };
    let of_the_route = ["host", "path", "methods", "headers", "query"];
    shown.extend(route.into_iter().filter(|(key, _)| !of_the_route.contains(&key.as_str())));
    Value::Object(shown)
}

fn deprecated(deprecated: &Deprecated) -> Value {
    let at = json!(deprecated.at);
    match &deprecated.link {
        None => at,
        Some(link) => json!({ "at": at, "link": link }),
    }
}

fn sunset(sunset: &Sunset) -> Value {
    some([
        ("at", Some(json!(sunset.at))),
        ("then", Some(json!(sunset.then.word()))),
        ("link", sunset.link.as_ref().map(|link| json!(link))),
    ])
}

fn brownout(brownout: &Brownout) -> Value {
    some([
        ("at", Some(json!(brownout.at))),
        ("for", Some(json!(show_duration(brownout.lasts)))),
        ("every", brownout.every.map(|every| json!(show_duration(every)))),
    ])
}

fn canary(canary: &Canary) -> Value {
    let header = canary.header.as_ref().map(|(name, value)| match value {
        Some(value) => json!(format!("{name}: {value}")),
        None => json!(name),
    });
    some([
        ("to", Some(json!(canary.to))),
        ("share", Some(share(canary.share.0))),
        ("header", header),
        ("tiers", (!canary.tiers.is_empty()).then(|| json!(canary.tiers))),
        ("sticky", Some(json!(canary.sticky.to_string()))),
        ("named", Some(json!(canary.named))),
    ])
}
