//! What reverse proxies were attacked by, a test a class, each with examples. Whole corpora of some are elsewhere: smuggling
//! (`smuggling/`), HTTP/2 (`rfc9113`, `floods`), tokens (`auth/jwt`), the path's form (fuzzed).

use lab::{
    http2::{self, DATA, END_HEADERS, GOAWAY, HEADERS, Http2, RST_STREAM},
    prelude::*,
};

const HOST: &str = "shop.test";

fn rig() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            r#"
[listener.web]
bind = ":80"
protocols = ["h1", "h2"]
[upstream.app]
to = "{app}"
[cache.c]
memory = "64MiB"
[auth.key]
type = "api-key"
[consumer.acme]
keys = [{{ id = "k", hash = "blake3:{hash}" }}]
[route.all]
to = "app"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
[route.cached]
path = "/made/*"
to = "app"
cache = "c"
[route.account]
path = "/made/account/*"
to = "app"
cache = "c"
auth = "key"
[route.admin]
path = "/echo/admin/*"
to = "app"
auth = "key"
encoded_slash = "refuse"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
[route.moved]
path = "/moved/*"
redirect = {{ to = "https://www.test${{path}}", status = 308 }}
[route.here]
path = "/here/*"
redirect = "${{path}}"
[route.answer]
path = "/answer"
respond = {{ body = "ok", headers = {{ x-said = "${{query.say}}" }} }}
"#,
            app = backends[0].addr,
            hash = blake3::hash(b"secret").to_hex()
        )
    })
}

fn ask(rig: &Rig, request: &str, fields: &str) -> Result<Response> {
    rig.ask(request, HOST, fields)
}

fn seen(answer: &Response, name: &str) -> Result<Vec<String>> {
    Ok(http::echoed(&answer.json()?, name))
}

fn asked(rig: &Rig) -> Result<u64> {
    Ok(rig.backends[0].stats()?.requests)
}

/// One connection's bytes are at most one request to the backend, and what follows it is never answered as another.
fn is_one_or_none(rig: &Rig, bytes: &str) -> Result<()> {
    let before = asked(rig)?;
    let mut client = rig.client()?;
    client.send(bytes)?;
    let answer = client.response()?;
    ensure!(answer.status == 400, "{}: {bytes:?}", answer.status);
    client.closed(Duration::from_secs(3)).with_context(|| format!("{bytes:?}"))?;
    ensure!(asked(rig)? == before, "it went on: {bytes:?}");
    Ok(())
}

// CVE-2019-18277 and CVE-2021-40346 (HAProxy), CVE-2020-11724 (OpenResty), CVE-2022-32214 (Node)
#[test]
fn request_smuggling() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let inner = "GET /echo/admin/x HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    for fields in [
        // CL.TE, TE.CL, TE.TE.
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "transfer-encoding : chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "x: a\n transfer-encoding: chunked\r\n",
        // One length that two read in different ways.
        "content-length: 4\r\ncontent-length: 0\r\n",
        "content-length: 4, 4\r\n",
        "content-length: +4\r\n",
        "content-length: 0x4\r\n",
        "content-length: 99999999999999999999999\r\n",
    ] {
        is_one_or_none(
            &rig,
            &format!("POST /echo HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n0\r\n\r\n{inner}"),
        )?;
    }
    Ok(())
}

// CVE-2021-21409 and CVE-2021-21295 (Netty), CVE-2021-36740 (Varnish): what is one request by HTTP/2 is two by HTTP/1.1
#[test]
fn request_splitting_by_http_2() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let split = "x\r\ncontent-length: 0\r\n\r\nGET /echo/admin/x HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let fields: [(&str, &str); 10] = [
        ("x-a", split),
        ("x-a", "b\nx-consumer: acme"),
        ("x-a\r\nx-consumer", "acme"),
        ("x-a: b", "c"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        (":path", "/echo/admin/x HTTP/1.1\r\nhost: shop.test\r\n\r\n"),
        (":method", "GET / HTTP/1.1\r\nx: y"),
        (":authority", "shop.test\r\nx-consumer: acme"),
    ];
    for (name, value) in fields {
        let before = asked(&rig)?;
        let mut client = Http2::connect(rig.net.client(1), rig.gateway.at4())?;
        let (value, block) = (&value[..value.len().min(120)], http2::get(HOST, &[]));
        let block = [block, http2::field(name, value)].concat();
        client.request(1, &block)?;
        // Refused in one of the ways there are: the stream, the connection, or by an answer of 400.
        let told = client.until("it is refused", |frame| {
            matches!(frame.kind, RST_STREAM | GOAWAY)
                || frame.kind == HEADERS && frame.payload.first() != Some(&0x88)
        });
        ensure!(told.is_ok() || client.frame()?.is_none(), "{name}: {value:?}");
        ensure!(asked(&rig)? == before, "it went on: {name}: {value:?}");
    }
    // A body that is longer or shorter than its length says.
    for (length, body) in [("1", "abc"), ("9", "abc")] {
        let before = asked(&rig)?;
        let mut client = Http2::connect(rig.net.client(1), rig.gateway.at4())?;
        let block = [
            http2::field(":method", "POST"),
            http2::field(":scheme", "http"),
            http2::field(":path", "/echo-body"),
            http2::field(":authority", HOST),
            http2::field("content-length", length),
        ];
        client.send(HEADERS, END_HEADERS, 1, &block.concat())?;
        client.send(DATA, http2::END_STREAM, 1, body.as_bytes())?;
        client.until("it is refused", |frame| matches!(frame.kind, RST_STREAM | GOAWAY))?;
        ensure!(asked(&rig)? <= before + 1);
    }
    ensure!(ask(&rig, "GET /echo", "")?.status == 200);
    Ok(())
}

// CVE-2018-14773 (Symfony), CVE-2019-0941 (IIS): what is no part of the key must not shape what is stored
#[test]
fn cache_poisoning() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let fresh = "x-answer: cache-control: max-age=60\r\n";
    let poison = [
        "x-forwarded-host: evil.test\r\n",
        "x-forwarded-proto: nothttps\r\nx-forwarded-port: 1\r\n",
        "x-forwarded-for: 203.0.113.66\r\n",
        "forwarded: host=evil.test\r\n",
        "connection: x-vital\r\nx-vital: 1\r\n",
    ];
    for (n, fields) in poison.iter().enumerate() {
        let path = format!("GET /made/p{n}");
        let first = ask(&rig, &path, &format!("{fresh}{fields}"))?;
        let told = first.text();
        assert!(!told.contains("evil.test") && !told.contains("203.0.113.66"), "{fields}: {told}");
        let again = ask(&rig, &path, fresh)?;
        assert_eq!(again.body, first.body, "it is what anybody gets");
    }
    // Another host, another query, a body that a GET should not have, another method's override: none is the same entry.
    let first = ask(&rig, "GET /made/q", fresh)?;
    for (request, host, fields) in [
        ("GET /made/q", "evil.test", ""),
        ("GET /made/q?utm=1", HOST, ""),
        ("GET /made/q;x=1", HOST, ""),
        ("POST /made/q", HOST, "x-http-method-override: GET\r\ncontent-length: 0\r\n"),
    ] {
        let other = rig.ask(request, host, &format!("{fresh}{fields}"))?;
        assert_ne!(other.body, first.body, "{request} at {host}");
    }
    // Errors that a client provokes are not kept (CPDoS: too large a head, a bad method, a bad character).
    for fields in [format!("x-big: {}\r\n", "a".repeat(40_000)), "x-bad: \x01\r\n".to_owned()] {
        let mut client = rig.client()?;
        client.send(format!("GET /made/cpdos HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n"))?;
        assert!(client.response()?.status >= 400);
    }
    assert_eq!(ask(&rig, "GET /made/cpdos", fresh)?.status, 200);
    Ok(())
}

// "Web cache deception attack" (Omer Gil, 2017): a page of one's own under a name that looks like a picture
#[test]
fn cache_deception() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let own = "x-answer: cache-control: private\r\nx-api-key: secret\r\n";
    for path in
        ["/made/account/x.css", "/made/account/x;.js", "/made/account/%2e%2e/x.png", "/made/account/x%0a.css"]
    {
        let mine = ask(&rig, &format!("GET {path}"), own)?;
        // Whoever comes after without credentials gets nothing of it.
        let theirs = ask(&rig, &format!("GET {path}"), "x-answer: cache-control: max-age=60\r\n")?;
        assert!(theirs.status == 401 || theirs.body != mine.body, "{path}: {}", theirs.status);
    }
    // Neither because of its name nor of its route is anything stored that the upstream does not say may be.
    let mine =
        ask(&rig, "GET /made/account/y.css", "x-answer: cache-control: max-age=60\r\nx-api-key: secret\r\n")?;
    let again =
        ask(&rig, "GET /made/account/y.css", "x-answer: cache-control: max-age=60\r\nx-api-key: secret\r\n")?;
    assert_ne!(
        mine.body, again.body,
        "an answer to credentials is stored only where it says that it is public"
    );
    Ok(())
}

// CVE-2018-1271 (Spring), CVE-2021-41773 (Apache), CVE-2021-43798 (Grafana): the one who decides and the one who serves read the
// path in different ways
#[test]
fn path_confusion() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    ask(&rig, "GET /echo/admin/x", "")?.refused(401, "unauthorized")?;
    for path in [
        "/echo/x/../admin/x",
        "/echo/./admin/x",
        "/echo//admin/x",
        "//echo/admin/x",
        "/echo/%61dmin/x",
        "/echo/adm%69n/x",
        "/echo/x/%2e%2e/admin/x",
        "/echo/x/%2E./admin/x",
        "/echo/admin%2Fx",
        "/echo/x/..%2fadmin/x",
        "/echo/x/..%5cadmin/x",
        "/echo/x/..;/admin/x",
        "/echo/%2561dmin/x",
        "/echo/admin/x/../../x",
        "/echo/%c0%ae%c0%ae/admin/x",
        "/echo\\admin\\x",
        "/echo/admin/x%00.css",
        "/echo/admin;a=b/x",
    ] {
        let answer = ask(&rig, &format!("GET {path}"), "")?;
        if answer.status == 200 {
            // It is somebody else's, and the upstream sees by its letters that it is not the administrator's.
            let target = answer.json()?["target"].as_str().unwrap_or_default().to_owned();
            let reads: Vec<&str> = target.split('/').collect();
            assert!(
                !reads.contains(&"admin") && !target.contains("..") && !target.contains("%2"),
                "{path}: {target}"
            );
        } else {
            assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        }
    }
    Ok(())
}

// CVE-2011-4139 and CVE-2012-4520 (Django)
#[test]
fn host_header_attacks() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for host in [
        "shop.test\r\nhost: evil.test",
        "shop.test, evil.test",
        "shop.test evil.test",
        "shop.test/evil",
        "shop.test?x",
        "shop.test#x",
        "user@shop.test",
        "shop.test:80:80",
        "shop.test:port",
        "[::1",
        "shop.test\\evil.test",
        "",
    ] {
        let answer = rig.ask("GET /echo", host, "")?;
        answer.refused(400, "bad_request").with_context(|| format!("{host:?}"))?;
    }
    // The target's authority is the host (RFC 9112 section 3.2.2), and fields that claim another one say nothing.
    let answer =
        ask(&rig, "GET http://shop.test/echo", "x-forwarded-host: evil.test\r\nx-host: evil.test\r\n")?;
    assert_eq!(seen(&answer, "host")?, [HOST]);
    assert_eq!(seen(&answer, "x-forwarded-host")?, [HOST]);
    let absolute = rig.ask("GET http://other.test/echo", HOST, "")?;
    assert!(absolute.status == 400 || seen(&absolute, "host")? == ["other.test"], "{}", absolute.status);
    Ok(())
}

// RFC 7239 section 8.1: who is believed about where a request comes from
#[test]
fn forwarded_for_spoofing() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let own = rig.net.client(1).v4().to_string();
    let forged = "x-forwarded-for: 127.0.0.1\r\nforwarded: for=127.0.0.1\r\nx-real-ip: 127.0.0.1\r\n\
                  true-client-ip: 127.0.0.1\r\nx-forwarded-proto: https\r\nx-request-id: forged\r\n";
    let answer = ask(&rig, "GET /echo", forged)?;
    assert_eq!(seen(&answer, "x-forwarded-for")?, std::slice::from_ref(&own));
    assert_eq!(seen(&answer, "x-forwarded-proto")?, ["http"]);
    assert!(seen(&answer, "forwarded")?.iter().all(|told| !told.contains("127.0.0.1")));
    assert_ne!(seen(&answer, "x-request-id")?, ["forged"]);
    // Where fields are variables (RFC 3875 section 4.1.18) these are the same.
    let forged = "x_forwarded_for: 127.0.0.1\r\nx-forwarded_proto: https\r\nx_real_ip: 127.0.0.1\r\n\
                  x_request_id: forged\r\nx_other_for: kept\r\n";
    let other = ask(&rig, "GET /echo", forged)?;
    for name in ["x_forwarded_for", "x-forwarded_proto", "x_real_ip", "x_request_id"] {
        assert!(seen(&other, name)?.is_empty(), "{name}");
    }
    assert_eq!(seen(&other, "x_other_for")?, ["kept"]);
    let line = rig.gateway.log_of(&answer)?;
    assert_eq!(&line["client"], &json!(own), "{line}");
    Ok(())
}

// CVE-2022-31813 (Apache), CVE-2022-1388 (BIG-IP): `Connection` takes out what the one in front has said
#[test]
fn hop_by_hop_abuse() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for listed in [
        "x-forwarded-for",
        "x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-consumer, x-request-id, via",
        "close, X-Forwarded-For, x-consumer",
        "host, content-length",
    ] {
        let answer =
            ask(&rig, "GET /echo/admin/x", &format!("x-api-key: secret\r\nconnection: {listed}\r\n"))?;
        if answer.status == 400 {
            continue;
        }
        // What we say stays, whatever a client wants taken out.
        for ours in
            ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-consumer", "x-request-id", "host"]
        {
            assert_eq!(seen(&answer, ours)?.len(), 1, "{listed}: {ours}");
        }
        assert_eq!(seen(&answer, "x-consumer")?, ["acme"]);
        assert!(seen(&answer, "connection")?.iter().all(|told| !told.contains("x-")), "{listed}");
    }
    // Nor do fields of one hop go on to the next.
    let hop = "keep-alive: 9\r\nte: gzip\r\nproxy-connection: keep-alive\r\n";
    let answer = ask(&rig, "GET /echo", hop)?;
    for name in ["keep-alive", "te", "proxy-connection"] {
        assert!(seen(&answer, name)?.is_empty(), "{name}");
    }
    Ok(())
}

// CVE-2016-5699 (Python), CVE-2023-27522 (Apache): a line's end in a value makes a field, or an answer
#[test]
fn header_injection() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for said in [
        "a%0d%0aset-cookie:%20x=1",
        "a%0aset-cookie:%20x=1",
        "a%0d%0a%0d%0aHTTP/1.1%20200%20OK",
        "%00",
        "a%e5%98%8a%e5%98%8dset-cookie:x",
    ] {
        let answer = ask(&rig, &format!("GET /answer?say={said}"), "")?;
        assert_eq!(answer.header("set-cookie"), None, "{said}");
        assert!(answer.header("x-said").is_none_or(|value| !value.contains(['\r', '\n', '\0'])), "{said}");
        let moved = ask(&rig, &format!("GET /moved/{said}"), "")?;
        assert_eq!(moved.header("set-cookie"), None, "{said}");
        assert!(moved.status == 308 || moved.status == 400, "{said}: {}", moved.status);
    }
    // In the request: nothing of it is a field of its own upstream.
    for bytes in ["x: a\rx-consumer: acme\r\n", "x: a\0b\r\n", "x\r: a\r\n", "x\ty: a\r\n"] {
        is_one_or_none(&rig, &format!("GET /echo HTTP/1.1\r\nhost: shop.test\r\n{bytes}\r\n"))?;
    }
    Ok(())
}

// CVE-2018-14574 (Django): a redirect to where a client says
#[test]
fn open_redirects() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for path in [
        "//evil.test/",
        "/\\evil.test/",
        "/%5cevil.test",
        "/@evil.test",
        "/.evil.test",
        "/%2f%2fevil.test",
        "///evil.test",
    ] {
        for place in ["here", "moved"] {
            let answer = ask(&rig, &format!("GET /{place}{path}"), "")?;
            let Some(location) = answer.header("location") else {
                assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
                continue;
            };
            let own = match place {
                "here" => location.starts_with("/here/"),
                _ => location.starts_with("https://www.test/moved/"),
            };
            assert!(own, "{place}{path}: {location}");
        }
    }
    let absolute = ask(&rig, "GET http://evil.test/here/x", "")?;
    assert!(absolute.header("location").is_none_or(|to| to == "/here/x"), "{absolute:?}");
    Ok(())
}

// CVE-2021-40438 (Apache): no client says where we connect
#[test]
fn server_side_request_forgery() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let metadata = "169.254.169.254";
    for (request, host, fields) in [
        (format!("GET http://{metadata}/latest"), HOST.to_owned(), ""),
        ("GET /echo".to_owned(), metadata.to_owned(), ""),
        ("GET /echo".to_owned(), "127.0.0.1:9180".to_owned(), ""),
        (format!("GET http://{metadata}@shop.test/echo"), HOST.to_owned(), ""),
        ("GET /echo?unix:/run/admin.sock|http://x/".to_owned(), HOST.to_owned(), ""),
        (
            "GET /echo".to_owned(),
            HOST.to_owned(),
            "x-forwarded-host: 169.254.169.254\r\nx-original-url: http://169.254.169.254/\r\nx-rewrite-url: /v1/status\r\n",
        ),
    ] {
        let before = asked(&rig)?;
        let answer = rig.ask(&request, &host, fields)?;
        let line = rig.gateway.log_of(&answer)?;
        let own = rig.backends[0].addr.to_string();
        // It goes to the one target of the config, or nowhere.
        assert!(line["target"].is_null() || line["target"] == own.as_str(), "{request}: {line}");
        assert_eq!(asked(&rig)? - before, u64::from(!line["target"].is_null()), "{request}");
        assert!(!answer.text().contains("\"generation\""), "{request}");
    }
    for target in ["169.254.169.254:80", "127.0.0.1:9180", "shop.test:443"] {
        let mut client = rig.client()?;
        client.send(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n"))?;
        let answer = client.response_to("GET")?;
        assert!((400..500).contains(&answer.status), "{target}: {}", answer.status);
    }
    // Nor does an answer: a redirect from the upstream is the client's to follow.
    let before = asked(&rig)?;
    let answer =
        ask(&rig, "GET /made/r", "x-status: 302\r\nx-answer: location: http://169.254.169.254/\r\n")?;
    assert_eq!((answer.status, asked(&rig)? - before), (302, 1));
    Ok(())
}
