//! gRPC and gRPC-Web through the gateway, with the real library on both sides: P4, LB10.

use lab::{
    grpc::{GrpcClient, GrpcServer},
    prelude::*,
};

struct Rig {
    gateway: Gateway,
    server: GrpcServer,
    client: GrpcClient,
    net: Net,
    _turn: lab::lock::Turn,
}

/// `upstream` and `route`: more of their tables.
fn rig(upstream: &str, route: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let server = GrpcServer::start(net.node("b1"))?;
    let gateway = Gateway::start(&net, &config(&server, upstream, route))?;
    let client = GrpcClient::start(net.client(1), gateway.at4())?;
    Ok(Rig { gateway, server, client, net, _turn: turn })
}

fn config(server: &GrpcServer, upstream: &str, route: &str) -> String {
    format!(
        "[gateway]\nname = \"edge\"\n[listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n\
         [upstream.echo]\nto = [\"{}\"]\nprotocol = \"h2\"\n{upstream}\n\
         [route.echo]\npath = \"/lab.Echo/*\"\nto = \"echo\"\n{route}\n",
        server.addr
    )
}

fn pairs(outcome: &Value, of: &str) -> BTreeMap<String, String> {
    let all = outcome[of].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()))).collect()
}

const OK: u64 = 0;
const DEADLINE_EXCEEDED: u64 = 4;
const UNIMPLEMENTED: u64 = 12;
const UNAVAILABLE: u64 = 14;

// P4
#[test]
fn unary_calls_pass_with_their_metadata_and_their_status() -> Result<()> {
    lab_test!();
    let mut rig = rig("", "")?;
    let call = json!({ "method": "Unary", "messages": ["hello"], "metadata": [["x-asked", "me"]] });
    let outcome = rig.client.call(&call)?;
    assert_eq!((outcome["code"].as_u64(), &outcome["messages"]), (Some(OK), &json!(["hello"])), "{outcome}");
    let initial = pairs(&outcome, "initial");
    assert_eq!(initial["x-seen"], "'me'");
    assert_eq!(initial["x-data-bin"], r"b'\x00\xff'");
    assert_eq!(initial["via"], "'2.0 edge'");
    assert_eq!(pairs(&outcome, "trailing")["x-trailing"], "'yes'");
    let failed = rig.client.call(&json!({ "method": "Unary", "messages": ["fail"] }))?;
    assert_eq!((failed["code"].as_u64(), &failed["details"]), (Some(3), &json!("bad é %")), "{failed}");
    assert_eq!(pairs(&failed, "trailing")["x-trailing"], "'yes'");
    let unknown = rig.client.call(&json!({ "method": "Nothing", "messages": [""] }))?;
    assert_eq!(unknown["code"], UNIMPLEMENTED, "{unknown}");
    let big = rig.client.call(&json!({ "method": "Unary", "messages": ["big 3000000"] }))?;
    assert_eq!((big["code"].as_u64(), &big["messages"]), (Some(OK), &json!(["3000000"])));
    let line = rig.gateway.log_of_path("/lab.Echo/Unary")?;
    assert_eq!((line["proto"].as_str(), line["status"].as_u64()), (Some("h2"), Some(200)));
    Ok(())
}

// P4
#[test]
fn all_three_kinds_of_streams_pass_message_by_message() -> Result<()> {
    lab_test!();
    let mut rig = rig("", "")?;
    let call = json!({ "method": "ServerStream", "kind": "server-stream", "messages": ["4 0.2"] });
    let outcome = rig.client.call(&call)?;
    assert_eq!(outcome["messages"], json!(["0", "1", "2", "3"]), "{outcome}");
    let at = |n: usize| outcome["times"][n].as_f64().unwrap_or(9.0);
    ensure!(at(1) - at(0) > 0.1 && at(3) - at(0) > 0.4, "held back: {outcome}");
    let call = json!({ "method": "ClientStream", "kind": "client-stream", "messages": ["ab", "cde", ""], "pause": 0.05 });
    let outcome = rig.client.call(&call)?;
    assert_eq!((outcome["code"].as_u64(), &outcome["messages"]), (Some(OK), &json!(["5"])), "{outcome}");
    let call = json!({ "method": "Bidi", "kind": "bidi", "messages": ["a", "b", "c"], "pause": 0.2 });
    let outcome = rig.client.call(&call)?;
    assert_eq!(
        (outcome["code"].as_u64(), &outcome["messages"]),
        (Some(OK), &json!(["A", "B", "C"])),
        "{outcome}"
    );
    let at = |n: usize| outcome["times"][n].as_f64().unwrap_or(9.0);
    ensure!(at(2) - at(0) > 0.3 && at(0) < 0.15 + at(2) - at(0), "a conversation is held back: {outcome}");
    Ok(())
}

// P4
#[test]
fn a_conversation_outlasts_the_limit_on_a_silent_request() -> Result<()> {
    lab_test!();
    let mut rig = rig("timeout = { idle = \"5s\", first_byte = \"5s\" }", "")?;
    let config = config(&rig.server, "timeout = { idle = \"5s\" }", "");
    rig.gateway.write(&config.replace("[upstream", "timeout = { body = \"200ms\" }\n[upstream"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    rig.client = GrpcClient::start(rig.net.client(1), rig.gateway.at4())?;
    for (method, kind) in [("Bidi", "bidi"), ("ClientStream", "client-stream")] {
        let call = json!({ "method": method, "kind": kind, "messages": ["a", "b"], "pause": 0.7 });
        let outcome = rig.client.call(&call)?;
        assert_eq!(outcome["code"], OK, "{method}: {outcome}");
    }
    Ok(())
}

// P4
#[test]
fn a_deadline_is_told_and_kept() -> Result<()> {
    lab_test!();
    let mut rig = rig("", "")?;
    // A minute, of which a busy machine may take some.
    let left = rig.client.call(&json!({ "method": "Unary", "messages": ["left"], "timeout": 60 }))?;
    let left: f64 = left["messages"][0].as_str().context("no answer")?.parse()?;
    ensure!((20.0..=60.0).contains(&left), "{left}");
    // As a client that does not keep it itself.
    let frames = slow_call(&rig, "500m")?;
    assert!(frames.contains("grpc-status: 4"), "{frames}");
    let line = rig.gateway.log_line("the deadline", |line| line["why"] == "upstream_total_timeout")?;
    assert_eq!(line["status"], 200);
    Ok(())
}

/// curl speaks HTTP/2, and knows nothing of gRPC.
fn slow_call(rig: &Rig, timeout: &str) -> Result<String> {
    let body = rig.gateway.file("call");
    std::fs::write(&body, b"\0\0\0\0\x07sleep 5")?;
    let (data, url) = (format!("@{}", body.display()), format!("http://{VIP4}/lab.Echo/Unary"));
    let answer = lab::curl::Curl::run(
        rig.net.client(1),
        &[
            "--http2-prior-knowledge",
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
            "-H",
            &format!("grpc-timeout: {timeout}"),
            "--data-binary",
            &data,
            &url,
        ],
    )?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.head)
}

// P4: http-grpc-status-mapping.md
#[test]
fn what_the_gateway_answers_itself_is_a_status() -> Result<()> {
    lab_test!();
    let mut rig = rig("timeout = { first_byte = \"300ms\" }\nretry = { on = [] }", "")?;
    let late = rig.client.call(&json!({ "method": "Unary", "messages": ["sleep 2"] }))?;
    assert_eq!(late["code"], UNAVAILABLE, "{late}");
    assert_eq!(late["details"], "The upstream did not start to answer in time");
    rig.server.process.kill();
    let down = rig.client.call(&json!({ "method": "Unary", "messages": [""] }))?;
    assert_eq!(down["code"], UNAVAILABLE, "{down}");
    let labels = [("route", "echo"), ("code", "200")];
    assert_eq!(rig.gateway.metrics()?.sum("http_requests_total", &labels), 2.0);
    let gone = config(&rig.server, "", "").replace("/lab.Echo/*", "/other");
    rig.gateway.write(&gone)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let unknown = rig.client.call(&json!({ "method": "Unary", "messages": [""] }))?;
    assert_eq!(
        (unknown["code"].as_u64(), &unknown["details"]),
        (Some(UNIMPLEMENTED), &json!("No route matches this host and path"))
    );
    Ok(())
}

// P4
#[test]
fn a_stream_that_is_cut_ends_with_a_status() -> Result<()> {
    lab_test!();
    let mut rig = rig("timeout = { idle = \"400ms\" }", "")?;
    let call = json!({ "method": "ServerStream", "kind": "server-stream", "messages": ["3 2"] });
    let outcome = rig.client.call(&call)?;
    assert_eq!(
        (outcome["code"].as_u64(), &outcome["messages"]),
        (Some(UNAVAILABLE), &json!(["0"])),
        "{outcome}"
    );
    assert_eq!(outcome["details"], "The upstream stopped in the middle of its answer");
    let call =
        json!({ "method": "ServerStream", "kind": "server-stream", "messages": ["3 0.1"], "timeout": 0.15 });
    assert_eq!(rig.client.call(&call)?["code"], DEADLINE_EXCEEDED);
    Ok(())
}

const STATES: &str = "every = \"100ms\", rise = 1, fall = 1";

// LB10
#[test]
fn checks_ask_grpc_health_v1() -> Result<()> {
    lab_test!();
    for (grpc, service) in [("true", ""), ("\"lab.Echo\"", "lab.Echo")] {
        let mut rig = rig(&format!("health = {{ grpc = {grpc}, {STATES} }}"), "")?;
        let up = |rig: &Rig| -> Result<bool> {
            Ok(rig.gateway.metrics()?.sum("upstream_up", &[("upstream", "echo")]) == 1.0)
        };
        let mut direct = GrpcClient::start(rig.net.client(1), rig.gateway.at4())?;
        assert_eq!(direct.call(&json!({ "method": "Unary", "messages": ["a"] }))?["code"], OK);
        assert!(up(&rig)?);
        let set = |state: &str| json!({ "method": "SetServing", "messages": [format!("{service}={state}")] });
        assert_eq!(rig.client.call(&set("down"))?["code"], OK);
        eventually("it is down", || Ok(!up(&rig)?))?;
        let check = rig.gateway.status()?["upstreams"]["echo"]["targets"][0]["check"].clone();
        assert_eq!(check, "NOT_SERVING");
        let refused = rig.client.call(&json!({ "method": "Unary", "messages": [""] }))?;
        assert_eq!(refused["code"], UNAVAILABLE, "{refused}");
        // Around the gateway, which no longer asks it.
        let mut around = GrpcClient::start(rig.net.node("b1"), rig.server.addr)?;
        assert_eq!(around.call(&set("up"))?["code"], OK);
        eventually("it is up", || up(&rig))?;
    }
    let rig = rig(&format!("health = {{ grpc = \"lab.Other\", {STATES} }}"), "")?;
    eventually("it is down", || {
        let check = rig.gateway.status()?["upstreams"]["echo"]["targets"][0]["check"].clone();
        Ok(check == "it does not know the service")
    })
}

/// POST by HTTP/1.1, as a browser would.
fn web(rig: &Rig, kind: &str, method: &str, body: &[u8]) -> Result<Response> {
    let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    let length = body.len();
    client.send(format!(
        "POST /lab.Echo/{method} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\nx-asked: web\r\n\
         x-grpc-web: 1\r\ncontent-length: {length}\r\n\r\n"
    ))?;
    client.send(body)?;
    client.response()
}

/// What is behind the mark of trailers, which is 0x80.
fn trailers(body: &[u8]) -> Result<String> {
    let at = body.windows(13).position(|window| window.starts_with(b"\x80") && window.ends_with(b"grpc-st"));
    let at = at.or_else(|| body.iter().position(|byte| *byte == 0x80)).context("no trailers")?;
    Ok(String::from_utf8_lossy(body.get(at + 5..).unwrap_or(&[])).into_owned())
}

// P4: PROTOCOL-WEB.md
#[test]
fn grpc_web_is_translated() -> Result<()> {
    lab_test!();
    let rig = rig("", "grpc_web = true")?;
    let answer = web(&rig, "application/grpc-web+proto", "Unary", b"\0\0\0\0\x05hello")?;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/grpc-web+proto")),
        "{answer:?}"
    );
    assert_eq!(answer.header("x-seen"), Some("web"));
    assert!(answer.body.starts_with(b"\0\0\0\0\x05hello\x80"), "{answer:?}");
    let end = trailers(&answer.body)?;
    assert!(end.contains("grpc-status: 0\r\n") && end.contains("x-trailing: yes\r\n"), "{end}");
    // In base64, flushed and so padded after each part.
    let answer = web(&rig, "application/grpc-web-text", "Unary", b"AAAAAAU=aGVsbG8=")?;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc-web-text")));
    assert!(answer.text().starts_with("AAAAAAVoZWxsb") && answer.text().is_ascii(), "{}", answer.text());
    let stream = web(&rig, "application/grpc-web", "ServerStream", b"\0\0\0\0\x033 0")?;
    assert!(stream.body.starts_with(b"\0\0\0\0\x010\0\0\0\0\x011\0\0\0\0\x012\x80"), "{stream:?}");
    // Without a body of its own, the head says it all.
    let unknown = web(&rig, "application/grpc-web+proto", "Nothing", b"\0\0\0\0\0")?;
    assert_eq!((unknown.status, unknown.header("grpc-status")), (200, Some("12")), "{unknown:?}");
    // gRPC itself goes on as before.
    let mut client = GrpcClient::start(rig.net.client(1), rig.gateway.at4())?;
    assert_eq!(client.call(&json!({ "method": "Unary", "messages": ["a"] }))?["code"], OK);
    Ok(())
}

// P4
#[test]
fn errors_of_grpc_web_are_statuses_too_and_what_is_not_base64_is_refused() -> Result<()> {
    lab_test!();
    let mut rig = rig("retry = { on = [] }", "grpc_web = true")?;
    let bad = web(&rig, "application/grpc-web-text", "Unary", b"AAAA!AU=")?;
    assert_eq!((bad.status, bad.header("grpc-status")), (200, Some("13")), "{bad:?}");
    assert_eq!(rig.gateway.log_of(&bad)?["why"], "bad_request");
    let half = web(&rig, "application/grpc-web-text", "Unary", b"AAAAA")?;
    assert_eq!(half.header("grpc-status"), Some("13"), "{half:?}");
    rig.server.process.kill();
    let down = web(&rig, "application/grpc-web+proto", "Unary", b"\0\0\0\0\0")?;
    let said = (down.status, down.header("grpc-status"), down.header("content-type"));
    assert_eq!(said, (200, Some("14"), Some("application/grpc-web+proto")));
    Ok(())
}
