//! What a route takes, whoever sends it.

use crate::config::{
    model::Guard,
    node::{Fields, Value},
    units::{ByteSize, Prefix, Prefixes},
};

pub(super) fn guard(route: &Fields) -> Guard {
    let prefixes = |key: &str| route.get::<Vec<Prefix>>(key).map(Prefixes::new);
    let max = |key: &str| match route.node("max").map(|node| &node.value) {
        Some(Value::Table(max)) => max.get::<ByteSize>(key).map(|size| size.0),
        _ => None,
    };
    Guard {
        allow_from: prefixes("allow_from"),
        deny_from: prefixes("deny_from"),
        header: max("header").and_then(|size| usize::try_from(size).ok()),
        body: max("body"),
        content_types: route.get("content_types"),
        encoded_slash: route.or_default::<&str>("encoded_slash") == "refuse",
    }
}
