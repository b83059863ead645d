//! Seeing what goes on: the live view (M8), sinks and shapes of the access log (M5), traces (M6), alerts (M7), why (M10).

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    process::Stdio,
};

use lab::{
    gateway::simple_config,
    net::Namespace,
    packet::{Frame, Sender},
    prelude::*,
    process::{Lines, Process},
};

fn rig() -> Result<Rig> {
    Rig::start(2, simple_config)
}

// M8
#[test]
fn top_prints_one_look_of_both_halves_for_scripts() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let command = |arguments: &[&str]| -> Result<Process> {
        let mut command = rig.gateway.cli_command()?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        Process::start(command)
    };
    let mut top = command(&["top", "--interval", "2s", "-o", "json"])?;
    std::thread::sleep(Duration::from_millis(700));
    let mut client = rig.client()?;
    for _ in 0..20 {
        client.get("/")?;
    }
    client.get("/status/503")?;
    let mut text = String::new();
    top.child.stdout.take().context("no stdout")?.read_to_string(&mut text)?;
    assert!(top.wait(Duration::from_secs(10))?.success());
    let look: Value = serde_json::from_str(&text)?;
    let rates = &look["rates"];
    let seconds = rates["seconds"].as_f64().context("no seconds")?;
    let requests = rates["routes"]["all"]["requests"].as_f64().context("no rate")? * seconds;
    assert!((requests - 21.0).abs() < 0.01, "{text}");
    let errors = rates["routes"]["all"]["errors"].as_f64().context("no rate")? * seconds;
    assert!((errors - 1.0).abs() < 0.01, "{text}");
    assert!(rates["duration"]["p99_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{text}");
    assert!(rates["packets"]["pass"].as_object().is_some_and(|by| !by.is_empty()), "{text}");
    let shown = rig.gateway.cli(&["top", "--once", "--interval", "100ms"])?.ok()?;
    for text in ["ROUTE", "UPSTREAM", "PACKETS/S", "all"] {
        assert!(shown.stdout.contains(text), "{text} in {shown:?}");
    }
    assert!(shown.stdout.lines().all(|line| line.chars().count() <= 80), "{shown:?}");
    Ok(())
}

// M8
#[test]
fn top_draws_on_a_terminal_drains_a_target_by_a_key_and_leaves_it_as_it_was() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    // script(1) is a terminal.
    let gateway = lab::tools::gateway()?;
    let run = format!(
        "stty rows 24 cols 80; exec {} --socket {} top",
        gateway.display(),
        rig.gateway.socket().display()
    );
    let mut command = rig.net.gateway.command("script")?;
    command.args(["-q", "-e", "-c", &run, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut top = Process::start(command)?;
    let mut keys = top.child.stdin.take().context("no stdin")?;
    let mut screen = top.child.stdout.take().context("no stdout")?;
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = screen.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    });
    std::thread::sleep(Duration::from_secs(2));
    keys.write_all(b"2")?;
    std::thread::sleep(Duration::from_millis(500));
    keys.write_all(b"dy")?;
    eventually("a target is drained", || {
        let status = rig.gateway.status()?;
        let targets = status["upstreams"]["all"]["targets"].as_array().cloned().unwrap_or_default();
        Ok(targets.iter().any(|target| target["state"] == "draining"))
    })?;
    keys.write_all(b"q")?;
    assert!(top.wait(Duration::from_secs(10))?.success());
    drop(keys);
    let screen = reader.join().unwrap_or_default();
    assert!(screen.contains("Upstreams") && screen.contains("Drain"), "{screen}");
    assert!(screen.contains("\u{1b}[?1049l"), "the terminal's own screen is back: {screen}");
    Ok(())
}

/// A config whose access log has these keys; `{dir}` is the gateway's own folder.
fn logging(rig: &Rig, keys: &str) -> String {
    let dir = rig.gateway.file("").display().to_string();
    format!("{}\n[access_log]\n{}\n", simple_config(&rig.backends), keys.replace("{dir}", &dir))
}

fn relog(rig: &Rig, keys: &str) -> Result<()> {
    rig.gateway.write(&logging(rig, keys))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    Ok(())
}

fn read(rig: &Rig, name: &str) -> String {
    std::fs::read_to_string(rig.gateway.file(name)).unwrap_or_default()
}

fn lines(rig: &Rig, result: &str) -> Result<f64> {
    Ok(rig.gateway.metrics()?.sum("access_log_lines_total", &[("result", result)]))
}

// M5
#[test]
fn a_sampled_log_has_every_error_and_every_slow_request() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    relog(&rig, "to = \"{dir}/access.log\"\nkeep = { ok = \"0%\", slow = \"300ms\" }")?;
    let mut client = rig.client()?;
    for _ in 0..5 {
        client.get("/")?;
    }
    client.get("/status/404")?;
    client.get("/status/503")?;
    client.get("/slow-header?ms=350")?;
    eventually("the slow one", || Ok(read(&rig, "access.log").contains("/slow-header")))?;
    let paths: Vec<Value> = rig.gateway.log()?.into_iter().map(|line| line["path"].clone()).collect();
    assert_eq!(paths, [json!("/status/404"), json!("/status/503"), json!("/slow-header")]);
    eventually("the others are counted", || {
        Ok(lines(&rig, "sampled")? == 5.0 && lines(&rig, "written")? == 3.0)
    })?;
    Ok(())
}

// M5
#[test]
fn lines_have_the_shape_that_is_asked_for_and_nothing_that_is_redacted() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    relog(
        &rig,
        "to = \"{dir}/combined.log\"\nformat = \"combined\"\nredact = [\"query:token\", \"header:referer\"]",
    )?;
    let ask = "GET /a?token=s3cret&x=1";
    rig.ask(ask, "a.test", "user-agent: lab\r\nreferer: http://s3cret/\r\n")?;
    eventually("a line", || Ok(read(&rig, "combined.log").ends_with('\n')))?;
    let line = read(&rig, "combined.log");
    let client = rig.net.client(1).v4();
    assert!(line.starts_with(&format!("{client} - - [")), "{line}");
    assert!(line.ends_with("\"GET /a?token=***&x=1 HTTP/1.1\" 200 128 \"***\" \"lab\"\n"), "{line}");
    relog(&rig, "to = \"{dir}/own.log\"\nformat = \"${status} ${route} ${why}\"")?;
    rig.ask("GET /", "a.test", "")?;
    eventually("a line", || Ok(read(&rig, "own.log") == "200 all -\n"))?;
    Ok(())
}

// M5
#[test]
fn a_log_rotates_itself_and_loses_no_line() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    relog(&rig, "to = \"{dir}/access.log\"\nrotate = { size = \"4KiB\", files = 50 }")?;
    let mut client = rig.client()?;
    for _ in 0..3 {
        for _ in 0..20 {
            client.get("/")?;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    let all = || -> usize {
        let names =
            std::iter::once("access.log".to_owned()).chain((1..50).map(|n| format!("access.log.{n}")));
        names.map(|name| read(&rig, &name).lines().count()).sum()
    };
    eventually("all lines are there", || Ok(all() == 60))?;
    assert!(rig.gateway.file("access.log.1").exists(), "it was rotated");
    Ok(())
}

// M5
#[test]
fn neither_a_full_disk_nor_a_reader_that_hangs_or_dies_stalls_a_request_and_lines_are_counted() -> Result<()>
{
    lab_test!();
    let rig = rig()?;
    relog(&rig, "to = \"/dev/full\"")?;
    let mut client = rig.client()?;
    assert_eq!(client.get("/")?.status, 200);
    eventually("the line is counted", || Ok(lines(&rig, "failed")? == 1.0))?;
    // Nobody there, then somebody who reads nothing, then somebody who reads.
    relog(&rig, "to = \"unix:{dir}/log.sock\"")?;
    client.get("/")?;
    eventually("the line is counted", || Ok(lines(&rig, "failed")? == 2.0))?;
    let socket = rig.gateway.file("log.sock");
    let hangs = UnixListener::bind(&socket)?;
    std::thread::sleep(Duration::from_millis(600));
    let mut slowest = Duration::ZERO;
    for _ in 0..3000 {
        let began = Instant::now();
        assert_eq!(client.get("/")?.status, 200);
        slowest = slowest.max(began.elapsed());
    }
    eventually("lines are given up", || Ok(lines(&rig, "failed")? + lines(&rig, "dropped")? > 2.0))?;
    assert!(slowest < Duration::from_millis(800), "{slowest:?}");
    drop(hangs);
    std::fs::remove_file(&socket)?;
    let listener = UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let mut reader = within(Duration::from_secs(10), "it connects again", || {
        client.get("/again")?;
        Ok(listener.accept().ok())
    })?
    .0;
    reader.set_nonblocking(false)?;
    reader.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = [0; 64];
    reader.read_exact(&mut text)?;
    assert!(text.starts_with(b"{\"ts\":"), "{text:?}");
    Ok(())
}

// M5, K15
#[test]
fn drops_and_bans_stand_in_the_log_beside_requests_and_requests_can_be_observed() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    let backends = lab::backend::start_all(&net)?;
    let config = simple_config(&backends);
    let gateway =
        Gateway::start(&net, &format!("{config}[kernel]\nblock = {{ cidrs = [\"10.102.9.0/24\"] }}\n"))?;
    let log = gateway.file("access.log");
    gateway.write(&format!(
        "{config}[kernel]\nblock = {{ cidrs = [\"10.102.9.0/24\"] }}\n[access_log]\nto = \"{}\"\nevents = true\n",
        log.display()
    ))?;
    gateway.cli(&["reload"])?.ok()?;
    let mut command = gateway.cli_command()?;
    command.args(["observe", "-f", "route=all", "status>=500", "not", "client=192.0.2.0/24"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut observe = Process::start(command)?;
    let seen = observe.child.stdout.take().map(Lines::collect).context("no stdout")?;
    gateway.cli(&["ban", "add", "192.0.2.7", "--for", "1h"])?.ok()?;
    let attacker = net.attacker();
    let frame = Frame::udp(attacker, (attacker.many_v4(0x0901), 1000), (VIP4, 53)).bytes();
    Sender::open(attacker)?.send_all(&[frame])?;
    gateway.log_line("the drop", |line| line["event"] == "drop" && line["source"] == "10.102.9.1")?;
    let ban = gateway.log_line("the ban", |line| line["event"] == "ban")?;
    assert_eq!(ban["cidr"], "192.0.2.7/32");
    assert!(ban["ts"].as_str().is_some_and(|ts| ts.ends_with('Z')), "{ban}");
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    eventually("it is observed", || {
        client.get("/")?;
        client.get("/status/503")?;
        Ok(seen.contain("/status/503"))
    })?;
    assert!(seen.all().iter().all(|line| line.contains(" request  503 ")), "{:?}", seen.all());
    drop((observe, gateway, backends, net, turn));
    Ok(())
}

/// What OpenTelemetry's collector does of OTLP over HTTP: takes what is posted, and writes it down. `fail` posts are
/// answered 503 first.
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
            assert self.path == "/v1/traces" and self.headers["content-type"] == "application/json"
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        with open(sys.argv[1], "a") as out: out.write(json.dumps(span) + "\n")
            self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 4318), Handler).serve_forever()
"#;

fn collector(rig: &Rig, fail: usize) -> Result<Process> {
    let mut command = rig.net.gateway.command("python3")?;
    command.args(["-c", COLLECTOR]).arg(rig.gateway.file("spans")).arg(fail.to_string());
    command.stdin(Stdio::null());
    let collector = Process::start(command)?;
    listens(&rig.net.gateway, 4318)?;
    Ok(collector)
}

fn spans(rig: &Rig) -> Vec<Value> {
    read(rig, "spans").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn tracing(rig: &Rig, keys: &str) -> Result<()> {
    let log = rig.gateway.file("access.log").display().to_string();
    let config = simple_config(&rig.backends);
    let tail = format!("[access_log]\nto = \"{log}\"\nredact = [\"query:token\"]\n");
    rig.gateway.write(&format!("{config}\n{tail}\n[tracing]\notlp = \"http://127.0.0.1:4318\"\n{keys}\n"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    Ok(())
}

fn attribute(span: &Value, key: &str) -> Option<String> {
    let all = span["attributes"].as_array()?;
    let found = &all.iter().find(|attribute| attribute["key"] == key)?["value"];
    found["stringValue"].as_str().or(found["intValue"].as_str()).map(str::to_owned)
}

/// The fields that the upstream got, a line each.
fn sent(answer: &Response) -> Result<String> {
    let echo = answer.json()?;
    let field =
        |pair: &Value| format!("{}: {}\n", pair[0].as_str().unwrap_or(""), pair[1].as_str().unwrap_or(""));
    Ok(echo["headers"].as_array().context("no echo")?.iter().map(field).collect::<String>().to_lowercase())
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

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
fn spans_say_who_called_what_the_cache_did_and_how_long_it_took_to_find_out() -> Result<()> {
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

/// Takes webhooks and writes down what is posted, a line each; the first `fail` of them are answered 500.
const WEBHOOK: &str = r#"
import http.server, sys
left = int(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global left
        body = self.rfile.read(int(self.headers["content-length"]))
        if left > 0:
            left -= 1
            self.send_response(500)
        else:
            with open(sys.argv[1], "ab") as out: out.write(body + b"\n")
            self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 5001), Handler).serve_forever()
"#;

fn listens(namespace: &Namespace, port: u16) -> Result<()> {
    within(Duration::from_secs(15), "it listens", || {
        let open = namespace.run(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(open.then_some(()))
    })
}

fn alerting(rig: &Rig, rest: &str) -> Result<()> {
    let log = rig.gateway.file("access.log").display().to_string();
    let state = rig.gateway.file("state").display().to_string();
    let config = simple_config(&rig.backends);
    let own =
        format!("[state]\ndirectory = \"{state}\"\n{config}\n[access_log]\nto = \"{log}\"\nevents = true\n");
    rig.gateway.write(&format!("{own}{rest}"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    Ok(())
}

const ERRORS: &str = "
[alert.errors]
when = \"errors\"
route = \"all\"
above = \"20%\"
over = \"2s\"
resolve_after = \"1s\"
notify = [\"ops\", \"slack\"]
[alert.alive]
when = \"dead-man\"
repeat = \"1s\"
notify = [\"ops\"]
[notify.ops]
webhook = { env = \"OPS_WEBHOOK\" }
[notify.slack]
webhook = \"http://127.0.0.1:5001/\"
format = \"slack\"
";

// M7
#[test]
fn an_alert_fires_is_told_with_retries_and_resolves_and_can_be_silenced() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let variables = vec![("OPS_WEBHOOK".to_owned(), "http://127.0.0.1:5001/ops".to_owned())];
    let options = lab::gateway::Options { variables, ..Default::default() };
    let gateway = Gateway::start_with(&net, &simple_config(&backends), options)?;
    let (gateway, backends, net) = (&gateway, &backends, &net);
    let _turn = turn;
    let mut command = net.gateway.command("python3")?;
    command.args(["-c", WEBHOOK]).arg(gateway.file("posted")).arg("1").stdin(Stdio::null());
    let _webhook = Process::start(command)?;
    listens(&net.gateway, 5001)?;
    let state = gateway.file("state").display().to_string();
    gateway.write(&format!("[state]\ndirectory = \"{state}\"\n{}{ERRORS}", simple_config(backends)))?;
    gateway.cli(&["reload"])?.ok()?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    let mut ask = |path: &str| -> Result<()> {
        for _ in 0..20 {
            client.get(path)?;
        }
        Ok(())
    };
    let posted = || std::fs::read_to_string(gateway.file("posted")).unwrap_or_default();
    within(Duration::from_secs(20), "it is told", || {
        ask("/status/503")?;
        let posted = posted();
        let own = posted.contains("\"alert\":\"errors\"") && posted.contains("\"state\":\"firing\"");
        Ok((own && posted.contains(":rotating_light: *errors* firing")).then_some(()))
    })?;
    let listed = gateway.cli(&["alert", "list"])?;
    assert!(listed.code == 1 && listed.stdout.contains("of requests of route all fail"), "{listed:?}");
    assert!(gateway.cli(&["status"])?.stdout.contains("alert errors: "));
    assert_eq!(gateway.metrics()?.sum("alerts_firing", &[("alert", "errors")]), 1.0);
    within(Duration::from_secs(20), "it resolves", || {
        ask("/")?;
        Ok(posted().contains(":white_check_mark: *errors* resolved").then_some(()))
    })?;
    assert!(posted().contains("\"alert\":\"alive\""), "the heartbeat");
    assert!(gateway.metrics()?.sum("alert_messages_total", &[("result", "failed")]) >= 1.0);
    gateway.cli(&["alert", "silence", "errors", "--for", "1h", "--why", "known"])?.ok()?;
    let told = posted().matches("*errors* firing").count();
    within(Duration::from_secs(20), "it fires again", || {
        ask("/status/503")?;
        let rows = gateway.cli(&["alert", "list", "-o", "json"])?.json()?;
        let of =
            |name: &str| rows.as_array().and_then(|all| all.iter().find(|row| row["alert"] == name).cloned());
        let row = of("errors").context("no such alert")?;
        Ok((row["state"] == "firing" && row["silence"]["why"] == "known").then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(posted().matches("*errors* firing").count(), told, "nobody is told");
    assert_eq!(gateway.cli(&["alert", "silence", "nobody"])?.code, 5);
    Ok(())
}

// M7
#[test]
fn a_real_alertmanager_takes_alerts_and_their_end() -> Result<()> {
    lab_test!();
    if lab::tools::missing("prometheus-alertmanager") {
        lab::skip(
            "a_real_alertmanager_takes_alerts_and_their_end",
            "prometheus-alertmanager is not installed",
        );
        return Ok(());
    }
    let rig = rig()?;
    std::fs::write(rig.gateway.file("am.yml"), "route: { receiver: none }\nreceivers: [{ name: none }]\n")?;
    let mut command = rig.net.gateway.command("prometheus-alertmanager")?;
    command.arg(format!("--config.file={}", rig.gateway.file("am.yml").display()));
    command.arg(format!("--storage.path={}", rig.gateway.file("am").display()));
    command.args(["--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _manager = Process::start(command)?;
    listens(&rig.net.gateway, 9093)?;
    alerting(
        &rig,
        "[alert.down]\nwhen = \"upstream-down\"\nabove = \"10%\"\nresolve_after = \"0s\"\nnotify = \"am\"\nseverity = \"page\"\n\
         [notify.am]\nwebhook = \"http://127.0.0.1:9093\"\nformat = \"alertmanager\"\n",
    )?;
    let active = || -> Result<Vec<Value>> {
        let text =
            rig.net.gateway.output("curl", &["-sS", "http://127.0.0.1:9093/api/v2/alerts?active=true"])?;
        Ok(serde_json::from_str::<Value>(&text)?.as_array().cloned().unwrap_or_default())
    };
    assert_eq!(active()?.len(), 0);
    let target = format!("all/{}", rig.backends[0].addr);
    rig.gateway.cli(&["target", "down", &target])?.ok()?;
    let alert = within(Duration::from_secs(15), "Alertmanager has it", || Ok(active()?.into_iter().next()))?;
    assert_eq!(
        (&alert["labels"]["alertname"], &alert["labels"]["severity"]),
        (&json!("down"), &json!("page"))
    );
    assert!(alert["annotations"]["summary"].as_str().is_some_and(|text| text.contains("50.0%")), "{alert}");
    rig.gateway.log_line("it is in the log", |line| line["event"] == "alert" && line["state"] == "firing")?;
    rig.gateway.cli(&["target", "up", &target])?.ok()?;
    within(Duration::from_secs(15), "it is over", || Ok(active()?.is_empty().then_some(())))?;
    Ok(())
}

/// Names of metrics in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter_map(|word| word.strip_prefix("gateway_"));
    let base = |name: &str| name.strip_suffix("_bucket").unwrap_or(name).to_owned();
    ours.filter(|word| !word.is_empty()).map(base).collect()
}

// M1, M2
#[test]
fn a_real_prometheus_takes_the_metrics_the_rules_and_finds_what_the_dashboard_asks_for() -> Result<()> {
    lab_test!();
    if lab::tools::missing("promtool") || lab::tools::missing("prometheus") {
        lab::skip("a_real_prometheus_takes_the_metrics", "prometheus is not installed");
        return Ok(());
    }
    let rig = rig()?;
    rig.client()?.get("/")?;
    rig.client()?.get("/status/503")?;
    rig.client()?.get("/close")?;
    let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");
    let rules = format!("{packaging}/prometheus/gateway.rules.yml");
    let checked = rig.net.gateway.output("promtool", &["check", "rules", &rules])?;
    assert!(checked.contains("SUCCESS: 12 rules found"), "{checked}");
    let page = rig.gateway.ops("/metrics")?.text();
    std::fs::write(rig.gateway.file("metrics"), &page)?;
    let check = format!("promtool check metrics < {} 2>&1", rig.gateway.file("metrics").display());
    let complaints = rig.net.gateway.output("sh", &["-c", &check])?;
    assert_eq!(complaints.trim(), "", "promtool complains");

    std::fs::write(
        rig.gateway.file("prometheus.yml"),
        format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules}]\nscrape_configs:\n\
             - job_name: gateway\n  static_configs: [{{ targets: ['127.0.0.1:9180'] }}]\n"
        ),
    )?;
    let mut command = rig.net.gateway.command("prometheus")?;
    command.arg(format!("--config.file={}", rig.gateway.file("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", rig.gateway.file("tsdb").display()));
    command.arg("--web.listen-address=127.0.0.1:9090");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Process::start(command)?;
    listens(&rig.net.gateway, 9090)?;
    let query = |text: &str| -> Result<Value> {
        let url = "http://127.0.0.1:9090/api/v1/query";
        let query = format!("query={text}");
        let answer = rig.net.gateway.output("curl", &["-sS", "-G", url, "--data-urlencode", &query])?;
        Ok(serde_json::from_str::<Value>(&answer)?["data"]["result"].clone())
    };
    within(Duration::from_secs(20), "it is scraped", || {
        Ok((query("up{job=\"gateway\"}")?[0]["value"][1] == "1").then_some(()))
    })?;
    let requests = query("sum(gateway_http_requests_total{code=\"503\"})")?;
    assert_eq!(requests[0]["value"][1], "1", "{requests}");
    // What rules and the Grafana dashboard name is there, or comes with a feature that this config does not use.
    let dashboard = std::fs::read_to_string(format!("{packaging}/grafana/gateway.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut wanted = names(&std::fs::read_to_string(&rules)?);
    targets.for_each(|target| wanted.extend(names(target["expr"].as_str().unwrap_or_default())));
    assert!(wanted.len() > 15, "{wanted:?}");
    let elsewhere = ["cert_expiry_timestamp_seconds"];
    for name in wanted.iter().filter(|name| !elsewhere.contains(&name.as_str())) {
        assert!(page.contains(&format!("# TYPE gateway_{name} ")), "there is no gateway_{name}");
    }
    Ok(())
}

// M10
#[test]
fn why_tells_of_a_request_by_its_id_and_of_an_address_from_both_halves() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let cut = rig.ask("GET /close", "a", "")?;
    let id = cut.header("x-request-id").context("no id")?.to_owned();
    let told = rig.gateway.cli(&["why", &id])?.ok()?;
    for text in
        ["upstream_reset: The upstream closed", "the last target that was tried is", "route all", "/close"]
    {
        assert!(told.stdout.contains(text), "{text} in {told:?}");
    }
    let failed = rig.ask("GET /status/503", "a", "")?;
    let id = failed.header("x-request-id").context("no id")?.to_owned();
    let told = rig.gateway.cli(&["why", &id, "-o", "json"])?.ok()?.json()?;
    assert!(
        told["reasons"][0].as_str().is_some_and(|text| text.ends_with("of upstream all answered 503")),
        "{told}"
    );
    // What went well is not remembered.
    let fine = rig.ask("GET /", "a", "")?;
    let id = fine.header("x-request-id").context("no id")?.to_owned();
    assert_eq!(rig.gateway.cli(&["why", &id])?.code, 5);
    assert_eq!(rig.gateway.cli(&["why", "nonsense"])?.code, 5);
    let client = rig.net.client(1).v4().to_string();
    let told = rig.gateway.cli(&["why", &client])?.ok()?;
    assert!(told.stdout.contains("2 of its last requests were refused, failed or were slow"), "{told:?}");
    rig.gateway.cli(&["ban", "add", "192.0.2.0/24", "--why", "flood"])?.ok()?;
    let told = rig.gateway.cli(&["why", "192.0.2.7"])?.ok()?;
    assert!(told.stdout.contains("banned in the kernel as 192.0.2.0/24: flood"), "{told:?}");
    let told = rig.gateway.cli(&["why", "2001:db8::7"])?.ok()?;
    assert!(told.stdout.contains("nothing is held against it"), "{told:?}");
    Ok(())
}

// M1, M4, M6, M8
#[test]
fn log_metrics_traces_and_the_live_view_agree_with_the_client_to_the_last_request() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _collector = collector(&rig, 0)?;
    tracing(&rig, "share = \"100%\"")?;
    let counts = std::thread::scope(|threads| -> Result<BTreeMap<u16, u64>> {
        let run = |seed: usize| {
            let rig = &rig;
            move || -> Result<BTreeMap<u16, u64>> {
                let mut counts = BTreeMap::new();
                let mut client = rig.client()?;
                for n in 0..300 {
                    let path = match (n + seed) % 100 {
                        0 => "/status/503",
                        1 => "/status/404",
                        _ => "/",
                    };
                    *counts.entry(client.get(path)?.status).or_default() += 1;
                }
                Ok(counts)
            }
        };
        let all: Vec<_> = (0..4).map(|seed| threads.spawn(run(seed * 7))).collect();
        let mut sums = BTreeMap::new();
        for one in all {
            let Ok(counts) = one.join() else { bail!("a client panicked") };
            for (code, n) in counts? {
                *sums.entry(code).or_default() += n;
            }
        }
        Ok(sums)
    })?;
    assert_eq!(counts.values().sum::<u64>(), 1200);
    assert_eq!(counts[&503], 12);
    eventually("every line is written", || Ok(rig.gateway.log()?.len() == 1200))?;
    let mut logged = BTreeMap::new();
    for line in rig.gateway.log()? {
        *logged.entry(line["status"].as_u64().unwrap_or(0) as u16).or_default() += 1;
    }
    assert_eq!(logged, counts, "the log");
    let metrics = rig.gateway.metrics()?;
    let counted: BTreeMap<u16, u64> = metrics
        .by("http_requests_total", "code", &[("route", "all")])
        .iter()
        .filter_map(|(code, n)| Some((code.parse().ok()?, *n as u64)))
        .collect();
    assert_eq!(counted, counts, "the metrics");
    let top = rig.gateway.cli(&["top", "--interval", "100ms", "-o", "json"])?.ok()?.json()?;
    let route = |row: &&Value| row["route"] == "all";
    let row = top["stats"]["routes"].as_array().and_then(|rows| rows.iter().find(route)).context("no row")?;
    let shown: BTreeMap<u16, u64> = serde_json::from_value(row["codes"].clone())?;
    assert_eq!(shown, counts, "the live view");
    within(Duration::from_secs(20), "every trace is told", || {
        let mut told = BTreeMap::new();
        for span in spans(&rig).iter().filter(|span| span["kind"] == 2) {
            let code = attribute(span, "http.response.status_code").and_then(|code| code.parse().ok());
            *told.entry(code.unwrap_or(0u16)).or_default() += 1u64;
        }
        Ok((told == counts).then_some(()))
    })?;
    Ok(())
}
