//! API keys: S1, S7.

use super::*;

fn config() -> String {
    format!(
        r#"
[auth.key]
type = "api-key"
from = ["header:x-api-key", "query:api_key", "bearer", "cookie:key"]
[auth.kept]
type = "api-key"
keep = true
[consumer.acme]
tier = "gold"
grant = ["items:read", "items:write"]
keys = [
  {{ id = "k1", hash = "{}" }},
  {{ id = "k2", hash = "{}", until = 2020-01-01 }},
]
[consumer.small]
keys = [{{ id = "k1", hash = "{}" }}]
[route.items]
path = "/echo/items/*"
to = "app"
auth = "key"
rewrite.set = {{ x-consumer = "${{consumer.id}}", x-tier = "${{consumer.tier}}", x-leak = "${{header.x-api-key}}" }}
[route.write]
path = "/echo/write"
to = "app"
auth = "key"
allow = {{ GET = [], POST = ["items:write"], PUT = ["all", "items:write", "tier:silver"] }}
[route.kept]
path = "/echo/kept"
to = "app"
auth = ["kept"]
[route.open]
path = "/echo/open"
to = "app"
[route.page]
path = "/echo/page"
to = "app"
auth = "key"
cors = {{ origins = ["https://app.test"], headers = ["x-api-key"] }}
"#,
        hash("acme-key"),
        hash("old-key"),
        hash("small-key"),
    )
}

// S1
#[test]
fn a_key_says_who_calls_wherever_it_is_and_is_taken_out() -> Result<()> {
    lab_test!();
    let rig = rig(&config())?;
    for (target, fields) in [
        ("/echo/items/1?a=b", "x-api-key: acme-key\r\n"),
        ("/echo/items/1?api_key=acme-key&a=b", ""),
        ("/echo/items/1?a=b&api%5Fkey=acme%2Dkey", ""),
        ("/echo/items/1?a=b", "authorization: Bearer acme-key\r\n"),
        ("/echo/items/1?a=b", "cookie: x=y; key=acme-key\r\n"),
    ] {
        // What a client says of itself does not count.
        let forged = "x-consumer: small\r\nx-tier: platinum\r\nconnection: x-consumer\r\n";
        let answer = ask(&rig, &format!("GET {target}"), &format!("{fields}{forged}"))?;
        assert_eq!(answer.status, 200, "{target} {fields}");
        let echo = answer.json()?;
        assert_eq!(echo["target"], "/echo/items/1?a=b");
        assert!(!echo.to_string().contains("acme-key") && !echo.to_string().contains("acme%2Dkey"), "{echo}");
        assert_eq!(seen(&answer, "x-consumer")?, ["acme"]);
        assert_eq!(seen(&answer, "x-tier")?, ["gold"]);
        let line = rig.gateway.log_of(&answer)?;
        assert_eq!(line["consumer"], "acme");
        assert!(!line.to_string().contains("acme-key") && !line.to_string().contains("2Dkey"), "{line}");
    }
    let small = ask(&rig, "GET /echo/items/1", "x-api-key: small-key\r\nx-tier: gold\r\n")?;
    assert_eq!(
        (seen(&small, "x-consumer")?, seen(&small, "x-tier")?),
        (vec!["small".into()], vec![String::new()])
    );
    let kept = ask(&rig, "GET /echo/kept", "x-api-key: acme-key\r\n")?;
    assert_eq!(seen(&kept, "x-api-key")?, ["acme-key"]);
    let open = ask(&rig, "GET /echo/open", "x-api-key: whatever\r\n")?;
    assert_eq!(seen(&open, "x-api-key")?, ["whatever"]);
    assert!(rig.gateway.log_of(&open)?.get("consumer").is_none());
    Ok(())
}

// S1
#[test]
fn who_does_not_prove_it_is_refused_and_counted() -> Result<()> {
    lab_test!();
    let rig = rig(&config())?;
    let long = "k".repeat(600);
    for (result, target, fields) in [
        ("missing", "/echo/items/1", String::new()),
        ("missing", "/echo/items/1?key=acme-key", "authorization: Basic acme-key\r\n".into()),
        ("unknown", "/echo/items/1", "x-api-key: Acme-key\r\n".into()),
        ("unknown", "/echo/items/1?api_key=nobodys-secret", String::new()),
        // The hash is no key.
        ("unknown", "/echo/items/1", format!("x-api-key: {}\r\n", hash("acme-key"))),
        ("expired", "/echo/items/1", "x-api-key: old-key\r\n".into()),
        ("malformed", "/echo/items/1", "x-api-key:\r\n".into()),
        ("malformed", "/echo/items/1", format!("x-api-key: {long}\r\n")),
        // Two of them at once.
        ("malformed", "/echo/items/1", "x-api-key: acme-key\r\nx-api-key: acme-key\r\n".into()),
        ("malformed", "/echo/items/1?api_key=acme-key&api_key=x", String::new()),
        // A wrong one in the first place, and a right one in another.
        ("unknown", "/echo/items/1?api_key=acme-key", "x-api-key: wrong\r\n".into()),
    ] {
        let before = counted(&rig, "key", result)?;
        let answer = ask(&rig, &format!("GET {target}"), &fields)?;
        answer.refused(401, "unauthorized")?;
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        match result {
            "missing" => assert_eq!(challenge, "Bearer realm=\"gateway\""),
            _ => assert_eq!(challenge, "Bearer realm=\"gateway\", error=\"invalid_token\""),
        }
        assert_eq!(counted(&rig, "key", result)?, before + 1.0, "{result} {target} {fields}");
        let line = rig.gateway.log_of(&answer)?;
        assert_eq!(line["why"], "unauthorized");
        assert!(!line.to_string().contains("secret"), "{line}");
    }
    let kept = ask(&rig, "GET /echo/kept", "")?;
    assert_eq!(kept.header("www-authenticate"), Some("ApiKey realm=\"gateway\""));
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    Ok(())
}

// S7
#[test]
fn what_is_not_allowed_to_a_caller_by_method_is_forbidden() -> Result<()> {
    lab_test!();
    let rig = rig(&config())?;
    for (method, key, status) in [
        ("GET", "small-key", 200),
        ("HEAD", "small-key", 200),
        ("POST", "small-key", 403),
        ("POST", "acme-key", 200),
        ("PUT", "acme-key", 403),
        ("DELETE", "acme-key", 403),
    ] {
        let fields = format!("x-api-key: {key}\r\ncontent-length: 0\r\n");
        let answer = ask(&rig, &format!("{method} /echo/write"), &fields)?;
        assert_eq!(answer.status, status, "{method} {key}");
        if status == 403 {
            answer.refused(403, "forbidden")?;
            assert!(!answer.text().contains("items:write") && answer.header("www-authenticate").is_none());
        }
    }
    let metrics = rig.gateway.metrics()?;
    assert_eq!(metrics.sum("http_errors_total", &[("route", "write"), ("reason", "forbidden")]), 3.0);
    Ok(())
}

// S14
#[test]
fn a_preflight_needs_no_key_and_a_page_may_read_why_it_was_refused() -> Result<()> {
    lab_test!();
    let rig = rig(&config())?;
    let origin = "origin: https://app.test\r\n";
    let wanted = "access-control-request-method: GET\r\naccess-control-request-headers: x-api-key\r\n";
    assert_eq!(ask(&rig, "OPTIONS /echo/page", &format!("{origin}{wanted}"))?.status, 204);
    let refused = ask(&rig, "GET /echo/page", origin)?;
    refused.refused(401, "unauthorized")?;
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.test"));
    // What only looks like one is asked like any other.
    ask(&rig, "OPTIONS /echo/page", origin)?.refused(401, "unauthorized")
}

// S1, O1
#[test]
fn a_reload_takes_a_key_away_and_a_connection_that_stays_open_knows() -> Result<()> {
    lab_test!();
    let rig = rig(&config())?;
    let mut client = rig.client()?;
    let request = "GET /echo/items/1 HTTP/1.1\r\nhost: shop.test\r\nx-api-key: small-key\r\n\r\n";
    client.send(request)?;
    assert_eq!(client.response_to("GET")?.status, 200);
    let app = &rig.backends[0].addr;
    let config = config().replace(&hash("small-key"), &hash("other-key"));
    rig.gateway
        .write(&format!("[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n{config}"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    client.send(request)?;
    client.response_to("GET")?.refused(401, "unauthorized")?;
    assert_eq!(counted(&rig, "key", "ok")?, 1.0);
    Ok(())
}
