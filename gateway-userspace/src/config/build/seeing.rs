//! `[access_log]`, `[tracing]`.

use std::{path::PathBuf, time::Duration};

use crate::{
    config::{
        error::{Problem, ProblemKind, Problems},
        include::{absolute, beside},
        model::{AccessLog, LogKeep, LogRotate, LogTarget, Redact, Tracing},
        node::Fields,
        units::{ByteSize, Percent},
    },
    observe::access_log::Shape,
};

pub(super) fn access_log(fields: &Fields, problems: &mut Problems) -> AccessLog {
    let to = target(fields);
    let shape = match fields.get::<String>("format") {
        // It was checked when it was read.
        Some(template) => Shape::template(&template).unwrap_or(Shape::Json),
        None if fields.or_default::<&str>("format") == "combined" => Shape::Combined,
        None => Shape::Json,
    };
    let events = fields.or_default("events");
    let mut conflict = |key: &str, message: &str| {
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message));
    };
    if events && shape != Shape::Json {
        conflict(
            "events",
            "`access_log.events` is for format \"json\": other lines have no place for events",
        );
    }
    if fields.node("rotate").is_some() && !matches!(to, LogTarget::File(_)) {
        conflict("rotate", "`access_log.rotate` is for a file: what else `to` can be has nothing to rotate");
    }
    let (keep, rotate) = (fields.table("keep"), fields.table("rotate"));
    if keep.or_default::<Percent>("ok").0 > 1.0 {
        let message = "`access_log.keep.ok` is at most 100%";
        problems.push(Problem::new(ProblemKind::Value, &keep.place("ok"), message));
    }
    AccessLog {
        to,
        shape,
        keep: fields.node("keep").is_some().then(|| LogKeep {
            ok: keep.or_default::<Percent>("ok").0,
            slow: keep.or_default::<Duration>("slow"),
        }),
        redact: redact(&fields.or_default::<Vec<String>>("redact")),
        rotate: fields.node("rotate").is_some().then(|| LogRotate {
            size: rotate.or_default::<ByteSize>("size").0,
            files: rotate.or_default("files"),
        }),
        events,
    }
}

pub(super) fn tracing(root: &Fields, problems: &mut Problems) -> Option<Tracing> {
    root.node("tracing")?;
    let fields = root.table("tracing");
    let share = fields.or_default::<Percent>("share").0;
    if share > 1.0 {
        let message = "`tracing.share` is at most 100%";
        problems.push(Problem::new(ProblemKind::Value, &fields.place("share"), message));
    }
    let url: String = fields.get("otlp")?;
    let behind_host = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    let otlp = match behind_host {
        None | Some((_, "")) => format!("{}/v1/traces", url.trim_end_matches('/')),
        Some(_) => url,
    };
    Some(Tracing {
        otlp,
        share,
        trust_parent: fields.or_default("trust_parent"),
        server_timing: fields.or_default("server_timing"),
    })
}

fn target(fields: &Fields) -> LogTarget {
    let path = |text: &str| absolute(&beside(&fields.place("to"), PathBuf::from(text)));
    match fields.get::<String>("to") {
        Some(text) => match (text.strip_prefix("unix:"), text.strip_prefix("syslog:")) {
            (Some(socket), _) => LogTarget::Unix(path(socket)),
            (_, Some(server)) => LogTarget::Syslog(server.parse().ok()),
            _ => LogTarget::File(path(&text)),
        },
        None => match fields.or_default("to") {
            "off" => LogTarget::Off,
            "stderr" => LogTarget::Stderr,
            "journald" => LogTarget::Journald,
            "syslog" => LogTarget::Syslog(None),
            _ => LogTarget::Stdout,
        },
    }
}

fn redact(what: &[String]) -> Redact {
    let named = |kind: &str| -> Vec<String> {
        what.iter().filter_map(|text| text.strip_prefix(kind)).map(str::to_owned).collect()
    };
    Redact { headers: named("header:"), query: named("query:") }
}
