//! Limits that follow the health of what they protect, and the host's. R4, idea 4

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use super::*;

// R4
#[test]
fn a_dynamic_limit_falls_with_the_health_of_its_upstream_and_comes_back_with_it() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.protect]\nmode = \"dynamic\"\nrate = { from = \"20/s\", to = \"2000/s\" }\ntarget = { p99 = \"1s\" }\nheaders = []",
        "limit = \"protect\"",
    )?;
    let over = AtomicBool::new(false);
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
                while !over.load(Relaxed) {
                    let Ok(mut client) = rig.client() else { continue };
                    while !over.load(Relaxed) && client.get("/").is_ok() {
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
        over.store(true, Relaxed);
        told
    })
}

/// What one kind of clients got: latencies of answers, and how many were refused.
#[derive(Default)]
struct Fared {
    times: Mutex<Vec<(Instant, Duration)>>,
    refused: AtomicUsize,
}

impl Fared {
    fn ask_until(&self, rig: &Rig, key: &str, over: &AtomicBool) {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
        while !over.load(Relaxed) {
            let Ok(mut client) = rig.client() else { continue };
            while !over.load(Relaxed) {
                let began = Instant::now();
                let answer = client.send(&request).and_then(|()| client.response());
                match answer {
                    Ok(answer) if answer.status == 200 => {
                        self.times.lock().expect("its lock").push((began, began.elapsed()));
                    }
                    Ok(_) => drop(self.refused.fetch_add(1, Relaxed)),
                    Err(_) => break,
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// The 99th percentile of what began in between.
    fn p99(&self, from: Instant, to: Instant) -> Duration {
        let times = self.times.lock().expect("its lock");
        let mut within: Vec<_> =
            times.iter().filter(|(began, _)| *began >= from && *began < to).map(|(_, took)| *took).collect();
        within.sort_unstable();
        within.get(within.len() * 99 / 100).or(within.last()).copied().unwrap_or_default()
    }

    /// The share of what it asked that was refused.
    fn refused(&self) -> f64 {
        let (passed, refused) = (self.times.lock().expect("its lock").len(), self.refused.load(Relaxed));
        refused as f64 / (passed + refused).max(1) as f64
    }
}

// R4, idea 4
#[test]
fn a_backend_300_ms_slower_halves_what_is_let_in_within_10_s_and_it_is_back_within_30() -> Result<()> {
    lab_test!();
    let consumer = |name: &str, tier: &str| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!("[consumer.{name}]\ntier = \"{tier}\"\nkeys = [{{ id = \"k\", hash = \"blake3:{hash}\" }}]\n")
    };
    let (floor, ceiling) = (16.0, 80.0);
    let limits = format!(
        "[auth.key]\ntype = \"api-key\"\n{}{}[limit.protect]\nmode = \"dynamic\"\nunit = \"connections\"\n\
             max = {{ from = {floor}, to = {ceiling} }}\ntarget = {{ p99 = \"700ms\" }}\npriority = [\"gold\"]\nfair = []\n\
             [kernel]\nlimit = {{ new = {{ rate = \"40/s\", burst = 40 }} }}\n\
             adapt = {{ p99 = \"700ms\", from = \"10%\" }}\n",
        consumer("rich", "gold"),
        consumer("poor", "none")
    );
    // It is about time, and takes as many clients as the others together.
    let turn = alone()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let text = config(&backends[0].addr.to_string(), &limits, "auth = [\"key\"]\nlimit = \"protect\"");
    let rig = Rig::of(Gateway::start(&net, &text)?, backends, net, turn);
    rig.backends[0].slow(450)?;
    let (rich, poor, over) = (Fared::default(), Fared::default(), AtomicBool::new(false));
    let node = rig.net.client(1);
    // What is let in now, and the most that may be; the kernel half's factor, and what it has dropped.
    let look = || -> Result<[f64; 4]> {
        let metrics = rig.gateway.metrics()?;
        let value = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
        let [active, limit] = [
            value("upstream_connections", &[("state", "active")]),
            value("limit_rate", &[("limit", "protect")]),
        ];
        ensure!((floor..=ceiling).contains(&limit) && active <= ceiling, "{active} of {limit}");
        Ok([active, limit, value("kernel_load_factor", &[]), metrics.packets("limit_new") as f64])
    };
    let wait = |what: &str, seconds: u64, so: &dyn Fn([f64; 4]) -> bool| -> Result<[f64; 4]> {
        let (mut seen, began) = (Vec::new(), Instant::now());
        let found = within(Duration::from_secs(seconds), what, || {
            seen.push(look()?);
            Ok(seen.last().copied().filter(|seen| so(*seen)))
        });
        println!("{what} after {:?}: {:?}", began.elapsed(), seen.iter().step_by(10).collect::<Vec<_>>());
        found
    };
    std::thread::scope(|scope| {
        let (rig, rich, poor, over) = (&rig, &rich, &poor, &over);
        (0..4).for_each(|_| drop(scope.spawn(|| rich.ask_until(rig, "rich", over))));
        (0..60).for_each(|_| drop(scope.spawn(|| poor.ask_until(rig, "poor", over))));
        // Half as many connections as a source may open: none is dropped, until it may open fewer.
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let from = node.many_v4(9).into();
                let _ = node.connect_within(Duration::from_millis(40), rig.gateway.at4(), Some(from));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let told = (|| -> Result<()> {
            let began = Instant::now();
            std::thread::sleep(Duration::from_secs(6));
            // At one moment there may be fewer.
            let [before, .., dropped] = wait("all is let in", 10, &|[active, limit, factor, _]| {
                active >= 30.0 && limit == ceiling && factor == 1.0
            })?;
            let slower = Instant::now();
            let usual = rich.p99(began, slower).max(poor.p99(began, slower));
            rig.backends[0].slow(750)?;
            wait("half of it is let in", 10, &|[active, limit, ..]| {
                active <= before / 2.0 && limit <= ceiling / 2.0
            })?;
            let left = Duration::from_secs(10).saturating_sub(slower.elapsed()).as_secs() + 1;
            wait("the kernel half is given less", left, &|[.., factor, _]| factor <= 0.5)?;
            let [.., more] = wait("more is dropped there", 5, &|[.., now]| now > dropped)?;
            println!("p99 {usual:?}; dropped {dropped}, then {more}");
            std::thread::sleep((slower + Duration::from_secs(12)).saturating_duration_since(Instant::now()));
            let faster = Instant::now();
            let slow = rich.p99(slower, faster).max(poor.p99(slower, faster));
            ensure!(slow < usual * 2, "{slow:?}, before {usual:?}");
            rig.backends[0].slow(450)?;
            wait("as much as before is let in", 30, &|[active, limit, factor, _]| {
                active >= before * 0.9 && limit >= ceiling * 0.9 && factor >= 0.9
            })?;
            Ok(())
        })();
        over.store(true, Relaxed);
        told
    })?;
    // Whoever pays is let in before others.
    let refused = [rich.refused(), poor.refused()];
    assert!(refused[0] < 0.1 && refused[1] > 0.4, "{refused:?}");
    assert_eq!(super::halves::tcp(&rig, "netstat", "TcpExt", "ListenOverflows")?, 0);
    Ok(())
}

// R4
#[test]
fn under_pressure_the_kernels_limits_are_lowered_and_raised_again() -> Result<()> {
    lab_test!();
    let rig = rig("[kernel]\nadapt = { cpu = \"1%\", from = \"50%\" }\nlimit = { new = \"1000/s\" }\n", "")?;
    let factor = || -> Result<f64> { Ok(rig.gateway.metrics()?.sum("kernel_load_factor", &[])) };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let fell =
            within(Duration::from_secs(20), "it falls to its floor", || Ok((factor()? <= 0.5).then_some(())));
        over.store(true, Relaxed);
        fell
    })?;
    let app = rig.backends[0].addr.to_string();
    rig.gateway.write(&config(&app, "[kernel]\nlimit = { new = \"1000/s\" }\n", ""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    eventually("it is whole again", || Ok(factor()? == 1.0))
}
