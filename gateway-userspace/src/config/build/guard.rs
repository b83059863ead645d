//! What a route takes, whoever sends it.

use super::shape::section;
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Guard, JsonLimits, Origin, SecurityHeaders},
    node::{Fields, Value},
    units::{ByteSize, Prefix, Prefixes},
};

pub(super) fn guard(route: &Fields, problems: &mut Problems) -> Guard {
    let prefixes = |key: &str| route.get::<Vec<Prefix>>(key).map(Prefixes::new);
    let max = |key: &str| route.written("max")?.get::<ByteSize>(key).map(|size| size.0);
    Guard {
        allow_from: prefixes("allow_from"),
        deny_from: prefixes("deny_from"),
        header: max("header").and_then(|size| usize::try_from(size).ok()),
        body: max("body"),
        content_types: route.get("content_types"),
        encoded_slash: route.or_default::<&str>("encoded_slash") == "refuse",
        json: json(route),
        csrf: csrf(route, problems),
    }
}

fn json(route: &Fields) -> Option<JsonLimits> {
    let max = route.written("max")?;
    let (depth, items) = (max.get("json_depth"), max.get("json_items"));
    (depth.is_some() || items.is_some()).then(|| JsonLimits { depth: depth.unwrap_or(64), items })
}

/// Pages that CORS allows by name may send what it lets them.
fn csrf(route: &Fields, problems: &mut Problems) -> Option<Vec<Origin>> {
    let fields = switched(route, "csrf")?;
    let mut origins: Vec<Origin> = fields.or_default("origins");
    if origins.contains(&Origin::Any) {
        let message = "`csrf.origins` with \"*\" would let every page in";
        let hint = "name the origins, or leave `csrf` out".to_owned();
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("origins"), message).hint(hint));
    }
    if let Some(cors) = route.written("cors") {
        let named = cors.get::<Vec<Origin>>("origins").unwrap_or_default();
        origins.extend(named.into_iter().filter(|origin| *origin != Origin::Any));
    }
    origins.sort();
    origins.dedup();
    Some(origins)
}

pub(super) fn security_headers(route: &Fields) -> Option<SecurityHeaders> {
    let fields = switched(route, "security_headers")?;
    let value = |key: &str| Some(fields.or_default::<String>(key)).filter(|value| value != "off");
    Some(SecurityHeaders {
        frame: Some(fields.or_default::<&str>("frame")).filter(|frame| *frame != "off").map(str::to_owned),
        referrer: value("referrer"),
        csp: fields.get("csp"),
        permissions: fields.get("permissions"),
    })
}

/// A table, or one of defaults where it is just true.
fn switched(route: &Fields, key: &str) -> Option<Fields> {
    let node = route.node(key)?;
    match &node.value {
        Value::Table(fields) => Some(fields.clone()),
        Value::Bool(true) => Some(Fields::empty(section(route, key)?, node.at.clone())),
        _ => None,
    }
}
