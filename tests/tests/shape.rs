//! Compressed answers and cross-origin rules: P10 and S14.

use lab::{prelude::*, tools};

/// `routes` lead to the upstream `app`.
fn rig(routes: &str) -> Result<Rig> {
    Rig::start(1, |backends| {
        let app = &backends[0].addr;
        format!("[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n{routes}")
    })
}

fn ask(rig: &Rig, request: &str, fields: &str) -> Result<Response> {
    rig.ask(request, "a", fields)
}

/// What curl makes of it, which takes the coding apart by itrig.
fn curl(rig: &Rig, path: &str, coding: &str) -> Result<String> {
    let url = format!("http://{}{path}", rig.gateway.at4());
    let accept = format!("accept-encoding: {coding}");
    rig.net.client(1).namespace.output("curl", &["-sSf", "--compressed", "-H", &accept, &url])
}

const COMPRESS: &str = "[route.all]\nto = \"app\"\ncompress = true\n";

fn vary(answer: &Response) -> &str {
    answer.header("vary").unwrap_or_default()
}

// P10
#[test]
fn answers_are_compressed_as_the_client_weighs_it_and_curl_reads_them() -> Result<()> {
    lab_test!();
    if tools::missing("curl") {
        return Ok(());
    }
    let rig = rig(COMPRESS)?;
    let plain = ask(&rig, "GET /text?bytes=200000", "")?;
    assert_eq!((plain.header("content-encoding"), vary(&plain)), (None, "accept-encoding"));
    assert_eq!((plain.text().len(), plain.header("etag")), (200_000, Some("\"v1\"")));
    for (accept, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br, zstd", "zstd"),
        ("gzip;q=0.9, br;q=0.1", "gzip"),
    ] {
        let answer = ask(&rig, "GET /text?bytes=200000", &format!("accept-encoding: {accept}\r\n"))?;
        assert_eq!(answer.header("content-encoding"), Some(coding), "{accept}");
        assert_eq!((answer.header("etag"), vary(&answer)), (Some("W/\"v1\""), "accept-encoding"), "{accept}");
        assert!(answer.body.len() < 20_000, "{accept}: {} bytes", answer.body.len());
        assert_eq!(curl(&rig, "/text?bytes=200000", accept)?, plain.text(), "{accept}");
        // The log tells what went over the wire.
        let line = rig.gateway.log_of(&answer)?;
        assert_eq!(line["bytes_out"], json!(answer.body.len()), "{line}");
    }
    Ok(())
}

// P10
#[test]
fn what_must_not_or_need_not_be_compressed_is_left_alone() -> Result<()> {
    lab_test!();
    let rig = rig(&format!(
        "{COMPRESS}[route.coded]\npath = \"/text/coded\"\nto = \"app\"\ncompress = true\nrewrite = {{ path = \"/text\", response = {{ set = {{ content-encoding = \"br\" }} }} }}\n"
    ))?;
    for path in [
        "/text?bytes=1000",
        "/text?no-transform=1",
        "/big?bytes=5000",
        "/status/204",
        "/status/304",
        "/text/coded",
    ] {
        let answer = ask(&rig, &format!("GET {path}"), "accept-encoding: gzip\r\n")?;
        assert_ne!(answer.header("content-encoding"), Some("gzip"), "{path}");
        assert_ne!(answer.header("etag"), Some("W/\"v1\""), "{path}");
    }
    let unwanted = ask(&rig, "GET /text", "accept-encoding: gzip\r\ncache-control: no-transform\r\n")?;
    assert_eq!(unwanted.header("content-encoding"), None);
    let head = ask(&rig, "HEAD /text", "accept-encoding: gzip\r\n")?;
    assert_eq!((head.header("content-encoding"), head.header("content-length")), (Some("gzip"), None));
    assert_eq!(ask(&rig, "HEAD /text", "")?.header("content-length"), Some("10000"));
    Ok(())
}

// P10
#[test]
fn a_compressed_stream_passes_each_event_at_once() -> Result<()> {
    lab_test!();
    let rig = rig(COMPRESS)?;
    for coding in ["gzip", "br", "zstd"] {
        let mut client = rig.client()?;
        let start = Instant::now();
        client
            .send(format!("GET /sse?n=3&ms=1500 HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n"))?;
        assert_eq!(client.head()?.header("content-encoding"), Some(coding));
        let first = client.chunk()?.unwrap_or_default();
        assert!(
            !first.is_empty() && start.elapsed() < Duration::from_millis(1200),
            "{coding}: {:?}",
            start.elapsed()
        );
    }
    Ok(())
}

// P10
#[test]
fn connections_are_kept_after_compressed_answers() -> Result<()> {
    lab_test!();
    let rig = rig(COMPRESS)?;
    let mut client = rig.client()?;
    for _ in 0..3 {
        client.send("GET /text HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n")?;
        assert_eq!(client.response()?.header("content-encoding"), Some("gzip"));
    }
    assert_eq!(rig.backends[0].stats()?.connections, 1);
    Ok(())
}

const CORS: &str = r#"
[route.api]
path = "/text"
methods = ["GET", "PUT"]
to = "app"
[route.api.cors]
origins = ["https://app.test", "https://*.app.test"]
methods = ["GET", "PUT"]
headers = ["x-token", "content-type"]
expose = ["x-backend"]
credentials = true
max_age = "1h"
[route.open]
path = "/echo"
to = "app"
cors = { origins = "*", headers = "*" }
"#;

// S14
#[test]
fn preflights_are_answered_here_and_for_allowed_origins_only() -> Result<()> {
    lab_test!();
    let rig = rig(CORS)?;
    let preflight = |path: &str, origin: &str| {
        let asks = "access-control-request-method: PUT\r\naccess-control-request-headers: x-token\r\n";
        ask(&rig, &format!("OPTIONS {path}"), &format!("origin: {origin}\r\n{asks}"))
    };
    let allowed = preflight("/text", "https://app.test")?;
    assert_eq!(allowed.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.test"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-token, content-type"),
        ("access-control-max-age", "3600"),
    ] {
        assert_eq!(allowed.header(name), Some(value), "{name}");
    }
    assert!(vary(&allowed).contains("origin"), "{allowed:?}");
    assert_eq!(
        preflight("/text", "https://b.app.test")?.header("access-control-allow-origin"),
        Some("https://b.app.test")
    );
    for evil in
        ["https://evil.test", "http://app.test", "https://app.test.evil.test", "https://evilapp.test", "null"]
    {
        let refused = preflight("/text", evil)?;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (204, None), "{evil}");
        assert_eq!(refused.header("access-control-allow-methods"), None, "{evil}");
    }
    let open = preflight("/echo", "null")?;
    assert_eq!(open.header("access-control-allow-origin"), Some("*"));
    assert_eq!(open.header("access-control-allow-headers"), Some("x-token"));
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    // Another OPTIONS is the backend's, where the route takes it.
    assert_eq!(ask(&rig, "OPTIONS /echo", "")?.json()?["method"], "OPTIONS");
    ask(&rig, "OPTIONS /text", "")?.refused(405, "method_not_allowed")
}

// S14
#[test]
fn answers_tell_pages_of_allowed_origins_alone_and_not_what_the_backend_says() -> Result<()> {
    lab_test!();
    let rig = rig(CORS)?;
    let ask = |fields: &str| ask(&rig, "GET /text", fields);
    let answer = ask("origin: https://app.test\r\n")?;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-backend"));
    assert_eq!((answer.header("access-control-allow-credentials"), vary(&answer)), (Some("true"), "origin"));
    for fields in ["", "origin: https://evil.test\r\n"] {
        let answer = ask(fields)?;
        assert_eq!(
            (answer.header("access-control-allow-origin"), vary(&answer)),
            (None, "origin"),
            "{fields}"
        );
    }
    // An error's page must be told too, or all it sees is a network error.
    rig.backends[0].down()?;
    let failed = ask("origin: https://app.test\r\n")?;
    assert_eq!(
        (failed.status, failed.header("access-control-allow-origin")),
        (502, Some("https://app.test"))
    );
    Ok(())
}
