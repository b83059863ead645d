//! Active health checks: LB10.

use lab::{
    backend::{start_all, targets},
    prelude::*,
};

/// Three targets checked every 200 ms, no retries: a request that goes to a dead one fails.
fn checked(backends: &[Backend], check: &str) -> String {
    format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\nto = {}\n\
         health = {{ {check}, every = \"200ms\", timeout = \"200ms\", rise = 2, fall = 2 }}\n\
         retry = {{ on = [], tries = 0 }}\n",
        targets(backends)
    )
}

/// fall x every + timeout, and a margin for a busy machine.
const WINDOW: Duration = Duration::from_millis(2 * 200 + 200 + 400);

fn up(gateway: &Gateway, backend: &Backend) -> Result<bool> {
    Ok(gateway.metrics()?.sum("upstream_up", &[("target", &backend.addr.to_string())]) == 1.0)
}

/// Takes the second backend out by `fail` and back by `heal`; requests in between must all succeed.
fn out_and_in(
    check: &str,
    fail: impl Fn(&Backend) -> Result<()>,
    heal: impl Fn(&Backend) -> Result<()>,
) -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &checked(&backends, check))?;
    eventually("all are checked and up", || {
        Ok(backends.iter().map(|b| up(&gateway, b)).collect::<Result<Vec<_>>>()?.iter().all(|up| *up))
    })?;
    fail(&backends[1])?;
    within(WINDOW, "out of rotation", || Ok((!up(&gateway, &backends[1])?).then_some(())))?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    for _ in 0..50 {
        let answer = client.get("/")?;
        assert!(answer.status == 200 && answer.backend() != "b2", "{answer:?}");
    }
    let status = gateway.status()?;
    let shown = status["upstreams"]["pool"]["targets"].as_array().context("no targets in status")?;
    let second = shown.iter().find(|target| target["addr"] == backends[1].addr.to_string().as_str());
    assert_eq!(second.context("not in status")?["healthy"], false);
    heal(&backends[1])?;
    within(WINDOW, "back in rotation", || Ok(up(&gateway, &backends[1])?.then_some(())))?;
    let answers: BTreeSet<String> =
        (0..6).map(|_| Ok(client.get("/")?.backend().to_owned())).collect::<Result<_>>()?;
    assert!(answers.contains("b2"), "{answers:?}");
    Ok(())
}

// LB10
#[test]
fn a_target_whose_http_check_fails_leaves_rotation_in_time_and_comes_back() -> Result<()> {
    out_and_in("path = \"/healthz\"", |b| b.health(500), |b| b.health(204))
}

// LB10
#[test]
fn a_target_that_refuses_tcp_leaves_rotation_in_time_and_comes_back() -> Result<()> {
    out_and_in("tcp = true", Backend::down, Backend::up)
}

// LB10
#[test]
fn a_dead_backend_leaves_rotation_and_no_request_fails_after_that() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let mut backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &checked(&backends, "path = \"/healthz\""))?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    assert_eq!(client.get("/")?.status, 200);
    backends[0].kill();
    within(WINDOW, "out of rotation", || Ok((!up(&gateway, &backends[0])?).then_some(())))?;
    for _ in 0..200 {
        assert_eq!(client.get("/")?.status, 200);
    }
    Ok(())
}

// LB10
#[test]
fn only_the_expected_status_counts_as_healthy() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &checked(&backends, "path = \"/healthz\", expect = [204]"))?;
    within(WINDOW, "200 is not 204", || Ok((!up(&gateway, &backends[0])?).then_some(())))?;
    http::get(net.client(1), gateway.at4(), "/")?.refused(503, "no_healthy_target")?;
    assert_eq!(gateway.cli(&["status"])?.code, 1);
    backends[0].health(204)?;
    within(WINDOW, "204 it is", || Ok(up(&gateway, &backends[0])?.then_some(())))?;
    assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 200);
    Ok(())
}

// LB10
#[test]
fn a_check_that_hangs_counts_as_failed() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &checked(&backends, "path = \"/hang\""))?;
    within(WINDOW, "out of rotation", || Ok((!up(&gateway, &backends[0])?).then_some(())))
}
