//! Seeing what goes on: the live view (M8), sinks and shapes of the access log (M5), traces (M6), alerts (M7), why (M10).

mod alerts;
mod clock;
mod doctor;
mod kafka;
mod prometheus;
mod requests;
mod schema;
mod sinks;
mod top;
mod traces;

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use lab::{gateway::simple_config, net::Namespace, prelude::*, process::Process};

use self::traces::{TRACE, attribute, collector, spans, tracing};

fn rig() -> Result<Rig> {
    Rig::start(2, simple_config)
}

/// A config whose access log has these keys; `{dir}` is the gateway's own folder.
fn logging(rig: &Rig, keys: &str) -> String {
    let dir = rig.gateway.file("").display().to_string();
    format!("{}\n[access_log]\n{}\n", simple_config(&rig.backends), keys.replace("{dir}", &dir))
}

fn relog(rig: &Rig, keys: &str) -> Result<()> {
    rig.gateway.write(&logging(rig, keys))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    Ok(())
}

fn read(rig: &Rig, name: &str) -> String {
    std::fs::read_to_string(rig.gateway.file(name)).unwrap_or_default()
}

fn lines(rig: &Rig, result: &str) -> Result<f64> {
    Ok(rig.gateway.metrics()?.sum("access_log_lines_total", &[("result", result)]))
}

fn listens(namespace: &Namespace, port: u16) -> Result<()> {
    within(Duration::from_secs(15), "it listens", || {
        let open = namespace.run(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(open.then_some(()))
    })
}

/// Takes what is posted, and answers 200, or first so many times with a status. `take`: Python's `take(handler, body)`, which finds
/// the path of a file in `into`.
const RECEIVER: &str = r#"
import http.server, json, sys
port, into, left, status = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
exec(sys.argv[5])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global left
        body = self.rfile.read(int(self.headers["content-length"]))
        if left > 0:
            left -= 1
            self.send_response(status)
        else:
            take(self, body)
            self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

fn receiver(
    namespace: &Namespace,
    port: u16,
    take: &str,
    into: &Path,
    (fail, status): (usize, u16),
) -> Result<Process> {
    let mut command = namespace.command("python3")?;
    command.args(["-c", RECEIVER, &port.to_string()]).arg(into);
    command.args([&fail.to_string(), &status.to_string(), take]).stdin(Stdio::null());
    let receiver = Process::start(command)?;
    listens(namespace, port)?;
    Ok(receiver)
}

// M10
#[test]
fn why_tells_of_a_request_by_its_id_and_of_an_address_from_both_halves() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let cut = rig.ask("GET /close", "a", "")?;
    let id = cut.header("x-request-id").context("no id")?.to_owned();
    let told = rig.gateway.cli(&["why", &id])?.ok()?;
    for text in
        ["upstream_reset: The upstream closed", "the last target that was tried is", "route all", "/close"]
    {
        assert!(told.stdout.contains(text), "{text} in {told:?}");
    }
    let failed = rig.ask("GET /status/503", "a", "")?;
    let id = failed.header("x-request-id").context("no id")?.to_owned();
    let told = rig.gateway.cli(&["why", &id, "-o", "json"])?.ok()?.json()?;
    assert!(
        told["reasons"][0].as_str().is_some_and(|text| text.ends_with("of upstream all answered 503")),
        "{told}"
    );
    // By its trace as well.
    tracing(&rig, "share = \"0%\"")?;
    rig.ask("GET /status/502", "a", &format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\n"))?;
    let told = rig.gateway.cli(&["why", TRACE])?.ok()?;
    assert!(told.stdout.contains("answered 502"), "{told:?}");
    assert_eq!(rig.gateway.cli(&["why", &TRACE.replace('4', "5")])?.code, 5);
    // What went well is not remembered.
    let fine = rig.ask("GET /", "a", "")?;
    let id = fine.header("x-request-id").context("no id")?.to_owned();
    assert_eq!(rig.gateway.cli(&["why", &id])?.code, 5);
    assert_eq!(rig.gateway.cli(&["why", "nonsense"])?.code, 5);
    let client = rig.net.client(1).v4().to_string();
    let told = rig.gateway.cli(&["why", &client])?.ok()?;
    assert!(told.stdout.contains("3 of its last requests were refused, failed or were slow"), "{told:?}");
    rig.gateway.cli(&["ban", "add", "192.0.2.0/24", "--why", "flood"])?.ok()?;
    let told = rig.gateway.cli(&["why", "192.0.2.7"])?.ok()?;
    assert!(told.stdout.contains("banned in the kernel as 192.0.2.0/24: flood"), "{told:?}");
    let told = rig.gateway.cli(&["why", "2001:db8::7"])?.ok()?;
    assert!(told.stdout.contains("nothing is held against it"), "{told:?}");
    Ok(())
}

const TOKEN: &str = "the-token-of-this-test";

/// A row of the page of routes, by the titles of its columns, as Chromium shows it.
const ROUTES_PAGE: &str = r##"
import json, sys
from playwright.sync_api import sync_playwright
url, token, chromium, route = sys.argv[1:5]
with sync_playwright() as playwright:
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
    browser = playwright.chromium.launch(executable_path=chromium, args=flags)
    page = browser.new_page()
    page.goto(url)
    page.get_by_label("Token of").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_selector("main h1")
    page.goto(url + "#routes")
    row = page.locator("main tbody tr").filter(has=page.get_by_role("cell", name=route, exact=True)).first
    row.wait_for()
    print(json.dumps(dict(zip(page.locator("main th").all_text_contents(), row.locator("td").all_text_contents()))))
"##;

/// What the dashboard shows of a route: requests and, of them, 5xx.
fn on_the_dashboard(rig: &Rig, route: &str) -> Result<[u64; 2]> {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python");
    let chromium = lab::tools::find("chromium").filter(|_| Path::new(packages).join("playwright").is_dir());
    let chromium =
        chromium.context("chromium or playwright is missing; `cargo xtask setup` installs them")?;
    let mut browse = rig.net.gateway.command("python3")?;
    browse.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").env("no_proxy", "*");
    browse.args(["-c", ROUTES_PAGE, "http://127.0.0.1:9900/", TOKEN]).arg(chromium).arg(route);
    let output = browse.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout)?;
    let number = |title: &str| shown[title].as_str().and_then(|text| text.parse().ok());
    let number = |title: &str| number(title).with_context(|| format!("{title} in {shown}"));
    Ok([number("In all")?, number("5xx in all")?])
}

// M1, M4, M6, M8, O8
#[test]
fn log_metrics_traces_the_live_view_and_the_dashboard_agree_with_the_client_to_the_last_request() -> Result<()>
{
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(2)?;
    let backends = lab::backend::start_all(&net)?;
    let config = format!(
        "{}[tracing]\notlp = \"http://127.0.0.1:4318\"\nshare = \"100%\"\n\
         [admin.http]\nbind = \"127.0.0.1:9900\"\ntoken = {{ file = \"token\" }}\n",
        simple_config(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    std::fs::write(gateway.file("token"), TOKEN)?;
    std::fs::set_permissions(gateway.file("token"), std::fs::Permissions::from_mode(0o600))?;
    gateway.run()?;
    let rig = Rig::of(gateway, backends, net, turn);
    let _collector = collector(&rig, 0)?;
    let counts = std::thread::scope(|threads| -> Result<BTreeMap<u16, u64>> {
        let run = |seed: usize| {
            let rig = &rig;
            move || -> Result<BTreeMap<u16, u64>> {
                let mut counts = BTreeMap::new();
                let mut client = rig.client()?;
                for n in 0..300 {
                    let path = match (n + seed) % 100 {
                        0 => "/status/503",
                        1 => "/status/404",
                        _ => "/",
                    };
                    *counts.entry(client.get(path)?.status).or_default() += 1;
                }
                Ok(counts)
            }
        };
        let all: Vec<_> = (0..4).map(|seed| threads.spawn(run(seed * 7))).collect();
        let mut sums = BTreeMap::new();
        for one in all {
            let Ok(counts) = one.join() else { bail!("a client panicked") };
            for (code, n) in counts? {
                *sums.entry(code).or_default() += n;
            }
        }
        Ok(sums)
    })?;
    assert_eq!(counts.values().sum::<u64>(), 1200);
    assert_eq!(counts[&503], 12);
    eventually("every line is written", || Ok(rig.gateway.log()?.len() == 1200))?;
    let mut logged = BTreeMap::new();
    for line in rig.gateway.log()? {
        *logged.entry(line["status"].as_u64().unwrap_or(0) as u16).or_default() += 1;
    }
    assert_eq!(logged, counts, "the log");
    let metrics = rig.gateway.metrics()?;
    let counted: BTreeMap<u16, u64> = metrics
        .by("http_requests_total", "code", &[("route", "all")])
        .iter()
        .filter_map(|(code, n)| Some((code.parse().ok()?, *n as u64)))
        .collect();
    assert_eq!(counted, counts, "the metrics");
    let top = rig.gateway.cli(&["top", "--interval", "100ms", "-o", "json"])?.ok()?.json()?;
    let route = |row: &&Value| row["route"] == "all";
    let row = top["stats"]["routes"].as_array().and_then(|rows| rows.iter().find(route)).context("no row")?;
    let shown: BTreeMap<u16, u64> = serde_json::from_value(row["codes"].clone())?;
    assert_eq!(shown, counts, "the live view");
    assert_eq!(on_the_dashboard(&rig, "all")?, [1200, 12], "the dashboard");
    within(Duration::from_secs(20), "every trace is told", || {
        let mut told = BTreeMap::new();
        for span in spans(&rig).iter().filter(|span| span["kind"] == 2) {
            let code = attribute(span, "http.response.status_code").and_then(|code| code.parse().ok());
            *told.entry(code.unwrap_or(0u16)).or_default() += 1u64;
        }
        Ok((told == counts).then_some(()))
    })?;
    Ok(())
}
