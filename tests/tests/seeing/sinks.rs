//! Sinks and shapes of the access log (M5).

use std::{io::Read as _, os::unix::net::UnixListener, process::Stdio};

use lab::{
    gateway::simple_config,
    packet::{Frame, Sender},
    prelude::*,
    process::{Lines, Process},
};

use super::{lines, read, relog, rig};

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
