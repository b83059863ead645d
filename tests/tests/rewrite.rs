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
        "x-had: old\r\nx-had: older\r\nx-real-ip: 9.9.9.9\r\nx-more: 1\r\ncookie: a=b\r\n",
    )?;
    let client = rig.net.client(1).v4();
    assert_eq!(answer.json()?["target"], "/echo/4%2F2/in/items/7?q=a%0d%0ax-evil:%201");
    assert_eq!(seen(&answer, "x-cart")?, [format!("4%2F2 of shop.test from {client}")]);
    assert_eq!(seen(&answer, "x-q")?, ["a%0d%0ax-evil:%201"]);
    assert_eq!(seen(&answer, "x-evil")?, [""; 0]);
    assert_eq!(seen(&answer, "host")?, ["carts.internal"]);
    assert_eq!(seen(&answer, "x-forwarded-host")?, ["shop.test:80"]);
    assert_eq!(seen(&answer, "x-had")?, ["new"]);
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
