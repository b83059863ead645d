//! Events and captures of what XDP drops, which nothing else on the host shows: K15, K16.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use lab::{
    backend::start_all,
    gateway::simple_config,
    packet::{Frame, Sender},
    prelude::*,
    process::{Lines, Process},
    tools,
};

struct Rig {
    gateway: Gateway,
    _backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig() -> Result<Rig> {
    let turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    let backends = start_all(&net)?;
    let kernel = "block = { cidrs = [\"10.102.9.0/24\"] }";
    let config = simple_config(&backends);
    let gateway = Gateway::start(&net, &format!("{config}[kernel]\n{kernel}\n"))?;
    Ok(Rig { gateway, _backends: backends, net, _turn: turn })
}

impl Rig {
    fn blocked(&self, packets: usize) -> Result<()> {
        let attacker = self.net.attacker();
        let frame = Frame::udp(attacker, (attacker.many_v4(0x0901), 1000), (VIP4, 53)).bytes();
        Sender::open(attacker)?.send_all(&vec![frame; packets])
    }

    fn started(&self, arguments: &[&str]) -> Result<Process> {
        let mut command = self.gateway.cli_command()?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Process::start(command)
    }
}

// K15
#[test]
fn observe_shows_drops_bans_reloads_and_targets_as_they_happen() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut observe = rig.started(&["observe", "-f"])?;
    let lines = observe.child.stdout.take().map(Lines::collect).context("no stdout")?;
    rig.gateway.cli(&["ban", "add", "192.0.2.7", "--for", "1s", "--why", "test"])?.ok()?;
    rig.blocked(1)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    for text in [
        "ban      192.0.2.7/32 for 1s (test)",
        "drop     blocked 10.102.9.1:1000 > 10.77.0.1:53 udp",
        "reload   generation 2",
        "ban_over 192.0.2.7/32",
    ] {
        eventually(text, || Ok(lines.contain(text))).with_context(|| lines.all().join("\n"))?;
    }
    assert!(lines.all().iter().all(|line| line.chars().count() <= 100));
    drop(observe);
    // What is remembered, filtered, as JSON.
    let shown = rig.gateway.cli(&["-o", "json", "observe", "drop", "source=10.102.9.0/24"])?.ok()?;
    let event: Value = serde_json::from_str(shown.stdout.lines().next().context("nothing remembered")?)?;
    assert_eq!((&event["event"], &event["reason"]), (&json!("drop"), &json!("blocked")));
    let shown = rig.gateway.cli(&["observe", "--not", "drop", "--not", "ban"])?.ok()?;
    assert!(shown.stdout.contains("reload") && !shown.stdout.contains("blocked"), "{shown:?}");
    Ok(())
}

// K16
#[test]
fn a_capture_has_the_dropped_packets_and_their_reason_and_no_more_than_asked_for() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let file = rig.gateway.file("drops.pcapng");
    let path = file.display().to_string();
    let mut capture =
        rig.started(&["capture", "--reason", "blocked", "--count", "10", "--for", "20s", "--write", &path])?;
    // The section header is there once the capture runs.
    eventually("the capture has begun", || Ok(std::fs::metadata(&file)?.len() >= 28))?;
    http::get(rig.net.client(1), rig.gateway.at4(), "/")?;
    rig.blocked(50)?;
    assert!(capture.wait(Duration::from_secs(15))?.success());
    let packets = packets(&std::fs::read(&file)?)?;
    assert_eq!(packets.len(), 10);
    for (bytes, comment) in &packets {
        assert_eq!(comment, "drop: blocked");
        assert_eq!(bytes[26..30], [10, 102, 9, 1], "the source of an IPv4 packet");
    }
    if let Some(tcpdump) = tools::find("tcpdump") {
        let read = std::process::Command::new(tcpdump).args(["-n", "-r"]).arg(&file).output()?;
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        assert_eq!(text.lines().filter(|line| line.contains("10.102.9.1.1000 > 10.77.0.1.53")).count(), 10);
    }
    Ok(())
}

// K16
#[test]
fn a_capture_is_bounded_in_rate_and_one_at_a_time_and_ends_with_its_reader() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let file = rig.gateway.file("drops.pcapng");
    let path = file.display().to_string();
    let mut first = rig.started(&["capture", "--rate", "100/s", "--for", "3s", "--write", &path])?;
    eventually("the capture has begun", || Ok(std::fs::metadata(&file)?.len() >= 28))?;
    let second = rig.gateway.cli(&["capture", "--count", "1"])?;
    assert!(second.code == 5 && second.stderr.contains("a capture runs already"), "{second:?}");
    for _ in 0..20 {
        rig.blocked(500)?;
    }
    assert!(first.wait(Duration::from_secs(15))?.success());
    let got = packets(&std::fs::read(&file)?)?.len();
    assert!((10..=320).contains(&got), "{got} of 10000 at 100/s over 3 s");
    // A reader that goes away makes room for the next.
    let mut third = rig.started(&["capture", "--verdict", "any"])?;
    let mut header = BufReader::new(third.child.stdout.take().context("no stdout")?);
    header.fill_buf()?;
    third.kill();
    eventually("another can begin", || Ok(rig.gateway.cli(&["capture", "--for", "10ms"])?.code == 0))?;
    let bad = rig.gateway.cli(&["capture", "--reason", "nonsense"])?;
    assert!(bad.stderr.contains("there is no reason \"nonsense\""), "{bad:?}");
    Ok(())
}

/// The packets of a pcapng file and their comments.
fn packets(file: &[u8]) -> Result<Vec<(Vec<u8>, String)>> {
    let word = |bytes: &[u8], at: usize| -> Result<usize> {
        let bytes = bytes.get(at..at + 4).context("cut short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let mut rest = file;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let (kind, length) = (word(rest, 0)?, word(rest, 4)?);
        let block = rest.get(..length).context("a block cut short")?;
        if kind == 6 {
            let kept = word(block, 20)?;
            let options = 28 + kept.next_multiple_of(4);
            let comment = usize::from(u16::from_le_bytes(block[options + 2..options + 4].try_into()?));
            ensure!(block[options..options + 2] == [1, 0], "no comment");
            let text = String::from_utf8(block[options + 4..options + 4 + comment].to_vec())?;
            packets.push((block[28..28 + kept].to_vec(), text));
        }
        rest = &rest[length..];
    }
    Ok(packets)
}
