//! Traces (M6).

use std::process::Stdio;

use lab::{gateway::simple_config, prelude::*, process::Process};

use super::{listens, read, rig};

/// What OpenTelemetry's collector does of OTLP over HTTP: takes what is posted, and writes it down. `fail` posts are
/// answered 503 first. Log records stand in a file of their own.
const COLLECTOR: &str = r#"
import http.server, json, sys
left = int(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global left
        body = self.rfile.read(int(self.headers["content-length"]))
        if left > 0:
            left -= 1
            self.send_response(503)
        else:
            of = {"/v1/traces": ("resourceSpans", "scopeSpans", "spans"), "/v1/logs": ("resourceLogs", "scopeLogs", "logRecords")}
            resources, scopes, records = of[self.path]
            assert self.headers["content-type"] == "application/json"
            for resource in json.loads(body)[resources]:
                about = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
                assert about["service.name"] == {"stringValue": "gateway"}
                for scope in resource[scopes]:
                    with open(sys.argv[1].replace("spans", records), "a") as out:
                        for record in scope[records]: out.write(json.dumps(record) + "\n")
            self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 4318), Handler).serve_forever()
"#;

pub fn collector(rig: &Rig, fail: usize) -> Result<Process> {
    let mut command = rig.net.gateway.command("python3")?;
    command.args(["-c", COLLECTOR]).arg(rig.gateway.file("spans")).arg(fail.to_string());
    command.stdin(Stdio::null());
    let collector = Process::start(command)?;
    listens(&rig.net.gateway, 4318)?;
    Ok(collector)
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
    found["stringValue"].as_str().or(found["intValue"].as_str()).map(str::to_owned)
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
