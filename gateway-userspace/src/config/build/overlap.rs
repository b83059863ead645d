//! That no two listeners and services take the same packets.

use std::collections::BTreeMap;

use super::service;
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Bind, L4Protocol},
    node::Fields,
    units::Place,
};

struct Taken {
    /// "listener `web`"
    who: String,
    at: Place,
    bind: Bind,
}

/// Each overlap is told once, at the later of the two places.
pub(super) fn overlaps(root: &Fields, problems: &mut Problems) {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for (name, fields) in root.named("listener") {
        let who = format!("listener `{name}`");
        tcp.extend(fields.get("bind").map(|bind| Taken { who, at: fields.place("bind"), bind }));
    }
    for (name, fields) in root.named("service") {
        let all = match service::protocol(&fields) {
            L4Protocol::Tcp => &mut tcp,
            L4Protocol::Udp => &mut udp,
        };
        let who = || format!("service `{name}`");
        all.extend(service::binds(&fields).into_iter().map(|(at, bind)| Taken { who: who(), at, bind }));
    }
    tell(tcp, problems);
    tell(udp, problems);
}

fn tell(mut all: Vec<Taken>, problems: &mut Problems) {
    all.sort_by(|a, b| (&a.at.file, a.at.line, a.at.column).cmp(&(&b.at.file, b.at.line, b.at.column)));
    let mut by_port: BTreeMap<u16, Vec<Taken>> = BTreeMap::new();
    for one in all {
        let same_port = by_port.entry(one.bind.port()).or_default();
        if let Some(first) = same_port.iter().find(|first| first.bind.overlaps(one.bind)) {
            let message = format!(
                "{} binds {}, which {} ({}) has already, at {}",
                one.who, one.bind, first.who, first.bind, first.at
            );
            problems.push(Problem::new(ProblemKind::Conflict, &one.at, message));
        }
        same_port.push(one);
    }
}
