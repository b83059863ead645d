//! L4 services.

use std::time::Duration;

use gateway_common::service;

use super::{
    BUCKET_OR_RATE, BYTE_BUCKET_OR_RATE, Key, Kind, Section, TIMEOUT, seconds, splice,
    text::{L4_TARGET, PAYLOAD, PROBE_PATH, VIP},
};

/// The most services, addresses of all services, targets of a service, and targets of all services. Index zero of the
/// kernel half's tables is nobody's.
pub(crate) const MOST_SERVICES: usize = service::RINGS_CAPACITY as usize - 1;
pub(crate) const MOST_ADDRESSES: usize = service::SERVICES_CAPACITY as usize - 1;
pub(crate) const MOST_TARGETS: usize = 1024;
pub(crate) const MOST_TARGETS_IN_ALL: usize = 4096;

pub(super) static SERVICE: Section = Section {
    doc: "An L4 service: connections to its addresses are spread over targets in the kernel, by XDP on \
          `kernel.interfaces`, without userspace; or in userspace, see `path`.",
    keys: &[
        Key::new(
            "bind",
            Kind::List { of: &Kind::Text(&VIP), min: 1, one: true },
            "Its addresses and ports (VIPs). \":53\" is that port of every address of `kernel.interfaces`.",
        )
        .required(),
        Key::new("protocol", Kind::Choice { now: &[("tcp", ""), ("udp", "")], later: &[] }, "What is forwarded.")
            .default("\"tcp\""),
        Key::new(
            "to",
            Kind::List { of: &TARGET_OR_TABLE, min: 1, one: true },
            "The targets, in the kernel of the same IP version as `bind`.",
        )
        .required_without(&["sni"]),
        Key::new(
            "forward",
            Kind::Choice {
                now: &[
                    ("nat", "addresses are rewritten, replies come back this way"),
                    ("dsr", "MAC addresses are rewritten, targets have the VIP and answer directly"),
                    ("ipip", "in another IP packet, RFC 2003 and 2473; targets answer directly"),
                    ("gue", "in a UDP packet to port 6080; targets answer directly"),
                ],
                later: &[],
            },
            "How packets get to a target.",
        )
        .default("\"nat\""),
        Key::new(
            "balance",
            Kind::Choice {
                now: &[
                    ("maglev", "by addresses and ports: a client's connections spread"),
                    ("ip-hash", "one target a client address"),
                    ("round-robin", "with splice: by turns, by weight"),
                    ("least-conn", "with splice: the least open connections for its weight"),
                    ("random", "with splice: by lot, by weight"),
                ],
                later: &[],
            },
            "How a target is chosen.",
        )
        .default("\"maglev\""),
        Key::new(
            "path",
            Kind::Choice {
                now: &[("kernel", "XDP"), ("splice", "userspace, where there is no XDP, and for what follows")],
                later: &[],
            },
            "What forwards.",
        )
        .default("\"kernel\""),
        Key::new(
            "flows",
            Kind::Bool,
            "Remember which target a connection has, so that it stays there when targets change; nat always does.",
        )
        .default("true"),
        Key::new(
            "quic",
            Kind::Bool,
            "Send packets of QUIC by the server id in their connection id, where a target has one. Only with UDP.",
        )
        .default("false"),
        Key::new("health", Kind::Table(&HEALTH), "Active checks. Left out: none, every target is taken to be healthy."),
        Key::new("limit", Kind::Table(&LIMIT), "Limits a source address at this service, beside `kernel.limit`."),
        Key::new(
            "sni",
            splice::SNI,
            "With splice: targets by the host name that clients ask for in their TLS handshake, exact or below: \
             `{ \"a.example.com\" = [\"10.0.0.1:443\"], \"*.example.com\" = [\"10.0.0.2:443\"] }`. Nothing is decrypted for it. The \
             most specific name counts; other names, and none, go to `to`, or are refused where there is none.",
        ),
        Key::new("proxy_protocol", splice::PROXY_PROTOCOL, "With splice: the PROXY protocol, from proxies in front and to targets."),
        Key::new("tls", splice::TLS_TERMINATED, "With splice: TLS ends here, and targets are spoken to in clear. Left out: it passes through."),
        Key::new("timeout", Kind::Table(&splice::SPLICE_TIMEOUT), "With splice: time limits."),
        Key::new("max", Kind::Table(&splice::SPLICE_MAX), "With splice: limits."),
    ],
};

pub(super) const TARGET_OR_TABLE: Kind = Kind::Either(&[Kind::Text(&L4_TARGET), Kind::Table(&TARGET_TABLE)]);

static TARGET_TABLE: Section = Section {
    doc: "A target; \"10.0.0.1:5432\" is short for `{ addr = \"10.0.0.1:5432\" }`.",
    keys: &[
        Key::new("addr", Kind::Text(&L4_TARGET), "Its address; but with nat, its port is that of `bind`.")
            .required(),
        Key::new("weight", Kind::Int { min: 1, max: 1000 }, "Its share of connections.").default("1"),
        Key::new(
            "server_id",
            Kind::Int { min: 0, max: 65_535 },
            "With `quic`: the server id in connection ids of this target.",
        ),
    ],
};

static HEALTH: Section = Section {
    doc: "Active checks: `path` for HTTP, `tcp = true` or `udp = true`.",
    keys: &[
        Key::new("path", Kind::Text(&PROBE_PATH), "GET this path."),
        Key::new("tcp", Kind::Bool, "Only connect.").default("false"),
        Key::new("udp", Kind::Bool, "Send a datagram; \"port unreachable\" is a failure.").default("false"),
        Key::new(
            "send",
            Kind::Text(&PAYLOAD),
            "With `udp`: the datagram, as text or as \"hex:\" and hexadecimal digits. Default: an empty one.",
        ),
        Key::new(
            "answer",
            Kind::Bool,
            "With `udp`: an answer must come; else silence counts as healthy. Default: true if `send` is there.",
        ),
        EVERY,
        CHECK_TIMEOUT,
        RISE,
        FALL,
        EXPECT,
    ],
};

// Also of an upstream's checks.
pub(super) const EVERY: Key =
    Key::new("every", Kind::Duration { min: Duration::from_millis(10), max: seconds(86_400) }, "How often.")
        .default("\"5s\"");
pub(super) const CHECK_TIMEOUT: Key = Key::new("timeout", TIMEOUT, "For one check.").default("\"1s\"");
pub(super) const RISE: Key =
    Key::new("rise", Kind::Int { min: 1, max: 1000 }, "Successes in a row that bring a target back.")
        .default("2");
pub(super) const FALL: Key =
    Key::new("fall", Kind::Int { min: 1, max: 1000 }, "Failures in a row that take it out.").default("3");
pub(super) const EXPECT: Key = Key::new(
    "expect",
    Kind::List { of: &Kind::Int { min: 100, max: 599 }, min: 0, one: true },
    "Status codes that count as healthy; none: any 2xx.",
)
.default("[]");

static LIMIT: Section = Section {
    doc: "Per source and service. Left out: not limited.",
    keys: &[
        Key::new("packets", BUCKET_OR_RATE, "Packets of any kind."),
        Key::new("new", BUCKET_OR_RATE, "New connections: SYNs, or UDP packets of no known flow."),
        Key::new("bytes", BYTE_BUCKET_OR_RATE, "Bytes of frames."),
    ],
};
