//! What an operator asks of a cache: what it would do, and to have answers before anybody wants them.

use super::*;

fn told(rig: &Rig, arguments: &[&str]) -> Result<Value> {
    let told = rig.gateway.cli(&[&["explain"], arguments, &["-o", "json"]].concat())?.ok()?.json()?;
    Ok(told["cache"].clone())
}

#[test]
fn explain_says_what_the_cache_would_do_and_then_it_does_that() -> Result<()> {
    lab_test!();
    let rig = rig("bypass = \"cookie:s\"\nkey = [\"host\", \"path\", \"query:q\", \"header:x-k\"]", "")?;
    let url = "http://a.test/made/x?q=1&r=2";
    let get = |fields: &str| ask(&rig, "GET /made/x?q=1&r=2", FRESH, fields);
    let first = told(&rig, &["GET", url, "-H", "X-K: v"])?;
    assert_eq!((&first["would"], &first["cache"]), (&json!("miss"), &json!("c")));
    assert_eq!(
        first["key"],
        json!(["scheme http", "host a.test", "path /made/x", "query q=1", "route all", "header:x-k v"])
    );
    let stored = get("x-k: v\r\n")?;
    let before = asked(&rig)?;
    let hit = told(&rig, &["GET", url, "-H", "X-K: v"])?;
    assert_eq!((&hit["would"], &hit["stored"]), (&json!("hit"), &json!("memory")));
    assert!(hit["ttl"].as_i64().is_some_and(|ttl| (50..=60).contains(&ttl)), "{hit}");
    assert_eq!(told(&rig, &["GET", url, "-H", "X-K: w"])?["would"], json!("miss"));
    for (arguments, would, why) in [
        (&["GET", url, "-H", "X-K: v", "-H", "Cache-Control: no-cache"][..], "miss", "cannot be used"),
        (&["GET", url, "-H", "Cache-Control: only-if-cached"], "not_cached", "504"),
        (&["GET", url, "-H", "Cookie: s=1"], "bypass", "cookie:s"),
        (&["GET", url, "-H", "If-Match: \"a\""], "bypass", "condition"),
        (&["GET", url, "-H", "Content-Length: 3"], "bypass", "body"),
        (&["DELETE", url], "bypass", "what is stored of the URL goes"),
    ] {
        let told = told(&rig, arguments)?;
        assert!(
            told["would"] == json!(would) && told["why"].as_str().unwrap_or_default().contains(why),
            "{told}"
        );
    }
    let own = told(&rig, &["GET", url, "-H", "Authorization: x", "-H", "Range: bytes=0-1"])?;
    assert_eq!(own["not_stored"].as_array().map(Vec::len), Some(2), "{own}");
    // Asking changed nothing.
    assert_eq!((asked(&rig)?, get("x-k: v\r\n")?.body), (before, stored.body));
    let text = rig.gateway.cli(&["explain", "GET", url, "-H", "X-K: v"])?.ok()?.stdout;
    assert!(text.contains("c: hit: it is fresh") && text.contains("query q=1"), "{text}");
    Ok(())
}

#[test]
fn a_list_of_urls_is_asked_for_so_that_the_cache_has_them() -> Result<()> {
    lab_test!();
    let rig = rig("key = [\"host\", \"path\", \"query\", \"header:x-k\"]", "")?;
    let list = rig.gateway.file("urls");
    let urls: String = (0..20).map(|n| format!("http://a.test/made/{n}\n")).collect();
    std::fs::write(&list, format!("# the start page\n\n{urls}http://a.test/made/0\n"))?;
    let list = list.display().to_string();
    let answer = format!("x-answer: {FRESH}");
    let began = Instant::now();
    let warm = |file: &str| {
        let arguments =
            ["cache", "warm", file, "--rate", "20/s", "-H", &answer, "-H", "x-k: v", "-o", "json"];
        rig.gateway.cli(&arguments)
    };
    let warmed = warm(&list)?.ok()?.json()?;
    // 21 at 20 a second.
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((&warmed["asked"], &warmed["failed"]), (&json!(21), &json!(0)), "{warmed}");
    assert!(warmed["stored"].as_u64() >= Some(20), "{warmed}");
    let before = asked(&rig)?;
    for n in 0..20 {
        assert!(is_hit(&ask(&rig, &format!("GET /made/{n}"), FRESH, "x-k: v\r\n")?));
    }
    assert_eq!(asked(&rig)?, before);
    let wrong = rig.gateway.file("wrong");
    std::fs::write(&wrong, "http://a.test:81/x\n/x\n")?;
    let failed = warm(&wrong.display().to_string())?;
    assert!(failed.code == 1 && failed.stderr.contains("no listener"), "{failed:?}");
    Ok(())
}
