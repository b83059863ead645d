//! Caps on what a target gets at once, and the queue before them: LB15, T10.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use lab::{
    backend::{start_all, targets},
    prelude::*,
    websocket::Socket,
};

fn config(backends: &[Backend], pool: &str) -> String {
    format!(
        "[gateway]\nworkers = 4\n[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n\
         upgrade = [\"websocket\"]\n[upstream.pool]\nto = {}\npool = {{ {pool} }}\n",
        targets(backends)
    )
}

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(backends: usize, pool: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(backends)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &config(&backends, pool))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    /// From the n-th address, so that every worker has some. The request is sent and not answered yet.
    fn ask(&self, n: u16, path: &str) -> Result<Client> {
        let from = self.net.client(1).many_v4(n).into();
        let mut client = Client::connect_from(self.net.client(1), self.gateway.at4(), Some(from))?;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))?;
        Ok(client)
    }

    fn in_flight(&self, n: f64) -> Result<()> {
        eventually(&format!("{n} are in flight"), || {
            Ok(self.gateway.metrics()?.sum("upstream_active_requests", &[("upstream", "pool")]) == n)
        })
    }

    fn waiting(&self, n: f64) -> Result<()> {
        eventually(&format!("{n} wait"), || {
            Ok(self.gateway.metrics()?.sum("upstream_queue", &[("upstream", "pool")]) == n)
        })
    }
}

// LB15
#[test]
fn the_eleventh_of_ten_waits_and_is_refused_after_its_time_or_when_too_many_wait() -> Result<()> {
    lab_test!();
    let rig = rig(1, "max = 10, queue = 2, queue_timeout = \"600ms\"")?;
    let mut busy: Vec<Client> = (0..10).map(|n| rig.ask(n, "/hang")).collect::<Result<_>>()?;
    rig.in_flight(10.0)?;
    let began = Instant::now();
    let mut waiting = vec![rig.ask(20, "/")?, rig.ask(21, "/")?];
    rig.waiting(2.0)?;
    rig.ask(22, "/")?.response()?.refused(503, "upstream_queue_full")?;
    assert!(began.elapsed() < Duration::from_millis(550), "refused at once: {:?}", began.elapsed());
    for client in &mut waiting {
        client.response()?.refused(503, "upstream_queue_timeout")?;
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(590) && took < Duration::from_millis(900), "{took:?}");
    rig.waiting(0.0)?;
    assert_eq!(rig.backends[0].stats()?.requests, 10, "nothing more was sent");
    let errors = rig.gateway.metrics()?.by("http_errors_total", "reason", &[]);
    assert_eq!((errors["upstream_queue_full"], errors["upstream_queue_timeout"]), (1.0, 2.0));
    let line = rig.gateway.log_line("one that waited", |line| line["why"] == "upstream_queue_timeout")?;
    assert!(line["us_queue"].as_u64().is_some_and(|us| us > 590_000), "{line}");
    assert!(line["us_self"].as_u64().is_some_and(|us| us < 200_000), "to wait is no work: {line}");
    // A place is free when its client goes, and then the next one is served.
    let mut next = rig.ask(30, "/")?;
    rig.waiting(1.0)?;
    drop(busy.pop());
    assert_eq!(next.response()?.status, 200);
    let shown = &rig.gateway.status()?["upstreams"]["pool"];
    assert_eq!((&shown["queue"], &shown["targets"][0]["max"]), (&json!(0), &json!(10)));
    Ok(())
}

// LB15
#[test]
fn those_who_wait_are_served_in_their_order_and_one_that_leaves_keeps_nobody() -> Result<()> {
    lab_test!();
    let rig = rig(1, "max = 1, queue = 16, queue_timeout = \"10s\"")?;
    let busy = rig.ask(0, "/hang")?;
    rig.in_flight(1.0)?;
    let mut waiting = Vec::new();
    for n in 1..=8 {
        waiting.push(rig.ask(n, &format!("/made/{n}"))?);
        rig.waiting(f64::from(n))?;
    }
    // The first and one in the middle go away.
    drop(waiting.remove(4));
    drop(waiting.remove(0));
    rig.waiting(6.0)?;
    drop(busy);
    // The backend numbers its answers, of which it gives one at a time.
    let mut served = Vec::new();
    for client in &mut waiting {
        let answer = client.response()?;
        assert_eq!(answer.status, 200);
        served.push(answer.header("x-serial").context("no number")?.parse::<u32>()?);
    }
    assert_eq!(served, [1, 2, 3, 4, 5, 6], "in the order in which they came");
    rig.waiting(0.0)?;
    eventually("all are logged", || Ok(rig.gateway.log()?.len() == 9))?;
    let gone = rig.gateway.log()?.iter().filter(|line| line["why"] == "client_gone").count();
    assert_eq!(gone, 3);
    Ok(())
}

// LB15
#[test]
fn caps_hold_over_all_workers_under_load_and_nobody_is_refused() -> Result<()> {
    lab_test!();
    let rig = rig(2, "max = 3, queue = 1000, queue_timeout = \"30s\"")?;
    rig.backends.iter().try_for_each(|backend| backend.slow(3))?;
    let (done, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let most = std::thread::scope(|scope| -> Result<f64> {
        let clients: Vec<_> = (0..24u16)
            .map(|n| {
                let (rig, served) = (&rig, &served);
                scope.spawn(move || -> Result<()> {
                    let from = rig.net.client(1).many_v4(n).into();
                    let mut client = Client::connect_from(rig.net.client(1), rig.gateway.at4(), Some(from))?;
                    for _ in 0..40 {
                        let answer = client.get("/")?;
                        ensure!(answer.status == 200, "{answer:?}");
                        served.fetch_add(1, Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let watch = scope.spawn(|| -> Result<f64> {
            let mut most: f64 = 0.0;
            while !done.load(Relaxed) {
                let metrics = rig.gateway.metrics()?;
                let by_target = metrics.by("upstream_active_requests", "target", &[]);
                most = by_target.values().fold(most, |most, n| most.max(*n));
            }
            Ok(most)
        });
        let ended: Result<Vec<()>> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        done.store(true, Relaxed);
        let most = watch.join().unwrap();
        ended?;
        most
    })?;
    assert_eq!(served.into_inner(), 24 * 40);
    assert_eq!(most, 3.0, "so many at once on one target, and no more");
    rig.in_flight(0.0)?;
    rig.waiting(0.0)
}

// LB15
#[test]
fn a_target_has_a_cap_of_its_own_websockets_count_and_a_reload_lets_those_who_wait_go_on() -> Result<()> {
    lab_test!();
    let rig = rig(2, "max = 5, queue_timeout = \"10s\"")?;
    let caps = |first: u32, second: u32| {
        let to = targets(&rig.backends);
        let capped = format!(
            "[{{ addr = \"{}\", max = {first} }}, {{ addr = \"{}\", max = {second} }}]",
            rig.backends[0].addr, rig.backends[1].addr
        );
        config(&rig.backends, "queue_timeout = \"10s\"").replace(&to, &capped)
    };
    rig.gateway.write(&caps(1, 2))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let open = || Socket::open(rig.net.client(1), rig.gateway.at4(), "/ws");
    let mut sockets = (0..3).map(|_| open()).collect::<Result<Vec<_>>>()?;
    rig.in_flight(3.0)?;
    let active = rig.gateway.metrics()?.by("upstream_active_requests", "target", &[]);
    let expected = [(0, 1.0), (1, 2.0)].map(|(i, n): (usize, f64)| (rig.backends[i].addr.to_string(), n));
    assert_eq!(active, BTreeMap::from(expected));
    // One that waits keeps the config that it came with; whoever comes later does not overtake it.
    let mut waiting = [rig.ask(1, "/")?];
    rig.waiting(1.0)?;
    rig.gateway.write(&caps(1, 3))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(sockets[0].echo("still there?")?, "still there?");
    drop(sockets.pop());
    assert_eq!(waiting[0].response()?.status, 200);
    // Without caps nobody waits any more.
    rig.gateway.write(&config(&rig.backends, ""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    sockets.extend((0..4).map(|_| open()).collect::<Result<Vec<_>>>()?);
    assert_eq!(rig.ask(3, "/")?.response()?.status, 200);
    Ok(())
}
