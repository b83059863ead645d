//! What an attacker would have a cache keep for others, or tell him of them.

use super::*;

fn whole(rig: &Rig, request: &str) -> Result<Response> {
    let mut client = rig.client()?;
    client.send(request)?;
    client.response_to("GET")
}

/// Cache poisoning (CWE-349): what is not in the key must not change what is stored.
#[test]
fn what_the_key_does_not_have_cannot_poison_what_others_get() -> Result<()> {
    lab_test!();
    let rig = rig("ttl = \"1m\"\nnegative = \"1m\"", "")?;
    // The upstream answers with all that it was sent.
    for (n, field) in [
        "x-forwarded-host: evil.test",
        "x-forwarded-proto: evil",
        "x-forwarded-for: evil",
        "x-forwarded-port: evil",
        "forwarded: host=evil.test",
        "x-request-id: evil",
        "te: evil",
        "connection: x-secret\r\nx-secret: evil",
        "range: bytes=0-3",
        "if-none-match: \"evil\"",
    ]
    .into_iter()
    .enumerate()
    {
        let first = rig.ask(&format!("GET /echo/{n}"), "a.test", &format!("{field}\r\n"))?;
        let then = rig.ask(&format!("GET /echo/{n}"), "a.test", "")?;
        assert_eq!(then.status, 200, "{field}: {then:?}");
        assert!(!then.text().contains("evil") && !then.text().contains("bytes=0-3"), "{field}: {then:?}");
        // Of a part only that is known which was asked for; else it is the same.
        assert!(is_hit(&then) || field.starts_with("range"), "{field}: {first:?} {then:?}");
    }
    // A body that a GET has, a host that is told twice or in another way, and lines that begin anew.
    for request in [
        "GET /echo/body HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nevil",
        "GET http://evil.test/echo/body HTTP/1.1\r\nhost: a.test\r\n\r\n",
        "GET /echo/body HTTP/1.1\r\nhost: a.test\r\nhost: evil.test\r\n\r\n",
        "GET /echo/body HTTP/1.1\r\nhost: a.test\r\n x: evil\r\n\r\n",
        "GET /echo/body HTTP/1.1\r\nhost: a.test:evil\r\n\r\n",
    ] {
        drop(whole(&rig, request));
    }
    let then = rig.ask("GET /echo/body", "a.test", "")?;
    assert!(!is_hit(&then) && !then.text().contains("evil"), "{then:?}");
    Ok(())
}

/// Cached denial of service (CPDoS): an error that one client asks for is not what others get.
#[test]
fn an_error_that_oversize_or_odd_headers_bring_about_is_not_kept() -> Result<()> {
    lab_test!();
    let rig = rig("ttl = \"1m\"\nnegative = \"1m\"", "")?;
    // The upstream takes less than the gateway.
    for (n, status) in [400, 403, 413, 417, 431, 500, 501, 502, 503].into_iter().enumerate() {
        let large = format!("x-status: {status}\r\nx-large: {}\r\n", "l".repeat(8000));
        let refused = ask(&rig, &format!("GET /made/{n}"), "", &large)?;
        assert_eq!(refused.status, status);
        let then = ask(&rig, &format!("GET /made/{n}"), "", "")?;
        // 501 is what `negative` is for.
        assert_eq!(
            (then.status, is_hit(&then)),
            if status == 501 { (501, true) } else { (200, false) },
            "{status}"
        );
    }
    // The gateway takes less than that.
    for (n, bad) in [
        format!("x-huge: {}\r\n", "h".repeat(200_000)),
        "x-many: 1\r\n".repeat(2000),
        "x-odd: a\u{1}b\r\n".into(),
        "x odd: b\r\n".into(),
        "expect: nothing-known\r\n".into(),
    ]
    .into_iter()
    .enumerate()
    {
        // It may be cut before all of it is sent.
        let refused = whole(&rig, &made(&format!("own-{n}"), &bad));
        assert!(refused.as_ref().map_or(true, |refused| refused.status >= 400 || refused.status == 200));
        let then = ask(&rig, &format!("GET /made/own-{n}"), "", "")?;
        assert_eq!(then.status, 200, "{n}");
    }
    Ok(())
}

/// Web cache deception (Gil, 2017): how a path ends says nothing of whether it may be kept, and two spellings of it are either
/// one thing to the cache and the upstream, or two.
#[test]
fn no_spelling_of_a_path_has_a_private_answer_kept() -> Result<()> {
    lab_test!();
    let rig = rig("ttl = \"1m\"", "")?;
    for end in [
        "",
        "/x.css",
        ";x.css",
        ".css",
        "%2Fx.css",
        "%3Bx.css",
        "%23x.css",
        "%3Fx.css",
        "?x.css",
        "//x.css",
        "%0Ax.css",
        "/.css",
        "/..%2fstatic/x.css",
        "%2f..%2f..%2fstatic",
        "\\x.css",
    ] {
        for answer in ["cache-control: private", "cache-control: no-store", "set-cookie: id=1"] {
            // What the victim is lured into.
            let victim = ask(&rig, &format!("GET /made/account{end}"), answer, "cookie: id=1\r\n")?;
            let attacker = ask(&rig, &format!("GET /made/account{end}"), "cache-control: no-store", "")?;
            assert!(
                !is_hit(&attacker) && (victim.status >= 400 || attacker.body != victim.body),
                "{end}: {answer}"
            );
        }
        // Nor what nobody said anything of, to somebody with a cookie.
        let victim = ask(&rig, &format!("GET /made/own{end}"), "", "cookie: id=1\r\n")?;
        assert!(!status(&victim).contains("stored"), "{end}: {victim:?}");
    }
    // One key, one target: however it is spelled.
    let target = |path: &str| -> Result<(String, String)> {
        let answer = rig.ask(&format!("GET {path}"), "a.test", "")?;
        Ok((answer.json()?["target"].as_str().unwrap_or_default().to_owned(), status(&answer).to_owned()))
    };
    let (first, stored) = target("/echo/%61b")?;
    assert!(stored.contains("stored"), "{stored}");
    let (second, hit) = target("/echo/ab")?;
    assert_eq!((first == second, hit.contains("hit")), (true, true), "{first} {second} {hit}");
    for other in ["/echo/ab/", "/echo//ab", "/echo/ab%2F", "/echo/aB", "/echo/ab?", "/echo/ab;"] {
        let (told, status) = target(other)?;
        assert!(!status.contains("hit"), "{other}: {told} {status}");
    }
    Ok(())
}

#[test]
fn what_varies_by_anything_is_never_used_again() -> Result<()> {
    lab_test!();
    let rig = rig("ttl = \"1m\"\noverride = true", "")?;
    for (n, vary) in ["*", "accept, *", "*, accept"].into_iter().enumerate() {
        let answer = format!("cache-control: public, max-age=60|vary: {vary}");
        let first = get(&rig, &format!("vary-{n}"), &answer)?;
        assert_eq!(status(&first), "gateway; fwd=miss; detail=vary");
        assert!(!is_hit(&get(&rig, &format!("vary-{n}"), &answer)?), "{vary}");
    }
    Ok(())
}

/// Response splitting (CWE-113): what a client writes into an answer's head does not end it, and what comes behind an answer
/// is nobody's.
#[test]
fn a_split_answer_is_neither_kept_nor_anybody_s() -> Result<()> {
    lab_test!();
    let rig = rig("ttl = \"1m\"", "")?;
    for (n, split) in [
        "x: a\rset-cookie: evil=1",
        "x: a\nset-cookie: evil=1",
        "content-length: 1\r\n\r\nyHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        "location: /%0d%0aset-cookie:%20evil=1",
    ]
    .into_iter()
    .enumerate()
    {
        // The upstream writes it as it is: `raw` is not looked at.
        let path = format!("GET /made/split-{n}");
        let fields = format!("x-raw: {}\r\n", split.replace('\r', "<CR>").replace('\n', "<LF>"));
        let first = rig.ask(&path, "a.test", &fields)?;
        assert!(
            first.header("set-cookie").is_none() && !first.text().contains("evil"),
            "{split:?}: {first:?}"
        );
        // On the same connection to the upstream, if it is still there.
        let then = rig.ask(&path, "a.test", "")?;
        assert!(then.header("set-cookie").is_none() && !then.text().contains("evil"), "{split:?}: {then:?}");
        assert_eq!(then.status, 200, "{split:?}");
        // What came before the split is an answer by itself.
        assert!(!is_hit(&then) || n >= 2, "{split:?}: {then:?}");
    }
    Ok(())
}
