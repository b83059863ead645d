//! What is seen from outside: the access log, traces, alerts.

use super::{
    Key, Kind, Section, TIMEOUT, Text,
    listener::SECRET,
    seconds,
    text::{FILE, LOG_FILE, NAME, PERCENT},
};
use crate::{
    config::{
        node::Value,
        units::{UnitError, parse_duration, quote},
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
                        ("otlp", "log records to the collector of `[tracing]`"),
                        ("off", "no access log"),
                    ],
                    later: &[],
                },
                Kind::Text(&LOG_FILE),
            ]),
            "Where it is written; a path is a file, \"unix:/run/log.sock\" a unix socket (of streams or datagrams), \
             \"syslog:192.0.2.1:514\" a server that takes RFC 5424 over UDP, \"otlp:http://127.0.0.1:4318\" a collector that \
             takes log records by OTLP over HTTP (JSON; without a path in it, `/v1/logs` is added), \"kafka://10.0.0.1:9092,10.0.0.2:9092/access\" \
             a topic of Kafka's.",
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
        Key::new("kafka", Kind::Table(&KAFKA), "How a topic's brokers are spoken to."),
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

static KAFKA: Section = Section {
    doc: "All lines of a gateway are in one partition, in order, with `gateway.name` as their key, and each is there once: a batch is \
          sent until its partition's replicas have it.",
    keys: &[
        Key::new("tls", Kind::Bool, "Whether brokers are spoken to by TLS.").default("false"),
        Key::new(
            "ca",
            Kind::Text(&FILE),
            "Authorities that they are trusted by, PEM. Default: those of the system.",
        ),
        Key::new(
            "user",
            Kind::Text(&USER),
            "Who logs in: by SCRAM-SHA-512 or SCRAM-SHA-256, with TLS also by PLAIN, whichever of them the brokers know.",
        ),
        Key::new("password", Kind::Table(&SECRET), "The user's, where it is."),
        Key::new(
            "buffer",
            Kind::Size { min: 1 << 20, max: 1 << 34 },
            "Lines that may wait while no broker takes them; what comes above that is dropped and counted.",
        )
        .default("\"32MiB\""),
    ],
};

static USER: Text = Text {
    what: "a user's name",
    example: "gateway",
    pattern: None,
    parse: |text| match text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        true => Err(UnitError::new("a user's name is 1 to 255 bytes without control characters")),
        false => Ok(Value::Text(text.into())),
    },
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

pub(super) static ALERT: Section = Section {
    doc: "Something that somebody is to be told of. It is looked at each second.",
    keys: &[
        Key::new(
            "when",
            Kind::Choice {
                now: &[
                    ("errors", "the share of answers of 500 and above"),
                    ("latency", "a percentile of requests' times"),
                    ("upstream-down", "the share of an upstream's targets that take no part"),
                    ("limited", "requests and packets over a limit a second"),
                    ("cert-expiry", "the time until a certificate expires"),
                    ("kernel-drops", "packets that XDP drops a second"),
                    ("map-fill", "the share of a BPF map that is in use"),
                    ("config-refused", "the last reload was refused"),
                    (
                        "kernel-off",
                        "XDP is off on an interface of the config, or was taken off it within a minute",
                    ),
                    ("dead-man", "always: who hears no more of it knows that this gateway is gone"),
                ],
                later: &[],
            },
            "What is measured.",
        )
        .required(),
        Key::new("route", Kind::Text(&NAME), "Only this route's requests; for \"errors\" and \"latency\"."),
        Key::new("upstream", Kind::Text(&NAME), "Only this one; for \"upstream-down\"."),
        Key::new("cert", Kind::Text(&NAME), "Only this one; for \"cert-expiry\"."),
        Key::new(
            "above",
            Kind::Text(&THRESHOLD),
            "From what it is bad: a percentage, a duration or a rate, as `when` measures. \"upstream-down\" has \"99%\" (all \
             of them), \"map-fill\" \"90%\".",
        ),
        Key::new("below", Kind::Text(&THRESHOLD), "As `above`, for \"cert-expiry\"; default \"7d\"."),
        Key::new("clear", Kind::Text(&THRESHOLD), "From what it is good again; default: the same."),
        Key::new("over", WINDOW, "For rates, shares and percentiles: over how long.").default("\"1m\""),
        Key::new(
            "quantile",
            Kind::Choice { now: &[("p50", ""), ("p90", ""), ("p95", ""), ("p99", "")], later: &[] },
            "Which percentile; for \"latency\".",
        )
        .default("\"p99\""),
        Key::new(
            "least",
            Kind::Int { min: 1, max: 1_000_000_000 },
            "With fewer requests in `over`, \"errors\" and \"latency\" say nothing.",
        )
        .default("10"),
        Key::new("for", PERIOD, "How long it must be bad.").default("\"0s\""),
        Key::new("resolve_after", PERIOD, "How long it must be good to be over.").default("\"30s\""),
        Key::new("repeat", PERIOD, "How soon it is told again while it fires; \"dead-man\" has \"1m\".")
            .default("\"4h\""),
        Key::new("severity", Kind::Text(&NAME), "Told along.").default("\"warning\""),
        Key::new("notify", Kind::List { of: &Kind::Text(&NAME), min: 0, one: true }, "Who is told.")
            .default("[]"),
    ],
};

pub(super) static NOTIFY: Section = Section {
    doc: "Who is told of alerts. What fails is tried again, and only the last word on an alert is sent.",
    keys: &[
        Key::new(
            "webhook",
            Kind::Either(&[Kind::Table(&SECRET), Kind::Text(&URL)]),
            "A URL that JSON is posted to; one with a secret in it by reference: { env = \"OPS_WEBHOOK\" }.",
        )
        .required(),
        Key::new(
            "format",
            Kind::Choice {
                now: &[
                    ("json", "our own"),
                    ("slack", "Slack's incoming webhooks"),
                    ("alertmanager", "the API of Prometheus's Alertmanager; `/api/v2/alerts` is added to a URL without a path"),
                ],
                later: &[],
            },
            "What is posted.",
        )
        .default("\"json\""),
    ],
};

const WINDOW: Kind = Kind::Duration { min: seconds(1), max: seconds(3600) };
const PERIOD: Kind = Kind::Duration { min: seconds(0), max: seconds(30 * 86_400) };

static THRESHOLD: Text = Text {
    what: "a percentage, a duration or a rate",
    example: "5%",
    pattern: Some("^[0-9]"),
    parse: |text| {
        let duration = || parse_duration(text).map(Value::Duration).ok();
        let found = text.parse().map(Value::Percent).ok().or_else(|| text.parse().map(Value::Rate).ok());
        found.or_else(duration).ok_or_else(|| {
            UnitError::new(format!(
                "expected a percentage, a duration or a rate, such as \"5%\", \"250ms\" or \"100/s\", found {}",
                quote(text)
            ))
        })
    },
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
