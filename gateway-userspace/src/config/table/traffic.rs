//! Upstreams.

use super::{
    Key, Kind, OFF, Section, TIMEOUT,
    balancing::{BREAKER, EJECT, FALLBACK, HASH_ON, SHARE_OR_OFF, STICKY},
    service::{CHECK_TIMEOUT, EVERY, EXPECT, FALL, RISE},
    text::{DNS, FILE, GRPC_SERVICE, NAME, PERCENT, PROBE_PATH, SERVER_NAME, TARGET},
};

pub(super) static UPSTREAM: Section = Section {
    doc: "A group of targets that serve the same.",
    keys: &[
        Key::new(
            "to",
            Kind::List { of: &TARGET_OR_TABLE, min: 1, one: true },
            "The targets: \"10.0.0.1:8080\", or names, \"app.internal:8080\", whose addresses (A, AAAA) are targets; with \
             https:// in front of each address, they are spoken to by TLS.",
        )
        .required_unless(&["dns"]),
        Key::new(
            "balance",
            Kind::Choice {
                now: &[
                    ("round-robin", "by turns, by weight"),
                    ("least-conn", "the least active requests for its weight"),
                    ("ip-hash", "one target a client address (Maglev)"),
                    ("p2c", "the better of two by lot: latency (peak EWMA) times load"),
                    ("maglev", "one target a key, see `hash_on`"),
                    ("random", "by lot, by weight"),
                ],
                later: &[],
            },
            "How a target is chosen.",
        )
        .default("\"round-robin\""),
        Key::new(
            "bounded_load",
            Kind::Either(&[OFF, Kind::Float { above: 1.0, max: 100.0 }, Kind::Text(&PERCENT)]),
            "With ip-hash and maglev: no target gets more than this factor times the mean of active requests, such as 1.25 or \
             \"125%\".",
        )
        .default("\"off\""),
        Key::new("health", Kind::Table(&HEALTH), "Active checks. Left out: none, every target is taken to be healthy."),
        Key::new("retry", Kind::Table(&RETRY), "Other targets after a failure."),
        Key::new("timeout", Kind::Table(&UPSTREAM_TIMEOUT), "Time limits."),
        Key::new("pool", Kind::Table(&POOL), "Connections kept for the next request, and how many requests a target gets at once."),
        Key::new(
            "dns",
            Kind::Text(&DNS),
            "In place of `to`: a name whose addresses are the targets, or \"srv:_http._tcp.app.internal\", whose SRV \
             records (RFC 2782) say host, port, priority and weight. Looked up again when the answer's time to live is \
             over, after 5 s at the soonest and 5 min at the latest. With `tls` it is `sni` too.",
        ),
        Key::new(
            "tls",
            Kind::Table(&UPSTREAM_TLS),
            "TLS to the targets; `{}` is all defaults. Left out: in clear, unless `to` has https://.",
        ),
        Key::new(
            "protocol",
            Kind::Choice {
                now: &[
                    ("h1", "HTTP/1.1"),
                    ("h2", "HTTP/2: by ALPN over TLS, by prior knowledge in clear"),
                    ("auto", "what the target chooses by ALPN; only with TLS"),
                ],
                later: &[],
            },
            "What the targets speak.",
        )
        .default("\"h1\""),
        Key::new(
            "hash_on",
            Kind::List { of: &Kind::Text(&HASH_ON), min: 1, one: true },
            "With maglev: what a request's target depends on: \"header:NAME\", \"cookie:NAME\", \"query:NAME\", \"path\", \
             \"consumer\", \"ip\". The first that the request has counts; without any, the client's address. \"random\" in \
             the last place: by lot.",
        )
        .default("[\"ip\"]"),
        Key::new("sticky", Kind::Table(&STICKY), "Keep a client at its target by a cookie."),
        Key::new(
            "slow_start",
            Kind::Either(&[OFF, TIMEOUT]),
            "A target that comes back, or is added by a reload, gets 10 % of its weight, and all of it after so long.",
        )
        .default("\"off\""),
        Key::new(
            "spill",
            Kind::Text(&PERCENT),
            "With `gateway.zone`: targets of other zones get requests when less than this share of the own zone's is \
             usable.",
        )
        .default("\"50%\""),
        Key::new(
            "panic",
            SHARE_OR_OFF,
            "When less than this share of the targets in use is healthy, all are used; \"off\": never.",
        )
        .default("\"off\""),
        Key::new("eject", Kind::Table(&EJECT), "Take targets out by the errors of requests. Left out: none."),
        Key::new("breaker", Kind::Table(&BREAKER), "Stop asking when most requests fail. Left out: never."),
        Key::new("fallback", Kind::Table(&FALLBACK), "Who answers where it cannot be asked. Left out: nobody, clients get 502, 503 or 504."),
        Key::new(
            "proxy_protocol",
            PROXY_VERSION,
            "Tell targets the client's address by the PROXY protocol, before anything else on a connection. It belongs to that \
             client then: none is kept for later requests. Left out: not told.",
        ),
    ],
};

/// Also of a service.
pub(super) const PROXY_VERSION: Kind =
    Kind::Choice { now: &[("v1", "a line of text"), ("v2", "binary")], later: &[] };

pub(super) const TARGET_OR_TABLE: Kind = Kind::Either(&[Kind::Text(&TARGET), Kind::Table(&TARGET_TABLE)]);

static TARGET_TABLE: Section = Section {
    doc: "A target; \"10.0.0.1:8080\" is short for `{ addr = \"10.0.0.1:8080\" }`.",
    keys: &[
        Key::new("addr", Kind::Text(&TARGET), "Its address.").required(),
        Key::new("weight", Kind::Int { min: 1, max: 1000 }, "Its share of requests.").default("1"),
        Key::new("zone", Kind::Text(&NAME), "Where it stands; see `gateway.zone`."),
        Key::new("backup", Kind::Bool, "Short for `priority = 1`.").default("false"),
        Key::new(
            "priority",
            Kind::Int { min: 0, max: 15 },
            "It gets requests only while no target of a lower number is usable.",
        )
        .default("0"),
        Key::new(
            "max",
            IN_FLIGHT,
            "The most requests in flight on it, over all workers. Default: `pool.max`.",
        ),
    ],
};

static UPSTREAM_TLS: Section = Section {
    doc: "TLS to the targets. The certificate that a target shows must come from `ca` and have the name `sni`. Checks \
          speak it too.",
    keys: &[
        Key::new(
            "sni",
            Kind::Text(&SERVER_NAME),
            "The name that is asked for, and that the certificate must have. Default: the target's address.",
        ),
        Key::new(
            "ca",
            Kind::Text(&FILE),
            "Authorities that are trusted, PEM; relative to the config file. Default: those of the system.",
        ),
        Key::new("cert", Kind::Text(&NAME), "The `[cert.NAME]` that is shown to targets that ask for one."),
        Key::new(
            "verify",
            Kind::Bool,
            "false: any certificate is taken. Whoever is on the way can read all.",
        )
        .default("true"),
        Key::new("min", Kind::Choice { now: &[("1.2", ""), ("1.3", "")], later: &[] }, "The oldest version.")
            .default("\"1.2\""),
    ],
};

static HEALTH: Section = Section {
    doc: "Active checks: `path` for HTTP, `tcp = true`, or `grpc`.",
    keys: &[
        Key::new("path", Kind::Text(&PROBE_PATH), "GET this path."),
        Key::new("tcp", Kind::Bool, "Only connect.").default("false"),
        Key::new(
            "grpc",
            Kind::Either(&[Kind::Bool, Kind::Text(&GRPC_SERVICE)]),
            "Ask grpc.health.v1.Health, by HTTP/2: for the server (true), or for a service by its name.",
        )
        .default("false"),
        EVERY,
        CHECK_TIMEOUT,
        RISE,
        FALL,
        EXPECT,
    ],
};

pub(super) const RETRY_ON: Kind = Kind::List {
    of: &Kind::Choice {
        now: &[
            ("connect", "the connection could not be made"),
            ("reset", "it broke before the answer"),
            ("timeout", "no answer within `timeout.first_byte` or `per_try`"),
            ("500", ""),
            ("502", ""),
            ("503", ""),
            ("504", ""),
        ],
        later: &[],
    },
    min: 0,
    one: true,
};

static RETRY: Section = Section {
    doc: "Other targets after a failure.",
    keys: &[
        Key::new(
            "on",
            RETRY_ON,
            "What is retried; none: nothing. A request that was sent is so only with an idempotent method and a body of \
             at most 64 KiB.",
        )
        .default("[\"connect\"]"),
        Key::new("tries", Kind::Int { min: 0, max: 10 }, "How many other targets.").default("2"),
        Key::new(
            "budget",
            SHARE_OR_OFF,
            "Retries as a share of requests over the last ten seconds, over all workers; ten are always allowed.",
        )
        .default("\"off\""),
        Key::new("per_try", Kind::Either(&[OFF, TIMEOUT]), "What one target may take for its answer's head.")
            .default("\"off\""),
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

/// Requests, and connections that were upgraded.
const IN_FLIGHT: Kind = Kind::Int { min: 1, max: 1_000_000 };

static POOL: Section = Section {
    doc: "Connections kept for the next request, and how many requests a target gets at once.",
    keys: &[
        Key::new("idle", Kind::Int { min: 0, max: 65_536 }, "Idle connections kept a target and worker.")
            .default("256"),
        Key::new("idle_for", TIMEOUT, "How long one may idle.").default("\"60s\""),
        Key::new(
            "max",
            Kind::Either(&[OFF, IN_FLIGHT]),
            "The most requests (and upgraded connections) in flight on a target, over all workers. While a target is \
             full others are chosen, also with ip-hash, maglev and `sticky`.",
        )
        .default("\"off\""),
        Key::new(
            "queue",
            Kind::Int { min: 0, max: 65_536 },
            "Requests that may wait, in their order, while all targets are full; one more is answered 503 \
             (`upstream_queue_full`).",
        )
        .default("1024"),
        Key::new("queue_timeout", TIMEOUT, "How long one may wait; then 503 (`upstream_queue_timeout`).")
            .default("\"1s\""),
    ],
};
