//! What an upstream's balancing takes beyond its targets, and how it survives them.

use super::{
    Key, Kind, OFF, Section, TIMEOUT, Text,
    rewrite::RESPOND,
    seconds,
    text::{PERCENT, UPSTREAM_NAME},
};
use crate::config::{
    balancing::{HashOn, is_token},
    node::Value,
    units::{UnitError, quote},
};

pub(super) static HASH_ON: Text = Text {
    what: "what to hash",
    example: "header:x-user",
    pattern: Some("^((header|cookie|query):[^ ]+|path|consumer|ip|random)$"),
    parse: |text| HashOn::parse(text).map(|_| Value::Text(text.into())),
};

static COOKIE: Text = Text {
    what: "a cookie's name",
    example: "target",
    pattern: Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
    parse: |text| match is_token(text) {
        true => Ok(Value::Text(text.into())),
        false => {
            let message = format!("expected a cookie's name such as \"target\", found {}", quote(text));
            Err(UnitError::new(message).hint("a name is letters, digits and !#$%&'*+-.^_`|~"))
        }
    },
};

pub(super) const SHARE_OR_OFF: Kind = Kind::Either(&[OFF, Kind::Text(&PERCENT)]);

pub(super) static STICKY: Section = Section {
    doc: "A cookie keeps a client at its target, whatever the algorithm says, as long as the target is usable.",
    keys: &[
        Key::new("cookie", Kind::Text(&COOKIE), "The cookie's name.").required(),
        Key::new(
            "lasts",
            Kind::Either(&[OFF, Kind::Duration { min: seconds(1), max: seconds(400 * 86_400) }]),
            "`Max-Age`; \"off\": until the browser ends.",
        )
        .default("\"off\""),
        Key::new(
            "same_site",
            Kind::Choice { now: &[("lax", ""), ("strict", ""), ("none", "")], later: &[] },
            "`SameSite`.",
        )
        .default("\"lax\""),
        Key::new("secure", Kind::Bool, "`Secure`, also where the listener has no TLS; with TLS it always is. \"none\" in `same_site` needs it.")
            .default("false"),
    ],
};

pub(super) static EJECT: Section = Section {
    doc: "Take a target out by the errors of requests: connections that fail or break, time-outs, and 5xx.",
    keys: &[
        Key::new("errors", Kind::Int { min: 1, max: 1000 }, "Errors in a row, counted over all workers.")
            .default("5"),
        Key::new("within", TIMEOUT, "From the first of them to the last.").default("\"10s\""),
        Key::new(
            "for",
            TIMEOUT,
            "How long the first time; twice that the second, up to ten times. After it one error is enough again.",
        )
        .default("\"30s\""),
        Key::new("at_most", Kind::Text(&PERCENT), "The share of targets that may be out, rounded down.")
            .default("\"50%\""),
    ],
};

pub(super) static BREAKER: Section = Section {
    doc: "Stop asking an upstream that mostly fails: requests are answered 503 (`breaker_open`) at once, until a few \
          that are let through succeed.",
    keys: &[
        Key::new("errors", Kind::Text(&PERCENT), "The share of failed requests that opens it.")
            .default("\"50%\""),
        Key::new("least", Kind::Int { min: 1, max: 1_000_000 }, "Fewer requests than these do not open it.")
            .default("20"),
        Key::new("within", TIMEOUT, "The time over which both are counted.").default("\"10s\""),
        Key::new("open_for", TIMEOUT, "How long it stays open before requests are let through.")
            .default("\"10s\""),
        Key::new(
            "probes",
            Kind::Int { min: 1, max: 1000 },
            "Requests let through then, at a time; so many must succeed, and none fail.",
        )
        .default("3"),
        Key::new(
            "slow",
            TIMEOUT,
            "An answer that begins later than this counts as failed. Left out: how late it is does not count.",
        ),
    ],
};

pub(super) static FALLBACK: Section = Section {
    doc: "Who answers requests that an upstream cannot be asked for: another upstream, a fixed answer, or that where the \
          other one has none either. The log has the reason (`why`) all the same.",
    keys: &[
        Key::new(
            "on",
            Kind::List {
                of: &Kind::Choice {
                    now: &[
                        ("breaker", "its `breaker` is open"),
                        ("unhealthy", "no target is healthy"),
                        ("connect", "no target takes a connection"),
                    ],
                    later: &[],
                },
                min: 1,
                one: true,
            },
            "When.",
        )
        .default("[\"breaker\"]"),
        Key::new(
            "to",
            Kind::Text(&UPSTREAM_NAME),
            "The upstream that gets them, as this one would have. Its own `fallback` does not count.",
        )
        .required_without(&["respond"]),
        Key::new(
            "respond",
            Kind::Table(&RESPOND),
            "The fixed answer, with the variables of `rewrite` of the request as it would have gone to the upstream, and \
             `Cache-Control: no-store` unless it says otherwise. Not to gRPC calls, which get UNAVAILABLE.",
        ),
    ],
};
