//! Backends that close, hang, reset, send garbage, or are not there; T8, T10.

use lab::{
    backend::{start_all, targets},
    prelude::*,
    wait::fires,
    wrk::{Load, Wrk},
};

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn config(to: &str) -> String {
    format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\nto = {to}\n\
         timeout = {{ connect = \"300ms\", first_byte = \"400ms\", idle = \"350ms\", total = \"2s\" }}\n"
    )
}

fn rig(turn: lab::lock::Turn) -> Result<Rig> {
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &config(&targets(&backends[..1])))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn client(&self) -> Result<Client> {
        Client::connect(self.net.client(1), self.gateway.at4())
    }

    fn refuses(&self, path: &str, status: u16, why: &str) -> Result<()> {
        let answer = self.client()?.get(path)?;
        answer.refused(status, why).with_context(|| path.to_owned())?;
        ensure!(self.gateway.log_of(&answer)?["why"] == why);
        ensure!(
            self.gateway.metrics()?.sum("http_errors_total", &[("reason", why)]) >= 1.0,
            "no metric for {why}"
        );
        Ok(())
    }

    /// An answer that began well and is then cut: the client must not take it for whole.
    fn cuts(&self, path: &str, why: &str) -> Result<()> {
        let mut client = self.client()?;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))?;
        let head = client.head().with_context(|| format!("{path}: what came before is not passed on"))?;
        ensure!(head.status == 200 && client.until_closed()? > 0, "{path}: {head:?}");
        client = self.client()?;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))?;
        ensure!(client.response().is_err(), "{path}: the client thinks that it has it all");
        let line = self.gateway.log_of_path(path)?;
        ensure!(line["status"] == 200 && line["why"] == why, "{path}: {line}");
        Ok(())
    }

    fn still_serves(&self) -> Result<()> {
        ensure!(self.client()?.get("/")?.status == 200);
        Ok(())
    }
}

#[test]
fn a_backend_that_closes_without_an_answer_is_a_502() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.refuses("/close", 502, "upstream_reset")?;
    rig.refuses("/reset", 502, "upstream_reset")?;
    rig.still_serves()
}

#[test]
fn a_backend_that_sends_garbage_is_a_502() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.refuses("/garbage", 502, "upstream_bad_response")?;
    rig.refuses("/huge-header", 502, "upstream_bad_response")?;
    rig.still_serves()
}

#[test]
fn an_answer_that_breaks_off_is_cut_for_the_client_too() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.cuts("/close-body", "upstream_reset")?;
    rig.cuts("/reset-body", "upstream_reset")?;
    rig.cuts("/garbage-body", "upstream_bad_response")?;
    // Where only the connection's end tells an answer's, that is none.
    let mut old = rig.client()?;
    old.send("GET /garbage-body HTTP/1.0\r\n\r\n")?;
    ensure!(old.head()?.status == 200);
    let reset = std::io::Read::read_to_end(&mut old.stream, &mut Vec::new());
    ensure!(reset.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    rig.still_serves()
}

#[test]
fn a_backend_that_closes_its_half_is_as_good_as_gone_and_costs_no_other_request() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.refuses("/half-close", 502, "upstream_reset")?;
    rig.cuts("/half-close-body", "upstream_reset")?;
    let mut client = rig.client()?;
    for n in 0..10 {
        let answer = client.get("/half-close-after")?;
        assert_eq!((answer.status, answer.body.len()), (200, 128), "number {n}");
        assert_eq!(client.get("/")?.status, 200, "behind number {n}");
    }
    // Nothing is kept that takes no more answers.
    rig.backends[0].until("all but one are closed", |stats| stats.open <= 1)
}

#[test]
fn a_backend_that_refuses_is_a_502_when_there_is_no_other() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.backends[0].down()?;
    rig.refuses("/", 502, "upstream_connect_refused")?;
    rig.backends[0].up()?;
    rig.still_serves()
}

#[test]
fn a_request_goes_to_another_target_when_the_first_refuses() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.gateway.write(&config(&targets(&rig.backends)))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    rig.backends[0].down()?;
    let mut client = rig.client()?;
    for i in 0..20 {
        let body = format!("body {i}");
        client.send(format!(
            "POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        let answer = client.response()?;
        assert_eq!((answer.status, answer.backend(), answer.text()), (200, "b2", body));
    }
    assert!(rig.gateway.metrics()?.sum("upstream_retries_total", &[("reason", "connect")]) >= 5.0);
    let line = rig.gateway.log_line("a retried one", |line| line["tries"] == 2)?;
    assert_eq!(line["target"], rig.backends[1].addr.to_string());
    Ok(())
}

/// What the log has in microseconds under a name; 0 if it has not.
fn us(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or(0)
}

/// The log line of a GET that must be refused so.
fn refused(rig: &Rig, path: &str, status: u16, why: &str) -> Result<Value> {
    let answer = rig.client()?.get(path)?;
    answer.refused(status, why)?;
    rig.gateway.log_of(&answer)
}

/// The log line of a GET whose answer is cut after its head.
fn cut(rig: &Rig, target: &str, why: &str) -> Result<Value> {
    let mut client = rig.client()?;
    client.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"))?;
    client.head()?;
    client.until_closed()?;
    let query = target.split_once('?').map(|(_, query)| query);
    let line = rig.gateway.log_line(target, |line| line["query"].as_str() == query)?;
    ensure!(line["why"] == why, "{line}");
    Ok(line)
}

// T8
#[test]
fn the_connect_timeout_fires_in_time_with_its_own_reason() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?)?;
    let nowhere = SocketAddr::from((rig.net.backend(1).black_hole(), 8080));
    let once = format!("{}retry = {{ on = [], tries = 0 }}\n", config(&format!("[\"{nowhere}\"]")));
    rig.gateway.write(&once)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    fires(Duration::from_millis(300), |_| {
        Ok(us(&refused(&rig, "/", 504, "upstream_connect_timeout")?, "us_connect"))
    })
}

// T8
#[test]
fn the_first_byte_timeout_fires_in_time_with_its_own_reason() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?)?;
    fires(Duration::from_millis(400), |_| {
        let line = refused(&rig, "/hang", 504, "upstream_first_byte_timeout")?;
        Ok(us(&line, "us") - us(&line, "us_connect"))
    })?;
    assert_eq!(rig.client()?.get("/slow-header?ms=250")?.status, 200);
    Ok(())
}

// T8
#[test]
fn the_idle_timeout_cuts_an_answer_that_stops_and_not_one_that_is_slow() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?)?;
    fires(Duration::from_millis(350), |n| {
        let line = cut(&rig, &format!("/hang-body?{n}"), "upstream_idle_timeout")?;
        ensure!(us(&line, "bytes_out") < 1000, "{line}");
        Ok(us(&line, "us") - us(&line, "us_first_byte"))
    })?;
    assert_eq!(rig.client()?.get("/slow-body?n=5&ms=250")?.body.len(), 40);
    Ok(())
}

// T8
#[test]
fn the_total_timeout_cuts_an_answer_that_takes_too_long() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?)?;
    fires(Duration::from_secs(2), |n| {
        let target = format!("/slow-body?n=100&ms=100&{n}");
        Ok(us(&cut(&rig, &target, "upstream_total_timeout")?, "us"))
    })
}

// T10
#[test]
fn a_hundred_busy_clients_share_upstream_connections() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    let outcome = Wrk::run(rig.net.client(1), rig.gateway.at4(), &Load::new(100, Duration::from_secs(3)))?;
    assert_eq!((outcome.errors, outcome.timeouts), (0, 0));
    let stats = rig.backends[0].stats()?;
    assert!(stats.requests >= outcome.requests && stats.connections <= 200, "{stats:?}");
    Ok(())
}

// T10
#[test]
fn no_more_idle_connections_are_kept_than_the_pool_allows_nor_longer() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    let one_worker = format!(
        "{}pool = {{ idle = 3, idle_for = \"1s\" }}\n[gateway]\nworkers = 1\n",
        config(&targets(&rig.backends[..1]))
    );
    let mut gateway = rig.gateway;
    gateway.stop()?;
    gateway.write(&one_worker)?;
    gateway.run()?;
    let mut clients =
        (0..10).map(|_| Client::connect(rig.net.client(1), gateway.at4())).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.send("GET /slow-header?ms=200 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    }
    rig.backends[0].until("ten at once", |stats| stats.open >= 10)?;
    for client in &mut clients {
        assert_eq!(client.response()?.status, 200);
    }
    rig.backends[0].until("three are kept", |stats| stats.open == 3)?;
    rig.backends[0].until("none is kept for long", |stats| stats.open == 0)
}

// T10
#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_no_request() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    let mut client = rig.client()?;
    for i in 0..100 {
        // The backend closes after each answer without having said so.
        let answer = client.get("/close-after").with_context(|| format!("request {i}"))?;
        assert_eq!(answer.status, 200, "request {i}: {}", answer.text());
    }
    Ok(())
}
