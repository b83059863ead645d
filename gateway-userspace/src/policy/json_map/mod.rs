//! `rewrite.json`: members of JSON bodies are taken out, renamed and set. What is not named stays as it was written:
//! numbers, names, order.

mod tree;

use std::{borrow::Cow, sync::Arc};

use self::tree::Node;
use super::{
    json::{Checker, Refused},
    template::Context,
};
use crate::config::{
    model::{self, JsonLimits, JsonSet},
    units::Template,
};

/// Deeper than any reader goes.
pub const LIMITS: JsonLimits = JsonLimits { depth: 512, items: None };

/// `{ remove, rename, set, max }`, compiled.
#[derive(Debug)]
pub struct Map {
    remove: Vec<Vec<String>>,
    rename: Vec<Rename>,
    set: Vec<(Vec<String>, Value)>,
    /// Bytes of a body.
    pub most: usize,
}

/// A move within all that `of` leads to.
#[derive(Debug)]
struct Rename {
    of: Vec<String>,
    from: Vec<String>,
    to: Vec<String>,
}

#[derive(Debug)]
enum Value {
    /// JSON.
    Fixed(String),
    /// A text.
    Filled(Template),
}

/// A map with the values of one request.
#[derive(Debug)]
pub struct Filled<'a> {
    pub map: Arc<Map>,
    values: Vec<Cow<'a, str>>,
}

/// RFC 6901; `*` stands for any name or index.
pub fn pieces(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|piece| piece.replace("~1", "/").replace("~0", "~")).collect()
}

/// How many of the first parts, to the last `*`, two pointers of a rename have in common.
pub fn shared(from: &[String]) -> usize {
    from.iter().rposition(|piece| piece == "*").map_or(0, |last| last + 1)
}

impl Map {
    pub fn new(config: &model::JsonMap) -> Self {
        let rename = |(from, to): &(String, String)| {
            let (mut of, mut to) = (pieces(from), pieces(to));
            let from = of.split_off(shared(&of));
            Rename { to: to.split_off(of.len().min(to.len())), of, from }
        };
        let set = |(pointer, value): &(String, JsonSet)| {
            let value = match value {
                JsonSet::Json(json) => Value::Fixed(json.clone()),
                JsonSet::Text(template) => match template.fixed() {
                    Some(text) => Value::Fixed(quoted(text)),
                    None => Value::Filled(template.clone()),
                },
            };
            (pieces(pointer), value)
        };
        Map {
            remove: config.remove.iter().map(|pointer| pieces(pointer)).collect(),
            rename: config.rename.iter().map(rename).collect(),
            set: config.set.iter().map(set).collect(),
            most: config.max,
        }
    }

    /// Whether what comes out depends on the request.
    pub fn varies(&self) -> bool {
        self.set.iter().any(|(_, value)| matches!(value, Value::Filled(_)))
    }

    pub fn fill<'a>(self: &'a Arc<Self>, context: &Context<'_>) -> Filled<'a> {
        let value = |(_, value): &'a (Vec<String>, Value)| match value {
            Value::Fixed(json) => Cow::Borrowed(json.as_str()),
            Value::Filled(template) => Cow::Owned(quoted(&context.text(template))),
        };
        Filled { map: self.clone(), values: self.set.iter().map(value).collect() }
    }
}

/// As a JSON text.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Filled<'_> {
    /// To be kept.
    pub fn into_owned(self) -> Filled<'static> {
        let values = self.values.into_iter().map(|value| Cow::Owned(value.into_owned()));
        Filled { map: self.map, values: values.collect() }
    }

    /// A body as it is to be.
    ///
    /// # Errors
    /// It is no JSON (RFC 8259), or has a name twice that it is to be changed by: readers differ in which one counts.
    pub fn apply(&self, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut checker = Checker::new(LIMITS);
        checker.read(body).and_then(|()| checker.end())?;
        let text = std::str::from_utf8(body).map_err(|_| Refused)?;
        let mut root = Node::raw(text);
        for pointer in &self.map.remove {
            root.remove(pointer)?;
        }
        for Rename { of, from, to } in &self.map.rename {
            root.each(of, &mut |node| node.rename(from, to))?;
        }
        for ((pointer, _), value) in self.map.set.iter().zip(&self.values) {
            root.set(pointer, value)?;
        }
        let mut out = String::with_capacity(body.len() + 64);
        root.write(&mut out);
        Ok(out.into_bytes())
    }
}

#[cfg(test)]
mod tests;
