//! Routes.

use super::{
    Key, Kind, Section,
    match_text::{FIELD_NAME, MATCHED_VALUE, METHOD, QUERY_NAME, REGEX},
    rewrite::{LOCATION, REDIRECT, RESPOND, REWRITE},
    text::{HOST, PATH, PROTOCOL, UPSTREAM_NAME},
    traffic::TARGET_OR_TABLE,
};

pub(super) static ROUTE: Section = Section {
    doc: "Which requests go to which upstream. The most specific route wins, wherever it stands: an exact host before a \
          wildcard before none; then a literal segment before a `{parameter}` before `*`; then the one with more of \
          `methods`, `headers` and `query`. Routes that tie are an error.",
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
            "methods",
            Kind::List { of: &Kind::Text(&METHOD), min: 1, one: true },
            "Only these methods; GET takes HEAD too. Where no route takes a request but for its method, the answer is \
             405. Left out: any method.",
        ),
        Key::new(
            "headers",
            Kind::Map { key: &FIELD_NAME, of: &MATCHER },
            "Only requests with these header fields: a value, true (there with any value), false (not there) or \
             `{ regex = \"…\" }`. Of a field that is there more than once, one must match.",
        ),
        Key::new(
            "query",
            Kind::Map { key: &QUERY_NAME, of: &MATCHER },
            "Only requests with these query parameters, decoded; written as for `headers`.",
        ),
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
            "redirect",
            Kind::Either(&[Kind::Text(&LOCATION), Kind::Table(&REDIRECT)]),
            "Answer with a redirect, in place of `to`.",
        ),
        Key::new("respond", Kind::Table(&RESPOND), "Answer without an upstream, in place of `to`."),
        Key::new("rewrite", Kind::Table(&REWRITE), "Change the request or the response."),
        Key::new(
            "upgrade",
            Kind::List { of: &Kind::Text(&PROTOCOL), min: 0, one: true },
            "Protocols that a connection may be upgraded to, such as \"websocket\".",
        )
        .default("[]"),
        Key::new("early_hints", Kind::Bool, "Pass 103 (Early Hints) on to the client.").default("false"),
        Key::new("compress", Kind::OnlyFalse, "Compress responses.").default("false"),
        Key::not_yet("auth", "Who may call."),
        Key::not_yet("allow", "What callers must have been granted."),
        Key::not_yet("limit", "L7 limits."),
        Key::not_yet("cache", "Keep responses."),
        Key::not_yet("version", "API versions."),
        Key::not_yet("mirror", "Send a copy elsewhere."),
        Key::not_yet("cors", "Cross-origin requests."),
        Key::not_yet("timeout", "Time limits of this route's own."),
        Key::not_yet("retry", "Retries of this route's own."),
        Key::not_yet("ai", "Language models."),
    ],
};

const MATCHER: Kind = Kind::Either(&[Kind::Text(&MATCHED_VALUE), Kind::Bool, Kind::Table(&LIKE)]);

static LIKE: Section = Section {
    doc: "A regular expression instead of a value.",
    keys: &[Key::new(
        "regex",
        Kind::Text(&REGEX),
        "Found anywhere in the value; `^` and `$` for the whole of it.",
    )
    .required()],
};
