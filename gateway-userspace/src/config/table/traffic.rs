//! Upstreams.

use super::{
    Key, Kind, OFF, Section, TIMEOUT,
    service::{CHECK_TIMEOUT, EVERY, EXPECT, FALL, RISE},
    text::{PERCENT, PROBE_PATH, TARGET},
};

pub(super) static UPSTREAM: Section = Section {
    doc: "A group of targets that serve the same.",
    keys: &[
        Key::new("to", Kind::List { of: &TARGET_OR_TABLE, min: 1, one: true }, "The targets: \"10.0.0.1:8080\".")
            .required_unless(&["dns"]),
        Key::new(
            "balance",
            Kind::Choice {
                now: &[
                    ("round-robin", "by turns, by weight"),
                    ("least-conn", "the least active requests for its weight"),
                    ("ip-hash", "one target a client address (Maglev)"),
                ],
                later: &["p2c", "maglev", "random"],
            },
            "How a target is chosen.",
        )
        .default("\"round-robin\""),
        Key::new(
            "bounded_load",
            Kind::Either(&[OFF, Kind::Float { above: 1.0, max: 100.0 }, Kind::Text(&PERCENT)]),
            "With ip-hash: no target gets more than this factor times the mean of active requests, such as 1.25 or \
             \"125%\".",
        )
        .default("\"off\""),
        Key::new("health", Kind::Table(&HEALTH), "Active checks. Left out: none, every target is taken to be healthy."),
        Key::new("retry", Kind::Table(&RETRY), "Other targets after a failure."),
        Key::new("timeout", Kind::Table(&UPSTREAM_TIMEOUT), "Time limits."),
        Key::new("pool", Kind::Table(&POOL), "Connections kept for the next request."),
        Key::not_yet("dns", "Targets by DNS."),
        Key::not_yet("tls", "TLS to the targets."),
        Key::not_yet("eject", "Take targets out by the errors of requests."),
    ],
};

pub(super) const TARGET_OR_TABLE: Kind = Kind::Either(&[Kind::Text(&TARGET), Kind::Table(&TARGET_TABLE)]);

static TARGET_TABLE: Section = Section {
    doc: "A target; \"10.0.0.1:8080\" is short for `{ addr = \"10.0.0.1:8080\" }`.",
    keys: &[
        Key::new("addr", Kind::Text(&TARGET), "Its address.").required(),
        Key::new("weight", Kind::Int { min: 1, max: 1000 }, "Its share of requests.").default("1"),
        Key::not_yet("zone", "Where it stands."),
    ],
};

static HEALTH: Section = Section {
    doc: "Active checks: `path` for HTTP, or `tcp = true`.",
    keys: &[
        Key::new("path", Kind::Text(&PROBE_PATH), "GET this path."),
        Key::new("tcp", Kind::Bool, "Only connect.").default("false"),
        EVERY,
        CHECK_TIMEOUT,
        RISE,
        FALL,
        EXPECT,
    ],
};

static RETRY: Section = Section {
    doc: "Other targets after a failure.",
    keys: &[
        Key::new(
            "on",
            Kind::List {
                of: &Kind::Choice {
                    now: &[("connect", "the connection could not be made")],
                    later: &["reset", "timeout", "500", "502", "503", "504"],
                },
                min: 0,
                one: true,
            },
            "What is retried; none: nothing.",
        )
        .default("[\"connect\"]"),
        Key::new("tries", Kind::Int { min: 0, max: 10 }, "How many other targets.").default("2"),
        Key::not_yet("budget", "Retries as a share of requests."),
    ],
};

static UPSTREAM_TIMEOUT: Section = Section {
    doc: "Time limits towards a target.",
    keys: &[
        Key::new("connect", TIMEOUT, "To make a connection.").default("\"1s\""),
        Key::new("first_byte", TIMEOUT, "From the request's end to the response's head.").default("\"15s\""),
        Key::new("idle", TIMEOUT, "Between two reads of a response's body.").default("\"60s\""),
        Key::new("total", Kind::Either(&[OFF, TIMEOUT]), "The whole exchange; \"off\": no limit.")
            .default("\"off\""),
    ],
};

static POOL: Section = Section {
    doc: "Connections kept for the next request.",
    keys: &[
        Key::new("idle", Kind::Int { min: 0, max: 65_536 }, "Idle connections kept a target and worker.")
            .default("256"),
        Key::new("idle_for", TIMEOUT, "How long one may idle.").default("\"60s\""),
        Key::not_yet("max", "The most connections to a target."),
        Key::not_yet("queue", "Requests that may wait for a connection."),
    ],
};
