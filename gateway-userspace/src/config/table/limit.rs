//! L7 limits.

use std::time::Duration;

use super::{
    Key, Kind, Section, Text,
    listener::SECRET,
    match_text::METHOD,
    seconds,
    text::{FILE, NAME, PERCENT, PREFIX},
};
use crate::config::{
    model::{CostOf, LimitKeyPart, check_store},
    node::Value,
    units::UnitError,
};

pub(super) static LIMIT: Section = Section {
    doc: "How much of something is let through. A route names the limits that hold for it; the same limit at several \
          routes is one limit for all of them, unless `route` is in its key.",
    keys: &[
        Key::new(
            "mode",
            Kind::Choice {
                now: &[
                    ("hard", "what is over the limit is answered 429"),
                    ("soft", "it is marked and let through, up to `shed`"),
                    ("dynamic", "the limit follows the health of what it protects; over it 503"),
                ],
                later: &[],
            },
            "What becomes of requests over the limit.",
        )
        .default("\"hard\""),
        Key::new(
            "key",
            Kind::List { of: &Kind::Text(&KEY_PART), min: 0, one: true },
            "What has a quota of its own: any of \"ip\", \"consumer\" (without one, the client's address), \"route\", \
             \"host\", \"version\", \"method\", \"path\", \"header:NAME\", \"query:NAME\", \"cookie:NAME\", \
             \"claim:NAME\", together. None: everybody shares one.",
        )
        .default("[]"),
        Key::new(
            "rate",
            Kind::Either(&[Kind::Text(&QUOTA), Kind::Table(&RATE_RANGE)]),
            "How much in how long: \"100/s\", \"1000/15m\", \"200k/h\", \"5M/month\"; with unit = \"bytes\" \"10MiB/s\". With mode = \"dynamic\" \
             `{ from = \"200/s\", to = \"5000/s\" }`.",
        )
        .required_unless(&["max"]),
        Key::new(
            "max",
            Kind::Either(&[Kind::Int { min: 1, max: 10_000_000 }, Kind::Table(&MAX_RANGE)]),
            "With unit = \"connections\", in place of `rate`: how many requests at once. With mode = \"dynamic\" \
             `{ from = 10, to = 500 }`.",
        ),
        Key::new(
            "burst",
            Kind::Either(&[
                Kind::Int { min: 1, max: 1_000_000_000_000 },
                Kind::Size { min: 1, max: 1 << 50 },
            ]),
            "With token buckets: how much at once. Default: the amount in `rate`; of dynamic limits a fifth of it, as what is let in at once \
             is a backlog.",
        ),
        Key::new(
            "algorithm",
            Kind::Choice {
                now: &[
                    ("token-bucket", "refilled all the time (GCRA)"),
                    ("sliding-window", "the amount in any span of time, whenever it begins"),
                    ("fixed-window", "the amount in each span of the clock (UTC)"),
                ],
                later: &[],
            },
            "How it is counted.",
        )
        .default("\"token-bucket\""),
        Key::new(
            "unit",
            Kind::Choice {
                now: &[
                    ("requests", "counted when they come"),
                    ("bytes", "of bodies, both ways, counted when a request is over"),
                    ("tokens", "what answers say in `cost`, counted when they are over"),
                    ("connections", "requests under way, and connections upgraded"),
                ],
                later: &[],
            },
            "What is counted. What is only known at the end is let in while anything is left, and may overdraw.",
        )
        .default("\"requests\""),
        Key::new(
            "per",
            Kind::Map { key: &NAME, of: &Kind::Text(&QUOTA) },
            "Other rates by the consumer's tier: `{ gold = \"1000/s\" }`. `burst` grows with them.",
        ),
        Key::new(
            "cost",
            Kind::Either(&[
                Kind::Int { min: 0, max: 1_000_000_000 },
                Kind::Map { key: &METHOD, of: &Kind::Int { min: 0, max: 1_000_000_000 } },
                Kind::Text(&COST),
            ]),
            "What one request costs: a number; numbers by method, 1 for others; or a field of the answer, \"header:NAME\" \
             or \"json:/usage/total_tokens\" (a JSON pointer, RFC 6901; of an event stream the last event that has it). \
             Default: 1; of tokens \"json:/usage/total_tokens\".",
        ),
        Key::new(
            "shed",
            Kind::Text(&PERCENT),
            "With mode = \"soft\": from so much of the rate on requests are answered 429. Left out: never.",
        ),
        Key::new(
            "delay",
            Kind::Duration { min: Duration::from_millis(1), max: seconds(60) },
            "With mode = \"soft\": requests over the limit wait for their turn, at most so long; those that would have to \
             wait longer are answered 429. Left out: they do not wait.",
        ),
        Key::new("pace", Kind::Bool, "With unit = \"bytes\": answers are sent no faster than this, and nothing is refused.")
            .default("false"),
        Key::new(
            "kernel",
            Kind::Bool,
            "It holds for new connections in the kernel half too, as `kernel.limit.new`: what a client opens over it is dropped before it costs a \
             system call. One limit only, hard, by \"ip\", of so many requests a second.",
        )
        .default("false"),
        Key::new("shared", Kind::Bool, "With `[shared]`: it holds over all gateways together.").default("true"),
        Key::new("dry_run", Kind::Bool, "Only say in log, metric and `x-limit-dry-run` what would be refused.")
            .default("false"),
        Key::new(
            "headers",
            Kind::List {
                of: &Kind::Choice {
                    now: &[
                        ("ratelimit", "`RateLimit`, `RateLimit-Policy`"),
                        ("x-ratelimit", "`X-RateLimit-Limit`, `-Remaining`, `-Reset`"),
                    ],
                    later: &[],
                },
                min: 0,
                one: true,
            },
            "What answers tell of it.",
        )
        .default("[\"ratelimit\"]"),
        Key::new(
            "ipv4_prefix",
            Kind::Int { min: 8, max: 32 },
            "Bits of an IPv4 address in \"ip\" that count as one client.",
        )
        .default("32"),
        Key::new("ban", Kind::Table(&BAN), "What becomes of clients that go on after they were refused."),
        Key::new("target", Kind::Table(&TARGET), "With mode = \"dynamic\": the health that is kept."),
        Key::new(
            "priority",
            Kind::List { of: &Kind::Text(&NAME), min: 0, one: true },
            "With mode = \"dynamic\": tiers of consumers, the most important first. When the limit is short, those of later \
             ones are refused first, and before them those of none.",
        )
        .default("[]"),
        Key::new(
            "fair",
            Kind::List { of: &Kind::Text(&KEY_PART), min: 0, one: true },
            "With mode = \"dynamic\": who shares it evenly when it is short; parts as in `key`. Left out: by \"consumer\" (without one, the \
             client's address), unless the limit has a `key`, or counts bytes or tokens. []: nobody.",
        ),
        Key::new("ipv6_prefix", Kind::Int { min: 16, max: 128 }, "Bits of an IPv6 address.").default("64"),
    ],
};

static RATE_RANGE: Section = Section {
    doc: "Between what a dynamic limit moves.",
    keys: &[
        Key::new("from", Kind::Text(&QUOTA), "It never falls below this.").required(),
        Key::new("to", Kind::Text(&QUOTA), "It begins here.").required(),
    ],
};

static MAX_RANGE: Section = Section {
    doc: "Between what a dynamic limit moves.",
    keys: &[
        Key::new("from", Kind::Int { min: 1, max: 10_000_000 }, "It never falls below this.").required(),
        Key::new("to", Kind::Int { min: 1, max: 10_000_000 }, "It begins here.").required(),
    ],
};

static TARGET: Section = Section {
    doc: "The health that a dynamic limit keeps: of the upstreams of its routes, and of this host. The worst counts.",
    keys: &[
        Key::new(
            "p99",
            Kind::Duration { min: Duration::from_millis(1), max: seconds(3600) },
            "The 99th percentile of the time until an answer begins.",
        ),
        Key::new(
            "errors",
            Kind::Text(&PERCENT),
            "The share of requests that fail: 5xx, or no answer at all.",
        ),
        Key::new("queue", Kind::Int { min: 1, max: 1_000_000 }, "Requests that wait for a target with room."),
        Key::new(
            "cpu",
            Kind::Text(&PERCENT),
            "The share of time in which something on this host waited for a CPU (`some` of /proc/pressure/cpu).",
        ),
    ],
};

const WHERE: Key = Key::new(
    "where",
    Kind::Choice {
        now: &[
            ("kernel", "dropped in XDP, where the client is the other end of the connection; else as http"),
            ("http", "answered 403 (`banned`)"),
        ],
        later: &[],
    },
    "Where it is refused.",
)
.default("\"kernel\"");

static BAN: Section = Section {
    doc: "Bans of clients, by address (IPv6 by /64), that go on after they were refused. Never of trusted proxies, nor of \
          `kernel.limit.exempt`.",
    keys: &[
        Key::new("after", Kind::Int { min: 1, max: 1_000_000 }, "So many refusals.").required(),
        Key::new("within", Kind::Duration { min: seconds(1), max: seconds(86_400) }, "In this time.")
            .default("\"1m\""),
        Key::new(
            "for",
            Kind::Duration { min: seconds(1), max: seconds(30 * 86_400) },
            "How long; each further time twice as long, up to a day.",
        )
        .default("\"1m\""),
        WHERE,
    ],
};

pub(super) static SHARED: Section = Section {
    doc: "A store in which several gateways hold limits, bans and purges together: Redis or Valkey.",
    keys: &[
        Key::new(
            "redis",
            Kind::Either(&[Kind::Table(&SECRET), Kind::Text(&REDIS)]),
            "Where it is: \"redis://10.0.0.5:6379\", with the number of a database behind it if need be. One with a password in it \
             (\"redis://USER:PASSWORD@HOST:PORT\") by reference: { env = \"REDIS_URL\" }. rediss:// is with TLS.",
        )
        .required(),
        Key::new(
            "ca",
            Kind::Text(&FILE),
            "With rediss://: the authority that its certificate is from, PEM; relative to the config file. Default: those that the system trusts.",
        ),
        Key::new(
            "budget",
            Kind::Duration { min: Duration::from_millis(1), max: seconds(1) },
            "How long a request waits for it at most; then `on_error` says what becomes of it.",
        )
        .default("\"20ms\""),
        Key::new(
            "on_error",
            Kind::Choice {
                now: &[
                    ("local", "each gateway holds shared limits for itself"),
                    ("pass", "they let everything in: fail open"),
                    ("refuse", "requests that they would be asked about are answered 503 (`limit_unavailable`): fail closed"),
                ],
                later: &[],
            },
            "What to do while the store does not answer. Only of hard limits: soft ones, dry runs and those with shared = false go by each gateway's own count.",
        )
        .default("\"local\""),
        Key::new("name", Kind::Text(&NAME), "What its keys begin with: gateways of the same name share.")
            .default("\"gateway\""),
    ],
};

static REDIS: Text = Text {
    what: "a store's place",
    example: "redis://10.0.0.5:6379",
    pattern: Some("^rediss?://[^@]+$"),
    parse: |text| match check_store(text) {
        Ok(()) if text.contains('@') => Err(UnitError::new("a secret does not belong into the config")
            .hint("write redis = { env = \"REDIS_URL\" }")),
        Ok(()) => Ok(Value::Text(text.into())),
        Err(why) => Err(UnitError::new("expected a place such as \"redis://10.0.0.5:6379\"").hint(why)),
    },
};

pub(super) static PENALTY: Section = Section {
    doc: "Bans of clients that misbehave: each misdeed earns points, which leak away.",
    keys: &[
        Key::new("threshold", Kind::Int { min: 1, max: 1_000_000_000 }, "The points for which a client is banned.")
            .default("100"),
        Key::new(
            "within",
            Kind::Duration { min: seconds(1), max: seconds(86_400) },
            "In so long so many points leak away.",
        )
        .default("\"1m\""),
        Key::new(
            "for",
            Kind::Duration { min: seconds(1), max: seconds(30 * 86_400) },
            "How long; each further time twice as long, up to a day.",
        )
        .default("\"5m\""),
        WHERE,
        Key::new("exempt", PREFIXES, "Who is never banned, besides `kernel.limit.exempt` and trusted proxies.")
            .default("[]"),
        Key::new("login", POINTS, "Points for credentials that are none.").default("5"),
        Key::new(
            "malformed",
            POINTS,
            "Points for a malformed request: what is answered 400 (`bad_request`), attempts at smuggling among them.",
        )
        .default("20"),
        Key::new(
            "slow",
            POINTS,
            "Points for a head or a body that does not come in time (`header_timeout`, `body_timeout`), and an answer that \
             is not taken (`write_timeout`).",
        )
        .default("20"),
        Key::new(
            "flood",
            POINTS,
            "Points for each connection and TLS handshake above what a source may have (`max.connections_per_source`, \
             `max.handshakes_per_source`), for abuse of HTTP/2 (`http2_abuse`), and for a head or JSON beyond its limits \
             (`header_too_large`, `json`).",
        )
        .default("5"),
    ],
};

const POINTS: Kind = Kind::Int { min: 0, max: 1_000_000_000 };
const PREFIXES: Kind = Kind::List { of: &Kind::Text(&PREFIX), min: 0, one: true };

pub(super) static QUOTA: Text = Text {
    what: "a rate",
    example: "100/s",
    pattern: Some("^[0-9]+([kMG]|[KMGT]i?B|B)?/[0-9]*(s|m|min|h|hour|d|day|month)$"),
    parse: |text| text.parse().map(Value::Quota),
};

static KEY_PART: Text = Text {
    what: "a part of a key",
    example: "ip",
    pattern: Some("^(ip|consumer|route|host|version|method|path|(header|query|cookie|claim):.+)$"),
    parse: |text| LimitKeyPart::parse(text).map(|part| Value::Text(part.to_string())),
};

static COST: Text = Text {
    what: "a field of the answer",
    example: "header:x-cost",
    pattern: Some("^(header:.+|json:(/.*)?)$"),
    parse: |text| CostOf::parse(text).map(|_| Value::Text(text.into())),
};
