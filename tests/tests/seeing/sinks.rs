//! Sinks and shapes of the access log (M5).

use std::{
    io::Read as _,
    net::UdpSocket,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener},
    },
    process::Stdio,
};

use lab::{
    gateway::simple_config,
    packet::{Frame, Sender},
    prelude::*,
    process::{Lines, Process},
};

use super::{
    lines, read, relog, rig,
    traces::{TRACE, attribute, collector},
};

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

/// The next datagram.
fn datagram(receive: impl Fn(&mut [u8]) -> std::io::Result<usize>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 64 << 10];
    let length = receive(&mut bytes).context("no datagram")?;
    bytes.truncate(length);
    Ok(bytes)
}

// M5
#[test]
fn a_syslog_server_gets_a_datagram_of_rfc_5424_a_line() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let server = rig.net.gateway.run(|| UdpSocket::bind("127.0.0.1:5514"))??;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    relog(&rig, "to = \"syslog:127.0.0.1:5514\"")?;
    for path in ["/", "/status/503"] {
        rig.ask(&format!("GET {path}"), "a.test", "user-agent: lab\r\n")?;
        let text = String::from_utf8(datagram(|bytes| server.recv(bytes))?)?;
        // PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP STRUCTURED-DATA SP MSG
        let parts: Vec<&str> = text.splitn(8, ' ').collect();
        let [pri, stamp, host, app, process, id, data, message] = parts[..] else { bail!("{text}") };
        assert_eq!((pri, stamp, app, id, data), ("<134>1", "-", "gateway", "access", "-"), "{text}");
        assert!(!host.is_empty() && process.parse::<u32>().is_ok(), "{text}");
        let line: Value = serde_json::from_str(message)?;
        assert_eq!((&line["path"], &line["ua"]), (&json!(path), &json!("lab")), "{text}");
    }
    // A server that is gone costs nothing, and one that comes back gets what comes then.
    drop(server);
    let mut client = rig.client()?;
    for _ in 0..3 {
        assert_eq!(client.get("/gone")?.status, 200);
        std::thread::sleep(Duration::from_millis(150));
    }
    let server = rig.net.gateway.run(|| UdpSocket::bind("127.0.0.1:5514"))??;
    server.set_read_timeout(Some(Duration::from_millis(200)))?;
    within(Duration::from_secs(10), "it gets lines again", || {
        client.get("/back")?;
        let text = datagram(|bytes| server.recv(bytes)).unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).contains("\"/back\"").then_some(()))
    })?;
    assert!(lines(&rig, "failed")? >= 1.0, "those that nobody got are counted");
    Ok(())
}

/// A gateway that finds these sockets at /dev/log and where journald listens.
const ELSEWHERE: &str = r#"#!/bin/sh
exec unshare -m --propagation private sh -e -c '
    mount --make-rprivate /
    for node in null zero full random urandom; do touch "$DIR/dev/$node"; mount --bind "/dev/$node" "$DIR/dev/$node"; done
    mount --rbind "$DIR/dev" /dev
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/journal
    mount --bind "$DIR/journal" /run/systemd/journal
    exec "$GATEWAY" "$@"' sh "$@"
"#;

/// The fields of an entry in journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
fn journal_entry(mut bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut fields = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').context("a field without its end")?;
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(equals) => {
                bytes = rest;
                (&line[..equals], line[equals + 1..].to_vec())
            }
            None => {
                let length = u64::from_le_bytes(rest.get(..8).context("no length")?.try_into()?) as usize;
                ensure!(rest.get(8 + length) == Some(&b'\n'), "a value without its end");
                bytes = &rest[8 + length + 1..];
                (line, rest[8..8 + length].to_vec())
            }
        };
        let name = std::str::from_utf8(name)?.to_owned();
        ensure!(name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_'), "{name}");
        ensure!(fields.insert(name, value).is_none(), "twice");
    }
    Ok(fields)
}

// M5
#[test]
fn the_journal_and_the_systems_log_get_entries_as_they_want_them() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let dir = tempfile::tempdir()?;
    for name in ["dev", "journal"] {
        std::fs::create_dir(dir.path().join(name))?;
    }
    let journal = UnixDatagram::bind(dir.path().join("journal/socket"))?;
    let syslog = UnixDatagram::bind(dir.path().join("dev/log"))?;
    for socket in [&journal, &syslog] {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    let binary = dir.path().join("gateway");
    std::fs::write(&binary, ELSEWHERE)?;
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755))?;
    let variables = vec![
        ("DIR".to_owned(), dir.path().display().to_string()),
        ("GATEWAY".to_owned(), lab::tools::gateway()?.display().to_string()),
    ];
    let options = lab::gateway::Options { binary: Some(binary), variables, ..Default::default() };
    let config = |to: &str| format!("{}\n[access_log]\nto = \"{to}\"\n", simple_config(&backends));
    let gateway = Gateway::start_with(&net, &config("journald"), options)?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    client.send(b"GET /a?x=%0A HTTP/1.1\r\nhost: a\r\nuser-agent: \"\\=\xff\r\n\r\n")?;
    assert_eq!(client.response()?.status, 200);
    let entry = journal_entry(&datagram(|bytes| journal.recv(bytes))?)?;
    let field = |name: &str| entry.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(field("PRIORITY").as_deref(), Some("6"));
    assert_eq!(field("SYSLOG_IDENTIFIER").as_deref(), Some("gateway"));
    let line: Value = serde_json::from_str(&field("MESSAGE").context("no message")?)?;
    assert_eq!((&line["path"], &line["query"]), (&json!("/a"), &json!("x=%0A")));

    gateway.write(&config("syslog"))?;
    gateway.cli(&["reload"])?.ok()?;
    assert_eq!(client.get("/b")?.status, 200);
    let text = String::from_utf8(datagram(|bytes| syslog.recv(bytes))?)?;
    let (head, message) = text.split_once(": ").context("no message")?;
    let pid = gateway.status()?["pid"].as_u64().context("no pid")?;
    assert_eq!(head, format!("<134>gateway[{pid}]"));
    assert_eq!(serde_json::from_str::<Value>(message)?["path"], "/b");
    assert_eq!(gateway.metrics()?.sum("access_log_lines_total", &[("result", "failed")]), 0.0);
    drop((gateway, backends, net, turn));
    Ok(())
}

// M5
#[test]
fn a_collector_gets_lines_as_log_records_each_of_them_once() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _collector = collector(&rig, 2)?;
    let tracing = "[tracing]\notlp = \"http://127.0.0.1:4318/\"\nshare = \"0%\"";
    relog(&rig, &format!("to = \"otlp\"\nevents = true\nredact = [\"query:token\"]\n{tracing}"))?;
    let mut client = rig.client()?;
    for _ in 0..50 {
        client.get("/")?;
    }
    let fields = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\nuser-agent: lab\r\n");
    let failed = rig.ask("GET /status/503?token=s3cret", "a.test:80", &fields)?;
    rig.gateway.cli(&["ban", "add", "192.0.2.7", "--for", "1h"])?.ok()?;
    let records = || -> Vec<Value> {
        read(&rig, "logRecords").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let requests =
        || records().into_iter().filter(|record| record["eventName"].is_null()).collect::<Vec<_>>();
    eventually("all are there", || Ok(requests().len() == 51))?;
    eventually("and counted", || Ok(lines(&rig, "written")? == records().len() as f64))?;
    let all = requests();
    let ids: BTreeSet<_> = all.iter().filter_map(|record| attribute(record, "gateway.request.id")).collect();
    assert_eq!(ids.len(), 51, "each once");
    let id = failed.header("x-request-id").map(str::to_owned);
    let of_it = |record: &&Value| attribute(record, "gateway.request.id") == id;
    let record = all.iter().find(of_it).context("no such record")?;
    assert_eq!((&record["traceId"], &record["severityText"]), (&json!(TRACE), &json!("ERROR")), "{record}");
    assert_eq!(record["body"]["stringValue"], "GET /status/503 503");
    for (key, value) in [
        ("http.response.status_code", "503"),
        ("url.query", "token=***"),
        ("server.address", "a.test"),
        ("server.port", "80"),
        ("user_agent.original", "lab"),
        ("gateway.route", "all"),
    ] {
        assert_eq!(attribute(record, key).as_deref(), Some(value), "{key} in {record}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let at: u128 = record["timeUnixNano"].as_str().context("no time")?.parse()?;
    assert!(at <= now && now - at < 60_000_000_000, "{at} {now}");
    eventually("the ban is told too", || Ok(records().iter().any(|one| one["eventName"] == "gateway.ban")))?;
    // What is on its way when it stops is not lost.
    client.get("/last")?;
    let mut gateway = rig.gateway;
    gateway.stop()?;
    let text = std::fs::read_to_string(gateway.file("logRecords"))?;
    assert!(text.contains("GET /last 200"), "the last line");
    Ok(())
}

// M5
#[test]
fn a_collector_that_is_gone_or_hangs_costs_no_request_anything_and_lines_are_counted() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    relog(&rig, "to = \"otlp:http://127.0.0.1:4318\"")?;
    let mut client = rig.client()?;
    let mut ask = |n: usize| -> Result<()> {
        for _ in 0..n {
            let began = Instant::now();
            assert_eq!(client.get("/")?.status, 200);
            assert!(began.elapsed() < Duration::from_secs(1));
        }
        Ok(())
    };
    ask(20)?;
    within(Duration::from_secs(20), "they are counted", || {
        Ok((lines(&rig, "failed")? == 20.0).then_some(()))
    })?;
    // It takes connections, and says nothing.
    let hangs = rig.net.gateway.run(|| std::net::TcpListener::bind("127.0.0.1:4318"))??;
    ask(20)?;
    std::thread::sleep(Duration::from_millis(1500));
    ask(20)?;
    assert_eq!(lines(&rig, "written")?, 0.0);
    drop(hangs);
    goes_elsewhere(&rig)?;
    Ok(())
}

/// A reload to another sink takes effect, whatever the one before waits for.
fn goes_elsewhere(rig: &Rig) -> Result<()> {
    relog(rig, "to = \"{dir}/after.log\"")?;
    rig.ask("GET /after", "a", "")?;
    eventually("the line is there", || Ok(read(rig, "after.log").contains("/after")))
}

// M5
#[test]
fn a_collector_that_is_not_told_of_is_a_problem_with_its_place_and_a_cure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("gateway.toml");
    for (keys, said) in [
        ("to = \"otlp\"", "is the collector of `[tracing]`, of which there is none"),
        ("to = \"otlp:127.0.0.1:4318\"", "it does not begin with http:// or https://"),
        ("to = \"otlp\"\n[tracing]\notlp = \"http://a.test/traces\"", "does not tell where it takes logs"),
        ("to = \"otlp:http://a.test\"\nformat = \"combined\"", "`access_log.format` is for lines"),
        ("to = \"otlp:http://a.test\"\nrotate = { size = \"1MiB\" }", "`access_log.rotate` is for a file"),
        ("to = \"oltp\"", "did you mean \"otlp\"?"),
    ] {
        let rest = "[listener.web]\nbind = \":8080\"\n[route.all]\nto = [\"127.0.0.1:3000\"]\n";
        std::fs::write(&file, format!("{rest}[access_log]\n{keys}\n"))?;
        let output = std::process::Command::new(lab::tools::gateway()?).arg("check").arg(&file).output()?;
        let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{keys}: {text}");
        assert!(text.contains(said) && text.contains("gateway.toml:"), "{keys}: {text}");
    }
    Ok(())
}
