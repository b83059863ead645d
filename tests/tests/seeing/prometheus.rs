//! What Prometheus takes (M1, M2).

use std::{process::Stdio, time::SystemTime};

use lab::{prelude::*, process::Process};

use super::{
    listens, rig,
    traces::{TRACE, collector, tracing},
};

/// Names of metrics in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter_map(|word| word.strip_prefix("gateway_"));
    let base = |name: &str| name.strip_suffix("_bucket").unwrap_or(name).to_owned();
    ours.filter(|word| !word.is_empty()).map(base).collect()
}

// M1, M2
#[test]
fn a_real_prometheus_takes_the_metrics_the_rules_and_finds_what_the_dashboard_asks_for() -> Result<()> {
    lab_test!();
    if lab::tools::missing("promtool") || lab::tools::missing("prometheus") {
        lab::skip("a_real_prometheus_takes_the_metrics", "prometheus is not installed");
        return Ok(());
    }
    let rig = rig()?;
    tracing(&rig, "share = \"0%\"")?;
    rig.ask("GET /", "a", &format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"))?;
    rig.client()?.get("/status/503")?;
    rig.client()?.get("/close")?;
    let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");
    let rules = format!("{packaging}/prometheus/gateway.rules.yml");
    let checked = rig.net.gateway.output("promtool", &["check", "rules", &rules])?;
    assert!(checked.contains("SUCCESS: 14 rules found"), "{checked}");
    let page = rig.gateway.ops("/metrics")?.text();
    std::fs::write(rig.gateway.file("metrics"), &page)?;
    let check = format!("promtool check metrics < {} 2>&1", rig.gateway.file("metrics").display());
    let complaints = rig.net.gateway.output("sh", &["-c", &check])?;
    assert_eq!(complaints.trim(), "", "promtool complains");

    std::fs::write(
        rig.gateway.file("prometheus.yml"),
        format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules}]\nscrape_configs:\n\
             - job_name: gateway\n  static_configs: [{{ targets: ['127.0.0.1:9180'] }}]\n"
        ),
    )?;
    let mut command = rig.net.gateway.command("prometheus")?;
    command.arg(format!("--config.file={}", rig.gateway.file("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", rig.gateway.file("tsdb").display()));
    command.arg("--web.listen-address=127.0.0.1:9090");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.arg("--enable-feature=exemplar-storage");
    let _prometheus = Process::start(command)?;
    listens(&rig.net.gateway, 9090)?;
    let query = |text: &str| -> Result<Value> {
        let url = "http://127.0.0.1:9090/api/v1/query";
        let query = format!("query={text}");
        let answer = rig.net.gateway.output("curl", &["-sS", "-G", url, "--data-urlencode", &query])?;
        Ok(serde_json::from_str::<Value>(&answer)?["data"]["result"].clone())
    };
    within(Duration::from_secs(20), "it is scraped", || {
        Ok((query("up{job=\"gateway\"}")?[0]["value"][1] == "1").then_some(()))
    })?;
    let requests = query("sum(gateway_http_requests_total{code=\"503\"})")?;
    assert_eq!(requests[0]["value"][1], "1", "{requests}");
    // It was told in OpenMetrics, so that it has the exemplars.
    let exemplars = within(Duration::from_secs(20), "it has an exemplar", || {
        let url = "http://127.0.0.1:9090/api/v1/query_exemplars";
        let span = ["start=0", "end=4102444800"];
        let query = "query=gateway_http_request_duration_seconds_bucket";
        let asked = [["--data-urlencode", query], ["-d", span[0]], ["-d", span[1]]].concat();
        let answer = rig.net.gateway.output("curl", &[&["-sS", "-G", url][..], &asked].concat())?;
        let found = serde_json::from_str::<Value>(&answer)?["data"][0]["exemplars"][0].clone();
        Ok((!found.is_null()).then_some(found))
    })?;
    assert_eq!(exemplars["labels"]["trace_id"], TRACE, "{exemplars}");
    // What rules and the Grafana dashboard name is there, or comes with a feature that this config does not use.
    let dashboard = std::fs::read_to_string(format!("{packaging}/grafana/gateway.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut wanted = names(&std::fs::read_to_string(&rules)?);
    targets.for_each(|target| wanted.extend(names(target["expr"].as_str().unwrap_or_default())));
    assert!(wanted.len() > 15, "{wanted:?}");
    let elsewhere = ["cert_expiry_timestamp_seconds", "kernel_taken_away_total"];
    for name in wanted.iter().filter(|name| !elsewhere.contains(&name.as_str())) {
        assert!(page.contains(&format!("# TYPE gateway_{name} ")), "there is no gateway_{name}");
    }
    Ok(())
}

/// OpenMetrics as those who wrote the standard read it, and so strictly: an error, or the exemplars, a line each.
const STRICT: &str = r#"
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
assert len(families) > 30, len(families)
for family in families:
    assert family.documentation, family.name
    for sample in family.samples:
        if sample.exemplar:
            e = sample.exemplar
            print(sample.name, sample.labels["route"], sample.labels["le"], e.labels["trace_id"], e.value, e.timestamp)
units = {family.name: family.unit for family in families}
assert units["gateway_http_request_duration_seconds"] == "seconds", units
assert units["gateway_http_response_bytes"] == "bytes", units
assert units["gateway_worker_busy_ratio"] == "ratio", units
assert units["gateway_connections_active"] == "", units
"#;

const OPEN_METRICS: &str = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

// M1
#[test]
fn openmetrics_is_taken_by_a_strict_reader_and_its_exemplars_are_the_traces_that_were_told() -> Result<()> {
    lab_test!();
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python");
    if !std::path::Path::new(packages).join("prometheus_client").is_dir() {
        lab::skip("openmetrics", "prometheus_client is not installed");
        return Ok(());
    }
    let rig = rig()?;
    let page = |accept: &str| -> Result<String> {
        rig.net.gateway.output("curl", &["-sSi", "-H", accept, "http://127.0.0.1:9180/metrics"])
    };
    rig.client()?.get("/")?;
    let (head, text) = page(OPEN_METRICS)?
        .split_once("\r\n\r\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .context("no head")?;
    assert!(
        head.to_lowercase()
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(
        text.ends_with("\n# EOF\n") && !text.contains("trace_id"),
        "without traces there are no exemplars"
    );
    let plain = page("accept: text/plain")?;
    assert!(plain.contains("text/plain; version=0.0.4") && !plain.contains("# EOF"), "{plain}");

    let _collector = collector(&rig, 0)?;
    tracing(&rig, "share = \"0%\"")?;
    let mut client = rig.client()?;
    for _ in 0..5 {
        client.get("/")?;
    }
    assert!(!page(OPEN_METRICS)?.contains("trace_id"), "nor where nobody is told of them");
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    rig.ask("GET /slow-header?ms=300", "a", &format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"))?;
    rig.ask("GET /", "a", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1\r\n")?;
    eventually("both have ended", || Ok(page(OPEN_METRICS)?.matches("trace_id").count() == 2))?;
    let open = page(OPEN_METRICS)?;
    std::fs::write(rig.gateway.file("open"), open.split_once("\r\n\r\n").context("no head")?.1)?;
    let strict = format!(
        "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={packages} python3 -c \"$0\" < {}",
        rig.gateway.file("open").display()
    );
    let found = rig.net.gateway.output("sh", &["-c", &strict, STRICT])?;
    let mut rows: Vec<Vec<&str>> = found.lines().map(|line| line.split(' ').collect()).collect();
    rows.sort_by_key(|row| row[3] != TRACE);
    assert_eq!(rows.len(), 2, "{found}");
    for (row, trace) in rows.iter().zip([TRACE, "80f198ee56343ba864fe8b2a57d3eff7"]) {
        assert_eq!(
            (row[0], row[1], row[3]),
            ("gateway_http_request_duration_seconds_bucket", "all", trace),
            "{found}"
        );
        let [bound, took, at] =
            [row[2], row[4], row[5]].map(|number| number.parse::<f64>().unwrap_or(f64::NAN));
        assert!(took <= bound && at >= before - 1.0 && at <= before + 30.0, "{found}");
    }
    assert!(rows[0][4].parse::<f64>()? >= 0.3 && rows[0][2] == "0.5", "{found}");
    Ok(())
}

/// Packets and bytes of a map of counters, over all its entries and CPUs.
fn counted(pin: &std::path::Path) -> Result<(u64, u64)> {
    let version = std::fs::read_dir(pin)?.flatten().next().context("nothing is pinned")?.path();
    let mut command = std::process::Command::new("bpftool");
    command.args(["-j", "map", "dump", "pinned"]).arg(version.join("COUNTERS"));
    let entries: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let mut sums = (0, 0);
    for cpu in
        entries.as_array().into_iter().flatten().flat_map(|e| e["values"].as_array().into_iter().flatten())
    {
        let digits = cpu["value"].as_array().context("no value")?.iter();
        let bytes: Vec<u8> = digits
            .filter_map(|text| u8::from_str_radix(text.as_str()?.trim_start_matches("0x"), 16).ok())
            .collect();
        ensure!(bytes.len() == 16, "{cpu}");
        let word = |at: usize| bytes[at..at + 8].try_into().map(u64::from_ne_bytes);
        sums = (sums.0 + word(0)?, sums.1 + word(8)?);
    }
    Ok(sums)
}

// M2
#[test]
fn packets_of_the_metrics_are_those_of_the_kernels_map_to_the_last_one() -> Result<()> {
    lab_test!();
    if lab::tools::missing("bpftool") {
        lab::skip("packets_of_the_metrics", "bpftool is not installed");
        return Ok(());
    }
    let rig = rig()?;
    let mut client = rig.client()?;
    for _ in 0..50 {
        client.get("/")?;
    }
    rig.gateway.cli(&["ban", "add", &rig.net.client(1).v4().to_string(), "--for", "1h"])?.ok()?;
    let _ = client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let (packets, bytes) = within(Duration::from_secs(20), "nothing comes while it is read", || {
        let before = counted(rig.gateway.pin())?;
        let metrics = rig.gateway.metrics()?;
        let told = |name: &str| metrics.sum(name, &[]) as u64;
        let told = (told("kernel_packets_total"), told("kernel_bytes_total"));
        let banned = metrics.packets("banned") > 0;
        Ok((banned && before == counted(rig.gateway.pin())?).then_some((before, told)))
    })
    .map(|(map, told)| ((map.0, told.0), (map.1, told.1)))?;
    assert!(packets.0 > 50, "{packets:?}");
    assert_eq!((packets.0, bytes.0), (packets.1, bytes.1), "the map, and what is told");
    Ok(())
}

// M3
#[test]
fn five_thousand_routes_are_scraped_while_requests_go_on_and_clients_make_no_series() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let target = &rig.backends[0].addr;
    let mut config = format!(
        "[listener.web]\nbind = \":80\"\n[upstream.app]\nto = [\"{target}\"]\n[route.all]\nto = \"app\"\n"
    );
    for n in 0..5000 {
        config += &format!("[route.r{n}]\npath = \"/r{n}/*\"\nto = \"app\"\n");
    }
    rig.gateway.write(&config)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let mut client = rig.client()?;
    for n in 0..5000 {
        client.send(format!("GET /r{n}/x HTTP/1.1\r\nhost: a\r\n\r\n"))?;
        client.response()?;
    }
    // Scraped again and again, no request waits for it.
    let over = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let (scrapes, slowest) = std::thread::scope(|threads| -> Result<(Vec<Duration>, Duration)> {
        let scraper = threads.spawn(|| -> Result<Vec<Duration>> {
            let mut took = Vec::new();
            while !over.load(relaxed) {
                let began = Instant::now();
                let page = rig.gateway.ops("/metrics")?.text();
                took.push(began.elapsed());
                ensure!(page.contains("route=\"r4999\""), "not all routes are there");
            }
            Ok(took)
        });
        let mut slowest = Duration::ZERO;
        let until = Instant::now() + Duration::from_secs(4);
        let asked = (|| -> Result<()> {
            while Instant::now() < until {
                let began = Instant::now();
                client.get("/r7/x")?;
                slowest = slowest.max(began.elapsed());
            }
            Ok(())
        })();
        over.store(true, relaxed);
        let Ok(took) = scraper.join() else { bail!("the scraper panicked") };
        asked?;
        Ok((took?, slowest))
    })?;
    // A debug build, beside other tests: by far more than a release build takes, and far less than an interval.
    assert!(scrapes.iter().all(|took| *took < Duration::from_secs(8)), "{scrapes:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // Of a route that nobody has asked for there is nothing.
    assert!(!rig.gateway.ops("/metrics")?.text().contains("route=\"all\""));
    client.get("/")?;
    // Who asks and does not read takes a place, and gives it back when it goes.
    let metrics_of = SocketAddr::from(([127, 0, 0, 1], 9180));
    let node = lab::net::Node::of_namespace(rig.net.gateway.clone());
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut reader = Client::connect(&node, metrics_of)?;
        reader.send("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")?;
        stuck.push(reader);
    }
    eventually("there is no place", || Ok(rig.gateway.ops("/metrics")?.status == 503))?;
    assert_eq!(rig.gateway.ops("/livez")?.status, 200);
    drop(stuck);
    eventually("there is one again", || Ok(rig.gateway.ops("/metrics")?.status == 200))?;
    // Whatever clients say of themselves is no label.
    let labels = |metrics: &lab::metrics::Metrics| -> BTreeSet<(String, String)> {
        let http = metrics.0.iter().filter(|sample| sample.name.starts_with("gateway_http"));
        http.flat_map(|sample| sample.labels.clone().into_iter()).collect()
    };
    let before = labels(&rig.gateway.metrics()?);
    for n in 0..50 {
        let made_up = format!("M{n} /p{n}?q={n} HTTP/1.1\r\nhost: h{n}.test\r\nuser-agent: a{n}\r\n\r\n");
        let mut client = rig.client()?;
        client.send(made_up)?;
        client.response()?;
    }
    let after = labels(&rig.gateway.metrics()?);
    let new: Vec<_> = after.difference(&before).filter(|(name, _)| name != "code").collect();
    assert_eq!(new, [&("method".to_owned(), "other".to_owned())]);
    Ok(())
}
