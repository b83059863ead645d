//! Changes to JSON, against the same ones made to what serde_json reads.

use std::sync::Arc;

use http::{HeaderValue, Request};
use serde_json::Value;

use crate::{
    config::{
        model::{JsonMap, JsonSet},
        units::Template,
    },
    policy::{
        json_map::{Map, pieces, shared},
        template::Context,
    },
};

fn config(which: u8) -> JsonMap {
    let has = |bit: u8| which & (1 << bit) != 0;
    let one = |bit: u8, text: &str| has(bit).then(|| text.to_owned());
    let move_of = |bit: u8, from: &str, to: &str| has(bit).then(|| (from.to_owned(), to.to_owned()));
    let text = Template::parse("${header.x-a}\"").expect("a template");
    JsonMap {
        remove: [one(0, "/a"), one(1, "/*/b"), one(2, "/a/0/*")].into_iter().flatten().collect(),
        rename: [move_of(3, "/a", "/b"), move_of(4, "/*/b", "/*/c/d"), move_of(5, "/c/d", "/c")]
            .into_iter()
            .flatten()
            .collect(),
        set: [
            has(6).then(|| ("/b/c".to_owned(), JsonSet::Text(text))),
            has(7).then(|| ("/*/-".to_owned(), JsonSet::Json("[1]".into()))),
        ]
        .into_iter()
        .flatten()
        .collect(),
        max: 1 << 20,
    }
}

/// The first byte says which changes are made, the rest is a body.
pub fn apply(input: &[u8]) {
    let Some((which, body)) = input.split_first() else { return };
    let config = config(*which);
    let map = Arc::new(Map::new(&config));
    let head =
        Request::get("/").header("x-a", HeaderValue::from_static("A")).body(()).map(Request::into_parts);
    let Ok((head, ())) = head else { return };
    let (client, id) = (HeaderValue::from_static("192.0.2.1"), HeaderValue::from_static("7"));
    let context = Context { head: &head, client: &client, id: &id, scheme: "http", caller: None };
    let Ok(changed) = map.fill(&context).apply(body) else { return };
    // Lone surrogates, and what is nested too deep for it.
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return };
    let text = |pointer: &str| config.set.iter().any(|(at, _)| at == pointer);
    for pointer in &config.remove {
        let path = pieces(pointer);
        let (last, path) = path.split_last().expect("it has a part");
        each(&mut value, path, &mut |value| drop(take(value, last)));
    }
    for (from, to) in &config.rename {
        let (from, to) = (pieces(from), pieces(to));
        let (of, from) = from.split_at(shared(&from));
        let to = &to[of.len()..];
        each(&mut value, of, &mut |value| {
            let before = value.clone();
            let (last, path) = from.split_last().expect("it has a part");
            let mut moved = None;
            each(value, path, &mut |value| moved = take(value, last));
            if let Some(moved) = moved
                && !put(value, to, moved)
            {
                *value = before;
            }
        });
    }
    if text("/b/c") {
        put(&mut value, &pieces("/b/c"), Value::from("A\""));
    }
    if text("/*/-") {
        each(&mut value, &pieces("/*"), &mut |value| {
            put(value, &pieces("/-"), serde_json::json!([1]));
        });
    }
    let ours: Value = serde_json::from_slice(&changed).expect("what comes out is JSON");
    assert_eq!(ours, value, "{}", String::from_utf8_lossy(&changed));
}

fn child<'a>(value: &'a mut Value, piece: &str) -> Option<&'a mut Value> {
    value.pointer_mut(&format!("/{}", piece.replace('~', "~0").replace('/', "~1")))
}

fn each(value: &mut Value, path: &[String], act: &mut dyn FnMut(&mut Value)) {
    let Some((first, rest)) = path.split_first() else { return act(value) };
    match value {
        Value::Object(members) if first == "*" => {
            members.values_mut().for_each(|value| each(value, rest, act));
        }
        Value::Array(items) if first == "*" => items.iter_mut().for_each(|value| each(value, rest, act)),
        value => {
            if let Some(value) = child(value, first) {
                each(value, rest, act);
            }
        }
    }
}

fn take(value: &mut Value, piece: &str) -> Option<Value> {
    match value {
        Value::Object(members) if piece == "*" => {
            members.clear();
            None
        }
        Value::Array(items) if piece == "*" => {
            items.clear();
            None
        }
        Value::Object(members) => members.shift_remove(piece),
        Value::Array(items) => {
            let at = piece.parse::<usize>().ok().filter(|at| *at < items.len() && at.to_string() == piece);
            at.map(|at| items.remove(at))
        }
        _ => None,
    }
}

/// Whether there was room for it.
fn put(value: &mut Value, path: &[String], new: Value) -> bool {
    let Some((first, rest)) = path.split_first() else {
        *value = new;
        return true;
    };
    if let Some(value) = child(value, first) {
        return put(value, rest, new);
    }
    let within = |new: Value| {
        rest.iter().rev().fold(new, |inner, name| match name.as_str() {
            "-" => Value::Array(vec![inner]),
            name => Value::Object([(name.to_owned(), inner)].into_iter().collect()),
        })
    };
    match value {
        Value::Object(members) => {
            members.insert(first.clone(), within(new));
            true
        }
        Value::Array(items) if first == "-" => {
            items.push(within(new));
            true
        }
        _ => false,
    }
}
