//! That no two listeners and services take the same packets.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, Ipv6Addr},
};

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
        let all = match service::protocol(fields) {
            L4Protocol::Tcp => &mut tcp,
            L4Protocol::Udp => &mut udp,
        };
        let who = || format!("service `{name}`");
        all.extend(service::binds(fields).into_iter().map(|(at, bind)| Taken { who: who(), at, bind }));
    }
    tell(tcp, problems);
    tell(udp, problems);
}

fn tell(mut all: Vec<Taken>, problems: &mut Problems) {
    all.sort_by(|a, b| (&a.at.file, a.at.line, a.at.column).cmp(&(&b.at.file, b.at.line, b.at.column)));
    let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
    for one in all {
        let port = ports.entry(one.bind.port()).or_default();
        if let Some(first) = port.overlapping(one.bind) {
            let message = format!(
                "{} binds {}, which {} ({}) has already, at {}",
                one.who, one.bind, first.who, first.bind, first.at
            );
            problems.push(Problem::new(ProblemKind::Conflict, &one.at, message));
        }
        port.first.entry(one.bind).or_insert(port.all.len());
        port.all.push(one);
    }
}

/// What binds one port, in the order of the config.
#[derive(Default)]
struct Port {
    all: Vec<Taken>,
    /// By address, the index of the first one: thousands of services may share a port.
    first: HashMap<Bind, usize>,
}

impl Port {
    /// The first one that takes some of the same packets.
    fn overlapping(&self, bind: Bind) -> Option<&Taken> {
        let port = bind.port();
        let wide = [
            Bind::Any(port),
            Bind::Addr((Ipv4Addr::UNSPECIFIED, port).into()),
            Bind::Addr((Ipv6Addr::UNSPECIFIED, port).into()),
        ];
        let overlaps = |taken: &&Taken| taken.bind.overlaps(bind);
        if wide.contains(&bind) {
            return self.all.iter().find(overlaps);
        }
        let known = wide.iter().chain([&bind]).filter_map(|bind| self.first.get(bind));
        known.copied().filter(|index| overlaps(&&self.all[*index])).min().map(|index| &self.all[index])
    }
}
