//! Limits, bans and purges of two gateways that share a store, a real redis-server. R13

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use lab::{
    net::Namespace,
    peers::{self, Peer},
};

use super::*;

mod gone;
mod windows;

const REDIS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6379);

/// Two gateways in front of one backend, at ports 80 and 81, and the store.
struct Pair {
    one: Gateway,
    two: Gateway,
    redis: Option<Peer>,
    /// The store's settings.
    settings: Vec<&'static str>,
    _backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn start_redis(namespace: &Namespace, settings: &[&str]) -> Result<Peer> {
    let port = REDIS.port().to_string();
    let fixed = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
    peers::run(namespace, "redis-server", &[&fixed, settings].concat(), peers::folder()?, REDIS, None)
}

impl Pair {
    fn start(limits: &str, route: &str) -> Result<Pair> {
        // Nothing is to be decided alone because the lab is slow.
        Pair::start_within("1s", limits, route)
    }

    fn start_within(budget: &str, limits: &str, route: &str) -> Result<Pair> {
        let shared = format!("[shared]\nredis = \"redis://{REDIS}\"\nbudget = \"{budget}\"");
        Pair::start_with(&[], &shared, limits, route, Default::default())
    }

    fn start_with(
        settings: &[&'static str],
        shared: &str,
        limits: &str,
        route: &str,
        options: lab::gateway::Options,
    ) -> Result<Pair> {
        let turn = lab::lock::shared()?;
        let net = Net::simple(1)?;
        let backends = lab::backend::start_all(&net)?;
        let redis = start_redis(&net.gateway, settings)?;
        let app = backends[0].addr.to_string();
        let text = |port: u16, kernel: &str| {
            config(&app, &format!("{shared}\n{limits}\n{kernel}"), route)
                .replace("bind = \":80\"", &format!("bind = \":{port}\""))
        };
        let one = Gateway::start_with(&net, &text(80, ""), options.clone())?;
        let other = "[metrics]\nbind = \"127.0.0.1:9181\"\n[kernel]\ninterfaces = []\n";
        let two = Gateway::start_with(&net, &text(81, other), options)?;
        let pair = Pair {
            one,
            two,
            redis: Some(redis),
            settings: settings.to_vec(),
            _backends: backends,
            net,
            _turn: turn,
        };
        for gateway in [&pair.one, &pair.two] {
            gateway.says("are shared with the other gateways")?;
        }
        Ok(pair)
    }

    fn at(&self, gateway: usize) -> SocketAddr {
        SocketAddr::from((VIP4, [80, 81][gateway % 2]))
    }

    fn ask(&self, gateway: usize, request: &str, fields: &str) -> Result<Response> {
        let mut client = Client::connect(self.net.client(1), self.at(gateway))?;
        client.send(format!("{request} HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))?;
        client.response()
    }

    fn status(&self, gateway: usize, fields: &str) -> Result<u16> {
        Ok(self.ask(gateway, "GET /", fields)?.status)
    }

    /// The first one's view.
    fn up(&self) -> Result<bool> {
        Ok(self.one.metrics()?.sum("shared_up", &[]) == 1.0)
    }

    /// How many of `n` are answered 200, by both in turn; the others must be answered 429.
    fn passed(&self, n: usize, fields: &str) -> Result<usize> {
        let mut passed = 0;
        for n in 0..n {
            match self.status(n, fields)? {
                200 => passed += 1,
                429 => {}
                status => bail!("status {status}"),
            }
        }
        Ok(passed)
    }

    /// Both are asked by two clients each, as fast as they can, until `over`.
    fn load(&self, over: &AtomicBool) -> Result<Counts> {
        let counts = Counts::default();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|n| {
                    scope.spawn({
                        let counts = &counts;
                        move || self.client(n, counts, over)
                    })
                })
                .collect();
            clients.into_iter().try_for_each(|client| client.join().expect("a client"))
        })?;
        Ok(counts)
    }

    fn client(&self, n: usize, counts: &Counts, over: &AtomicBool) -> Result<()> {
        let mut client = Client::connect(self.net.client(1), self.at(n))?;
        while !over.load(Relaxed) {
            let began = Instant::now();
            match client.get("/")?.status {
                200 => counts.passed.fetch_add(1, Relaxed),
                429 => counts.refused.fetch_add(1, Relaxed),
                status => bail!("status {status}"),
            };
            counts.slow.fetch_add(usize::from(began.elapsed() > Duration::from_millis(300)), Relaxed);
            // A hundred thousand refusals are of no more use than a thousand.
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Counts {
    passed: AtomicUsize,
    refused: AtomicUsize,
    slow: AtomicUsize,
}

#[test]
fn two_gateways_let_in_together_what_one_would_and_hardly_ever_ask() -> Result<()> {
    lab_test!();
    let pair = Pair::start("[limit.some]\nrate = \"200/s\"\nburst = 400", "limit = \"some\"")?;
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let load = scope.spawn(|| pair.load(&over));
        std::thread::sleep(Duration::from_secs(6));
        over.store(true, Relaxed);
        load.join().expect("the load")
    })?;
    let allowed = 400.0 + 200.0 * began.elapsed().as_secs_f64();
    let (passed, refused) = (counts.passed.into_inner() as f64, counts.refused.into_inner() as f64);
    assert!(passed <= 1.02 * allowed, "{passed} of {allowed}");
    assert!(passed >= 0.93 * allowed, "{passed} of {allowed}");
    let metrics = pair.one.metrics()?;
    let exchanges = metrics.sum("shared_exchanges_total", &[("result", "ok")]);
    assert!(
        exchanges > 10.0 && exchanges < 0.6 * (passed + refused) / 2.0,
        "{exchanges} of {passed} + {refused}"
    );
    assert_eq!(metrics.sum("shared_exchanges_total", &[("result", "failed")]), 0.0);
    Ok(())
}

#[test]
fn every_kind_of_limit_holds_over_both() -> Result<()> {
    lab_test!();
    let pair = Pair::start(
        "[limit.bucket]\nrate = \"20/h\"\nkey = \"header:x-b\"\n\
         [limit.window]\nrate = \"15/d\"\nalgorithm = \"fixed-window\"\nkey = \"header:x-w\"\n\
         [limit.sliding]\nrate = \"12/h\"\nalgorithm = \"sliding-window\"\nkey = \"header:x-l\"\n\
         [limit.tokens]\nunit = \"tokens\"\nrate = \"100/h\"\nkey = \"header:x-t\"\n\
         [limit.soft]\nmode = \"soft\"\nrate = \"10/h\"\nkey = \"header:x-s\"\n\
         [limit.own]\nrate = \"5/h\"\nkey = \"header:x-o\"\nshared = false",
        "limit = [\"bucket\", \"window\", \"sliding\", \"tokens\", \"soft\", \"own\"]",
    )?;
    let fields = |kind: &str, n: usize| -> String {
        let of = |name: &str| if name == kind { "same".into() } else { format!("{kind}{n}") };
        ["b", "w", "l", "t", "s", "o"].map(|name| format!("x-{name}: {}\r\n", of(name))).concat()
    };
    for (kind, passes) in [("b", 20), ("w", 15), ("l", 12), ("o", 10)] {
        let passed = (0..30)
            .map(|n| Ok(usize::from(pair.status(n, &fields(kind, n))? == 200)))
            .sum::<Result<usize>>()?;
        assert_eq!(passed, passes, "{kind}");
    }
    for (n, status) in [200, 200, 429, 429].into_iter().enumerate() {
        let answer = pair.ask(n, "GET /usage?tokens=60", &fields("t", 100 + n))?;
        assert_eq!(answer.status, status, "tokens, {n}");
        // The report is on its way.
        std::thread::sleep(Duration::from_millis(200));
    }
    let marked = |n: usize| -> Result<bool> {
        let answer = pair.ask(n, "GET /echo", &fields("s", 200 + n))?;
        std::thread::sleep(Duration::from_millis(250));
        Ok(!http::echoed(&answer.json()?, "x-limit-over").is_empty())
    };
    let marked = (0..14).map(marked).collect::<Result<Vec<_>>>()?;
    // Each goes by what it knew when it last told.
    let unmarked = marked.iter().filter(|marked| !**marked).count();
    assert!((10..=11).contains(&unmarked), "{marked:?}");
    // Started anew at one, it is at both.
    for (kind, name) in [("b", "bucket"), ("l", "sliding")] {
        pair.two.cli(&["limit", "reset", name])?.ok()?;
        eventually("it starts anew", || Ok(pair.status(0, &fields(kind, 300))? == 200))?;
    }
    Ok(())
}

#[test]
fn bans_and_purges_reach_the_other_gateway_and_one_that_starts_later() -> Result<()> {
    lab_test!();
    let mut pair = Pair::start(
        "[cache.all]\nmemory = \"32MiB\"\n[limit.few]\nrate = \"1000/s\"",
        "cache = \"all\"\nlimit = \"few\"",
    )?;
    let bans = |gateway: &Gateway| -> Result<Vec<Value>> {
        Ok(gateway.cli(&["ban", "list", "-o", "json"])?.ok()?.json()?.as_array().cloned().unwrap_or_default())
    };
    let has = |gateway: &Gateway, cidr: &str| Ok(bans(gateway)?.iter().any(|ban| ban["cidr"] == json!(cidr)));
    pair.one.cli(&["ban", "add", "203.0.113.0/24", "--for", "1h", "--why", "scraper"])?.ok()?;
    pair.two.cli(&["ban", "add", "198.51.100.7", "--where", "http"])?.ok()?;
    // The second one has no kernel half: it bans at L7.
    eventually("the second one knows", || has(&pair.two, "203.0.113.0/24"))?;
    eventually("the first one knows", || has(&pair.one, "198.51.100.7/32"))?;
    let ban =
        bans(&pair.two)?.into_iter().find(|ban| ban["cidr"] == json!("203.0.113.0/24")).context("gone")?;
    assert_eq!(
        (&ban["where"], &ban["by"], &ban["why"]),
        (&json!("http"), &json!("operator"), &json!("scraper"))
    );
    assert!(ban["left_seconds"].as_u64().is_some_and(|left| (3500..=3600).contains(&left)), "{ban}");
    pair.one.cli(&["ban", "del", "198.51.100.7"])?.ok()?;
    eventually("it is lifted", || Ok(!has(&pair.two, "198.51.100.7/32")?))?;
    pair.two.kill();
    std::fs::remove_file(pair.two.file("bans.json")).context("no bans")?;
    pair.two.run()?;
    eventually("it learns of what holds", || has(&pair.two, "203.0.113.0/24"))?;
    // It hears of both, one after the other.
    eventually("what was lifted is lifted", || Ok(!has(&pair.two, "198.51.100.7/32")?))?;

    let cached = |gateway: usize| -> Result<bool> {
        let asked = pair.ask(gateway, "GET /made/one", "x-answer: cache-control: max-age=3600\r\n")?;
        ensure!(asked.status == 200, "{asked:?}");
        Ok(asked.header("age").is_some())
    };
    assert!(!cached(0)? && !cached(1)?);
    assert!(cached(0)? && cached(1)?);
    pair.one.cli(&["cache", "purge", "all", "--all"])?.ok()?;
    eventually("it is purged at both", || Ok(!cached(1)?))?;
    Ok(())
}

#[test]
fn a_store_is_spoken_to_over_tls_if_its_certificate_is_from_whom_is_trusted() -> Result<()> {
    lab_test!();
    let folder = peers::folder()?;
    let (ours, theirs) = (lab::certs::Authority::new()?, lab::certs::Authority::new()?);
    ours.issue(&["127.0.0.1"])?.write(folder.path(), "store")?;
    for (authority, name) in [(&ours, "ours.pem"), (&theirs, "theirs.pem")] {
        std::fs::write(folder.path().join(name), &authority.pem)?;
    }
    let file = |name: &str| folder.path().join(name).display().to_string();
    let port = REDIS.port().to_string();
    // The last of each option counts.
    let settings = [
        "--port",
        "0",
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("store.pem"),
        "--tls-key-file",
        &file("store.key"),
        "--tls-ca-cert-file",
        &file("ours.pem"),
        "--tls-auth-clients",
        "no",
    ]
    .map(|text| &*text.to_owned().leak());
    let shared =
        |ca: &str| format!("[shared]\nredis = \"rediss://{REDIS}\"\nca = \"{}\"\nbudget = \"1s\"", file(ca));
    let limits = "[limit.few]\nrate = \"6/h\"";
    let pair =
        Pair::start_with(&settings, &shared("ours.pem"), limits, "limit = \"few\"", Default::default())?;
    let passed = (0..10).map(|n| Ok(usize::from(pair.status(n, "")? == 200))).sum::<Result<usize>>()?;
    assert_eq!(passed, 6, "over both");
    let app = pair._backends[0].addr.to_string();
    pair.one.write(&config(&app, &format!("{}\n{limits}", shared("theirs.pem")), "limit = \"few\""))?;
    pair.one.cli(&["reload"])?.ok()?;
    pair.one.says("hold for this gateway alone")?;
    let told = pair.one.stderr().join("\n");
    assert!(told.to_lowercase().contains("certificate"), "{told}");
    Ok(())
}

#[test]
fn a_password_comes_by_reference_and_is_nowhere_to_be_read() -> Result<()> {
    lab_test!();
    const WORD: &str = "uncommonly-secret-word";
    let options = lab::gateway::Options {
        variables: vec![("STORE".into(), format!("redis://:{WORD}@{REDIS}/3"))],
        ..Default::default()
    };
    let shared = "[shared]\nredis = { env = \"STORE\" }\nname = \"edge\"\nbudget = \"1s\"";
    let limits = "[limit.few]\nrate = \"6/h\"";
    let mut pair = Pair::start_with(&["--requirepass", WORD], shared, limits, "limit = \"few\"", options)?;
    let passed =
        |pair: &Pair| -> Result<usize> { (0..10).map(|n| Ok(usize::from(pair.status(n, "")? == 200))).sum() };
    assert_eq!(passed(&pair)?, 6);
    // Another password: it is refused, and said so without it.
    drop(pair.redis.take());
    pair.redis = Some(start_redis(&pair.net.gateway, &["--requirepass", "another"])?);
    pair.one.says("hold for this gateway alone")?;
    let shown = pair.one.cli(&["config", "show"])?.ok()?.stdout;
    let told = [pair.one.stderr().join("\n"), pair.two.stderr().join("\n"), shown].concat();
    assert!(told.contains("STORE") && !told.contains(WORD), "{told}");
    let wrong = "[shared]\nredis = \"redis://:word@127.0.0.1/0\"";
    pair.one.write(&config("127.0.0.1:1", &format!("{wrong}\n{limits}"), "limit = \"few\""))?;
    let refused = pair.one.cli(&["reload"])?;
    assert!(refused.code != 0 && refused.stderr.contains("env ="), "{refused:?}");
    Ok(())
}
