//! The JSON Schema of a config (draft 2020-12), for editors: from the table.

use serde_json::{Map, Value, json};

use super::{
    table::{Key, Kind, NAME_PATTERN, Need, ROOT, Section},
    units::{ByteSize, show_duration},
};

const DURATION: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?$";
const SIZE: &str = "^[0-9]+([KMGT]i?B|B)?$";

/// The schema of a config file. `x-restart` marks what takes effect only after a restart.
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway config",
    });
    merge(&mut schema, object(&ROOT));
    schema
}

fn object(section: &Section) -> Value {
    let properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> =
        section.keys.iter().filter(|key| matches!(key.need, Need::Required)).map(|key| key.name).collect();
    let mut object = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    // Exactly one of a key and those that may stand in for it, or any.
    for key in section.keys {
        let (others, how) = match key.need {
            Need::RequiredUnless(others) => (others, "oneOf"),
            Need::RequiredWithout(others) => (others, "anyOf"),
            Need::Optional | Need::Required => continue,
        };
        let supported = others.iter().filter(|other| section.key(other).is_some_and(|key| !key.is_later()));
        let names: Vec<&str> = std::iter::once(key.name).chain(supported.copied()).collect();
        match &*names {
            [only] => object["required"] = json!([only]),
            _ => object[how] = names.iter().map(|name| json!({ "required": [name] })).collect(),
        }
    }
    object
}

fn property(key: &Key) -> Value {
    let mut property = kind(&key.kind);
    let doc = if key.is_later() { format!("Not supported yet: {}", key.doc) } else { key.doc.to_owned() };
    property["description"] = json!(doc);
    if let Some(default) = key.default.and_then(default) {
        property["default"] = default;
    }
    if key.restart {
        property["x-restart"] = json!(true);
    }
    property
}

/// A default, written as TOML, as JSON.
fn default(toml: &str) -> Option<Value> {
    let table: toml::Table = format!("default = {toml}").parse().ok()?;
    serde_json::to_value(table.get("default")?).ok()
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::OnlyFalse => json!({ "const": false }),
        Kind::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Float { above, max } => json!({ "type": "number", "exclusiveMinimum": above, "maximum": max }),
        Kind::Duration { min, max } => json!({
            "type": "string",
            "pattern": DURATION,
            "minLength": 2,
            "examples": ["250ms"],
            "$comment": format!("from {} to {}", show_duration(*min), show_duration(*max)),
        }),
        Kind::Date => {
            json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}", "examples": ["2027-01-31"] })
        }
        Kind::Size { min, max } => json!({
            "anyOf": [
                { "type": "string", "pattern": SIZE, "examples": ["512MiB"] },
                { "type": "integer", "minimum": min, "maximum": max },
            ],
            "$comment": format!("from {} to {}", ByteSize(*min), ByteSize(*max)),
        }),
        Kind::Text(text) => {
            let mut schema = json!({ "type": "string", "examples": [text.example] });
            if let Some(pattern) = text.pattern {
                schema["pattern"] = json!(pattern);
            }
            schema
        }
        Kind::Choice { now, .. } => json!({ "enum": now.iter().map(|(word, _)| word).collect::<Vec<_>>() }),
        Kind::List { of, min, one } => {
            let mut list = json!({ "type": "array", "items": self::kind(of) });
            if *min > 0 {
                list["minItems"] = json!(min);
            }
            if *one { json!({ "anyOf": [self::kind(of), list] }) } else { list }
        }
        Kind::Table(section) => object(section),
        Kind::TableAndNamed(section, named) => {
            let mut table = object(section);
            table["additionalProperties"] = object(named);
            table
        }
        Kind::Named(section) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME_PATTERN },
            "additionalProperties": object(section),
        }),
        Kind::Map { key, of } => {
            let mut names = json!({});
            if let Some(pattern) = key.pattern {
                names = json!({ "pattern": pattern });
            }
            json!({ "type": "object", "propertyNames": names, "additionalProperties": self::kind(of) })
        }
        Kind::Either(kinds) => {
            let supported = kinds.iter().filter(|kind| kind.is_supported());
            json!({ "anyOf": supported.map(self::kind).collect::<Vec<_>>() })
        }
        Kind::NotYet => json!({ "not": {} }),
    }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
