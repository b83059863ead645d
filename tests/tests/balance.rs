//! How requests are spread over targets: LB1 to LB4.

use lab::{
    backend::{start_all, targets},
    prelude::*,
    websocket::Socket,
};

const CLIENTS: u16 = 5000;

fn upstream(settings: &str) -> String {
    format!("[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\n{settings}\n")
}

fn weighted(backends: &[Backend], weights: &[u32]) -> String {
    let to = backends.iter().zip(weights).map(|(b, w)| format!("{{ addr = \"{}\", weight = {w} }}", b.addr));
    format!("to = [{}]", to.collect::<Vec<_>>().join(", "))
}

/// The backends that answer so many GETs on one connection.
fn order(net: &Net, gateway: &Gateway, n: usize) -> Result<Vec<String>> {
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    (0..n).map(|_| Ok(client.get("/")?.backend().to_owned())).collect()
}

fn count(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    answers.iter().for_each(|backend| *counts.entry(backend.as_str()).or_default() += 1);
    counts
}

// LB1
#[test]
fn round_robin_follows_weights_exactly_and_smoothly() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &upstream(&weighted(&backends, &[5, 1, 1])))?;
    let answers = order(&net, &gateway, 70)?;
    assert_eq!(count(&answers), BTreeMap::from([("b1", 50), ("b2", 10), ("b3", 10)]));
    // Every round is the smooth one, wherever the counting began.
    let round = ["b1", "b1", "b2", "b1", "b3", "b1", "b1"];
    let fits = |shift: usize| answers.iter().enumerate().all(|(i, got)| got == round[(i + shift) % 7]);
    assert!((0..7).any(fits), "{:?}", &answers[..14]);
    Ok(())
}

// LB1
#[test]
fn round_robin_with_equal_weights_is_never_more_than_one_apart() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &upstream(&format!("to = {}", targets(&backends))))?;
    let answers = order(&net, &gateway, 60)?;
    for end in 1..=answers.len() {
        let so_far = count(&answers[..end]);
        let of = |name: &str| so_far.get(name).copied().unwrap_or(0);
        let counts = ["b1", "b2", "b3"].map(of);
        let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
        assert!(spread <= 1, "{counts:?} after {end}");
    }
    Ok(())
}

/// Three backends behind least connections, of which only the first is healthy yet; four workers.
fn lopsided(net: &Net) -> Result<(Vec<Backend>, Gateway)> {
    let backends = start_all(net)?;
    for late in &backends[1..] {
        late.health(500)?;
    }
    let health = "health = { path = \"/healthz\", every = \"100ms\", rise = 1, fall = 1 }";
    let settings = format!("to = {}\nbalance = \"least-conn\"\n{health}", targets(&backends));
    let config = format!(
        "{}[route.ws]\npath = \"/ws\"\nto = \"pool\"\nupgrade = [\"websocket\"]\n[gateway]\nworkers = 4\n",
        upstream(&settings)
    );
    let gateway = Gateway::start(net, &config)?;
    healthy(&gateway, 1)?;
    Ok((backends, gateway))
}

/// Waits until so many targets are healthy.
fn healthy(gateway: &Gateway, n: usize) -> Result<()> {
    eventually(&format!("{n} healthy"), || {
        Ok(gateway.metrics()?.sum("upstream_up", &[("upstream", "pool")]) == n as f64)
    })
}

// LB2
#[test]
fn least_connections_counts_open_requests_over_all_workers() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let (backends, gateway) = lopsided(&net)?;
    let mut held = Vec::new();
    for i in 0..20 {
        let from = net.client(1).many_v4(i).into();
        let mut client = Client::connect_from(net.client(1), gateway.at4(), Some(from))?;
        client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")?;
        held.push(client);
    }
    backends[0].until("20 held", |stats| stats.paths.get("/hang") == Some(&20))?;
    for late in &backends[1..] {
        late.health(200)?;
    }
    healthy(&gateway, 3)?;
    let mut answers = Vec::new();
    for i in 0..40 {
        let from = net.client(1).many_v4(100 + i).into();
        answers.push(http::get_from(net.client(1), gateway.at4(), from, "/")?.backend().to_owned());
    }
    assert_eq!(count(&answers), BTreeMap::from([("b2", 20), ("b3", 20)]));
    Ok(())
}

// LB2
#[test]
fn least_connections_counts_a_websocket_until_it_closes() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let (backends, gateway) = lopsided(&net)?;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        let mut socket = Socket::open(net.client(1), gateway.at4(), "/ws")?;
        assert_eq!(socket.echo("hello")?, "hello");
        sockets.push(socket);
    }
    for late in &backends[1..] {
        late.health(200)?;
    }
    healthy(&gateway, 3)?;
    let answers = order(&net, &gateway, 10)?;
    assert!(!count(&answers).contains_key("b1"), "{answers:?}");
    drop(sockets);
    eventually("b1 is free again", || {
        let target = backends[0].addr.to_string();
        Ok(gateway.metrics()?.sum("upstream_active_requests", &[("target", &target)]) == 0.0)
    })?;
    assert!(count(&order(&net, &gateway, 30)?).contains_key("b1"));
    Ok(())
}

/// Ten backends in one namespace.
fn ten(net: &Net) -> Result<Vec<Backend>> {
    (0..10).map(|i| Backend::start_as(net.backend(1), &format!("t{i}"), 8081 + i, None)).collect()
}

fn hashed(backends: &[Backend]) -> String {
    upstream(&format!("to = {}\nbalance = \"ip-hash\"", targets(backends)))
}

/// By client address, v4 and v6, the backend that answers it.
fn mapping(net: &Net, gateway: &Gateway) -> Result<BTreeMap<IpAddr, String>> {
    let client = net.client(1);
    let part = |part: u16| -> Result<Vec<(IpAddr, String)>> {
        let mut all = Vec::new();
        for i in (part * CLIENTS / 4)..((part + 1) * CLIENTS / 4) {
            let (v4, v6) = (client.many_v4(i).into(), client.many_v6(u64::from(i) << 20 | 1).into());
            for (from, to) in [(v4, gateway.at4()), (v6, gateway.at6())] {
                all.push((from, http::get_from(client, to, from, "/")?.backend().to_owned()));
            }
        }
        Ok(all)
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..4).map(|n| scope.spawn(move || part(n))).collect();
        let mut all = BTreeMap::new();
        for part in parts {
            all.extend(part.join().expect("a client thread")?);
        }
        Ok(all)
    })
}

fn moved(before: &BTreeMap<IpAddr, String>, after: &BTreeMap<IpAddr, String>) -> usize {
    before.iter().filter(|(from, backend)| after.get(from) != Some(backend)).count()
}

// LB3
#[test]
fn each_of_10000_addresses_keeps_its_backend_over_three_passes_and_a_restart() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = ten(&net)?;
    let mut gateway = Gateway::start(&net, &hashed(&backends))?;
    let first = mapping(&net, &gateway)?;
    assert_eq!(first.len(), 2 * usize::from(CLIENTS));
    for _ in 0..2 {
        assert_eq!(moved(&first, &mapping(&net, &gateway)?), 0);
    }
    gateway.stop()?;
    gateway.run()?;
    assert_eq!(moved(&first, &mapping(&net, &gateway)?), 0);
    let answers: Vec<String> = first.into_values().collect();
    let shares = count(&answers);
    assert_eq!(shares.len(), 10);
    assert!(shares.values().all(|share| (850..=1150).contains(share)), "not within 15 %: {shares:?}");
    Ok(())
}

// LB4
#[test]
fn removing_one_of_ten_backends_moves_few_addresses_and_adding_it_back_restores_all() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = ten(&net)?;
    let gateway = Gateway::start(&net, &hashed(&backends))?;
    let before = mapping(&net, &gateway)?;
    gateway.write(&hashed(&backends[..9]))?;
    gateway.cli(&["reload"])?.ok()?;
    let without = mapping(&net, &gateway)?;
    let share = moved(&before, &without) as f64 / before.len() as f64;
    assert!(share <= 0.12, "{share} moved");
    assert!(without.values().all(|backend| backend != "t9"));
    gateway.write(&hashed(&backends))?;
    gateway.cli(&["reload"])?.ok()?;
    assert_eq!(moved(&before, &mapping(&net, &gateway)?), 0);
    Ok(())
}

// LB4
#[test]
fn bounded_load_sends_a_hot_address_elsewhere_before_its_backend_drowns() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(4)?;
    let backends = start_all(&net)?;
    let settings = format!("to = {}\nbalance = \"ip-hash\"\nbounded_load = 1.25", targets(&backends));
    let gateway = Gateway::start(&net, &upstream(&settings))?;
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(net.client(1), gateway.at4())?;
        client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")?;
        held.push(client);
        let so_far = held.len() as u64;
        eventually("held", || {
            Ok(backends.iter().map(|b| Ok(b.stats()?.requests)).sum::<Result<u64>>()? == so_far)
        })?;
    }
    for backend in &backends {
        // 1.25 times the mean of ten, rounded up.
        let requests = backend.stats()?.requests;
        assert!(requests <= 13, "{}: {requests} of 40", backend.name);
    }
    Ok(())
}
