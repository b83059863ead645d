//! What L4 services have that go through userspace.

use super::{
    Key, Kind, OFF, Section, TIMEOUT,
    listener::{FROM, TLS},
    service::TARGET_OR_TABLE,
    text::SNI_NAME,
    traffic::PROXY_VERSION,
};

pub(super) const SNI: Kind =
    Kind::Map { key: &SNI_NAME, of: &Kind::List { of: &TARGET_OR_TABLE, min: 1, one: true } };

pub(super) const PROXY_PROTOCOL: Kind = Kind::Either(&[PROXY_VERSION, Kind::Table(&PROXY)]);

static PROXY: Section = Section {
    doc: "The PROXY protocol (HAProxy's proxy-protocol.txt); \"v2\" is short for `{ send = \"v2\" }`.",
    keys: &[FROM, Key::new("send", PROXY_VERSION, "Tell targets the client's address. Left out: not told.")],
};

pub(super) const TLS_TERMINATED: Kind = Kind::Table(&TLS);

pub(super) static SPLICE_TIMEOUT: Section = Section {
    doc: "Time limits of a service with path = \"splice\".",
    keys: &[
        Key::new("connect", TIMEOUT, "To make a connection to a target; then another one is tried.")
            .default("\"1s\""),
        Key::new("header", TIMEOUT, "For what comes before a client's bytes go on: PROXY header, TLS.")
            .default("\"10s\""),
        Key::new(
            "idle",
            Kind::Either(&[OFF, TIMEOUT]),
            "With nothing sent in either direction; \"off\": no limit. Default: \"10m\", of UDP \"60s\".",
        ),
    ],
};

pub(super) static SPLICE_MAX: Section = Section {
    doc: "Limits of a service with path = \"splice\".",
    keys: &[Key::new(
        "connections",
        Kind::Int { min: 1, max: 10_000_000 },
        "Open connections, of UDP sessions, over all workers.",
    )
    .default("100_000")],
};
