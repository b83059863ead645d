//! `rewrite`: another path, other header fields; bodies are [`super::json_map`]'s.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{json_map::Map, template::Context};
use crate::{
    config::{
        model::{self, FieldRewrite, PathRewrite},
        units::{Template, normal_path},
    },
    request::remove_twins,
    upstream::http1,
};

#[derive(Debug)]
pub struct Rewrite {
    path: Option<PathRewrite>,
    pub request: Fields,
    pub response: Fields,
    pub json: Option<Arc<Map>>,
    pub response_json: Option<Arc<Map>>,
}

impl Rewrite {
    pub fn new(config: &model::Rewrite) -> Self {
        Rewrite {
            path: config.path.clone(),
            request: Fields::new(&config.request, &config.remove),
            response: Fields::new(&config.response, &config.remove),
            json: config.json.as_deref().map(Map::new).map(Arc::new),
            response_json: config.response_json.as_deref().map(Map::new).map(Arc::new),
        }
    }

    /// Whether requests get another value of this field.
    pub fn sets(&self, name: &HeaderName) -> bool {
        let Fields { remove, set, add } = &self.request;
        remove.contains(name) || set.iter().chain(add).any(|(changed, _)| changed == name)
    }

    /// The path that the upstream is to see. `None`: the client's own. An error: what came out is no path, or one that
    /// would be read differently (dot segments).
    pub fn path(&self, context: &Context<'_>) -> Result<Option<String>, NoPath> {
        let mut path = match &self.path {
            None => return Ok(None),
            Some(PathRewrite::To(to)) => context.path(to, |_| ""),
            Some(PathRewrite::Replace { regex, to }) => {
                let from = context.head.uri.path();
                let Some(found) = regex.regex.captures(from.as_bytes()) else { return Ok(None) };
                let group = |number| {
                    let range = found.get(number).map_or(0..0, |group| group.range());
                    from.get(range).unwrap_or_default()
                };
                let whole = found.get(0).map_or(0..0, |whole| whole.range());
                let (before, after) = (from.get(..whole.start), from.get(whole.end..));
                format!(
                    "{}{}{}",
                    before.unwrap_or_default(),
                    context.path(to, group),
                    after.unwrap_or_default()
                )
            }
        };
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        normal_path(&path).map(|path| Some(path.into_owned())).ok_or(NoPath)
    }
}

/// A rewritten path that is none.
#[derive(Debug, PartialEq)]
pub struct NoPath;

/// Changes to header fields.
#[derive(Debug, Default)]
pub struct Fields {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

#[derive(Debug)]
pub enum Value {
    Fixed(HeaderValue),
    Filled(Template),
}

impl Value {
    pub fn new(template: &Template) -> Self {
        match template.fixed().and_then(|text| HeaderValue::from_str(text).ok()) {
            Some(value) => Value::Fixed(value),
            None => Value::Filled(template.clone()),
        }
    }

    pub fn of(&self, context: &Context<'_>) -> Option<HeaderValue> {
        match self {
            Value::Fixed(value) => Some(value.clone()),
            Value::Filled(template) => context.value(template),
        }
    }
}

/// The names were checked when the config was read.
pub(super) fn values(all: &[(String, Template)]) -> Vec<(HeaderName, Value)> {
    let one = |(name, template): &(String, Template)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, Value::new(template)))
    };
    all.iter().filter_map(one).collect()
}

impl Fields {
    fn new(config: &FieldRewrite, remove: &[String]) -> Self {
        let names = remove.iter().chain(&config.remove);
        Fields {
            remove: names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect(),
            set: values(&config.set),
            add: values(&config.add),
        }
    }

    /// With the values of this request, to be applied when its fields are otherwise as they are to be.
    pub fn fill<'a>(&'a self, context: &Context<'_>) -> Changes<'a> {
        let fill = |all: &'a [(HeaderName, Value)]| {
            all.iter().filter_map(|(name, value)| Some((name, value.of(context)?))).collect()
        };
        Changes { remove: &self.remove, set: fill(&self.set), add: fill(&self.add) }
    }
}

#[derive(Debug, Default)]
pub struct Changes<'a> {
    remove: &'a [HeaderName],
    set: Vec<(&'a HeaderName, HeaderValue)>,
    add: Vec<(&'a HeaderName, HeaderValue)>,
}

/// Fields that say who the client is: no client's own word for them is passed on (`upstream/http1/request.rs`), but the
/// config's is.
const VOUCHED: [&str; 7] = [
    "x-forwarded-by",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
];

impl Changes<'_> {
    /// Takes out what the config says of the client, as lines in wire format: a value has no line ends in it.
    pub fn take_vouched(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        for all in [&mut self.set, &mut self.add] {
            for (name, value) in all.extract_if(.., |(name, _)| VOUCHED.contains(&name.as_str())) {
                http1::field(&mut lines, name.as_str(), value.as_bytes());
            }
        }
        lines
    }

    /// To a request: also takes out what upstreams may take for the same fields.
    pub fn apply_to_request(self, headers: &mut HeaderMap) {
        let set = self.set.iter().map(|(name, _)| *name);
        remove_twins(headers, self.remove.iter().chain(set));
        self.apply(headers);
    }

    pub fn apply(self, headers: &mut HeaderMap) {
        for name in self.remove {
            headers.remove(name);
        }
        for (name, value) in self.set {
            headers.insert(name, value);
        }
        for (name, value) in self.add {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{PathPattern, Pattern, Segment};

    /// The path upstream of a request to `from`, which the route `/carts/*` took.
    fn rewritten(rewrite: PathRewrite, from: &str) -> Result<Option<String>, NoPath> {
        let head = super::super::template::tests::head(http::Request::get(from).header("x-t", "a/../b"));
        let (client, id) = (HeaderValue::from_static("192.0.2.1"), HeaderValue::from_static("7"));
        let context = Context { head: &head, client: &client, id: &id, scheme: "http", caller: None };
        let (request, response) = (Fields::default(), Fields::default());
        Rewrite { path: Some(rewrite), request, response, json: None, response_json: None }.path(&context)
    }

    fn template(text: &str, groups: usize) -> Template {
        let mut template = Template::parse(text).unwrap().with_rest();
        let path = PathPattern { segments: vec![Segment::Literal("carts".into())], rest: true };
        template.resolve(&path, groups).unwrap();
        template
    }

    #[test]
    fn a_star_takes_over_what_the_route_s_star_took() {
        for (to, from, expected) in [
            ("/internal/carts/*", "/carts/7/items?x", "/internal/carts/7/items"),
            ("/internal/carts/*", "/carts", "/internal/carts"),
            ("/internal/*", "/carts/", "/internal/"),
            ("/*", "/carts", "/"),
            ("/*", "/carts/a%2Fb", "/a%2Fb"),
            ("/fixed", "/carts/7", "/fixed"),
        ] {
            let path = rewritten(PathRewrite::To(template(to, 0)), from);
            assert_eq!(path.as_ref().map(Option::as_deref), Ok(Some(expected)), "{to} {from}");
        }
        // The field says "a/../b": no client makes a path that leads elsewhere.
        assert!(rewritten(PathRewrite::To(template("/${header.x-t}", 0)), "/carts").is_err());
    }

    #[test]
    fn a_regular_expression_replaces_its_first_match() {
        let with = |regex: &str, to: &str, from: &str| {
            let regex = Pattern { regex: regex::bytes::Regex::new(regex).unwrap() };
            let to = template(to, regex.regex.captures_len());
            rewritten(PathRewrite::Replace { regex, to }, from)
        };
        let is = |path: &str| Ok(Some(path.to_owned()));
        assert_eq!(with("^/carts/([0-9]+)(/.*)?$", "/c/${1}${2}", "/carts/12/x"), is("/c/12/x"));
        assert_eq!(with("^/carts/([0-9]+)(/.*)?$", "/c/${1}${2}", "/carts/12"), is("/c/12"));
        assert_eq!(with("^/other", "/c", "/carts/12"), Ok(None));
        assert_eq!(with("a", "b", "/carts/a"), is("/cbrts/a"));
        assert_eq!(with("^/", "", "/carts"), is("/carts"));
        assert_eq!(with("x", "", "/carts/.x."), Err(NoPath));
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let text = |text: &str| vec![("a".to_owned(), Template::parse(text).unwrap())];
        let config = FieldRewrite { set: text("3"), add: text("${client.ip}"), remove: vec!["b".into()] };
        let head = super::super::template::tests::head(http::Request::get("/"));
        let (client, id) = (HeaderValue::from_static("192.0.2.1"), HeaderValue::from_static("7"));
        let context = Context { head: &head, client: &client, id: &id, scheme: "http", caller: None };
        Fields::new(&config, &["c".into()]).fill(&context).apply(&mut headers);
        let all: Vec<_> = headers.get_all("a").iter().collect();
        assert_eq!(all, ["3", "192.0.2.1"]);
        assert_eq!(headers.len(), 2);
    }
}
