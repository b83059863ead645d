//! `[listener.NAME]`.

use std::collections::BTreeMap;

use crate::config::{
    model::{Listener, ListenerMax, ListenerTimeout},
    node::Fields,
    units::ByteSize,
};

pub(super) fn listeners(root: &Fields) -> BTreeMap<String, Listener> {
    root.named("listener")
        .iter()
        .filter_map(|(name, fields)| Some((name.clone(), listener(fields)?)))
        .collect()
}

fn listener(fields: &Fields) -> Option<Listener> {
    let max = fields.table("max");
    let timeout = fields.table("timeout");
    Some(Listener {
        at: fields.at.clone(),
        bind: fields.get("bind")?,
        max: ListenerMax {
            connections: max.or_default("connections"),
            header: usize::try_from(max.or_default::<ByteSize>("header").0).unwrap_or(usize::MAX),
            body: max.or_default::<Option<ByteSize>>("body").map(|size| size.0),
        },
        timeout: ListenerTimeout {
            header: timeout.or_default("header"),
            idle: timeout.or_default("idle"),
            body: timeout.or_default("body"),
        },
    })
}
