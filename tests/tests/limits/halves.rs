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

/// A counter of the TCP stack in the gateway's namespace.
pub(super) fn tcp(rig: &Rig, file: &str, line: &str, name: &str) -> Result<u64> {
    // A thread's own namespace is seen there, not its process'.
    let path = format!("/proc/thread-self/net/{file}");
    let text = rig.net.gateway.run(|| std::fs::read_to_string(path))??;
    let mut lines = text.lines().filter_map(|one| one.strip_prefix(line)?.strip_prefix(": "));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let at = names.split(' ').position(|one| one == name).with_context(|| format!("no {name}"))?;
    Ok(values.split(' ').nth(at).context("no value")?.parse()?)
}

// R16
#[test]
fn what_the_kernel_half_refuses_costs_no_accept() -> Result<()> {
    lab_test!();
    let rig =
        rig("[limit.both]\nrate = \"1/s\"\nburst = 10\nkey = \"ip\"\nkernel = true", "limit = \"both\"")?;
    let node = rig.net.client(1);
    let counted = || -> Result<[u64; 3]> {
        Ok([
            tcp(&rig, "snmp", "Tcp", "PassiveOpens")?,
            tcp(&rig, "netstat", "TcpExt", "ListenOverflows")?,
            tcp(&rig, "netstat", "TcpExt", "ListenDrops")?,
        ])
    };
    let of_metrics = || -> Result<[f64; 2]> {
        let metrics = rig.gateway.metrics()?;
        let accepted = metrics.sum("connections_total", &[("listener", "web")]);
        Ok([accepted, metrics.sum("limit_decisions_total", &[("limit", "both"), ("decision", "drop")])])
    };
    // To ask for metrics is a connection too.
    let metrics = of_metrics()?;
    let before = counted()?;
    let (mut open, mut dropped) = (Vec::new(), 0u32);
    for _ in 0..40 {
        match node.connect_within(Duration::from_millis(100), rig.gateway.at4(), None) {
            Ok(stream) => open.push(stream),
            Err(_) => dropped += 1,
        }
    }
    let after = counted()?;
    assert!(open.len() >= 10 && dropped >= 15, "{} {dropped}", open.len());
    assert_eq!(after[0] - before[0], open.len() as u64, "no more were opened than the bucket let in");
    assert_eq!(after[1..], before[1..], "and none waited for an accept in vain");
    let now = of_metrics()?;
    assert_eq!((now[0] - metrics[0], now[1] - metrics[1]), (open.len() as f64, f64::from(dropped)));
    Ok(())
}

// Idea 2
#[test]
fn what_answers_tell_is_left_is_what_the_kernel_has_left_and_holds() -> Result<()> {
    lab_test!();
    let rig =
        rig("[limit.both]\nrate = \"1/s\"\nburst = 12\nkey = \"ip\"\nkernel = true", "limit = \"both\"")?;
    let (node, at) = (rig.net.client(1), rig.gateway.at4());
    let (from, source) = (IpAddr::from(node.v4()), node.v4().to_string());
    let mut told = Vec::new();
    let last = loop {
        // One connection a request: each costs a token in both halves.
        let answer = get(&rig, "/", "")?;
        let left = parameter(answer.header("ratelimit").context("no ratelimit")?, "both", "r")?;
        let row = rig.gateway.cli(&["limit", "show", &source, "-o", "json"])?.ok()?.json()?;
        let kernel = row["new_left"].as_u64().context("no bucket")?;
        assert!(left.abs_diff(kernel) <= 1, "told {left}, in the map {kernel}: {told:?}");
        told.push(left);
        if left == 0 {
            break answer;
        }
        ensure!(told.len() < 30, "{told:?}");
    };
    assert!(told.windows(2).all(|pair| pair[1] <= pair[0]), "{told:?}");
    let seconds = parameter(last.header("ratelimit").unwrap_or_default(), "both", "t")?;
    assert_eq!(seconds, 1);
    let mut tries = 0;
    // A token may have come back meanwhile: then the next one is dropped.
    while node.connect_within(Duration::from_millis(20), at, Some(from)).is_ok() {
        tries += 1;
        ensure!(tries < 4, "nothing is dropped");
    }
    std::thread::sleep(Duration::from_secs(seconds));
    assert!(node.gets_through(at, from)?, "after as long as it was told");
    Ok(())
}
