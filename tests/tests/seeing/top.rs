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

// M8, M10
#[test]
fn top_shows_what_caches_and_limits_do_and_whom_a_limit_refused() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let target = &rig.backends[0].addr;
    rig.gateway.write(&format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\n[cache.pages]\nmemory = \"16MiB\"\n\
         [limit.few]\nrate = \"1/m\"\nburst = 4\nkey = \"ip\"\n\
         [route.made]\npath = \"/made/*\"\nto = [\"{target}\"]\ncache = \"pages\"\n\
         [route.all]\nto = [\"{target}\"]\nlimit = [\"few\"]\n"
    ))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let mut command = rig.gateway.cli_command()?;
    command.args(["top", "--interval", "3s", "-o", "json"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut top = Process::start(command)?;
    std::thread::sleep(Duration::from_millis(700));
    for _ in 0..10 {
        rig.ask("GET /made/a", "a.test", "x-answer: cache-control: max-age=60\r\n")?;
        rig.ask("GET /", "a.test", "")?;
    }
    let mut text = String::new();
    top.child.stdout.take().context("no stdout")?.read_to_string(&mut text)?;
    assert!(top.wait(Duration::from_secs(10))?.success());
    let look: Value = serde_json::from_str(&text)?;
    let seconds = look["rates"]["seconds"].as_f64().context("no seconds")?;
    let rate = |of: &str, name: &str, word: &str| {
        (look["rates"][of][name][word].as_f64().unwrap_or(0.0) * seconds).round()
    };
    assert_eq!((rate("caches", "pages", "hit"), rate("caches", "pages", "miss")), (9.0, 1.0), "{look}");
    assert_eq!((rate("limits", "few", "allow"), rate("limits", "few", "deny")), (4.0, 6.0), "{look}");
    assert_eq!(look["stats"]["caches"]["pages"]["entries"], 1, "{look}");
    let key = &look["keys"][0];
    assert_eq!((&key["limit"], &key["refused"]), (&json!("few"), &json!(6)), "{look}");
    let client = rig.net.client(1).v4().to_string();
    assert!(key["key"].as_str().is_some_and(|who| who.contains(&client)), "{key}");
    // Which half refused one, by which rule, and what that has counted.
    let refused = rig.ask("GET /", "a.test", "")?;
    let why = rig.gateway.cli(&["why", refused.header("x-request-id").context("no id")?, "-o", "json"])?;
    let why = why.ok()?.json()?;
    let reasons: Vec<&str> =
        why["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!((&why["half"], &why["request"]["limit"]), (&json!("l7"), &json!("few")), "{why}");
    assert!(reasons.contains(&"limit few has let 4 requests in so far, and refused 7"), "{why}");
    let shown = rig.gateway.cli(&["top", "--once", "--interval", "100ms"])?.ok()?;
    assert!(shown.stdout.contains("CACHE") && shown.stdout.contains("LIMIT"), "{shown:?}");
    assert!(shown.stdout.lines().all(|line| line.chars().count() <= 80), "{shown:?}");
    Ok(())
}
