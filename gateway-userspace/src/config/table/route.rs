//! Routes.

use super::{
    Key, Kind, OFF, Section, TIMEOUT, Text,
    auth::{ALLOW, ROUTE_AUTH},
    cache::CLIENT_CACHE,
    match_text::{FIELD_NAME, MATCHED_VALUE, METHOD, QUERY_NAME, REGEX, STICKY},
    rewrite::{LOCATION, REDIRECT, RESPOND, REWRITE},
    shape::{COMPRESS, CORS, CSRF, MEDIA_TYPE, SECURITY_HEADERS},
    text::{HOST, NAME, PATH, PERCENT, PREFIX, PROTOCOL, UPSTREAM_NAME},
    traffic::{RETRY_ON, TARGET_OR_TABLE},
    version::{VERSION, VERSION_NAME, VERSIONS},
};
use crate::config::{
    node::Value,
    units::{UnitError, quote},
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
                Kind::Map { key: &UPSTREAM_NAME, of: &Kind::Int { min: 0, max: 1000 } },
            ]),
            "An upstream's name, or a list of targets, which makes an upstream with the route's name, or several \
             upstreams by weight: `{ items-v2 = 95, items-v1 = 5 }`.",
        )
        .required_without(&["respond", "redirect", "version"]),
        Key::new(
            "sticky",
            Kind::Text(&STICKY),
            "With several upstreams: \"cookie:NAME\", \"header:NAME\" or \"ip\" keeps who has the same with the same one. \
             Requests without it go by weight.",
        ),
        Key::new(
            "redirect",
            Kind::Either(&[Kind::Text(&LOCATION), Kind::Table(&REDIRECT)]),
            "Answer with a redirect, in place of `to`.",
        ),
        Key::new("respond", Kind::Table(&RESPOND), "Answer without an upstream, in place of `to`."),
        Key::new("mirror", Kind::Table(&MIRROR), "Send copies elsewhere, and ignore the answers."),
        Key::new("rewrite", Kind::Table(&REWRITE), "Change the request or the response."),
        Key::new(
            "upgrade",
            Kind::List { of: &Kind::Text(&PROTOCOL), min: 0, one: true },
            "Protocols that a connection may be upgraded to, such as \"websocket\".",
        )
        .default("[]"),
        Key::new("early_hints", Kind::Bool, "Pass 103 (Early Hints) on to the client.").default("false"),
        Key::new(
            "grpc_web",
            Kind::Bool,
            "Translate gRPC-Web (`application/grpc-web` and `application/grpc-web-text`) to gRPC, which the upstream speaks.",
        )
        .default("false"),
        Key::new(
            "compress",
            Kind::Either(&[Kind::Bool, Kind::Table(&COMPRESS)]),
            "Compress responses for clients that take it.",
        )
        .default("false"),
        Key::new("cors", Kind::Table(&CORS), "Which pages of other origins may read answers."),
        Key::new("allow_from", PREFIXES, "Only clients of these prefixes, by the address that `real_ip` and PROXY headers make of it; others are answered 403 (`network_denied`). Left out: all."),
        Key::new("deny_from", PREFIXES, "Clients of these prefixes are answered 403 (`network_denied`), also if they are in `allow_from`."),
        Key::new("max", Kind::Table(&ROUTE_MAX), "Narrower limits than those of the listener."),
        Key::new(
            "content_types",
            Kind::List { of: &Kind::Text(&MEDIA_TYPE), min: 1, one: true },
            "Only bodies of these types, such as \"application/json\", \"text/*\" or \"*+json\"; others are answered 415 (`content_type`). Left out: any.",
        ),
        Key::new(
            "encoded_slash",
            Kind::Choice { now: &[("keep", "passed on as it is"), ("refuse", "400")], later: &[] },
            "What becomes of a path with `%2F` or `%5C` in it, which some take for the character itself.",
        )
        .default("\"keep\""),
        Key::new(
            "csrf",
            Kind::Either(&[Kind::Bool, Kind::Table(&CSRF)]),
            "Refuse what pages of other sites have browsers send, where it may change something (403, `cross_site`): any \
             method but GET, HEAD and OPTIONS, and upgrades. By `Sec-Fetch-Site`, else by `Origin`; what has neither is no browser.",
        )
        .default("false"),
        Key::new(
            "security_headers",
            Kind::Either(&[Kind::Bool, Kind::Table(&SECURITY_HEADERS)]),
            "Tell browsers to be careful, in answers that do not say so themselves.",
        )
        .default("false"),
        Key::new(
            "limit",
            Kind::List { of: &Kind::Text(&NAME), min: 0, one: true },
            "The `[limit.NAME]`s that hold for it. A request that one refuses costs nothing of the others.",
        )
        .default("[]"),
        Key::new(
            "auth",
            ROUTE_AUTH,
            "Who may call: names of [auth.NAME], any one of which will do, or [\"all\", …] for every one. Whoever does not \
             say who it is, is answered 401 (`unauthorized`). Left out: anyone.",
        ),
        Key::new(
            "allow",
            ALLOW,
            "What callers must have, any one of it, or [\"all\", …]: a grant or a token's scope, \"tier:NAME\", \
             \"consumer:NAME\", \"scope:NAME\" (of a token only), \"claim:NAME=VALUE\". Or a table of such lists by \
             method, GET for HEAD too; other methods are not allowed then. Who has not is answered 403 (`forbidden`). \
             Left out: whoever is known may.",
        ),
        Key::new("client_cache", Kind::Table(&CLIENT_CACHE), "What clients may keep."),
        Key::new("cache", Kind::Text(&NAME), "The `[cache.NAME]` that keeps responses."),
        Key::new("version", Kind::TableAndNamed(&VERSIONS, &VERSION), "Versions of an API behind this route."),
        Key::new("timeout", Kind::Table(&ROUTE_TIMEOUT), "In place of the upstream's time limits."),
        Key::new("retry", Kind::Table(&ROUTE_RETRY), "In place of the upstream's retries."),
        Key::not_yet("ai", "Language models."),
    ],
};

const PREFIXES: Kind = Kind::List { of: &Kind::Text(&PREFIX), min: 1, one: true };

static ROUTE_MAX: Section = Section {
    doc: "Narrower limits than those of the listener.",
    keys: &[
        Key::new(
            "header",
            Kind::Size { min: 256, max: 1 << 20 },
            "Bytes of a request's head: more is answered 431.",
        ),
        Key::new(
            "body",
            Kind::Size { min: 0, max: 1 << 40 },
            "Bytes of a request's body: more is answered 413.",
        ),
        Key::new(
            "json_depth",
            Kind::Int { min: 0, max: 4096 },
            "Brackets within brackets of a body that is JSON, by its type or for want of one: more is answered 400 (`json`), \
             as is what is no JSON. It is read as it passes; compressed ones are refused (415, `content_type`). Default: 64 \
             where `json_items` is there.",
        ),
        Key::new(
            "json_items",
            Kind::Int { min: 1, max: 1 << 40 },
            "Values in such a body: numbers, texts, arrays, objects.",
        ),
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

static MIRROR: Section = Section {
    doc: "Copies of requests for another upstream. Its answers are ignored, and no client waits for it.",
    keys: &[
        Key::new("to", Kind::Text(&UPSTREAM_NAME), "The upstream that gets them.")
            .required_unless(&["version"]),
        Key::new(
            "version",
            Kind::Text(&VERSION_NAME),
            "In place of `to`, on a route with versions: the version whose upstream gets them, as it would get them.",
        ),
        Key::new("share", Kind::Text(&PERCENT), "The part of requests that is copied.").default("\"100%\""),
        Key::new("body", Kind::Size { min: 0, max: 16 << 20 }, "Requests with a longer body are not copied.")
            .default("\"64KiB\""),
        Key::new(
            "queue",
            Kind::Int { min: 1, max: 10_000 },
            "Copies under way at once, over all workers; what would be more is left out.",
        )
        .default("100"),
        Key::new(
            "compare",
            Kind::Either(&[Kind::Bool, Kind::Table(&COMPARE)]),
            "Compare the answers, and count and tell where they differ.",
        )
        .default("false"),
    ],
};

static COMPARE: Section = Section {
    doc: "What of a shadow's answers is compared with what the client gets: the status, some fields, the body. JSON by what it \
          says, anything else by its bytes, coded bodies (gzip, br, zstd) decoded.",
    keys: &[
        Key::new(
            "ignore",
            Kind::List { of: &Kind::Text(&POINTER), min: 0, one: true },
            "What of JSON bodies may differ: JSON pointers (RFC 6901), in which `*` stands for any name or index.",
        )
        .default("[]"),
        Key::new(
            "headers",
            Kind::List { of: &Kind::Text(&FIELD_NAME), min: 0, one: true },
            "The header fields that are compared.",
        )
        .default("[\"content-type\"]"),
        Key::new(
            "body",
            Kind::Size { min: 0, max: 1 << 20 },
            "Answers with a longer body are not compared.",
        )
        .default("\"64KiB\""),
    ],
};

pub(super) static POINTER: Text = Text {
    what: "a JSON pointer",
    example: "/items/*/updated_at",
    pattern: Some("^(/([^~/]|~[01])*)+$"),
    parse: |text| {
        let escaped = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
        match text.starts_with('/') && escaped && text.len() <= 1000 {
            true => Ok(Value::Text(text.into())),
            false => Err(UnitError::new(format!(
                "expected a JSON pointer such as \"/items/*/updated_at\", found {}",
                quote(text)
            ))),
        }
    },
};

static ROUTE_RETRY: Section = Section {
    doc: "Retries of this route's own, in place of those of its upstream, whose budget holds for them too; what is left \
          out is the upstream's.",
    keys: &[
        Key::new("on", RETRY_ON, "What is retried; none: nothing."),
        Key::new("tries", Kind::Int { min: 0, max: 10 }, "How many other targets."),
        Key::new("per_try", Kind::Either(&[OFF, TIMEOUT]), "What one target may take for its answer's head."),
    ],
};

static ROUTE_TIMEOUT: Section = Section {
    doc: "Time limits of this route's own, in place of those of its upstream; what is left out is the upstream's.",
    keys: &[
        Key::new(
            "first_byte",
            TIMEOUT,
            "From the request's end to the response's head; the upstream's `retry.per_try` still holds if it is less.",
        ),
        Key::new("idle", TIMEOUT, "Between two reads of a response's body."),
        Key::new("total", Kind::Either(&[OFF, TIMEOUT]), "The whole exchange; \"off\": no limit."),
    ],
};
