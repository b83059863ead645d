//! HTTP/1.1 through the proxy: P1, P7, and what an intermediary owes both sides.

use lab::{
    backend::{self, start_all, targets},
    prelude::*,
    websocket::Socket,
};

/// One backend; WebSockets and early hints let through.
fn rig() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\n[route.all]\nto = {}\nupgrade = [\"websocket\"]\nearly_hints = true\n",
            targets(backends)
        )
    })
}

/// What the backend sees of a request whose fields after the host are these.
fn seen(rig: &Rig, fields: &str) -> Result<Seen> {
    let mut client = rig.client()?;
    client.send(format!("GET /echo?a=b%20c&d HTTP/1.1\r\nhost: Shop.Test:8080\r\n{fields}\r\n"))?;
    Ok(Seen(client.response()?.json()?))
}

struct Seen(Value);

impl Seen {
    fn all(&self, name: &str) -> Vec<String> {
        http::echoed(&self.0, name)
    }

    fn one(&self, name: &str) -> String {
        self.all(name).join(" | ")
    }
}

// P1
#[test]
fn one_connection_takes_many_requests() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    for _ in 0..100 {
        let answer = client.get("/")?;
        assert_eq!((answer.status, answer.body.len()), (200, 128));
    }
    assert_eq!(rig.backends[0].stats()?.connections, 1);
    Ok(())
}

// P1
#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    let request = |i: u32| format!("GET /echo?n={i} HTTP/1.1\r\nhost: a\r\n\r\n");
    client.send((0..20).map(request).collect::<String>())?;
    for i in 0..20 {
        assert_eq!(client.response()?.json()?["target"], format!("/echo?n={i}"));
    }
    Ok(())
}

// P1
#[test]
fn http_1_0_is_answered_and_closed() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /chunked HTTP/1.0\r\nhost: a\r\n\r\n")?;
    let answer = client.response()?;
    assert_eq!((answer.status, answer.body.len()), (200, 3000));
    assert_eq!(answer.header("transfer-encoding"), None);
    client.closed(Duration::from_secs(2))
}

// P1
#[test]
fn chunked_bodies_pass_both_ways() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("POST /echo-body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
    client.send("6\r\n world\r\n0\r\n\r\n")?;
    assert_eq!(client.response()?.text(), "hello world");
    let answer = client.get("/chunked?n=50&size=4000")?;
    assert_eq!((answer.body.len(), answer.header("content-length")), (200_000, None));
    Ok(())
}

// P1
#[test]
fn trailers_pass_both_ways() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /trailers HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n")?;
    assert_eq!(client.response()?.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}2\r\nab\r\n0\r\nx-end: 1\r\n\r\n"))?;
    let seen = client.response()?.json()?;
    assert_eq!((&seen["body"], &seen["trailers"]), (&json!("ab"), &json!([["x-end", "1"]])));
    Ok(())
}

// P1
#[test]
fn expect_100_continue_is_the_backends_to_answer() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    };
    client.send(head("/echo-body"))?;
    assert_eq!(client.head()?.status, 100);
    client.send("body")?;
    assert_eq!(client.response()?.text(), "body");
    Ok(())
}

// P1
#[test]
fn early_hints_come_before_the_answer_and_at_once() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /103?ms=1000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let began = Instant::now();
    let hint = client.head()?;
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    assert_eq!((hint.status, hint.header("link")), (103, Some("</style.css>; rel=preload")));
    assert_eq!(client.response()?.status, 200);
    Ok(())
}

// P1
#[test]
fn head_204_and_304_have_no_body_and_leave_the_connection_usable() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let answer = client.response_to("HEAD")?;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("128")));
    for status in [204, 304, 404, 500] {
        assert_eq!(client.get(&format!("/status/{status}"))?.status, status);
    }
    assert_eq!(client.get("/")?.status, 200);
    Ok(())
}

// P1
#[test]
fn a_body_without_length_ends_with_its_connection_and_reaches_the_client_whole() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let answer = rig.client()?.get("/no-length")?;
    assert_eq!((answer.status, answer.body.len()), (200, 128));
    Ok(())
}

// P1
#[test]
fn bodies_of_64_mib_pass_both_ways_without_being_kept() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let config = format!(
        "[listener.web]\nbind = \":80\"\nmax = {{ body = \"unlimited\" }}\n[route.all]\nto = {}\n",
        targets(&rig.backends)
    );
    rig.gateway.write(&config)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let before = lab::process::resident(rig.gateway.pid())?;
    let answer = rig.client()?.get("/big?bytes=67108864")?;
    assert_eq!(answer.body.len(), 64 << 20);
    let mut client = rig.client()?;
    client.send(format!("POST /unread-not HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 << 20))?;
    client.send(vec![b'z'; 64 << 20])?;
    assert_eq!(client.response()?.status, 200);
    let grown = lab::process::resident(rig.gateway.pid())?.saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    Ok(())
}

#[test]
fn the_target_and_the_host_pass_as_they_are() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let seen = seen(&rig, "")?;
    assert_eq!(seen.0["target"], "/echo?a=b%20c&d");
    assert_eq!(seen.one("host"), "Shop.Test:8080");
    Ok(())
}

#[test]
fn hop_by_hop_fields_stop_at_the_gateway() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let seen = seen(
        &rig,
        "connection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\nproxy-authorization: x\r\n\
         te: gzip\r\nupgrade: h2c\r\nx-kept: 2\r\n",
    )?;
    for field in ["x-mine", "keep-alive", "proxy-authorization", "upgrade"] {
        assert_eq!(seen.all(field), Vec::<String>::new(), "{field}");
    }
    assert_eq!(seen.one("x-kept"), "2");
    let answer = rig.client()?.get("/hop")?;
    assert_eq!((answer.header("x-secret"), answer.header("keep-alive")), (None, None));
    Ok(())
}

#[test]
fn the_backend_learns_who_asked_and_how() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let seen = seen(&rig, "")?;
    let client = rig.net.client(1).v4().to_string();
    assert_eq!(seen.one("x-forwarded-for"), client);
    assert_eq!(seen.one("x-forwarded-proto"), "http");
    assert_eq!(seen.one("x-forwarded-host"), "Shop.Test:8080");
    let forwarded = seen.one("forwarded").to_ascii_lowercase();
    for part in [format!("for={client}"), "proto=http".into(), "host=\"shop.test:8080\"".into()] {
        assert!(forwarded.contains(&part), "{forwarded}");
    }
    assert!(seen.one("via").starts_with("1.1 "), "{}", seen.one("via"));
    Ok(())
}

#[test]
fn an_untrusted_client_cannot_say_who_it_is() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let seen = seen(&rig, "x-forwarded-for: 198.51.100.7\r\nforwarded: for=198.51.100.7\r\n")?;
    assert!(!seen.one("x-forwarded-for").contains("198.51.100.7"), "{}", seen.one("x-forwarded-for"));
    assert!(!seen.one("forwarded").contains("198.51.100.7"), "{}", seen.one("forwarded"));
    // Nor where its request came by.
    let told = ["server", "prefix", "port", "scheme", "ssl", "by"].map(|what| format!("x-forwarded-{what}"));
    let fields: String = told.iter().map(|name| format!("{name}: evil\r\n")).collect();
    let seen = self::seen(&rig, &format!("{fields}x-real-ip: 198.51.100.7\r\n"))?;
    for name in told.iter().map(String::as_str).chain(["x-real-ip"]) {
        assert_eq!(seen.all(name), Vec::<String>::new(), "{name}");
    }
    Ok(())
}

// RFC 9110 section 7.6.3
#[test]
fn via_of_both_sides_goes_on_with_ours_behind_it() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let seen = seen(&rig, "via: 1.0 fred, 1.1 p.example.net\r\nvia: 1.1 third\r\n")?;
    let mut via = seen.all("via");
    assert!(via.pop().is_some_and(|ours| ours.starts_with("1.1 ")), "{via:?}");
    assert_eq!(via, ["1.0 fred, 1.1 p.example.net", "1.1 third"]);
    let answer = rig.client()?.get("/via")?;
    let via: Vec<&str> =
        answer.headers.iter().filter(|(name, _)| name == "via").map(|(_, value)| value.as_str()).collect();
    assert!(matches!(via[..], ["1.1 backend", ours] if ours.starts_with("1.1 ")), "{via:?}");
    Ok(())
}

// RFC 9110 section 11.7: what is between a client and its proxy, or between us and an upstream.
#[test]
fn challenges_and_credentials_of_proxies_end_at_the_gateway() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let seen = seen(&rig, "proxy-authorization: Basic eDp5\r\nauthorization: Basic eDp5\r\n")?;
    assert_eq!(seen.all("proxy-authorization"), Vec::<String>::new());
    assert_eq!(seen.one("authorization"), "Basic eDp5");
    assert_eq!(rig.client()?.get("/via")?.header("proxy-authenticate"), None);
    Ok(())
}

#[test]
fn every_request_has_an_id_that_all_sides_see() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    let (first, second) = (client.get("/echo")?, client.get("/echo")?);
    let id = first.header("x-request-id").context("no x-request-id")?.to_owned();
    assert_eq!(Seen(first.json()?).one("x-request-id"), id);
    assert_ne!(second.header("x-request-id"), Some(id.as_str()));
    // UUID version 7 (RFC 9562 section 5.7).
    assert_eq!((id.len(), id.chars().nth(14)), (36, Some('7')), "{id}");
    assert_eq!(rig.gateway.log_of(&first)?["path"], "/echo");
    Ok(())
}

// P7
#[test]
fn the_first_byte_of_a_stream_passes_at_once() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    // Warm: the first request opens the upstream connection.
    client.get("/")?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        client.send("GET /sse?n=2&ms=300 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        assert_eq!(client.head()?.header("content-type"), Some("text/event-stream"));
        assert_eq!(client.chunk()?, Some(b"data: 0\n\n".to_vec()));
        best = best.min(began.elapsed());
        assert_eq!(client.chunk()?, Some(b"data: 1\n\n".to_vec()));
        assert_eq!(client.chunk()?, None);
        assert_eq!(client.stream_line()?, "");
    }
    assert!(best < Duration::from_millis(10), "{best:?}");
    Ok(())
}

// P7
#[test]
fn a_client_that_leaves_a_stream_ends_it_at_the_backend() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /sse?n=100000&ms=20 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    client.head()?;
    client.chunk()?;
    drop(client);
    rig.backends[0].until("its stream ended", |stats| stats.aborted == 1)?;
    let line = rig.gateway.log_of_path("/sse")?;
    assert_eq!(line["why"], "client_gone");
    Ok(())
}

// P7
#[test]
fn a_client_that_leaves_before_the_answer_ends_the_request_at_the_backend() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")?;
    rig.backends[0].until("it has the request", |stats| stats.requests == 1)?;
    drop(client);
    rig.backends[0].until("it was ended", |stats| stats.aborted == 1)?;
    assert_eq!(rig.gateway.log_of_path("/hang")?["why"], "client_gone");
    Ok(())
}

#[test]
fn a_websocket_is_tunnelled_where_the_route_allows_it() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut socket = Socket::open(rig.net.client(1), rig.gateway.at4(), "/ws")?;
    for text in ["one", "two", &"long ".repeat(10_000)] {
        assert_eq!(socket.echo(text)?, text);
    }
    socket.0.close(None)?;
    while socket.0.read().is_ok() {}
    drop(socket);
    let line = rig.gateway.log_of_path("/ws")?;
    assert_eq!(line["status"], 101);
    rig.gateway.write(&lab::gateway::simple_config(&rig.backends))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert!(Socket::open(rig.net.client(1), rig.gateway.at4(), "/ws").is_err());
    Ok(())
}

#[test]
fn routes_go_by_host_and_path_and_the_most_specific_wins() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(3)?;
    let backends = start_all(&net)?;
    let to = |i: usize| backend::targets(&backends[i..=i]);
    let config = format!(
        "[listener.web]\nbind = \":80\"\n[route.any]\npath = \"/api/*\"\nto = {}\n\
         [route.host]\nhost = \"shop.test\"\nto = {}\n[route.wild]\nhost = \"*.shop.test\"\npath = \"/api/{{id}}\"\nto = {}\n",
        to(0),
        to(1),
        to(2)
    );
    let gateway = Gateway::start(&net, &config)?;
    let ask = |host: &str, path: &str| {
        http::exchange(net.client(1), gateway.at4(), format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
    };
    assert_eq!(ask("other.test", "/api/x/y")?.backend(), "b1");
    assert_eq!(ask("SHOP.test:80", "/api/x")?.backend(), "b2");
    assert_eq!(ask("eu.shop.test", "/api/x")?.backend(), "b3");
    ask("eu.shop.test", "/other")?.refused(404, "no_route")?;
    ask("other.test", "/")?.refused(404, "no_route")
}
