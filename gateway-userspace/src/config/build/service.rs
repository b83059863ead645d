//! `[service.NAME]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{bucket, bytes, health::health, splice};
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Bind, Forward, L4Balance, L4Protocol, Service, ServiceLimit, ServiceTarget, Splice},
    node::{Fields, Node, Value},
    table::{MOST_ADDRESSES, MOST_SERVICES, MOST_TARGETS, MOST_TARGETS_IN_ALL},
    units::Place,
};

pub(super) fn services(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Service> {
    let tables = root.named("service");
    let mut services = BTreeMap::new();
    let (mut addresses, mut targets) = (0, 0);
    for (index, (name, fields)) in tables.iter().enumerate() {
        if index == MOST_SERVICES {
            let message = format!("there are {} services, at most {MOST_SERVICES} are allowed", tables.len());
            problems.push(Problem::new(ProblemKind::Conflict, &fields.at, message));
        }
        let Some(service) = service(name, fields, root, problems) else { continue };
        // Those of userspace take no place in the kernel's tables.
        let (binds, to) = match service.splice {
            None => (service.binds.len(), service.targets.len()),
            Some(_) => (0, 0),
        };
        for (what, key, more, all, most) in [
            ("addresses", "bind", binds, &mut addresses, MOST_ADDRESSES),
            ("targets", "to", to, &mut targets, MOST_TARGETS_IN_ALL),
        ] {
            let before = *all;
            *all += more;
            // Told once, at the one that is too many.
            if before <= most && *all > most {
                let message = format!(
                    "with service `{name}` there are {all} {what} in all, at most {most} are allowed"
                );
                problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message));
            }
        }
        services.insert(name.clone(), service);
    }
    services
}

/// Each address of a list with its place.
pub(super) fn binds(fields: &Fields) -> Vec<(Place, Bind)> {
    let Some(Value::List(nodes)) = fields.node("bind").map(|node| &node.value) else { return Vec::new() };
    let bind = |node: &Node| match node.value {
        Value::Bind(bind) => Some((node.at.clone(), bind)),
        _ => None,
    };
    nodes.iter().filter_map(bind).collect()
}

fn service(name: &str, fields: &Fields, root: &Fields, problems: &mut Problems) -> Option<Service> {
    if fields.node("to").is_none() && fields.node("sni").is_none() {
        return None;
    }
    let protocol = protocol(fields);
    let splice =
        splice::is_spliced(fields).then(|| Box::new(splice::splice(name, fields, root, protocol, problems)));
    let limit = fields.table("limit");
    let service = Service {
        at: fields.at.clone().into(),
        binds: binds(fields).into_iter().map(|(_, bind)| bind).collect(),
        protocol,
        targets: match &splice {
            Some(splice) => splice::all(splice),
            None => fields.node("to").map(|to| targets(to, problems)).unwrap_or_default(),
        },
        forward: match fields.or_default("forward") {
            "dsr" => Forward::Dsr,
            "ipip" => Forward::Ipip,
            "gue" => Forward::Gue,
            _ => Forward::Nat,
        },
        balance: match fields.or_default("balance") {
            "ip-hash" => L4Balance::IpHash,
            "round-robin" => L4Balance::RoundRobin,
            "least-conn" => L4Balance::LeastConn,
            "random" => L4Balance::Random,
            _ => L4Balance::Maglev,
        },
        flows: fields.or_default("flows"),
        quic: fields.or_default("quic"),
        health: health(&format!("service.{name}"), fields, problems),
        limit: ServiceLimit {
            packets: bucket(&limit, "packets"),
            new: bucket(&limit, "new"),
            bytes: bytes(&limit, "bytes"),
        },
        splice,
    };
    splice::keys(name, fields, protocol, service.balance, problems);
    settings(name, fields, &service, problems);
    addresses(name, fields, &service, problems);
    Some(service)
}

pub(super) fn protocol(fields: &Fields) -> L4Protocol {
    match fields.or_default("protocol") {
        "udp" => L4Protocol::Udp,
        _ => L4Protocol::Tcp,
    }
}

/// Settings that exclude each other.
fn settings(name: &str, fields: &Fields, service: &Service, problems: &mut Problems) {
    let mut conflict = |key: &str, message: &str, hint: &str| {
        let message = format!("`service.{name}.{key}`: {message}");
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message).hint(hint.to_owned()));
    };
    // A protocol that is wrong has been told.
    if service.quic && service.protocol != L4Protocol::Udp && !fields.broken {
        conflict("quic", "QUIC is UDP", "add protocol = \"udp\"");
    }
    if !service.flows && service.forward == Forward::Nat && !fields.broken {
        let hint = "drop it, or use forward = \"dsr\", \"ipip\" or \"gue\"";
        conflict("flows", "nat cannot do without: replies are rewritten by what it remembers", hint);
    }
    if !service.quic && service.targets.iter().any(|target| target.server_id.is_some()) && !fields.broken {
        conflict("to", "`server_id` is of QUIC's connection ids", "add quic = true, or drop it");
    }
    if service.targets.len() > MOST_TARGETS {
        let message = format!("{} targets, at most {MOST_TARGETS} are allowed", service.targets.len());
        conflict("to", &message, "spread them over several services");
    }
}

/// The targets of a list; the same address or server id twice is a problem.
pub(super) fn targets(to: &Node, problems: &mut Problems) -> Vec<ServiceTarget> {
    let Value::List(nodes) = &to.value else { return Vec::new() };
    let mut addresses: BTreeMap<SocketAddr, &Place> = BTreeMap::new();
    let mut ids: BTreeMap<u16, &Place> = BTreeMap::new();
    let mut targets = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(target) = target(node) else { continue };
        let addr = target.addr;
        let mut twice = |message: String, hint: String| {
            problems.push(Problem::new(ProblemKind::Duplicate, &node.at, message).hint(hint));
        };
        if let Some(first) = addresses.insert(addr, &node.at) {
            twice(
                format!("target \"{addr}\" is there twice, first at {first}"),
                format!("to send it more, give it a weight: {{ addr = \"{addr}\", weight = 2 }}"),
            );
        }
        if let Some(id) = target.server_id
            && let Some(first) = ids.insert(id, &node.at)
        {
            twice(
                format!("server_id {id} is there twice, first at {first}"),
                "each target puts another one into its connection ids".into(),
            );
        }
        targets.push(target);
    }
    targets
}

fn target(node: &Node) -> Option<ServiceTarget> {
    match &node.value {
        Value::Target(addr) => Some(ServiceTarget { addr: *addr, weight: 1, server_id: None }),
        Value::Table(fields) => Some(ServiceTarget {
            addr: fields.get("addr")?,
            weight: fields.or_default("weight"),
            server_id: fields.get("server_id"),
        }),
        _ => None,
    }
}

/// That targets go with the addresses of the service.
fn addresses(name: &str, fields: &Fields, service: &Service, problems: &mut Problems) {
    let vips = binds(fields);
    if let Some(splice) = &service.splice {
        return own_addresses(fields, splice, &vips, problems);
    }
    let families: BTreeSet<bool> = vips.iter().filter_map(|(_, bind)| is_ipv4(*bind)).collect();
    if families.len() > 1 {
        let message = format!("service `{name}` binds addresses of IPv4 and of IPv6");
        let hint = "make two services, each with targets of its own IP version";
        problems
            .push(Problem::new(ProblemKind::Conflict, &fields.place("bind"), message).hint(hint.to_owned()));
        return;
    }
    let Some(Value::List(nodes)) = fields.node("to").map(|node| &node.value) else { return };
    for (node, target) in nodes.iter().filter_map(|node| Some((node, target(node)?))) {
        if let Some((message, hint)) = vips.iter().find_map(|(_, vip)| mismatch(service, *vip, target.addr)) {
            problems.push(Problem::new(ProblemKind::Conflict, &node.at, message).hint(hint));
        }
    }
}

/// A service that connects to itself would do so for ever.
fn own_addresses(fields: &Fields, splice: &Splice, vips: &[(Place, Bind)], problems: &mut Problems) {
    let own = |target: &ServiceTarget| vips.iter().any(|(_, vip)| *vip == Bind::Addr(target.addr));
    let lists = [("to", &splice.to)].into_iter().chain(splice.sni.iter().map(|(_, list)| ("sni", list)));
    for (key, list) in lists {
        for target in list.iter().filter(|target| own(target)) {
            let message = format!("target \"{}\" is the service's own address", target.addr);
            let problem = Problem::new(ProblemKind::Conflict, &fields.place(key), message);
            problems.push(problem.hint("name the host that answers for it".to_owned()));
        }
    }
}

fn is_ipv4(bind: Bind) -> Option<bool> {
    match bind {
        Bind::Any(_) => None,
        Bind::Addr(addr) => Some(addr.is_ipv4()),
    }
}

/// Why packets to `vip` cannot be sent on to this target, and the cure.
fn mismatch(service: &Service, vip: Bind, target: SocketAddr) -> Option<(String, String)> {
    let version = |ipv4| if ipv4 { "IPv4" } else { "IPv6" };
    if let Some(ipv4) = is_ipv4(vip).filter(|ipv4| *ipv4 != target.is_ipv4()) {
        let message =
            format!("target \"{target}\" is {}, but \"{vip}\" is {}", version(!ipv4), version(ipv4));
        return Some((message, "a service and its targets are of one IP version".into()));
    }
    if vip == Bind::Addr(target) {
        let message = format!("target \"{target}\" is the service's own address");
        return Some((message, "name the host that answers for it".into()));
    }
    if service.forward != Forward::Nat && target.port() != vip.port() {
        let message = format!("target \"{target}\" has another port than \"{vip}\"");
        let hint = format!("only forward = \"nat\" changes ports: use port {}", vip.port());
        return Some((message, hint));
    }
    None
}
