//! `[kernel]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{bucket, bytes, distinct, file};
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    include::{absolute, beside},
    model::{Adapt, Kernel, KernelBlock, KernelClass, KernelLimit, KernelMode, LimitMode, Steer},
    node::{Fields, Node, Value},
    source::{read_text, unreadable},
    units::{Percent, Place, Prefix, Rate},
};

/// The kernel half numbers them in four bits, and 0 is none.
const MOST_CLASSES: usize = 15;

pub(super) fn kernel(fields: &Fields, problems: &mut Problems) -> Kernel {
    let limit = fields.table("limit");
    let interfaces =
        distinct(fields, "interfaces", fields.or_default("interfaces"), problems, |name: &String| {
            format!("interface \"{name}\"")
        });
    Kernel {
        interfaces,
        mode: match fields.or_default("mode") {
            "native" => KernelMode::Native,
            "generic" => KernelMode::Generic,
            "off" => KernelMode::Off,
            _ => KernelMode::Auto,
        },
        steer: match fields.or_default("steer") {
            "off" => Steer::Off,
            _ => Steer::IpHash,
        },
        required: fields.or_default("required"),
        pin: file(fields, "pin"),
        limit: KernelLimit {
            packets: bucket(&limit, "packets"),
            new: bucket(&limit, "new"),
            bytes: bytes(&limit, "bytes"),
            mode: mode(&limit),
            exempt: prefixes(&limit, "exempt"),
            ipv6_prefix: limit.or_default("ipv6_prefix"),
        },
        classes: classes(fields, problems),
        flows: fields.or_default::<u32>("flows").next_power_of_two(),
        syn_cookies: syn_cookies(fields),
        adapt: adapt(fields, problems),
        block: block(&fields.table("block"), problems),
    }
}

fn mode(fields: &Fields) -> LimitMode {
    match fields.or_default("mode") {
        "soft" => LimitMode::Soft,
        _ => LimitMode::Hard,
    }
}

fn syn_cookies(fields: &Fields) -> Option<Rate> {
    match &fields.node("syn_cookies")?.value {
        Value::Table(cookies) => cookies.get("above"),
        _ => None,
    }
}

fn adapt(fields: &Fields, problems: &mut Problems) -> Option<Adapt> {
    let adapt = fields.written("adapt")?;
    let mut checked = |key: &str, Percent(share): Percent| {
        if !(0.01..=1.0).contains(&share) {
            let message = format!("`kernel.adapt.{key}`: must be from 1% to 100%");
            problems.push(Problem::new(ProblemKind::Value, &adapt.place(key), message));
        }
        share
    };
    let (p99, queue) = (adapt.get("p99"), adapt.get("queue"));
    let errors = adapt.get("errors").map(|share| checked("errors", share));
    let usual = (p99.is_none() && queue.is_none() && errors.is_none()).then_some(0.8);
    Some(Adapt {
        cpu: adapt.get("cpu").map(|share| checked("cpu", share)).or(usual),
        p99,
        errors,
        queue,
        from: checked("from", adapt.or_default("from")),
    })
}

fn classes(kernel: &Fields, problems: &mut Problems) -> BTreeMap<String, KernelClass> {
    let tables = kernel.named("class");
    if tables.len() > MOST_CLASSES {
        let message = format!("there are {} classes, at most {MOST_CLASSES} are allowed", tables.len());
        problems.push(Problem::new(ProblemKind::Conflict, &kernel.place("class"), message));
    }
    shared_prefixes(tables, problems);
    let class = |fields: &Fields| KernelClass {
        at: fields.at.clone().into(),
        from: fields
            .get::<Vec<Prefix>>("from")
            .unwrap_or_default()
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        packets: bucket(fields, "packets"),
        new: bucket(fields, "new"),
        bytes: bytes(fields, "bytes"),
        mode: mode(fields),
    };
    tables.iter().map(|(name, fields)| (name.clone(), class(fields))).collect()
}

/// The same prefix in two classes is told at the later of the two places.
fn shared_prefixes(classes: &BTreeMap<String, Fields>, problems: &mut Problems) {
    let mut all: Vec<(&str, &Node)> = Vec::new();
    for (name, fields) in classes {
        if let Some(Value::List(nodes)) = fields.node("from").map(|node| &node.value) {
            all.extend(nodes.iter().map(|node| (name.as_str(), node)));
        }
    }
    all.sort_by_key(|(_, node)| (node.at.file.clone(), node.at.line, node.at.column));
    let mut seen: BTreeMap<Prefix, (&str, &Node)> = BTreeMap::new();
    for (name, node) in all {
        let Value::Prefix(prefix) = node.value else { continue };
        let (first, at) = *seen.entry(prefix).or_insert((name, node));
        if first != name {
            let message = format!("{prefix} is in class `{name}` and in class `{first}`, at {}", at.at);
            let hint = "a source has the limits of one class: leave it in one of them".to_owned();
            problems.push(Problem::new(ProblemKind::Conflict, &node.at, message).hint(hint));
        }
    }
}

/// Sorted, without those that are there twice: harmless, and lists are often put together from others.
fn prefixes(fields: &Fields, key: &str) -> Vec<Prefix> {
    fields.or_default::<Vec<Prefix>>(key).into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

fn block(fields: &Fields, problems: &mut Problems) -> KernelBlock {
    let cidrs = prefixes(fields, "cidrs");
    let mut all: BTreeSet<Prefix> = cidrs.iter().copied().collect();
    let mut files: Vec<PathBuf> = Vec::new();
    if let Some(Value::List(nodes)) = fields.node("files").map(|node| &node.value) {
        for node in nodes {
            let Value::Text(name) = &node.value else { continue };
            let path = beside(&node.at, name);
            if !files.contains(&absolute(&path)) {
                files.push(absolute(&path));
                read_block_file(&path, &mut all, problems);
            }
        }
    }
    KernelBlock { cidrs, prefixes: all.into_iter().collect(), except: prefixes(fields, "except"), files }
}

/// One prefix a line, `#` starts a comment.
fn read_block_file(path: &Path, into: &mut BTreeSet<Prefix>, problems: &mut Problems) {
    let bytes = match read_text(path) {
        Ok(bytes) => bytes,
        Err(error) => return problems.push(unreadable(path, &error)),
    };
    let file = Arc::new(path.to_owned());
    for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        let written = line.split('#').next().unwrap_or_default();
        match written.trim() {
            "" => {}
            text => match text.parse() {
                Ok(prefix) => {
                    into.insert(prefix);
                }
                Err(error) => {
                    let column = written.chars().take_while(|c| c.is_whitespace()).count() + 1;
                    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                    let at = Place { file: file.clone(), line: number(index + 1), column: number(column) };
                    let error: crate::config::units::UnitError = error;
                    problems.push(Problem::new(ProblemKind::Value, &at, error.message).hint(error.hint));
                }
            },
        }
    }
}
