//! API versions of a route.

use super::{
    Key, Kind, Need, Section, Text,
    match_text::{FIELD_NAME, STICKY, is_token},
    route::ROUTE,
    seconds,
    text::{NAME, PERCENT},
};
use crate::config::{
    node::Value,
    units::{UnitError, VersionName, quote},
};

pub(super) static VERSIONS: Section = Section {
    doc: "The versions of an API. Beside the keys below, each version is a table of its own, `[route.NAME.version.v1]`; a name \
          with a dot in it stands in quotes. See [versions.md](versions.md).",
    keys: &[
        Key::new(
            "from",
            Kind::List { of: &Kind::Text(&SOURCE), min: 1, one: true },
            "Where a request may say which version it wants, in this order: `path`, `host`, `accept`, `header:NAME`, `query:NAME`.",
        )
        .required(),
        Key::new(
            "default",
            Kind::Text(&VERSION_NAME),
            "The version, or an alias, for requests that name none. Left out: they are refused with 400.",
        ),
        Key::new(
            "on_conflict",
            Kind::Choice {
                now: &[("refuse", "with 400"), ("first", "the first one in `from` counts")],
                later: &[],
            },
            "What becomes of a request that names two versions.",
        )
        .default("\"refuse\""),
        Key::new(
            "aliases",
            Kind::Map { key: &VERSION_NAME, of: &Kind::Text(&VERSION_NAME) },
            "Other names of versions: `{ latest = \"v2\", beta = \"v3\" }`.",
        ),
        Key::new(
            "strip",
            Kind::List {
                of: &Kind::Choice { now: &[("path", ""), ("query", ""), ("header", "")], later: &[] },
                min: 0,
                one: true,
            },
            "Where the version is taken out before the request goes upstream.",
        )
        .default("[\"path\"]"),
        Key::new(
            "header",
            Kind::Either(&[super::OFF, Kind::Text(&FIELD_NAME)]),
            "The response field that names the version which answered.",
        )
        .default("\"api-version\""),
    ],
};

/// What a version has of its own, and then every key of a route but those that say which requests it takes.
pub(super) static VERSION: Section = Section {
    doc: "One version. A key that is left out is the route's; one that is there stands in place of the whole of the route's.",
    keys: &KEYS,
};

const OWN_KEYS: usize = 5;

static OWN: [Key; OWN_KEYS] = [
    Key::new(
        "deprecated",
        Kind::Either(&[Kind::Date, Kind::Table(&DEPRECATED)]),
        "Since when, or from when on, nobody should use it any more: answers say so (RFC 9745).",
    ),
    Key::new(
        "sunset",
        Kind::Either(&[Kind::Date, Kind::Table(&SUNSET)]),
        "When it ends: answers say so (RFC 8594), and then it does.",
    ),
    Key::new(
        "successor",
        Kind::Text(&VERSION_NAME),
        "The version that follows it, which answers link to. Left out: the next newer one that is not deprecated.",
    ),
    Key::new(
        "brownout",
        Kind::List { of: &Kind::Table(&BROWNOUT), min: 1, one: true },
        "Times in which it answers 503, so that those who still use it notice.",
    ),
    Key::new("canary", Kind::Table(&CANARY), "Requests for this version that another one answers."),
];

/// Keys of a route that are not a version's.
const OF_THE_ROUTE: [&str; 6] = ["host", "path", "methods", "headers", "query", "version"];

const INHERITED: usize = {
    let (mut count, mut at) = (0, 0);
    while at < ROUTE.keys.len() {
        count += !is_one_of(ROUTE.keys[at].name, &OF_THE_ROUTE) as usize;
        at += 1;
    }
    count
};

static KEYS: [Key; OWN_KEYS + INHERITED] = {
    let mut keys = [OWN[0]; OWN_KEYS + INHERITED];
    let (mut to, mut at) = (0, 0);
    while to < OWN_KEYS {
        keys[to] = OWN[to];
        to += 1;
    }
    while at < ROUTE.keys.len() {
        let key = ROUTE.keys[at];
        if !is_one_of(key.name, &OF_THE_ROUTE) {
            keys[to] = Key { default: None, need: Need::Optional, ..key };
            to += 1;
        }
        at += 1;
    }
    keys
};

const fn is_one_of(name: &str, names: &[&str]) -> bool {
    let mut at = 0;
    while at < names.len() {
        if is_equal(name.as_bytes(), names[at].as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn is_equal(one: &[u8], two: &[u8]) -> bool {
    if one.len() != two.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != two[at] {
            return false;
        }
        at += 1;
    }
    true
}

static DEPRECATED: Section = Section {
    doc: "A deprecation.",
    keys: &[
        Key::new("at", Kind::Date, "Since when.").required(),
        Key::new("link", Kind::Text(&LINK), "A page about it: `Link` with `rel=\"deprecation\"`."),
    ],
};

static SUNSET: Section = Section {
    doc: "The end of a version.",
    keys: &[
        Key::new("at", Kind::Date, "When.").required(),
        Key::new(
            "then",
            Kind::Choice {
                now: &[
                    ("gone", "410"),
                    ("redirect", "308 to the successor, where the version is in the path"),
                    ("serve", "it goes on"),
                ],
                later: &[],
            },
            "What becomes of requests from then on.",
        )
        .default("\"gone\""),
        Key::new("link", Kind::Text(&LINK), "A page about it: `Link` with `rel=\"sunset\"`."),
    ],
};

static BROWNOUT: Section = Section {
    doc: "A time in which a version does not answer.",
    keys: &[
        Key::new("at", Kind::Date, "When it begins: `2026-12-01T10:00:00Z`.").required(),
        Key::new("for", Kind::Duration { min: seconds(1), max: seconds(30 * 86_400) }, "How long it lasts.")
            .required(),
        Key::new(
            "every",
            Kind::Duration { min: seconds(60), max: seconds(366 * 86_400) },
            "It comes again after this. Left out: it does not.",
        ),
    ],
};

static CANARY: Section = Section {
    doc: "Some requests for a version are answered by another: a share of them, those with a header field, those of consumers of \
          a tier.",
    keys: &[
        Key::new("to", Kind::Text(&VERSION_NAME), "The other version.").required(),
        Key::new("share", Kind::Text(&PERCENT), "The part of clients, or of requests without a key, that goes there.")
            .default("\"0%\""),
        Key::new(
            "header",
            Kind::Text(&FIELD_AND_VALUE),
            "Requests with this field go there, whatever the share: `x-canary`, or `x-canary: yes` for that value alone.",
        ),
        Key::new(
            "tiers",
            Kind::List { of: &Kind::Text(&NAME), min: 1, one: true },
            "Consumers of these tiers go there, whatever the share. Needs `auth`, which both versions ask.",
        ),
        Key::new(
            "sticky",
            Kind::Text(&CANARY_KEY),
            "\"consumer\", \"cookie:NAME\", \"header:NAME\" or \"ip\": who has the same is answered by the same version, also when the share grows.",
        )
        .default("\"ip\""),
        Key::new("named", Kind::Bool, "Also requests that name the version themselves, not only those by default.")
            .default("false"),
    ],
};

static CANARY_KEY: Text = Text {
    example: "consumer",
    pattern: Some("^(ip|consumer|(cookie|header):[A-Za-z0-9!#$%&'*+.^_`|~-]+)$"),
    parse: |text| match text {
        "consumer" => Ok(Value::Text(text.into())),
        other => (STICKY.parse)(other),
    },
    what: "a key",
};

static SOURCE: Text = Text {
    what: "a place of a version",
    example: "header:api-version",
    pattern: Some("^(path|host|accept|header:[A-Za-z0-9!#$%&'*+.^_`|~-]+|query:.+)$"),
    parse: |text| {
        let known = match text.split_once(':') {
            None => matches!(text, "path" | "host" | "accept"),
            Some(("header", name)) => is_token(name),
            Some(("query", name)) => !name.is_empty() && !name.contains(|c: char| c.is_control()),
            _ => false,
        };
        match known {
            true if text.starts_with("header:") => Ok(Value::Text(text.to_ascii_lowercase())),
            true => Ok(Value::Text(text.into())),
            false => Err(UnitError::new(format!(
                "expected a place of a version such as \"header:api-version\", found {}",
                quote(text)
            ))
            .hint("it is \"path\", \"host\", \"accept\", \"header:NAME\" or \"query:NAME\"")),
        }
    },
};

pub(super) static VERSION_NAME: Text = Text {
    what: "a version's name",
    example: "v2",
    pattern: Some("^[0-9A-Za-z_][0-9A-Za-z_.-]{0,62}$"),
    parse: |text| text.parse::<VersionName>().map(|name| Value::Text(name.to_string())),
};

static FIELD_AND_VALUE: Text = Text {
    what: "a header field",
    example: "x-canary: yes",
    pattern: Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]+(:.*)?$"),
    parse: |text| {
        let (name, value) =
            text.split_once(':').map_or((text, None), |(name, value)| (name, Some(value.trim())));
        let plain = |value: &str| !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        match is_token(name) && value.is_none_or(plain) {
            true => Ok(Value::Text(match value {
                Some(value) => format!("{}: {value}", name.to_ascii_lowercase()),
                None => name.to_ascii_lowercase(),
            })),
            false => Err(UnitError::new(format!(
                "expected a header field such as \"x-canary\" or \"x-canary: yes\", found {}",
                quote(text)
            ))),
        }
    },
};

/// What may stand between the angle brackets of a `Link` (RFC 8288 section 3).
static LINK: Text = Text {
    what: "a URL",
    example: "https://docs.example.com/v2",
    pattern: Some("^(https?://|/)[!-~]*$"),
    parse: |text| {
        let starts = ["https://", "http://", "/"].iter().any(|start| text.starts_with(start));
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&byte);
        match starts && text.bytes().all(plain) {
            true => Ok(Value::Text(text.into())),
            false => Err(UnitError::new(format!(
                "expected a URL such as \"https://docs.example.com/v2\", found {}",
                quote(text)
            ))),
        }
    },
};
