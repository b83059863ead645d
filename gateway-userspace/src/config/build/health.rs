//! `health = { … }` of upstreams and services.

use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Health, HealthCheck},
    node::{Fields, Value},
    table::payload,
};

/// `owner`: whose checks they are, "upstream.items".
pub(super) fn health(owner: &str, parent: &Fields, problems: &mut Problems) -> Option<Health> {
    parent.node("health")?;
    let fields = parent.table("health");
    let check = match check(&fields) {
        Ok(check) => check,
        Err((message, hint)) => {
            // What is missed may be there, but wrong.
            if !fields.broken {
                let message = format!("`{owner}.health`: {message}");
                problems.push(Problem::new(ProblemKind::Conflict, &fields.at, message).hint(hint.to_owned()));
            }
            return None;
        }
    };
    Some(Health {
        check,
        every: fields.or_default("every"),
        timeout: fields.or_default("timeout"),
        rise: fields.or_default("rise"),
        fall: fields.or_default("fall"),
    })
}

/// The service to ask for; empty: the server as a whole.
fn grpc(fields: &Fields) -> Option<String> {
    fields.section.key("grpc")?;
    match &fields.node("grpc")?.value {
        Value::Text(service) => Some(service.clone()),
        Value::Bool(true) => Some(String::new()),
        _ => None,
    }
}

/// What is checked, or a message and a hint.
fn check(fields: &Fields) -> Result<HealthCheck, (String, &'static str)> {
    let takes_udp = fields.section.key("udp").is_some();
    let path: Option<String> = fields.get("path");
    let expect: Vec<u16> = fields.or_default("expect");
    let grpc = grpc(fields);
    let named = [
        ("path", path.is_some()),
        ("tcp", fields.or_default("tcp")),
        ("udp", takes_udp && fields.or_default("udp")),
        ("grpc", grpc.is_some()),
    ];
    let kinds: Vec<&str> = named.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind).collect();
    if takes_udp && !named[2].1 && (fields.node("send").is_some() || fields.node("answer").is_some()) {
        return Err(("`send` and `answer` are of a udp check".into(), "add udp = true, or drop them"));
    }
    match (kinds.as_slice(), path) {
        (["path"], Some(path)) => Ok(HealthCheck::Http { path, expect }),
        ([kind @ ("tcp" | "udp" | "grpc")], _) if !expect.is_empty() => {
            let message = format!("`expect` lists status codes, and a {kind} check has none");
            Err((message, "add a `path`, or drop `expect`"))
        }
        (["tcp"], _) => Ok(HealthCheck::Tcp),
        (["grpc"], _) => Ok(HealthCheck::Grpc { service: grpc.unwrap_or_default() }),
        (["udp"], _) => {
            let send: Option<String> = fields.get("send");
            // That it reads was checked when it was read.
            let send = send.map(|text| payload(&text).unwrap_or_default());
            let answer = fields.get("answer").unwrap_or(send.is_some());
            Ok(HealthCheck::Udp { send: send.unwrap_or_default(), answer })
        }
        ([one, other, ..], _) => {
            Err((format!("`{one}` and `{other}` are two kinds of checks"), "keep one of them"))
        }
        _ if takes_udp => {
            Err(("it does not say what to check".into(), "add tcp = true, udp = true or path = \"/healthz\""))
        }
        _ => Err((
            "it does not say what to check".into(),
            "add path = \"/healthz\", tcp = true or grpc = true",
        )),
    }
}
