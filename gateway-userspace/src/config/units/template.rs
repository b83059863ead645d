//! Texts with `${…}` in them, compiled when the config is loaded.

use std::fmt;

use super::{UnitError, quote};
use crate::config::{
    error::did_you_mean,
    model::{PathPattern, Segment},
};

/// A text whose variables a request fills in.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pub parts: Vec<Part>,
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Literal(String),
    Variable(Variable),
}

/// What stands between `${` and `}`.
#[derive(Debug, Clone, PartialEq)]
pub enum Variable {
    /// The host asked for, without a port.
    Host,
    /// Normalised.
    Path,
    /// Without the `?`.
    Query,
    /// Path and query.
    Uri,
    Method,
    Scheme,
    ClientIp,
    /// `x-request-id`
    Id,
    /// The name of who calls; empty if that is not known.
    ConsumerId,
    ConsumerTier,
    /// Of the token that it called with.
    Claim(String),
    /// A parameter of the route's path; `segment` is known once the path is, see [`Template::resolve`].
    Param {
        name: String,
        segment: usize,
    },
    /// In lower case.
    Header(String),
    QueryParam(String),
    /// A group of a regular expression.
    Group(usize),
    /// What the route's `*` took, with the slash before it; after so many segments.
    Rest {
        after: usize,
    },
}

const PLAIN: &[(&str, Variable)] = &[
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("uri", Variable::Uri),
    ("method", Variable::Method),
    ("scheme", Variable::Scheme),
    ("client.ip", Variable::ClientIp),
    ("id", Variable::Id),
    ("consumer.id", Variable::ConsumerId),
    ("consumer.tier", Variable::ConsumerTier),
];

impl Template {
    /// `$${` stands for `${`.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(escaped) = before.strip_suffix('$') {
                literal.push_str(escaped);
                literal.push_str("${");
                rest = after;
                continue;
            }
            literal.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                let error = UnitError::new(format!("{} has a `${{` without a `}}`", quote(text)));
                return Err(error.hint("write `$${` for a `${` that is meant as it is"));
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Variable(variable(name)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template { parts, text: text.into() })
    }

    /// The whole text, if nothing is to be filled in.
    pub fn fixed(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Variable(_) => None,
        })
    }

    /// A trailing `/*` becomes what the route's `*` took.
    pub fn with_rest(mut self) -> Self {
        if let Some(Part::Literal(last)) = self.parts.last_mut()
            && let Some(before) = last.strip_suffix("/*")
        {
            match before.is_empty() {
                true => drop(self.parts.pop()),
                false => *last = before.to_owned(),
            }
            self.parts.push(Part::Variable(Variable::Rest { after: 0 }));
        }
        self
    }

    /// Finds parameters and `*` in the route's path, and groups among those of a regular expression (0: there is none).
    pub fn resolve(&mut self, path: &PathPattern, groups: usize) -> Result<(), UnitError> {
        for part in &mut self.parts {
            let Part::Variable(variable) = part else { continue };
            match variable {
                Variable::Param { name, segment } => {
                    let is_it = |known: &Segment| matches!(known, Segment::Parameter(known) if known == name);
                    let found = path.segments.iter().position(is_it);
                    *segment = found.ok_or_else(|| no_parameter(name, path))?;
                }
                Variable::Rest { .. } if !path.rest => {
                    let error =
                        UnitError::new(format!("the route's path {} has no `*`", quote(&path.to_string())));
                    return Err(error.hint("`*` stands for what the route's own `*` took"));
                }
                Variable::Rest { after } => *after = path.segments.len(),
                Variable::Group(number) if *number >= groups => {
                    let message = match groups {
                        0 => format!("`${{{number}}}` is a group of a regular expression, and here is none"),
                        _ => format!("the regular expression has no group {number}"),
                    };
                    let hint = "groups are counted from 1 by their opening parentheses; 0 is the whole match";
                    return Err(UnitError::new(message).hint(hint));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn variable(name: &str) -> Result<Variable, UnitError> {
    if let Some((_, variable)) = PLAIN.iter().find(|(known, _)| *known == name) {
        return Ok(variable.clone());
    }
    if let Ok(number) = name.parse() {
        return Ok(Variable::Group(number));
    }
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#%&'*+-.^_`|~".contains(&c))
    };
    match name.split_once('.') {
        Some(("param", name)) if token(name) => Ok(Variable::Param { name: name.into(), segment: 0 }),
        Some(("header", name)) if token(name) => Ok(Variable::Header(name.to_ascii_lowercase())),
        Some(("claim", name)) if !name.is_empty() => Ok(Variable::Claim(name.into())),
        Some(("query", name)) if !name.is_empty() => Ok(Variable::QueryParam(name.into())),
        _ => {
            let known = PLAIN.iter().map(|(name, _)| *name);
            let hint = did_you_mean(name, known, |name| format!("`${{{name}}}`")).unwrap_or_else(|| {
                "known: host, path, query, uri, method, scheme, client.ip, id, consumer.id, consumer.tier, claim.NAME, param.NAME, header.NAME, query.NAME"
                    .to_owned()
            });
            Err(UnitError::new(format!("{} is not a variable", quote(&format!("${{{name}}}")))).hint(hint))
        }
    }
}

fn no_parameter(name: &str, path: &PathPattern) -> UnitError {
    let error = UnitError::new(format!(
        "the route's path {} has no parameter {}",
        quote(&path.to_string()),
        quote(name)
    ));
    let names = || {
        path.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) | Segment::Version(_) => None,
        })
    };
    match did_you_mean(name, names(), |name| format!("`${{param.{name}}}`")) {
        Some(hint) => error.hint(hint),
        None => error.hint(format!("a parameter is a segment of the route's path: \"/items/{{{name}}}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_from_text() {
        let literal = |text: &str| Part::Literal(text.into());
        let of = |text: &str| Template::parse(text).unwrap().parts;
        assert_eq!(of("a-${host}-b"), [literal("a-"), Part::Variable(Variable::Host), literal("-b")]);
        assert_eq!(of("${client.ip}"), [Part::Variable(Variable::ClientIp)]);
        assert_eq!(of("$${host}$ {a}$"), [literal("${host}$ {a}$")]);
        assert_eq!(of(""), []);
        assert_eq!(of("${header.X-A}"), [Part::Variable(Variable::Header("x-a".into()))]);
        for text in ["${", "${host", "${}", "${param.}", "${header.a b}", "${hosts.x}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(Template::parse("${hots}").unwrap_err().hint.unwrap().contains("`${host}`"));
        assert_eq!(of("${consumer.tier}"), [Part::Variable(Variable::ConsumerTier)]);
    }
}
