//! Which route takes a request: T1.

use lab::prelude::*;

/// `routes`: the file's routes, with `BACKENDS` as two upstreams, `one` and `two`.
fn rig(routes: &str) -> Result<Rig> {
    Rig::start(2, |backends| {
        let mut config = format!("[listener.web]\nbind = \":80\"\n{routes}\n");
        for (name, backend) in ["one", "two"].iter().zip(backends) {
            config.push_str(&format!("[upstream.{name}]\nto = \"{}\"\n", backend.addr));
        }
        config
    })
}

/// `request`: method and target.
fn ask(rig: &Rig, request: &str, fields: &str) -> Result<Response> {
    rig.ask(request, "shop.test", fields)
}

/// The log's word for the route that took a request.
fn route(rig: &Rig, request: &str, fields: &str) -> Result<String> {
    let line = rig.gateway.log_of(&ask(rig, request, fields)?)?;
    Ok(line["route"].as_str().unwrap_or("-").to_owned())
}

// T1
#[test]
fn methods_headers_and_query_choose_among_routes_of_one_path() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.plain]
to = "one"
[route.write]
methods = ["POST", "PUT"]
to = "two"
[route.canary]
headers = { x-canary = "1", cookie = { regex = "(^|; )beta=" } }
to = "two"
[route.both]
methods = ["POST"]
headers = { x-canary = "1" }
query = { debug = true }
to = "one"
"#)?;
    assert_eq!(route(&rig, "GET /a", "")?, "plain");
    assert_eq!(route(&rig, "POST /a", "content-length: 0\r\n")?, "write");
    assert_eq!(route(&rig, "GET /a", "x-canary: 1\r\n")?, "plain");
    assert_eq!(route(&rig, "GET /a", "x-canary: 1\r\ncookie: a=b; beta=1\r\n")?, "canary");
    assert_eq!(route(&rig, "POST /a?debug", "x-canary: 1\r\ncontent-length: 0\r\n")?, "both");
    assert_eq!(ask(&rig, "PUT /a", "content-length: 0\r\n")?.backend(), rig.backends[1].name);
    Ok(())
}

// T1
#[test]
fn a_method_that_no_route_of_the_path_takes_is_405_with_allow() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.items]
path = "/items/{id}"
methods = ["GET", "PUT"]
to = "one"
[route.admin]
path = "/items/*"
methods = ["DELETE"]
headers = { x-admin = true }
to = "two"
"#)?;
    let refused = ask(&rig, "POST /items/1", "content-length: 0\r\n")?;
    refused.refused(405, "method_not_allowed")?;
    assert_eq!(refused.header("allow"), Some("GET, HEAD, PUT"));
    assert_eq!(
        ask(&rig, "POST /items/1", "x-admin: 1\r\ncontent-length: 0\r\n")?.header("allow"),
        Some("DELETE, GET, HEAD, PUT")
    );
    assert_eq!(ask(&rig, "HEAD /items/1", "")?.status, 200);
    ask(&rig, "GET /else", "")?.refused(404, "no_route")
}

// S-path: what is routed by and what goes upstream is one form.
#[test]
fn a_path_is_normalised_before_routing_and_goes_upstream_in_that_form() -> Result<()> {
    lab_test!();
    let rig = rig("[route.user]\npath = \"/echo/~u/*\"\nto = \"one\"\n[route.rest]\nto = \"two\"\n")?;
    let answer = ask(&rig, "GET /%65cho/%7Eu/a%2fb%C3%bc?q=%7e", "")?;
    assert_eq!(answer.backend(), rig.backends[0].name);
    assert_eq!(answer.json()?["target"], "/echo/~u/a%2Fb%C3%BC?q=%7e");
    for path in ["/a/%2e%2e/b", "/%", "/%zz", "/a%00"] {
        ask(&rig, &format!("GET {path}"), "")?.refused(400, "bad_request")?;
    }
    Ok(())
}
