//! `gateway route` and `gateway explain METHOD URL`: O7, O15.

use lab::prelude::*;

fn rig() -> Result<Rig> {
    Rig::start(3, |backends| {
        let targets: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.addr)).collect();
        format!(
            "[listener.web]\nbind = \":80\"\n[listener.old]\nbind = \":8080\"\nredirect = \"https\"\n\
             [upstream.items]\nto = [{all}]\nbalance = \"ip-hash\"\n\
             [upstream.next]\nto = [{one}]\n\
             [route.items]\nhost = \"shop.test\"\npath = \"/items/*\"\nto = \"items\"\n\
             [route.posted]\nhost = \"shop.test\"\npath = \"/items/*\"\nmethods = \"POST\"\nto = {{ items = 9, next = 1 }}\n\
             [route.canary]\nhost = \"shop.test\"\npath = \"/items/*\"\nheaders = {{ x-canary = \"1\" }}\nquery = {{ a = \"b\" }}\nto = \"next\"\n\
             [route.under]\nhost = \"*.shop.test\"\nto = \"next\"\n\
             [route.gone]\nhost = \"shop.test\"\npath = \"/gone\"\nrespond = {{ status = 410 }}\n\
             [route.login]\nhost = \"shop.test\"\npath = \"/login\"\nmethods = \"POST\"\nto = \"next\"\n",
            all = targets.join(", "),
            one = targets[0],
        )
    })
}

fn explain(rig: &Rig, arguments: &[&str]) -> Result<Value> {
    rig.gateway.cli(&[&["explain"], arguments, &["-o", "json"]].concat())?.ok()?.json()
}

/// As a client of the lab sees it.
fn send(rig: &Rig, method: &str, path: &str, host: &str, more: &str) -> Result<Response> {
    let mut client = Client::connect(rig.net.client(1), SocketAddr::from((VIP4, 80)))?;
    client.send(
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{more}\r\n").as_bytes(),
    )?;
    client.response_to(method)
}

fn why<'a>(told: &'a Value, route: &str) -> &'a str {
    let others = told["others"].as_array().into_iter().flatten();
    others.filter(|other| other["route"] == route).find_map(|other| other["why"].as_str()).unwrap_or_default()
}

// O15
#[test]
fn a_request_is_explained_as_it_fares() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let client = rig.net.client(1).v4().to_string();
    for (method, host, path, fields, expected) in [
        ("GET", "shop.test", "/items/7", "", Some("items")),
        ("GET", "SHOP.test:80", "/items/%37", "", Some("items")),
        ("GET", "shop.test", "/x/../items/7", "", None),
        ("POST", "shop.test", "/items/7", "", Some("posted")),
        ("GET", "shop.test", "/items/7?a=b", "x-canary: 1", Some("canary")),
        ("GET", "a.shop.test", "/", "", Some("under")),
        ("GET", "shop.test", "/gone", "", Some("gone")),
        ("GET", "shop.test", "/login", "", None),
        ("GET", "shop.test", "/nothing", "", None),
        ("GET", "other.test", "/", "", None),
    ] {
        let url = format!("http://{host}{path}");
        let mut asked = vec![method, &url, "--from", &client, "--listener", "web"];
        if !fields.is_empty() {
            asked.extend(["-H", fields]);
        }
        let told = explain(&rig, &asked)?;
        assert_eq!(told["route"].as_str(), expected, "{method} {url}: {told}");
        let more = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
        let answer = send(&rig, method, path, host, &more)?;
        let line = rig.gateway.log_of(&answer)?;
        assert_eq!(line["route"].as_str(), expected, "{method} {url}: {line}");
        if let Some(status) = told["status"].as_u64() {
            assert_eq!((u64::from(answer.status), &line["why"]), (status, &told["why"]), "{told}");
        }
        // Where hashing decides, the target is told.
        if let Some(target) = told["upstreams"][0]["target"].as_str().filter(|_| expected == Some("items")) {
            assert_eq!(line["target"], target, "{told}");
        }
    }
    assert_eq!(rig.backends.len(), 3);
    Ok(())
}

// O15
#[test]
fn it_says_why_other_routes_do_not_take_a_request() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let told = explain(&rig, &["GET", "http://shop.test/items/7?a=c", "-H", "X-Canary: 1"])?;
    for (route, reason) in [
        ("posted", "is for POST"),
        ("canary", "asks for another query parameter a"),
        ("under", "is for the host *.shop.test"),
        ("gone", "is for the path /gone"),
        ("items", ""),
    ] {
        assert_eq!(why(&told, route), reason, "{told}");
    }
    let told = explain(&rig, &["POST", "http://shop.test/items/7"])?;
    assert_eq!(why(&told, "items"), "would take it, but posted is more specific");
    assert_eq!(told["upstreams"][1]["weight"], 1);
    // A redirect of the listener asks no route.
    let told = explain(&rig, &["GET", "http://shop.test:8080/items/7"])?;
    assert!(told["outcome"].as_str().is_some_and(|text| text.starts_with("redirected to https")), "{told}");
    // Questions without sense.
    for (arguments, said) in [
        (&["GET", "http://shop.test:81/"][..], "no listener takes http at port 81"),
        (&["GET", "https://shop.test/"], "no listener takes https at port 443"),
        (&["GET", "http://shop.test/", "--listener", "none"], "there is no listener"),
        (&["G T", "http://shop.test/"], "is no method"),
        (&["GET", "http://shop.test/", "-H", "novalue"], "is no header field"),
    ] {
        let cli = rig.gateway.cli(&[&["explain"], arguments].concat())?;
        assert!(cli.code != 0 && cli.stderr.contains(said), "{arguments:?}: {cli:?}");
    }
    // For people.
    let text = rig.gateway.cli(&["explain", "GET", "http://shop.test/items/7"])?.ok()?.stdout;
    for part in ["goes to the upstream items", "ip-hash", "posted: is for POST", "not taken by"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    Ok(())
}

// O7
#[test]
fn routes_are_listed_with_their_requests() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for _ in 0..3 {
        send(&rig, "GET", "/items/1", "shop.test", "")?;
    }
    send(&rig, "GET", "/gone", "shop.test", "")?;
    let list = rig.gateway.cli(&["route", "list"])?.ok()?.stdout;
    let row = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("items").contains("shop.test") && row("items").trim_end().ends_with('3'), "{list}");
    assert!(row("gone").contains("answer 410") && row("posted").contains("items=9 next=1"), "{list}");
    let show = rig.gateway.cli(&["route", "show", "gone", "-o", "json"])?.ok()?.json()?;
    assert_eq!((&show["settings"]["respond"]["status"], &show["codes"]["410"]), (&json!(410), &json!(1)));
    let none = rig.gateway.cli(&["route", "show", "none"])?;
    assert!(none.code == 5 && none.stderr.contains("none"), "{none:?}");
    Ok(())
}
