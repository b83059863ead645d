//! L7 and the kernel half as one. R16, ideas 2 and 3

use super::*;

// Ideas 2 and 3, R16
#[test]
fn one_limit_holds_for_connections_in_the_kernel_too_and_answers_tell_of_the_tighter_one() -> Result<()> {
    lab_test!();
    let rig =
        rig("[limit.both]\nrate = \"4/s\"\nburst = 20\nkey = \"ip\"\nkernel = true", "limit = \"both\"")?;
    let node = rig.net.client(1);
    let source = node.v4().to_string();
    let kernel_left = || -> Result<u64> {
        let row = rig.gateway.cli(&["limit", "show", &source, "-o", "json"])?.ok()?.json()?;
        row["new_left"].as_u64().context("no bucket")
    };
    let left = |answer: &Response| parameter(answer.header("ratelimit").unwrap_or_default(), "both", "r");
    let first = get(&rig, "/", "")?;
    assert_eq!(first.header("ratelimit-policy"), Some("\"both\";q=20;w=5"));
    assert!(left(&first)? >= 18, "{first:?}");
    // Connections without requests: only the kernel half counts them.
    for _ in 0..10 {
        drop(node.connect(rig.gateway.at4(), None)?);
    }
    let answer = get(&rig, "/", "")?;
    let (told, kernel) = (left(&answer)?, kernel_left()?);
    // Some have come back meanwhile.
    assert!((7..=14).contains(&told) && kernel.abs_diff(told) <= 4, "{told} {kernel}");
    // On one connection L7 is the tighter one.
    let mut client = Client::connect_from(node, rig.gateway.at6(), Some(node.v6().into()))?;
    let mut lefts = Vec::new();
    for _ in 0..30 {
        let answer = client.get("/")?;
        lefts.push((answer.status, left(&answer)?));
    }
    assert!(lefts.iter().any(|(status, left)| (*status, *left) == (429, 0)), "{lefts:?}");
    // Over both, the kernel drops, before anything is accepted.
    let dropped = || -> Result<f64> {
        let drops = [("limit", "both"), ("decision", "drop")];
        Ok(rig.gateway.metrics()?.sum("limit_decisions_total", &drops))
    };
    assert_eq!(dropped()?, 0.0);
    let began = Instant::now();
    while dropped()? == 0.0 && began.elapsed() < Duration::from_secs(10) {
        let _ = node.gets_through(rig.gateway.at4(), node.v4().into());
    }
    assert!(dropped()? >= 1.0);
    eventually("a token has come back", || node.gets_through(rig.gateway.at4(), node.v4().into()))
}

// Idea 3, R16
#[test]
fn keys_and_sources_are_shown_together_by_how_fast_they_are_refused() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.few]\nrate = \"2/h\"\nkey = \"ip\"\n[limit.other]\nrate = \"1/h\"\nkey = \"header:x-key\"\n\
         [kernel]\nlimit = { new = { rate = \"1/m\", burst = 40 } }",
        "limit = [\"few\", \"other\"]",
    )?;
    let node = rig.net.client(1);
    let (v4, v6) = (IpAddr::from(node.v4()), IpAddr::from(node.v6()));
    assert_eq!(passed(&rig, 1, "x-key: one\r\n")?, 1);
    assert_eq!(passed(&rig, 1, "x-key: two\r\n")?, 1);
    for _ in 0..20 {
        assert_eq!(passed(&rig, 1, "x-key: three\r\n")?, 0);
    }
    // It has no key, only buckets of the kernel half, and is over them.
    for _ in 0..45 {
        let _ = node.gets_through(rig.gateway.at6(), v6);
    }
    let top = rig.gateway.cli(&["limit", "top", "-o", "json"])?.ok()?.json()?;
    let keys = top["keys"].as_array().context("no keys")?;
    let first = &keys[0];
    assert_eq!((&first["limit"], &first["key"]), (&json!("few"), &json!(format!("ip={v4}"))), "{top}");
    assert_eq!((&first["source"], &first["refused"]), (&json!(v4), &json!(20)));
    assert!(first["refused_per_second"].as_f64().is_some_and(|rate| rate >= 0.5), "{first}");
    let left = first["kernel"]["new_left"].as_u64().context("no bucket")?;
    assert!((16..=19).contains(&left), "{left} of 40, after 22 connections: {first}");
    assert_eq!(
        first["kernel"],
        rig.gateway.cli(&["limit", "show", &v4.to_string(), "-o", "json"])?.ok()?.json()?
    );
    let others: Vec<_> = keys.iter().filter(|key| key["limit"] == json!("other")).collect();
    assert!(!others.is_empty() && others.iter().all(|key| key["kernel"].is_null()), "{top}");
    let sources = top["sources"].as_array().context("no sources")?;
    assert!(sources.iter().all(|row| row["source"] != json!(v4)), "it is with its key: {top}");
    let over = sources.iter().find(|row| row["dropped"].as_u64().is_some_and(|n| n > 0));
    assert!(over.context("no source was refused")?["source"].as_str().is_some_and(|text| text.contains(':')));
    let shown = rig.gateway.cli(&["limit", "top"])?.ok()?.stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    for word in ["few", &v4.to_string(), "CONNS", "kernel"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let named = rig.gateway.cli(&["limit", "top", "few", "-o", "json"])?.ok()?.json()?;
    assert_eq!(named[0]["kernel"]["new_left"], json!(left));
    Ok(())
}
