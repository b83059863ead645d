//! Sliding windows over both.

use super::*;

/// When a request went out, and when its answer was there.
type Passed = Vec<(Instant, Instant)>;

/// Four clients, two at each, for so long: what passed.
fn passed(pair: &Pair, lasts: Duration, pause: Duration) -> Result<Passed> {
    let until = Instant::now() + lasts;
    let client = |n: usize| -> Result<Passed> {
        let (mut client, mut passed) = (Client::connect(pair.net.client(1), pair.at(n))?, Vec::new());
        while Instant::now() < until {
            let sent = Instant::now();
            match client.get("/")?.status {
                200 => passed.push((sent, Instant::now())),
                429 => {}
                status => bail!("status {status}"),
            }
            std::thread::sleep(pause);
        }
        Ok(passed)
    };
    let client = &client;
    let mut all = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|n| scope.spawn(move || client(n))).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect::<Result<Vec<_>>>()
    })?
    .concat();
    all.sort_unstable();
    Ok(all)
}

/// The most that passed for certain within any such span.
fn most_within(passed: &Passed, span: Duration) -> usize {
    let within = |(at, (sent, _)): (usize, &(Instant, Instant))| {
        passed[at..].iter().filter(|(_, got)| got.duration_since(*sent) < span).count()
    };
    passed.iter().enumerate().map(within).max().unwrap_or(0)
}

/// How often a gateway has asked the store, and decided.
fn asked_and_decided(gateway: &Gateway) -> Result<(f64, f64)> {
    let metrics = gateway.metrics()?;
    let exchanges = metrics.sum("shared_exchanges_total", &[("result", "ok")]);
    Ok((exchanges, metrics.sum("limit_decisions_total", &[("limit", "any")])))
}

#[test]
fn a_sliding_window_holds_over_both_in_any_span_of_time() -> Result<()> {
    lab_test!();
    let limit = "[limit.any]\nrate = \"40/4s\"\nalgorithm = \"sliding-window\"";
    let pair = Pair::start(limit, "limit = \"any\"")?;
    let passed = passed(&pair, Duration::from_secs(10), Duration::from_millis(5))?;
    let most = most_within(&passed, Duration::from_secs(4));
    // Too small for leases: to the last one.
    assert!(most <= 40, "{most}");
    assert!(passed.len() >= 80, "{} in 10 s", passed.len());
    // Who is refused knows when it need not ask: a refusal is hardly ever an exchange.
    let (exchanges, decided) = asked_and_decided(&pair.one)?;
    assert!(exchanges < 0.5 * decided, "{exchanges} of {decided}");
    Ok(())
}

#[test]
fn of_a_busy_sliding_window_no_more_passes_than_the_leases_beyond_it() -> Result<()> {
    lab_test!();
    let limit = "[limit.any]\nrate = \"1000/2s\"\nalgorithm = \"sliding-window\"";
    let pair = Pair::start(limit, "limit = \"any\"")?;
    let passed = passed(&pair, Duration::from_secs(6), Duration::from_micros(500))?;
    let most = most_within(&passed, Duration::from_secs(2));
    // A hundredth at each: R13 wants 1.05 times at most.
    assert!(most <= 1020, "{most}");
    let (exchanges, decided) = asked_and_decided(&pair.one)?;
    assert!(exchanges < 0.6 * decided, "{exchanges} of {decided}");
    Ok(())
}

#[test]
fn what_is_told_of_a_sliding_window_is_what_is_left_over_both() -> Result<()> {
    lab_test!();
    let limit = "[limit.any]\nrate = \"8/6s\"\nalgorithm = \"sliding-window\"";
    let pair = Pair::start(limit, "limit = \"any\"")?;
    let left = |answer: &Response| parameter(answer.header("ratelimit").unwrap_or_default(), "any", "r");
    let began = Instant::now();
    for n in 0..4 {
        let answer = pair.ask(0, "GET /", "")?;
        assert_eq!((answer.status, left(&answer)?), (200, 7 - n));
    }
    let other = (0..5).map(|_| pair.ask(1, "GET /", "")).collect::<Result<Vec<_>>>()?;
    let told = other.iter().map(|answer| Ok((answer.status, left(answer)?))).collect::<Result<Vec<_>>>()?;
    ensure!(began.elapsed() < Duration::from_secs(5), "the lab is too slow");
    assert_eq!(told, [(200, 3), (200, 2), (200, 1), (200, 0), (429, 0)]);
    // Whoever comes back when it is told to is let in, wherever it asks.
    for gateway in [1, 0] {
        let answer = pair.ask(gateway, "GET /", "")?;
        assert_eq!(answer.status, 429);
        let wait: u64 = answer.header("retry-after").context("no retry-after")?.parse()?;
        assert!((1..=7).contains(&wait), "{wait}");
        std::thread::sleep(Duration::from_secs(wait));
        assert_eq!(pair.status(gateway, "")?, 200);
        pair.passed(8, "")?;
    }
    Ok(())
}
