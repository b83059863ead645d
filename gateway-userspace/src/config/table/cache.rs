//! Caches.

use std::time::Duration;

use super::{Key, Kind, OFF, Section, Text, seconds, text::FILE};
use crate::config::{
    error::did_you_mean,
    model::KeyPart,
    node::Value,
    units::{UnitError, quote},
};

const LIFETIME: Kind = Kind::Duration { min: Duration::from_millis(1), max: seconds(366 * 86_400) };

static KEY_PART: Text = Text {
    what: "a part of a request",
    example: "header:accept-language",
    pattern: Some("^(host|path|query|consumer|body|(query|header|cookie):.+)$"),
    parse: |text| match KeyPart::parse(text) {
        Some(_) => Ok(Value::Text(text.into())),
        None => {
            let words = ["host", "path", "query", "consumer", "body"];
            let near = did_you_mean(text, words, quote);
            let all = "it is host, path, query, query:NAME, header:NAME, cookie:NAME, consumer or body";
            Err(UnitError::new(format!("{} is no part of a key", quote(text)))
                .hint(near.unwrap_or_else(|| all.to_owned())))
        }
    },
};

static CONDITION: Text = Text {
    what: "what a request has",
    example: "cookie:session",
    pattern: Some("^(query|header|cookie):.+$"),
    parse: |text| match KeyPart::parse(text) {
        Some(KeyPart::Parameter(_) | KeyPart::Header(_) | KeyPart::Cookie(_)) => Ok(Value::Text(text.into())),
        _ => Err(UnitError::new(format!(
            "expected what a request has, such as \"cookie:session\", found {}",
            quote(text)
        ))
        .hint("it is query:NAME, header:NAME or cookie:NAME")),
    },
};

pub(super) static CACHE: Section = Section {
    doc: "A shared cache of responses (RFC 9111), for the routes that name it. What it keeps is for all clients; see \
          [caching.md](caching.md).",
    keys: &[
        Key::new(
            "memory",
            Kind::Size { min: 1 << 20, max: 1 << 44 },
            "The most that it takes, with headers and all that an entry costs, over all workers.",
        )
        .default("\"64MiB\""),
        Key::new(
            "disk",
            Kind::Table(&DISK),
            "A second tier, from which responses come back when memory has no room for them, and after a restart. With \
             `state.key` all of it is sealed (AES-256-GCM). Left out: none.",
        ),
        Key::new(
            "ttl",
            Kind::Either(&[OFF, LIFETIME]),
            "How long a response is fresh where the upstream says nothing of it; \"off\": it is not stored then.",
        )
        .default("\"off\""),
        Key::new(
            "override",
            Kind::Bool,
            "`ttl` holds whatever the upstream says of freshness. What it forbids (no-store, private) stays forbidden.",
        )
        .default("false"),
        Key::new(
            "negative",
            Kind::Either(&[OFF, LIFETIME]),
            "As `ttl`, of 404, 405, 410, 414 and 501.",
        )
        .default("\"off\""),
        Key::new(
            "heuristic",
            Kind::Bool,
            "Where nothing else is known, a response is fresh for a tenth of what its `Last-Modified` is old, at most a day.",
        )
        .default("false"),
        Key::new("stale", Kind::Table(&STALE), "When a response may be used that is no longer fresh."),
        Key::new(
            "key",
            Kind::List { of: &Kind::Text(&KEY_PART), min: 1, one: true },
            "What tells requests apart: \"host\", \"path\", \"query\", \"query:NAME\", \"header:NAME\", \"cookie:NAME\", \
             \"consumer\", \"body\" (the request's, with its type and the method). The scheme and the route always do.",
        )
        .default("[\"host\", \"path\", \"query\"]"),
        Key::new(
            "methods",
            Kind::List { of: &METHOD, min: 1, one: true },
            "Requests that are answered from it. POST and QUERY need \"body\" in `key`; a POST of such a cache only asks, and \
             takes out nothing.",
        )
        .default("[\"GET\"]"),
        Key::new(
            "max_request",
            Kind::Size { min: 1, max: 16 << 20 },
            "With \"body\" in `key`: requests with a larger body, or one whose length is not told, go past the cache.",
        )
        .default("\"64KiB\""),
        Key::new(
            "bypass",
            Kind::List { of: &Kind::Text(&CONDITION), min: 0, one: true },
            "Requests that have one of these (\"header:NAME\", \"cookie:NAME\", \"query:NAME\") go past the cache.",
        )
        .default("[]"),
        Key::new("coalesce", Kind::Bool, "One fetch for all clients that wait for the same.").default("true"),
        Key::new("max_body", Kind::Size { min: 0, max: 1 << 40 }, "Larger bodies are not stored.")
            .default("\"4MiB\""),
        Key::new(
            "variants",
            Kind::Int { min: 1, max: 1000 },
            "Responses of one key that differ by `Vary`; the oldest goes for one more.",
        )
        .default("32"),
        Key::new(
            "store_set_cookie",
            Kind::Bool,
            "Store responses with `Set-Cookie` too. Every client then gets the same cookie.",
        )
        .default("false"),
    ],
};

const METHOD: Kind = Kind::Choice {
    now: &[
        ("GET", "and HEAD"),
        ("POST", "where it only asks for something"),
        ("QUERY", "a GET with a body, by another name"),
    ],
    later: &[],
};

static DISK: Section = Section {
    doc: "The disk tier of a cache.",
    keys: &[
        Key::new("path", Kind::Text(&FILE), "A directory; the cache has one of its name in it.").required(),
        Key::new(
            "size",
            Kind::Size { min: 4 << 20, max: 1 << 46 },
            "The most that its files take: room for at least four bodies of `max_body`.",
        )
        .required(),
    ],
};

static CONTROL: Text = Text {
    what: "cache directives",
    example: "public, max-age=60",
    pattern: Some("^[ -~]+$"),
    parse: |text| match !text.trim().is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        true => Ok(Value::Text(text.trim().into())),
        false => Err(UnitError::new(format!(
            "expected cache directives such as \"public, max-age=60\", found {}",
            quote(text)
        ))),
    },
};

pub(super) static CLIENT_CACHE: Section = Section {
    doc: "What clients may keep of answers to GET and HEAD, and how they find out that it still holds.",
    keys: &[
        Key::new(
            "control",
            Kind::Text(&CONTROL),
            "`Cache-Control` of answers with a status of success, where the upstream sends neither that nor `Expires`.",
        ),
        Key::new(
            "override",
            Kind::Bool,
            "Send `control` in place of what the upstream says. Answers with no-store, private or `Set-Cookie` stay as \
             they are.",
        )
        .default("false"),
        Key::new(
            "etag",
            Kind::Bool,
            "Give answers without `ETag` a strong one, and answer 304 to who has that already. The answer is held until it \
             is whole.",
        )
        .default("false"),
        Key::new("max", Kind::Size { min: 0, max: 64 << 20 }, "Larger bodies get no `ETag`.").default("\"1MiB\""),
    ],
};

static STALE: Section = Section {
    doc: "When a response may be used that is no longer fresh, unless the upstream says otherwise \
          (`stale-while-revalidate`, `stale-if-error`: RFC 5861) or forbids it (`must-revalidate`, `proxy-revalidate`, \
          `s-maxage`, `no-cache`).",
    keys: &[
        Key::new(
            "while_revalidate",
            Kind::Either(&[OFF, LIFETIME]),
            "For so long after it was fresh it is sent at once, and fetched anew behind that.",
        )
        .default("\"off\""),
        Key::new(
            "if_error",
            Kind::Either(&[OFF, LIFETIME]),
            "For so long it is sent when the upstream gives no answer, or 500, 502, 503 or 504.",
        )
        .default("\"off\""),
    ],
};
