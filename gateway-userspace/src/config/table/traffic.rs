//! Upstreams and routes.

use super::{
    Key, Kind, OFF, Section, TIMEOUT,
    service::{CHECK_TIMEOUT, EVERY, EXPECT, FALL, RISE},
    text::{HOST, PATH, PERCENT, PROBE_PATH, PROTOCOL, TARGET, UPSTREAM_NAME},
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

const TARGET_OR_TABLE: Kind = Kind::Either(&[Kind::Text(&TARGET), Kind::Table(&TARGET_TABLE)]);

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

pub(super) static ROUTE: Section = Section {
    doc: "Which requests go to which upstream. The most specific route wins, wherever it stands: an exact host before a \
          wildcard before none; then a literal segment before a `{parameter}` before `*`.",
    keys: &[
        Key::new(
            "host",
            Kind::List { of: &Kind::Text(&HOST), min: 1, one: true },
            "Host names; `*.example.com` matches every name under it. Left out: any host.",
        ),
        Key::new(
            "path",
            Kind::Text(&PATH),
            "`/items` matches just that, `/items/{id}` one segment more, `/items/*` itself and everything under it.",
        )
        .default("\"/*\""),
        Key::new(
            "to",
            Kind::Either(&[
                Kind::Text(&UPSTREAM_NAME),
                Kind::List { of: &TARGET_OR_TABLE, min: 1, one: false },
                Kind::NotYet,
            ]),
            "An upstream's name, or a list of targets, which makes an upstream with the route's name. Several \
             upstreams by weight (a table) are not supported yet.",
        )
        .required_unless(&["respond", "redirect", "version"]),
        Key::new(
            "upgrade",
            Kind::List { of: &Kind::Text(&PROTOCOL), min: 0, one: true },
            "Protocols that a connection may be upgraded to, such as \"websocket\".",
        )
        .default("[]"),
        Key::new("early_hints", Kind::Bool, "Pass 103 (Early Hints) on to the client.").default("false"),
        Key::new("compress", Kind::OnlyFalse, "Compress responses.").default("false"),
        Key::not_yet("methods", "Only these methods."),
        Key::not_yet("auth", "Who may call."),
        Key::not_yet("allow", "What callers must have been granted."),
        Key::not_yet("limit", "L7 limits."),
        Key::not_yet("cache", "Keep responses."),
        Key::not_yet("version", "API versions."),
        Key::not_yet("rewrite", "Change the request or the response."),
        Key::not_yet("respond", "Answer without an upstream."),
        Key::not_yet("redirect", "Answer with a redirect."),
        Key::not_yet("mirror", "Send a copy elsewhere."),
        Key::not_yet("cors", "Cross-origin requests."),
        Key::not_yet("timeout", "Time limits of this route's own."),
        Key::not_yet("retry", "Retries of this route's own."),
        Key::not_yet("ai", "Language models."),
    ],
};
