//! Upstreams whose targets DNS tells: O9.

use lab::{backend::start_all, dns::Dns, prelude::*, websocket::Socket};

const NAME_SERVER: &str = "127.0.0.1:5353";

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    dns: Dns,
    net: Net,
    _turn: lab::lock::Turn,
}

fn config(upstream: &str) -> String {
    format!(
        "[gateway]\nresolver = [\"{NAME_SERVER}\"]\n[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n\
         upgrade = [\"websocket\"]\n[upstream.pool]\n{upstream}\n"
    )
}

/// `prepare` sets the first answers.
fn rig(backends: usize, upstream: &str, prepare: impl FnOnce(&Dns, &[IpAddr]) -> Result<()>) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(backends)?;
    let backends = start_all(&net)?;
    let dns = Dns::start(&net.gateway, NAME_SERVER.parse()?)?;
    prepare(&dns, &addresses(&backends))?;
    let gateway = Gateway::start(&net, &config(upstream))?;
    Ok(Rig { gateway, backends, dns, net, _turn: turn })
}

fn addresses(backends: &[Backend]) -> Vec<IpAddr> {
    backends.iter().map(|backend| backend.addr.ip()).collect()
}

impl Rig {
    fn get(&self) -> Result<Response> {
        http::get(self.net.client(1), self.gateway.at4(), "/")
    }

    fn answering(&self, n: usize) -> Result<BTreeMap<String, usize>> {
        let mut answers = BTreeMap::new();
        for _ in 0..n {
            *answers.entry(self.get()?.backend().to_owned()).or_default() += 1;
        }
        Ok(answers)
    }

    fn targets(&self) -> Result<Vec<String>> {
        let status = self.gateway.status()?;
        let targets = status["upstreams"]["pool"]["targets"].as_array().cloned().unwrap_or_default();
        Ok(targets.iter().filter_map(|target| Some(target["addr"].as_str()?.to_owned())).collect())
    }

    /// The time to live, its tenth, and what a look-up takes.
    fn within_ttl(&self, what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
        within(Duration::from_secs(9), what, || Ok(so()?.then_some(())))
    }
}

// O9
#[test]
fn targets_follow_a_name_and_those_that_stay_keep_their_state_and_connections() -> Result<()> {
    lab_test!();
    let rig = rig(3, "dns = \"pool.internal:8080\"", |dns, at| {
        dns.addresses("pool.internal.", 1, &at[..2]);
        Ok(())
    })?;
    assert_eq!(rig.answering(6)?.len(), 2, "from the first request on");
    let kept = format!("pool/{}", rig.backends[0].addr);
    rig.gateway.cli(&["target", "weight", &kept, "7"])?.ok()?;
    let mut sockets = (0..8)
        .map(|_| Socket::open(rig.net.client(1), rig.gateway.at4(), "/ws"))
        .collect::<Result<Vec<_>>>()?;
    let at = addresses(&rig.backends);
    rig.dns.addresses("pool.internal.", 1, &[at[0], at[2]]);
    let third = rig.backends[2].addr.to_string();
    rig.within_ttl("the third is a target", || Ok(rig.targets()?.contains(&third)))?;
    let shown = rig.gateway.status()?["upstreams"]["pool"].clone();
    assert_eq!(shown["targets"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(shown["targets"][0]["overrides"]["weight"]["value"], 7, "{shown}");
    assert_eq!(shown["names"][0]["name"], "pool.internal:8080", "{shown}");
    assert_eq!(rig.answering(16)?, BTreeMap::from([("b1".to_owned(), 14), ("b3".to_owned(), 2)]));
    // Also on the one that is gone.
    for socket in &mut sockets {
        assert_eq!(socket.echo("still there?")?, "still there?");
    }
    assert_eq!(rig.gateway.metrics()?.sum("config_generation", &[]), 1.0);
    let listed = rig.gateway.cli(&["upstream", "list"])?.ok()?.stdout;
    assert!(listed.contains(&third), "{listed}");
    Ok(())
}

// O9
#[test]
fn when_names_cannot_be_looked_up_the_addresses_stay_also_over_a_reload_and_an_upgrade() -> Result<()> {
    lab_test!();
    let mut rig = rig(2, "to = [\"one.internal:8080\", \"two.internal:8080\"]", |dns, at| {
        dns.addresses("one.internal.", 1, &at[..1]);
        dns.addresses("two.internal.", 1, &at[1..]);
        Ok(())
    })?;
    assert_eq!(rig.answering(4)?.len(), 2);
    let failed = |rig: &Rig| -> Result<f64> {
        let labels = [("name", "one.internal:8080"), ("result", "error")];
        Ok(rig.gateway.metrics()?.sum("dns_lookups_total", &labels))
    };
    assert_eq!(failed(&rig)?, 0.0);
    rig.dns.set_failing(true);
    rig.within_ttl("a look-up fails", || Ok(failed(&rig)? > 0.0))?;
    assert_eq!(rig.answering(4)?.len(), 2);
    let status = rig.gateway.status()?;
    assert!(status["upstreams"]["pool"]["names"][0]["error"].is_string(), "{}", status["upstreams"]);
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(rig.answering(4)?.len(), 2);
    rig.gateway.upgrade(&[])?.ok()?;
    assert_eq!(rig.answering(4)?.len(), 2);
    // Told once by each process, however often it fails.
    let told = |rig: &Rig| {
        rig.gateway
            .stderr()
            .iter()
            .filter(|line| line.contains("cannot be looked up") && line.contains("one.internal"))
            .count()
    };
    let before = failed(&rig)?;
    rig.within_ttl("another one fails", || Ok(failed(&rig)? > before))?;
    assert_eq!(told(&rig), 2);
    rig.dns.set_failing(false);
    rig.within_ttl("it is well again", || {
        Ok(rig.gateway.status()?["upstreams"]["pool"]["names"][0]["error"].is_null())
    })
}

// O9
#[test]
fn srv_records_say_port_priority_and_weight() -> Result<()> {
    lab_test!();
    let rig = rig(3, "dns = \"srv:_http._tcp.pool.internal\"", |dns, at| {
        for (i, ip) in at.iter().enumerate() {
            dns.addresses(&format!("b{}.internal.", i + 1), 1, &[*ip]);
        }
        let hosts =
            [(10, 30, 8080, "b1.internal."), (10, 10, 8080, "b2.internal."), (20, 1, 8080, "b3.internal.")];
        dns.services("_http._tcp.pool.internal.", 1, &hosts)
    })?;
    let answers = rig.answering(40)?;
    assert_eq!(answers, BTreeMap::from([("b1".to_owned(), 30), ("b2".to_owned(), 10)]));
    for of in ["b1", "b2"] {
        let index = usize::from(of == "b2");
        rig.gateway.cli(&["target", "drain", &format!("pool/{}", rig.backends[index].addr)])?.ok()?;
    }
    assert_eq!(rig.answering(4)?, BTreeMap::from([("b3".to_owned(), 4)]), "the next priority");
    rig.dns.services("_http._tcp.pool.internal.", 1, &[(0, 1, 8080, "b3.internal.")])?;
    rig.within_ttl("one target is left", || Ok(rig.targets()?.len() == 1))
}

// O9
#[test]
fn without_an_answer_it_starts_and_has_no_target_until_there_is_one() -> Result<()> {
    lab_test!();
    let rig = rig(1, "dns = \"pool.internal:8080\"", |dns, _| {
        dns.set_silent(true);
        Ok(())
    })?;
    assert!(rig.gateway.took < Duration::from_secs(10), "{:?}", rig.gateway.took);
    rig.get()?.refused(503, "no_healthy_target")?;
    assert_eq!(rig.gateway.cli(&["status"])?.code, 1);
    rig.dns.addresses("pool.internal.", 60, &addresses(&rig.backends));
    rig.dns.set_silent(false);
    within(Duration::from_secs(20), "it has a target", || Ok((rig.get()?.status == 200).then_some(())))?;
    // A minute is left, so it is not asked again.
    std::thread::sleep(Duration::from_millis(300));
    let asked = rig.dns.queries();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(rig.dns.queries(), asked);
    // A reload to a name that is new waits for its first answer.
    rig.dns.addresses("other.internal.", 60, &addresses(&rig.backends));
    rig.gateway.write(&config("dns = \"other.internal:8080\""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(rig.get()?.status, 200);
    Ok(())
}
