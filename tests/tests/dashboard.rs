//! The admin API over TCP, and the dashboard: O8.

use std::{os::unix::fs::PermissionsExt, process::Stdio};

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    curl::Curl,
    prelude::*,
    tools,
};

const TOKEN: &str = "the-token-of-this-test";
const HERE: &str = "http://127.0.0.1:9900";

fn write_token(gateway: &Gateway, token: &str) -> Result<()> {
    let path = gateway.file("token");
    std::fs::write(&path, token)?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
}

struct Web {
    gateway: Gateway,
    /// Where the gateway is, as a node to ask from.
    here: Node,
    _backends: Vec<Backend>,
    _net: Net,
    _turn: lab::lock::Turn,
}

fn web(http: &str) -> Result<Web> {
    let turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[admin.http]\ntoken = {{ file = \"token\" }}\n{http}\n[gateway]\nname = \"edge-1\"\n\
         [listener.web]\nbind = \":80\"\n[route.items]\npath = \"/items/*\"\nto = \"items\"\ncache = \"public\"\nlimit = [\"fair\"]\n\
         [cache.public]\nmemory = \"16MiB\"\n[limit.fair]\nkey = [\"ip\"]\nrate = \"100/s\"\n\
         [route.home]\nrespond = {{ status = 200, body = \"home\" }}\n[upstream.items]\nto = {}\n",
        targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    write_token(&gateway, &format!("{TOKEN}\n"))?;
    let authority = Authority::new()?;
    authority.issue(&["edge.test"])?.write(&gateway.file(""), "edge")?;
    std::fs::write(gateway.file("ca.pem"), &authority.pem)?;
    gateway.run()?;
    let here = Node::of_namespace(net.gateway.clone());
    Ok(Web { gateway, here, _backends: backends, _net: net, _turn: turn })
}

fn plain() -> Result<Web> {
    web("bind = \"127.0.0.1:9900\"")
}

impl Web {
    fn curl(&self, path: &str, arguments: &[&str]) -> Result<Curl> {
        let url = format!("{HERE}{path}");
        Curl::run(&self.here, &[arguments, &[&url]].concat())
    }

    fn log_in(&self, token: &str) -> Result<Curl> {
        let body = json!({ "token": token }).to_string();
        self.curl("/login", &["-H", "content-type: application/json", "-d", &body])
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

#[test]
fn the_api_is_for_who_has_the_token() -> Result<()> {
    lab_test!();
    let web = plain()?;
    for path in ["/v1/status", "/v1/config", "/v1/events", "/v1/nowhere", "/session"] {
        let refused = web.curl(path, &[])?;
        assert_eq!((refused.status, refused.json()?["type"].as_str()), (401, Some("unauthorized")), "{path}");
        assert!(refused.header("www-authenticate").is_some_and(|how| how.starts_with("bearer")), "{path}");
    }
    let status = web.curl("/v1/status", &["-H", &bearer(TOKEN)])?;
    assert_eq!((status.status, &status.json()?["name"]), (200, &json!("edge-1")));
    let ban = web.curl(
        "/v1/bans",
        &["-H", &bearer(TOKEN), "-H", "content-type: application/json", "-d", "{\"cidr\": \"198.51.100.7\"}"],
    )?;
    assert_eq!(ban.status, 201, "{ban:?}");
    for wrong in [&TOKEN[..TOKEN.len() - 1], "", &format!("{TOKEN}x")] {
        assert_eq!(web.curl("/v1/status", &["-H", &bearer(wrong)])?.status, 401, "{wrong}");
    }
    assert_eq!(web.curl("/v1/status", &["-H", "authorization: Basic Zm9vOmJhcg=="])?.status, 401);
    Ok(())
}

#[test]
fn whoever_guesses_has_to_wait() -> Result<()> {
    lab_test!();
    let web = plain()?;
    for _ in 0..5 {
        assert_eq!(web.log_in("a guess of this length")?.status, 401);
    }
    let waits = web.log_in(TOKEN)?;
    assert_eq!(waits.status, 429);
    let seconds: u64 = waits.header("retry-after").context("no retry-after")?.parse()?;
    assert!((1..=61).contains(&seconds), "{seconds}");
    web.gateway.says("login to the dashboard refused")?;
    assert!(!web.gateway.stderr().iter().any(|line| line.contains("a guess")), "it is in the log");
    Ok(())
}

#[test]
fn a_session_changes_nothing_without_what_its_page_knows() -> Result<()> {
    lab_test!();
    let web = plain()?;
    let opened = web.log_in(TOKEN)?;
    assert_eq!(opened.status, 200, "{opened:?}");
    let cookie = opened.header("set-cookie").context("no cookie")?.to_owned();
    for part in ["httponly", "samesite=strict", "path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let told = opened.json()?;
    let csrf = format!("x-csrf-token: {}", told["csrf"].as_str().context("no csrf")?);
    // The lab's curl tells heads in lower case: the cookie as it is comes from the jar.
    let jar = web.gateway.file("jar").display().to_string();
    let body = json!({ "token": TOKEN }).to_string();
    web.curl("/login", &["-c", &jar, "-H", "content-type: application/json", "-d", &body])?;
    let session = web.curl("/session", &["-b", &jar])?.json()?;
    assert_eq!(session["name"], "edge-1");
    let mine = format!("x-csrf-token: {}", session["csrf"].as_str().context("no csrf")?);
    let ban = |extra: &[&str]| {
        let fixed =
            ["-b", &jar, "-H", "content-type: application/json", "-d", "{\"cidr\": \"198.51.100.9\"}"];
        web.curl("/v1/bans", &[&fixed, extra].concat())
    };
    assert_eq!(ban(&[])?.status, 403);
    assert_eq!(ban(&["-H", "x-csrf-token: x"])?.status, 403);
    assert_eq!(ban(&["-H", &csrf])?.status, 403, "another session's");
    assert_eq!(ban(&["-H", &mine])?.status, 201);
    let bans = web.curl("/v1/bans", &["-b", &jar])?.json()?;
    assert_eq!(bans.as_array().map(Vec::len), Some(1));
    assert_eq!(web.curl("/logout", &["-b", &jar, "-H", &mine, "-X", "POST"])?.status, 204);
    assert_eq!(web.curl("/v1/bans", &["-b", &jar])?.status, 401);
    Ok(())
}

#[test]
fn every_answer_tells_browsers_to_keep_to_this_page() -> Result<()> {
    lab_test!();
    let web = plain()?;
    for path in ["/", "/app.js", "/style.css", "/icon.svg", "/v1/status", "/login", "/nowhere"] {
        let answer = web.curl(path, &[])?;
        let policy = answer.header("content-security-policy").context(path)?;
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("deny"), "{path}");
        assert!(answer.header("cache-control").is_some(), "{path}");
    }
    let page = web.curl("/", &[])?;
    let tag = format!("if-none-match: {}", page.header("etag").context("no tag")?);
    assert_eq!(web.curl("/", &["-H", &tag])?.status, 304);
    Ok(())
}

#[test]
fn beyond_this_host_it_is_served_by_tls() -> Result<()> {
    lab_test!();
    let web = web("bind = \":9900\"\ntls = { cert = \"edge\" }\n\
                   [cert.edge]\nchain = \"edge.pem\"\nkey = { file = \"edge.key\" }")?;
    let ca = web.gateway.file("ca.pem").display().to_string();
    let by_name = ["--cacert", &ca, "--connect-to", "edge.test:9900:127.0.0.1:9900"];
    let ask = |path: &str, more: &[&str]| {
        let url = format!("https://edge.test:9900{path}");
        Curl::run(&web.here, &[&by_name, more, &[&url]].concat())
    };
    assert_eq!(ask("/v1/status", &["-H", &bearer(TOKEN)])?.status, 200);
    let body = json!({ "token": TOKEN }).to_string();
    let opened = ask("/login", &["-H", "content-type: application/json", "-d", &body])?;
    let cookie = opened.header("set-cookie").context("no cookie")?;
    assert!(cookie.starts_with("__host-") && cookie.contains("secure"), "{cookie}");
    assert_ne!(web.curl("/v1/status", &["-H", &bearer(TOKEN)])?.code, 0, "answered in clear");
    Ok(())
}

#[test]
fn a_config_that_would_show_the_token_is_refused() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let refused = |http: &str, token: &str| -> Result<String> {
        let rest = lab::gateway::simple_config(&backends);
        let config = format!("[admin.http]\ntoken = {{ file = \"token\" }}\n{http}\n{rest}");
        let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
        write_token(&gateway, token)?;
        let (status, told) = gateway.run_to_end()?;
        ensure!(!status.success(), "it runs");
        Ok(told)
    };
    let told = refused("bind = \"0.0.0.0:9900\"", TOKEN)?;
    assert!(told.contains("would cross the network in clear") && told.contains("add tls"), "{told}");
    let told = refused("bind = \"127.0.0.1:9900\"", "short")?;
    assert!(told.contains("at least 16"), "{told}");
    drop(turn);
    Ok(())
}

#[test]
fn an_upgrade_hands_the_port_over() -> Result<()> {
    lab_test!();
    let mut web = plain()?;
    web.gateway.upgrade(&[])?.ok()?;
    let status = web.curl("/v1/status", &["-H", &bearer(TOKEN)])?.json()?;
    assert_eq!(status["pid"], json!(web.gateway.pid()));
    Ok(())
}

#[test]
fn people_can_use_the_page() -> Result<()> {
    lab_test!();
    let web = plain()?;
    let chromium =
        tools::find("chromium").context("chromium is not installed; `cargo xtask setup` installs it")?;
    let python = tools::find("python3").context("python3 is not installed")?;
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python");
    let mut browse = web.here.namespace.command(python)?;
    browse.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").env("no_proxy", "*");
    browse.args(["-c", include_str!("../src/dashboard/browse.py"), &format!("{HERE}/"), TOKEN]);
    browse.arg(chromium).arg(std::env::var("GATEWAY_PICTURES").unwrap_or_default()).stdin(Stdio::null());
    let output = browse.output().context("cannot run python3")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = web.gateway.status()?;
    assert!(told["upstreams"]["items"]["targets"][0]["overrides"].is_null(), "{told}");
    Ok(())
}
