//! Caching: C1–C11, C14, C15 and what is safe about it.

mod control;
mod disk;
mod safety;

use std::thread;

use lab::{
    prelude::*,
    wrk::{Load, Wrk},
};

/// `cache` are keys of `[cache.c]`, `more` of the route.
fn rig(cache: &str, more: &str) -> Result<Rig> {
    Rig::start(1, |backends| {
        let app = &backends[0].addr;
        format!(
            "[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n\
             [cache.c]\nmemory = \"64MiB\"\n{cache}\n[route.all]\nto = \"app\"\ncache = \"c\"\n{more}"
        )
    })
}

/// Asks for an answer with these fields.
fn ask(rig: &Rig, request: &str, answer: &str, fields: &str) -> Result<Response> {
    rig.ask(request, "a.test", &format!("x-answer: {answer}\r\n{fields}"))
}

fn get(rig: &Rig, path: &str, answer: &str) -> Result<Response> {
    ask(rig, &format!("GET /made/{path}"), answer, "")
}

fn status(answer: &Response) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

fn is_hit(answer: &Response) -> bool {
    status(answer).starts_with("gateway; hit; ttl=")
}

fn asked(rig: &Rig) -> Result<u64> {
    Ok(rig.backends[0].stats()?.requests)
}

const FRESH: &str = "cache-control: max-age=60";

// C1, C11
#[test]
fn only_what_may_be_is_stored() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    for (n, (answer, fields, detail)) in [
        ("cache-control: no-store, max-age=60", "", "no-store"),
        ("cache-control: private, max-age=60", "", "private"),
        ("cache-control: max-age=60|set-cookie: a=b", "", "set-cookie"),
        (FRESH, "authorization: Bearer x\r\n", "authorization"),
        (FRESH, "cache-control: no-store\r\n", "no-store"),
        ("cache-control: max-age=60|vary: *", "", "vary"),
        ("cache-control: max-age=60|vary: x-forwarded-for", "", "vary"),
        ("", "", "no-lifetime"),
        ("cache-control: max-age=60", "x-status: 206\r\n", "status"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("GET /made/never-{n}");
        let first = ask(&rig, &path, answer, fields)?;
        assert_eq!(status(&first), format!("gateway; fwd=miss; detail={detail}"), "{answer} {fields}");
        let second = ask(&rig, &path, answer, fields)?;
        assert!(!is_hit(&second) && first.body != second.body, "{answer} {fields}: {second:?}");
    }
    for (n, (answer, fields)) in [
        (FRESH, ""),
        ("cache-control: public, max-age=60", "authorization: Bearer x\r\n"),
        ("cache-control: s-maxage=60", "authorization: Bearer x\r\n"),
        ("cdn-cache-control: max-age=60|cache-control: no-store", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("GET /made/kept-{n}");
        let first = ask(&rig, &path, answer, fields)?;
        assert_eq!(status(&first), "gateway; fwd=miss; stored", "{answer}");
        let second = ask(&rig, &path, answer, fields)?;
        assert!(is_hit(&second) && first.body == second.body, "{answer}: {second:?}");
        assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    }
    for method in ["POST", "PUT", "OPTIONS"] {
        for _ in 0..2 {
            let answer = ask(&rig, &format!("{method} /made/method"), FRESH, "content-length: 0\r\n")?;
            assert_eq!(status(&answer), "gateway; fwd=method");
        }
    }
    Ok(())
}

// C2
#[test]
fn a_fresh_answer_is_used_until_it_is_stale_and_its_age_is_told() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let answer = "cache-control: max-age=2";
    let first = get(&rig, "age", answer)?;
    assert_eq!(first.header("age"), None);
    thread::sleep(Duration::from_millis(1100));
    let second = get(&rig, "age", answer)?;
    assert_eq!((second.header("age"), &second.body), (Some("1"), &first.body));
    thread::sleep(Duration::from_millis(1100));
    assert_ne!(get(&rig, "age", answer)?.body, first.body);
    let old = "cache-control: max-age=60, s-maxage=100|age: 90";
    get(&rig, "old", old)?;
    let with = |directive: &str| ask(&rig, "GET /made/old", old, &format!("cache-control: {directive}\r\n"));
    let hit = with("max-age=95")?;
    assert!(is_hit(&hit) && hit.header("age").is_some_and(|age| age.starts_with('9')), "{hit:?}");
    assert!(is_hit(&with("only-if-cached")?));
    assert!(!is_hit(&with("min-fresh=20")?) && !is_hit(&with("max-age=10")?) && !is_hit(&with("no-cache")?));
    let none = ask(&rig, "GET /made/none", FRESH, "cache-control: only-if-cached\r\n")?;
    none.refused(504, "not_cached")?;
    Ok(())
}

// C3
#[test]
fn what_differs_by_a_field_is_kept_once_for_each() -> Result<()> {
    lab_test!();
    let rig = rig("variants = 2", "")?;
    let answer = "cache-control: max-age=60|vary: accept-language, x-a";
    let with = |fields: &str| ask(&rig, "GET /made/vary", answer, fields);
    let german = with("accept-language: de\r\n")?;
    let english = with("accept-language: en\r\n")?;
    assert_ne!(german.body, english.body);
    assert_eq!(with("accept-language: de\r\n")?.body, german.body);
    assert_eq!(with("accept-language: EN\r\n")?.body, english.body);
    // A third goes in the place of the oldest.
    with("accept-language: fr\r\n")?;
    assert!(is_hit(&with("accept-language: en\r\n")?) && !is_hit(&with("accept-language: de\r\n")?));
    Ok(())
}

// C4
#[test]
fn what_is_stale_is_asked_about_and_clients_are_told_what_they_have() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let answer = "cache-control: max-age=1|etag: \"v1\"";
    let first = get(&rig, "etag", answer)?;
    let not = ask(&rig, "GET /made/etag", answer, "if-none-match: W/\"v1\"\r\n")?;
    assert_eq!((not.status, not.header("etag"), not.body.len()), (304, Some("\"v1\""), 0));
    assert!(is_hit(&not) && not.header("age").is_some() && not.header("cache-control").is_some());
    thread::sleep(Duration::from_millis(1100));
    let again = get(&rig, "etag", answer)?;
    // Another answer's fields, and the same body.
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_ne!(again.header("x-serial"), first.header("x-serial"));
    assert!(is_hit(&get(&rig, "etag", answer)?));
    let line = rig.gateway.log_of(&again)?;
    assert_eq!((&line["cache"], &line["status"]), (&json!("revalidated"), &json!(200)));
    // A condition does not keep others from the answer.
    let not =
        ask(&rig, "GET /made/cond", "cache-control: max-age=60|etag: \"v1\"", "if-none-match: \"v1\"\r\n")?;
    assert_eq!(not.status, 304);
    let whole = get(&rig, "cond", FRESH)?;
    assert!(is_hit(&whole) && whole.status == 200, "{whole:?}");
    Ok(())
}

// C5
#[test]
fn stale_is_sent_at_once_and_fetched_anew_once_or_stands_in_for_an_error() -> Result<()> {
    lab_test!();
    let rig = rig("stale = { if_error = \"1h\" }", "")?;
    let answer = "cache-control: max-age=1, stale-while-revalidate=60";
    let first = get(&rig, "swr", answer)?;
    thread::sleep(Duration::from_millis(1100));
    rig.backends[0].slow(300)?;
    let before = asked(&rig)?;
    for _ in 0..10 {
        let stale = get(&rig, "swr", answer)?;
        assert_eq!(stale.body, first.body);
        assert!(status(&stale).contains("; hit; ttl=-"), "{stale:?}");
    }
    eventually("the new answer", || Ok(get(&rig, "swr", answer)?.body != first.body))?;
    assert_eq!(asked(&rig)?, before + 1);
    rig.backends[0].slow(0)?;

    let first = get(&rig, "sie", "cache-control: max-age=1")?;
    let strict = "cache-control: max-age=1, must-revalidate";
    get(&rig, "strict", strict)?;
    thread::sleep(Duration::from_millis(1100));
    rig.backends[0].fail(503)?;
    let stale = get(&rig, "sie", "cache-control: max-age=1")?;
    assert_eq!((stale.status, &stale.body), (200, &first.body));
    assert_eq!(rig.gateway.log_of(&stale)?["cache"], json!("stale"));
    assert_eq!(get(&rig, "strict", strict)?.status, 503);
    rig.backends[0].fail(0)?;
    rig.backends[0].down()?;
    assert_eq!(get(&rig, "sie", "cache-control: max-age=1")?.body, first.body);
    assert_eq!(get(&rig, "strict", strict)?.status, 502);
    Ok(())
}

/// So many clients at once, each with its own connection.
fn crowd(rig: &Rig, n: usize, request: &str) -> Result<Vec<Response>> {
    let mut clients: Vec<_> = (0..n).map(|_| rig.client()).collect::<Result<_>>()?;
    clients.iter_mut().try_for_each(|client| client.send(request))?;
    clients.iter_mut().map(|client| client.response_to("GET")).collect()
}

fn made(path: &str, fields: &str) -> String {
    format!("GET /made/{path} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n")
}

// C6
#[test]
fn many_who_ask_at_once_for_what_is_not_there_are_one_request() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let answers = crowd(&rig, 100, &made("cold", &format!("x-answer: {FRESH}\r\nx-ms: 400\r\n")))?;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(asked(&rig)?, 1);
    // Fed while it comes.
    let pieces = format!("x-answer: {FRESH}\r\nx-ms: 100\r\nx-pieces: 5\r\nx-size: 50000\r\n");
    let answers = crowd(&rig, 50, &made("grows", &pieces))?;
    assert!(answers.iter().all(|answer| answer.body.len() == 50_000 && answer.body == answers[0].body));
    assert_eq!(asked(&rig)?, 2);
    let counted = rig.gateway.metrics()?.by("cache_requests_total", "result", &[("cache", "c")]);
    assert_eq!((counted["miss"], counted["coalesced"] + counted["hit"]), (2.0, 148.0));
    Ok(())
}

// C6
#[test]
fn ten_thousand_clients_of_one_cold_key_are_one_request() -> Result<()> {
    lab_test!();
    if lab::tools::missing("wrk") {
        return Ok(());
    }
    lab::sys::raise_open_files()?;
    let rig = rig("ttl = \"1h\"", "")?;
    rig.backends[0].slow(1500)?;
    let load = Load { path: "/made/cold".into(), ..Load::new(10_000, Duration::from_secs(8)) };
    let outcome = Wrk::run(rig.net.client(1), rig.gateway.at4(), &load)?;
    assert!(outcome.requests >= 10_000, "{outcome:?}");
    assert_eq!(asked(&rig)?, 1);
    let counted = rig.gateway.metrics()?.by("cache_requests_total", "result", &[("cache", "c")]);
    assert!(counted["miss"] == 1.0 && counted["coalesced"] > 1000.0, "{counted:?}");
    Ok(())
}

// C6
#[test]
fn what_nobody_else_may_have_holds_nobody_up() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let began = std::time::Instant::now();
    let request = made("own", "x-answer: cache-control: private\r\nx-ms: 300\r\n");
    let answers = crowd(&rig, 20, &request)?;
    let mut bodies: Vec<_> = answers.iter().map(|answer| answer.text()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20);
    // One after the other they would take 6 s.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    Ok(())
}

// C6
#[test]
fn a_leader_that_goes_away_takes_nobody_with_it() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    // Before the head: another asks.
    let slow = made("gone", &format!("x-answer: {FRESH}\r\nx-ms: 600\r\n"));
    let mut leader = rig.client()?;
    leader.send(&slow)?;
    rig.backends[0].until("the leader's request", |stats| stats.requests == 1)?;
    let mut follower = rig.client()?;
    follower.send(&slow)?;
    thread::sleep(Duration::from_millis(200));
    drop(leader);
    assert_eq!(follower.response_to("GET")?.status, 200);
    assert!(asked(&rig)? <= 2);
    // In the body: it comes to its end.
    let pieces = format!("x-answer: {FRESH}\r\nx-ms: 150\r\nx-pieces: 6\r\nx-size: 60000\r\n");
    let mut leader = rig.client()?;
    leader.send(made("body", &pieces))?;
    leader.head()?;
    let before = asked(&rig)?;
    drop(leader);
    let whole = rig.ask("GET /made/body", "a.test", &pieces)?;
    assert_eq!((whole.body.len(), asked(&rig)?), (60_000, before));
    // One that breaks off is not stored.
    let cut = made("cut", &format!("x-answer: {FRESH}\r\nx-size: 5000\r\nx-cut: 1\r\n"));
    let mut client = rig.client()?;
    client.send(&cut)?;
    assert!(client.response_to("GET").is_err());
    assert!(!is_hit(&get(&rig, "cut", FRESH)?));
    Ok(())
}

// C7, C8
#[test]
fn a_purge_takes_out_a_url_a_prefix_a_tag_or_all() -> Result<()> {
    lab_test!();
    let rig = rig("key = [\"host\", \"path\", \"query\", \"header:x-k\"]", "")?;
    let purge = |arguments: &[&str]| {
        let done = rig.gateway.cli(&[&["cache", "purge", "c", "-o", "json"], arguments].concat())?.ok()?;
        done.json().map(|done| done["purged"].as_u64())
    };
    let tagged = "cache-control: max-age=600|surrogate-key: t even|cache-tag: u";
    let store =
        |path: &str, answer: &str, fields: &str| ask(&rig, &format!("GET /made/{path}"), answer, fields);
    let first = store("a/1?x=1", tagged, "")?;
    assert_eq!((first.header("surrogate-key"), first.header("cache-tag")), (None, None));
    store("a/1?x=1", tagged, "x-k: 1\r\n")?;
    store("a/1?x=2", FRESH, "")?;
    store("a/2", FRESH, "")?;
    store("b/1", tagged, "")?;
    store("b/2", FRESH, "")?;
    assert_eq!(purge(&["--key", "http://other.test/made/a/1?x=1"])?, Some(0));
    assert_eq!(purge(&["--key", "http://a.test/made/a/1?x=1"])?, Some(2));
    assert!(!is_hit(&store("a/1?x=1", tagged, "")?) && is_hit(&store("a/1?x=2", FRESH, "")?));
    assert_eq!(purge(&["--prefix", "/made/a/"])?, Some(3));
    assert!(is_hit(&store("b/1", tagged, "")?) && is_hit(&store("b/2", FRESH, "")?));
    assert_eq!(purge(&["--tag", "u"])?, Some(1));
    assert!(!is_hit(&store("b/1", tagged, "")?) && is_hit(&store("b/2", FRESH, "")?));
    assert_eq!(purge(&["--all"])?, Some(2));
    assert_eq!(
        rig.gateway.cli(&["cache", "stats", "c", "-o", "json"])?.ok()?.json()?["c"]["bytes"],
        json!(0)
    );
    // Softly: stale from now on.
    let lenient = "cache-control: max-age=600, stale-while-revalidate=600|surrogate-key: s";
    let old = store("soft", lenient, "")?;
    assert_eq!(purge(&["--tag", "s", "--soft"])?, Some(1));
    assert_eq!(store("soft", lenient, "")?.body, old.body);
    eventually("the new one", || Ok(store("soft", lenient, "")?.body != old.body))?;
    for wrong in [&["--key", "nonsense"][..], &["--tag", ""]] {
        assert_eq!(rig.gateway.cli(&[&["cache", "purge", "c"], wrong].concat())?.code, 5);
    }
    assert_eq!(rig.gateway.cli(&["cache", "purge", "none", "--all"])?.code, 5);
    assert_eq!(rig.gateway.cli(&["cache", "purge", "c"])?.code, 2);
    let list = rig.gateway.cli(&["cache", "list"])?.ok()?.stdout;
    assert!(list.starts_with("CACHE") && list.lines().all(|line| line.chars().count() <= 80), "{list}");
    Ok(())
}

// C7
#[test]
fn what_was_asked_for_before_a_purge_does_not_come_back_after_it() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let slow = made("race", &format!("x-answer: {FRESH}\r\nx-ms: 800\r\n"));
    let mut client = rig.client()?;
    client.send(&slow)?;
    rig.backends[0].until("the request", |stats| stats.requests == 1)?;
    rig.gateway.cli(&["cache", "purge", "c", "--key", "/made/race"])?.ok()?;
    let old = client.response_to("GET")?;
    assert_ne!(get(&rig, "race", FRESH)?.body, old.body);
    Ok(())
}

// C9
#[test]
fn what_is_changed_is_no_longer_stored() -> Result<()> {
    lab_test!();
    for key in ["", "key = [\"host\", \"path\", \"query\", \"header:x-k\"]"] {
        let rig = rig(key, "")?;
        let length = "content-length: 0\r\nx-k: other\r\n";
        for (n, method) in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"].into_iter().enumerate() {
            let path = format!("c-{n}");
            let first = get(&rig, &path, FRESH)?;
            ask(&rig, &format!("{method} /made/{path}"), "", &format!("x-status: 400\r\n{length}"))?;
            assert_eq!(get(&rig, &path, FRESH)?.body, first.body, "{method}: it failed");
            ask(&rig, &format!("{method} /made/{path}"), "", length)?;
            eventually("it is gone", || Ok(get(&rig, &path, FRESH)?.body != first.body))?;
        }
        let [one, two] = ["one", "two"].map(|path| get(&rig, path, FRESH));
        let (one, two) = (one?, two?);
        let there = "location: /made/one|content-location: http://a.test/made/two";
        ask(&rig, "POST /made/elsewhere", there, length)?;
        eventually("both are gone", || {
            Ok(get(&rig, "one", FRESH)?.body != one.body && get(&rig, "two", FRESH)?.body != two.body)
        })?;
        // Nobody decides about others' hosts.
        let two = get(&rig, "two", FRESH)?;
        ask(&rig, "POST /made/elsewhere", "location: http://b.test/made/two", length)?;
        assert_eq!(get(&rig, "two", FRESH)?.body, two.body);
    }
    Ok(())
}

// C10
#[test]
fn parts_and_heads_come_from_the_whole() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let answer = "cache-control: max-age=60|etag: \"v1\"";
    let size = "x-size: 1000\r\n";
    let whole = ask(&rig, "GET /made/part", answer, size)?;
    let part = |fields: &str| ask(&rig, "GET /made/part", answer, &format!("{size}{fields}"));
    for (range, from, to) in [("bytes=0-9", 0, 10), ("bytes=990-", 990, 1000), ("bytes=-5", 995, 1000)] {
        let answer = part(&format!("range: {range}\r\n"))?;
        assert_eq!((answer.status, &answer.body[..]), (206, &whole.body[from..to]), "{range}");
        let of = format!("bytes {from}-{}/1000", to - 1);
        assert_eq!(answer.header("content-range"), Some(&*of), "{range}");
    }
    let beyond = part("range: bytes=1000-\r\n")?;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */1000")));
    assert_eq!(part("range: bytes=0-9\r\nif-range: \"v1\"\r\n")?.status, 206);
    assert_eq!(part("range: bytes=0-9\r\nif-range: \"v2\"\r\n")?.status, 200);
    assert_eq!(part("range: bytes=0-1,5-6\r\n")?.status, 200);
    let head = ask(&rig, "HEAD /made/part", answer, size)?;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1000"), 0));
    assert!(is_hit(&head));
    assert_eq!(asked(&rig)?, 1);
    Ok(())
}

#[test]
fn a_body_that_is_too_large_is_passed_on_and_not_kept() -> Result<()> {
    lab_test!();
    let rig = rig("max_body = \"64KiB\"", "")?;
    for fields in ["x-size: 3000000\r\n", "x-size: 3000000\r\nx-pieces: 40\r\n"] {
        for n in 0..2 {
            let answer = ask(&rig, "GET /made/large", FRESH, fields)?;
            assert_eq!((answer.body.len(), is_hit(&answer)), (3_000_000, false), "{n}");
        }
    }
    Ok(())
}

#[test]
fn large_bodies_are_what_they_are_however_they_are_sent() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let noise = |path: &str, size: usize, more: &str| {
        ask(&rig, &format!("GET /made/{path}"), FRESH, &format!("x-hash: 1\r\nx-size: {size}\r\n{more}"))
    };
    for size in [32_767, 32_768, 102_400, 1 << 20, 3_000_000] {
        let path = format!("large-{size}");
        let first = noise(&path, size, "")?;
        assert_eq!(first.header("x-hash"), Some(blake3::hash(&first.body).to_hex().as_str()));
        for more in ["", "connection: close\r\n", "accept: */*\r\n"] {
            let hit = noise(&path, size, more)?;
            assert!(is_hit(&hit) && hit.body == first.body, "{size} {more}");
            assert_eq!(rig.gateway.log_of(&hit)?["bytes_out"], json!(size));
        }
        let part = noise(&path, size, "range: bytes=1000-32000\r\n")?;
        assert_eq!((part.status, &part.body[..]), (206, &first.body[1000..=32000]), "{size}");
    }
    // What is on its way to somebody who reads slowly stays what it was, whatever takes its place.
    let first = noise("slow", 1 << 20, "")?;
    let request = made("slow", &format!("x-answer: {FRESH}\r\n"));
    let mut slow: Vec<_> = (0..4).map(|_| rig.client()).collect::<Result<_>>()?;
    slow.iter_mut().try_for_each(|client| client.send(&request))?;
    thread::sleep(Duration::from_millis(300));
    rig.gateway.cli(&["cache", "purge", "c", "--all"])?.ok()?;
    for n in 0..8 {
        noise(&format!("other-{n}"), 1 << 20, "")?;
    }
    for client in &mut slow {
        assert!(client.response_to("GET")?.body == first.body);
    }
    Ok(())
}

#[test]
fn other_ways_in_are_not_confused() -> Result<()> {
    lab_test!();
    let rig = rig("bypass = [\"cookie:session\", \"header:x-fresh\"]", "")?;
    let first = get(&rig, "x", FRESH)?;
    // What the gateway tells upstreams cannot be chosen by a client.
    for field in ["x-forwarded-host: evil.test", "x-forwarded-proto: https", "forwarded: host=evil.test"] {
        assert_eq!(ask(&rig, "GET /made/x", FRESH, &format!("{field}\r\n"))?.body, first.body, "{field}");
    }
    let other = rig.ask("GET /made/x", "b.test", &format!("x-answer: {FRESH}\r\n"))?;
    assert_ne!(other.body, first.body);
    assert_ne!(get(&rig, "X", FRESH)?.body, first.body);
    assert_ne!(get(&rig, "x?", FRESH)?.body, first.body);
    assert_ne!(get(&rig, "x;.css", FRESH)?.body, first.body);
    // A body, or what the config names, goes past.
    for fields in
        ["content-length: 1\r\n\r\nx", "cookie: session=1\r\n", "x-fresh: 1\r\n", "if-match: \"a\"\r\n"]
    {
        let answer = ask(&rig, "GET /made/x", FRESH, fields)?;
        assert_eq!((status(&answer), answer.body == first.body), ("gateway; fwd=bypass", false), "{fields}");
    }
    assert!(is_hit(&get(&rig, "x", FRESH)?));
    Ok(())
}

// C5
#[test]
fn what_was_asked_for_with_a_body_is_asked_for_with_it_again() -> Result<()> {
    lab_test!();
    let rig = rig(
        "methods = [\"POST\"]\nkey = [\"path\", \"body\"]\nttl = \"1s\"\nstale = { while_revalidate = \"1m\" }",
        "rewrite.json = { set = { \"/by\" = \"gateway\" } }\n",
    )?;
    let send = |body: &str| {
        let length = body.len();
        rig.ask("POST /echo/x", "a.test", &format!("content-length: {length}\r\n\r\n{body}"))
    };
    let body = |answer: &Response| -> Result<Value> { Ok(answer.json()?["body"].clone()) };
    let expected = json!("{\"q\":1,\"by\":\"gateway\"}");
    assert_eq!(body(&send("{\"q\":1}")?)?, expected);
    std::thread::sleep(Duration::from_millis(1200));
    let stale = send("{\"q\":1}")?;
    assert!(status(&stale).starts_with("gateway; hit; ttl=-"), "{stale:?}");
    rig.backends[0].until("it is asked behind that", |stats| stats.requests >= 2)?;
    eventually("what came is used", || {
        let answer = send("{\"q\":1}")?;
        ensure!(body(&answer)? == expected, "{answer:?}");
        Ok(is_hit(&answer) && !status(&answer).contains("ttl=-"))
    })
}

#[test]
fn who_asks_with_a_body_gets_what_was_answered_to_that_body() -> Result<()> {
    lab_test!();
    let rig = rig(
        "methods = [\"GET\", \"POST\"]\nkey = [\"host\", \"path\", \"query\", \"body\"]\nmax_request = \"1KiB\"",
        "",
    )?;
    let send = |method: &str, body: &str, fields: &str| {
        let length = body.len();
        ask(
            &rig,
            &format!("{method} /made/search"),
            FRESH,
            &format!("content-length: {length}\r\n{fields}\r\n{body}"),
        )
    };
    // `ask` ends the head once more.
    let send = |method: &str, body: &str, fields: &str| -> Result<Response> {
        let answer = send(method, body, fields)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer)
    };
    let first = send("POST", "q=1", "content-type: text/plain\r\n")?;
    assert_eq!(status(&first), "gateway; fwd=miss; stored");
    let again = send("POST", "q=1", "content-type: text/plain\r\n")?;
    assert!(is_hit(&again) && again.body == first.body, "{again:?}");
    for (method, body, fields) in [
        ("POST", "q=2", "content-type: text/plain\r\n"),
        ("POST", "q=1", "content-type: text/html\r\n"),
        ("POST", "", ""),
        ("GET", "q=1", "content-type: text/plain\r\n"),
        ("GET", "", ""),
    ] {
        let other = send(method, body, fields)?;
        assert!(!is_hit(&other) && other.body != first.body, "{method} {body} {fields}");
        assert!(is_hit(&send(method, body, fields)?), "{method} {body} {fields}");
    }
    // A POST takes nothing out here, and the upstream gets bodies as they were sent.
    assert!(is_hit(&send("GET", "", "")?));
    let echoed = rig.ask("POST /echo/x", "a.test", "content-length: 5\r\n\r\nhello")?;
    assert!(echoed.text().contains("hello"), "{echoed:?}");
    // What is too long, or of no told length, goes past.
    let long = "x".repeat(2000);
    assert_eq!(status(&send("POST", &long, "")?), "gateway; fwd=bypass");
    let chunked = "transfer-encoding: chunked\r\n\r\n3\r\nq=1\r\n0\r\n";
    assert_eq!(status(&ask(&rig, "POST /made/search", FRESH, chunked)?), "gateway; fwd=bypass");
    // Others that change something still do.
    send("DELETE", "", "")?;
    eventually("it is gone", || Ok(!is_hit(&send("GET", "", "cache-control: no-store\r\n")?)))?;
    // Many who ask the same at once are one request.
    let before = asked(&rig)?;
    let request = made("crowd", &format!("x-answer: {FRESH}\r\nx-ms: 300\r\ncontent-length: 3\r\n"))
        .replacen("GET", "POST", 1)
        + "q=9";
    let answers = crowd(&rig, 20, &request)?;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(asked(&rig)?, before + 1);
    // One whose body does not come is told so, or goes away, and nobody waits for it.
    let mut late = rig.client()?;
    late.send(made("late", "content-length: 3\r\n").replacen("GET", "POST", 1))?;
    drop(late);
    assert!(send("POST", "q=3", "")?.status == 200);
    Ok(())
}

#[test]
fn a_policy_says_what_the_upstream_does_not() -> Result<()> {
    lab_test!();
    let rig = rig("ttl = \"30s\"\nnegative = \"1s\"", "")?;
    get(&rig, "plain", "")?;
    assert!(is_hit(&get(&rig, "plain", "")?));
    get(&rig, "said", "cache-control: max-age=0")?;
    assert!(!is_hit(&get(&rig, "said", "cache-control: max-age=0")?));
    let missing = |path: &str| ask(&rig, path, "", "x-status: 404\r\n");
    missing("GET /made/missing")?;
    let hit = missing("GET /made/missing")?;
    assert_eq!((hit.status, is_hit(&hit)), (404, true));
    thread::sleep(Duration::from_millis(1100));
    assert!(!is_hit(&missing("GET /made/missing")?));
    // What may be a user's own is not kept on the policy's word.
    let user = ask(&rig, "GET /made/user", "", "cookie: id=1\r\n")?;
    assert_eq!(status(&user), "gateway; fwd=miss; detail=cookie");
    Ok(())
}

#[test]
fn a_reload_keeps_what_is_stored() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    let first = get(&rig, "kept", FRESH)?;
    let config = std::fs::read_to_string(rig.gateway.config())?;
    rig.gateway.write(&config.replace("memory = \"64MiB\"", "memory = \"32MiB\""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(get(&rig, "kept", FRESH)?.body, first.body);
    let stats = rig.gateway.cli(&["cache", "stats", "c", "-o", "json"])?.ok()?.json()?;
    assert_eq!(stats["c"]["memory"], json!(32 << 20));
    Ok(())
}

// C14
#[test]
fn one_caller_s_answer_is_no_other_s() -> Result<()> {
    lab_test!();
    let auth: String = ["me", "you"]
        .map(|name| {
            let hash = blake3::hash(name.as_bytes()).to_hex();
            format!("[consumer.{name}]\nkeys = [{{ id = \"k\", hash = \"blake3:{hash}\" }}]\n")
        })
        .concat();
    let auth = format!("auth = \"key\"\n[auth.key]\ntype = \"api-key\"\nfrom = \"header:x-key\"\n{auth}");
    let with = |rig: &Rig, key: &str, path: &str, answer: &str| {
        ask(rig, &format!("GET /made/{path}"), answer, &format!("x-key: {key}\r\n"))
    };
    let shared = rig("", &auth)?;
    let first = with(&shared, "me", "x", FRESH)?;
    assert_eq!(status(&first), "gateway; fwd=miss; detail=authorization");
    assert_ne!(with(&shared, "you", "x", FRESH)?.body, first.body);
    let public = "cache-control: public, max-age=60";
    let first = with(&shared, "me", "public", public)?;
    assert_eq!(with(&shared, "you", "public", public)?.body, first.body);
    // Who may not ask does not get what is stored.
    with(&shared, "nobody", "public", public)?.refused(401, "unauthorized")?;
    drop(shared);
    let apart = rig("key = [\"host\", \"path\", \"query\", \"consumer\"]", &auth)?;
    let (mine, yours) = (with(&apart, "me", "x", FRESH)?, with(&apart, "you", "x", FRESH)?);
    assert_ne!(mine.body, yours.body);
    assert_eq!(with(&apart, "me", "x", FRESH)?.body, mine.body);
    assert_eq!(with(&apart, "you", "x", FRESH)?.body, yours.body);
    Ok(())
}

// C15
#[test]
fn clients_are_told_what_they_may_keep_and_that_they_have_it() -> Result<()> {
    lab_test!();
    for cached in [false, true] {
        let policy = "client_cache = { control = \"public, max-age=60\", override = true, etag = true, max = \"64KiB\" }\n";
        let rig = Rig::start(1, |backends| {
            let (app, cache) = (&backends[0].addr, if cached { "cache = \"c\"\n" } else { "" });
            format!(
                "[listener.web]\nbind = \":80\"\n[cache.c]\n[upstream.app]\nto = \"{app}\"\n\
                 [route.all]\nto = \"app\"\n{cache}{policy}"
            )
        })?;
        // The same content each time.
        let text = |fields: &str| rig.ask("GET /text?bytes=20000", "a.test", fields);
        let plain = |fields: &str| rig.ask("GET /chunked", "a.test", fields);
        assert_eq!(text("")?.header("cache-control"), Some("public, max-age=60"));
        assert_eq!(text("")?.header("etag"), Some("\"v1\""));
        for _ in 0..2 {
            let first = plain("")?;
            let tag = first.header("etag").context("no tag")?.to_owned();
            assert!(tag.starts_with("\"gw-") && tag.ends_with('"') && first.status == 200, "{first:?}");
            let not = plain(&format!("if-none-match: \"x\", {tag}\r\n"))?;
            assert_eq!((not.status, not.body.len(), not.header("etag")), (304, 0, Some(&*tag)));
            assert_eq!(not.header("cache-control"), Some("public, max-age=60"));
            assert_eq!(plain("if-none-match: \"x\"\r\n")?.body, first.body);
            assert_eq!(rig.gateway.log_of(&first)?["bytes_out"], json!(first.body.len()));
        }
        // Another content has another tag.
        let tags: Vec<_> = ["a", "b"]
            .map(|path| {
                ask(&rig, &format!("GET /made/{path}"), FRESH, "")
                    .map(|answer| answer.header("etag").map(str::to_owned))
            })
            .into_iter()
            .collect::<Result<_>>()?;
        assert!(tags[0].is_some() && tags[0] != tags[1], "{tags:?}");
        // What is one client's stays so, and what is large goes on as it comes.
        let own = get(&rig, "own", "cache-control: private, max-age=5")?;
        assert_eq!(own.header("cache-control"), Some("private, max-age=5"));
        let large = rig.ask("GET /big?bytes=3000000", "a.test", "")?;
        assert_eq!((large.body.len(), large.header("etag")), (3_000_000, None));
        let pieces = ask(&rig, "GET /made/pieces", FRESH, "x-size: 300000\r\nx-pieces: 20\r\n")?;
        // What is stored has a tag whatever its length; it may be whole before it is sent.
        assert_eq!((pieces.body.len(), cached || pieces.header("etag").is_none()), (300_000, true));
        // One that breaks off while it is held is an error that can still be told.
        rig.ask("GET /close-body", "a.test", "")?.refused(502, "upstream_reset")?;
    }
    Ok(())
}
