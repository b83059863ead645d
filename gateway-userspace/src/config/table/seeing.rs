//! What is seen from outside: the access log, traces.

use super::{
    Key, Kind, Section, TIMEOUT, Text,
    text::{LOG_FILE, PERCENT},
};
use crate::{
    config::{
        node::Value,
        units::{UnitError, quote},
    },
    observe::{access_log, post},
};

pub(super) static ACCESS_LOG: Section = Section {
    doc: "One line a request.",
    keys: &[
        Key::new(
            "to",
            Kind::Either(&[
                Kind::Choice {
                    now: &[
                        ("stdout", ""),
                        ("stderr", ""),
                        ("journald", "systemd's journal"),
                        ("syslog", "the system's log, /dev/log"),
                        ("off", "no access log"),
                    ],
                    later: &[],
                },
                Kind::Text(&LOG_FILE),
            ]),
            "Where it is written; a path is a file, \"unix:/run/log.sock\" a unix socket (of streams or datagrams), \
             \"syslog:192.0.2.1:514\" a server that takes RFC 5424 over UDP.",
        )
        .default("\"stdout\""),
        Key::new(
            "format",
            Kind::Either(&[
                Kind::Choice {
                    now: &[("json", "JSON lines"), ("combined", "as Apache and nginx write")],
                    later: &["logfmt"],
                },
                Kind::Text(&LOG_TEMPLATE),
            ]),
            "How. A text with `${FIELD}` in it is a line with the values of these fields, \"-\" where there is none.",
        )
        .default("\"json\""),
        Key::new("keep", Kind::Table(&KEEP), "Which requests are logged; default: all."),
        Key::new(
            "redact",
            Kind::List { of: &Kind::Text(&REDACT), min: 0, one: true },
            "Values that are replaced by `***`: \"header:NAME\" where the line has that header (`user-agent`, `referer`, \
             `host`; no other is ever logged), \"query:NAME\" in `query` and in the referer's.",
        )
        .default("[]"),
        Key::new(
            "rotate",
            Kind::Table(&ROTATE),
            "Rotation of a file by the gateway itself; default: none, and `USR1` reopens the file.",
        ),
        Key::new(
            "events",
            Kind::Bool,
            "Write what `gateway observe` shows (drops in the kernel, bans, targets, reloads, alerts) into the same stream, \
             as lines with `event`. Only with format \"json\".",
        )
        .default("false"),
        Key::new(
            "on_full",
            Kind::Choice { now: &[("drop", "drop and count")], later: &["block"] },
            "What happens to a line when the writer cannot keep up.",
        )
        .default("\"drop\""),
    ],
};

static KEEP: Section = Section {
    doc: "Which requests are logged. Those with an error (a status of 400 and above, or a `why`) always are.",
    keys: &[
        Key::new("ok", Kind::Text(&PERCENT), "So many of those that went well, by chance; at most 100%.")
            .default("\"100%\""),
        Key::new("slow", TIMEOUT, "All that took this long or longer.").default("\"1s\""),
    ],
};

static ROTATE: Section = Section {
    doc: "When the file is as large as `size`, it is renamed to `FILE.1`, that to `FILE.2`, and so on.",
    keys: &[
        Key::new("size", Kind::Size { min: 4 << 10, max: 1 << 40 }, "From which size on.")
            .default("\"256MiB\""),
        Key::new("files", Kind::Int { min: 1, max: 1000 }, "Renamed files that are kept.").default("8"),
    ],
};

pub(super) static TRACING: Section = Section {
    doc: "Traces, told to a collector by OTLP over HTTP (JSON). With this table every request is part of a trace: W3C's \
          `traceparent` and B3 are taken up and passed on, and lines of the access log have `trace`.",
    keys: &[
        Key::new(
            "otlp",
            Kind::Text(&URL),
            "The collector. Without a path in it, `/v1/traces` is added.",
        )
        .required(),
        Key::new("share", Kind::Text(&PERCENT), "So many of the traces that begin here, by chance; at most 100%.")
            .default("\"1%\""),
        Key::new(
            "trust_parent",
            Kind::Bool,
            "Go on with the trace that a request brings, and tell of it if its sender does. False where clients are \
             strangers: every request begins a trace.",
        )
        .default("true"),
        Key::new(
            "server_timing",
            Kind::Bool,
            "Tell clients of the times, in `Server-Timing` of forwarded answers.",
        )
        .default("false"),
    ],
};

static URL: Text = Text {
    what: "a URL",
    example: "http://127.0.0.1:4318",
    pattern: Some("^https?://."),
    parse: |text| {
        let wrong = |why| {
            UnitError::new(format!(
                "expected a URL such as \"http://127.0.0.1:4318\", found {}: {why}",
                quote(text)
            ))
        };
        post::check(text).map(|_| Value::Text(text.into())).map_err(wrong)
    },
};

static LOG_TEMPLATE: Text = Text {
    what: "a line",
    example: "${client} ${method} ${path} ${status} ${us}",
    pattern: Some("\\$\\{"),
    parse: |text| {
        if !text.contains("${") {
            let message =
                format!("expected \"json\", \"combined\" or a line with fields, found {}", quote(text));
            return Err(UnitError::new(message).hint("for example \"${client} ${method} ${path} ${status}\""));
        }
        access_log::Shape::template(text).map(|_| Value::Text(text.into())).map_err(UnitError::new)
    },
};

static REDACT: Text = Text {
    what: "what is blanked out",
    example: "query:token",
    pattern: Some("^(header|query):."),
    parse: |text| match text.split_once(':') {
        Some(("header", name)) if super::match_text::is_token(name) => {
            Ok(Value::Text(format!("header:{}", name.to_ascii_lowercase())))
        }
        Some(("query", name)) if !name.is_empty() && !name.contains(['&', '=', '#']) => {
            Ok(Value::Text(text.into()))
        }
        _ => {
            let message = format!(
                "expected \"header:NAME\" or \"query:NAME\", such as \"query:token\", found {}",
                quote(text)
            );
            Err(UnitError::new(message))
        }
    },
};
