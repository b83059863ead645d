//! What is wrong with a running gateway, in words, and what to do: `doctor` and `status`.

use lab::{certs::Authority, gateway::simple_config, http, prelude::*};

use super::{relog, rig, traces::tracing};

/// What `doctor` says of the running gateway: of what, how bad, what, the cure.
fn troubles(gateway: &Gateway) -> Result<Vec<[String; 4]>> {
    let told = gateway.cli(&["doctor", "-o", "json"])?;
    let checks = told.json()?;
    let host = ["kernel", "BTF", "BPF JIT", "capabilities", "bpffs", "descriptors", "XDP", "socket lookup"];
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let all = checks.as_array().context("no checks")?.iter();
    let of_host = |name: &str| host.contains(&name) || name.starts_with("interface ");
    let rest = all.filter(|check| !of_host(&text(check, "name")));
    Ok(rest.map(|check| ["name", "state", "detail", "cure"].map(|key| text(check, key))).collect())
}

fn trouble(gateway: &Gateway, of: &str) -> Result<Option<[String; 4]>> {
    Ok(troubles(gateway)?.into_iter().find(|trouble| trouble[0] == of))
}

#[test]
fn of_a_gateway_that_is_well_it_says_so_and_of_none_that_there_is_none() -> Result<()> {
    lab_test!();
    let mut rig = rig()?;
    rig.client()?.get("/")?;
    let [_, state, detail, _] = trouble(&rig.gateway, "gateway")?.context("nothing is said")?;
    assert!(state == "ok" && detail.contains("nothing is wrong with it"), "{detail}");
    let status = rig.gateway.cli(&["status"])?.ok()?;
    assert!(!status.stdout.contains('!'), "{status:?}");
    assert_eq!(rig.gateway.status()?["troubles"], json!([]));
    rig.gateway.stop()?;
    let [_, state, detail, _] = trouble(&rig.gateway, "gateway")?.context("nothing is said")?;
    assert!(state == "ok" && detail.starts_with("none answers on "), "{detail}");
    Ok(())
}

#[test]
fn targets_that_are_down_or_taken_out_are_named_with_what_brings_them_back() -> Result<()> {
    lab_test!();
    let mut rig = rig()?;
    let [first, second] = [0, 1].map(|n| rig.backends[n].addr);
    rig.gateway.cli(&["target", "down", &format!("all/{first}")])?.ok()?;
    let [_, state, what, cure] = trouble(&rig.gateway, "upstream all")?.context("no such trouble")?;
    assert_eq!(state, "warn");
    assert!(what.starts_with(&format!("1 of 2 targets take no part: {first} (down by ")), "{what}");
    assert!(cure.contains(&format!("gateway target up all/{first}")), "{cure}");
    rig.gateway.cli(&["target", "up", &format!("all/{first}")])?.ok()?;
    let health =
        "[upstream.all]\nto = [TARGETS]\nhealth = { path = \"/\", every = \"100ms\", fall = 1, rise = 1 }";
    let targets = format!("\"{first}\", \"{second}\"");
    rig.gateway.write(&format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"all\"\n{}\n",
        health.replace("TARGETS", &targets)
    ))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    rig.backends.clear();
    let found = within(Duration::from_secs(15), "both are down", || {
        let found = trouble(&rig.gateway, "upstream all")?;
        Ok(found.filter(|found| found[2].starts_with("none of its 2 targets takes part: ")))
    })?;
    assert!(found[1] == "fail" && found[2].contains(&first.to_string()), "{found:?}");
    assert!(found[3].contains("gateway upstream show all"), "{found:?}");
    let status = rig.gateway.cli(&["status"])?;
    assert!(
        status.code == 1 && status.stdout.contains("! upstream all: none of its 2 targets takes part"),
        "{status:?}"
    );
    assert!(status.stdout.lines().all(|line| line.chars().count() <= 80), "{status:?}");
    let told = rig.gateway.cli(&["doctor"])?;
    assert!(told.code == 1 || told.code == 3, "{told:?}");
    assert!(told.stdout.lines().all(|line| line.chars().count() <= 80), "{told:?}");
    Ok(())
}

#[test]
fn a_config_that_was_refused_is_told_until_one_is_taken() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    rig.gateway.write("[listener.web]\nbind = \":80\"\n[route.all]\nto = \"nowhere\"\n")?;
    assert_ne!(rig.gateway.cli(&["reload"])?.code, 0);
    let [_, state, what, cure] = trouble(&rig.gateway, "config")?.context("no such trouble")?;
    assert!(
        state == "fail" && what.contains("an older config is running") && what.contains("nowhere"),
        "{what}"
    );
    assert!(cure.contains("gateway.toml") && cure.contains("gateway reload"), "{cure}");
    rig.gateway.write(&simple_config(&rig.backends))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(trouble(&rig.gateway, "config")?, None);
    Ok(())
}

#[test]
fn lines_and_spans_that_are_lost_are_told_while_it_is_news() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    // The first sample is taken.
    std::thread::sleep(Duration::from_millis(1500));
    relog(&rig, "to = \"/dev/full\"")?;
    rig.client()?.get("/")?;
    let [_, state, what, _] =
        within(Duration::from_secs(10), "the line is told of", || trouble(&rig.gateway, "access log"))?;
    assert!(state == "warn" && what == "1 lines could not be written within a minute", "{what}");
    tracing(&rig, "share = \"100%\"")?;
    rig.client()?.get("/")?;
    let [_, state, what, cure] =
        within(Duration::from_secs(20), "the spans are told of", || trouble(&rig.gateway, "tracing"))?;
    assert!(state == "warn" && what.ends_with("spans did not reach the collector within a minute"), "{what}");
    assert!(cure.contains("[tracing]"), "{cure}");
    Ok(())
}

#[test]
fn certificates_and_a_kernel_half_that_fell_back_are_told() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let config = format!(
        "{}[listener.tls]\nbind = \":443\"\ntls = {{ cert = \"own\" }}\n[cert.own]\nchain = \"own.pem\"\nkey = {{ file = \"own.key\" }}\n\
         [kernel]\ninterfaces = [\"nosuch0\"]\nmode = \"auto\"\n",
        simple_config(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    Authority::new()?.issue_until(&["a.test"], 2020)?.write(&gateway.file(""), "own")?;
    gateway.run()?;
    let [_, state, what, cure] = trouble(&gateway, "cert own")?.context("no such trouble")?;
    assert!(state == "fail" && what.starts_with("it expired on 2020-"), "{what}");
    assert!(cure.contains("own.pem"), "{cure}");
    let all = troubles(&gateway)?;
    let kernel = all
        .iter()
        .find(|one| one[0] == "kernel half" && one[2].contains("nosuch0"))
        .context("no such trouble")?;
    assert!(kernel[1] == "fail" && kernel[2].contains("there is no such interface"), "{kernel:?}");
    assert!(kernel[3].contains("gateway doctor"), "{kernel:?}");
    drop((gateway, backends, net, turn));
    Ok(())
}

/// Begins to connect, and does not wait for what comes of it.
fn knock(node: &Node, to: SocketAddr) -> Result<socket2::Socket> {
    use socket2::{Domain, Socket, Type};
    node.namespace
        .run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
            match socket.connect(&to.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
                _ => Ok(socket),
            }
        })?
        .context("cannot knock")
}

#[test]
fn connections_that_found_no_room_are_told_by_their_listener() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    net.gateway.set_sysctl("net/core/somaxconn", "4")?;
    let backends = lab::backend::start_all(&net)?;
    let config = format!("[gateway]\nworkers = 1\n{}", simple_config(&backends));
    let gateway = Gateway::start(&net, &config)?;
    http::get(net.client(1), gateway.at4(), "/")?;
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(trouble(&gateway, "listener web")?, None);
    gateway.signal(libc::SIGSTOP)?;
    let knocks = (0..20).map(|_| knock(net.client(1), gateway.at4())).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_millis(300));
    gateway.signal(libc::SIGCONT)?;
    let found = within(Duration::from_secs(10), "it is told", || trouble(&gateway, "listener web"))?;
    assert!(found[1] == "fail" && found[2].contains("its accept queue was full"), "{found:?}");
    assert!(found[3].contains("somaxconn"), "{found:?}");
    assert!(gateway.metrics()?.sum("connections_overflowed_total", &[("listener", "web")]) >= 1.0);
    drop((knocks, gateway, backends, net, turn));
    Ok(())
}

/// Of the BPF links that `wanted` finds, the numbers.
fn links(net: &Net, wanted: impl Fn(&Value) -> bool) -> Result<Vec<String>> {
    let all: Value = serde_json::from_str(&net.gateway.output("bpftool", &["-j", "link", "show"])?)?;
    let all = all.as_array().context("no list")?.iter().filter(|link| wanted(link));
    all.map(|link| Ok(link["id"].as_u64().context("no id")?.to_string())).collect()
}

#[test]
fn what_is_taken_from_the_kernel_half_by_force_is_put_back_and_told_by_status_metric_and_alert() -> Result<()>
{
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let alert = "[alert.off]\nwhen = \"kernel-off\"\n[kernel]\nmode = \"auto\"\n";
    let gateway = Gateway::start(&net, &format!("{}{alert}", simple_config(&backends)))?;
    let program = || -> Result<Option<u64>> { Ok(net.link("c1")?["xdp"]["prog"]["id"].as_u64()) };
    let ours = program()?.context("no program")?;
    assert_eq!(trouble(&gateway, "kernel half")?, None);
    let detach = |links: Vec<String>| -> Result<()> {
        ensure!(!links.is_empty(), "no such link");
        links.iter().try_for_each(|id| net.gateway.output("bpftool", &["link", "detach", "id", id]).map(drop))
    };
    let taken = |what: &str| -> Result<f64> {
        Ok(gateway.metrics()?.sum("kernel_taken_away_total", &[("what", what)]))
    };
    // What a link holds, `ip` cannot take.
    assert!(net.gateway.output("ip", &["link", "set", "dev", "c1", "xdp", "off"]).is_err());
    detach(links(&net, |link| link["prog_id"] == ours && link["type"] == "xdp")?)?;
    assert_eq!(program()?, None, "it is off");
    eventually("it is on again", || Ok(program()? == Some(ours)))?;
    let found = within(Duration::from_secs(5), "it is told", || trouble(&gateway, "kernel half"))?;
    assert!(
        found[1] == "fail" && found[2].starts_with("the XDP program of c1 was taken away from outside"),
        "{found:?}"
    );
    assert!(found[3].contains("kernel.interfaces"), "{found:?}");
    assert!(gateway.cli(&["status"])?.stdout.contains("! kernel half: the XDP program of c1 was taken away"));
    assert_eq!(taken("the XDP program of c1")?, 1.0);
    eventually(
        "the alert fires",
        || Ok(gateway.metrics()?.sum("alerts_firing", &[("alert", "off")]) == 1.0),
    )?;
    gateway.cli(&["ban", "add", &net.client(1).v4().to_string()])?.ok()?;
    assert!(!net.client(1).gets_through(gateway.at4(), net.client(1).v4().into())?, "it filters");
    gateway.cli(&["ban", "del", &net.client(1).v4().to_string()])?.ok()?;
    // Steering, which is a link of the network namespace.
    use std::os::unix::fs::MetadataExt as _;
    let namespace = std::fs::metadata(net.gateway.path())?.ino();
    let steering = |link: &Value| link["type"] == "netns" && link["netns_ino"] == namespace;
    let before = links(&net, steering)?;
    detach(before.clone())?;
    eventually("it is noticed", || Ok(taken("steering")? == 1.0))?;
    eventually("it steers again", || {
        let now = links(&net, steering)?;
        Ok(!now.is_empty() && now != before)
    })?;
    assert_eq!(gateway.status()?["kernel"]["steering"]["on"], true);
    // All that is pinned.
    let pinned = || -> Result<BTreeSet<String>> {
        let folder = std::fs::read_dir(gateway.pin())?.flatten().find(|entry| entry.path().is_dir());
        let files = std::fs::read_dir(folder.context("no folder")?.path())?;
        Ok(files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect())
    };
    let before = pinned()?;
    std::fs::remove_dir_all(gateway.pin())?;
    eventually("all is pinned again", || Ok(pinned().is_ok_and(|now| now == before)))?;
    assert_eq!(taken("what is pinned")?, 1.0);
    assert_eq!(program()?, Some(ours), "it was never off");
    http::get(net.client(1), gateway.at4(), "/")?;
    // A daemon that takes its place finds it.
    let mut gateway = gateway;
    gateway.kill();
    assert_eq!(program()?, Some(ours), "it outlives the daemon");
    gateway.run()?;
    assert_eq!(gateway.status()?["kernel"]["adopted"], true);
    drop((gateway, backends, net, turn));
    Ok(())
}
