//! Versions of an API: V1 to V6, and O15 of a route with versions.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use lab::{http::echoed, prelude::*};

/// Two backends, the upstreams `one` and `two`.
fn rig(routes: &str) -> Result<Rig> {
    Rig::start(2, |backends| config(backends, routes))
}

fn config(backends: &[Backend], routes: &str) -> String {
    let mut config = format!("[gateway]\nworkers = 2\n[listener.web]\nbind = \":80\"\n{routes}\n");
    for (name, backend) in ["one", "two"].iter().zip(backends) {
        config.push_str(&format!("[upstream.{name}]\nto = \"{}\"\n", backend.addr));
    }
    config
}

const API: &str = r#"
[route.api]
path = "/echo/*"
to = "one"
[route.api.version]
from = ["path", "header:x-api-version", "accept", "query:version"]
default = "v1"
aliases = { latest = "v2" }
[route.api.version.v1]
[route.api.version.v2]
to = "two"
rewrite = { set = { x-api = "second" } }
"#;

fn ask(rig: &Rig, target: &str, fields: &str) -> Result<Response> {
    rig.ask(&format!("GET {target}"), "api.test", fields)
}

fn target(answer: &Response) -> Result<String> {
    Ok(answer.json()?["target"].as_str().unwrap_or_default().to_owned())
}

fn all(answer: &Response, name: &str) -> Vec<String> {
    answer.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
}

// V1, V2, V3, V4
#[test]
fn path_header_accept_and_query_each_name_a_version_and_the_answer_says_which_it_was() -> Result<()> {
    lab_test!();
    let rig = rig(API)?;
    let vary = "x-api-version, accept";
    for (asked, fields, backend, version, seen) in [
        ("/echo/7", "", 0, "v1", "/echo/7"),
        ("/v1/echo/7", "", 0, "v1", "/echo/7"),
        ("/v2/echo/7?a=b", "", 1, "v2", "/echo/7?a=b"),
        ("/latest/echo/7", "", 1, "v2", "/echo/7"),
        ("/echo/7", "X-API-Version: 2\r\n", 1, "v2", "/echo/7"),
        ("/echo/7", "accept: application/vnd.a.v2+json\r\n", 1, "v2", "/echo/7"),
        ("/echo/7", "accept: application/json;version=2\r\n", 1, "v2", "/echo/7"),
        ("/echo/7?version=2&a=b", "", 1, "v2", "/echo/7?version=2&a=b"),
        ("/v2/echo/7?version=v2", "x-api-version: latest\r\n", 1, "v2", "/echo/7?version=v2"),
    ] {
        let answer = ask(&rig, asked, fields)?;
        let about = format!("{asked} {fields:?}: {} {}", answer.status, answer.text());
        assert_eq!((answer.status, answer.backend()), (200, &*rig.backends[backend].name), "{about}");
        assert_eq!(target(&answer)?, seen, "{about}");
        assert_eq!(answer.header("api-version"), Some(version), "{about}");
        assert_eq!(all(&answer, "vary"), [vary], "{about}");
        let named_in_path = asked.starts_with("/v") || asked.starts_with("/latest");
        let location = answer.header("content-location").map(str::to_owned);
        assert_eq!(location, (!named_in_path).then(|| format!("/{version}{asked}")), "{about}");
        // A version has keys of its own.
        assert_eq!(echoed(&answer.json()?, "x-api").len(), backend, "{about}");
        let line = rig.gateway.log_of(&answer)?;
        assert_eq!((&line["route"], &line["version"]), (&json!("api"), &json!(version)), "{line}");
        assert_eq!(line["path"], asked.split('?').next().unwrap_or_default(), "as it was asked for");
    }
    // What POSTs answer is not what is to be found there.
    let posted = rig.ask("POST /echo/7", "api.test", "content-length: 0\r\n")?;
    assert_eq!((posted.status, posted.header("content-location")), (200, None));
    Ok(())
}

// V4
#[test]
fn unknown_missing_and_conflicting_versions_are_refused_with_the_list() -> Result<()> {
    lab_test!();
    let rig = rig(API)?;
    for (asked, fields, status, why, detail) in [
        ("/v9/echo/7", "", 404, "version_unknown", "path says \"v9\""),
        ("/echo/7", "x-api-version: 9\r\n", 400, "version_unknown", "header:x-api-version says \"9\""),
        ("/echo/7?version=%39", "", 400, "version_unknown", "query:version says \"9\""),
        (
            "/v1/echo/7",
            "x-api-version: 2\r\n",
            400,
            "version_conflict",
            "path says \"v1\" and header:x-api-version says \"2\"",
        ),
        (
            "/echo/7?version=1",
            "accept: a/b;version=2\r\n",
            400,
            "version_conflict",
            "accept says \"a/b;version=2\"",
        ),
        ("/echo/7?version=1&version=2", "", 400, "version_conflict", "query:version"),
    ] {
        let answer = ask(&rig, asked, fields)?;
        answer.refused(status, why).with_context(|| format!("{asked} {fields}"))?;
        let body = answer.json()?;
        assert_eq!(body["versions"], json!(["v1", "v2"]), "{body}");
        assert!(body["detail"].as_str().unwrap_or_default().contains(detail), "{body}");
        let line = rig.gateway.log_of(&answer)?;
        assert_eq!(
            (&line["why"], &line["route"], &line["version"]),
            (&json!(why), &json!("api"), &Value::Null)
        );
    }
    rig.gateway.write(&config(&rig.backends, &API.replace("default = \"v1\"", "on_conflict = \"first\"")))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let none = ask(&rig, "/echo/7", "")?;
    none.refused(400, "version_required")?;
    assert_eq!(none.json()?["versions"], json!(["v1", "v2"]));
    // A path that only looks like another's version is nobody's.
    ask(&rig, "/vx/echo/7", "")?.refused(404, "no_route")?;
    let first = ask(&rig, "/v1/echo/7", "x-api-version: 2\r\n")?;
    assert_eq!((first.status, first.header("api-version")), (200, Some("v1")));
    // What comes after the path was not looked at.
    assert_eq!(all(&first, "vary"), Vec::<String>::new());
    Ok(())
}

// V1, V3
#[test]
fn a_version_stands_where_the_path_says_and_is_kept_or_stripped_as_told() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.kept]
path = "/echo/{version}/kept/{id}"
to = "one"
rewrite = { set = { x-id = "${param.id}", x-path = "${path}" } }
[route.kept.version]
from = ["path", "query:v", "header:x-v"]
strip = ["query", "header"]
default = "v2"
aliases = { latest = "v2" }
[route.kept.version.v1]
[route.kept.version.v2]
[route.host]
host = "api.test"
path = "/echo/host"
[route.host.version]
from = ["host"]
default = "2026-06-01"
header = "off"
[route.host.version.2026-01-01]
to = "one"
[route.host.version.2026-06-01]
to = "two"
[route.host.version.beta]
respond = { status = 202, body = "beta" }
"#)?;
    for (asked, fields, seen) in [
        ("/echo/v1/kept/7", "", "/echo/v1/kept/7"),
        ("/echo/1/kept/7", "", ""),
        ("/echo/latest/kept/7?a=b", "", "/echo/v2/kept/7?a=b"),
        ("/echo/kept/7?a=b&v=1&c=d", "", "/echo/kept/7?a=b&c=d"),
        ("/echo/kept/7?v=1", "x-v: v1\r\n", "/echo/kept/7"),
    ] {
        let answer = ask(&rig, asked, fields)?;
        if seen.is_empty() {
            answer.refused(404, "no_route")?;
            continue;
        }
        assert_eq!(target(&answer)?, seen, "{asked}");
        let echo = answer.json()?;
        assert_eq!(echoed(&echo, "x-id"), ["7"], "a parameter is where it is without the version");
        assert_eq!(echoed(&echo, "x-v"), Vec::<String>::new());
    }
    for (host, backend, status) in
        [("api.test", 1, 200), ("2026-01-01.api.test", 0, 200), ("2026-06-01.API.test:80", 1, 200)]
    {
        let answer = rig.ask("GET /echo/host", host, "")?;
        assert_eq!((answer.status, answer.backend()), (status, &*rig.backends[backend].name), "{host}");
        assert_eq!((answer.header("api-version"), answer.header("vary")), (None, None));
    }
    assert_eq!(rig.ask("GET /echo/host", "beta.api.test", "")?.status, 202);
    rig.ask("GET /echo/host", "gamma.api.test", "")?.refused(404, "no_route")
}

// V5
#[test]
fn a_version_that_ends_says_so_and_then_ends_as_told() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.api]
path = "/echo/*"
to = "one"
[route.api.version]
from = ["path"]
default = "v5"
[route.api.version.v1]
deprecated = 2020-01-01
sunset = 2021-01-01
[route.api.version.v2]
sunset = { at = 2021-01-01T00:00:00Z, then = "redirect" }
[route.api.version.v3]
deprecated = { at = 2020-01-01, link = "https://docs.test/v3" }
sunset = { at = 2099-12-31, link = "https://docs.test/end" }
successor = "v4"
[route.api.version.v4]
brownout = { at = 2020-01-01, for = "23h59m59s", every = "1d" }
[route.api.version.v5]
[route.api.version.v6]
sunset = { at = 2021-01-01, then = "serve" }
"#)?;
    let gone = ask(&rig, "/v1/echo/7?x=1", "")?;
    gone.refused(410, "sunset")?;
    assert_eq!(gone.json()?["versions"], json!(["v2", "v3", "v4", "v5", "v6"]));
    assert_eq!(all(&gone, "link"), ["</v4/echo/7?x=1>; rel=\"successor-version\""]);
    assert_eq!(gone.header("deprecation"), Some("@1577836800"));
    assert_eq!(gone.header("sunset"), Some("Fri, 01 Jan 2021 00:00:00 GMT"));
    let line = rig.gateway.log_of(&gone)?;
    assert_eq!((&line["version"], &line["why"]), (&json!("v1"), &json!("sunset")));
    let moved = ask(&rig, "/v2/echo/7?x=1", "")?;
    assert_eq!((moved.status, moved.header("location")), (308, Some("/v4/echo/7?x=1")));
    let ending = ask(&rig, "/v3/echo/7", "")?;
    assert_eq!((ending.status, ending.header("deprecation")), (200, Some("@1577836800")));
    assert_eq!(ending.header("sunset"), Some("Thu, 31 Dec 2099 00:00:00 GMT"));
    assert_eq!(
        all(&ending, "link"),
        [
            "<https://docs.test/v3>; rel=\"deprecation\"; type=\"text/html\"",
            "<https://docs.test/end>; rel=\"sunset\"; type=\"text/html\"",
            "</v4/echo/7>; rel=\"successor-version\"",
        ]
    );
    let browned = ask(&rig, "/v4/echo/7", "")?;
    // It is off but for the last second of each day.
    if browned.status != 200 {
        browned.refused(503, "brownout")?;
        let left: u64 = browned.header("retry-after").context("no Retry-After")?.parse()?;
        assert!((1..86_400).contains(&left), "{left}");
    }
    assert_eq!(ask(&rig, "/v6/echo/7", "")?.status, 200);
    let fresh = ask(&rig, "/v5/echo/7", "")?;
    assert_eq!(
        (fresh.header("deprecation"), fresh.header("sunset"), fresh.header("link")),
        (None, None, None)
    );
    Ok(())
}

// V6
#[test]
fn metrics_and_route_show_tell_versions_apart_and_who_still_calls_them() -> Result<()> {
    lab_test!();
    let rig =
        rig(&format!("{API}deprecated = 2020-01-01\n[route.plain]\npath = \"/plain\"\nto = \"one\"\n"))?;
    for (asked, count) in [("/v1/echo/1", 3), ("/v2/echo/1", 2), ("/v9/echo/1", 1), ("/plain", 1)] {
        for _ in 0..count {
            ask(&rig, asked, "user-agent: shop/1.0\r\n")?;
        }
    }
    let requests = |metrics: &lab::metrics::Metrics, labels: &[(&str, &str)]| {
        metrics.sum("http_requests_total", labels) as u64
    };
    eventually("all are counted", || Ok(requests(&rig.gateway.metrics()?, &[]) == 7))?;
    let metrics = rig.gateway.metrics()?;
    for (version, count) in [("v1", 3), ("v2", 2)] {
        assert_eq!(requests(&metrics, &[("route", "api"), ("version", version), ("code", "200")]), count);
        let duration = metrics.sum("http_request_duration_seconds_count", &[("version", version)]);
        assert_eq!(duration as u64, count);
    }
    assert_eq!(metrics.sum("http_errors_total", &[("reason", "version_unknown")]) as u64, 1);
    let plain: Vec<_> = metrics.all("http_requests_total", &[("route", "plain")]).collect();
    assert!(
        !plain.is_empty() && plain.iter().all(|sample| !sample.labels.contains_key("version")),
        "{plain:?}"
    );

    let shown = rig.gateway.cli(&["route", "show", "api", "-o", "json"])?.ok()?.json()?;
    let second = &shown["versions"]["v2"];
    assert_eq!(second["last_day"], json!({ "requests": 2, "consumers": { "anonymous": 2 } }), "{shown}");
    assert_eq!(
        (&second["deprecated"], &second["last_caller"]["agent"]),
        (&json!("2020-01-01"), &json!("shop/1.0"))
    );
    assert_eq!(second["last_caller"]["client"], json!(rig.net.client(1).v4().to_string()));
    assert_eq!(shown["versions"]["v1"]["codes"], json!({ "200": 3 }));
    let text = rig.gateway.cli(&["route", "show", "api"])?.ok()?.stdout;
    assert!(text.contains("deprecated 2020-01-01") && text.contains("shop/1.0"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let list = rig.gateway.cli(&["route", "list"])?.ok()?.stdout;
    assert!(list.contains("v2: two"), "{list}");
    Ok(())
}

// T3
#[test]
fn a_canary_sends_a_share_to_the_next_version_and_keeps_clients_there() -> Result<()> {
    lab_test!();
    let api = |share: &str| {
        format!(
            "[route.api]\npath = \"/echo/*\"\n[route.api.version]\nfrom = [\"path\"]\ndefault = \"v1\"\n\
             [route.api.version.v1]\nto = \"one\"\n\
             canary = {{ to = \"v2\", share = \"{share}\", header = \"x-canary: yes\", sticky = \"header:x-user\" }}\n\
             [route.api.version.v2]\nto = \"two\"\n"
        )
    };
    let rig = rig(&api("10%"))?;
    let mut client = rig.client()?;
    let mut version = |target: &str, fields: &str| -> Result<String> {
        client.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))?;
        let answer = client.response()?;
        assert_eq!((answer.status, all(&answer, "vary")), (200, vec!["x-canary, x-user".to_owned()]));
        Ok(answer.header("api-version").unwrap_or_default().to_owned())
    };
    // Without a key it is exact.
    let moved = (0..1000).map(|_| version("/echo/1", "")).collect::<Result<Vec<_>>>()?;
    assert_eq!(moved.iter().filter(|version| *version == "v2").count(), 100);
    let mut of_user = |user: usize| version("/echo/1", &format!("x-user: u{user}\r\n"));
    let first = (0..500).map(&mut of_user).collect::<Result<Vec<_>>>()?;
    let share = first.iter().filter(|version| *version == "v2").count();
    assert!((25..=75).contains(&share), "{share} of 500");
    assert_eq!((0..500).map(&mut of_user).collect::<Result<Vec<_>>>()?, first, "who is there stays there");
    assert_eq!(version("/echo/1", "x-canary: yes\r\n")?, "v2");
    assert_eq!(version("/v1/echo/1", "x-canary: yes\r\n")?, "v1", "who names a version gets it");
    // A larger share takes more in and nobody out.
    rig.gateway.write(&config(&rig.backends, &api("50%")))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let mut more = 0;
    for (user, before) in first.iter().enumerate() {
        let now = version("/echo/1", &format!("x-user: u{user}\r\n"))?;
        assert!(before == "v1" || now == "v2", "user {user} went back");
        more += usize::from(now == "v2");
    }
    assert!((200..=300).contains(&more), "{more} of 500");
    Ok(())
}

// O15
#[test]
fn explain_says_which_version_and_why() -> Result<()> {
    lab_test!();
    let rig = rig(&format!(
        "{API}canary = {{ to = \"v1\", header = \"x-back\", named = true }}\n[route.other]\npath = \"/other\"\nto = \"one\"\n"
    ))?;
    for (asked, field, outcome) in [
        ("/echo/7", "", Ok(("v1", "it is the default"))),
        ("/v2/echo/7", "", Ok(("v2", "path says \"v2\""))),
        ("/echo/7", "X-API-Version: 2", Ok(("v2", "header:x-api-version says \"2\""))),
        ("/v2/echo/7", "x-back: 1", Ok(("v1", "path says \"v2\", and the canary of v2 sends it to v1"))),
        ("/v7/echo/7", "", Err(("version_unknown", 404))),
        ("/v1/echo/7", "X-API-Version: 2", Err(("version_conflict", 400))),
    ] {
        let url = format!("http://api.test{asked}");
        let mut arguments = vec!["explain", "GET", &url, "-o", "json"];
        if !field.is_empty() {
            arguments.extend(["-H", field]);
        }
        let told = rig.gateway.cli(&arguments)?.ok()?.json()?;
        assert_eq!(told["route"], "api", "{told}");
        let fields = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
        let answer = ask(&rig, asked, &fields)?;
        match outcome {
            Ok((version, why)) => {
                assert_eq!(
                    (&told["version"]["name"], &told["version"]["why"]),
                    (&json!(version), &json!(why))
                );
                assert_eq!(answer.header("api-version"), Some(version));
                let upstream = told["upstreams"][0]["upstream"].clone();
                assert_eq!(rig.gateway.log_of(&answer)?["upstream"], upstream, "{told}");
            }
            Err((why, status)) => {
                assert_eq!((&told["why"], &told["status"]), (&json!(why), &json!(status)), "{told}");
                answer.refused(status, why)?;
            }
        }
        assert_eq!(told["others"][0]["route"], "other", "{told}");
    }
    Ok(())
}

// V6
#[test]
fn a_migration_from_one_version_to_the_next_under_load_fails_no_request() -> Result<()> {
    lab_test!();
    let step = |default: &str, share: &str, first: &str| {
        let canary = if share.is_empty() {
            String::new()
        } else {
            format!("canary = {{ to = \"v2\", share = \"{share}\" }}\n")
        };
        format!(
            "[route.api]\npath = \"/echo/*\"\n[route.api.version]\nfrom = [\"path\", \"header:v\"]\ndefault = \"{default}\"\n\
             [route.api.version.v1]\n{first}\n{canary}[route.api.version.v2]\nto = \"two\"\n"
        )
    };
    let rig = rig(&step("v1", "", "to = \"one\""))?;
    let stop = AtomicBool::new(false);
    let load = |fields: &'static str| -> Result<BTreeMap<String, usize>> {
        let mut seen = BTreeMap::new();
        let mut client = rig.client()?;
        while !stop.load(Relaxed) {
            client.send(format!("GET /echo/1 HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))?;
            let answer = client.response()?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            *seen.entry(answer.header("api-version").unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(seen)
    };
    thread::scope(|scope| -> Result<()> {
        let threads = ["", "", "v: 1\r\n", "v: 2\r\n"].map(|fields| scope.spawn(move || load(fields)));
        let steps = || -> Result<()> {
            for (default, share, first) in [
                ("v1", "5%", "to = \"one\""),
                ("v1", "50%", "to = \"one\""),
                ("v1", "100%", "to = \"one\"\ndeprecated = 2020-01-01"),
                ("v2", "", "to = { one = 50, two = 50 }\ndeprecated = 2020-01-01"),
                ("v2", "", "to = \"two\"\ndeprecated = 2020-01-01\nsunset = 2099-01-01"),
            ] {
                thread::sleep(Duration::from_millis(200));
                rig.gateway.write(&config(&rig.backends, &step(default, share, first)))?;
                rig.gateway.cli(&["reload"])?.ok()?;
            }
            thread::sleep(Duration::from_millis(200));
            Ok(())
        };
        let steps = steps();
        stop.store(true, Relaxed);
        steps?;
        for (thread, versions) in
            threads.into_iter().zip([vec!["v1", "v2"], vec!["v1", "v2"], vec!["v1"], vec!["v2"]])
        {
            let seen = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), versions, "{seen:?}");
        }
        Ok(())
    })
}

/// A path, the status line's end and fields, and the body.
type Canned = &'static [(&'static str, &'static str, &'static str)];

/// An upstream that answers each path with what is told; `/next/hang` not at all.
fn canned(node: &Node, port: u16, answers: Canned) -> Result<SocketAddr> {
    use std::io::{Read, Write};
    let listener = node.namespace.run(|| std::net::TcpListener::bind(("0.0.0.0", port)))??;
    let serve = move |mut stream: std::net::TcpStream| -> std::io::Result<()> {
        let (mut unread, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            unread.extend_from_slice(&buffer[..read]);
            while let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = unread.drain(..end + 4).collect();
                let head = String::from_utf8_lossy(&head).into_owned();
                let target = head.split(' ').nth(1).unwrap_or_default();
                if target == "/next/hang" {
                    thread::sleep(Duration::from_secs(20));
                }
                let named = head.to_ascii_lowercase().contains("\r\nx-v:");
                let found = answers
                    .iter()
                    .find(|(path, ..)| *path == target && !(named && path.starts_with("/next")));
                let (_, start, body) = found.unwrap_or(&("", "404 No\r\n", ""));
                let length = body.len();
                stream.write_all(
                    format!("HTTP/1.1 {start}content-length: {length}\r\n\r\n{body}").as_bytes(),
                )?;
            }
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(SocketAddr::from((node.v4(), port)))
}

// T4
#[test]
fn a_shadow_is_compared_and_neither_delays_nor_changes_what_the_client_gets() -> Result<()> {
    lab_test!();
    const JSON: &str = "200 OK\r\ncontent-type: application/json\r\n";
    const OLD: Canned = &[
        ("/same", JSON, "{\"a\":1,\"at\":1,\"items\":[{\"id\":1}]}"),
        ("/status", JSON, "old"),
        ("/type", JSON, "x"),
        ("/body", JSON, "{\"price\":1,\"at\":5}"),
        ("/hang", JSON, "here"),
    ];
    const NEW: Canned = &[
        ("/next/same", JSON, "{\"items\": [{\"id\": 7}], \"a\": 1.0}"),
        ("/next/status", "500 No\r\n", "new"),
        ("/next/type", "200 OK\r\ncontent-type: text/html\r\n", "x"),
        ("/next/body", JSON, "{\"price\":2,\"at\":6}"),
    ];
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let (old, new) = (canned(net.backend(1), 9000, OLD)?, canned(net.backend(2), 9001, NEW)?);
    let gateway = Gateway::start(
        &net,
        &format!(
            "[listener.web]\nbind = \":80\"\n[upstream.old]\nto = \"{old}\"\n\
             [upstream.new]\nto = \"{new}\"\ntimeout = {{ total = \"2s\" }}\n\
             [route.api]\n[route.api.version]\nfrom = [\"path\", \"header:x-v\"]\ndefault = \"v1\"\n\
             [route.api.version.v1]\nto = \"old\"\n\
             mirror = {{ version = \"v2\", compare = {{ ignore = [\"/at\", \"/items/*/id\"] }} }}\n\
             [route.api.version.v2]\nto = \"new\"\nrewrite = {{ path = \"/next/*\" }}\n"
        ),
    )?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    for (path, _, body) in OLD {
        let began = Instant::now();
        client.send(format!("GET /v1{path} HTTP/1.1\r\nhost: a\r\nx-v: 1\r\n\r\n"))?;
        let answer = client.response()?;
        assert_eq!((answer.status, answer.header("api-version")), (200, Some("v1")), "{path}");
        assert_eq!(answer.text(), *body, "{path}");
        assert!(began.elapsed() < Duration::from_secs(5), "{path} waited for the shadow");
    }
    let compared = || -> Result<Value> {
        let shown = gateway.cli(&["route", "show", "api", "-o", "json"])?.ok()?.json()?;
        Ok(shown["versions"]["v1"]["compared"].clone())
    };
    let wanted = json!({ "same": 1, "status": 1, "header": 1, "body": 1, "skipped": 0, "lost": 1 });
    eventually("all are compared", || Ok(compared()?["results"] == wanted))
        .with_context(|| format!("{:?}", compared()))?;
    let differs: BTreeMap<String, Value> = compared()?["differences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (one["path"].as_str().unwrap_or_default().to_owned(), one["differs"].clone()))
        .collect();
    assert_eq!(differs["/status"], json!(["status: 200, the shadow 500"]));
    assert_eq!(differs["/type"], json!(["content-type: application/json, the shadow text/html"]));
    assert_eq!(differs["/body"], json!(["/price: 1, the shadow 2"]), "{differs:?}");
    let metrics = gateway.metrics()?;
    let count = |result: &str| {
        metrics.sum("mirror_compared_total", &[("route", "api"), ("version", "v1"), ("result", result)])
    };
    assert_eq!((count("same"), count("body"), count("lost")), (1.0, 1.0, 1.0));
    let events = gateway.cli(&["observe", "difference", "-o", "json"])?.ok()?.stdout;
    assert!(events.contains("/price: 1, the shadow 2") && events.contains("\"shadow\":\"v2\""), "{events}");
    let text = gateway.cli(&["route", "show", "api"])?.ok()?.stdout;
    assert!(text.contains("shadow of v1: same 1") && text.contains("/price: 1, the shadow 2"), "{text}");
    Ok(())
}

// T2, T4
#[test]
fn a_versions_shadow_gets_the_body_as_that_version_would() -> Result<()> {
    lab_test!();
    let json = "rewrite.json = { set = { \"/mapped\" =";
    let rig = rig(&format!(
        "[route.api]\nmirror = {{ version = \"v2\", compare = true }}\n\
         [route.api.version]\nfrom = [\"path\"]\ndefault = \"v1\"\n\
         [route.api.version.v1]\nto = \"one\"\n\
         [route.api.version.v2]\nto = \"two\"\n{json} 2 }}, remove = [\"/old\"] }}\n\
         [route.api.version.v3]\nto = \"one\"\n{json} 3, \"/own\" = 3 }} }}\n\
         [route.api.version.v4]\nto = \"one\"\nmirror = {{ version = \"v1\", compare = true }}\n{json} 4 }} }}\n"
    ))?;
    let fields = "x-answer: content-type: application/json\r\ncontent-type: application/json\r\n";
    let differs = |version: &str, body: &str| -> Result<BTreeSet<String>> {
        let length = format!("{fields}content-length: {}\r\n", body.len());
        let chunked = format!("{fields}transfer-encoding: chunked\r\n");
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for (fields, body) in [(length, body), (chunked, &*chunks)] {
            let mut client = rig.client()?;
            client.send(format!("POST /{version}/echo-body HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}"))?;
            assert_eq!(client.response()?.status, 200);
        }
        let shown = || -> Result<Value> {
            let shown = rig.gateway.cli(&["route", "show", "api", "-o", "json"])?.ok()?.json()?;
            Ok(shown["versions"][version]["compared"].clone())
        };
        eventually("both are compared", || Ok(shown()?["results"]["body"] == 2))
            .with_context(|| format!("{:?}", shown()))?;
        let differs = shown()?["differences"][1]["differs"].as_array().cloned().unwrap_or_default();
        Ok(differs.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect())
    };
    let body = r#"{"old":1,"kept":0}"#;
    let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(differs("v1", body)?, all(&["/mapped: only in the shadow's", "/old: only in the answer"]));
    assert_eq!(
        differs("v3", body)?,
        all(&["/mapped: 3, the shadow 2", "/old: only in the answer", "/own: only in the answer"])
    );
    assert_eq!(differs("v4", body)?, all(&["/mapped: only in the answer"]));
    Ok(())
}

// T3, V6
#[test]
fn consumers_of_a_tier_and_a_share_of_consumers_go_to_the_next_version_which_asks_for_itself() -> Result<()> {
    lab_test!();
    let hash = |key: &str| format!("blake3:{}", blake3::hash(key.as_bytes()).to_hex());
    let mut consumers = String::new();
    for (name, tier) in [("beta", "beta"), ("gold", "gold"), ("none", "gold")] {
        let grant = if name == "none" { "" } else { "grant = [\"items\"]\n" };
        consumers.push_str(&format!(
            "[consumer.{name}]\ntier = \"{tier}\"\n{grant}keys = [{{ id = \"k\", hash = \"{}\" }}]\n",
            hash(name)
        ));
    }
    for n in 0..40 {
        consumers.push_str(&format!(
            "[consumer.c{n}]\nkeys = [{{ id = \"k\", hash = \"{}\" }}]\n",
            hash(&format!("c{n}"))
        ));
    }
    let mut rig = rig(&format!(
        "[auth.key]\ntype = \"api-key\"\nfrom = [\"header:x-key\", \"query:key\"]\n{consumers}\
         [route.api]\npath = \"/echo/*\"\nauth = \"key\"\n[route.api.version]\nfrom = [\"path\"]\ndefault = \"v1\"\n\
         [route.api.version.v1]\nto = \"one\"\ncanary = {{ to = \"v2\", tiers = \"beta\", share = \"50%\", sticky = \"consumer\" }}\n\
         [route.api.version.v2]\nto = \"two\"\nrewrite = {{ set = {{ x-who = \"${{consumer.id}}\" }} }}\n\
         [route.api.version.v3]\nto = \"two\"\nallow = [\"items\"]\n"
    ))?;
    let of = |path: &str, key: &str| ask(&rig, path, &format!("x-key: {key}\r\n"));
    let moved = of("/echo/1", "beta")?;
    assert_eq!(
        (moved.status, moved.header("api-version"), moved.backend()),
        (200, Some("v2"), &*rig.backends[1].name)
    );
    let echo = moved.json()?;
    assert_eq!((echoed(&echo, "x-who"), echoed(&echo, "x-key")), (vec!["beta".to_owned()], vec![]));
    let line = rig.gateway.log_of(&moved)?;
    assert_eq!((&line["version"], &line["consumer"]), (&json!("v2"), &json!("beta")));
    assert_eq!(of("/v1/echo/1", "beta")?.header("api-version"), Some("v1"), "who names a version gets it");
    let versions = || -> Result<Vec<String>> {
        (0..40)
            .map(|n| Ok(of("/echo/1", &format!("c{n}"))?.header("api-version").unwrap_or_default().into()))
            .collect()
    };
    let first = versions()?;
    let next = first.iter().filter(|version| *version == "v2").count();
    assert!((8..=32).contains(&next), "{next} of 40");
    assert_eq!(versions()?, first);
    // Each version asks for what it wants.
    assert_eq!(of("/v3/echo/1", "gold")?.status, 200);
    of("/v3/echo/1", "none")?.refused(403, "forbidden")?;
    ask(&rig, "/v3/echo/1", "")?.refused(401, "unauthorized")?;
    // What is refused before anybody is asked tells no secret.
    let unknown = ask(&rig, "/v9/echo/1?key=gold&a=b", "")?;
    unknown.refused(404, "version_unknown")?;
    let line = rig.gateway.log_of(&unknown)?;
    assert!(!line.to_string().contains("gold"), "{line}");
    let shown = rig.gateway.cli(&["route", "show", "api", "-o", "json"])?.ok()?.json()?;
    assert_eq!(shown["versions"]["v3"]["last_day"]["consumers"], json!({ "anonymous": 2, "gold": 1 }));
    assert_eq!(shown["versions"]["v2"]["last_day"]["consumers"]["beta"], 1);
    // Whom to tell is known after an upgrade and after a restart.
    let known = |rig: &Rig| -> Result<Vec<Value>> {
        let shown = rig.gateway.cli(&["route", "show", "api", "-o", "json"])?.ok()?.json()?;
        let of = |version| ["last_day", "last_caller"].map(|key| shown["versions"][version][key].clone());
        Ok(["v1", "v2", "v3"].map(of).concat())
    };
    let before = known(&rig)?;
    assert_eq!(before[5]["consumer"], "anonymous", "{before:?}");
    rig.gateway.upgrade(&[])?.ok()?;
    rig.gateway.predecessor_ends(Duration::from_secs(20))?;
    assert_eq!(known(&rig)?, before);
    rig.gateway.stop()?;
    rig.gateway.run()?;
    assert_eq!(known(&rig)?, before);
    Ok(())
}

// V4, with the cache on
#[test]
fn a_cache_never_gives_one_version_the_answer_of_another() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[cache.c]
memory = "16MiB"
[route.api]
path = "/made/*"
to = "one"
cache = "c"
[route.api.version]
from = ["path", "header:x-api-version"]
default = "v1"
[route.api.version.v1]
[route.api.version.v2]
to = "two"
"#)?;
    let fresh = "x-answer: cache-control: max-age=60\r\n";
    // The first of each is fetched, whatever the others have left; what names the same version shares it.
    for (path, field, backend, hit) in [
        ("/made/a", "", 0, false),
        ("/made/a", "x-api-version: v2\r\n", 1, false),
        ("/made/a", "", 0, true),
        ("/made/a", "x-api-version: v2\r\n", 1, true),
        ("/v2/made/a", "", 1, true),
        ("/v1/made/a", "", 0, true),
    ] {
        let answer = ask(&rig, path, &format!("{fresh}{field}"))?;
        let status = answer.header("cache-status").unwrap_or_default().to_owned();
        let about = format!("{path} {field:?}: {} {status}", answer.status);
        assert_eq!((answer.status, answer.backend()), (200, &*rig.backends[backend].name), "{about}");
        assert_eq!(status.starts_with("gateway; hit"), hit, "{about}");
        let version = ["v1", "v2"][backend];
        assert_eq!(answer.header("api-version"), Some(version), "{about}");
    }
    Ok(())
}

// V6
#[test]
fn a_limit_of_one_version_does_not_touch_the_other() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[limit.old]
key = ["ip"]
rate = "3/h"
burst = 3
[route.api]
path = "/echo/*"
to = "one"
[route.api.version]
from = ["header:x-api-version"]
default = "v2"
[route.api.version.v1]
limit = ["old"]
[route.api.version.v2]
to = "two"
"#)?;
    let old = "x-api-version: v1\r\n";
    for _ in 0..3 {
        assert_eq!(ask(&rig, "/echo/1", old)?.status, 200);
    }
    let refused = ask(&rig, "/echo/1", old)?;
    refused.refused(429, "limited")?;
    let line = rig.gateway.log_of(&refused)?;
    assert_eq!((&line["version"], &line["limit"]), (&json!("v1"), &json!("old")), "{line}");
    for _ in 0..5 {
        assert_eq!(ask(&rig, "/echo/1", "")?.status, 200);
    }
    Ok(())
}

// Of routes, and so of versions
#[test]
fn a_version_has_time_limits_of_its_own() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.api]
path = "/*"
to = "one"
timeout = { first_byte = "5s" }
[route.api.version]
from = ["header:x-api-version"]
default = "v1"
[route.api.version.v1]
[route.api.version.v2]
timeout = { first_byte = "200ms" }
[route.api.version.v3]
timeout = { idle = "200ms" }
[route.api.version.v4]
timeout = { total = "200ms" }
"#)?;
    let slow = |version: &str| ask(&rig, "/slow-header?ms=800", &format!("x-api-version: {version}\r\n"));
    assert_eq!(slow("v1")?.status, 200);
    slow("v2")?.refused(504, "upstream_first_byte_timeout")?;
    assert_eq!(slow("v3")?.status, 200);
    slow("v4")?.refused(504, "upstream_total_timeout")?;
    let mut client = rig.client()?;
    client.send("GET /hang-body HTTP/1.1\r\nhost: a\r\nx-api-version: v3\r\n\r\n")?;
    client.head()?;
    client.until_closed()?;
    assert_eq!(rig.gateway.log_of_path("/hang-body")?["why"], "upstream_idle_timeout");
    Ok(())
}
