//! What shapes answers for a client: compression, cross-origin rules.

use std::time::Duration;

use super::{
    Key, Kind, Section, Text,
    match_text::{FIELD_NAME, METHOD},
    seconds,
};
use crate::config::{
    model::Origin,
    node::Value,
    units::{UnitError, quote},
};

pub(super) static COMPRESS: Section = Section {
    doc: "Compression of responses. Not of those that are encoded already, shorter than `min`, partial, without a body or \
          marked `no-transform`. What the upstream has sent is flushed whenever it pauses.",
    keys: &[
        Key::new(
            "codings",
            Kind::List {
                of: &Kind::Choice { now: &[("zstd", ""), ("br", ""), ("gzip", "")], later: &[] },
                min: 1,
                one: true,
            },
            "The codings, the preferred first; what the client weighs higher goes before.",
        )
        .default("[\"zstd\", \"br\", \"gzip\"]"),
        Key::new("min", Kind::Size { min: 0, max: 1 << 30 }, "The shortest body, where its length is known.")
            .default("\"1KiB\""),
        Key::new(
            "types",
            Kind::List { of: &Kind::Text(&MEDIA_TYPE), min: 1, one: true },
            "Only these types: `text/html`, `text/*`, or `*+json` for every type with that suffix.",
        )
        .default(
            "[\"text/*\", \"application/json\", \"application/javascript\", \"application/xml\", \"application/wasm\", \
             \"application/manifest+json\", \"image/svg+xml\", \"*+json\", \"*+xml\"]",
        ),
    ],
};

pub(super) static CORS: Section = Section {
    doc: "Cross-origin requests (Fetch standard). Preflights are answered here, and what the upstream says of this is \
          replaced.",
    keys: &[
        Key::new(
            "origins",
            Kind::List { of: &Kind::Text(&ORIGIN), min: 1, one: true },
            "Who may: \"https://app.example.com\", \"https://*.example.com\", or \"*\" for everyone.",
        )
        .required(),
        Key::new(
            "methods",
            Kind::List { of: &Kind::Text(&METHOD), min: 1, one: true },
            "With which methods.",
        )
        .default("[\"GET\", \"HEAD\", \"POST\"]"),
        Key::new(
            "headers",
            Kind::List { of: &Kind::Text(&FIELD_NAME), min: 0, one: true },
            "With which header fields besides those that need no leave; \"*\" for any.",
        )
        .default("[]"),
        Key::new(
            "expose",
            Kind::List { of: &Kind::Text(&FIELD_NAME), min: 0, one: true },
            "Fields of answers that pages may read besides those that need no leave.",
        )
        .default("[]"),
        Key::new("credentials", Kind::Bool, "With cookies and the like. Not together with \"*\".")
            .default("false"),
        Key::new(
            "max_age",
            Kind::Duration { min: Duration::ZERO, max: seconds(86_400) },
            "How long a browser may go by a preflight's answer.",
        )
        .default("\"10m\""),
    ],
};

pub(super) static CSRF: Section = Section {
    doc: "Requests that pages of other sites have browsers send.",
    keys: &[Key::new(
        "origins",
        Kind::List { of: &Kind::Text(&ORIGIN), min: 0, one: true },
        "Whose pages may, besides the host's own and those that `cors` names.",
    )
    .default("[]")],
};

pub(super) static SECURITY_HEADERS: Section = Section {
    doc: "Fields of answers that do not have them; `X-Content-Type-Options: nosniff` always.",
    keys: &[
        Key::new(
            "frame",
            Kind::Choice {
                now: &[("DENY", ""), ("SAMEORIGIN", "pages of the same origin"), ("off", "no such field")],
                later: &[],
            },
            "`X-Frame-Options`: who may show it in a frame.",
        )
        .default("\"DENY\""),
        Key::new("referrer", Kind::Text(&FIELD_TEXT), "`Referrer-Policy`; \"off\": no such field.")
            .default("\"strict-origin-when-cross-origin\""),
        Key::new(
            "csp",
            Kind::Text(&FIELD_TEXT),
            "`Content-Security-Policy`, such as \"default-src 'self'\".",
        ),
        Key::new(
            "permissions",
            Kind::Text(&FIELD_TEXT),
            "`Permissions-Policy`, such as \"camera=(), geolocation=()\".",
        ),
    ],
};

static FIELD_TEXT: Text = Text {
    what: "the value of a header field",
    example: "default-src 'self'",
    pattern: Some("^[!-~]([ -~]*[!-~])?$"),
    parse: |text| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
        let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        match plain && edge(text.as_bytes().first()) && edge(text.as_bytes().last()) {
            true => Ok(Value::Text(text.into())),
            false => Err(UnitError::new(format!(
                "expected a field's value, which is printable ASCII, found {}",
                quote(text)
            ))),
        }
    },
};

pub(super) static MEDIA_TYPE: Text = Text {
    what: "a media type",
    example: "text/html",
    pattern: Some("^([a-z0-9.+-]+/([a-z0-9.+-]+|\\*)|\\*\\+[a-z0-9]+)$"),
    parse: |text| {
        let lower = text.to_ascii_lowercase();
        let name = |text: &str| {
            !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b".+-_".contains(&c))
        };
        let right = match lower.split_once('/') {
            Some((group, "*")) => name(group),
            Some((group, kind)) => name(group) && name(kind),
            None => lower.strip_prefix("*+").is_some_and(name),
        };
        match right {
            true => Ok(Value::Text(lower)),
            false => Err(UnitError::new(format!(
                "expected a media type such as \"text/html\", found {}",
                quote(text)
            ))
            .hint("\"text/*\" is every text, \"*+json\" every type with that suffix")),
        }
    },
};

static ORIGIN: Text = Text {
    what: "an origin",
    example: "https://app.example.com",
    pattern: Some("^(\\*|[a-z][a-z0-9+.-]*://[A-Za-z0-9_.:*\\[\\]-]+)$"),
    parse: |text| {
        let wrong = || {
            UnitError::new(format!(
                "expected an origin such as \"https://app.example.com\", found {}",
                quote(text)
            ))
        };
        if text == "*" {
            return Ok(Value::Origin(Origin::Any));
        }
        let lower = text.to_ascii_lowercase();
        let Some((scheme, host)) = lower.split_once("://") else {
            return Err(wrong().hint("an origin has a scheme, a host and maybe a port"));
        };
        if host.contains('/') {
            let host = host.split('/').next().unwrap_or_default();
            return Err(wrong().hint(format!("leave the path out: {}", quote(&format!("{scheme}://{host}")))));
        }
        let host_fits = |host: &str| {
            !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c))
        };
        let scheme_fits =
            !scheme.is_empty() && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
        if let Some(suffix) = host.strip_prefix("*.").filter(|suffix| scheme_fits && host_fits(suffix)) {
            return Ok(Value::Origin(Origin::Under {
                scheme: format!("{scheme}://"),
                suffix: suffix.into(),
            }));
        }
        match scheme_fits && host_fits(host) {
            true => Ok(Value::Origin(Origin::Exact(lower))),
            false => {
                Err(wrong().hint("`*` stands for whole labels, and only in front: \"https://*.example.com\""))
            }
        }
    },
};
