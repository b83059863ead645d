//! `cors` and `compress` of a route.

use super::distinct;
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Coding, Compress, Cors, Origin},
    node::{Fields, Value},
    table::Section,
    units::ByteSize,
};

pub(super) fn cors(route: &Fields, problems: &mut Problems) -> Option<Cors> {
    let fields = route.written("cors")?;
    let origins: Vec<Origin> = fields.get("origins")?;
    let credentials = fields.or_default("credentials");
    if credentials && origins.contains(&Origin::Any) {
        let message =
            "with `credentials` every page anywhere could act as the user: `origins` must not have \"*\"";
        let hint = "name the origins: origins = [\"https://app.example.com\"]".to_owned();
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("origins"), message).hint(hint));
    }
    Some(Cors {
        origins: distinct(fields, "origins", origins, problems, |origin| format!("origin \"{origin}\"")),
        methods: fields.or_default("methods"),
        headers: fields.or_default("headers"),
        expose: fields.or_default("expose"),
        credentials,
        max_age: fields.or_default("max_age"),
    })
}

pub(super) fn compress(route: &Fields, problems: &mut Problems) -> Option<Compress> {
    let node = route.node("compress")?;
    let fields = match &node.value {
        Value::Table(fields) => fields.clone(),
        Value::Bool(true) => Fields::empty(section(route, "compress")?, node.at.clone()),
        _ => return None,
    };
    let coding = |word: &'static str| match word {
        "zstd" => Coding::Zstd,
        "br" => Coding::Brotli,
        _ => Coding::Gzip,
    };
    let codings = fields.or_default::<Vec<&'static str>>("codings").into_iter().map(coding).collect();
    let min: ByteSize = fields.or_default("min");
    Some(Compress {
        codings: distinct(&fields, "codings", codings, problems, |coding| {
            format!("coding \"{}\"", coding.word())
        }),
        min: min.0,
        types: fields.or_default("types"),
    })
}

/// Of a key that may be a table or just true.
pub(super) fn section(fields: &Fields, key: &str) -> Option<&'static Section> {
    use crate::config::table::Kind;
    match &fields.section.key(key)?.kind {
        Kind::Either(kinds) => kinds.iter().find_map(|kind| match kind {
            Kind::Table(section) => Some(*section),
            _ => None,
        }),
        _ => None,
    }
}
