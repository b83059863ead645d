//! Changed requests and responses, redirects and fixed answers: T2.

use lab::prelude::*;

/// `routes`: the file's routes, to the upstream `app`.
fn rig(routes: &str) -> Result<Rig> {
    Rig::start(1, |backends| {
        let app = &backends[0].addr;
        format!("[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n{routes}")
    })
}

fn ask(rig: &Rig, request: &str, fields: &str) -> Result<Response> {
    rig.ask(request, "shop.test:80", fields)
}

/// All values of a field that the backend saw.
fn seen(answer: &Response, name: &str) -> Result<Vec<String>> {
    Ok(http::echoed(&answer.json()?, name))
}

// T2
#[test]
fn paths_and_fields_are_rewritten_with_what_the_request_says() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.carts]
path = "/carts/{id}/*"
to = "app"
[route.carts.rewrite]
path = "/echo/${param.id}/in/*"
set = { x-cart = "${param.id} of ${host} from ${client.ip}", x-q = "${query.q}", host = "carts.internal", x-had = "new", x-real-ip = "${client.ip}" }
add = { x-more = "${header.x-more}-2", x-id = "${id}" }
remove = ["cookie", "server"]
response = { set = { x-by = "${method} ${path}" }, add = { x-backend = "also" } }
"#)?;
    let answer = ask(
        &rig,
        "GET /carts/4%2F2/items/7?q=a%0d%0ax-evil:%201",
        "x-had: old\r\nx-had: older\r\nx_had: odd\r\nx_cart: odd\r\nx_other: kept\r\nx-real-ip: 9.9.9.9\r\n\
         x-more: 1\r\ncookie: a=b\r\n",
    )?;
    let client = rig.net.client(1).v4();
    assert_eq!(answer.json()?["target"], "/echo/4%2F2/in/items/7?q=a%0d%0ax-evil:%201");
    assert_eq!(seen(&answer, "x-cart")?, [format!("4%2F2 of shop.test from {client}")]);
    assert_eq!(seen(&answer, "x-q")?, ["a%0d%0ax-evil:%201"]);
    assert_eq!(seen(&answer, "x-evil")?, [""; 0]);
    assert_eq!(seen(&answer, "host")?, ["carts.internal"]);
    assert_eq!(seen(&answer, "x-forwarded-host")?, ["shop.test:80"]);
    assert_eq!(seen(&answer, "x-had")?, ["new"]);
    assert_eq!(
        (seen(&answer, "x_had")?, seen(&answer, "x_cart")?),
        (vec![], vec![]),
        "as variables they are the same"
    );
    assert_eq!(seen(&answer, "x_other")?, ["kept"]);
    assert_eq!(seen(&answer, "x-real-ip")?, [client.to_string()]);
    assert_eq!(seen(&answer, "x-more")?, ["1", "1-2"]);
    assert_eq!(seen(&answer, "x-id")?, [answer.header("x-request-id").unwrap_or_default()]);
    assert_eq!(seen(&answer, "cookie")?, [""; 0]);
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-by"), Some("GET /carts/4%2F2/items/7"));
    Ok(())
}

// T2
#[test]
fn a_regular_expression_rewrites_paths_that_it_finds() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.old]
to = "app"
rewrite = { path = { regex = "^/old/([a-z.]+)/", to = "/echo/${1}/" } }
"#)?;
    assert_eq!(ask(&rig, "GET /old/shop/x?y=1", "")?.json()?["target"], "/echo/shop/x?y=1");
    assert_eq!(ask(&rig, "GET /echo/old/shop/", "")?.json()?["target"], "/echo/old/shop/");
    Ok(())
}

// T2
#[test]
fn a_rewrite_cannot_make_a_request_that_is_read_in_two_ways() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.all]
to = "app"
rewrite = { path = "/echo/${header.x-path}", set = { host = "${header.x-host}" } }
"#)?;
    let answer = ask(&rig, "GET /a", "x-path: a/b?c\r\nx-host: b.test\r\n")?;
    assert_eq!(answer.json()?["target"], "/echo/a%2Fb%3Fc");
    ask(&rig, "GET /a", "x-path: ..\r\nx-host: b.test\r\n")?.refused(400, "bad_request")?;
    ask(&rig, "GET /a", "x-path: a\r\nx-host: a b\r\n")?.refused(400, "bad_request")?;
    ask(&rig, "GET /a", "x-path: a\r\n")?.refused(400, "bad_request")
}

// T2
#[test]
fn redirects_and_fixed_answers_need_no_upstream() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.moved]
path = "/moved/*"
redirect = { to = "https://${host}/new${uri}", status = 308 }
[route.here]
path = "/here/*"
redirect = "${path}"
[route.gone]
path = "/gone"
respond = { status = 410, body = "moved to api.example.com", headers = { x-path = "${path}" } }
rewrite = { response = { set = { x-by = "gateway" } } }
[route.hi]
path = "/"
respond = { body = "<p>hi", headers = { content-type = "text/html" } }
[route.rest]
redirect = "${uri}"
"#)?;
    let moved = ask(&rig, "GET /moved/a?b=c", "")?;
    assert_eq!((moved.status, moved.header("location")), (308, Some("https://shop.test/new/moved/a?b=c")));
    assert_eq!(ask(&rig, "GET //evil.test/", "")?.header("location"), Some("/evil.test/"));
    assert_eq!(ask(&rig, "GET /here/a", "")?.status, 307);
    let gone = ask(&rig, "GET /gone", "")?;
    assert_eq!((gone.status, gone.text().as_str()), (410, "moved to api.example.com"));
    assert_eq!(gone.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!((gone.header("x-path"), gone.header("x-by")), (Some("/gone"), Some("gateway")));
    let head = ask(&rig, "HEAD /gone", "")?;
    assert_eq!((head.status, head.header("content-length")), (410, Some("24")));
    assert_eq!(ask(&rig, "GET /", "")?.header("content-type"), Some("text/html"));
    let line = rig.gateway.log_of(&gone)?;
    assert_eq!((&line["status"], &line["route"], &line["why"]), (&json!(410), &json!("gone"), &Value::Null));
    // A body that nobody reads must not be taken for the next request.
    let posted = ask(&rig, "POST /gone", "content-length: 30\r\n")?;
    assert_eq!((posted.status, posted.header("connection")), (410, Some("close")));
    Ok(())
}

/// A request with a body, and what came of it.
fn post(rig: &Rig, path: &str, fields: &str, body: &[u8]) -> Result<Response> {
    let mut client = rig.client()?;
    let length = body.len();
    client.send(format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{fields}\r\n"))?;
    client.send(body)?;
    client.response()
}

const JSON: &str = "content-type: application/json\r\n";

// T2
#[test]
fn bodies_of_requests_that_are_json_are_changed_and_framed_anew() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.all]
to = "app"
[route.all.rewrite.json]
remove = ["/role", "/items/*/cost"]
rename = { "/user/mail" = "/email", "/items/*/n" = "/items/*/count" }
set = { "/by" = "${client.ip} \"${header.x-by}\"", "/n" = 3, "/ok" = true, "/list" = { json = "[1, null]" } }
max = "1KiB"
"#)?;
    let client = rig.net.client(1).v4();
    let body = r#"{"n":1, "role":"admin","user":{"mail":"a@b","id":12345678901234567890},"items":[{"n":1.50,"cost":2}]}"#;
    let set = format!(r#""email":"a@b","by":"{client} \"x\"","list":[1, null],"ok":true}}"#);
    let expected =
        format!(r#"{{"n":3,"user":{{"id":12345678901234567890}},"items":[{{"count":1.50}}],{set}"#);
    for fields in [JSON, "content-type: application/vnd.a+json; charset=utf-8\r\n", ""] {
        let more = "x-by: x\r\ncontent-digest: sha-256=:a:\r\ncontent-md5: a\r\n";
        let answer = post(&rig, "/echo", &format!("{fields}{more}"), body.as_bytes())?;
        let echo = answer.json()?;
        assert_eq!(echo["body"], expected, "{fields}");
        assert_eq!(seen(&answer, "content-length")?, [expected.len().to_string()]);
        assert_eq!(seen(&answer, "content-digest")?.len() + seen(&answer, "content-md5")?.len(), 0);
        assert_eq!(rig.gateway.log_of(&answer)?["bytes_in"], body.len());
    }
    // In chunks, on a connection that goes on.
    let mut client = rig.client()?;
    for _ in 0..2 {
        client.send(format!("PUT /echo HTTP/1.1\r\nhost: a\r\n{JSON}transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"))?;
        client.send("2\r\n{\"\r\n7\r\nrole\":1\r\n1\r\n}\r\n0\r\n\r\n")?;
        let answer = client.response()?;
        let set: Value = serde_json::from_str(answer.json()?["body"].as_str().unwrap_or_default())?;
        assert_eq!((&set["role"], &set["n"]), (&Value::Null, &json!(3)));
        assert_eq!(seen(&answer, "transfer-encoding")?, [""; 0]);
    }
    // What is no JSON by its type is not touched, nor is what is not there.
    assert_eq!(
        post(&rig, "/echo", "content-type: text/plain\r\n", b"{\"role\":1}")?.json()?["body"],
        "{\"role\":1}"
    );
    assert_eq!(post(&rig, "/echo", JSON, b"")?.json()?["body"], "");
    assert_eq!(ask(&rig, "GET /echo", JSON)?.status, 200);
    // What cannot be changed never reaches the upstream.
    let before = rig.backends[0].stats()?.requests;
    let long = format!("[{}1]", "1,".repeat(600));
    let coded = format!("{JSON}content-encoding: gzip\r\n");
    for (fields, body, status, why) in [
        (JSON, "{\"role\":1", 400, "json"),
        (JSON, "{\"role\":1,\"role\":2}", 400, "json"),
        (JSON, "role=1", 400, "json"),
        (JSON, &long, 413, "body_too_large"),
        (&*coded, "{}", 415, "content_type"),
    ] {
        let answer = post(&rig, "/echo", fields, body.as_bytes())?;
        answer.refused(status, why).with_context(|| body.to_owned())?;
        assert_eq!(rig.gateway.log_of(&answer)?["why"], why);
    }
    assert_eq!(rig.backends[0].stats()?.requests, before);
    // What is shown is read as the same.
    let shown =
        rig.gateway.cli(&["config", "show", &rig.gateway.config().display().to_string()])?.ok()?.stdout;
    std::fs::write(rig.gateway.file("shown.toml"), &shown)?;
    let again =
        rig.gateway.cli(&["config", "show", &rig.gateway.file("shown.toml").display().to_string()])?.ok()?;
    assert_eq!(again.stdout, shown);
    Ok(())
}

// T2
#[test]
fn bodies_of_answers_that_are_json_are_changed_and_what_tells_of_them_too() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.all]
to = "app"
compress = { min = "100B" }
[route.all.rewrite.response.json]
remove = ["/secret", "/why", "/headers"]
rename = { "/a" = "/b" }
set = { "/v" = 2 }
max = "1KiB"
"#)?;
    let answer = |kind: &str, more: &str, body: &[u8]| {
        let fields = format!(
            "content-type: {kind}|etag: \"e\"|content-digest: sha-256=:a:|accept-ranges: bytes{more}"
        );
        post(&rig, "/echo-body", &format!("content-type: text/plain\r\nx-answer: {fields}\r\n"), body)
    };
    let body = b"{\"a\":1,\"secret\":2}";
    for kind in ["application/json", "application/problem+json; charset=utf-8"] {
        let answer = answer(kind, "", body)?;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"b":1,"v":2}"#));
        for (name, value) in [
            ("content-type", Some(kind)),
            ("content-length", Some("13")),
            ("etag", Some("W/\"e\"")),
            ("content-digest", None),
            ("accept-ranges", None),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
        assert_eq!(rig.gateway.log_of(&answer)?["bytes_out"], 13);
    }
    // Coded ones are decoded first.
    let gzip: &[u8] = &[
        31, 139, 8, 0, 0, 0, 0, 0, 2, 255, 171, 86, 74, 84, 178, 50, 212, 81, 42, 78, 77, 46, 74, 45, 81,
        178, 50, 170, 5, 0, 106, 9, 229, 228, 18, 0, 0, 0,
    ];
    let decoded = answer("application/json", "|content-encoding: gzip", gzip)?;
    assert_eq!((decoded.header("content-encoding"), decoded.text().as_str()), (None, r#"{"b":1,"v":2}"#));
    // Other types stay as they are.
    let plain = answer("text/plain", "", body)?;
    assert_eq!((plain.body.as_slice(), plain.header("etag")), (&body[..], Some("\"e\"")));
    // What cannot be changed does not get out.
    let long = format!("[{}1]", "1,".repeat(600));
    for (more, body) in [
        ("", &b"{\"a\":1"[..]),
        ("", b"{\"secret\":1,\"secret\":2}"),
        ("", long.as_bytes()),
        ("|content-encoding: gzip", b"{}"),
        ("|content-encoding: compress", b"{}"),
    ] {
        let refused = answer("application/json", more, body)?;
        refused.refused(502, "upstream_json")?;
        assert_eq!(rig.gateway.log_of(&refused)?["why"], "upstream_json");
    }
    // It is asked for without codings and ranges, and compressed on its way out.
    let range = "range: bytes=0-3\r\naccept-encoding: gzip\r\n";
    let echoed = ask(&rig, "GET /echo", range)?;
    assert_eq!((echoed.status, echoed.header("content-encoding")), (200, None), "{}", echoed.text());
    let coded = ask(&rig, "POST /echo", &format!("{range}content-length: 0\r\nx: {}\r\n", "x".repeat(300)))?;
    assert_eq!(coded.status, 200);
    // HEAD tells no length, as that of the upstream is another.
    let head = ask(&rig, "HEAD /echo", "")?;
    assert_eq!((head.status, head.header("content-length")), (200, None));
    // The gateway's own answers are not the upstream's.
    rig.backends[0].down()?;
    ask(&rig, "GET /echo", "")?.refused(502, "upstream_connect_refused")
}

// T2
#[test]
fn what_is_changed_for_one_client_is_not_cached_for_another_and_costs_what_the_upstream_says() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[cache.kept]
ttl = "1h"
[limit.tokens]
unit = "tokens"
rate = "10/h"
[route.cached]
path = "/usage"
methods = "GET"
to = "app"
cache = "kept"
client_cache = { etag = true }
rewrite.response.json = { set = { "/for" = "${header.x-who}" } }
[route.limited]
path = "/usage"
methods = "PUT"
to = "app"
limit = "tokens"
rewrite.response.json = { remove = "/usage" }
"#)?;
    let get = |who: &str, more: &str| ask(&rig, "GET /usage?tokens=5", &format!("x-who: {who}\r\n{more}"));
    let mut tags = BTreeSet::new();
    for who in ["ann", "bob", "\"}"] {
        for more in ["", "range: bytes=0-3\r\n"] {
            let answer = get(who, more)?;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.json()?, json!({ "usage": { "total_tokens": 5 }, "for": who }));
            let tag = answer.header("etag").context("no tag")?.to_owned();
            assert_eq!(get(who, &format!("if-none-match: {tag}\r\n"))?.status, 304);
            tags.insert(tag);
        }
    }
    assert_eq!((rig.backends[0].stats()?.requests, tags.len()), (1, 3), "{tags:?}");
    for status in [200, 200, 429] {
        let answer = ask(&rig, "PUT /usage?tokens=9", "content-length: 0\r\n")?;
        assert_eq!(answer.status, status);
        assert!(status != 200 || answer.text() == "{}", "{}", answer.text());
    }
    Ok(())
}

// T2, T4
#[test]
fn a_shadow_gets_the_body_that_the_upstream_gets() -> Result<()> {
    lab_test!();
    let rig = Rig::start(2, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{}\"\n[upstream.dark]\nto = \"{}\"\n\
             [route.all]\nto = \"app\"\nmirror = {{ to = \"dark\", compare = {{ ignore = \"/headers\" }} }}\n\
             rewrite.json = {{ set = {{ \"/by\" = \"${{id}}\" }} }}\n",
            backends[0].addr, backends[1].addr
        )
    })?;
    for _ in 0..5 {
        let answer = post(&rig, "/echo", JSON, b"{}")?;
        let id = answer.header("x-request-id").unwrap_or_default();
        assert_eq!(answer.json()?["body"], format!("{{\"by\":\"{id}\"}}"));
    }
    eventually("all are compared", || {
        let same = rig.gateway.metrics()?.sum("mirror_compared_total", &[("result", "same")]);
        Ok(same == 5.0)
    })
    .with_context(|| {
        format!("{:?}", rig.gateway.metrics().map(|m| m.by("mirror_compared_total", "result", &[])))
    })
}
