//! L7 limits: R1 to R16.

mod overload;
mod shared;

use lab::prelude::*;

/// `limits` and the keys of the route `all`, which leads to one backend.
fn rig(limits: &str, route: &str) -> Result<Rig> {
    Rig::start(1, |backends| config(&backends[0].addr.to_string(), limits, route))
}

fn config(app: &str, limits: &str, route: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\n[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n\
         [route.all]\nto = \"app\"\n{route}\n{limits}\n"
    )
}

/// GETs a path on a connection of its own.
fn get(rig: &Rig, path: &str, fields: &str) -> Result<Response> {
    rig.ask(&format!("GET {path}"), "a", fields)
}

/// How many of `n` are answered 200; the others must be answered 429.
fn passed(rig: &Rig, n: usize, fields: &str) -> Result<usize> {
    let mut passed = 0;
    for _ in 0..n {
        match get(rig, "/", fields)?.status {
            200 => passed += 1,
            429 => {}
            status => bail!("status {status}"),
        }
    }
    Ok(passed)
}

/// `name=value` of the item of a `RateLimit` or `RateLimit-Policy` field.
fn parameter(field: &str, item: &str, name: &str) -> Result<u64> {
    let item = field.split(", ").find(|one| one.starts_with(&format!("\"{item}\""))).context("no item")?;
    let value = item.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    value.with_context(|| format!("no {name} in {field}"))?.parse().context("not a number")
}

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

// R5, R6
#[test]
fn every_part_of_a_key_has_a_quota_of_its_own() -> Result<()> {
    lab_test!();
    for (key, one, other) in [
        ("header:x-tenant", "x-tenant: a\r\n", "x-tenant: b\r\n"),
        ("cookie:sid", "cookie: x=1; sid=a\r\n", "cookie: sid=b; x=1\r\n"),
        ("header:x-tenant", "", "x-tenant: b\r\n"),
    ] {
        let rig = rig(&format!("[limit.few]\nrate = \"3/h\"\nkey = [\"{key}\"]"), "limit = \"few\"")?;
        assert_eq!(
            (passed(&rig, 5, one)?, passed(&rig, 5, other)?, passed(&rig, 1, one)?),
            (3, 3, 0),
            "{key}"
        );
    }
    let rig = rig(
        "[limit.few]\nrate = \"3/h\"\nkey = [\"query:k\", \"method\"]\n[limit.host]\nrate = \"20/h\"\nkey = \"host\"",
        "limit = [\"few\", \"host\"]",
    )?;
    let statuses = |request: &str, host: &str, n: usize| -> Result<usize> {
        (0..n).map(|_| Ok(usize::from(rig.ask(request, host, "")?.status == 200))).sum()
    };
    assert_eq!(statuses("GET /?k=a", "a", 5)?, 3);
    assert_eq!(statuses("GET /?k=b&x=1", "a", 5)?, 3);
    assert_eq!(statuses("POST /?k=a", "a", 5)?, 3);
    // Refused ones cost the other limit nothing: of 20 are 11 left.
    let left: u64 =
        (0..20).map(|n| Ok(statuses(&format!("GET /?k=more{n}"), "a", 1)? as u64)).sum::<Result<u64>>()?;
    assert_eq!(left, 11);
    assert_eq!(statuses("GET /?k=a", "b", 5)?, 0, "its own quota is used up at any host");
    assert_eq!(statuses("GET /?k=z", "b", 5)?, 3);
    Ok(())
}

// R5, R6
#[test]
fn clients_are_told_apart_by_address_and_ipv6_by_prefix() -> Result<()> {
    lab_test!();
    let rig = rig("[limit.few]\nrate = \"5/h\"\nkey = \"ip\"", "limit = \"few\"")?;
    let node = rig.net.client(1);
    let statuses = |from: IpAddr| -> Result<usize> {
        let to = if from.is_ipv4() { rig.gateway.at4() } else { rig.gateway.at6() };
        (0..10).map(|_| Ok(usize::from(http::get_from(node, to, from, "/")?.status == 200))).sum()
    };
    assert_eq!(statuses(node.v4().into())?, 5);
    assert_eq!(statuses(node.v6().into())?, 5);
    assert_eq!(statuses(node.v6().into())?, 0);
    let shown = rig.gateway.cli(&["limit", "top"])?.ok()?.stdout;
    assert!(shown.contains(&format!("ip={}", node.v4())) && shown.contains("/64"), "{shown}");
    Ok(())
}

#[test]
fn limits_are_listed_shown_and_started_anew() -> Result<()> {
    lab_test!();
    let rig = rig("[limit.few]\nrate = \"3/h\"\nkey = [\"ip\", \"header:x-key\"]", "limit = \"few\"")?;
    assert_eq!(passed(&rig, 10, "x-key: secret-of-mine\r\n")?, 3);
    let listed = rig.gateway.cli(&["limit", "list", "-o", "json"])?.ok()?.json()?;
    let few = &listed["limits"]["few"];
    assert_eq!(
        (&few["keys"], &few["decisions"]["deny"], &few["routes"]),
        (&json!(1), &json!(7), &json!(["all"]))
    );
    for command in
        [&["limit", "list"][..], &["limit", "show", "few"], &["limit", "top"], &["limit", "top", "few"]]
    {
        let shown = rig.gateway.cli(command)?.ok()?.stdout;
        assert!(shown.contains("few"), "{command:?}: {shown}");
        assert!(!shown.contains("secret-of-mine"), "a secret is shown: {shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{command:?}: {shown}");
    }
    let top = rig.gateway.cli(&["limit", "top", "few", "-o", "json"])?.ok()?.json()?;
    assert_eq!((&top[0]["left"], &top[0]["of"], &top[0]["refused"]), (&json!(0), &json!(3), &json!(7)));
    let id = top[0]["id"].as_str().context("no id")?;
    rig.gateway.cli(&["limit", "reset", "few", id])?.ok()?;
    assert_eq!(passed(&rig, 5, "x-key: secret-of-mine\r\n")?, 3);
    rig.gateway.cli(&["limit", "reset", "few"])?.ok()?;
    assert_eq!(passed(&rig, 5, "x-key: secret-of-mine\r\n")?, 3);
    assert_eq!(rig.gateway.cli(&["limit", "show", "fwe"])?.code, 5);
    Ok(())
}

// O15
#[test]
fn explain_tells_how_near_limits_are_and_spends_nothing() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[consumer.rich]\ntier = \"gold\"\n[limit.few]\nrate = \"3/h\"\nper = { gold = \"30/h\" }\nkey = \"consumer\"\n\
         [limit.soft]\nmode = \"soft\"\nrate = \"2/h\"\n[limit.dry]\nrate = \"1/h\"\ndry_run = true",
        "limit = [\"few\", \"soft\", \"dry\"]",
    )?;
    let from = rig.net.client(1).v4().to_string();
    let explain = |more: &[&str]| -> Result<Value> {
        let asked = ["explain", "GET", "http://a/", "--from", &from, "-o", "json"];
        rig.gateway.cli(&[&asked, more].concat())?.ok()?.json()
    };
    for used in 0..4 {
        for _ in 0..3 {
            let told = explain(&[])?;
            let words = ["few", "soft", "dry"].iter().zip([3, 2, 1]).zip(["deny", "soft", "dry_run"]);
            for (at, ((limit, of), over)) in words.enumerate() {
                let one = &told["limits"][at];
                assert_eq!((&one["limit"], &one["of"]), (&json!(limit), &json!(of)));
                let used = used.min(3).min(if *limit == "few" { 3 } else { of });
                assert_eq!(one["left"], json!(of - used), "{told}");
                assert_eq!(one["decision"], if used < of { json!("allow") } else { json!(over) }, "{told}");
            }
            let over = used >= 3;
            assert_eq!(told["why"], if over { json!("limited") } else { Value::Null });
            assert_eq!(told["status"], if over { json!(429) } else { Value::Null });
        }
        assert_eq!(get(&rig, "/", "")?.status, if used < 3 { 200 } else { 429 });
    }
    let rich = explain(&["--as", "rich"])?;
    assert_eq!(
        (&rich["limits"][0]["left"], &rich["limits"][0]["key"]),
        (&json!(30), &json!("consumer=rich"))
    );
    assert_eq!(rig.gateway.cli(&["explain", "GET", "http://a/", "--as", "nobody"])?.code, 5);
    let shown = rig.gateway.cli(&["explain", "GET", "http://a/", "--from", &from])?.ok()?.stdout;
    assert!(shown.contains("few: deny, 0 of 3 left, again in") && shown.contains(&from), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    rig.gateway.cli(&["ban", "add", "203.0.113.9", "--where", "http"])?.ok()?;
    let banned = rig
        .gateway
        .cli(&["explain", "GET", "http://a/", "--from", "203.0.113.9", "-o", "json"])?
        .ok()?
        .json()?;
    assert_eq!((&banned["why"], &banned["status"]), (&json!("banned"), &json!(403)));
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

// R8
#[test]
fn requests_at_once_are_counted_and_released_however_they_end() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.at-once]\nunit = \"connections\"\nmax = 3",
        "limit = \"at-once\"\nupgrade = \"websocket\"",
    )?;
    let mut busy: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let mut client = rig.client()?;
        client.send("GET /slow-header?ms=60000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        busy.push(client);
    }
    eventually("three are under way", || Ok(get(&rig, "/", "")?.status == 429))?;
    get(&rig, "/", "")?.refused(429, "limited")?;
    // The clients go away.
    drop(busy);
    eventually("their places are free", || Ok(get(&rig, "/", "")?.status == 200))?;
    for _ in 0..10 {
        assert_eq!(get(&rig, "/", "")?.status, 200);
    }
    let listed = rig.gateway.cli(&["limit", "show", "at-once", "-o", "json"])?.ok()?.json()?;
    assert_eq!(listed["keys"], json!(0), "{listed}");
    Ok(())
}

// R8, A4
#[test]
fn bytes_and_tokens_are_counted_when_they_are_known() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.bytes]\nunit = \"bytes\"\nrate = \"100KiB/h\"\nkey = \"header:x-b\"\n\
         [limit.tokens]\nunit = \"tokens\"\nrate = \"100/h\"\nkey = \"header:x-t\"\n\
         [limit.points]\nrate = \"100/h\"\nkey = \"header:x-p\"\ncost = \"header:x-cost\"\n\
         [limit.posts]\nrate = \"10/h\"\nkey = \"header:x-m\"\ncost = { POST = 5 }",
        "limit = [\"bytes\", \"tokens\", \"points\", \"posts\"]",
    )?;
    let all =
        |b: &str, t: &str, p: &str, m: &str| format!("x-b: {b}\r\nx-t: {t}\r\nx-p: {p}\r\nx-m: {m}\r\n");
    // 60 KiB are let in while anything is left, which is twice; then nothing is.
    for (n, status) in [200, 200, 429].into_iter().enumerate() {
        let answer =
            get(&rig, "/big?bytes=61440", &all("1", &format!("b{n}"), &format!("b{n}"), &format!("b{n}")))?;
        assert_eq!(answer.status, status, "bytes, {n}");
    }
    for (path, first) in [("/usage?tokens=60", "a"), ("/usage-events?tokens=60", "b")] {
        for (n, status) in [200, 200, 429].into_iter().enumerate() {
            let fields =
                all(&format!("t{first}{n}"), first, &format!("t{first}{n}"), &format!("t{first}{n}"));
            let answer = get(&rig, path, &format!("{fields}accept-encoding: gzip\r\n"))?;
            assert_eq!(answer.status, status, "{path}, {n}");
        }
    }
    for (n, status) in [200, 200, 429].into_iter().enumerate() {
        let fields = all(&format!("p{n}"), &format!("p{n}"), "1", &format!("p{n}"));
        assert_eq!(get(&rig, "/usage?cost=60", &fields)?.status, status, "points, {n}");
    }
    for (n, (method, status)) in
        [("POST", 200), ("GET", 200), ("POST", 429), ("GET", 200)].into_iter().enumerate()
    {
        let fields = all(&format!("m{n}"), &format!("m{n}"), &format!("m{n}"), "1");
        assert_eq!(rig.ask(&format!("{method} /"), "a", &fields)?.status, status, "{method}, {n}");
    }
    Ok(())
}

// R8
#[test]
fn a_pace_sends_answers_no_faster_however_many_there_are() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.pace]\nunit = \"bytes\"\nrate = \"1MiB/s\"\nburst = \"64KiB\"\npace = true\nkey = \"ip\"",
        "limit = \"pace\"",
    )?;
    let took = |clients: usize, bytes: usize| -> Result<f64> {
        let began = Instant::now();
        std::thread::scope(|scope| {
            let ask = || -> Result<()> {
                let answer = get(&rig, &format!("/big?bytes={bytes}"), "")?;
                ensure!(answer.status == 200 && answer.body.len() == bytes, "{}", answer.body.len());
                Ok(())
            };
            let asked: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().try_for_each(|one| one.join().expect("a client"))
        })?;
        Ok(began.elapsed().as_secs_f64())
    };
    // 4 MiB but the burst, by one and by four at once.
    for clients in [1, 4] {
        let seconds = took(clients, (4 << 20) / clients)?;
        assert!((3.7..4.6).contains(&seconds), "{clients}: {seconds} s");
    }
    Ok(())
}

fn bans(rig: &Rig) -> Result<Vec<Value>> {
    let listed = rig.gateway.cli(&["ban", "list", "-o", "json"])?.ok()?.json()?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

/// One that is in force, once it is.
fn ban_of(rig: &Rig, cidr: &str) -> Result<Value> {
    within(Duration::from_secs(5), &format!("{cidr} is banned"), || {
        Ok(bans(rig)?.into_iter().find(|ban| ban["cidr"] == json!(format!("{cidr}/32"))))
    })
}

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

// S18, R16
#[test]
fn whoever_goes_on_after_refusals_is_dropped_by_the_kernel_for_a_while_and_longer_the_next_time() -> Result<()>
{
    lab_test!();
    let rig = rig(
        "[limit.few]\nrate = \"2/h\"\nkey = \"ip\"\nban = { after = 5, for = \"2s\" }",
        "limit = \"few\"",
    )?;
    let node = rig.net.client(1);
    let (v4, v6) = (IpAddr::from(node.v4()), IpAddr::from(node.v6()));
    let offend = |n: usize| -> Result<()> {
        let mut client = Client::connect_from(node, rig.gateway.at4(), Some(v4))?;
        for _ in 0..n {
            // The last answer may be dropped with everything else.
            let _ = client.get("/");
        }
        Ok(())
    };
    assert_eq!(passed(&rig, 2, "")?, 2);
    offend(5)?;
    let ban = ban_of(&rig, &v4.to_string())?;
    assert_eq!((&ban["where"], &ban["by"]), (&json!("kernel"), &json!("limit")), "{ban}");
    assert!(ban["until"].is_string() && ban["why"].as_str().is_some_and(|why| why.contains("few")), "{ban}");
    assert!(!node.gets_through(rig.gateway.at4(), v4)?, "it gets no answer to a SYN");
    assert_eq!(http::get_from(node, rig.gateway.at6(), v6, "/")?.status, 200, "others are left alone");
    eventually("the ban ends by itself", || node.gets_through(rig.gateway.at4(), v4))?;
    offend(5)?;
    let again = ban_of(&rig, &v4.to_string())?;
    assert!(again["left_seconds"].as_u64().is_some_and(|left| (3..=4).contains(&left)), "{again}");
    rig.gateway.cli(&["ban", "del", &v4.to_string()])?.ok()?;
    assert!(node.gets_through(rig.gateway.at4(), v4)?);
    let banned =
        rig.gateway.metrics()?.sum("limit_decisions_total", &[("limit", "few"), ("decision", "ban")]);
    assert_eq!(banned, 2.0);
    Ok(())
}

// S18
#[test]
fn behind_a_trusted_proxy_the_client_is_banned_at_l7_and_the_proxy_never() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let proxy = IpAddr::from(net.client(1).v4());
    let text = format!(
        "{}[limit.few]\nrate = \"1/h\"\nkey = \"ip\"\nban = {{ after = 3, for = \"1h\" }}\n",
        config(&backends[0].addr.to_string(), "", "limit = \"few\"")
    )
    .replace(
        "bind = \":80\"",
        &format!("bind = \":80\"\nreal_ip = {{ from = \"{proxy}\", header = \"x-forwarded-for\" }}"),
    );
    let gateway = Gateway::start(&net, &text)?;
    let rig = Rig::of(gateway, backends, net, turn);
    let from = |client: &str| get(&rig, "/", &format!("x-forwarded-for: {client}\r\n"));
    assert_eq!(from("203.0.113.9")?.status, 200);
    for _ in 0..3 {
        from("203.0.113.9")?.refused(429, "limited")?;
    }
    let ban = ban_of(&rig, "203.0.113.9")?;
    assert_eq!((&ban["where"], &ban["by"]), (&json!("http"), &json!("limit few")));
    from("203.0.113.9")?.refused(403, "banned")?;
    assert_eq!(from("203.0.113.10")?.status, 200, "another behind the same proxy");
    for _ in 0..6 {
        let status = get(&rig, "/", "")?.status;
        assert!(status == 200 || status == 429, "the proxy itself is limited, and never banned: {status}");
    }
    let mut rig = rig;
    rig.gateway.kill();
    rig.gateway.run()?;
    get(&rig, "/", "x-forwarded-for: 203.0.113.9\r\n")?.refused(403, "banned")?;
    rig.gateway.cli(&["ban", "del", "203.0.113.9", "--where", "http"])?.ok()?;
    get(&rig, "/", "x-forwarded-for: 203.0.113.9\r\n")?.refused(429, "limited")?;
    rig.gateway.cli(&["ban", "add", "203.0.113.0/24", "--where", "http", "--for", "1h"])?.ok()?;
    get(&rig, "/", "x-forwarded-for: 203.0.113.77\r\n")?.refused(403, "banned")?;
    Ok(())
}

// S18
#[test]
fn misdeeds_earn_points_and_too_many_a_ban() -> Result<()> {
    lab_test!();
    let hash = "blake3:7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069";
    let rig = rig(
        &format!(
            "[auth.key]\ntype = \"api-key\"\n[consumer.c]\nkeys = [{{ id = \"k\", hash = \"{hash}\" }}]\n\
             [penalty]\nthreshold = 40\nmalformed = 10\nlogin = 10\nfor = \"2s\"\nwhere = \"http\"\nwithin = \"1h\""
        ),
        "auth = [\"key\"]",
    )?;
    for _ in 0..6 {
        get(&rig, "/", "")?.refused(401, "unauthorized")?;
    }
    for _ in 0..2 {
        get(&rig, "/", "x-api-key: guess\r\n")?.refused(401, "unauthorized")?;
        let broken = rig.ask("GET /", "a b", "")?;
        broken.refused(400, "bad_request")?;
    }
    let ban = ban_of(&rig, &rig.net.client(1).v4().to_string())?;
    assert_eq!((&ban["where"], &ban["by"]), (&json!("http"), &json!("penalty")));
    get(&rig, "/", "")?.refused(403, "banned")?;
    eventually("the ban is over", || Ok(get(&rig, "/", "")?.status == 401))
}

// R4
#[test]
fn a_dynamic_limit_falls_with_the_health_of_its_upstream_and_comes_back_with_it() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.protect]\nmode = \"dynamic\"\nrate = { from = \"20/s\", to = \"2000/s\" }\ntarget = { p99 = \"1s\" }\nheaders = []",
        "limit = \"protect\"",
    )?;
    let over = std::sync::atomic::AtomicBool::new(false);
    let rate = || -> Result<f64> { Ok(rig.gateway.metrics()?.sum("limit_rate", &[("limit", "protect")])) };
    let shed = || -> Result<f64> {
        let denied = [("limit", "protect"), ("decision", "deny")];
        Ok(rig.gateway.metrics()?.sum("limit_decisions_total", &denied))
    };
    let wait = |what: &str, seconds: u64, so: &dyn Fn(f64) -> bool| -> Result<()> {
        within(Duration::from_secs(seconds), what, || Ok(so(rate()?).then_some(())))
    };
    std::thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok(mut client) = rig.client() else { continue };
                    while !over.load(std::sync::atomic::Ordering::Relaxed) && client.get("/").is_ok() {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        let told = (|| -> Result<()> {
            assert_eq!(rate()?, 2000.0);
            rig.backends[0].slow(1500)?;
            wait("it falls by half", 20, &|rate| rate <= 1000.0)?;
            wait("it falls to the floor", 40, &|rate| rate <= 25.0)?;
            rig.backends[0].slow(0)?;
            wait("it comes back", 60, &|rate| rate >= 1000.0)?;
            assert!(shed()? > 0.0, "some were refused");
            Ok(())
        })();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        told
    })
}

// R4
#[test]
fn under_pressure_the_kernels_limits_are_lowered_and_raised_again() -> Result<()> {
    lab_test!();
    let rig = rig("[kernel]\nadapt = { cpu = \"1%\", from = \"50%\" }\nlimit = { new = \"1000/s\" }\n", "")?;
    let factor = || -> Result<f64> { Ok(rig.gateway.metrics()?.sum("kernel_load_factor", &[])) };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let fell =
            within(Duration::from_secs(20), "it falls to its floor", || Ok((factor()? <= 0.5).then_some(())));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        fell
    })?;
    let app = rig.backends[0].addr.to_string();
    rig.gateway.write(&config(&app, "[kernel]\nlimit = { new = \"1000/s\" }\n", ""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    eventually("it is whole again", || Ok(factor()? == 1.0))
}
