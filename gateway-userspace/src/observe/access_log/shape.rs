//! Other lines than JSON, made of it by the writer thread.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Every field that a line can have; the order is the interface's.
pub const FIELDS: &[&str] = &[
    "ts",
    "id",
    "trace",
    "listener",
    "service",
    "client",
    "peer",
    "proto",
    "tls",
    "host",
    "method",
    "path",
    "query",
    "status",
    "route",
    "version",
    "consumer",
    "upstream",
    "target",
    "tries",
    "why",
    "cache",
    "limit",
    "bytes_in",
    "bytes_out",
    "us",
    "us_self",
    "us_tls",
    "us_queue",
    "us_connect",
    "us_first_byte",
    "ua",
    "ref",
];

/// What a line looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Json,
    /// Apache's and nginx's "combined".
    Combined,
    Template(Template),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Shape {
    /// Of a line with `${field}` in it; says what is wrong with another.
    pub fn template(text: &str) -> Result<Shape, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            let (field, after) = behind.split_once('}').ok_or("`${` without its `}`")?;
            if !FIELDS.contains(&field) {
                let near = strsim_nearest(field);
                return Err(format!("a line has no field `{field}`; did you mean `{near}`?"));
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(Piece::Field(field.into()));
            rest = after;
        }
        if text.chars().any(char::is_control) {
            return Err("a line has no control characters".into());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Shape::Template(Template { text: text.into(), pieces }))
    }

    /// As the config writes it.
    pub fn show(&self) -> &str {
        match self {
            Shape::Json => "json",
            Shape::Combined => "combined",
            Shape::Template(template) => &template.text,
        }
    }

    /// Lines of JSON in this shape.
    pub fn of<'a>(&self, lines: &'a [u8]) -> Cow<'a, [u8]> {
        if *self == Shape::Json {
            return Cow::Borrowed(lines);
        }
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // Our own lines are objects.
            let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { continue };
            match self {
                Shape::Combined => combined(&fields, &mut out),
                Shape::Template(template) => template.fill(&fields, &mut out),
                Shape::Json => {}
            }
            out.push(b'\n');
        }
        Cow::Owned(out)
    }
}

fn strsim_nearest(field: &str) -> &'static str {
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, field);
    FIELDS.iter().min_by_key(distance).copied().unwrap_or("path")
}

impl Template {
    fn fill(&self, fields: &Map<String, Value>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Field(name) => put(fields.get(name), out),
            }
        }
    }
}

/// `client - consumer [time] "request" status bytes "referer" "agent"`
fn combined(fields: &Map<String, Value>, out: &mut Vec<u8>) {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    put(fields.get("client"), out);
    out.extend_from_slice(b" - ");
    put(fields.get("consumer"), out);
    out.extend_from_slice(format!(" [{}] \"", common_time(text("ts").unwrap_or_default())).as_bytes());
    match text("method") {
        Some(_) => {
            put(fields.get("method"), out);
            out.push(b' ');
            put(fields.get("path"), out);
            if let Some(query) = fields.get("query") {
                out.push(b'?');
                put(Some(query), out);
            }
            let version = if text("proto") == Some("h2") { " HTTP/2.0" } else { " HTTP/1.1" };
            out.extend_from_slice(version.as_bytes());
        }
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" ");
    put(fields.get("status"), out);
    out.push(b' ');
    put(fields.get("bytes_out"), out);
    for name in ["ref", "ua"] {
        out.extend_from_slice(b" \"");
        put(fields.get(name), out);
        out.push(b'"');
    }
}

/// A value, "-" if there is none. Nothing in it ends a line or a quoted text: as nginx does, such bytes are `\xHH`.
fn put(value: Option<&Value>, out: &mut Vec<u8>) {
    match value {
        None | Some(Value::Null) => out.push(b'-'),
        Some(Value::String(text)) => {
            for byte in text.bytes() {
                match byte {
                    b'"' | b'\\' | 0..=0x1f | 0x7f => {
                        out.extend_from_slice(format!("\\x{byte:02X}").as_bytes())
                    }
                    plain => out.push(plain),
                }
            }
        }
        Some(other) => out.extend_from_slice(other.to_string().as_bytes()),
    }
}

/// `2026-11-23T20:15:00.123Z` as `23/Nov/2026:20:15:00 +0000`.
fn common_time(ts: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = ts.get(5..7).and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    let month = MONTHS.get(month.saturating_sub(1)).copied().unwrap_or("Jan");
    let of = |range| ts.get(range).unwrap_or("00");
    format!("{}/{month}/{}:{} +0000", of(8..10), of(0..4), of(11..19))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"{"ts":"2026-11-23T20:15:00.123Z","client":"192.0.2.1","proto":"h1","method":"GET","path":"/a","query":"x=1","status":200,"bytes_out":5,"ua":"a \"b\"\n"}
"#;

    fn text(shape: &Shape) -> String {
        String::from_utf8(shape.of(LINE).into_owned()).unwrap()
    }

    #[test]
    fn combined_is_as_other_servers_write_it() {
        assert_eq!(
            text(&Shape::Combined),
            "192.0.2.1 - - [23/Nov/2026:20:15:00 +0000] \"GET /a?x=1 HTTP/1.1\" 200 5 \"-\" \"a \\x22b\\x22\\x0A\"\n"
        );
    }

    #[test]
    fn a_template_has_what_its_fields_say_and_knows_all_of_them() {
        let shape = Shape::template("${status} ${method} ${why}|${ua}!").unwrap();
        assert_eq!(text(&shape), "200 GET -|a \\x22b\\x22\\x0A!\n");
        assert!(Shape::template("${pth}").unwrap_err().contains("`path`"));
        assert!(Shape::template("${path").is_err() && Shape::template("${path}\n").is_err());
    }

    #[test]
    fn the_schema_knows_every_field_and_every_reason() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../../docs/access_log.schema.json")).unwrap();
        let known = &schema["else"]["properties"];
        assert!(known.as_object().unwrap().keys().eq(FIELDS), "{known}");
        let words = |field: &str| known[field]["enum"].as_array().unwrap().clone();
        assert_eq!(words("why"), crate::observe::Why::ALL.iter().map(|why| why.name()).collect::<Vec<_>>());
        let results = crate::observe::stats::CacheResult::ALL;
        assert_eq!(words("cache"), results.map(crate::observe::stats::CacheResult::word));
    }
}
