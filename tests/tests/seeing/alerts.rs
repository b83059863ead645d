//! Alerts (M7).

use std::process::Stdio;

use lab::{gateway::simple_config, prelude::*, process::Process};

use super::{listens, receiver, rig};

/// Writes down what is posted, a line each.
const WEBHOOK: &str = r#"
def take(handler, body):
    with open(into, "ab") as out: out.write(body + b"\n")
"#;

fn alerting(rig: &Rig, rest: &str) -> Result<()> {
    let log = rig.gateway.file("access.log").display().to_string();
    let state = rig.gateway.file("state").display().to_string();
    let config = simple_config(&rig.backends);
    let own =
        format!("[state]\ndirectory = \"{state}\"\n{config}\n[access_log]\nto = \"{log}\"\nevents = true\n");
    rig.gateway.write(&format!("{own}{rest}"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    Ok(())
}

const ERRORS: &str = "
[alert.errors]
when = \"errors\"
route = \"all\"
above = \"20%\"
over = \"2s\"
resolve_after = \"1s\"
notify = [\"ops\", \"slack\"]
[alert.alive]
when = \"dead-man\"
repeat = \"1s\"
notify = [\"ops\"]
[notify.ops]
webhook = { env = \"OPS_WEBHOOK\" }
[notify.slack]
webhook = \"http://127.0.0.1:5001/\"
format = \"slack\"
";

// M7
#[test]
fn an_alert_fires_is_told_with_retries_and_resolves_and_can_be_silenced() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let variables = vec![("OPS_WEBHOOK".to_owned(), "http://127.0.0.1:5001/ops".to_owned())];
    let options = lab::gateway::Options { variables, ..Default::default() };
    let gateway = Gateway::start_with(&net, &simple_config(&backends), options)?;
    let (gateway, backends, net) = (&gateway, &backends, &net);
    let _turn = turn;
    let _webhook = receiver(&net.gateway, 5001, WEBHOOK, &gateway.file("posted"), (1, 500))?;
    let state = gateway.file("state").display().to_string();
    gateway.write(&format!("[state]\ndirectory = \"{state}\"\n{}{ERRORS}", simple_config(backends)))?;
    gateway.cli(&["reload"])?.ok()?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    let mut ask = |path: &str| -> Result<()> {
        for _ in 0..20 {
            client.get(path)?;
        }
        Ok(())
    };
    let posted = || std::fs::read_to_string(gateway.file("posted")).unwrap_or_default();
    within(Duration::from_secs(20), "it is told", || {
        ask("/status/503")?;
        let posted = posted();
        let own = posted.contains("\"alert\":\"errors\"") && posted.contains("\"state\":\"firing\"");
        Ok((own && posted.contains(":rotating_light: *errors* firing")).then_some(()))
    })?;
    let listed = gateway.cli(&["alert", "list"])?;
    assert!(listed.code == 1 && listed.stdout.contains("of requests of route all fail"), "{listed:?}");
    assert!(gateway.cli(&["status"])?.stdout.contains("alert errors: "));
    assert_eq!(gateway.metrics()?.sum("alerts_firing", &[("alert", "errors")]), 1.0);
    within(Duration::from_secs(20), "it resolves", || {
        ask("/")?;
        Ok(posted().contains(":white_check_mark: *errors* resolved").then_some(()))
    })?;
    assert!(posted().contains("\"alert\":\"alive\""), "the heartbeat");
    assert!(gateway.metrics()?.sum("alert_messages_total", &[("result", "failed")]) >= 1.0);
    gateway.cli(&["alert", "silence", "errors", "--for", "1h", "--why", "known"])?.ok()?;
    let told = posted().matches("*errors* firing").count();
    within(Duration::from_secs(20), "it fires again", || {
        ask("/status/503")?;
        let rows = gateway.cli(&["alert", "list", "-o", "json"])?.json()?;
        let of =
            |name: &str| rows.as_array().and_then(|all| all.iter().find(|row| row["alert"] == name).cloned());
        let row = of("errors").context("no such alert")?;
        Ok((row["state"] == "firing" && row["silence"]["why"] == "known").then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(posted().matches("*errors* firing").count(), told, "nobody is told");
    assert_eq!(gateway.cli(&["alert", "silence", "nobody"])?.code, 5);
    Ok(())
}

// M7
#[test]
fn an_alert_is_told_within_two_looks_or_after_its_time_and_once_however_long_it_lasts() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let _webhook = receiver(&rig.net.gateway, 5001, WEBHOOK, &rig.gateway.file("posted"), (0, 500))?;
    let down = "when = \"upstream-down\"\nabove = \"10%\"\nresolve_after = \"0s\"\nnotify = \"ops\"\n";
    alerting(
        &rig,
        &format!(
            "[alert.soon]\n{down}[alert.later]\n{down}for = \"3s\"\n[notify.ops]\nwebhook = \"http://127.0.0.1:5001/\"\n"
        ),
    )?;
    let told = |alert: &str, state: &str| -> usize {
        let posted = std::fs::read_to_string(rig.gateway.file("posted")).unwrap_or_default();
        let messages = posted.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let all = messages.flat_map(|message| message["alerts"].as_array().cloned().unwrap_or_default());
        all.filter(|one| one["alert"] == alert && one["state"] == state).count()
    };
    let target = format!("all/{}", rig.backends[0].addr);
    let began = Instant::now();
    rig.gateway.cli(&["target", "down", &target])?.ok()?;
    eventually("it is told", || Ok(told("soon", "firing") == 1))?;
    // Every alert is looked at once a second; the third is for what else this machine does.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    eventually("the other one is told", || Ok(told("later", "firing") == 1))?;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((told("soon", "firing"), told("later", "firing")), (1, 1), "each once");
    rig.gateway.cli(&["target", "up", &target])?.ok()?;
    eventually("both are over", || Ok((told("soon", "resolved"), told("later", "resolved")) == (1, 1)))?;
    // What is over before its time is nothing to tell of.
    rig.gateway.cli(&["target", "down", &target])?.ok()?;
    eventually("it is told again", || Ok(told("soon", "firing") == 2))?;
    rig.gateway.cli(&["target", "up", &target])?.ok()?;
    eventually("it is over", || Ok(told("soon", "resolved") == 2))?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((told("later", "firing"), told("later", "resolved")), (1, 1));
    Ok(())
}

// M7
#[test]
fn a_real_alertmanager_takes_alerts_and_their_end() -> Result<()> {
    lab_test!();
    if lab::tools::missing("prometheus-alertmanager") {
        lab::skip(
            "a_real_alertmanager_takes_alerts_and_their_end",
            "prometheus-alertmanager is not installed",
        );
        return Ok(());
    }
    let rig = rig()?;
    std::fs::write(rig.gateway.file("am.yml"), "route: { receiver: none }\nreceivers: [{ name: none }]\n")?;
    let mut command = rig.net.gateway.command("prometheus-alertmanager")?;
    command.arg(format!("--config.file={}", rig.gateway.file("am.yml").display()));
    command.arg(format!("--storage.path={}", rig.gateway.file("am").display()));
    command.args(["--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _manager = Process::start(command)?;
    listens(&rig.net.gateway, 9093)?;
    alerting(
        &rig,
        "[alert.down]\nwhen = \"upstream-down\"\nabove = \"10%\"\nresolve_after = \"0s\"\nnotify = \"am\"\nseverity = \"page\"\n\
         [notify.am]\nwebhook = \"http://127.0.0.1:9093\"\nformat = \"alertmanager\"\n",
    )?;
    let active = || -> Result<Vec<Value>> {
        let text =
            rig.net.gateway.output("curl", &["-sS", "http://127.0.0.1:9093/api/v2/alerts?active=true"])?;
        Ok(serde_json::from_str::<Value>(&text)?.as_array().cloned().unwrap_or_default())
    };
    assert_eq!(active()?.len(), 0);
    let target = format!("all/{}", rig.backends[0].addr);
    rig.gateway.cli(&["target", "down", &target])?.ok()?;
    let alert = within(Duration::from_secs(15), "Alertmanager has it", || Ok(active()?.into_iter().next()))?;
    assert_eq!(
        (&alert["labels"]["alertname"], &alert["labels"]["severity"]),
        (&json!("down"), &json!("page"))
    );
    assert!(alert["annotations"]["summary"].as_str().is_some_and(|text| text.contains("50.0%")), "{alert}");
    rig.gateway.log_line("it is in the log", |line| line["event"] == "alert" && line["state"] == "firing")?;
    rig.gateway.cli(&["target", "up", &target])?.ok()?;
    within(Duration::from_secs(15), "it is over", || Ok(active()?.is_empty().then_some(())))?;
    Ok(())
}
