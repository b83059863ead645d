//! `[listener.NAME]`.

use std::collections::BTreeMap;

use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Bind, Listener, ListenerMax, ListenerTimeout},
    node::Fields,
    units::{ByteSize, Place},
};

pub(super) fn listeners(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Listener> {
    let tables = root.named("listener");
    let binds = tables
        .iter()
        .filter_map(|(name, fields)| Some((name.as_str(), fields.place("bind"), fields.get("bind")?)));
    overlaps(binds.collect(), problems);
    tables.iter().filter_map(|(name, fields)| Some((name.clone(), listener(fields)?))).collect()
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

/// Two listeners that would take the same connections: each is told once, at the later of the two places.
fn overlaps(mut binds: Vec<(&str, Place, Bind)>, problems: &mut Problems) {
    binds.sort_by(|(_, a, _), (_, b, _)| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    let mut by_port: BTreeMap<u16, Vec<(&str, Place, Bind)>> = BTreeMap::new();
    for (name, at, bind) in binds {
        let same_port = by_port.entry(bind.port()).or_default();
        if let Some((other, first, taken)) = same_port.iter().find(|(_, _, taken)| taken.overlaps(bind)) {
            let message = format!(
                "listener `{name}` binds {bind}, which listener `{other}` ({taken}) has already, at {first}"
            );
            problems.push(Problem::new(ProblemKind::Conflict, &at, message));
        }
        same_port.push((name, at, bind));
    }
}
