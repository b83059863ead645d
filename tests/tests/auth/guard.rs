//! What a route takes, whoever sends it: S11, S13.

use super::*;

// S11
#[test]
fn networks_are_told_by_the_address_that_is_believed() -> Result<()> {
    lab_test!();
    let rig = Rig::start(1, |backends| {
        format!(
            r#"
[listener.web]
bind = ":80"
real_ip = {{ from = ["0.0.0.0/0"], header = "x-forwarded-for" }}
[listener.plain]
bind = ":81"
[upstream.app]
to = "{}"
[route.office]
path = "/echo/office"
to = "app"
allow_from = ["192.0.2.0/24", "2001:db8::/32"]
deny_from = "192.0.2.66"
[route.all]
to = "app"
deny_from = ["198.51.100.0/24"]
"#,
            backends[0].addr
        )
    })?;
    let from = |path: &str, client: &str| {
        ask(&rig, &format!("GET {path}"), &format!("x-forwarded-for: {client}\r\n"))
    };
    for (path, client, status) in [
        ("/echo/office", "192.0.2.1", 200),
        ("/echo/office", "2001:db8::7", 200),
        ("/echo/office", "192.0.2.66", 403),
        ("/echo/office", "203.0.113.1", 403),
        ("/echo", "203.0.113.1", 200),
        ("/echo", "198.51.100.9", 403),
    ] {
        let answer = from(path, client)?;
        assert_eq!(answer.status, status, "{path} {client}");
        if status == 403 {
            answer.refused(403, "network_denied")?;
        }
    }
    // Who is not believed cannot say where it comes from.
    let mut client = Client::connect(rig.net.client(1), SocketAddr::from((VIP4, 81)))?;
    client.send("GET /echo/office HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-for: 192.0.2.1\r\n\r\n")?;
    client.response_to("GET")?.refused(403, "network_denied")
}

fn post(rig: &Rig, path: &str, fields: &str, body: &str) -> Result<Response> {
    let mut client = rig.client()?;
    let length = body.len();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nhost: shop.test\r\n{fields}content-length: {length}\r\n\r\n{body}"
    ))?;
    client.response_to("POST")
}

// S13
#[test]
fn json_is_as_deep_and_as_large_as_a_route_takes() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.api]
path = "/echo-body"
to = "app"
max = { json_depth = 4, json_items = 10 }
[route.free]
path = "/echo-body"
headers = { x-free = "1" }
to = "app"
"#)?;
    let json = "content-type: application/json\r\n";
    let api = "/echo-body";
    for good in ["{\"a\":[[[1]]]}", " [1,2,3,4,5,6,7,8,9] ", "\"text\"", ""] {
        let answer = post(&rig, api, json, good)?;
        assert_eq!((answer.status, answer.text()), (200, good.to_owned()), "{good}");
    }
    let bomb = "[".repeat(200_000);
    for bad in ["[[[[[]]]]]", "[1,2,3,4,5,6,7,8,9,10]", "{\"a\":1", "{a:1}", "[1]]", "1 2", &bomb] {
        // Its connection ends, because what is still to come of it is not read.
        post(&rig, api, json, bad)?
            .refused(400, "json")
            .with_context(|| bad[..bad.len().min(40)].to_owned())?;
        assert_eq!(rig.gateway.log_line("json", |line| line["why"] == "json")?["status"], 400);
    }
    // Cut into chunks that say nothing by themselves.
    let mut client = rig.client()?;
    client.send(format!(
        "POST {api} HTTP/1.1\r\nhost: shop.test\r\n{json}transfer-encoding: chunked\r\n\r\n"
    ))?;
    for chunk in ["1\r\n[\r\n", "2\r\n[[\r\n", "2\r\n[[\r\n"] {
        client.send(chunk)?;
    }
    client.response()?.refused(400, "json")?;
    // What has no type may be taken for it; what has another is another route's business (`content_types`).
    post(&rig, api, "", "[[[[[]]]]]")?.refused(400, "json")?;
    assert_eq!(post(&rig, api, "content-type: text/plain\r\n", "[[[[[]]]]]")?.status, 200);
    post(&rig, api, &format!("{json}content-encoding: gzip\r\n"), "x")?.refused(415, "content_type")?;
    assert_eq!(
        post(&rig, api, &format!("{json}x-free: 1\r\n"), "[[[[[")?.status,
        200,
        "the other route does not look"
    );
    // Nothing that was refused came to the upstream whole.
    let whole = rig.backends[0].stats()?.requests;
    assert!(rig.gateway.metrics()?.sum("http_errors_total", &[("reason", "json")]) >= 9.0 && whole > 0);
    Ok(())
}

// S14
#[test]
fn pages_of_other_sites_change_nothing() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.shop]
to = "app"
csrf = { origins = "https://app.test" }
upgrade = "websocket"
security_headers = { csp = "default-src 'self'" }
[route.page]
path = "/echo/page"
to = "app"
security_headers = true
rewrite.response.set = { x-frame-options = "SAMEORIGIN" }
"#)?;
    for (fields, status) in [
        ("", 200),
        ("sec-fetch-site: same-origin\r\norigin: https://shop.test\r\n", 200),
        ("sec-fetch-site: cross-site\r\norigin: https://app.test\r\n", 200),
        ("origin: https://shop.test\r\n", 200),
        ("sec-fetch-site: cross-site\r\norigin: https://evil.test\r\n", 403),
        ("sec-fetch-site: same-site\r\n", 403),
        ("origin: https://evil.test\r\n", 403),
        ("origin: null\r\n", 403),
    ] {
        let answer = post(&rig, "/echo-body", fields, "x")?;
        assert_eq!(answer.status, status, "{fields}");
        if status == 403 {
            answer.refused(403, "cross_site")?;
        }
        assert_eq!(ask(&rig, "GET /echo", fields)?.status, 200, "{fields}");
    }
    // A WebSocket is opened by a GET, with the user's cookies.
    let socket = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                  sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\norigin: https://evil.test\r\n";
    ask(&rig, "GET /ws", socket)?.refused(403, "cross_site")?;
    let answer = ask(&rig, "GET /echo", "")?;
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("content-security-policy", "default-src 'self'"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let page = ask(&rig, "GET /echo/page", "")?;
    assert_eq!(
        (page.header("x-frame-options"), page.header("content-security-policy")),
        (Some("SAMEORIGIN"), None)
    );
    Ok(())
}

// S13
#[test]
fn a_route_takes_less_than_its_listener() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.all]
to = "app"
max = { header = "1KiB", body = "10B" }
content_types = ["application/json", "text/*", "*+json"]
encoded_slash = "refuse"
"#)?;
    let post = |fields: &str, body: &str| post(&rig, "/echo-body", fields, body);
    for (kind, status) in [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 200),
        ("application/problem+json", 200),
        ("application/xml", 415),
        ("application/jsonp", 415),
        ("texts/plain", 415),
    ] {
        assert_eq!(post(&format!("content-type: {kind}\r\n"), "{}")?.status, status, "{kind}");
    }
    post("", "{}")?.refused(415, "content_type")?;
    post("content-type: text/plain\r\ncontent-type: text/plain\r\n", "{}")?.refused(415, "content_type")?;
    assert_eq!(ask(&rig, "GET /echo", "")?.status, 200);
    post("content-type: text/plain\r\n", "0123456789a")?.refused(413, "body_too_large")?;
    let chunked = "content-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n";
    ask(&rig, "POST /echo-body", chunked)?.refused(413, "body_too_large")?;
    ask(&rig, "GET /echo", &format!("x-long: {}\r\n", "x".repeat(1000)))?.refused(431, "header_too_large")?;
    for path in ["/echo/a%2Fb", "/echo/a%2f..%2fb", "/echo/a%5cb"] {
        ask(&rig, &format!("GET {path}"), "")?.refused(400, "bad_request")?;
    }
    assert_eq!(ask(&rig, "GET /echo/a%20b?x=%2F", "")?.status, 200);
    Ok(())
}
