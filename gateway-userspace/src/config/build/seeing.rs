//! `[access_log]`, `[tracing]`.

use std::{path::PathBuf, time::Duration};

use super::tls;
use crate::{
    config::{
        error::{Problem, ProblemKind, Problems},
        include::{absolute, beside},
        model::{AccessLog, Kafka, LogKeep, LogRotate, LogTarget, Redact, Tracing},
        node::Fields,
        units::{ByteSize, Percent, Place, quote},
    },
    observe::{access_log::Shape, collector::Collector, kafka},
};

pub(super) fn access_log(root: &Fields, name: &str, problems: &mut Problems) -> AccessLog {
    let fields = &root.table("access_log");
    let to = target(fields, root, name, problems);
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
    if matches!(to, LogTarget::Otlp(_)) && shape != Shape::Json {
        conflict("format", "`access_log.format` is for lines: log records have all fields, each by its name");
    }
    if fields.node("rotate").is_some() && !matches!(to, LogTarget::File(_)) {
        conflict("rotate", "`access_log.rotate` is for a file: what else `to` can be has nothing to rotate");
    }
    check_kafka(&to, fields, problems);
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
    Some(Tracing {
        otlp: with_path(&url, TRACES),
        share,
        trust_parent: fields.or_default("trust_parent"),
        server_timing: fields.or_default("server_timing"),
    })
}

/// Where collectors take what, unless told otherwise (OTLP 1.x, "OTLP/HTTP Request").
const TRACES: &str = "/v1/traces";
const LOGS: &str = "/v1/logs";

/// A collector's URL, with this path unless it has one.
fn with_path(url: &str, path: &str) -> String {
    match url.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
        None | Some((_, "")) => format!("{}{path}", url.trim_end_matches('/')),
        Some(_) => url.to_owned(),
    }
}

/// The place for logs beside the one for traces, where that is the usual one.
fn beside_traces(root: &Fields, at: &Place, problems: &mut Problems) -> String {
    let traces: Option<String> = root.node("tracing").and_then(|_| root.table("tracing").get("otlp"));
    match traces.map(|url| with_path(&url, TRACES)) {
        Some(url) => {
            if let Some(front) = url.strip_suffix(TRACES) {
                return format!("{front}{LOGS}");
            }
            let message = format!(
                "`access_log.to = \"otlp\"`: the collector of `[tracing]` takes traces at {}, which does not tell where it \
                 takes logs",
                quote(&url)
            );
            let hint = "name the place: to = \"otlp:https://collector.example/logs\"";
            problems.push(Problem::new(ProblemKind::Value, at, message).hint(hint.to_owned()));
        }
        None => {
            let message =
                "`access_log.to = \"otlp\"` is the collector of `[tracing]`, of which there is none";
            let hint = "name one: to = \"otlp:http://127.0.0.1:4318\"";
            problems.push(Problem::new(ProblemKind::Missing, at, message).hint(hint.to_owned()));
        }
    }
    String::new()
}

fn target(fields: &Fields, root: &Fields, name: &str, problems: &mut Problems) -> LogTarget {
    let collector = |url: String| LogTarget::Otlp(Collector { url, instance: name.to_owned() });
    let path = |text: &str| absolute(&beside(&fields.place("to"), PathBuf::from(text)));
    match fields.get::<String>("to") {
        Some(text) => match text.split_once(':') {
            Some(("unix", socket)) => LogTarget::Unix(path(socket)),
            Some(("syslog", server)) => LogTarget::Syslog(server.parse().ok()),
            Some(("otlp", url)) => collector(with_path(url, LOGS)),
            Some(("kafka", _)) => LogTarget::Kafka(brokers(fields, &text, name, problems)),
            _ => LogTarget::File(path(&text)),
        },
        None => match fields.or_default("to") {
            "off" => LogTarget::Off,
            "stderr" => LogTarget::Stderr,
            "journald" => LogTarget::Journald,
            "syslog" => LogTarget::Syslog(None),
            "otlp" => collector(beside_traces(root, &fields.place("to"), problems)),
            _ => LogTarget::Stdout,
        },
    }
}

fn brokers(fields: &Fields, url: &str, name: &str, problems: &mut Problems) -> Kafka {
    let keys = fields.table("kafka");
    // It was checked when it was read.
    let (brokers, topic) = kafka::parse(url).unwrap_or_default();
    Kafka {
        brokers,
        topic,
        name: name.to_owned(),
        tls: keys.or_default("tls"),
        ca: keys.node("ca").map(|_| super::file(&keys, "ca")),
        user: keys.get("user"),
        password: keys
            .node("password")
            .and_then(|_| tls::secret("access_log.kafka.password", &keys.table("password"), problems)),
        buffer: keys.or_default::<ByteSize>("buffer").0,
    }
}

fn check_kafka(to: &LogTarget, fields: &Fields, problems: &mut Problems) {
    let keys = fields.table("kafka");
    let mut conflict = |place: Place, message: &str| {
        problems.push(Problem::new(ProblemKind::Conflict, &place, message));
    };
    match to {
        LogTarget::Kafka(kafka) => {
            if kafka.ca.is_some() && !kafka.tls {
                conflict(keys.place("ca"), "`access_log.kafka.ca` is for TLS: `tls = true` is missing");
            }
            if kafka.user.is_some() != keys.node("password").is_some() {
                conflict(keys.at.clone(), "`access_log.kafka`: `user` and `password` go together");
            }
        }
        _ if fields.node("kafka").is_some() => {
            conflict(fields.place("kafka"), "`access_log.kafka` is for `to = \"kafka://BROKERS/TOPIC\"`");
        }
        _ => {}
    }
}

fn redact(what: &[String]) -> Redact {
    let named = |kind: &str| -> Vec<String> {
        what.iter().filter_map(|text| text.strip_prefix(kind)).map(str::to_owned).collect()
    };
    Redact { headers: named("header:"), query: named("query:") }
}
