//! What has a quota of its own, and how it is looked at. R5, R6, O15

use super::*;

// R5, R6
#[test]
fn every_part_of_a_key_has_a_quota_of_its_own() -> Result<()> {
    lab_test!();
    for (key, one, other) in [
        ("header:x-tenant", "x-tenant: a\r\n", "x-tenant: b\r\n"),
        ("cookie:sid", "cookie: x=1; sid=a\r\n", "cookie: sid=b; x=1\r\n"),
        ("header:x-tenant", "", "x-tenant: b\r\n"),
    ] {
        let rig = rig(&format!("[limit.few]\nrate = \"3/h\"\nkey = [\"{key}\"]"), "limit = \"few\"")?;
        assert_eq!(
            (passed(&rig, 5, one)?, passed(&rig, 5, other)?, passed(&rig, 1, one)?),
            (3, 3, 0),
            "{key}"
        );
    }
    let rig = rig(
        "[limit.few]\nrate = \"3/h\"\nkey = [\"query:k\", \"method\"]\n[limit.host]\nrate = \"20/h\"\nkey = \"host\"",
        "limit = [\"few\", \"host\"]",
    )?;
    let statuses = |request: &str, host: &str, n: usize| -> Result<usize> {
        (0..n).map(|_| Ok(usize::from(rig.ask(request, host, "")?.status == 200))).sum()
    };
    assert_eq!(statuses("GET /?k=a", "a", 5)?, 3);
    assert_eq!(statuses("GET /?k=b&x=1", "a", 5)?, 3);
    assert_eq!(statuses("POST /?k=a", "a", 5)?, 3);
    // Refused ones cost the other limit nothing: of 20 are 11 left.
    let left: u64 =
        (0..20).map(|n| Ok(statuses(&format!("GET /?k=more{n}"), "a", 1)? as u64)).sum::<Result<u64>>()?;
    assert_eq!(left, 11);
    assert_eq!(statuses("GET /?k=a", "b", 5)?, 0, "its own quota is used up at any host");
    assert_eq!(statuses("GET /?k=z", "b", 5)?, 3);
    Ok(())
}

// R5, R6
#[test]
fn clients_are_told_apart_by_address_and_ipv6_by_prefix() -> Result<()> {
    lab_test!();
    let rig = rig("[limit.few]\nrate = \"5/h\"\nkey = \"ip\"", "limit = \"few\"")?;
    let node = rig.net.client(1);
    let statuses = |from: IpAddr| -> Result<usize> {
        let to = if from.is_ipv4() { rig.gateway.at4() } else { rig.gateway.at6() };
        (0..10).map(|_| Ok(usize::from(http::get_from(node, to, from, "/")?.status == 200))).sum()
    };
    assert_eq!(statuses(node.v4().into())?, 5);
    assert_eq!(statuses(node.v6().into())?, 5);
    assert_eq!(statuses(node.v6().into())?, 0);
    let shown = rig.gateway.cli(&["limit", "top"])?.ok()?.stdout;
    assert!(shown.contains(&format!("ip={}", node.v4())) && shown.contains("/64"), "{shown}");
    Ok(())
}

#[test]
fn limits_are_listed_shown_and_started_anew() -> Result<()> {
    lab_test!();
    let rig = rig("[limit.few]\nrate = \"3/h\"\nkey = [\"ip\", \"header:x-key\"]", "limit = \"few\"")?;
    assert_eq!(passed(&rig, 10, "x-key: secret-of-mine\r\n")?, 3);
    let listed = rig.gateway.cli(&["limit", "list", "-o", "json"])?.ok()?.json()?;
    let few = &listed["limits"]["few"];
    assert_eq!(
        (&few["keys"], &few["decisions"]["deny"], &few["routes"]),
        (&json!(1), &json!(7), &json!(["all"]))
    );
    for command in
        [&["limit", "list"][..], &["limit", "show", "few"], &["limit", "top"], &["limit", "top", "few"]]
    {
        let shown = rig.gateway.cli(command)?.ok()?.stdout;
        assert!(shown.contains("few"), "{command:?}: {shown}");
        assert!(!shown.contains("secret-of-mine"), "a secret is shown: {shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{command:?}: {shown}");
    }
    let top = rig.gateway.cli(&["limit", "top", "few", "-o", "json"])?.ok()?.json()?;
    assert_eq!((&top[0]["left"], &top[0]["of"], &top[0]["refused"]), (&json!(0), &json!(3), &json!(7)));
    let id = top[0]["id"].as_str().context("no id")?;
    rig.gateway.cli(&["limit", "reset", "few", id])?.ok()?;
    assert_eq!(passed(&rig, 5, "x-key: secret-of-mine\r\n")?, 3);
    rig.gateway.cli(&["limit", "reset", "few"])?.ok()?;
    assert_eq!(passed(&rig, 5, "x-key: secret-of-mine\r\n")?, 3);
    assert_eq!(rig.gateway.cli(&["limit", "show", "fwe"])?.code, 5);
    Ok(())
}

// O15
#[test]
fn explain_tells_how_near_limits_are_and_spends_nothing() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[consumer.rich]\ntier = \"gold\"\n[limit.few]\nrate = \"3/h\"\nper = { gold = \"30/h\" }\nkey = \"consumer\"\n\
         [limit.soft]\nmode = \"soft\"\nrate = \"2/h\"\n[limit.dry]\nrate = \"1/h\"\ndry_run = true",
        "limit = [\"few\", \"soft\", \"dry\"]",
    )?;
    let from = rig.net.client(1).v4().to_string();
    let explain = |more: &[&str]| -> Result<Value> {
        let asked = ["explain", "GET", "http://a/", "--from", &from, "-o", "json"];
        rig.gateway.cli(&[&asked, more].concat())?.ok()?.json()
    };
    for used in 0..4 {
        for _ in 0..3 {
            let told = explain(&[])?;
            let words = ["few", "soft", "dry"].iter().zip([3, 2, 1]).zip(["deny", "soft", "dry_run"]);
            for (at, ((limit, of), over)) in words.enumerate() {
                let one = &told["limits"][at];
                assert_eq!((&one["limit"], &one["of"]), (&json!(limit), &json!(of)));
                let used = used.min(3).min(if *limit == "few" { 3 } else { of });
                assert_eq!(one["left"], json!(of - used), "{told}");
                assert_eq!(one["decision"], if used < of { json!("allow") } else { json!(over) }, "{told}");
            }
            let over = used >= 3;
            assert_eq!(told["why"], if over { json!("limited") } else { Value::Null });
            assert_eq!(told["status"], if over { json!(429) } else { Value::Null });
        }
        assert_eq!(get(&rig, "/", "")?.status, if used < 3 { 200 } else { 429 });
    }
    let rich = explain(&["--as", "rich"])?;
    assert_eq!(
        (&rich["limits"][0]["left"], &rich["limits"][0]["key"]),
        (&json!(30), &json!("consumer=rich"))
    );
    assert_eq!(rig.gateway.cli(&["explain", "GET", "http://a/", "--as", "nobody"])?.code, 5);
    let shown = rig.gateway.cli(&["explain", "GET", "http://a/", "--from", &from])?.ok()?.stdout;
    assert!(shown.contains("few: deny, 0 of 3 left, again in") && shown.contains(&from), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    rig.gateway.cli(&["ban", "add", "203.0.113.9", "--where", "http"])?.ok()?;
    let banned = rig
        .gateway
        .cli(&["explain", "GET", "http://a/", "--from", "203.0.113.9", "-o", "json"])?
        .ok()?
        .json()?;
    assert_eq!((&banned["why"], &banned["status"]), (&json!("banned"), &json!(403)));
    Ok(())
}

// Keys that an attacker invents
#[test]
fn a_flood_of_invented_keys_gives_nobody_a_fresh_quota() -> Result<()> {
    lab_test!();
    let limits = "[limit.few]\nrate = \"3/h\"\nkey = \"header:x-key\"\nheaders = []";
    let rig = Rig::start(1, |backends| {
        let text = config(&backends[0].addr.to_string(), limits, "limit = \"few\"");
        text.replace("workers = 2", "workers = 2\nlimit_keys = 1024")
    })?;
    let honest = |n: usize| format!("x-key: honest-{n}\r\n");
    for n in 0..20 {
        assert_eq!(passed(&rig, 4, &honest(n))?, 3);
    }
    std::thread::scope(|scope| {
        let flood = |worker: usize| {
            let rig = &rig;
            scope.spawn(move || -> Result<()> {
                let mut client = rig.client()?;
                for n in 0..1500 {
                    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-key: {worker}-{n}\r\n\r\n"))?;
                    client.response()?;
                }
                Ok(())
            })
        };
        let floods: Vec<_> = (0..4).map(flood).collect();
        floods.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a flood panicked"))?)
    })?;
    for n in 0..20 {
        assert_eq!(passed(&rig, 1, &honest(n))?, 0, "a key that has used its quota was forgotten: {n}");
    }
    assert!(rig.gateway.metrics()?.sum("limit_crowded_total", &[]) > 0.0);
    Ok(())
}
