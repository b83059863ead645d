//! What changes requests and responses, and what answers in an upstream's place.

use super::{
    Key, Kind, Section, Text,
    match_text::{FIELD_NAME, REGEX},
    route::POINTER,
};
use crate::config::{
    node::Value,
    units::{Template, UnitError, normal_path, quote},
};

const FIELD_VALUES: Kind = Kind::Map { key: &FIELD_NAME, of: &Kind::Text(&FIELD_VALUE) };
const FIELD_NAMES: Kind = Kind::List { of: &Kind::Text(&FIELD_NAME), min: 1, one: true };

pub(super) static REWRITE: Section = Section {
    doc: "Changes to the request on its way to the upstream, and to its response. Values may have `${host}`, `${path}`, \
          `${query}`, `${uri}` (path and query), `${method}`, `${scheme}`, `${client.ip}`, `${id}`, `${consumer.id}`, `${consumer.tier}`, `${claim.NAME}` (of a token), `${param.NAME}`, \
          `${header.NAME}` and `${query.NAME}` of the client's request in them, as they were sent; `$${` stands for \
          `${`. Fields are removed first, then set, then added.",
    keys: &[
        Key::new(
            "path",
            Kind::Either(&[Kind::Text(&NEW_PATH), Kind::Table(&REPLACE)]),
            "The path that the upstream sees; a trailing `*` is what the route's own `*` took. The query stays.",
        ),
        Key::new("set", FIELD_VALUES, "Fields of the request, in place of those of that name."),
        Key::new("add", FIELD_VALUES, "Fields of the request, beside those of that name."),
        Key::new("remove", FIELD_NAMES, "Fields that are taken out of both the request and the response."),
        Key::new("json", Kind::Table(&JSON_MAP), "Members of the request's body, if that is JSON."),
        Key::new("response", Kind::Table(&RESPONSE), "The same for the response."),
    ],
};

static JSON_MAP: Section = Section {
    doc: "Changes to bodies that are JSON, by JSON pointers (RFC 6901), in which `*` stands for any name or index. Members are \
          removed first, then renamed, then set, each in the order of their pointers; what is not named stays as it is written. \
          A request's body is taken for JSON by its type, or for want of one: one that is none, or has a name twice that is \
          changed, is answered 400 (`json`), a compressed one 415 (`content_type`), a longer one 413. A response's is by its \
          type, and decoded if it is coded (gzip, br, zstd); one that cannot be changed is answered 502 (`upstream_json`). \
          Bodies are held until they are whole; digests of them are taken out, tags are weak, ranges are not asked for.",
    keys: &[
        Key::new(
            "remove",
            Kind::List { of: &Kind::Text(&POINTER), min: 1, one: true },
            "Members that are taken out.",
        ),
        Key::new(
            "rename",
            Kind::Map { key: &POINTER, of: &Kind::Text(&POINTER) },
            "Members that get another name, or place, by where they are: `{ \"/user/mail\" = \"/email\" }`. What is there already \
             goes; objects on the way are made. To its last `*` a pointer stays the same.",
        ),
        Key::new(
            "set",
            Kind::Map {
                key: &POINTER,
                of: &Kind::Either(&[
                    Kind::Bool,
                    Kind::Int { min: 0, max: i64::MAX as u64 },
                    Kind::Text(&JSON_TEXT),
                    Kind::Table(&JSON_VALUE),
                ]),
            },
            "Members in place of what is there, or new ones: true or false, a number, a text with the variables of `rewrite`, or \
             `{ json = \"…\" }`. Objects on the way are made; `-` is behind an array's last element.",
        ),
        Key::new("max", Kind::Size { min: 1, max: 64 << 20 }, "Bytes of a body.").default("\"1MiB\""),
    ],
};

static JSON_VALUE: Section = Section {
    doc: "Any JSON, as it is written.",
    keys: &[Key::new("json", Kind::Text(&JSON), "The value.").required()],
};

static JSON: Text = Text {
    what: "JSON",
    example: "[1, null]",
    pattern: None,
    parse: |text| match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(Value::Text(text.trim().into())),
        Err(error) => Err(UnitError::new(format!("{} is no JSON: {error}", quote(text)))),
    },
};

static JSON_TEXT: Text = Text {
    what: "a text",
    example: "${consumer.id}",
    pattern: None,
    parse: |text| Template::parse(text).map(Value::Template),
};

static REPLACE: Section = Section {
    doc: "The first match in the path is replaced; a path without one stays as it is.",
    keys: &[
        Key::new("regex", Kind::Text(&REGEX), "What to find in the normalised path.").required(),
        Key::new("to", Kind::Text(&REPLACEMENT), "What to put there; `${1}` is what the first group took.")
            .required(),
    ],
};

static RESPONSE: Section = Section {
    doc: "Changes to the response.",
    keys: &[
        Key::new("set", FIELD_VALUES, "Fields in place of those of that name."),
        Key::new("add", FIELD_VALUES, "Fields beside those of that name."),
        Key::new("remove", FIELD_NAMES, "Fields that are taken out."),
        Key::new("json", Kind::Table(&JSON_MAP), "Members of its body, if that is JSON."),
    ],
};

pub(super) static RESPOND: Section = Section {
    doc: "A fixed answer.",
    keys: &[
        Key::new("status", Kind::Int { min: 200, max: 599 }, "Its status code.").default("200"),
        Key::new("body", Kind::Text(&BODY), "Its body.").default("\"\""),
        Key::new(
            "headers",
            FIELD_VALUES,
            "Its fields, with the variables of `rewrite`. With a body and without a `content-type` it is \
             \"text/plain; charset=utf-8\".",
        ),
    ],
};

pub(super) static REDIRECT: Section = Section {
    doc: "A redirect.",
    keys: &[
        Key::new("to", Kind::Text(&LOCATION), "Where to, with the variables of `rewrite`.").required(),
        Key::new(
            "status",
            Kind::Int { min: 301, max: 308 },
            "301 or 308 for ever, 302, 303 or 307 for now; 307 and 308 keep the method.",
        )
        .default("307"),
    ],
};

static BODY: Text =
    Text { what: "a text", example: "gone", pattern: None, parse: |text| Ok(Value::Text(text.into())) };

static FIELD_VALUE: Text = Text {
    what: "a field's value",
    example: "${client.ip}",
    pattern: None,
    parse: |text| {
        let template = Template::parse(text)?;
        // RFC 9110 section 5.5: what is neither visible nor a space inside has no place in a value.
        let odd = template
            .literals()
            .flat_map(str::chars)
            .find(|c| !c.is_ascii() || (c.is_control() && *c != '\t'));
        match odd {
            Some(odd) => Err(UnitError::new(format!("a field's value cannot have {odd:?} in it"))
                .hint("only visible ASCII characters and spaces")),
            None if text.trim() != text => {
                Err(UnitError::new(format!("the spaces around {} would not be sent", quote(text))))
            }
            None => Ok(Value::Template(template)),
        }
    },
};

/// Literal parts of a path that a template makes.
fn check_literals(template: &Template, allowed: fn(u8) -> bool) -> Result<(), UnitError> {
    let mut bytes = template.literals().flat_map(str::bytes);
    match bytes.find(|byte| !byte.is_ascii_graphic() || !allowed(*byte)) {
        Some(odd) => {
            Err(UnitError::new(format!("{:?} has no place in it", char::from(odd))).hint("percent-encode it"))
        }
        None => Ok(()),
    }
}

fn in_path(byte: u8) -> bool {
    !b"\"<>\\^`|?#{}".contains(&byte)
}

static NEW_PATH: Text = Text {
    what: "a path",
    example: "/internal/*",
    pattern: Some("^/"),
    parse: |text| {
        let wrong = |hint: &str| {
            let error =
                UnitError::new(format!("expected a path such as \"/internal/*\", found {}", quote(text)));
            Err(error.hint(hint))
        };
        if !text.starts_with('/') {
            return wrong("a path starts with a slash");
        }
        let template = Template::parse(text)?.with_rest();
        if template.literals().any(|literal| literal.contains('*')) {
            return wrong("`*` is a whole segment, and the last");
        }
        check_literals(&template, in_path)?;
        if template.literals().any(|literal| normal_path(literal).is_none()) {
            return wrong(
                "a path has no `.` and `..` segments, and `%` is followed by two hexadecimal digits",
            );
        }
        Ok(Value::Template(template))
    },
};

static REPLACEMENT: Text = Text {
    what: "a part of a path",
    example: "/new/${1}",
    pattern: None,
    parse: |text| {
        let template = Template::parse(text)?;
        check_literals(&template, in_path)?;
        Ok(Value::Template(template))
    },
};

pub(super) static LOCATION: Text = Text {
    what: "a URL",
    example: "https://www.example.com${uri}",
    pattern: None,
    parse: |text| {
        let template = Template::parse(text)?;
        check_literals(&template, |byte| !b"\"<>\\^`{|}".contains(&byte))?;
        let starts = ["https://", "http://", "${scheme}://", "/", "${path}", "${uri}"];
        match starts.iter().any(|start| text.starts_with(start)) && !text.starts_with("//") {
            true => Ok(Value::Template(template)),
            false => Err(UnitError::new(format!(
                "expected a URL such as \"https://www.example.com${{uri}}\", found {}",
                quote(text)
            ))
            .hint("it starts with \"https://\", \"http://\", \"${scheme}://\" or \"/\"")),
        }
    },
};
