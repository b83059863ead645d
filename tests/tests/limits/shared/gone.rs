//! The store is killed, comes back, hangs.

use super::*;

#[test]
fn a_store_that_is_killed_and_comes_back_under_load_fails_and_delays_nobody() -> Result<()> {
    lab_test!();
    let limits =
        "[limit.some]\nrate = \"300/s\"\n[limit.any]\nrate = \"3000/5s\"\nalgorithm = \"sliding-window\"";
    let mut pair = Pair::start_within("20ms", limits, "limit = [\"some\", \"any\"]")?;
    let mut redis = pair.redis.take().context("no store")?;
    let over = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| -> Result<Counts> {
        let load = scope.spawn(|| pair.load(&over));
        let told = (|| -> Result<()> {
            std::thread::sleep(Duration::from_secs(1));
            redis.process.kill();
            within(Duration::from_secs(5), "it is missed", || Ok((!pair.up()?).then_some(())))?;
            let before =
                pair.one.metrics()?.sum("limit_decisions_total", &[("limit", "some"), ("decision", "allow")]);
            std::thread::sleep(Duration::from_secs(1));
            let metrics = pair.one.metrics()?;
            let alone =
                metrics.sum("limit_decisions_total", &[("limit", "some"), ("decision", "allow")]) - before;
            assert!(alone >= 200.0, "it goes on alone: {alone}");
            assert!(metrics.sum("limit_alone_total", &[]) > 0.0);
            redis = start_redis(&pair.net.gateway, &pair.settings)?;
            within(Duration::from_secs(5), "it is found again", || Ok(pair.up()?.then_some(())))
        })();
        std::thread::sleep(Duration::from_secs(1));
        over.store(true, Relaxed);
        let counts = load.join().expect("the load");
        told?;
        counts
    })?;
    let [passed, refused, slow] = [counts.passed, counts.refused, counts.slow].map(AtomicUsize::into_inner);
    assert!(refused > 0);
    // The lab itself is slow now and then.
    assert!(slow * 100 <= passed + refused, "{slow} of {passed} + {refused} took over 300 ms");
    let said = pair.one.stderr().iter().filter(|line| line.contains("hold for this gateway alone")).count();
    assert_eq!(said, 1, "once");
    pair.redis = Some(redis);
    Ok(())
}

#[test]
fn a_store_that_hangs_holds_nobody_up_for_longer_than_the_budget() -> Result<()> {
    lab_test!();
    let pair = Pair::start_within("20ms", "[limit.some]\nrate = \"1000/s\"\nburst = 50", "limit = \"some\"")?;
    let redis = pair.redis.as_ref().context("no store")?;
    redis.process.signal(libc::SIGSTOP)?;
    let mut times = Vec::new();
    for n in 0..100 {
        let began = Instant::now();
        assert_eq!(pair.status(n, "")?, 200);
        times.push(began.elapsed());
    }
    redis.process.signal(libc::SIGCONT)?;
    times.sort_unstable();
    assert!(times[50] < Duration::from_millis(100), "{times:?}");
    assert!(times[99] < Duration::from_millis(500), "{times:?}");
    eventually("it is found again", || pair.up())
}

impl Pair {
    /// Both see that it is gone, or there again.
    fn both_see(&self, up: f64) -> Result<()> {
        let see = |port: u16| -> Result<bool> {
            let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let stream = self.net.gateway.run(|| std::net::TcpStream::connect(at))??;
            let told = Client::over(stream)?.get("/metrics")?;
            Ok(lab::metrics::Metrics::parse(&told.text()).sum("shared_up", &[]) == up)
        };
        eventually("both see it", || Ok(see(9180)? && see(9181)?))
    }

    /// Six an hour by `x-key`, and a route without.
    fn with_six(on_error: &str, more: &str) -> Result<Pair> {
        let shared = format!("[shared]\nredis = \"redis://{REDIS}\"\nbudget = \"1s\"\n{on_error}");
        let limits = format!(
            "[limit.six]\nrate = \"6/h\"\nkey = \"header:x-key\"\n{more}\n[route.free]\npath = \"/free\"\nto = \"app\""
        );
        Pair::start_with(&[], &shared, &limits, "limit = \"six\"", Default::default())
    }

    /// The store is killed, `meanwhile` happens, and it is there again; then the limit holds over both as before.
    fn without_its_store(&mut self, meanwhile: impl FnOnce(&Pair) -> Result<()>) -> Result<()> {
        drop(self.redis.take());
        self.both_see(0.0)?;
        meanwhile(self)?;
        self.redis = Some(start_redis(&self.net.gateway, &self.settings)?);
        self.both_see(1.0)?;
        assert_eq!(self.passed(8, "x-key: after\r\n")?, 6, "it holds over both again");
        Ok(())
    }

    fn alone(&self, on_error: &str) -> Result<f64> {
        Ok(self.one.metrics()?.sum("limit_alone_total", &[("on_error", on_error)]))
    }
}

#[test]
fn without_the_store_each_gateway_holds_limits_for_itself_unless_told_otherwise() -> Result<()> {
    lab_test!();
    let mut pair = Pair::with_six("", "")?;
    assert_eq!(pair.passed(8, "x-key: before\r\n")?, 6);
    pair.without_its_store(|pair| {
        assert_eq!(pair.passed(16, "x-key: alone\r\n")?, 12, "six at each");
        assert!(pair.alone("local")? >= 6.0);
        Ok(())
    })
}

#[test]
fn limits_that_fail_open_let_everything_in_while_the_store_is_gone() -> Result<()> {
    lab_test!();
    let mut pair = Pair::with_six("on_error = \"pass\"", "")?;
    assert_eq!(pair.passed(8, "x-key: before\r\n")?, 6);
    pair.without_its_store(|pair| {
        assert_eq!(pair.passed(30, "x-key: open\r\n")?, 30);
        assert_eq!(pair.alone("pass")?, 15.0);
        pair.one.says("shared limits let everything in")
    })
}

#[test]
fn limits_that_fail_closed_refuse_everything_while_the_store_is_gone_and_ban_nobody_for_it() -> Result<()> {
    lab_test!();
    let mut pair =
        Pair::with_six("on_error = \"refuse\"", "ban = { after = 3, for = \"1h\", where = \"http\" }")?;
    assert_eq!(pair.passed(8, "x-key: before\r\n")?, 6);
    pair.without_its_store(|pair| {
        for n in 0..10 {
            let answer = pair.ask(n, "GET /", "x-key: closed\r\n")?;
            answer.refused(503, "limit_unavailable")?;
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(pair.ask(n, "GET /free", "")?.status, 200);
        }
        assert_eq!(pair.alone("refuse")?, 5.0);
        let told = pair.one.cli(&["explain", "GET", "http://a/", "-o", "json"])?.ok()?.json()?;
        assert_eq!((&told["why"], &told["status"]), (&json!("limit_unavailable"), &json!(503)), "{told}");
        pair.one.says("requests that shared limits hold for are refused")
    })
}
