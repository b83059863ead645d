use http::HeaderValue;

use super::*;

fn map(remove: &[&str], rename: &[(&str, &str)], set: &[(&str, JsonSet)]) -> Arc<Map> {
    Arc::new(Map::new(&model::JsonMap {
        remove: remove.iter().map(|pointer| (*pointer).to_owned()).collect(),
        rename: rename.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect(),
        set: set.iter().map(|(pointer, value)| ((*pointer).to_owned(), value.clone())).collect(),
        max: 1 << 20,
    }))
}

fn json(text: &str) -> JsonSet {
    JsonSet::Json(text.into())
}

fn text(text: &str) -> JsonSet {
    JsonSet::Text(Template::parse(text).unwrap())
}

fn changed(map: &Arc<Map>, body: &str) -> Result<String, Refused> {
    let head = http::Request::get("/a?b=%22").header("x-q", "say \"\\\"").body(()).unwrap().into_parts().0;
    let (client, id) = (HeaderValue::from_static("192.0.2.1"), HeaderValue::from_static("7"));
    let context = Context { head: &head, client: &client, id: &id, scheme: "http", caller: None };
    map.fill(&context).apply(body.as_bytes()).map(|body| String::from_utf8(body).unwrap())
}

#[test]
fn members_are_taken_out_wherever_the_pointer_leads() {
    let map = map(&["/secret", "/items/*/cost", "/list/1", "/a~1b/~0", "/gone/*"], &[], &[]);
    for (body, expected) in [
        (r#"{"a":1,"secret":{"x":[1]},"b":2}"#, r#"{"a":1,"b":2}"#),
        (r#" { "secret" : "}" } "#, "{}"),
        (r#"{"\u0073ecret":1,"b":1e400}"#, r#"{"b":1e400}"#),
        (
            r#"{"items":[{"cost":1,"id":12345678901234567890},{"id":-0.0}]}"#,
            r#"{"items":[{"id":12345678901234567890},{"id":-0.0}]}"#,
        ),
        (r#"{"items":{"x":{"cost":1}}}"#, r#"{"items":{"x":{}}}"#),
        (r#"{"list":[1, 2 ,3]}"#, r#"{"list":[1,3]}"#),
        (r#"{"list":[1]}"#, r#"{"list":[1]}"#),
        (r#"{"a/b":{"~":1,"c":2}}"#, r#"{"a/b":{"c":2}}"#),
        (r#"{"gone":{"a":1,"a":2}}"#, r#"{"gone":{}}"#),
        ("[1]", "[1]"),
        ("7", "7"),
        (r#""secret""#, r#""secret""#),
    ] {
        assert_eq!(changed(&map, body).as_deref(), Ok(expected), "{body}");
    }
}

#[test]
fn members_are_renamed_in_their_place_and_moved_elsewhere() {
    let renames = [
        ("/old", "/new"),
        ("/user/name", "/name"),
        ("/items/*/n", "/items/*/count"),
        ("/items/*/u", "/items/*/unit/short"),
        ("/wrap", "/wrap/in"),
        ("/unwrap/in", "/unwrap"),
    ];
    let map = map(&[], &renames, &[]);
    for (body, expected) in [
        (r#"{"a":1,"old":[1, 2],"b":2}"#, r#"{"a":1,"new":[1, 2],"b":2}"#),
        (r#"{"new":0,"old":1}"#, r#"{"new":1}"#),
        (r#"{"user":{"name":"n","id":1}}"#, r#"{"user":{"id":1},"name":"n"}"#),
        (r#"{"items":[{"n":1},{},{"u":"kg"}]}"#, r#"{"items":[{"count":1},{},{"unit":{"short":"kg"}}]}"#),
        // There is no room for it: nothing is lost.
        (r#"{"items":[{"u":"kg","unit":3}]}"#, r#"{"items":[{"unit":3,"u":"kg"}]}"#),
        (r#"{"wrap":1}"#, r#"{"wrap":{"in":1}}"#),
        (r#"{"unwrap":{"in":{"x":1},"y":2}}"#, r#"{"unwrap":{"x":1}}"#),
        ("{}", "{}"),
    ] {
        assert_eq!(changed(&map, body).as_deref(), Ok(expected), "{body}");
    }
}

#[test]
fn members_are_set_with_what_the_request_says_as_texts() {
    let sets = [
        ("/by", text("${client.ip}")),
        ("/deep/er/id", json("7")),
        ("/items/*/vat", json("true")),
        ("/q", text("${header.x-q}${query.b}")),
        ("/tags/-", text("edge")),
        ("/tags/0", json("[{}]")),
    ];
    let map = map(&[], &[], &sets);
    assert!(map.varies());
    for (body, expected) in [
        ("{}", r#"{"by":"192.0.2.1","deep":{"er":{"id":7}},"q":"say \"\\\"%22","tags":[[{}]]}"#),
        (
            r#"{"by":{"forged":1},"items":[{"vat":null},3,{}],"tags":["a"],"deep":[]}"#,
            r#"{"by":"192.0.2.1","items":[{"vat":true},3,{"vat":true}],"tags":[[{}],"edge"],"deep":[],"q":"say \"\\\"%22"}"#,
        ),
        // No object, no members.
        ("[]", "[]"),
        ("null", "null"),
    ] {
        assert_eq!(changed(&map, body).as_deref(), Ok(expected), "{body}");
    }
}

#[test]
fn what_is_taken_out_comes_before_what_is_renamed_and_that_before_what_is_set() {
    let map =
        map(&["/a"], &[("/b", "/a")], &[("/a/c", json("1")), ("/b", json("{\"x\":1}")), ("/b/y", json("2"))]);
    assert_eq!(changed(&map, r#"{"a":0,"b":{"d":3}}"#).unwrap(), r#"{"a":{"d":3,"c":1},"b":{"x":1,"y":2}}"#);
    assert!(!map.varies());
}

#[test]
fn what_readers_take_differently_is_refused() {
    let map = map(&["/role"], &[], &[("/by/id", json("1"))]);
    for body in [
        "",
        "{",
        "{}x",
        r#"{"role":1,"role":2}"#,
        r#"{"role":1,"\u0072ole":2}"#,
        r#"{"by":{"id":1,"id":2}}"#,
        "{'role':1}",
        "{\"a\":\"\u{1}\"}",
    ] {
        assert_eq!(changed(&map, body), Err(Refused), "{body}");
    }
    let not_utf8 = map.fill(&Context {
        head: &http::Request::get("/").body(()).unwrap().into_parts().0,
        client: &HeaderValue::from_static("a"),
        id: &HeaderValue::from_static("7"),
        scheme: "http",
        caller: None,
    });
    assert_eq!(not_utf8.apply(b"{\"a\":\"\xff\"}"), Err(Refused));
    assert_eq!(not_utf8.apply(&[b"[".repeat(600), b"]".repeat(600)].concat()), Err(Refused));
    // What nobody looks at may be there twice.
    assert_eq!(changed(&map, r#"{"x":1,"x":2}"#).as_deref(), Ok(r#"{"x":1,"x":2,"by":{"id":1}}"#));
}
