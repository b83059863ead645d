use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::{config, route::Asked};

const ALL: &str = r#""path", "header:api-version", "accept", "query:v", "host""#;

fn chooser(keys: &str, versions: &[&str]) -> Chooser {
    let mut text = format!(
        "[listener.a]\nbind = \":80\"\n[route.a]\nhost = \"api.test\"\npath = \"/items/*\"\nto = [\"10.0.0.1:1\"]\n[route.a.version]\n{keys}\n"
    );
    for version in versions {
        text.push_str(&format!("[route.a.version.\"{version}\"]\n"));
    }
    let config = config::parse(&text, Path::new("x.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    Chooser::new(config.routes["a"].versions.as_deref().unwrap())
}

/// `fields`: `name: value`, one a line.
fn choose(chooser: &Chooser, host: &str, target: &str, fields: &str) -> Result<String, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields.lines().filter_map(|line| line.split_once(": ")) {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let asked = Asked { host, path, method: &Method::GET, headers: &headers, query };
    match chooser.choose(&asked) {
        Ok(picked) => Ok(chooser.name(picked.version).to_owned()),
        Err(Refused::Required) => Err("required".into()),
        Err(Refused::Unknown { by }) => Err(format!("unknown {}", chooser.source(by))),
        Err(Refused::Conflict { one, two }) => {
            Err(format!("conflict {} {}", chooser.source(one), chooser.source(two)))
        }
    }
}

#[test]
fn every_source_names_a_version_and_the_default_is_for_those_that_name_none() {
    let chooser = chooser(
        &format!("from = [{ALL}]\ndefault = \"v2\"\naliases = {{ latest = \"v3\" }}"),
        &["v1", "v2", "v3", "beta"],
    );
    let ask = |host: &str, target: &str, fields: &str| choose(&chooser, host, target, fields);
    for (host, target, fields, found) in [
        ("api.test", "/items/7", "", Ok("v2")),
        ("api.test", "/v1/items/7", "", Ok("v1")),
        ("api.test", "/V1/items/7", "", Ok("v1")),
        ("api.test", "/latest/items", "", Ok("v3")),
        ("api.test", "/beta/items", "", Ok("beta")),
        ("api.test", "/items/7", "api-version: 1", Ok("v1")),
        ("api.test", "/items/7", "api-version:  V1 ", Ok("v1")),
        ("api.test", "/items/7", "api-version: ", Ok("v2")),
        ("api.test", "/items/7", "api-version: Latest", Ok("v3")),
        ("api.test", "/items/7", "accept: application/json;version=3", Ok("v3")),
        ("api.test", "/items/7", "accept: application/vnd.acme.v1+json", Ok("v1")),
        ("api.test", "/items/7", "accept: a/b;version=9, a/b;version=1;q=0.1", Ok("v1")),
        ("api.test", "/items/7", "accept: a/b;version=1;q=0.5, a/b;version=3;q=0.9", Ok("v3")),
        ("api.test", "/items/7", "accept: a/b;version=9", Err("unknown accept")),
        ("api.test", "/items/7", "accept: */*", Ok("v2")),
        ("api.test", "/items/7?a=1&v=3", "", Ok("v3")),
        ("api.test", "/items/7?v=", "", Ok("v2")),
        ("v1.api.test", "/items/7", "", Ok("v1")),
        ("beta.api.test:8080", "/items/7", "", Ok("beta")),
        ("v9.api.test", "/items/7", "", Err("unknown host")),
        ("api.test", "/v9/items/7", "", Err("unknown path")),
        ("api.test", "/items/7", "api-version: nine", Err("unknown header:api-version")),
        ("api.test", "/items/7", "api-version: 1\napi-version: v1", Ok("v1")),
        (
            "api.test",
            "/items/7",
            "api-version: 1\napi-version: 2",
            Err("conflict header:api-version header:api-version"),
        ),
        ("api.test", "/items/7?v=1&v=2", "", Err("conflict query:v query:v")),
        ("api.test", "/v1/items/7?v=1", "api-version: v1", Ok("v1")),
        ("api.test", "/v1/items/7", "api-version: 2", Err("conflict path header:api-version")),
        ("api.test", "/v1/items/7", "api-version: 9", Err("conflict path header:api-version")),
        ("v2.api.test", "/items/7?v=1", "", Err("conflict query:v host")),
    ] {
        let found = found.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(ask(host, target, fields), found, "{host} {target} {fields}");
    }
}

#[test]
fn the_first_source_counts_where_it_is_told_so_and_no_default_is_a_demand() {
    let chooser =
        chooser("from = [\"header:api-version\", \"path\"]\non_conflict = \"first\"", &["v1", "v2"]);
    assert_eq!(choose(&chooser, "api.test", "/v1/items", "api-version: 2"), Ok("v2".into()));
    assert_eq!(
        choose(&chooser, "api.test", "/v1/items", "api-version: 9"),
        Err("unknown header:api-version".into())
    );
    assert_eq!(choose(&chooser, "api.test", "/v1/items", ""), Ok("v1".into()));
    assert_eq!(choose(&chooser, "api.test", "/items", ""), Err("required".into()));
}

#[test]
fn dates_and_ranges_pick_the_newest_that_fits() {
    let dates = chooser("from = [\"header:api-version\"]", &["2025-01-15", "2026-06-01"]);
    for (asked, found) in [
        ("2026-06-01", Ok("2026-06-01")),
        ("2026-05-31", Ok("2025-01-15")),
        ("2030-01-01", Ok("2026-06-01")),
        ("2025-01-14", Err("unknown header:api-version")),
        ("2026", Err("unknown header:api-version")),
    ] {
        let found = found.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(choose(&dates, "api.test", "/items", &format!("api-version: {asked}")), found);
    }
    let numbers = chooser("from = [\"header:api-version\", \"path\"]", &["1.2.0", "1.4.1", "2.0.0"]);
    assert_eq!(choose(&numbers, "api.test", "/items", "api-version: ^1.2"), Ok("1.4.1".into()));
    assert_eq!(choose(&numbers, "api.test", "/1/items", ""), Ok("1.4.1".into()));
    assert_eq!(choose(&numbers, "api.test", "/v1.2/items", ""), Ok("1.2.0".into()));
}

#[test]
fn a_path_with_a_version_matches_the_route_and_one_that_only_looks_so_does_not() {
    let chooser = chooser("from = [\"path\"]\ndefault = \"v1\"", &["v1"]);
    // As the router would have it, these are not in the form that has a version.
    for path in ["/items/v9", "/2/items", "/v/items", "/vitems/items", "/v9", "/v9/other/7"] {
        assert_eq!(choose(&chooser, "api.test", path, ""), Ok("v1".into()), "{path}");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        "[vV^~]?[0-9]{1,3}(\\.[0-9]{1,2}){0,3}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        "(v1|v2|latest|beta|application/vnd\\.a\\.v[0-9]+\\+json|a/b;version=[0-9];q=0\\.[0-9])",
    ]
}

proptest! {
    #[test]
    fn selection_is_total_and_deterministic(
        segment in "[!-~&&[^/?#]]{0,12}|v[0-9]{1,2}|latest",
        host in "[a-z0-9.:-]{0,20}|v[0-9]\\.api\\.test",
        query in "[!-~]{0,30}|v=[!-~]{0,8}(&v=[0-9])?",
        version in text(),
        accept in text(),
        first in any::<bool>(),
        default in any::<bool>(),
    ) {
        let keys = format!(
            "from = [{ALL}]\naliases = {{ latest = \"2026-06-01\" }}\non_conflict = \"{}\"\n{}",
            if first { "first" } else { "refuse" },
            if default { "default = \"v1\"" } else { "" },
        );
        let chooser = chooser(&keys, &["v1", "v2", "1.5", "2026-06-01", "beta"]);
        let mut headers = HeaderMap::new();
        headers.insert("api-version", HeaderValue::from_str(&version).unwrap());
        headers.insert("accept", HeaderValue::from_str(&accept).unwrap());
        let path = format!("/{segment}/items/7");
        let asked = Asked { host: &host, path: &path, method: &Method::GET, headers: &headers, query: Some(&query) };
        let once = chooser.choose(&asked);
        prop_assert_eq!(once, chooser.choose(&asked));
        match once {
            Ok(picked) => {
                prop_assert!(usize::from(picked.version) < chooser.names().count());
                prop_assert!(picked.by.is_some() || default);
                if picked.in_path {
                    prop_assert_eq!(path_without(&path, chooser.segment), "/items/7");
                }
            }
            Err(Refused::Required) => prop_assert!(!default),
            Err(Refused::Unknown { by }) => prop_assert!(!chooser.shown(by, &asked).is_empty()),
            Err(Refused::Conflict { one, two }) => prop_assert!(one <= two),
        }
    }
}
