//! The live view (M8).

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
};

use lab::{prelude::*, process::Process};

use super::rig;

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
