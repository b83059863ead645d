//! Several upstreams by weight, and copies for a shadow: T3 and T4.

use lab::{backend::start_all, prelude::*};

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn config(backends: &[Backend], routes: &str) -> String {
    let mut config = format!("[gateway]\nworkers = 2\n[listener.web]\nbind = \":80\"\n{routes}\n");
    for (name, backend) in ["one", "two"].iter().zip(backends) {
        let limits = "timeout = { connect = \"500ms\", first_byte = \"2s\" }";
        config.push_str(&format!("[upstream.{name}]\nto = \"{}\"\n{limits}\n", backend.addr));
    }
    config
}

/// `routes` lead to the upstreams `one` and `two`, of one backend each.
fn rig(routes: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &config(&backends, routes))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn client(&self) -> Result<Client> {
        Client::connect(self.net.client(1), self.gateway.at4())
    }

    /// How many of so many GETs `two` got, over four connections.
    fn share_of_two(&self, requests: usize) -> Result<usize> {
        let mut two = 0;
        for _ in 0..4 {
            let mut client = self.client()?;
            for _ in 0..requests / 4 {
                two += usize::from(client.get("/")?.backend() == self.backends[1].name);
            }
        }
        Ok(two)
    }

    fn reload(&self, routes: &str) -> Result<()> {
        self.gateway.write(&config(&self.backends, routes))?;
        self.gateway.cli(&["reload"])?.ok().map(drop)
    }

    fn get(&self, fields: &str) -> Result<Response> {
        let mut client = self.client()?;
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))?;
        client.response()
    }
}

// T3
#[test]
fn nine_to_one_holds_over_10000_requests_and_changes_live() -> Result<()> {
    lab_test!();
    let rig = rig("[route.all]\nto = { one = 90, two = 10 }\n")?;
    let two = rig.share_of_two(10_000)?;
    assert!((850..=1150).contains(&two), "{two} of 10,000 instead of 1,000");
    rig.reload("[route.all]\nto = { one = 50, two = 50 }\n")?;
    let two = rig.share_of_two(2000)?;
    assert!((970..=1030).contains(&two), "{two} of 2,000 instead of 1,000");
    rig.reload("[route.all]\nto = { one = 0, two = 100 }\n")?;
    assert_eq!(rig.share_of_two(100)?, 100);
    let line = rig.gateway.log_of(&rig.get("")?)?;
    assert_eq!((&line["route"], &line["upstream"]), (&json!("all"), &json!("two")));
    Ok(())
}

// T3
#[test]
fn a_user_stays_with_an_upstream_and_a_header_overrides() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.all]
to = { one = 50, two = 50 }
sticky = "cookie:uid"
[route.canary]
headers = { x-canary = "1" }
to = "two"
"#)?;
    let mut names = std::collections::BTreeSet::new();
    for user in 0..20 {
        let fields = format!("cookie: a=b; uid=user-{user}\r\n");
        let first = rig.get(&fields)?.backend().to_owned();
        for _ in 0..3 {
            assert_eq!(rig.get(&fields)?.backend(), first, "user {user}");
        }
        assert_eq!(rig.get(&format!("{fields}x-canary: 1\r\n"))?.backend(), rig.backends[1].name);
        names.insert(first);
    }
    assert_eq!(names.len(), 2, "{names:?}");
    Ok(())
}

// T4
#[test]
fn a_share_of_requests_is_copied_with_their_bodies() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[route.all]\nto = \"one\"\nmirror = { to = \"two\", share = \"10%\" }\nrewrite = { path = \"/in/*\" }\n",
    )?;
    let mut client = rig.client()?;
    for i in 0..200 {
        client.send(format!("POST /a{} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", i % 2))?;
        let answer = client.response()?;
        assert_eq!((answer.status, answer.backend()), (200, rig.backends[0].name.as_str()));
    }
    rig.backends[1].until("a tenth of 200 as copies", |stats| stats.requests == 20)?;
    assert!(rig.backends[1].stats()?.paths.keys().all(|path| path.starts_with("/in/a")));
    assert_eq!(rig.backends[0].stats()?.requests, 200);
    // On kept connections, of two workers at most.
    assert!(rig.backends[1].stats()?.connections <= 4, "{:?}", rig.backends[1].stats()?);
    Ok(())
}

// T4
#[test]
fn a_body_that_is_too_long_is_not_copied_and_arrives_whole() -> Result<()> {
    lab_test!();
    let rig = rig("[route.all]\nto = \"one\"\nmirror = { to = \"two\", body = \"1KiB\" }\n")?;
    let mut client = rig.client()?;
    for size in [1024, 1025, 100_000] {
        let body = "b".repeat(size);
        client
            .send(format!("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n{body}"))?;
        assert_eq!(client.response()?.text().len(), size);
    }
    client.get("/last")?;
    rig.backends[1].until("the short one and the last", |stats| stats.requests == 2)
}

// T4
#[test]
fn a_shadow_that_hangs_or_is_dead_delays_nobody() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[route.all]\nto = \"one\"\nmirror = { to = \"two\", queue = 5 }\nrewrite = { path = \"/status/200\" }\n",
    )?;
    let took = |rig: &Rig| -> Result<Duration> {
        let mut client = rig.client()?;
        let start = Instant::now();
        for _ in 0..300 {
            ensure!(client.get("/")?.status == 200);
        }
        Ok(start.elapsed())
    };
    let well = took(&rig)?;
    rig.backends[1].down()?;
    let dead = took(&rig)?;
    rig.backends[1].up()?;
    let nowhere = SocketAddr::from((rig.net.backend(2).black_hole(), 8080));
    rig.reload(&format!(
        "[route.all]\nto = \"one\"\nmirror = {{ to = \"hang\", queue = 5 }}\n\
         [upstream.hang]\nto = \"{nowhere}\"\ntimeout = {{ connect = \"1s\" }}\n"
    ))?;
    let hanging = took(&rig)?;
    let most = well * 3 + Duration::from_millis(500);
    assert!(dead < most && hanging < most, "well {well:?}, dead {dead:?}, hanging {hanging:?}");
    Ok(())
}
