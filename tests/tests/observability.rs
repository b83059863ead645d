//! What the gateway says of itself: M1, M4, and the admin API and CLI of O6 and O7.

use lab::{gateway::simple_config, prelude::*};

fn rig() -> Result<Rig> {
    Rig::start(2, simple_config)
}

/// A request to the admin API.
fn admin(rig: &Rig, method: &str, path: &str, body: &str) -> Result<Response> {
    let socket = rig.gateway.socket().display().to_string();
    let url = format!("http://localhost{path}");
    let arguments = [
        "-sS",
        "-i",
        "--unix-socket",
        &socket,
        "-X",
        method,
        "-H",
        "content-type: application/json",
        "-d",
        body,
        &url,
    ];
    let text = rig.net.gateway.output("curl", &arguments)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let field = |line: &str| line.split_once(':').map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned()));
    Ok(Response {
        status,
        headers: lines.filter_map(field).collect(),
        body: body.into(),
        ..Response::default()
    })
}

// M1
#[test]
fn the_metrics_say_what_went_through() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    for _ in 0..6 {
        client.get("/")?;
    }
    client.get("/status/404")?;
    client.send("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")?;
    client.response()?;
    let page = rig.gateway.ops("/metrics")?;
    assert!(
        page.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")),
        "{:?}",
        page.headers
    );
    let metrics = rig.gateway.metrics()?;
    let requests = |method: &str, code: &str| {
        metrics.sum(
            "http_requests_total",
            &[("listener", "web"), ("route", "all"), ("method", method), ("code", code)],
        )
    };
    assert_eq!((requests("GET", "200"), requests("GET", "404"), requests("POST", "200")), (6.0, 1.0, 1.0));
    assert_eq!(metrics.sum("http_request_duration_seconds_count", &[("route", "all")]), 8.0);
    assert_eq!(metrics.sum("http_overhead_seconds_count", &[("route", "all")]), 8.0);
    assert_eq!(metrics.sum("http_request_bytes_total", &[("route", "all")]), 5.0);
    assert_eq!(metrics.sum("http_response_bytes_total", &[("route", "all")]), 6.0 * 128.0 + 5.0);
    assert_eq!(metrics.sum("upstream_up", &[("upstream", "all")]), 2.0);
    let by_target = metrics.by("upstream_requests_total", "target", &[("upstream", "all")]);
    assert_eq!(by_target.values().sum::<f64>(), 8.0);
    assert_eq!(by_target.len(), 2);
    for name in [
        "config_last_success_timestamp_seconds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "build_info",
    ] {
        assert!(metrics.sum(name, &[]) > 0.0, "{name}");
    }
    Ok(())
}

// M1
#[test]
fn buckets_of_a_histogram_add_up() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.get("/")?;
    client.get("/slow-header?ms=120")?;
    let metrics = rig.gateway.metrics()?;
    let buckets: Vec<f64> =
        metrics.all("http_request_duration_seconds_bucket", &[]).map(|s| s.value).collect();
    assert!(buckets.windows(2).all(|pair| pair[0] <= pair[1]), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&2.0));
    let below = |le: f64| {
        let all = metrics.all("http_request_duration_seconds_bucket", &[]);
        let near = all.filter(|s| s.labels["le"].parse::<f64>().is_ok_and(|bound| bound <= le));
        near.map(|s| s.value).fold(0.0, f64::max)
    };
    assert_eq!((below(0.1), below(1.0)), (1.0, 2.0));
    let sum = metrics.sum("http_request_duration_seconds_sum", &[]);
    assert!((0.12..0.5).contains(&sum), "{sum}");
    Ok(())
}

// M4
#[test]
fn every_request_has_one_line_with_all_that_is_known_of_it_in_order() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    let fields = "host: Shop.Test\r\nuser-agent: lab \"quoted\"\r\nreferer: http://a.test/\r\n";
    client
        .send(format!("POST /slow-header?ms=60&x=%41 HTTP/1.1\r\n{fields}content-length: 5\r\n\r\nhello"))?;
    let answer = client.response()?;
    let line = rig.gateway.log_of(&answer)?;
    let expected = json!({
        "listener": "web", "client": rig.net.client(1).v4().to_string(), "proto": "h1", "host": "Shop.Test",
        "method": "POST", "path": "/slow-header", "query": "ms=60&x=%41", "status": 200, "route": "all",
        "upstream": "all", "tries": 1, "bytes_in": 5, "bytes_out": 128, "ua": "lab \"quoted\"",
        "ref": "http://a.test/",
    });
    for (key, value) in expected.as_object().context("an object")? {
        assert_eq!(&line[key], value, "{key} in {line}");
    }
    let number = |key: &str| line[key].as_u64().with_context(|| format!("{key} in {line}"));
    assert!(number("us_first_byte")? >= 60_000 && number("us")? >= number("us_first_byte")?);
    assert!(number("us_self")? < number("us")? && number("us_connect")? < 60_000);
    let order = "ts id trace listener client peer proto tls host method path query status route version consumer upstream \
                 target tries why cache limit bytes_in bytes_out us us_self us_tls us_queue us_connect us_first_byte ua ref";
    let order: Vec<&str> = order.split_whitespace().collect();
    let raw = std::fs::read_to_string(rig.gateway.file("access.log"))?;
    let mut last = 0;
    for key in order.iter().filter(|key| line.get(key).is_some()) {
        let at = raw.find(&format!("\"{key}\":")).with_context(|| format!("{key} in {raw}"))?;
        assert!(at >= last, "{key} is out of order in {raw}");
        last = at;
    }
    let unknown = line.as_object().context("an object")?.keys().find(|key| !order.contains(&key.as_str()));
    assert_eq!(unknown, None);
    Ok(())
}

// M4
#[test]
fn refused_aborted_and_unreadable_requests_have_their_line_too() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")?;
    eventually("it hangs", || Ok(rig.gateway.metrics()?.sum("http_active_requests", &[]) == 1.0))?;
    drop(client);
    let mut client = rig.client()?;
    client.send("NONSENSE\r\n\r\n")?;
    client.response()?.refused(400, "bad_request")?;
    rig.gateway
        .log_line("the aborted one", |line| line["path"] == "/hang" && line["why"] == "client_gone")?;
    rig.gateway
        .log_line("the unreadable one", |line| line["why"] == "bad_request" && line["status"] == 400)?;
    assert_eq!(rig.gateway.log()?.len(), 2);
    let written = rig.gateway.metrics()?.sum("access_log_lines_total", &[("result", "written")]);
    assert_eq!(written, 2.0);
    Ok(())
}

// M4
#[test]
fn usr1_reopens_the_log_after_it_was_moved() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    let first = client.get("/")?;
    rig.gateway.log_of(&first)?;
    std::fs::rename(rig.gateway.file("access.log"), rig.gateway.file("access.log.1"))?;
    rig.gateway.signal(libc::SIGUSR1)?;
    eventually("a new file", || Ok(rig.gateway.file("access.log").exists()))?;
    let second = client.get("/")?;
    rig.gateway.log_of(&second)?;
    Ok(())
}

// O6
#[test]
fn the_admin_api_answers_on_its_socket_and_explains_its_errors() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let status = admin(&rig, "GET", "/v1/status", "")?;
    assert_eq!((status.status, &status.json()?["state"]), (200, &json!("running")));
    for path in [
        "/v1/stats",
        "/v1/kernel",
        "/v1/kernel/sources?top=5",
        "/v1/config",
        "/v1/listeners",
        "/v1/routes",
        "/v1/upstreams",
        "/v1/upstreams/all",
        "/v1/services",
        "/v1/limits",
        "/v1/bans",
    ] {
        let answer = admin(&rig, "GET", path, "")?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json().with_context(|| path.to_owned())?;
    }
    for (method, path) in [
        ("GET", "/v1/nothing"),
        ("GET", "/v1/upstreams/nobody"),
        ("GET", "/v1/services/nobody"),
        ("DELETE", "/v1/bans/192.0.2.1"),
    ] {
        let answer = admin(&rig, method, path, "")?;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(rig.gateway.socket())?.permissions());
    assert_eq!(mode & 0o777, 0o660);
    Ok(())
}

// O6
#[test]
fn the_admin_api_takes_overrides_of_targets_and_explains_its_refusals() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let target = format!("/v1/upstreams/all/targets/{}", rig.backends[0].addr);
    let patched = admin(&rig, "PATCH", &target, r#"{"state": "drain", "weight": 5, "for": "30m"}"#)?;
    let row = patched.json()?;
    assert_eq!((patched.status, &row["state"], &row["healthy"]), (200, &json!("draining"), &json!(true)));
    assert_eq!((&row["weight"], &row["overrides"]["weight"]["value"]), (&json!(1), &json!(5)));
    assert_eq!(row["overrides"]["state"]["by"], "root");
    let back = admin(&rig, "PATCH", &target, r#"{"state": "up", "weight": "config"}"#)?.json()?;
    assert_eq!((&back["state"], &back["overrides"]), (&json!("up"), &Value::Null));
    for (path, body, status) in [
        (target.as_str(), "{}", 400),
        (&target, "not json", 400),
        (&target, r#"{"state": "gone"}"#, 400),
        (&target, r#"{"weight": 0}"#, 400),
        (&target, r#"{"state": "up", "for": "1m"}"#, 400),
        ("/v1/upstreams/all/targets/b1", r#"{"state": "up"}"#, 400),
        ("/v1/upstreams/all/targets/10.0.0.1:1", r#"{"state": "up"}"#, 404),
        ("/v1/upstreams/nobody/targets/10.0.0.1:1", r#"{"state": "up"}"#, 404),
        ("/v1/services/nobody/targets/10.0.0.1:1", r#"{"state": "up"}"#, 404),
    ] {
        let refused = admin(&rig, "PATCH", path, body)?;
        assert_eq!(refused.status, status, "{path} {body}: {}", refused.text());
        assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{path} {body}");
    }
    Ok(())
}

// O6
#[test]
fn the_admin_api_checks_a_config_without_taking_it() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let good = admin(&rig, "POST", "/v1/config/check", &simple_config(&rig.backends))?;
    assert_eq!(good.status, 200, "{}", good.text());
    let bad = admin(
        &rig,
        "POST",
        "/v1/config/check",
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"nobody\"\n",
    )?;
    assert!((400..500).contains(&bad.status), "{}", bad.text());
    assert_eq!(bad.json()?["line"], 4, "{}", bad.text());
    Ok(())
}

// O7
#[test]
fn every_reading_command_speaks_json_and_every_table_fits_80_columns() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    rig.client()?.get("/")?;
    rig.gateway.cli(&["ban", "add", "192.0.2.7", "--for", "1h"])?.ok()?;
    let config = rig.gateway.config().display().to_string();
    for words in [
        "status",
        "ban list",
        "limit show",
        "service list",
        "upstream list",
        "limit top",
        "kernel status",
        "kernel maps",
        "kernel sources",
        "config show",
        "doctor",
        "version",
    ] {
        let mut arguments: Vec<&str> = words.split(' ').collect();
        if words == "config show" {
            arguments.push(&config);
        }
        let table = rig.gateway.cli(&arguments)?;
        // The doctor's is about the machine.
        assert!((table.code <= 1 || words == "doctor") && !table.stdout.is_empty(), "{words}: {table:?}");
        let wide = table.stdout.lines().find(|line| line.chars().count() > 80);
        assert!(words == "config show" || wide.is_none(), "{words}: {wide:?}");
        arguments.extend(["-o", "json"]);
        rig.gateway.cli(&arguments)?.json().with_context(|| words.to_owned())?;
    }
    let schema = rig.gateway.cli(&["config", "schema"])?.ok()?.json()?;
    assert!(schema["properties"]["listener"].is_object());
    Ok(())
}

// O7
#[test]
fn exit_codes_tell_what_is_wrong() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let code = |arguments: &[&str]| -> Result<i32> { Ok(rig.gateway.cli(arguments)?.code) };
    assert_eq!(code(&["version"])?, 0);
    assert_eq!(code(&["frobnicate"])?, 2);
    assert_eq!(code(&["check", "/nonexistent.toml"])?, 2);
    let nobody = std::process::Command::new(lab::tools::gateway()?)
        .args(["--socket", "/nonexistent.sock", "status"])
        .output()?;
    assert_eq!(nobody.status.code(), Some(4));
    assert_eq!(code(&["ban", "del", "192.0.2.9"])?, 5);
    assert_eq!(code(&["ban", "add", "not-an-address"])?, 2);
    Ok(())
}

// O7
#[test]
fn completions_exist_for_every_shell() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for shell in ["bash", "zsh", "fish"] {
        let script = rig.gateway.cli(&["completions", shell])?.ok()?;
        assert!(script.stdout.contains("gateway"), "{shell}");
    }
    Ok(())
}

// O7
#[test]
fn every_command_has_a_manual_page() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let pages = rig.gateway.file("man");
    rig.gateway.cli(&["man", &pages.display().to_string()])?.ok()?;
    for page in ["gateway.1", "gateway-run.1", "gateway-ban-add.1", "gateway-config-convert.1"] {
        let text = std::fs::read_to_string(pages.join(page)).context(page)?;
        assert!(text.contains(".TH ") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let refused = rig.gateway.cli(&["man", "/proc/nowhere"])?;
    assert!(refused.code != 0 && refused.stderr.contains("/proc/nowhere"), "{refused:?}");
    Ok(())
}
