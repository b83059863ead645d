//! The same config in TOML, YAML and JSON.

use std::{fs, path::Path};

use super::{Format, ProblemKind, convert, load, parse, show};

const TOML: &str = r#"
[listener.web]
bind = ":8080"
max = { connections = 1000 }

[upstream.items]
to = ["10.0.0.1:80", { addr = "10.0.0.2:80", weight = 3 }]
slow_start = "10s"

[route.items]
host = "shop.test"
path = "/items/*"
to = "items"
timeout = { total = "2s" }

[route.items.rewrite]
set = { "X-On" = "on", "X-Number" = "010", "X-Lines" = "a: b # no comment", "ключ" = "~" }

[route.old]
path = "/old"
respond = { status = 410 }
"#;

const YAML: &str = r##"
listener:
  web: {bind: ":8080", max: {connections: 1000}}   # flow style
upstream:
  items:
    to:
    - 10.0.0.1:80
    - {addr: 10.0.0.2:80, weight: 3}
    slow_start: 10s
route:
  items:
    host: shop.test
    path: /items/*
    to: items
    timeout: {total: 2s}
    rewrite:
      set: {X-On: on, X-Number: 010, X-Lines: "a: b # no comment", ключ: "~"}
  old: {path: /old, respond: {status: 410}}
"##;

fn of(text: &str, file: &str) -> String {
    match parse(text, Path::new(file)) {
        Ok(config) => show(&config),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn yaml_and_json_say_the_same_as_toml() {
    // Only header names of ASCII are taken: the key is there for the writing of it, below.
    let (toml, yaml) = (TOML.replace("\"ключ\"", "X-Key"), YAML.replace("ключ", "X-Key"));
    let shown = of(&toml, "gateway.toml");
    assert!(shown.contains("shop.test"), "{shown}");
    assert_eq!(of(&yaml, "gateway.yaml"), shown);
    assert_eq!(of(&yaml, "gateway.YML"), shown);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.yaml");
    fs::write(&file, &yaml).unwrap();
    let json = convert(&file, Format::Json).unwrap();
    assert!(json.starts_with("{\n  \"listener\""), "{json}");
    assert_eq!(of(&json, "gateway.json"), shown);
}

#[test]
fn what_is_converted_is_the_same_config_in_the_same_order() {
    let folder = tempfile::tempdir().unwrap();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config_testdata/gateway.example.toml");
    let inputs = [TOML.to_owned(), fs::read_to_string(example).unwrap()];
    for (number, text) in inputs.iter().enumerate() {
        let file = |name: &str| folder.path().join(format!("{number}.{name}"));
        fs::write(file("toml"), text).unwrap();
        let toml = convert(&file("toml"), Format::Toml).unwrap();
        for (name, to) in [("yaml", Format::Yaml), ("json", Format::Json)] {
            fs::write(file(name), convert(&file("toml"), to).unwrap()).unwrap();
            assert_eq!(convert(&file(name), Format::Toml).unwrap(), toml, "by {to}");
        }
        let first = toml.lines().find(|line| line.starts_with('[')).unwrap();
        assert_eq!(Some(first), text.lines().find(|line| line.starts_with('[')));
    }
}

#[test]
fn problems_have_their_places() {
    let yaml =
        "listener:\n  web:\n    bind: 8080\n    bnid: \":1\"\nroute:\n  ä: {to: [x], timeout: ~}\n  b:\n";
    assert_eq!(
        of(yaml, "gateway.yaml"),
        "gateway.yaml:6:25: \"timeout\" has no value\n  \
         hint: leave the key out, or write {} for a table and [] for a list with nothing in it\n\
         gateway.yaml:7:4: \"b\" has no value\n  \
         hint: leave the key out, or write {} for a table and [] for a list with nothing in it"
    );
    let yaml = "listener:\n  web:\n    bind: 8080\n    bnid: \":1\"\nroute:\n  a: {to: [x]}\n";
    let said = of(yaml, "gateway.yaml");
    for expected in
        ["gateway.yaml:3:11: `listener.web.bind`", "gateway.yaml:4:5: unknown key `listener.web.bnid`"]
    {
        assert!(said.contains(expected), "{said}");
    }
    for (text, file, expected) in [
        ("a: 1\na: 2\n", "x.yaml", "x.yaml:2:1: `a` is defined twice"),
        ("a: [1\nb: 2\n", "x.yaml", "x.yaml:2:2: not YAML of any use: "),
        ("a: 1\n---\nb: 1\n", "x.yaml", "x.yaml:2:1: not YAML of any use: it has more than one document"),
        ("a: !secret x\n", "x.yaml", "x.yaml:1:"),
        ("a: .5\n", "x.yaml", "x.yaml:1:4: \".5\" is not a number as this config has them"),
        ("- a\n", "x.yaml", "x.yaml:1:1: expected keys with values"),
        ("{\"a\": 1,}", "x.json", "x.json:1:9: not JSON: "),
        ("a: 1", "x.json", "x.json:1:1: not JSON: "),
        ("{\"a\": 1, \"a\": 2}", "x.json", "x.json:1:10: `a` is defined twice"),
        ("", "x.json", "x.json:1:1: not JSON: EOF"),
        ("a = 1", "x.yaml", "x.yaml:1:1: "),
    ] {
        let said = of(text, file);
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }
    let duplicate = parse("a: 1\na: 2\n", Path::new("x.yaml")).unwrap_err();
    assert_eq!(duplicate.problems[0].kind, ProblemKind::Duplicate);
}

#[test]
fn aliases_work_and_cannot_blow_up() {
    let yaml = "listener: {web: {bind: \":80\"}}\nroute:\n  a: &a {path: /a, to: [10.0.0.1:1]}\n  b: {<<: *a, path: /b}\n";
    assert_eq!(parse(yaml, Path::new("x.yaml")).unwrap().routes.len(), 2);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let last = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![last; 10].join(", ")));
    }
    let said = of(&bomb, "x.yaml");
    assert!(said.contains("its aliases stand for too much"), "{said}");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for file in ["x.yaml", "x.json"] {
        let said = of(&deep, file);
        assert!(said.contains("nested too deeply") || said.contains("recursion limit"), "{said}");
    }
}

#[test]
fn formats_include_each_other() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("routes.yaml"), "route:\n  a: {to: [\"10.0.0.1:1\"]}\n").unwrap();
    fs::write(folder.path().join("more.json"), r#"{"route": {"b": {"path": "/b", "to": ["10.0.0.1:2"]}}}"#)
        .unwrap();
    let main = folder.path().join("gateway.toml");
    fs::write(&main, "include = [\"*.yaml\", \"more.json\"]\n[listener.web]\nbind = \":80\"\n").unwrap();
    assert_eq!(load(&main).unwrap().routes.len(), 2);
}
