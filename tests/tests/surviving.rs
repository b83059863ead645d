//! Surviving backends: passive checks (LB11), retries (T5), their budget (T6), the circuit breaker and fallbacks (T7).

use lab::{
    backend::{start_all, targets},
    prelude::*,
};

fn config(backends: &[Backend], settings: &str) -> String {
    format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\nto = {}\n{settings}\n\
         [gateway]\nworkers = 4\n",
        targets(backends)
    )
}

/// From many addresses, so that every worker gets some; the status and the backend of each answer.
fn spread(net: &Net, gateway: &Gateway, n: u16) -> Result<Vec<(u16, String)>> {
    (0..n)
        .map(|i| {
            let from = net.client(1).many_v4(i).into();
            let answer = http::get_from(net.client(1), gateway.at4(), from, "/")?;
            Ok((answer.status, answer.backend().to_owned()))
        })
        .collect()
}

fn retries(gateway: &Gateway, reason: &str) -> Result<f64> {
    Ok(gateway.metrics()?.sum("upstream_retries_total", &[("upstream", "pool"), ("reason", reason)]))
}

// LB11
#[test]
fn a_backend_is_ejected_by_errors_of_all_workers_together_and_comes_back_on_trial() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let eject =
        "eject = { errors = 5, within = \"10s\", for = \"2s\", at_most = \"50%\" }\nretry = { on = [] }";
    let gateway = Gateway::start(&net, &config(&backends, eject))?;
    backends[0].fail(500)?;
    let all = spread(&net, &gateway, 60)?;
    let failed = all.iter().filter(|(status, _)| *status == 500).count();
    assert_eq!(failed, 5, "counted a worker it would be twenty");
    let shown = gateway.cli(&["upstream", "show", "pool"])?.ok()?.stdout;
    assert!(shown.contains("ejected"), "{shown}");
    // A second one may not go: one of three is out, and 50 % is one and a half.
    backends[1].fail(500)?;
    spread(&net, &gateway, 30)?;
    let ejections = gateway.metrics()?.sum("upstream_ejections_total", &[("upstream", "pool")]);
    assert_eq!(ejections, 1.0);
    backends[1].fail(0)?;
    let back = |of: &Backend| {
        let name = of.addr.to_string();
        Ok::<_, anyhow::Error>(gateway.metrics()?.sum("upstream_up", &[("target", &name)]) == 1.0)
    };
    within(Duration::from_millis(2500), "back after 2 s", || Ok(back(&backends[0])?.then_some(())))?;
    // Still sick: one error is enough, and it is out for twice as long.
    let failed = spread(&net, &gateway, 30)?.iter().filter(|(status, _)| *status == 500).count();
    assert_eq!(failed, 1);
    backends[0].fail(0)?;
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!back(&backends[0])?, "the second time takes longer");
    within(Duration::from_millis(2500), "back after 4 s", || Ok(back(&backends[0])?.then_some(())))?;
    assert!(spread(&net, &gateway, 30)?.iter().all(|(status, _)| *status == 200));
    Ok(())
}

// T5
#[test]
fn answers_that_say_so_are_retried_elsewhere_but_only_where_that_is_safe() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let retry = "retry = { on = [\"connect\", \"502\", \"503\"], tries = 2 }";
    let gateway = Gateway::start(&net, &config(&backends, retry))?;
    backends[0].fail(503)?;
    backends[1].down()?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    for _ in 0..12 {
        let answer = client.get("/")?;
        assert_eq!((answer.status, answer.backend()), (200, "b3"));
    }
    assert!(retries(&gateway, "503")? >= 4.0 && retries(&gateway, "connect")? >= 4.0);

    // PUT is repeated with its body, POST is not; a connection that was refused is no reason not to.
    let mut statuses = BTreeSet::new();
    for _ in 0..6 {
        client.send("PUT /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")?;
        let answer = client.response()?;
        assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
        for _ in 0..2 {
            client.send("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")?;
            statuses.insert(client.response()?.status);
        }
    }
    assert_eq!(statuses, BTreeSet::from([200, 503]));
    // A body above the cap was sent, and is not kept.
    let large = "x".repeat(100_000);
    statuses.clear();
    for _ in 0..6 {
        client.send(format!("PUT /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{large}"))?;
        statuses.insert(client.response()?.status);
    }
    assert_eq!(statuses, BTreeSet::from([200, 503]));
    Ok(())
}

// T5
#[test]
fn every_other_request_begins_at_the_one_of_two_targets_that_works() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    for balance in ["round-robin", "least-conn"] {
        let gateway = Gateway::start(&net, &config(&backends, &format!("balance = \"{balance}\"")))?;
        backends[0].down()?;
        let all = spread(&net, &gateway, 40)?;
        assert!(all.iter().all(|(status, backend)| *status == 200 && backend == "b2"), "{all:?}");
        assert_eq!(retries(&gateway, "connect")?, 20.0, "{balance}");
        backends[0].up()?;
    }
    Ok(())
}

// T5
#[test]
fn a_slow_target_is_given_up_after_its_own_time_and_another_asked() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let retry = "retry = { on = [\"connect\", \"timeout\", \"reset\"], tries = 1, per_try = \"300ms\" }";
    let gateway = Gateway::start(&net, &config(&backends, retry))?;
    backends[0].slow(3000)?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    for _ in 0..4 {
        let began = std::time::Instant::now();
        let answer = client.get("/")?;
        assert_eq!((answer.status, answer.backend()), (200, "b2"));
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    }
    assert!(retries(&gateway, "timeout")? >= 2.0);
    // Every target breaks these: both are tried once, and the client learns why.
    backends[0].slow(0)?;
    client.get("/reset")?.refused(502, "upstream_reset")?;
    assert_eq!(retries(&gateway, "reset")?, 1.0);
    Ok(())
}

// T6
#[test]
fn retries_stay_within_their_budget_when_all_backends_fail() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let retry = "retry = { on = [\"503\"], tries = 2, budget = \"20%\" }";
    let gateway = Gateway::start(&net, &config(&backends, retry))?;
    backends.iter().try_for_each(|backend| backend.fail(503))?;
    let all = spread(&net, &gateway, 400)?;
    assert!(
        all.iter().all(|(status, backend)| *status == 503 && !backend.is_empty()),
        "the answer goes through"
    );
    let sent: u64 = backends.iter().map(|b| Ok(b.stats()?.requests)).sum::<Result<u64>>()?;
    assert!((400..=480).contains(&sent), "{sent} attempts for 400 requests");
    assert!(gateway.metrics()?.sum("upstream_retries_over_budget_total", &[]) > 0.0);
    Ok(())
}

// T7
#[test]
fn the_breaker_opens_when_most_fail_and_closes_when_probes_succeed() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let breaker = "breaker = { errors = \"50%\", least = 20, open_for = \"1s\", probes = 2 }";
    let gateway = Gateway::start(&net, &config(&backends, breaker))?;
    backends[0].fail(500)?;
    let all = spread(&net, &gateway, 40)?;
    let (sent, kept) = all.split_at(20);
    assert!(sent.iter().all(|(status, _)| *status == 500), "{sent:?}");
    assert!(kept.iter().all(|(status, backend)| *status == 503 && backend.is_empty()), "{kept:?}");
    http::get(net.client(1), gateway.at4(), "/")?.refused(503, "breaker_open")?;
    assert_eq!(backends[0].stats()?.requests, 20);
    let open = |state: &str| gateway.metrics().map(|m| m.sum("upstream_breaker", &[("state", state)]));
    assert_eq!(open("open")?, 1.0);
    eventually("half open", || Ok(open("half-open")? == 1.0))?;
    // The first one let through fails: open again.
    assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 500);
    http::get(net.client(1), gateway.at4(), "/")?.refused(503, "breaker_open")?;
    backends[0].fail(0)?;
    eventually("half open", || Ok(open("half-open")? == 1.0))?;
    for _ in 0..30 {
        assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 200);
    }
    assert_eq!(open("closed")?, 1.0);
    Ok(())
}

// T7
#[test]
fn answers_that_come_late_open_the_breaker_if_they_are_to() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let breaker = "breaker = { least = 10, open_for = \"1s\", probes = 1, slow = \"100ms\" }";
    let gateway = Gateway::start(&net, &config(&backends, breaker))?;
    assert!(spread(&net, &gateway, 10)?.iter().all(|(status, _)| *status == 200));
    backends[0].slow(250)?;
    let all = spread(&net, &gateway, 15)?;
    let late = all.iter().filter(|(status, _)| *status == 200).count();
    // With as many in time, ten late ones are half of all.
    assert_eq!((late, all.len()), (10, 15), "{all:?}");
    http::get(net.client(1), gateway.at4(), "/")?.refused(503, "breaker_open")?;
    backends[0].slow(0)?;
    within(Duration::from_secs(5), "it closes", || {
        Ok((http::get(net.client(1), gateway.at4(), "/")?.status == 200).then_some(()))
    })?;
    assert!(spread(&net, &gateway, 10)?.iter().all(|(status, _)| *status == 200));
    Ok(())
}

// T5
#[test]
fn a_route_retries_more_or_less_than_its_upstream() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let routes = "[route.more]\npath = \"/status/*\"\nto = \"pool\"\nretry = { on = [\"connect\", \"503\"], tries = 1 }\n\
                  [route.less]\npath = \"/echo\"\nto = \"pool\"\nretry = { on = [] }\n\
                  [route.fast]\npath = \"/slow-header\"\nto = \"pool\"\nretry = { on = \"timeout\", per_try = \"300ms\" }\n";
    let gateway = Gateway::start(&net, &config(&backends, routes))?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    backends[0].fail(503)?;
    for _ in 0..6 {
        assert_eq!(client.get("/status/200")?.backend(), "b2");
    }
    assert_eq!(retries(&gateway, "503")?, 3.0);
    let statuses = |client: &mut Client, path: &str| -> Result<BTreeSet<u16>> {
        (0..6).map(|_| Ok(client.get(path)?.status)).collect()
    };
    assert_eq!(
        statuses(&mut client, "/")?,
        BTreeSet::from([200, 503]),
        "the others retry as their upstream does"
    );
    // Both are slow: each is asked once.
    backends[0].fail(0)?;
    let began = Instant::now();
    client.get("/slow-header?ms=5000")?.refused(504, "upstream_first_byte_timeout")?;
    assert!(
        (Duration::from_millis(600)..Duration::from_secs(4)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    assert!(retries(&gateway, "timeout")? >= 1.0);
    // What cannot be reached is not asked for elsewhere where nothing is retried.
    backends[1].down()?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    assert_eq!(statuses(&mut client, "/echo")?, BTreeSet::from([200, 502]));
    assert_eq!(statuses(&mut client, "/")?, BTreeSet::from([200]));
    let shown = gateway.cli(&["config", "show", &gateway.config().display().to_string()])?.ok()?.stdout;
    assert!(shown.contains("per_try = \"300ms\""), "{shown}");
    Ok(())
}

/// The counter of one reason.
fn fallbacks(gateway: &Gateway, reason: &str) -> Result<f64> {
    let labels = [("upstream", "pool"), ("reason", reason)];
    Ok(gateway.metrics()?.sum("upstream_fallbacks_total", &labels))
}

fn outcome(gateway: &Gateway) -> Result<String> {
    let told = gateway.cli(&["explain", "GET", "http://shop.test/a"])?.ok()?.stdout;
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    Ok(told)
}

// T7
#[test]
fn what_an_open_breaker_keeps_back_gets_the_fixed_answer() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let settings = "breaker = { least = 10, open_for = \"2s\", probes = 1 }\n\
                    [upstream.pool.fallback.respond]\nstatus = 203\nbody = \"[]\"\n\
                    headers = { content-type = \"application/json\", x-asked = \"${method} ${uri}\" }\n";
    let gateway = Gateway::start(&net, &config(&backends, settings))?;
    assert!(outcome(&gateway)?.contains("falls back on 203"));
    backends[0].fail(500)?;
    assert!(spread(&net, &gateway, 10)?.iter().all(|(status, _)| *status == 500));
    assert!(outcome(&gateway)?.contains("whose breaker is open: 203"));
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    let answer = client.get("/a?b=c")?;
    assert_eq!((answer.status, answer.text().as_str(), answer.backend()), (203, "[]", ""));
    for (name, value) in [
        ("content-type", Some("application/json")),
        ("cache-control", Some("no-store")),
        ("x-asked", Some("GET /a?b=c")),
        ("connection", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let line = gateway.log_of(&answer)?;
    assert_eq!((&line["status"], &line["why"]), (&json!(203), &json!("breaker_open")), "{line}");
    assert_eq!((&line["upstream"], &line["target"]), (&json!("pool"), &Value::Null), "{line}");
    // With a body that nobody reads, and without one that is to be sent.
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")?;
    assert_eq!(client.response_to("HEAD")?.status, 203);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")?;
    assert_eq!(client.response()?.text(), "[]");
    assert_eq!((fallbacks(&gateway, "breaker_open")?, backends[0].stats()?.requests), (3.0, 10));
    // What the fallback says is not the upstream's success.
    backends[0].fail(0)?;
    within(Duration::from_secs(5), "it closes", || {
        Ok((http::get(net.client(1), gateway.at4(), "/")?.status == 200).then_some(()))
    })?;
    assert_eq!(gateway.metrics()?.sum("upstream_breaker", &[("state", "closed")]), 1.0);
    Ok(())
}

// T7
#[test]
fn another_upstream_stands_in_with_the_whole_request_and_nothing_of_it_is_cached() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let (first, spare) = (backends[0].addr, backends[1].addr);
    let config = format!(
        "[listener.web]\nbind = \":80\"\n[cache.kept]\nttl = \"1h\"\n\
         [route.all]\nto = \"pool\"\n[route.kept]\npath = \"/made/*\"\nto = \"pool\"\ncache = \"kept\"\n\
         [route.ws]\npath = \"/ws\"\nto = \"pool\"\nupgrade = \"websocket\"\n\
         [upstream.pool]\nto = \"{first}\"\nfallback = {{ on = [\"unhealthy\", \"connect\"], to = \"spare\", \
         respond = {{ status = 503, body = \"later\" }} }}\n[upstream.spare]\nto = \"{spare}\"\n"
    );
    let gateway = Gateway::start(&net, &config)?;
    let send = |path: &str| {
        let body = "x".repeat(200_000);
        let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n{body}");
        http::exchange(net.client(1), gateway.at4(), request)
    };
    assert_eq!(send("/echo-body")?.backend(), "b1");
    backends[0].down()?;
    let reason = "upstream_connect_refused";
    for (path, n) in [("/echo-body", 1.0), ("/made/a", 2.0)] {
        let answer = send(path)?;
        assert_eq!((answer.status, answer.backend()), (200, "b2"), "{path}");
        let line = gateway.log_of(&answer)?;
        assert_eq!((&line["upstream"], &line["why"]), (&json!("spare"), &json!(reason)), "{line}");
        assert_eq!(fallbacks(&gateway, reason)?, n);
    }
    assert_eq!(send("/echo-body")?.body.len(), 200_000);
    // It could be kept, were it what was asked for.
    let made = |path: &str| http::get(net.client(1), gateway.at4(), path);
    assert_eq!(made("/made/a")?.backend(), "b2");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| made("/made/b"))).collect();
        all.into_iter().map(|one| one.join().expect("a client")).collect::<Result<_>>()
    })?;
    assert!(answers.iter().all(|answer| (answer.status, answer.backend()) == (200, "b2")), "{answers:?}");
    backends[0].up()?;
    assert_eq!((made("/made/a")?.backend(), made("/made/b")?.backend()), ("b1", "b1"));
    // Upgrades as well.
    backends[0].down()?;
    let upgrade = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(http::exchange(net.client(1), gateway.at4(), upgrade)?.status, 101);
    // Out by hand: it is not even tried.
    backends[0].up()?;
    gateway.cli(&["target", "down", &format!("pool/{first}")])?.ok()?;
    assert!(outcome(&gateway)?.contains("which has no healthy target: spare, or else 503"));
    assert_eq!(send("/echo-body")?.backend(), "b2");
    assert_eq!(fallbacks(&gateway, "no_healthy_target")?, 1.0);
    // Where the other one has no answer either, the config's is last.
    backends[1].down()?;
    let answer = send("/")?;
    assert_eq!((answer.status, answer.text().as_str()), (503, "later"));
    let line = gateway.log_of(&answer)?;
    assert_eq!((&line["upstream"], &line["why"]), (&json!("spare"), &json!(reason)), "{line}");
    Ok(())
}

// T7, C6
#[test]
fn of_many_who_wait_for_one_fetch_only_those_whose_upstream_has_a_fallback_get_it() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let upstream = |name: &str, more: &str| {
        // Nobody has this address.
        format!("[upstream.{name}]\nto = \"10.77.2.99:80\"\ntimeout = {{ connect = \"700ms\" }}\n{more}\n")
    };
    let fallback = "fallback = { on = [\"connect\"], respond = { status = 203 } }";
    let config = format!(
        "[listener.web]\nbind = \":80\"\n[cache.kept]\nttl = \"1h\"\n[route.all]\nto = [\"{}\"]\n\
         [route.without]\npath = \"/without\"\nto = \"bare\"\ncache = \"kept\"\n\
         [route.split]\npath = \"/split\"\nto = {{ bare = 1, backed = 1 }}\ncache = \"kept\"\n{}{}",
        backends[0].addr,
        upstream("bare", ""),
        upstream("backed", fallback),
    );
    let gateway = Gateway::start(&net, &config)?;
    let crowd = |path: &str| -> Result<Vec<u16>> {
        let mut clients: Vec<_> =
            (0..8).map(|_| Client::connect(net.client(1), gateway.at4())).collect::<Result<_>>()?;
        clients
            .iter_mut()
            .try_for_each(|client| client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")))?;
        let mut statuses: Vec<u16> =
            clients.iter_mut().map(|client| Ok(client.response()?.status)).collect::<Result<_>>()?;
        statuses.sort_unstable();
        Ok(statuses)
    };
    let connects =
        || -> Result<f64> { Ok(gateway.metrics()?.sum("upstream_connects_total", &[("upstream", "bare")])) };
    // Another upstream's fallback is none of theirs: nobody asks again.
    assert_eq!(crowd("/without")?, [504; 8]);
    assert_eq!(connects()?, 1.0);
    // Every other one, and so the first, was to go to the upstream that has one.
    assert_eq!(crowd("/split")?, [203, 203, 203, 203, 504, 504, 504, 504]);
    assert_eq!(connects()?, 1.0);
    Ok(())
}
