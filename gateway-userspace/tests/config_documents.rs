//! What is generated from the table of keys: the reference and the JSON Schema.

use std::{fs, path::Path};

use gateway::config;
use serde_json::Value;

#[test]
fn the_reference_in_docs_is_the_generated_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let committed = fs::read_to_string(file).unwrap_or_default();
    assert!(
        committed == config::reference(),
        "docs/config.md is out of date; run: gateway config reference > docs/config.md"
    );
}

#[test]
fn the_schema_knows_keys_defaults_and_restarts() {
    let schema = config::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let gateway = &schema["properties"]["gateway"]["properties"];
    assert_eq!(gateway["workers"]["x-restart"], true);
    assert_eq!(gateway["workers"]["default"], "auto");
    assert_eq!(gateway["drain"]["default"], "30s");
    let listener = &schema["properties"]["listener"]["additionalProperties"];
    assert_eq!(listener["required"], serde_json::json!(["bind"]));
    assert_eq!(listener["additionalProperties"], false);
    assert_eq!(listener["properties"]["max"]["properties"]["connections"]["default"], 100_000);
    assert_eq!(listener["properties"]["real_ip"]["required"], serde_json::json!(["from"]));
    let route = &schema["properties"]["route"]["additionalProperties"]["properties"];
    assert_eq!(route["ai"]["not"], serde_json::json!({}));
}

/// The part of JSON Schema that the schema uses, checked against a value. Patterns are left to the units' own tests.
fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    if schema.get("not").is_some() {
        return Err("not supported".into());
    }
    if let (Some(any), false) = (schema["anyOf"].as_array(), schema["type"] == "object") {
        let tried: Vec<_> = any.iter().map(|schema| fits(schema, value)).collect();
        return match tried.iter().any(Result::is_ok) {
            true => Ok(()),
            false => Err(format!("{value}: {tried:?}")),
        };
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) { Ok(()) } else { Err(format!("{value} is not one of {words:?}")) };
    }
    if let Some(only) = schema.get("const") {
        return if only == value { Ok(()) } else { Err(format!("{value} is not {only}")) };
    }
    let right = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.as_u64().is_some_and(|n| {
            schema["minimum"].as_u64().is_none_or(|min| n >= min)
                && schema["maximum"].as_u64().is_none_or(|max| n <= max)
        }),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        other => return Err(format!("unknown type {other:?} in {schema}")),
    };
    if !right {
        return Err(format!("{value} is not {}", schema["type"]));
    }
    for element in value.as_array().into_iter().flatten() {
        fits(&schema["items"], element)?;
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let inner = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
        fits(inner, value).map_err(|why| format!("{key}: {why}"))?;
    }
    let has_all = |one: &Value| {
        let keys = one["required"].as_array().into_iter().flatten();
        keys.filter_map(Value::as_str).all(|key| value.get(key).is_some())
    };
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(has_all)
    {
        return Err(format!("none of {any:?} is there"));
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        let present = key.as_str().is_some_and(|key| value.get(key).is_some());
        present.then_some(()).ok_or_else(|| format!("{key} is missing"))?;
    }
    Ok(())
}

#[test]
fn a_config_in_effect_fits_the_schema() {
    let text = r#"
        [kernel.limit]
        packets = { rate = "20k/s", burst = 40_000 }
        [listener.web]
        bind = ":80"
        [upstream.a]
        to = [{ addr = "10.0.0.1:80", weight = 2 }, "10.0.0.2:80"]
        balance = "ip-hash"
        bounded_load = 1.25
        health = { path = "/healthz" }
        [upstream.b]
        to = "10.0.0.3:80"
        health = { tcp = true }
        [route.a]
        host = "a.example"
        methods = "GET"
        headers = { x-canary = "1", x-user = { regex = "^[a-m]" } }
        query = { debug = true }
        to = "a"
        rewrite = { path = "/v2/*", set = { x-id = "${id}" }, response = { remove = "server" } }
        [route.canary]
        path = "/canary"
        to = { a = 95, b = 5 }
        sticky = "ip"
        mirror = { to = "b", share = "1%" }
        compress = true
        cors = { origins = "*" }
        [route.gone]
        path = "/gone"
        respond = { status = 410 }
        [route.moved]
        path = "/moved"
        redirect = "https://b.test${uri}"
        [route.rest]
        to = ["127.0.0.1:1"]
        [acme]
        names = "b.example"
        ca = "ca.pem"
        [listener.tls]
        bind = ":443"
        tls = { cert = "auto" }
        [kernel.class.office]
        from = "10.0.0.0/8"
        bytes = { rate = "1MiB/s", burst = "1MiB" }
        [service.dns]
        bind = ":53"
        protocol = "udp"
        to = ["10.0.0.1:53", { addr = "10.0.0.2:53", weight = 2 }]
        health = { udp = true, send = "hex:00" }
    "#;
    let config = config::parse(text, Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(fits(&config::schema(), &config::to_json(&config)), Ok(()));
    let written: toml::Table = text.parse().expect("TOML");
    assert_eq!(fits(&config::schema(), &serde_json::to_value(written).expect("JSON")), Ok(()));
    for wrong in
        [r#"{"x": 1}"#, r#"{"listener": {"a": {}}}"#, r#"{"gateway": {"workers": 0}}"#, r#"{"tracing": {}}"#]
    {
        let wrong: Value = serde_json::from_str(wrong).expect("JSON");
        assert!(fits(&config::schema(), &wrong).is_err(), "{wrong}");
    }
}
