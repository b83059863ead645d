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
    let post = |fields: &str, body: &str| {
        let length = body.len();
        ask(
            &rig,
            "POST /echo-body",
            &format!("{fields}content-length: {length}\r\n\r\n{body}").replace("\r\n\r\n\r\n", "\r\n\r\n"),
        )
    };
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
