//! So much in a time: token buckets and windows, hard, soft and dry. R1, R2, R3, R10, R11, R12, R14, R15

use super::*;

// R1, R10, R11
#[test]
fn a_hard_limit_refuses_what_is_over_it_and_says_truly_when_to_come_back() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.few]\nrate = \"2/s\"\nburst = 5\nheaders = [\"ratelimit\", \"x-ratelimit\"]",
        "limit = \"few\"",
    )?;
    let mut refused = None;
    let began = Instant::now();
    for n in 0..6 {
        let answer = get(&rig, "/", "")?;
        let policy = answer.header("ratelimit-policy").context("no policy")?;
        assert_eq!(policy, "\"few\";q=5;w=3");
        let left = parameter(answer.header("ratelimit").context("no ratelimit")?, "few", "r")?;
        assert_eq!(answer.header("x-ratelimit-limit"), Some("5"));
        if began.elapsed() < Duration::from_millis(400) {
            assert_eq!((answer.status, left), if n < 5 { (200, 4 - n) } else { (429, 0) });
            assert_eq!(answer.header("x-ratelimit-remaining"), Some(left.to_string().as_str()));
            refused = (n == 5).then_some(answer);
        }
    }
    let refused = refused.context("the lab is too slow")?;
    refused.refused(429, "limited")?;
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let wait: u64 = refused.header("retry-after").context("no retry-after")?.parse()?;
    assert_eq!(wait, 1);
    assert_eq!(parameter(refused.header("ratelimit").unwrap_or_default(), "few", "t")?, wait);
    let line = rig.gateway.log_of(&refused)?;
    assert_eq!(
        (&line["why"], &line["limit"], &line["status"]),
        (&json!("limited"), &json!("few"), &json!(429))
    );
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(get(&rig, "/", "")?.status, 200);
    let metrics = rig.gateway.metrics()?;
    assert_eq!(metrics.sum("limit_decisions_total", &[("limit", "few"), ("decision", "deny")]), 1.0);
    assert_eq!(metrics.sum("limit_decisions_total", &[("limit", "few"), ("decision", "allow")]), 6.0);
    assert_eq!(metrics.sum("limit_rate", &[("limit", "few")]), 2.0);
    Ok(())
}

// R1
#[test]
fn a_request_is_judged_by_when_its_head_was_here_and_not_by_when_it_began() -> Result<()> {
    lab_test!();
    let rig = rig("[limit.few]\nrate = \"1/s\"\nheaders = []", "limit = \"few\"")?;
    let mut slow = rig.client()?;
    slow.send("GET / HTTP/1.1\r\nhost: a\r\n")?;
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(passed(&rig, 1, "")?, 1, "it takes what there is");
    std::thread::sleep(Duration::from_millis(1200));
    slow.send("\r\n")?;
    assert_eq!(slow.response()?.status, 200, "meanwhile there is one again");
    assert_eq!(get(&rig, "/", "")?.status, 429, "and that was it");
    Ok(())
}

// R1, R12
#[test]
fn all_workers_together_let_through_the_burst_and_the_rate_and_no_more() -> Result<()> {
    lab_test!();
    let rig = rig("[limit.some]\nrate = \"50/s\"\nburst = 100", "limit = \"some\"")?;
    let began = Instant::now();
    let counts: Vec<Result<(usize, BTreeSet<String>)>> = std::thread::scope(|scope| {
        let client = || {
            let (mut passed, mut workers) = (0, BTreeSet::new());
            while began.elapsed() < Duration::from_secs(3) {
                let mut client = rig.client()?;
                for _ in 0..20 {
                    let answer = client.get("/")?;
                    passed += usize::from(answer.status == 200);
                    workers.extend(answer.header("x-connection").map(str::to_owned));
                }
            }
            Ok((passed, workers))
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let took = began.elapsed().as_secs_f64();
    let passed = counts.into_iter().map(|count| Ok(count?.0)).sum::<Result<usize>>()? as f64;
    let allowed = 100.0 + 50.0 * took;
    assert!(passed <= allowed + 1.0, "{passed} of {allowed}");
    assert!(passed >= 0.95 * allowed - 5.0, "{passed} of {allowed}");
    Ok(())
}

// R12
#[test]
fn eight_workers_share_one_counter() -> Result<()> {
    lab_test!();
    let rig = Rig::start(1, |backends| {
        let text =
            config(&backends[0].addr.to_string(), "[limit.hundred]\nrate = \"100/h\"", "limit = \"hundred\"");
        text.replace("workers = 2", "workers = 8")
    })?;
    let (node, at) = (rig.net.client(1), rig.gateway.at4());
    // Of many addresses, as one client is one worker's.
    let client = |n: u16| -> Result<(usize, BTreeSet<String>)> {
        let mut client = Client::connect_from(node, at, Some(node.many_v4(n).into()))?;
        let (mut passed, mut workers) = (0, BTreeSet::new());
        for _ in 0..10 {
            let answer = client.get("/")?;
            ensure!([200, 429].contains(&answer.status), "{answer:?}");
            passed += usize::from(answer.status == 200);
            workers.extend(answer.header("x-connection").map(str::to_owned));
        }
        Ok((passed, workers))
    };
    let counts: Vec<Result<(usize, BTreeSet<String>)>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=40).map(|n| scope.spawn(move || client(n))).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let (mut passed, mut workers) = (0, BTreeSet::new());
    for count in counts {
        let (n, of) = count?;
        passed += n;
        workers.extend(of);
    }
    assert!((99..=101).contains(&passed), "{passed} of 100");
    // Each worker has connections of its own to the backend.
    assert!(workers.len() >= 4, "{workers:?}");
    Ok(())
}

// R15
#[test]
fn what_is_used_outlasts_reloads_kills_and_upgrades() -> Result<()> {
    lab_test!();
    let limits = |other: &str| format!("[limit.few]\nrate = \"3/h\"\n[limit.other]\nrate = \"{other}\"");
    let mut rig = rig(&limits("9/h"), "limit = \"few\"")?;
    assert_eq!(passed(&rig, 5, "")?, 3);
    let app = rig.backends[0].addr.to_string();
    rig.gateway.write(&config(&app, &limits("8/h"), "limit = \"few\""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(passed(&rig, 3, "")?, 0, "a reload of something else");
    rig.gateway.kill();
    rig.gateway.run()?;
    assert_eq!(passed(&rig, 3, "")?, 0, "kill -9 and a start");
    assert_eq!(rig.gateway.upgrade(&[])?.code, 0);
    assert_eq!(passed(&rig, 3, "")?, 0, "an upgrade in place");
    rig.gateway.cli(&["limit", "reset", "few"])?.ok()?;
    assert_eq!(passed(&rig, 5, "")?, 3);
    Ok(())
}

// R2
#[test]
fn windows_end_with_the_clocks_and_several_limits_hold_at_once() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.fast]\nrate = \"3/2s\"\nalgorithm = \"fixed-window\"\n[limit.slow]\nrate = \"7/h\"",
        "limit = [\"fast\", \"slow\"]",
    )?;
    // At the beginning of the next window.
    let next = || -> Result<()> {
        let into = || Ok::<_, anyhow::Error>(std::time::UNIX_EPOCH.elapsed()?.as_millis() % 2000);
        while into()? < 500 {
            std::thread::sleep(Duration::from_millis(5));
        }
        while into()? >= 500 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    next()?;
    let first = get(&rig, "/", "")?;
    assert_eq!(first.header("ratelimit-policy"), Some("\"fast\";q=3;w=2, \"slow\";q=7;w=3600"));
    assert_eq!(parameter(first.header("ratelimit").unwrap_or_default(), "fast", "r")?, 2);
    assert_eq!(passed(&rig, 5, "")?, 2);
    next()?;
    assert_eq!(passed(&rig, 5, "")?, 3, "the next window");
    next()?;
    // Of the hour's seven one is left: refused ones cost none.
    assert_eq!(passed(&rig, 5, "")?, 1);
    Ok(())
}

// R2
#[test]
fn a_sliding_window_has_no_edge_at_which_twice_as_much_passes() -> Result<()> {
    lab_test!();
    let rig = rig("[limit.any]\nrate = \"40/4s\"\nalgorithm = \"sliding-window\"", "limit = \"any\"")?;
    let (began, mut times) = (Instant::now(), Vec::new());
    let mut client = rig.client()?;
    while began.elapsed() < Duration::from_secs(10) {
        let sent = Instant::now();
        let answer = client.get("/")?;
        assert_eq!(answer.header("ratelimit-policy"), Some("\"any\";q=40;w=4"));
        if answer.status == 200 {
            times.push((sent, Instant::now()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(times.len() >= 80, "{}", times.len());
    for (first, (sent, _)) in times.iter().enumerate() {
        let within =
            times[first..].iter().take_while(|(_, got)| got.duration_since(*sent) < Duration::from_secs(4));
        assert!(within.count() <= 40);
    }
    Ok(())
}

// R2
#[test]
fn ten_a_second_and_a_hundred_in_any_minute_hold_at_once_and_the_tighter_one_is_told() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.second]\nrate = \"10/s\"\n[limit.minute]\nrate = \"100/60s\"\nalgorithm = \"sliding-window\"",
        "limit = [\"second\", \"minute\"]",
    )?;
    let (began, mut times, mut by) = (Instant::now(), Vec::new(), BTreeMap::<String, usize>::new());
    let mut client = rig.client()?;
    // As fast as may be at first, and again where the first minute ends.
    while began.elapsed() < Duration::from_secs(68) {
        let sent = Instant::now();
        let answer = client.get("/")?;
        let told = answer.header("ratelimit").context("no ratelimit")?;
        let limit = told.split('"').nth(1).context("no name")?.to_owned();
        match answer.status {
            200 => times.push((sent, Instant::now())),
            429 => {
                assert_eq!(parameter(told, &limit, "r")?, 0, "{told}");
                *by.entry(limit).or_default() += 1;
            }
            status => bail!("status {status}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for (span, most) in [(60, 105), (1, 20)] {
        let within = |first: usize| {
            let until = times[first].0 + Duration::from_secs(span);
            times[first..].iter().take_while(|(_, got)| *got < until).count()
        };
        let passed = (0..times.len()).map(within).max().unwrap_or(0);
        // Of a token bucket its burst and a second's rate.
        assert!(passed <= most, "{passed} in {span} s");
    }
    assert!(times.len() > 110, "some come back after a minute: {}", times.len());
    assert!(by["second"] > 10 && by["minute"] > 100, "each refuses: {by:?}");
    Ok(())
}

// R3, R14
#[test]
fn soft_limits_mark_or_delay_and_are_hard_at_last_and_a_dry_run_refuses_nothing() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.soft]\nmode = \"soft\"\nrate = \"4/h\"\nshed = \"150%\"\nkey = \"header:x-t\"",
        "limit = \"soft\"",
    )?;
    let mut marked = 0;
    for n in 0..8 {
        let answer = get(&rig, "/echo", "x-t: a\r\nx-limit-over: forged\r\n")?;
        if n >= 6 {
            answer.refused(429, "limited")?;
            continue;
        }
        assert_eq!(answer.status, 200);
        let over = http::echoed(&answer.json()?, "x-limit-over");
        assert_eq!(over, if n < 4 { vec![] } else { vec!["soft".to_owned()] }, "{n}");
        if n >= 4 {
            marked += 1;
            assert_eq!(rig.gateway.log_of(&answer)?["limit"], json!("soft/soft"));
        }
    }
    let soft =
        rig.gateway.metrics()?.sum("limit_decisions_total", &[("limit", "soft"), ("decision", "soft")]);
    assert_eq!(soft, f64::from(marked));
    let app = rig.backends[0].addr.to_string();
    rig.gateway.write(&config(
        &app,
        "[limit.slow]\nmode = \"soft\"\nrate = \"10/s\"\nburst = 1\ndelay = \"1s\"\nkey = \"header:x-t\"",
        "limit = \"slow\"",
    ))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let began = Instant::now();
    let statuses: Vec<Result<u16>> = std::thread::scope(|scope| {
        let ask = || Ok(get(&rig, "/", "x-t: b\r\n")?.status);
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().expect("a client")).collect()
    });
    assert!(statuses.into_iter().all(|status| status.is_ok_and(|status| status == 200)));
    assert!(
        began.elapsed() >= Duration::from_millis(490),
        "six at 10/s after one another: {:?}",
        began.elapsed()
    );
    rig.gateway.write(&config(&app, "[limit.dry]\nrate = \"2/h\"\ndry_run = true", "limit = \"dry\""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    for n in 0..4 {
        let answer = get(&rig, "/", "")?;
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
        assert_eq!(answer.header("x-limit-dry-run"), (n >= 2).then_some("dry"));
    }
    Ok(())
}
