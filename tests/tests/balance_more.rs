//! Balancing by more than turns: LB5 to LB7, LB9, LB12 to LB14, LB16, zones.

use lab::{
    backend::{start_all, targets},
    prelude::*,
};

fn upstream(settings: &str) -> String {
    format!("[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\n{settings}\n")
}

/// Three targets of which each has its own settings.
fn each(backends: &[Backend], settings: &[&str]) -> String {
    let to = backends.iter().zip(settings).map(|(b, own)| format!("{{ addr = \"{}\"{own} }}", b.addr));
    format!("to = [{}]\n", to.collect::<Vec<_>>().join(", "))
}

const CHECK: &str = "health = { path = \"/healthz\", every = \"100ms\", rise = 1, fall = 1 }\n";

fn ask(client: &mut Client, fields: &str) -> Result<lab::http::Response> {
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))?;
    client.response()
}

fn answers(net: &Net, gateway: &Gateway, n: usize) -> Result<BTreeMap<String, usize>> {
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        let answer = client.get("/")?;
        assert_eq!(answer.status, 200, "{answer:?}");
        *counts.entry(answer.backend().to_owned()).or_default() += 1;
    }
    Ok(counts)
}

fn up(gateway: &Gateway, n: usize) -> Result<()> {
    eventually(&format!("{n} up"), || {
        Ok(gateway.metrics()?.sum("upstream_up", &[("upstream", "pool")]) == n as f64)
    })
}

// LB5
#[test]
fn a_header_decides_the_backend_and_without_it_the_fallback_does() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let settings = format!(
        "to = {}\nbalance = \"maglev\"\nhash_on = [\"header:x-user\", \"random\"]",
        targets(&backends)
    );
    let gateway = Gateway::start(&net, &upstream(&settings))?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    let mut first = BTreeMap::new();
    for _ in 0..3 {
        for user in 0..30 {
            let backend = ask(&mut client, &format!("x-user: u{user}\r\n"))?.backend().to_owned();
            assert_eq!(*first.entry(user).or_insert_with(|| backend.clone()), backend, "user {user}");
        }
    }
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(answers(&net, &gateway, 60)?.len(), 3, "one client without the field goes everywhere");
    Ok(())
}

/// The request of one of many.
type Asked = fn(usize) -> String;

// LB5
#[test]
fn a_cookie_a_parameter_the_path_or_the_consumer_decides_the_backend() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let consumer = |n: usize| {
        let hash = blake3::hash(format!("key-{n}").as_bytes()).to_hex();
        format!("[consumer.c{n}]\nkeys = [{{ id = \"k\", hash = \"blake3:{hash}\" }}]\n")
    };
    let consumers: String = (0..30).map(consumer).collect();
    let config = |on: &str, auth: bool| {
        let settings = format!("to = {}\nbalance = \"maglev\"\nhash_on = [{on}]", targets(&backends));
        let plain = upstream(&settings);
        match auth {
            false => plain,
            true => {
                let keyed = plain.replace("[route.all]\n", "[route.all]\nauth = \"keys\"\n");
                format!("{keyed}[auth.keys]\ntype = \"api-key\"\n{consumers}")
            }
        }
    };
    let gateway = Gateway::start(&net, &config("\"path\"", false))?;
    let ways: [(&str, Asked, bool); 4] = [
        (
            "\"cookie:uid\", \"random\"",
            |n| format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1; uid=u{n}\r\n\r\n"),
            false,
        ),
        ("\"query:user\", \"random\"", |n| format!("GET /?a=1&user=u{n} HTTP/1.1\r\nhost: a\r\n\r\n"), false),
        ("\"path\"", |n| format!("GET /p{n} HTTP/1.1\r\nhost: a\r\n\r\n"), false),
        (
            "\"consumer\", \"random\"",
            |n| format!("GET / HTTP/1.1\r\nhost: a\r\nx-api-key: key-{n}\r\n\r\n"),
            true,
        ),
    ];
    for (on, request, auth) in ways {
        gateway.write(&config(on, auth))?;
        gateway.cli(&["reload"])?.ok()?;
        let mut client = Client::connect(net.client(1), gateway.at4())?;
        let mut first = BTreeMap::new();
        for n in (0..3).flat_map(|_| 0..30) {
            client.send(request(n))?;
            let answer = client.response()?;
            assert!(matches!(answer.status, 200 | 404), "{on}: {answer:?}");
            let backend = answer.backend().to_owned();
            assert_eq!(*first.entry(n).or_insert_with(|| backend.clone()), backend, "{on}: {n}");
        }
        assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3, "{on}");
        for (n, backend) in first.iter().take(5).filter(|_| auth) {
            let asked = ["explain", "GET", "http://a/", "--as", &format!("c{n}"), "-o", "json"];
            let told = gateway.cli(&asked)?.ok()?.json()?;
            let target = backends.iter().find(|b| b.name == *backend).map(|b| json!(b.addr));
            assert_eq!(Some(&told["upstreams"][0]["target"]), target.as_ref(), "{told}");
        }
    }
    Ok(())
}

// LB6: below 1 / (2 N), with one of N ten times slower.
#[test]
fn of_two_by_lot_the_one_that_is_slow_and_busy_is_left_out() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(4)?;
    let backends = start_all(&net)?;
    let settings = format!("to = {}\nbalance = \"p2c\"", targets(&backends));
    let gateway = Gateway::start(&net, &upstream(&settings))?;
    for backend in &backends {
        backend.slow(if backend.name == "b1" { 200 } else { 20 })?;
    }
    let all = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| answers(&net, &gateway, 50))).collect();
        let counts = clients.into_iter().map(|client| client.join().expect("a client"));
        counts.collect::<Result<Vec<_>>>()
    })?;
    let slow: usize = all.iter().filter_map(|counts| counts.get("b1")).sum();
    assert!(slow < 400 / (2 * 4), "{slow} of 400 to the slow one");
    Ok(())
}

// LB7: below a fifth of an even share within 10 s, and an even share within 30 s of its recovery.
#[test]
fn p2c_leaves_a_slow_backend_alone_and_comes_back_to_it() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let settings = format!("to = {}\nbalance = \"p2c\"", targets(&backends));
    let gateway = Gateway::start(&net, &upstream(&settings))?;
    backends[0].slow(200)?;
    let began = Instant::now();
    answers(&net, &gateway, 20)?;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let slow = answers(&net, &gateway, 300)?.get("b1").copied().unwrap_or(0);
    assert!(slow < 300 / 3 / 5, "{slow} of 300 to the slow one");
    backends[0].slow(0)?;
    within(Duration::from_secs(30), "an even share again", || {
        let share = answers(&net, &gateway, 60)?.get("b1").copied().unwrap_or(0);
        Ok((share >= 18).then_some(()))
    })
}

// LB9
#[test]
fn a_sticky_cookie_wins_over_the_algorithm_and_a_dead_backend_gets_a_new_one() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let settings = format!("to = {}\n{CHECK}sticky = {{ cookie = \"at\" }}", targets(&backends));
    let gateway = Gateway::start(&net, &upstream(&settings))?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    let first = client.get("/")?;
    let set = first.header("set-cookie").context("no cookie")?.to_owned();
    assert!(set.starts_with("at=") && set.contains("; HttpOnly") && set.contains("; SameSite=Lax"), "{set}");
    let cookie = set.split(';').next().unwrap_or_default().to_owned();
    for _ in 0..20 {
        let answer = ask(&mut client, &format!("cookie: x=1; {cookie}\r\n"))?;
        assert_eq!(answer.backend(), first.backend());
        assert_eq!(answer.header("set-cookie"), None, "it has it already");
    }
    let stuck = backends.iter().find(|b| b.name == first.backend()).context("which?")?;
    stuck.down()?;
    // Before the checks know, a retry finds another; after, the choice does.
    for _ in 0..2 {
        let answer = ask(&mut client, &format!("cookie: {cookie}\r\n"))?;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.backend(), first.backend());
        let new = answer.header("set-cookie").context("no new cookie")?;
        assert!(!new.starts_with(&cookie), "{new}");
        up(&gateway, 2)?;
    }
    Ok(())
}

// LB12
#[test]
fn when_most_are_down_all_are_used_and_the_metric_says_so() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let settings = format!("to = {}\n{CHECK}panic = \"50%\"", targets(&backends));
    let gateway = Gateway::start(&net, &upstream(&settings))?;
    up(&gateway, 3)?;
    backends[0].health(500)?;
    up(&gateway, 2)?;
    assert!(!answers(&net, &gateway, 12)?.contains_key("b1"));
    let panic = |gateway: &Gateway| Ok::<_, anyhow::Error>(gateway.metrics()?.sum("upstream_panic", &[]));
    assert_eq!(panic(&gateway)?, 0.0);
    backends[1].health(500)?;
    up(&gateway, 1)?;
    assert_eq!(answers(&net, &gateway, 12)?.len(), 3);
    assert_eq!(panic(&gateway)?, 1.0);
    Ok(())
}

// LB13
#[test]
fn a_backend_that_comes_back_starts_slowly() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let settings = format!("to = {}\n{CHECK}slow_start = \"8s\"", targets(&backends));
    let gateway = Gateway::start(&net, &upstream(&settings))?;
    assert_eq!(answers(&net, &gateway, 20)?.get("b2"), Some(&10), "at the start all have their weight");
    backends[1].health(500)?;
    up(&gateway, 1)?;
    backends[1].health(200)?;
    up(&gateway, 2)?;
    let back = std::time::Instant::now();
    // And when, in the middle of the requests that tell.
    let share_at = |after: f64| -> Result<(f64, f64)> {
        let at = back + Duration::from_secs_f64(after);
        std::thread::sleep(at.saturating_duration_since(std::time::Instant::now()));
        let began = back.elapsed();
        let share = *answers(&net, &gateway, 200)?.get("b2").unwrap_or(&0) as f64 / 200.0;
        Ok((share, (began + back.elapsed()).as_secs_f64() / 2.0))
    };
    for after in [0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.2] {
        let (share, at) = share_at(after)?;
        // Its weight is w of 1, so its share w / (1 + w).
        let (weight, expected) = (share / (1.0 - share), (0.1 + 0.9 * at / 8.0).min(1.0));
        assert!((weight - expected).abs() <= 0.1, "{weight} instead of {expected} after {at} s");
    }
    Ok(())
}

// LB14
#[test]
fn a_backup_gets_requests_only_while_no_other_is_up() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(
        &net,
        &upstream(&format!("{}{CHECK}", each(&backends, &["", "", ", backup = true"]))),
    )?;
    up(&gateway, 3)?;
    assert!(!answers(&net, &gateway, 20)?.contains_key("b3"));
    backends[0].health(500)?;
    up(&gateway, 2)?;
    assert_eq!(answers(&net, &gateway, 20)?, BTreeMap::from([("b2".to_owned(), 20)]));
    backends[1].health(500)?;
    up(&gateway, 1)?;
    assert_eq!(answers(&net, &gateway, 20)?, BTreeMap::from([("b3".to_owned(), 20)]));
    backends[0].health(200)?;
    up(&gateway, 2)?;
    assert_eq!(answers(&net, &gateway, 20)?, BTreeMap::from([("b1".to_owned(), 20)]));
    Ok(())
}

#[test]
fn the_own_zone_is_preferred_until_too_little_of_it_is_up() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let zones = [", zone = \"a\"", ", zone = \"a\"", ", zone = \"b\""];
    let config = format!(
        "{}[gateway]\nzone = \"a\"\n",
        upstream(&format!("{}{CHECK}spill = \"60%\"", each(&backends, &zones)))
    );
    let gateway = Gateway::start(&net, &config)?;
    up(&gateway, 3)?;
    assert!(!answers(&net, &gateway, 20)?.contains_key("b3"));
    backends[0].health(500)?;
    up(&gateway, 2)?;
    let spilled = answers(&net, &gateway, 20)?;
    assert_eq!(spilled, BTreeMap::from([("b2".to_owned(), 10), ("b3".to_owned(), 10)]));
    Ok(())
}

// LB16: nothing new within 100 ms, and no reset in a loop of a minute.
#[test]
fn a_drained_backend_gets_nothing_new_at_once_and_keeps_what_it_has() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &upstream(&format!("to = {}", targets(&backends))))?;
    // A stream on each.
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Client::connect(net.client(1), gateway.at4())?;
        stream.send("GET /sse?n=600&ms=100 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        assert_eq!(stream.head()?.status, 200);
        streams.push(stream);
    }
    let requests = || backends[0].stats().map(|stats| stats.requests);
    let target = format!("pool/{}", backends[0].addr);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        gateway.cli(&["target", "drain", &target])?.ok()?;
        std::thread::sleep(Duration::from_millis(100));
        let before = requests()?;
        assert_eq!(answers(&net, &gateway, 30)?.len(), 2);
        assert_eq!(requests()?, before, "a request went to the drained one");
        gateway.cli(&["target", "up", &target])?.ok()?;
        assert_eq!(answers(&net, &gateway, 30)?.len(), 3);
    }
    for stream in &mut streams {
        let mut pieces = 0;
        while stream.chunk()?.is_some() {
            pieces += 1;
        }
        assert_eq!(pieces, 600, "a stream was cut");
    }
    Ok(())
}
