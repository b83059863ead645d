//! Traces (M6).

use lab::{certs::Authority, gateway::simple_config, prelude::*, process::Process};

use super::{read, receiver, rig};

/// What OpenTelemetry's collector does of OTLP over HTTP: takes what is posted, and writes it down. Log records stand in a
/// file of their own.
const COLLECTOR: &str = r#"
def take(handler, body):
    of = {"/v1/traces": ("resourceSpans", "scopeSpans", "spans"), "/v1/logs": ("resourceLogs", "scopeLogs", "logRecords")}
    resources, scopes, records = of[handler.path]
    assert handler.headers["content-type"] == "application/json"
    for resource in json.loads(body)[resources]:
        about = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
        assert about["service.name"] == {"stringValue": "gateway"}
        for scope in resource[scopes]:
            with open(into.replace("spans", records), "a") as out:
                for record in scope[records]: out.write(json.dumps(record) + "\n")
"#;

/// The first `fail` posts are answered 503.
pub fn collector(rig: &Rig, fail: usize) -> Result<Process> {
    receiver(&rig.net.gateway, 4318, COLLECTOR, &rig.gateway.file("spans"), (fail, 503))
}

pub fn spans(rig: &Rig) -> Vec<Value> {
    read(rig, "spans").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub fn tracing(rig: &Rig, keys: &str) -> Result<()> {
    let log = rig.gateway.file("access.log").display().to_string();
    let config = simple_config(&rig.backends);
    let tail = format!("[access_log]\nto = \"{log}\"\nredact = [\"query:token\"]\n");
    rig.gateway.write(&format!("{config}\n{tail}\n[tracing]\notlp = \"http://127.0.0.1:4318\"\n{keys}\n"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    Ok(())
}

pub fn attribute(span: &Value, key: &str) -> Option<String> {
    let all = span["attributes"].as_array()?;
    let found = &all.iter().find(|attribute| attribute["key"] == key)?["value"];
    let text = found["stringValue"].as_str().or(found["intValue"].as_str()).map(str::to_owned);
    text.or(found["boolValue"].as_bool().map(|flag| flag.to_string()))
}

/// The fields that the upstream got, a line each.
pub fn sent(answer: &Response) -> Result<String> {
    let echo = answer.json()?;
    let field =
        |pair: &Value| format!("{}: {}\n", pair[0].as_str().unwrap_or(""), pair[1].as_str().unwrap_or(""));
    Ok(echo["headers"].as_array().context("no echo")?.iter().map(field).collect::<String>().to_lowercase())
}

pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

// M6
#[test]
fn a_trace_goes_on_through_the_gateway_and_its_spans_reach_a_collector() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _collector = collector(&rig, 2)?;
    tracing(&rig, "share = \"0%\"\nserver_timing = true")?;
    let fields = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n");
    let answer = rig.ask("GET /echo?token=s3cret&x=1", "a.test", &fields)?;
    let sent = sent(&answer)?;
    assert!(
        sent.contains(&format!("traceparent: 00-{TRACE}-")) && sent.contains("tracestate: a=b"),
        "{sent}"
    );
    let timing = answer.header("server-timing").context("no times")?;
    assert!(timing.starts_with("gateway;dur=") && timing.contains("upstream;dur="), "{timing}");
    eventually("the spans are there", || Ok(spans(&rig).len() >= 3))?;
    let all = spans(&rig);
    let of_kind = |kind: u64| all.iter().find(|span| span["kind"] == kind).context("no such span");
    let (server, client) = (of_kind(2)?, of_kind(3)?);
    assert!(all.iter().all(|span| span["traceId"] == TRACE), "{all:?}");
    assert_eq!(server["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(client["parentSpanId"], server["spanId"]);
    let ours = client["spanId"].as_str().context("no id")?;
    assert!(
        sent.contains(&format!("{TRACE}-{ours}-01")),
        "the upstream's parent is the client's span: {sent}"
    );
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/echo"),
        ("url.query", "token=***&x=1"),
        ("gateway.route", "all"),
    ] {
        assert_eq!(attribute(server, key).as_deref(), Some(value), "{key} in {server}");
    }
    let time = |span: &Value, key: &str| span[key].as_str().and_then(|n| n.parse::<u128>().ok()).unwrap_or(0);
    assert!(time(server, "startTimeUnixNano") <= time(client, "startTimeUnixNano"));
    assert!(time(server, "endTimeUnixNano") >= time(client, "startTimeUnixNano"));
    assert!(all.iter().any(|span| span["name"] == "connect" && span["parentSpanId"] == server["spanId"]));
    assert_eq!(rig.gateway.log_of(&answer)?["trace"], TRACE);
    Ok(())
}

// M6
#[test]
pub fn spans_say_who_called_what_the_cache_did_and_how_long_it_took_to_find_out() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _collector = collector(&rig, 2)?;
    let hash = blake3::hash(b"s3cret").to_hex();
    tracing(
        &rig,
        &format!(
            "share = \"100%\"\n[auth.key]\ntype = \"api-key\"\nfrom = [\"header:x-key\"]\n\
             [consumer.acme]\nkeys = [{{ id = \"k\", hash = \"blake3:{hash}\" }}]\n\
             [cache.c]\nmemory = \"16MiB\"\n[route.mine]\npath = \"/echo/*\"\nto = {}\nauth = \"key\"\n\
             cache = \"c\"\n",
            lab::backend::targets(&rig.backends)
        ),
    )?;
    assert_eq!(rig.ask("GET /echo/1", "a.test", "x-key: s3cret\r\n")?.status, 200);
    assert_eq!(rig.ask("GET /echo/1", "a.test", "")?.status, 401);
    eventually("both requests are told", || {
        Ok(spans(&rig).iter().filter(|span| span["kind"] == 2).count() == 2)
    })?;
    let all = spans(&rig);
    let server = |status: &str| {
        let is = |span: &&Value| attribute(span, "http.response.status_code").as_deref() == Some(status);
        all.iter().filter(|span| span["kind"] == 2).find(is).context("no such span")
    };
    let (good, bad) = (server("200")?, server("401")?);
    assert_eq!(attribute(good, "gateway.consumer").as_deref(), Some("acme"));
    assert_eq!(attribute(good, "gateway.cache").as_deref(), Some("miss"));
    assert_eq!(attribute(bad, "gateway.consumer"), None);
    for parent in [good, bad] {
        let mut auth = all.iter().filter(|span| span["name"] == "auth");
        assert!(auth.any(|span| span["parentSpanId"] == parent["spanId"]), "{all:?}");
    }
    Ok(())
}

// M6
#[test]
fn traces_are_sampled_by_share_and_by_parent_and_b3_is_passed_on() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _collector = collector(&rig, 0)?;
    tracing(&rig, "share = \"0%\"")?;
    let unsampled = rig.ask("GET /echo", "a", &format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\n"))?;
    assert!(sent(&unsampled)?.contains(&format!("traceparent: 00-{TRACE}-")), "it still goes on");
    let own = rig.ask("GET /echo", "a", "")?;
    let line = rig.gateway.log_of(&own)?;
    let trace = line["trace"].as_str().context("a trace of its own")?.to_owned();
    assert!(sent(&own)?.contains(&format!("traceparent: 00-{trace}-")));
    let b3 = rig.ask("GET /echo", "a", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1\r\n")?;
    assert!(sent(&b3)?.contains("b3: 80f198ee56343ba864fe8b2a57d3eff7-"), "{}", sent(&b3)?);
    eventually("only what B3 sampled is told", || Ok(!spans(&rig).is_empty()))?;
    assert!(spans(&rig).iter().all(|span| span["traceId"] == "80f198ee56343ba864fe8b2a57d3eff7"));
    tracing(&rig, "share = \"100%\"\ntrust_parent = false")?;
    let before = spans(&rig).len();
    let fields = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\ntracestate: a=b\r\n");
    let stranger = sent(&rig.ask("GET /echo", "a", &fields)?)?;
    assert!(!stranger.contains(TRACE) && !stranger.contains("tracestate"), "{stranger}");
    eventually("it is told", || Ok(spans(&rig).len() > before))?;
    Ok(())
}

// M6
#[test]
fn a_collector_that_is_gone_costs_no_request_anything_and_spans_are_counted() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    tracing(&rig, "share = \"100%\"")?;
    let mut client = rig.client()?;
    for _ in 0..50 {
        let began = Instant::now();
        assert_eq!(client.get("/")?.status, 200);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    within(Duration::from_secs(15), "they are counted", || {
        let lost = rig.gateway.metrics()?.sum("trace_spans_total", &[("result", "failed")]);
        Ok((lost >= 100.0).then_some(()))
    })?;
    Ok(())
}

/// When a span began and ended, in nanoseconds since 1970.
fn times(span: &Value) -> (u128, u128) {
    let time = |key: &str| span[key].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
    (time("startTimeUnixNano"), time("endTimeUnixNano"))
}

/// A gateway that is its own upstream: what comes in clear for twice.test goes on by TLS to the other listener, spoken as
/// `protocol` says. All is told.
fn to_itself(protocol: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let authority = Authority::new()?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\n[listener.tls]\nbind = \":443\"\ntls = {{ cert = \"own\" }}\n\
         [cert.own]\nchain = \"own.pem\"\nkey = {{ file = \"own.key\" }}\n\
         [upstream.self]\nto = \"https://{VIP4}:443\"\nprotocol = \"{protocol}\"\ntls = {{ sni = \"a.test\", ca = \"ca.pem\" }}\n\
         [route.twice]\nhost = \"twice.test\"\nto = \"self\"\nrewrite = {{ set = {{ host = \"a.test\" }} }}\n\
         [route.all]\nto = {}\n[tracing]\notlp = \"http://127.0.0.1:4318\"\nshare = \"100%\"\n",
        lab::backend::targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    authority.issue(&["a.test"])?.write(&gateway.file(""), "own")?;
    gateway.run()?;
    Ok(Rig::of(gateway, backends, net, turn))
}

// M6
#[test]
fn handshakes_with_the_client_and_with_the_upstream_are_spans_of_the_request_that_waited_for_them()
-> Result<()> {
    lab_test!();
    let rig = to_itself("h1")?;
    let _collector = collector(&rig, 0)?;
    assert_eq!(rig.ask("GET /echo", "twice.test", "")?.status, 200);
    // One more on the connection that is kept.
    assert_eq!(rig.ask("GET /echo", "twice.test", "")?.status, 200);
    let servers = || spans(&rig).iter().filter(|span| span["kind"] == 2).count();
    eventually("all four requests are told", || Ok(servers() == 4))?;
    let all = spans(&rig);
    let named = |name: &str| all.iter().filter(|span| span["name"] == name).collect::<Vec<_>>();
    let parent = |span: &Value| {
        let id = &span["parentSpanId"];
        all.iter().find(|one| one["spanId"] == *id).cloned().unwrap_or_default()
    };
    let (theirs, ours) = (named("tls"), named("upstream tls"));
    assert_eq!((theirs.len(), ours.len()), (1, 1), "each handshake once: {all:?}");
    for (span, next) in [(theirs[0], "http/1.1"), (ours[0], "http/1.1")] {
        for (key, value) in [
            ("tls.protocol.name", "tls"),
            ("tls.protocol.version", "1.3"),
            ("tls.next_protocol", next),
            ("tls.resumed", "false"),
        ] {
            assert_eq!(attribute(span, key).as_deref(), Some(value), "{key} in {span}");
        }
        let cipher = attribute(span, "tls.cipher").unwrap_or_default();
        assert!(cipher.starts_with("TLS_") && cipher.contains("_GCM_SHA"), "{cipher}");
        let (from, to) = times(span);
        assert!(from > 0 && from < to, "{span}");
    }
    let (inner, outer) = (parent(theirs[0]), parent(ours[0]));
    assert_eq!(attribute(&inner, "gateway.listener").as_deref(), Some("tls"));
    assert_eq!(attribute(&outer, "gateway.listener").as_deref(), Some("web"));
    assert_eq!(inner["traceId"], outer["traceId"], "one trace through both");
    assert!(times(theirs[0]).1 <= times(&inner).0, "it was over before the request: {inner}");
    let connect =
        all.iter().find(|span| span["name"] == "connect" && span["parentSpanId"] == outer["spanId"]);
    let connect = times(connect.context("no connect")?);
    let shaken = times(ours[0]);
    assert!(connect.0 <= shaken.0 && shaken.1 <= connect.1 + 1_000_000, "{connect:?} {shaken:?}");
    assert_eq!(attribute(&inner, "server.address").as_deref(), Some("a.test"));
    assert_eq!(attribute(&inner, "network.protocol.name").as_deref(), Some("http"));
    Ok(())
}

// M6
#[test]
fn a_handshake_for_many_requests_is_a_span_of_the_one_that_made_it() -> Result<()> {
    lab_test!();
    let rig = to_itself("h2")?;
    let _collector = collector(&rig, 0)?;
    // They come while the gateway stands, and so are there at once.
    let mut clients = (0..3).map(|_| rig.client()).collect::<Result<Vec<_>>>()?;
    rig.gateway.signal(libc::SIGSTOP)?;
    for client in &mut clients {
        client.send("GET /echo HTTP/1.1\r\nhost: twice.test\r\n\r\n")?;
    }
    rig.gateway.signal(libc::SIGCONT)?;
    for client in &mut clients {
        assert_eq!(client.response()?.status, 200);
    }
    let servers = || spans(&rig).iter().filter(|span| span["kind"] == 2).count();
    eventually("all six requests are told", || Ok(servers() == 6))?;
    let all = spans(&rig);
    let named = |name: &str| all.iter().filter(|span| span["name"] == name).collect::<Vec<_>>();
    let ours = named("upstream tls");
    assert_eq!(ours.len(), 1, "the handshake once: {all:?}");
    assert_eq!(attribute(ours[0], "tls.next_protocol").as_deref(), Some("h2"));
    let connects: Vec<_> =
        named("connect").into_iter().filter(|one| one["traceId"] == ours[0]["traceId"]).collect();
    let of_it = |one: &&&Value| one["parentSpanId"] == ours[0]["parentSpanId"];
    let connect = times(connects.iter().find(of_it).context("no connect")?);
    let shaken = times(ours[0]);
    assert!(connect.0 <= shaken.0 && shaken.1 <= connect.1 + 1_000_000, "{connect:?} {shaken:?}");
    Ok(())
}

// M6
#[test]
fn spans_tell_what_a_cache_found_and_what_came_of_asking_again() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _collector = collector(&rig, 0)?;
    let target = &rig.backends[0].addr;
    tracing(
        &rig,
        &format!(
            "share = \"100%\"\n[cache.c]\nmemory = \"16MiB\"\n[route.made]\npath = \"/made/*\"\nto = [\"{target}\"]\ncache = \"c\"\n"
        ),
    )?;
    let get = |fields: &str| {
        rig.ask(
            "GET /made/a",
            "a.test",
            &format!("x-answer: cache-control: max-age=60|etag: \"1\"\r\n{fields}"),
        )
    };
    get("")?;
    get("")?;
    // It is to be asked whether it still holds.
    get("cache-control: no-cache\r\n")?;
    let lookups =
        || spans(&rig).into_iter().filter(|span| span["name"] == "cache lookup").collect::<Vec<_>>();
    eventually("all are told", || Ok(lookups().len() == 3))?;
    let found: Vec<_> = lookups().iter().map(|span| attribute(span, "gateway.cache.found")).collect();
    assert_eq!(found, ["nothing", "fresh", "stale"].map(|word| Some(word.to_owned())));
    assert!(lookups().iter().all(|span| attribute(span, "gateway.cache.tier").as_deref() == Some("memory")));
    let all = spans(&rig);
    let again: Vec<_> = all.iter().filter(|span| span["name"] == "cache revalidate").collect();
    let [again] = again[..] else { bail!("{again:?}") };
    assert_eq!(attribute(again, "gateway.cache.revalidated").as_deref(), Some("true"), "{again}");
    let server = all.iter().find(|span| span["spanId"] == again["parentSpanId"]).context("no parent")?;
    assert_eq!(attribute(server, "gateway.cache").as_deref(), Some("revalidated"), "{server}");
    let client = all.iter().find(|span| span["kind"] == 3 && span["parentSpanId"] == server["spanId"]);
    let (outer, inner) = (times(again), times(client.context("it was asked")?));
    assert!(outer.0 <= inner.0, "{outer:?} {inner:?}");
    Ok(())
}

// M6
#[test]
fn spans_of_what_failed_say_why_by_our_word_or_by_the_status() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _collector = collector(&rig, 0)?;
    tracing(&rig, "share = \"100%\"")?;
    rig.ask("GET /status/503", "a.test:8080", "")?;
    rig.ask("GET /close", "[2001:db8::1]:8080", "")?;
    rig.ask("GET /", "a.test", "")?;
    let servers = || spans(&rig).into_iter().filter(|span| span["kind"] == 2).collect::<Vec<_>>();
    eventually("all are told", || Ok(servers().len() == 3))?;
    let all = spans(&rig);
    let of = |kind: u64, path: &str| {
        let server =
            servers().into_iter().find(|span| attribute(span, "url.path").as_deref() == Some(path))?;
        if kind == 2 {
            Some(server)
        } else {
            all.iter().find(|span| span["kind"] == kind && span["parentSpanId"] == server["spanId"]).cloned()
        }
    };
    for (path, kind, error, status) in [
        ("/status/503", 2, Some("503"), json!(2)),
        ("/status/503", 3, Some("503"), json!(2)),
        ("/close", 2, Some("upstream_reset"), json!(2)),
        ("/close", 3, Some("upstream_reset"), json!(2)),
        ("/", 2, None, Value::Null),
        ("/", 3, None, Value::Null),
    ] {
        let span = of(kind, path).context("no such span")?;
        assert_eq!(attribute(&span, "error.type").as_deref(), error, "{span}");
        assert_eq!(span["status"]["code"], status, "{span}");
    }
    let client = of(3, "/status/503").context("no span")?;
    assert_eq!(attribute(&client, "http.response.status_code").as_deref(), Some("503"));
    for (path, address, port) in [
        ("/status/503", "a.test", Some("8080")),
        ("/close", "2001:db8::1", Some("8080")),
        ("/", "a.test", None),
    ] {
        let span = of(2, path).context("no span")?;
        assert_eq!(attribute(&span, "server.address").as_deref(), Some(address), "{span}");
        assert_eq!(attribute(&span, "server.port").as_deref(), port, "{span}");
    }
    Ok(())
}
