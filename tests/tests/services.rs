//! L4 services as operators see them: problems of a config, states of targets, overrides, reloads. What becomes of
//! packets is told elsewhere.

use std::net::UdpSocket;

use lab::{
    backend::{start_all, targets},
    gateway::{Options, simple_config},
    prelude::*,
};

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

/// A TCP service `pg` on two backends, checked every 100 ms.
fn service(backends: &[Backend]) -> String {
    format!(
        "[service.pg]\nbind = \"{VIP4}:5432\"\nto = {}\n\
         health = {{ tcp = true, every = \"100ms\", timeout = \"200ms\", rise = 2, fall = 2 }}\n",
        targets(backends)
    )
}

fn rig(config: impl Fn(&Net, &[Backend]) -> String) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &config(&net, &backends))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn addr(&self, backend: usize) -> String {
        self.backends[backend].addr.to_string()
    }

    fn show(&self, service: &str) -> Result<Value> {
        self.gateway.cli(&["service", "show", service, "-o", "json"])?.ok()?.json()
    }

    fn state(&self, service: &str, target: usize) -> Result<String> {
        Ok(self.show(service)?["targets"][target]["state"].as_str().context("no state")?.to_owned())
    }

    fn becomes(&self, service: &str, target: usize, state: &str) -> Result<()> {
        eventually(&format!("{service}: target {target} is {state}"), || {
            Ok(self.state(service, target)? == state)
        })
    }

    fn up(&self, target: usize) -> Result<f64> {
        let target = self.addr(target);
        Ok(self.gateway.metrics()?.sum("kernel_service_target_up", &[("service", "pg"), ("target", &target)]))
    }

    fn target(&self, arguments: &[&str]) -> Result<Cli> {
        self.gateway.cli(&[&["target"], arguments].concat())
    }

    /// Which backends answer.
    fn answering(&self, n: usize) -> Result<BTreeSet<String>> {
        let mut client = Client::connect(self.net.client(1), self.gateway.at4())?;
        (0..n).map(|_| Ok(client.get("/")?.backend().to_owned())).collect()
    }
}

fn fits_80_columns(text: &str) {
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn check_names_every_problem_of_services_with_its_place() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(0)?;
    let bad = "[service.a]\nbind = \"192.0.2.1\"\nto = \"10.0.0.1:1\"\n\
               [service.b]\nbind = [\"192.0.2.1:53\", \"[2001:db8::1]:53\"]\nto = \"10.0.0.1:53\"\n\
               [service.c]\nbind = \":53\"\nto = \"10.0.0.1:53\"\nforward = \"dsr\"\n\
               [service.d]\nbind = \"192.0.2.4:53\"\nprotocol = \"udp\"\nto = [\"[2001:db8::9]:53\", \"192.0.2.4:53\"]\n";
    let gateway = Gateway::prepare(&net, bad, Options::default())?;
    let checked = gateway.cli(&["check", &gateway.config().display().to_string()])?;
    assert_eq!(checked.code, 2, "{checked:?}");
    for place in ["2:8: ", "5:8: ", "8:8: ", "14:7: ", "14:27: "] {
        assert!(checked.stderr.contains(&format!("gateway.toml:{place}")), "{place} in {}", checked.stderr);
    }
    Ok(())
}

#[test]
fn check_warns_of_targets_without_a_route() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let there = net.backend(1).at(53);
    let config = format!(
        "[service.dns]\nbind = \"{VIP4}:53\"\nprotocol = \"udp\"\nto = [\"{there}\", \"203.0.113.9:53\"]\n"
    );
    let gateway = Gateway::prepare(&net, &config, Options::default())?;
    let path = gateway.config().display().to_string();
    let checked = gateway.cli(&["check", &path])?.ok()?;
    assert!(checked.stderr.contains("service `dns`: no route to target 203.0.113.9:53"), "{checked:?}");
    assert!(checked.stderr.lines().count() == 1 && checked.stdout.contains("1 services"), "{checked:?}");
    let json = gateway.cli(&["check", &path, "-o", "json"])?.ok()?.json()?;
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1), "{json}");
    Ok(())
}

#[test]
fn services_alone_are_enough_to_run() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| service(backends))?;
    rig.becomes("pg", 0, "up")?;
    let status = rig.gateway.cli(&["status"])?.ok()?;
    assert!(status.stdout.contains("pg") && status.stdout.contains("2/2"), "{}", status.stdout);
    fits_80_columns(&status.stdout);
    assert_eq!(rig.gateway.ops("/readyz")?.status, 200);
    let mut gateway = rig.gateway;
    assert_eq!(gateway.stop()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_target_that_refuses_tcp_is_shown_down_and_comes_back() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| service(backends))?;
    rig.becomes("pg", 1, "up")?;
    rig.backends[1].down()?;
    rig.becomes("pg", 1, "down")?;
    assert_eq!((rig.up(0)?, rig.up(1)?), (1.0, 0.0));
    let shown = rig.gateway.cli(&["service", "show", "pg"])?.ok()?.stdout;
    assert!(shown.contains("failed") && shown.contains("cannot connect"), "{shown}");
    let list = rig.gateway.cli(&["service", "list"])?.ok()?.stdout;
    assert!(list.contains("1/2"), "{list}");
    fits_80_columns(&list);
    rig.gateway.cli(&["status"])?.ok()?;
    rig.backends[0].down()?;
    rig.becomes("pg", 0, "down")?;
    assert_eq!(rig.gateway.cli(&["status"])?.code, 1, "a service without targets is a failure");
    rig.backends.iter().try_for_each(Backend::up)?;
    rig.becomes("pg", 1, "up")?;
    assert_eq!(rig.up(1)?, 1.0);
    Ok(())
}

#[test]
fn a_udp_target_is_down_where_nobody_listens_or_answers() -> Result<()> {
    lab_test!();
    let check = "every = \"100ms\", timeout = \"100ms\", rise = 1, fall = 2";
    let rig = rig(|net, _| {
        for node in net.nodes() {
            // Two services ask each target: one of them alone could get all the answers that a host gives a second.
            node.namespace.set_sysctl("net/ipv4/icmp_ratelimit", "0").expect("a sysctl of the namespace");
        }
        let target = |n: usize| net.backend(n).at(53);
        let all = |name: &str, port: u16, more: &str| {
            format!(
                "[service.{name}]\nbind = \"{VIP4}:{port}\"\nprotocol = \"udp\"\nto = [\"{}\", \"{}\"]\n\
                 health = {{ udp = true, {more}{check} }}\n",
                target(1),
                target(2)
            )
        };
        all("silent", 53, "") + &all("asked", 54, "send = \"hex:01\", ")
    })?;
    rig.becomes("silent", 0, "down")?;
    rig.becomes("asked", 0, "down")?;
    let node = rig.net.backend(1);
    let socket = node.namespace.run(|| UdpSocket::bind(node.at(53)))??;
    rig.becomes("silent", 0, "up")?;
    assert_eq!(rig.state("asked", 0)?, "down", "silence is no answer");
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    eventually("answers bring it up", || {
        let mut buffer = [0; 16];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            if buffer[..n] == [1] {
                socket.send_to(b"here", from)?;
            }
            if rig.state("asked", 0)? == "up" {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    assert_eq!(rig.state("silent", 1)?, "down");
    Ok(())
}

#[test]
fn operators_take_targets_of_a_service_out_and_back_in() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| service(backends))?;
    let first = format!("pg/{}", rig.addr(0));
    rig.becomes("pg", 0, "up")?;
    rig.target(&["drain", &first])?.ok()?;
    assert_eq!((rig.state("pg", 0)?.as_str(), rig.up(0)?), ("draining", 0.0));
    rig.target(&["down", &first, "--for", "10m"])?.ok()?;
    rig.target(&["weight", &first, "7"])?.ok()?;
    let target = rig.show("pg")?["targets"][0].clone();
    // Three columns: what the config says, what the operator says, what the checks say.
    assert_eq!(
        (&target["weight"], &target["healthy"], &target["state"]),
        (&json!(1), &json!(true), &json!("down"))
    );
    let said = &target["overrides"];
    assert_eq!((&said["state"]["value"], &said["weight"]["value"]), (&json!("down"), &json!(7)));
    assert_eq!((&said["state"]["by"], &said["weight"]["left_seconds"]), (&json!("root"), &Value::Null));
    assert!(said["state"]["left_seconds"].as_u64().is_some_and(|left| (590..=600).contains(&left)), "{said}");
    let shown = rig.gateway.cli(&["service", "show", "pg"])?.ok()?.stdout;
    assert!(shown.contains("down weight 7") && shown.contains("down by root for "), "{shown}");
    fits_80_columns(&shown);

    // They live as long as the target does.
    let more = |to: &str| {
        format!(
            "{}[service.dns]\nbind = \"{VIP4}:53\"\nprotocol = \"udp\"\nto = {to}\n",
            service(&rig.backends)
        )
    };
    rig.gateway.write(&more("\"10.77.1.2:53\""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(rig.show("pg")?["targets"][0]["overrides"]["weight"]["value"], 7);
    rig.target(&["up", &first])?.ok()?;
    assert_eq!(rig.state("pg", 0)?, "up");
    assert_eq!(rig.show("pg")?["targets"][0]["overrides"]["weight"]["value"], 7);
    rig.target(&["weight", &first, "config"])?.ok()?;
    assert_eq!(rig.show("pg")?["targets"][0]["overrides"], Value::Null);
    rig.target(&["drain", &first])?.ok()?;
    rig.gateway.write(&service(&rig.backends[1..]))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    rig.gateway.write(&service(&rig.backends))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(rig.state("pg", 0)?, "up", "a target that was gone is a new one");
    Ok(())
}

#[test]
fn an_override_ends_with_its_time() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| service(backends) + &simple_config(backends))?;
    let (service, upstream) = (format!("pg/{}", rig.addr(0)), format!("all/{}", rig.addr(0)));
    rig.target(&["drain", &service, "--for", "1s"])?.ok()?;
    rig.target(&["down", &upstream, "--for", "1s"])?.ok()?;
    assert_eq!(rig.state("pg", 0)?, "draining");
    assert_eq!(rig.answering(4)?, BTreeSet::from(["b2".to_owned()]));
    within(Duration::from_secs(3), "back in", || Ok((rig.state("pg", 0)? == "up").then_some(())))?;
    within(Duration::from_secs(3), "back in", || Ok((rig.answering(4)?.len() == 2).then_some(())))?;
    rig.gateway.says("override is over")
}

#[test]
fn a_drained_target_of_an_upstream_finishes_its_requests_and_gets_no_more() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| simple_config(backends))?;
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
        client.send("GET /slow-header?ms=1000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        busy.push(client);
    }
    let all = || Ok(rig.gateway.metrics()?.sum("http_active_requests", &[]) == 4.0);
    eventually("four requests are under way", all)?;
    rig.target(&["drain", &format!("all/{}", rig.addr(0))])?.ok()?;
    assert_eq!(rig.answering(6)?, BTreeSet::from(["b2".to_owned()]));
    let mut finished = BTreeSet::new();
    for client in &mut busy {
        let answer = client.response()?;
        assert_eq!(answer.status, 200);
        finished.insert(answer.backend().to_owned());
    }
    assert_eq!(finished.len(), 2, "the drained one finished what it had");
    let shown = rig.gateway.cli(&["upstream", "show", "all"])?.ok()?.stdout;
    assert!(shown.contains("drain") && shown.contains("by root"), "{shown}");
    fits_80_columns(&shown);
    assert_eq!(rig.gateway.metrics()?.sum("upstream_up", &[("target", &rig.addr(0))]), 0.0);
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(rig.answering(6)?, BTreeSet::from(["b2".to_owned()]), "a reload changes nothing of it");
    rig.target(&["up", &format!("all/{}", rig.addr(0))])?.ok()?;
    assert_eq!(rig.answering(6)?.len(), 2);
    Ok(())
}

#[test]
fn a_weight_of_an_operator_is_the_one_that_counts() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| simple_config(backends))?;
    rig.target(&["weight", &format!("all/{}", rig.addr(0)), "3"])?.ok()?;
    let mut client = Client::connect(rig.net.client(1), rig.gateway.at4())?;
    let answers: Vec<String> =
        (0..40).map(|_| Ok(client.get("/")?.backend().to_owned())).collect::<Result<_>>()?;
    assert_eq!(answers.iter().filter(|backend| *backend == "b1").count(), 30);
    Ok(())
}

#[test]
fn commands_that_make_no_sense_say_why() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| {
        // A service named as the upstream, with the same targets.
        service(backends).replace("service.pg", "service.all") + &simple_config(backends)
    })?;
    let addr = rig.addr(0);
    let table: [(&[&str], i32, &str); 8] = [
        (&["drain", "all"], 2, "expected NAME/ADDR"),
        (&["drain", "all/b1"], 2, "give an IP address"),
        (&["drain", "nobody/10.0.0.1:80"], 5, "there is no target"),
        (&["drain", "all/10.0.0.1:80"], 5, "there is no target"),
        (&["drain", "all/TARGET"], 2, "write upstream:all/"),
        (&["drain", "service:all/TARGET", "--for", "0s"], 5, "never zero"),
        (&["drain", "service:all/TARGET", "--for", "soon"], 2, "--for soon"),
        (&["weight", "upstream:all/TARGET", "0"], 2, "expected 1 to 1000"),
    ];
    for (arguments, code, says) in table {
        let arguments: Vec<String> = arguments.iter().map(|a| a.replace("TARGET", &addr)).collect();
        let told = rig.target(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        assert!(told.code == code && told.stderr.contains(says), "{arguments:?}: {told:?}");
    }
    rig.target(&["drain", &format!("service:all/{addr}")])?.ok()?;
    assert_eq!(rig.state("all", 0)?, "draining");
    assert_eq!(rig.answering(4)?.len(), 2, "the upstream's is another target");
    let missing = rig.gateway.cli(&["service", "show", "nobody"])?;
    assert!(missing.code == 5 && missing.stderr.contains("there is no service"), "{missing:?}");
    Ok(())
}

#[test]
fn a_target_on_ipv6_is_named_by_its_address() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| {
        format!("[service.six]\nbind = \"[{VIP6}]:53\"\nprotocol = \"udp\"\nto = \"{}\"\n", backends[0].addr6)
    })?;
    rig.target(&["down", &format!("six/{}", rig.backends[0].addr6)])?.ok()?;
    assert_eq!(rig.state("six", 0)?, "down");
    Ok(())
}

#[test]
fn reload_takes_services_up_with_the_rest_or_not_at_all() -> Result<()> {
    lab_test!();
    let rig = rig(|_, backends| simple_config(backends))?;
    assert_eq!(rig.gateway.cli(&["service", "list"])?.ok()?.stdout.trim(), "no services");
    let with = format!("{}{}", simple_config(&rig.backends), service(&rig.backends));
    rig.gateway.write(&with)?;
    let diff = rig.gateway.cli(&["diff"])?;
    assert!(diff.code == 1 && diff.stdout.contains("+ service.pg"), "{diff:?}");
    let reloaded = rig.gateway.cli(&["reload"])?.ok()?;
    assert!(reloaded.stdout.contains("+ service.pg"), "{reloaded:?}");
    rig.becomes("pg", 0, "up")?;
    rig.gateway.write(&with.replace(":5432\"", ":80\""))?;
    let refused = rig.gateway.cli(&["reload"])?;
    assert!(refused.code == 2 && refused.stderr.contains("which listener `web`"), "{refused:?}");
    assert_eq!(rig.show("pg")?["bind"][0], format!("{VIP4}:5432"));
    rig.gateway.write(&simple_config(&rig.backends))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(rig.gateway.metrics()?.all("kernel_service_target_up", &[]).count(), 0);
    Ok(())
}

#[test]
fn services_without_a_kernel_half_are_told_or_refused() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let off = format!("{}{}[kernel]\nmode = \"off\"\n", simple_config(&backends), service(&backends));
    let mut gateway = Gateway::start(&net, &off)?;
    gateway.says("services are not served: kernel.mode is \"off\"")?;
    let status = gateway.cli(&["status"])?;
    assert!(status.code == 1 && status.stdout.contains("services are not served"), "{status:?}");
    assert_eq!(http::get(net.client(1), gateway.at4(), "/")?.status, 200, "the rest is served");
    gateway.stop()?;
    gateway.write(&off.replace("mode = \"off\"", "mode = \"off\"\nrequired = true"))?;
    let (status, said) = gateway.run_to_end()?;
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("services are not served") && said.contains("kernel.required"), "{said}");
    Ok(())
}
