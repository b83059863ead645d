//! The gateway itself: what it may, what it keeps to itself, and who did what to it.

use std::{
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::ExitStatusExt,
    },
    process::Command,
};

use lab::{backend::start_all, prelude::*, tools};

/// Effective and permitted capabilities of each thread, by its name.
fn capabilities(pid: u32) -> Result<BTreeMap<String, Vec<(u64, u64)>>> {
    let mut found = BTreeMap::<String, Vec<(u64, u64)>>::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let bits = |name| u64::from_str_radix(field(name).unwrap_or_default(), 16);
        let name = field("Name:").context("no name")?.to_owned();
        found.entry(name).or_default().push((bits("CapEff:")?, bits("CapPrm:")?));
    }
    Ok(found)
}

const DAC_OVERRIDE: u32 = 1;
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

fn bits(capabilities: &[u32]) -> u64 {
    capabilities.iter().map(|capability| 1 << capability).sum()
}

/// Every thread of the gateway has no more than it needs from its start on.
fn has_no_more_than(gateway: &Gateway, kept: u64) -> Result<()> {
    let threads = capabilities(gateway.pid())?;
    let workers = threads.iter().filter(|(name, _)| name.starts_with("worker-"));
    let workers: Vec<_> = workers.flat_map(|(_, held)| held).collect();
    ensure!(workers.len() == 2 && workers.iter().all(|held| **held == (0, 0)), "{threads:x?}");
    let all = threads.values().flatten();
    ensure!(all.clone().all(|(effective, permitted)| (effective | permitted) & !kept == 0), "{threads:x?}");
    ensure!(all.clone().any(|(effective, _)| *effective == kept), "{threads:x?}");
    Ok(())
}

#[test]
fn what_is_not_needed_any_more_is_given_up_and_what_reloads_and_upgrades_need_is_not() -> Result<()> {
    lab_test!();
    const FOUR: &[u32] = &[NET_BIND_SERVICE, NET_ADMIN, PERFMON, BPF];
    let _turn = shared()?;
    for only in [None, Some(FOUR)] {
        let net = Net::of(1, 1, 1)?;
        let backends = start_all(&net)?;
        let all = net.front_interfaces();
        let (first, _) = all.split_once(',').context("two interfaces")?;
        let config = |interfaces: &str, port: u16| {
            format!(
                "[gateway]\nworkers = 2\n[kernel]\ninterfaces = {interfaces}\n[listener.web]\nbind = \":80\"\n\
                 [listener.more]\nbind = \":{port}\"\n[route.all]\nto = {}\n",
                lab::backend::targets(&backends)
            )
        };
        let options = lab::gateway::Options { capabilities: only, ..Default::default() };
        let mut gateway = Gateway::prepare(&net, &config(&format!("{first}]"), 81), options)?;
        gateway.run()?;
        let kept = match only {
            Some(_) => bits(FOUR),
            None => bits(FOUR) | bits(&[DAC_OVERRIDE]),
        };
        has_no_more_than(&gateway, kept)?;
        // Another interface, another port below 1024.
        gateway.write(&config(&all, 82))?;
        gateway.cli(&["reload"])?.ok()?;
        let attached = gateway.status()?["kernel"].to_string();
        ensure!(attached.matches("native").count() >= 2, "{attached}");
        ensure!(http::get(net.client(1), SocketAddr::from((VIP4, 82)), "/")?.status == 200);
        gateway.upgrade(&[])?.ok()?;
        has_no_more_than(&gateway, kept)?;
        gateway.cli(&["reload"])?.ok()?;
        gateway.cli(&["kernel", "verify"])?.ok()?;
        ensure!(http::get(net.client(1), SocketAddr::from((VIP4, 82)), "/")?.status == 200);
    }
    Ok(())
}

#[test]
fn memory_is_not_for_others_to_read() -> Result<()> {
    lab_test!();
    let mut rig = Rig::start(1, |backends| {
        format!("[listener.web]\nbind = \":80\"\n[route.all]\nto = {}\n", lab::backend::targets(backends))
    })?;
    let pid = rig.gateway.pid();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
    let core: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(core, ["0", "0"]);
    // What is not dumpable belongs to root, whoever runs it (proc(5)).
    assert_eq!(std::fs::metadata(format!("/proc/{pid}/mem"))?.uid(), 0);
    rig.gateway.signal(libc::SIGABRT)?;
    let status = rig.gateway.wait(Duration::from_secs(10))?;
    assert_eq!((status.signal(), status.core_dumped()), (Some(libc::SIGABRT), false));
    Ok(())
}

#[test]
fn who_changed_what_or_tried_to_is_written_down() -> Result<()> {
    lab_test!();
    let token = "the-token-of-this-test";
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let rest = lab::gateway::simple_config(&backends);
    let config = |audit: &str| {
        format!(
            "[admin]\nsocket = \"admin.sock\"\naudit = \"{audit}\"\n\
             [admin.http]\nbind = \"127.0.0.1:9900\"\ntoken = {{ file = \"token\" }}\n{rest}"
        )
    };
    let mut gateway = Gateway::prepare(&net, &config("audit.log"), Default::default())?;
    std::fs::write(gateway.file("token"), token)?;
    std::fs::set_permissions(gateway.file("token"), std::fs::Permissions::from_mode(0o600))?;
    gateway.run()?;
    let rig = Rig::of(gateway, backends, net, turn);
    let lines = |name: &str| -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(rig.gateway.file(name))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    // Looking is nobody's business.
    rig.gateway.cli(&["status"])?.ok()?;
    assert!(!rig.gateway.file("audit.log").exists());
    rig.gateway.cli(&["ban", "add", "192.0.2.7", "--for", "1h"])?.ok()?;
    rig.gateway.cli(&["ban", "add", "0.0.0.0/0"])?;
    let all = lines("audit.log")?;
    let [done, refused] = &all[..] else { bail!("{all:?}") };
    assert_eq!(
        (&done["who"], &done["uid"], &done["method"], &done["path"], &done["result"]),
        (&json!("root"), &json!(0), &json!("POST"), &json!("/v1/bans"), &json!("done"))
    );
    assert!(done["pid"].as_u64().is_some_and(|pid| pid > 1) && done["ts"].is_string(), "{done}");
    assert!(refused["result"] == "refused" && refused["status"].as_u64() >= Some(400), "{refused}");
    assert_eq!(std::fs::metadata(rig.gateway.file("audit.log"))?.permissions().mode() & 0o777, 0o600);
    rig.gateway.says("method=POST path=\"/v1/bans\" status=409")?;
    // By TCP too, with and without the token.
    let here = Node::of_namespace(rig.net.gateway.clone());
    for (bearer, status) in [("wrong-token-of-this-test", 401), (token, 200)] {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 9900));
        let answer = http::exchange(
            &here,
            at,
            format!(
                "DELETE /v1/bans/192.0.2.7 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                 authorization: Bearer {bearer}\r\n\r\n"
            ),
        )?;
        assert_eq!(answer.status, status);
        let last = lines("audit.log")?.pop().context("no line")?;
        assert_eq!(
            (&last["from"], &last["status"], &last["path"]),
            (&json!("127.0.0.1"), &json!(status), &json!("/v1/bans/192.0.2.7"))
        );
        assert!(!last.to_string().contains(bearer));
    }
    // Moved away, it is made anew; a reload names another.
    std::fs::rename(rig.gateway.file("audit.log"), rig.gateway.file("old.log"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(lines("audit.log")?.len(), 1);
    rig.gateway.write(&config("other.log"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(lines("other.log")?[0]["path"], "/v1/reload");
    Ok(())
}

#[test]
fn the_unit_leaves_little_open() -> Result<()> {
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/gateway.service");
    let text = std::fs::read_to_string(&unit)?;
    for needed in
        ["NoNewPrivileges=yes", "LimitCORE=0", "ProtectSystem=strict", "SystemCallFilter=@system-service"]
    {
        assert!(text.lines().any(|line| line == needed), "{needed}");
    }
    let four = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_NET_BIND_SERVICE";
    assert!(text.contains(&format!("CapabilityBoundingSet={four}\n")));
    if tools::missing("systemd-analyze") {
        lab::skip("the_unit_leaves_little_open", "systemd-analyze is not installed");
        return Ok(());
    }
    // In tenths: "OK" begins below 5, and what is left is what a load balancer on the host's network needs.
    let analyzed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=25", "--no-pager"])
        .arg(&unit)
        .output()?;
    assert!(analyzed.status.success(), "{}", String::from_utf8_lossy(&analyzed.stdout));
    Ok(())
}
