//! Starting, reloading, draining, stopping: O1 to O4, O16, M11.

use lab::{
    backend::start_all,
    gateway::{Options, simple_config},
    prelude::*,
    websocket::Socket,
    wrk::{Load, Wrk},
};

/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF: what the unit file gives.
const UNIT: &[u32] = &[10, 12, 38, 39];

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(turn: lab::lock::Turn) -> Result<Rig> {
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::simple(&net, &backends)?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn get(&self) -> Result<Response> {
        http::get(self.net.client(1), self.gateway.at4(), "/")
    }
}

// O1
#[test]
fn ten_reloads_under_load_lose_no_request() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?)?;
    let mut load = Wrk::start(rig.net.client(1), rig.gateway.at4(), &Load::new(32, Duration::from_secs(5)))?;
    for i in 0..10 {
        // Every other config has another upstream and another limit.
        let config = if i % 2 == 0 {
            simple_config(&rig.backends[..1]).replace("bind", "max = { body = \"1MiB\" }\nbind")
        } else {
            simple_config(&rig.backends)
        };
        rig.gateway.write(&config)?;
        rig.gateway.cli(&["reload"])?.ok()?;
    }
    assert!(load.running(), "the load ended before the reloads did");
    let outcome = load.finish()?;
    assert_eq!((outcome.errors, outcome.timeouts), (0, 0), "{outcome:?}");
    assert_eq!(rig.gateway.metrics()?.sum("config_generation", &[]), 11.0);
    Ok(())
}

// O1
#[test]
fn a_thousand_reloads_under_load_lose_no_request() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?)?;
    let load = Wrk::start(rig.net.client(1), rig.gateway.at4(), &Load::new(8, Duration::from_secs(150)))?;
    // Each reload finds another config than the one before, or what somebody is about to replace.
    let configs = [1, 2].map(|backends| rig.gateway.complete(&simple_config(&rig.backends[..backends])));
    let (target, fresh) = (rig.gateway.config(), rig.gateway.file("fresh.toml"));
    let over = std::sync::atomic::AtomicBool::new(false);
    let socket = rig.gateway.socket().display().to_string();
    let reloads = ["--no-progress-meter", "--fail-with-body", "-X", "POST", "--unix-socket", &socket];
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            for config in configs.iter().cycle() {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let _ = std::fs::write(&fresh, config).and_then(|()| std::fs::rename(&fresh, &target));
                std::thread::sleep(Duration::from_millis(7));
            }
        });
        let url = "http://gateway/v1/reload?n=[1-1000]";
        let told = rig.net.gateway.output("curl", &[&reloads[..], &[url]].concat());
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        told
    })?;
    assert_eq!(
        told.matches("\"generation\"").count(),
        1000,
        "{}",
        told.chars().take(300).collect::<String>()
    );
    let outcome = load.end()?;
    assert_eq!((outcome.errors, outcome.timeouts), (0, 0), "{outcome:?}");
    assert!(outcome.requests > 1000, "{outcome:?}");
    assert_eq!(rig.gateway.metrics()?.sum("config_generation", &[]), 1001.0);
    Ok(())
}

// O1
#[test]
fn a_hundred_reloads_keep_websockets_open_and_memory_flat() -> Result<()> {
    lab_test!();
    let rig = rig(alone()?)?;
    let config = |i: usize| {
        let ws = "[route.ws]\npath = \"/ws\"\nto = \"all\"\nupgrade = [\"websocket\"]\n";
        let upstream =
            format!("[upstream.all]\nto = {}\n", lab::backend::targets(&rig.backends[..1 + i % 2]));
        format!("[listener.web]\nbind = \":80\"\n[route.rest]\nto = \"all\"\n{ws}{upstream}")
    };
    rig.gateway.write(&config(0))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let open = || Socket::open(rig.net.client(1), rig.gateway.at4(), "/ws");
    let mut sockets = (0..50).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let mut load = Wrk::start(rig.net.client(1), rig.gateway.at4(), &Load::new(8, Duration::from_secs(20)))?;
    let mut settled = 0;
    for i in 0..100 {
        rig.gateway.write(&config(i))?;
        rig.gateway.cli(&["reload"])?.ok()?;
        if i == 30 {
            settled = lab::process::resident(rig.gateway.pid())?;
        }
    }
    let after = lab::process::resident(rig.gateway.pid())?;
    for (i, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(socket.echo("still there?").with_context(|| format!("socket {i}"))?, "still there?");
    }
    assert!(load.running(), "the load ended before the reloads did");
    let outcome = load.finish()?;
    assert_eq!((outcome.errors, outcome.timeouts), (0, 0), "{outcome:?}");
    assert!(after < settled + (2 << 20), "{settled} bytes after 30 reloads, {after} after 100");
    Ok(())
}

// O1
#[test]
fn sighup_reloads_too() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.gateway.write(&simple_config(&rig.backends[1..]))?;
    rig.gateway.signal(libc::SIGHUP)?;
    eventually("the second generation", || Ok(rig.gateway.metrics()?.sum("config_generation", &[]) == 2.0))?;
    for _ in 0..4 {
        assert_eq!(rig.get()?.backend(), "b2");
    }
    Ok(())
}

/// Three problems, on lines 2, 4 and 5.
const BAD: &str = "[listener.web]\nbind = \":http\"\n[route.all]\nto = \"nobody\"\nfrob = 1\n";

fn names_all_problems(text: &str) -> Result<()> {
    for place in ["gateway.toml:2:", "gateway.toml:4:", "gateway.toml:5:"] {
        ensure!(text.contains(place), "{place} is not named in:\n{text}");
    }
    Ok(())
}

// O2
#[test]
fn a_bad_config_at_start_is_refused_with_every_problem_and_its_place() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let mut gateway = Gateway::prepare(&net, BAD, Options::default())?;
    let (status, said) = gateway.run_to_end()?;
    assert_eq!(status.code(), Some(2), "{said}");
    names_all_problems(&said)
}

// O2
#[test]
fn a_bad_config_at_reload_is_refused_and_the_old_one_keeps_serving() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.gateway.write(BAD)?;
    let refused = rig.gateway.cli(&["reload"])?;
    assert_eq!(refused.code, 2, "{refused:?}");
    names_all_problems(&refused.stderr)?;
    assert_eq!(rig.get()?.status, 200);
    let metrics = rig.gateway.metrics()?;
    assert_eq!(metrics.sum("config_reloads_total", &[("result", "error")]), 1.0);
    assert_eq!(metrics.sum("config_generation", &[]), 1.0);
    assert!(rig.gateway.status()?["last_error"].is_string());
    assert_eq!(rig.gateway.cli(&["status"])?.code, 1);
    rig.gateway.write(&simple_config(&rig.backends))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    rig.gateway.cli(&["status"])?.ok()?;
    Ok(())
}

// O2
#[test]
fn a_config_whose_kernel_half_is_bad_is_refused_whole() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    for (bad, named) in [
        ("block = { files = [\"nowhere.txt\"] }", "nowhere.txt"),
        ("block = { cidrs = [\"10.0.0.0/33\"] }", "kernel.block.cidrs"),
        ("limit = { packets = { rate = \"0/s\" } }", "kernel.limit.packets"),
    ] {
        rig.gateway.write(&format!("{}[kernel]\n{bad}\n", simple_config(&rig.backends[..1])))?;
        let refused = rig.gateway.cli(&["reload"])?;
        assert!(refused.code == 2 && refused.stderr.contains(named), "{refused:?}");
        let backends: BTreeSet<String> =
            (0..4).map(|_| Ok(rig.get()?.backend().to_owned())).collect::<Result<_>>()?;
        assert_eq!(backends.len(), 2, "the routes of the refused config are in force");
    }
    Ok(())
}

// O2
#[test]
fn what_needs_a_restart_is_named_and_not_half_applied() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    rig.gateway.write(&format!("{}[metrics]\nbind = \"127.0.0.1:9181\"\n", simple_config(&rig.backends)))?;
    let reloaded = rig.gateway.cli(&["reload"])?;
    let said = format!("{}{}", reloaded.stdout, reloaded.stderr);
    assert!(said.contains("metrics.bind") && said.contains("restart"), "{reloaded:?}");
    assert_eq!(rig.gateway.ops("/readyz")?.status, 200);
    Ok(())
}

// O2
#[test]
fn a_listener_that_cannot_be_bound_refuses_the_config_and_leaves_the_others() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    let _taken = rig.net.gateway.run(|| std::net::TcpListener::bind("0.0.0.0:81"))??;
    rig.gateway
        .write(&format!("{}[listener.other]\nbind = \"0.0.0.0:81\"\n", simple_config(&rig.backends)))?;
    let refused = rig.gateway.cli(&["reload"])?;
    assert!(refused.code != 0 && refused.stderr.contains(":81"), "{refused:?}");
    assert_eq!(rig.get()?.status, 200);
    Ok(())
}

// O3
#[test]
fn check_needs_no_privilege_and_touches_nothing() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::prepare(&net, &simple_config(&backends), Options::default())?;
    std::fs::set_permissions(gateway.file(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let check = || -> Result<Cli> {
        let mut command = std::process::Command::new(lab::tools::gateway()?);
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        let output = command.arg("check").arg(gateway.config()).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Cli {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    };
    check()?.ok()?;
    gateway.write(BAD)?;
    let bad = check()?;
    assert_eq!(bad.code, 2, "{bad:?}");
    names_all_problems(&format!("{}{}", bad.stdout, bad.stderr))?;
    assert!(!gateway.socket().exists() && !gateway.pin().exists());
    Ok(())
}

// O3
#[test]
fn diff_shows_what_a_reload_would_change() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    assert_eq!(rig.gateway.cli(&["diff"])?.code, 0);
    rig.gateway.write(&simple_config(&rig.backends[..1]))?;
    let differs = rig.gateway.cli(&["diff"])?;
    assert_eq!(differs.code, 1, "{differs:?}");
    assert!(differs.stdout.contains(&rig.backends[1].addr.to_string()), "{}", differs.stdout);
    let dry = rig.gateway.cli(&["reload", "--dry-run"])?;
    assert!(dry.code <= 1 && rig.gateway.metrics()?.sum("config_generation", &[]) == 1.0, "{dry:?}");
    Ok(())
}

// M11
#[test]
fn it_is_alive_and_not_ready_before_the_first_config_is_in_force() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    // Who is asked for the upstream's name and says nothing: a start waits for that, for a while.
    let silent = net.gateway.run(|| std::net::UdpSocket::bind("127.0.0.1:5399"))??;
    let mut gateway = Gateway::prepare(
        &net,
        "[gateway]\nresolver = [\"127.0.0.1:5399\"]\n[listener.web]\nbind = \":80\"\n[route.all]\nto = \"app\"\n\
         [upstream.app]\nto = [\"app.test:80\"]\n",
        Options::default(),
    )?;
    let node = lab::net::Node::of_namespace(net.gateway.clone());
    let told = |path: &str| {
        let answer = http::get(&node, SocketAddr::from(([127, 0, 0, 1], 9180)), path).ok()?;
        Some((answer.status, answer.text()))
    };
    let (seen, started) = std::thread::scope(|threads| {
        let probe = threads.spawn(|| {
            let until = Instant::now() + Duration::from_secs(20);
            let mut seen = Vec::new();
            while seen.last().is_none_or(|(ready, _)| *ready != Some((200, "ready\n".to_owned())))
                && Instant::now() < until
            {
                let now = (told("/readyz"), told("/livez").map(|(status, _)| status));
                if now.0.is_some() && seen.last() != Some(&now) {
                    seen.push(now);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        let started = gateway.run();
        (probe.join().unwrap_or_default(), started)
    });
    started?;
    let states: Vec<_> = seen.iter().map(|(ready, live)| (ready.clone(), *live)).collect();
    let at = |status: u16, text: &str| (Some((status, text.to_owned())), Some(200));
    assert_eq!(states, [at(503, "starting\n"), at(200, "ready\n")]);
    drop(silent);
    Ok(())
}

// O4, M11
#[test]
fn term_finishes_what_is_under_way_refuses_new_connections_and_exits_0() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?)?;
    assert_eq!((rig.gateway.ops("/livez")?.status, rig.gateway.ops("/readyz")?.status), (200, 200));
    let mut busy = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    busy.send("GET /slow-header?ms=1500 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let mut idle = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    assert_eq!(idle.get("/")?.status, 200);
    let under_way = || Ok(rig.gateway.metrics()?.sum("http_active_requests", &[]) == 1.0);
    eventually("one request is under way", under_way)?;
    rig.gateway.signal(libc::SIGTERM)?;
    let ready = || Ok(rig.gateway.ops("/readyz")?.status == 503);
    eventually("not ready any more", ready)?;
    assert_eq!(rig.gateway.ops("/livez")?.status, 200);
    eventually("new connections are refused", || {
        Ok(rig.net.client(1).connect(rig.gateway.at4(), None).is_err())
    })?;
    idle.closed(Duration::from_secs(1))?;
    let answer = busy.response()?;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(rig.gateway.wait(Duration::from_secs(5))?.code(), Some(0));
    Ok(())
}

// O4
#[test]
fn draining_ends_at_its_limit_or_at_a_second_signal() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let config = format!("[gateway]\ndrain = \"1s\"\n{}", simple_config(&backends));
    let hang = |gateway: &Gateway| -> Result<Client> {
        let mut client = Client::connect(net.client(1), gateway.at4())?;
        client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")?;
        eventually("under way", || Ok(gateway.metrics()?.sum("http_active_requests", &[]) == 1.0))?;
        Ok(client)
    };
    let mut gateway = Gateway::start(&net, &config)?;
    let _hanging = hang(&gateway)?;
    let began = Instant::now();
    assert_eq!(gateway.stop()?.code(), Some(0));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
    gateway.write(&config.replace("1s", "30s"))?;
    gateway.run()?;
    let _hanging = hang(&gateway)?;
    gateway.signal(libc::SIGTERM)?;
    eventually("draining", || Ok(gateway.ops("/readyz")?.status == 503))?;
    gateway.signal(libc::SIGTERM)?;
    assert_eq!(gateway.wait(Duration::from_secs(3))?.code(), Some(0));
    Ok(())
}

// O4
#[test]
fn stop_now_does_not_wait() -> Result<()> {
    lab_test!();
    let mut rig = rig(shared()?)?;
    let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let gateway = &rig.gateway;
    eventually("under way", || Ok(gateway.metrics()?.sum("http_active_requests", &[]) == 1.0))?;
    rig.gateway.cli(&["stop", "--now"])?.ok()?;
    assert_eq!(rig.gateway.wait(Duration::from_secs(3))?.code(), Some(0));
    Ok(())
}

// O16
#[test]
fn with_four_capabilities_it_serves_its_first_request_within_two_seconds() -> Result<()> {
    lab_test!();
    let _turn = alone()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let options = Options { capabilities: Some(UNIT), ..Options::default() };
    let mut gateway = Gateway::prepare(&net, &simple_config(&backends), options)?;
    let began = Instant::now();
    gateway.run()?;
    assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 200);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(gateway.metrics()?.sum("kernel_mode", &[("mode", "native")]), 1.0);
    Ok(())
}

// O16
#[test]
fn it_runs_from_two_flags_and_no_config() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let mut gateway = Gateway::prepare(&net, "", Options::default())?;
    let socket = gateway.socket().display().to_string();
    let (first, second) = (backends[0].addr.to_string(), backends[1].addr.to_string());
    let flags = ["--socket", &socket, "run", "--listen", ":80", "--to", &first, "--to", &second];
    gateway.set_arguments(&flags);
    gateway.run()?;
    let mut client = Client::connect(net.client(1), gateway.at4())?;
    let answers: BTreeSet<String> =
        (0..4).map(|_| Ok(client.get("/")?.backend().to_owned())).collect::<Result<_>>()?;
    assert_eq!(answers.len(), 2);
    Ok(())
}

#[test]
fn a_config_runs_in_yaml_and_json_as_in_toml() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    for format in ["yaml", "json"] {
        let mut gateway = Gateway::prepare(&net, &simple_config(&backends), Options::default())?;
        let (toml, other) = (gateway.config(), gateway.file(&format!("gateway.{format}")));
        let cli = |arguments: &[&str]| -> Result<String> { Ok(gateway.cli(arguments)?.ok()?.stdout) };
        let converted = cli(&["config", "convert", &toml.display().to_string(), "--to", format])?;
        std::fs::write(&other, converted)?;
        let other = other.display().to_string();
        assert_eq!(cli(&["config", "show", &other])?, cli(&["config", "show", &toml.display().to_string()])?);
        gateway.set_arguments(&["run", &other]);
        gateway.run()?;
        assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 200);
        let bad = std::fs::read_to_string(&other)?.replacen("bind", "bnid", 1);
        std::fs::write(&other, bad)?;
        let refused = gateway.cli(&["reload"])?;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("did you mean `bind`?"), "{refused:?}");
        assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 200);
    }
    Ok(())
}

#[test]
fn the_config_is_replaced_over_the_admin_api_or_left_as_it_was() -> Result<()> {
    lab_test!();
    let rig = rig(shared()?)?;
    let socket = rig.gateway.socket().display().to_string();
    let put = |query: &str, text: &str, more: &[&str]| {
        let file = rig.gateway.file("body");
        std::fs::write(&file, text)?;
        let (url, body) = (format!("http://gateway/v1/config{query}"), format!("@{}", file.display()));
        let mut arguments = vec!["--unix-socket", &socket, "-X", "PUT", "--data-binary", &body, &url];
        arguments.extend(more);
        lab::curl::Curl::run(rig.net.client(1), &arguments)
    };
    let written = || std::fs::read_to_string(rig.gateway.config());
    let (before, one) = (written()?, rig.gateway.complete(&simple_config(&rig.backends[..1])));

    let dry = put("?dry_run=1", &one, &[])?;
    assert_eq!((dry.status, written()?), (200, before.clone()), "{dry:?}");
    assert!(dry.text().contains("upstream"), "{dry:?}");
    let late = put("", &one, &["-H", "If-Match: \"7\""])?;
    assert_eq!((late.status, written()?), (412, before.clone()), "{late:?}");
    let wrong = put("", &one.replace("bind", "bnid"), &[])?;
    assert_eq!((wrong.status, written()?), (422, before.clone()), "{wrong:?}");
    assert!(wrong.text().contains("did you mean `bind`?"), "{wrong:?}");
    // Refused only when it is used: the port is taken.
    let taken = rig.net.gateway.run(|| std::net::TcpListener::bind("0.0.0.0:81"))??;
    let bound = put("", &format!("{one}\n[listener.more]\nbind = \":81\"\n"), &[])?;
    assert_eq!((bound.status, written()?), (409, before.clone()), "{bound:?}");
    drop(taken);

    let done = put("", &one, &["-H", "If-Match: \"1\""])?;
    assert_eq!((done.status, written()?), (200, one.clone()), "{done:?}");
    assert_eq!(done.json()?["generation"], 2, "{done:?}");
    let answers: BTreeSet<String> =
        (0..6).map(|_| Ok(rig.get()?.backend().to_owned())).collect::<Result<_>>()?;
    assert_eq!(answers.len(), 1);

    let file = rig.gateway.file("other.toml");
    std::fs::write(&file, &before)?;
    let json =
        rig.gateway.cli(&["config", "convert", &file.display().to_string(), "--to", "json"])?.ok()?.stdout;
    let done = put("", &json, &["-H", "Content-Type: application/json"])?;
    assert_eq!(done.status, 200, "{done:?}");
    assert!(written()?.starts_with("[listener.web]"), "{}", written()?);
    Ok(())
}
