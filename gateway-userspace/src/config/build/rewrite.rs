//! `rewrite`, `respond` and `redirect` of a route.

use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{
        Destination, FieldRewrite, JsonMap, JsonSet, PathPattern, PathRewrite, Pattern, Redirect, Respond,
        Rewrite,
    },
    node::{Fields, Node, Value},
    units::{ByteSize, Place, Template, quote},
};
use crate::policy::json_map::{pieces, shared};

/// What an intermediary answers for itself (RFC 9110 section 7.6.1) and what frames a message: changing it would break
/// the connection or let one side be lied to.
const OURS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// Who the client is and where its request came by: the gateway tells upstreams itself.
const TOLD: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

pub(super) fn rewrite(route: &Fields, path: &PathPattern, problems: &mut Problems) -> Rewrite {
    let Some(fields) = route.written("rewrite") else { return Rewrite::default() };
    let mut builder = Builder { path, problems };
    let response = fields.table("response");
    Rewrite {
        path: builder.path(fields),
        request: FieldRewrite {
            set: builder.values(fields, "set", &TOLD),
            add: builder.values(fields, "add", &[&TOLD[..], &["host"]].concat()),
            remove: Vec::new(),
        },
        response: FieldRewrite {
            set: builder.values(&response, "set", &[]),
            add: builder.values(&response, "add", &[]),
            remove: builder.names(&response, "remove"),
        },
        json: builder.json(fields),
        response_json: builder.json(&response),
        remove: builder.names(fields, "remove"),
    }
}

/// What a route answers by itself. At most one of `to`, `respond` and `redirect` may be there.
pub(super) fn answer(route: &Fields, path: &PathPattern, problems: &mut Problems) -> Option<Destination> {
    let present: Vec<(&str, &Place)> =
        ["to", "respond", "redirect"].iter().filter_map(|key| Some((*key, &route.node(key)?.at))).collect();
    if let [(first, at), (second, place), ..] = *present {
        let message = format!("`{second}` and `{first}` (at {at}) both answer this route's requests");
        let hint = "leave one of them out".to_owned();
        problems.push(Problem::new(ProblemKind::Conflict, place, message).hint(hint));
    }
    let fixed = respond(route, path, problems).map(Destination::Respond);
    let answer = fixed.or_else(|| redirect(route, path, problems))?;
    let rewrite = route.table("rewrite");
    for (fields, key, name) in [
        (&rewrite, "path", "path"),
        (&rewrite, "json", "json"),
        (&rewrite.table("response"), "json", "response.json"),
    ] {
        if fields.node(key).is_some() {
            let message = format!("`rewrite.{name}` is for requests to an upstream, and this route has none");
            problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message));
        }
    }
    Some(answer)
}

/// A fixed answer at `respond`.
pub(super) fn respond(parent: &Fields, path: &PathPattern, problems: &mut Problems) -> Option<Respond> {
    let fields = parent.written("respond")?;
    let status: u16 = fields.or_default("status");
    let body: String = fields.or_default("body");
    // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
    if matches!(status, 204 | 205 | 304) && !body.is_empty() {
        let message = format!("an answer with status {status} has no body");
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("body"), message));
    }
    let headers = Builder { path, problems }.values(fields, "headers", &[]);
    Some(Respond { status, body, headers })
}

fn redirect(route: &Fields, path: &PathPattern, problems: &mut Problems) -> Option<Destination> {
    let node = route.node("redirect")?;
    let (to, at, status) = match &node.value {
        Value::Template(to) => (to.clone(), node.at.clone(), 307),
        Value::Table(fields) => (fields.get("to")?, fields.place("to"), fields.or_default("status")),
        _ => return None,
    };
    if let (Value::Table(fields), false) = (&node.value, matches!(status, 301 | 302 | 303 | 307 | 308)) {
        let message = format!("{status} is no redirect");
        let hint = "use 301, 302, 303, 307 or 308".to_owned();
        problems.push(Problem::new(ProblemKind::Value, &fields.place("status"), message).hint(hint));
    }
    let to = Builder { path, problems }.template("redirect", to, &at, 0)?;
    Some(Destination::Redirect(Redirect { to, status }))
}

struct Builder<'a> {
    path: &'a PathPattern,
    problems: &'a mut Problems,
}

impl Builder<'_> {
    fn path(&mut self, fields: &Fields) -> Option<PathRewrite> {
        let node = fields.node("path")?;
        match &node.value {
            Value::Template(to) => {
                Some(PathRewrite::To(self.template("rewrite.path", to.clone(), &node.at, 0)?))
            }
            Value::Table(fields) => {
                let regex: Pattern = fields.get("regex")?;
                let groups = regex.regex.captures_len();
                let to = self.template("rewrite.path.to", fields.get("to")?, &fields.place("to"), groups)?;
                Some(PathRewrite::Replace { regex, to })
            }
            _ => None,
        }
    }

    fn template(&mut self, key: &str, mut template: Template, at: &Place, groups: usize) -> Option<Template> {
        if let Err(error) = template.resolve(self.path, groups) {
            self.problems.push(Problem::value(at, key, error));
            return None;
        }
        Some(template)
    }

    fn values(&mut self, fields: &Fields, key: &str, not: &[&str]) -> Vec<(String, Template)> {
        let mut values = Vec::new();
        for (name, Node { at, value }) in fields.map(key) {
            let Value::Template(template) = value else { continue };
            let fits = self.changeable(&name, &at, not);
            let template = self.template(&format!("{key}.{name}"), template, &at, 0);
            values.extend(template.filter(|_| fits).map(|template| (name, template)));
        }
        values
    }

    fn json(&mut self, parent: &Fields) -> Option<Box<JsonMap>> {
        parent.node("json")?;
        let fields = parent.table("json");
        let mut rename = Vec::new();
        for (from, Node { at, value }) in fields.map("rename") {
            let Value::Text(to) = value else { continue };
            self.moves(&from, &to, &at);
            rename.push((from, to));
        }
        let mut set = Vec::new();
        for (pointer, Node { at, value }) in fields.map("set") {
            let value = match value {
                Value::Bool(value) => Some(JsonSet::Json(value.to_string())),
                Value::Int(value) => Some(JsonSet::Json(value.to_string())),
                Value::Table(raw) => raw.get("json").map(JsonSet::Json),
                Value::Template(text) => {
                    self.template(&format!("set.{pointer}"), text, &at, 0).map(JsonSet::Text)
                }
                _ => None,
            };
            set.extend(value.map(|value| (pointer, value)));
        }
        let max: ByteSize = fields.or_default("max");
        let remove = fields.get("remove").unwrap_or_default();
        Some(Box::new(JsonMap { remove, rename, set, max: max.0 as usize }))
    }

    /// A `*` that leads to many places has no one place to move to.
    fn moves(&mut self, from: &str, to: &str, at: &Place) {
        let (from_pieces, to_pieces) = (pieces(from), pieces(to));
        let same = shared(&from_pieces);
        let fits = same < from_pieces.len()
            && to_pieces.get(..same) == from_pieces.get(..same)
            && same < to_pieces.len()
            && shared(&to_pieces) == same;
        if !fits {
            let message = format!("`rename`: {} cannot become {}", quote(from), quote(to));
            let hint = "up to its last `*` the pointer stays the same, and a name follows: \"/items/*/a\" = \"/items/*/b\"";
            self.problems.push(Problem::new(ProblemKind::Value, at, message).hint(hint.to_owned()));
        }
    }

    fn names(&mut self, fields: &Fields, key: &str) -> Vec<String> {
        let Some(Value::List(nodes)) = fields.node(key).map(|node| &node.value) else { return Vec::new() };
        let names = nodes.iter().filter_map(|node| match &node.value {
            Value::Text(name) => Some((name.clone(), &node.at)),
            _ => None,
        });
        names.filter(|(name, at)| self.changeable(name, at, &["host"])).map(|(name, _)| name).collect()
    }

    fn changeable(&mut self, name: &str, at: &Place, not: &[&str]) -> bool {
        let ours = OURS.contains(&name) || not.contains(&name);
        if ours {
            let message = format!("the field `{name}` is the gateway's own business");
            let hint = match name {
                "host" => "use `rewrite.set` for another host".to_owned(),
                name if TOLD.contains(&name) => "it tells upstreams who the client is".to_owned(),
                _ => "it frames the message, belongs to one connection only or is how logs are found"
                    .to_owned(),
            };
            self.problems.push(Problem::new(ProblemKind::Conflict, at, message).hint(hint));
        }
        !ours
    }
}
