//! Requests that others could read differently are refused, once, and end their connection; S13. The corpus of such
//! requests is in `smuggling/`.

use lab::{backend::targets, prelude::*};

fn rig() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\nto = {}\n",
            targets(backends)
        )
    })
}

/// A 400, although a good request follows; then the connection ends.
fn refuses(rig: &Rig, request: &str) -> Result<()> {
    let mut client = rig.client()?;
    let _ = client.send(format!("{request}GET /behind HTTP/1.1\r\nhost: a\r\n\r\n"));
    client.response()?.refused(400, "bad_request").with_context(|| format!("{request:?}"))?;
    client.closed(Duration::from_secs(3)).with_context(|| format!("{request:?}"))
}

// RFC 9112 section 2.2
#[test]
fn a_bare_line_feed_in_a_head_is_refused_and_nothing_behind_it_is_read() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for request in [
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
        "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nx: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        refuses(&rig, request)?;
    }
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    // In a body it is a byte like others.
    let mut client = rig.client()?;
    client.send("\r\nPOST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\na\n\nb")?;
    assert_eq!(client.response()?.body, b"a\n\nb");
    Ok(())
}

// RFC 9112 section 2.2: wherever the head before it ends, and however it comes.
#[test]
fn a_bare_line_feed_in_a_pipelined_head_is_refused_as_in_the_first() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let firsts = [
        "GET /first HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /first HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\na\n\n\r\n\r\n",
        "POST /first HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\n\n\r\n0\r\nx-t: 1\r\n\r\n",
    ];
    let bad = [
        "GET /bad HTTP/1.1\nhost: a\r\n\r\n",
        "GET /bad HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
        "GET /bad HTTP/1.1\r\nhost: a\r\nx: y\n\n",
        "GET /bad HTTP/1.1\r\nhost: a\r\n\n",
        "\nGET /bad HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /bad HTTP/1.1\r\nhost: a\r\nx: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for (first, second) in firsts.iter().flat_map(|first| bad.iter().map(move |bad| (first, bad))) {
        let all = format!("{first}{second}GET /behind HTTP/1.1\r\nhost: a\r\n\r\n");
        // At once, in two at the requests' border, and in the middle of the second.
        for at in [all.len(), first.len(), first.len() + 9] {
            let mut client = rig.client()?;
            for piece in [&all[..at], &all[at..]] {
                let _ = client.send(piece);
                std::thread::sleep(Duration::from_millis(if at == all.len() { 0 } else { 20 }));
            }
            let told = || format!("{first:?} {second:?} at {at}");
            ensure!(client.response()?.status == 200, told());
            client.response()?.refused(400, "bad_request").with_context(told)?;
            client.closed(Duration::from_secs(3)).with_context(told)?;
        }
    }
    let paths = rig.backends[0].stats()?.paths;
    assert_eq!(paths.keys().map(String::as_str).collect::<Vec<_>>(), ["/first"]);
    Ok(())
}

// RFC 9112 section 9.3.2
#[test]
fn pipelined_requests_with_bodies_of_all_kinds_are_answered_in_order() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let kinds = [
        ("1", "POST /echo-body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n"),
        ("2", "POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n2"),
        ("", "GET /echo-body HTTP/1.1\r\nhost: a\r\n\r\n"),
    ];
    let turns: Vec<_> = (0..27).map(|i| [kinds[i / 9], kinds[i / 3 % 3], kinds[i % 3]]).collect();
    let all: String = turns.iter().flatten().map(|(_, request)| *request).collect();
    for size in [all.len(), 1000, 97, 13] {
        let mut client = rig.client()?;
        for piece in all.as_bytes().chunks(size) {
            client.send(piece)?;
        }
        for (i, (body, _)) in turns.iter().flatten().enumerate() {
            let answer = client.response()?;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, *body),
                "number {i}, in pieces of {size}"
            );
        }
    }
    Ok(())
}

// RFC 9112 section 3.2.4, RFC 3986 sections 2 and 3.3, RFC 9110 section 9.3.8
#[test]
fn targets_that_servers_take_in_different_ways_are_refused() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for line in ["GET *", "GET /a/..;x/b", "GET /a/..%2fb", "GET /a%5C..%5cb", "GET /é", "GET /?é"] {
        refuses(&rig, &format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n"))?;
    }
    for host in ["a%0d%0ab", "a%2fb", "a%00"] {
        refuses(&rig, &format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
    }
    refuses(&rig, "TRACE / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")?;
    assert_eq!(rig.backends[0].stats()?.requests, 0);
    Ok(())
}

#[test]
fn a_pipelined_request_that_cannot_be_read_is_answered_once_and_with_its_reason() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for second in ["\0\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET / HTTP/1.1\r\nx : y\r\n\r\n"] {
        let mut client = rig.client()?;
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n\r\n{second}"))?;
        assert_eq!(client.response()?.status, 200);
        client.response()?.refused(400, "bad_request").with_context(|| format!("{second:?}"))?;
        client.closed(Duration::from_secs(3)).with_context(|| format!("{second:?}"))?;
    }
    // An answer that looks like the parser's own is not kept back.
    let mut client = rig.client()?;
    client.send("GET /status/400 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    assert_eq!(client.response()?.status, 400);
    Ok(())
}

// RFC 9112 section 3.2: what goes on is HTTP/1.1, where a request without Host is none.
#[test]
fn upstreams_are_told_a_host_also_for_http_1_0() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut client = rig.client()?;
    client.send("GET /echo HTTP/1.0\r\n\r\n")?;
    let seen = client.response()?.json()?;
    let all = |name: &str| {
        let fields = seen["headers"].as_array().cloned().unwrap_or_default();
        let named = fields.into_iter().filter(|pair| pair[0] == name);
        named.map(|pair| pair[1].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all("host"), ["pool"]);
    assert_eq!(all("x-forwarded-host"), [""; 0]);
    Ok(())
}
