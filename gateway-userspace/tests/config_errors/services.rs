//! L4 services and the kernel's classes of sources.

use std::{fmt::Write, path::Path};

use gateway::config;

use super::says;

#[test]
fn addresses_and_targets_of_services_teach_their_form() {
    says(
        r#"[service.a]
bind = ["192.0.2.1", "2001:db8::1", "[::]:53", "0.0.0.0:53", ":0", "224.0.0.1:53"]
to = ["http://10.0.0.1:53", "10.0.0.2", "app:53", "[fe80::1%2]:53"]
path = "slice"
"#,
        r#"
gateway.toml:2:9: `service.a.bind`: expected an address such as ":80", found "192.0.2.1"
  hint: add the port: "192.0.2.1:80"
gateway.toml:2:22: `service.a.bind`: expected an address such as ":53", found "2001:db8::1"
  hint: add the port: "[2001:db8::1]:53"
gateway.toml:2:37: `service.a.bind`: "[::]:53" is no host's address
  hint: for every address of kernel.interfaces write ":53"
gateway.toml:2:48: `service.a.bind`: "0.0.0.0:53" is no host's address
  hint: for every address of kernel.interfaces write ":53"
gateway.toml:2:62: `service.a.bind`: ":0" has port 0
  hint: give the port that clients use
gateway.toml:2:68: `service.a.bind`: "224.0.0.1:53" is an address of many hosts
gateway.toml:3:7: `service.a.to`: expected a target such as "10.0.0.1:5432", found "http://10.0.0.1:53"
  hint: leave the scheme out: "10.0.0.1:53"
gateway.toml:3:29: `service.a.to`: expected a target such as "10.0.0.1:8080", found "10.0.0.2"
  hint: add the port: "10.0.0.2:80"
gateway.toml:3:41: `service.a.to`: the host name "app:53" as a target is not supported yet
  hint: give an IP address, such as "10.0.0.1:8080"
gateway.toml:3:51: `service.a.to`: expected a target such as "10.0.0.1:5432", found "[fe80::1%2]:53"
  hint: link-local targets are not forwarded to
gateway.toml:4:8: `service.a.path`: expected "kernel" or "splice", found "slice"
  hint: did you mean "splice"?"#,
    );
}

#[test]
fn a_service_needs_an_address_and_targets() {
    says(
        "[service.a]\n[service.b]\nbind = []\nto = []\n",
        r#"
gateway.toml:1:10: `service.a.bind` is missing
  hint: for example: bind = [":53"]
gateway.toml:1:10: `service.a.to` is missing
  hint: for example: to = ["10.0.0.1:5432"]
gateway.toml:3:8: `service.b.bind`: expected a list such as [":53"], found an empty one
gateway.toml:4:6: `service.b.to`: expected a list such as ["10.0.0.1:5432"], found an empty one"#,
    );
}

#[test]
fn services_and_listeners_that_overlap_show_both_places() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
[service.a]
bind = "192.0.2.1:80"
to = "10.0.0.1:80"
[service.b]
bind = ":80"
protocol = "udp"
to = "10.0.0.1:80"
[service.c]
bind = ["192.0.2.2:80", "192.0.2.1:81"]
protocol = "udp"
to = "10.0.0.1:80"
[service.d]
bind = ["192.0.2.1:81", "192.0.2.1:81"]
protocol = "udp"
to = "10.0.0.1:80"
"#,
        r#"
gateway.toml:6:8: service `a` binds 192.0.2.1:80, which listener `web` (:80) has already, at gateway.toml:2:8
gateway.toml:13:9: service `c` binds 192.0.2.2:80, which service `b` (:80) has already, at gateway.toml:9:8
gateway.toml:17:9: service `d` binds 192.0.2.1:81, which service `c` (192.0.2.1:81) has already, at gateway.toml:13:25
gateway.toml:17:25: service `d` binds 192.0.2.1:81, which service `c` (192.0.2.1:81) has already, at gateway.toml:13:25"#,
    );
}

#[test]
fn targets_go_with_the_addresses_of_their_service() {
    says(
        r#"[service.family]
bind = "192.0.2.1:53"
to = ["10.0.0.1:53", "[2001:db8::1]:53"]
[service.families]
bind = ["192.0.2.2:53", "[2001:db8::2]:53"]
to = ["10.0.0.1:53"]
[service.itself]
bind = "192.0.2.3:53"
to = "192.0.2.3:53"
[service.port]
bind = ":54"
forward = "dsr"
to = ["10.0.0.1:54", { addr = "10.0.0.2:5400", weight = 2 }]
[service.twice]
bind = ":55"
protocol = "udp"
quic = true
to = [{ addr = "10.0.0.1:55", server_id = 7 }, { addr = "10.0.0.2:55", server_id = 7 }, "10.0.0.1:55"]
"#,
        r#"
gateway.toml:3:22: target "[2001:db8::1]:53" is IPv6, but "192.0.2.1:53" is IPv4
  hint: a service and its targets are of one IP version
gateway.toml:5:8: service `families` binds addresses of IPv4 and of IPv6
  hint: make two services, each with targets of its own IP version
gateway.toml:9:6: target "192.0.2.3:53" is the service's own address
  hint: name the host that answers for it
gateway.toml:13:22: target "10.0.0.2:5400" has another port than ":54"
  hint: only forward = "nat" changes ports: use port 54
gateway.toml:18:48: server_id 7 is there twice, first at gateway.toml:18:7
  hint: each target puts another one into its connection ids
gateway.toml:18:89: target "10.0.0.1:55" is there twice, first at gateway.toml:18:7
  hint: to send it more, give it a weight: { addr = "10.0.0.1:55", weight = 2 }"#,
    );
}

#[test]
fn keys_of_the_other_path_are_told() {
    says(
        r#"[service.a]
bind = ":1"
to = "10.0.0.1:1"
sni = { "a.test" = "10.0.0.1:1" }
balance = "least-conn"
timeout = { idle = "1s" }
[service.b]
bind = "192.0.2.1:2"
path = "splice"
to = ["192.0.2.1:2", "[2001:db8::1]:2"]
forward = "nat"
tls = { cert = "main" }
[service.c]
bind = ":3"
path = "splice"
protocol = "udp"
to = "10.0.0.1:3"
timeout.idle = "off"
proxy_protocol = { from = "10.0.0.0/8" }
[service.d]
bind = ":4"
path = "splice"
sni = { "192.0.2.1" = "10.0.0.1:4", "*" = "10.0.0.1:4", "a.test" = [] }
proxy_protocol = { from = [], send = "v3" }
"#,
        r#"
gateway.toml:4:1: `service.a.sni` needs userspace
  hint: add path = "splice", or drop it
gateway.toml:5:11: `service.a.balance`: the kernel cannot choose by least-conn
  hint: add path = "splice", or use "maglev" or "ip-hash"
gateway.toml:6:1: `service.a.timeout` needs userspace
  hint: add path = "splice", or drop it
gateway.toml:10:6: target "192.0.2.1:2" is the service's own address
  hint: name the host that answers for it
gateway.toml:11:11: `service.b.forward` is of the kernel's path
  hint: drop it, or path = "splice"
gateway.toml:12:16: `service.b.tls.cert`: there is no certificate "main"
  hint: add [cert.main] with chain and key
gateway.toml:18:1: `service.c.timeout`: nothing else than `idle` ends a UDP session
  hint: give `idle` a duration
gateway.toml:19:1: `service.c.proxy_protocol` is of TCP
  hint: drop it, or protocol = "udp"
gateway.toml:23:9: `service.d.sni`: expected a host name such as "*.example.com", found "192.0.2.1"
  hint: clients never ask for an address by name
gateway.toml:23:37: `service.d.sni`: expected a host name such as "api.example.com", found "*"
  hint: leave `host` out to match every host
gateway.toml:23:68: `service.d.sni."a.test"`: expected a list such as ["10.0.0.1:5432"], found an empty one
gateway.toml:24:27: `service.d.proxy_protocol.from`: expected a list such as ["10.0.0.0/8"], found an empty one
gateway.toml:24:38: `service.d.proxy_protocol.send`: expected "v1" or "v2", found "v3""#,
    );
}

#[test]
fn settings_of_a_service_that_exclude_each_other_are_told() {
    says(
        r#"[service.a]
bind = ":1"
to = { addr = "10.0.0.1:1", server_id = 1 }
flows = false
health = { tcp = true, udp = true }
[service.b]
bind = ":2"
to = "10.0.0.1:2"
quic = true
health = { tcp = true, send = "x" }
[service.c]
bind = ":3"
to = "10.0.0.1:3"
health = { udp = true, expect = [200] }
limit = { new = "5", bytes = "10M/s" }
[service.d]
bind = ":4"
to = "10.0.0.1:4"
health = { every = "1s" }
[service.e]
bind = ":5"
to = "10.0.0.1:5"
health = { udp = true, send = "hex:0g" }
"#,
        r#"
gateway.toml:3:1: `service.a.to`: `server_id` is of QUIC's connection ids
  hint: add quic = true, or drop it
gateway.toml:4:9: `service.a.flows`: nat cannot do without: replies are rewritten by what it remembers
  hint: drop it, or use forward = "dsr", "ipip" or "gue"
gateway.toml:5:1: `service.a.health`: `tcp` and `udp` are two kinds of checks
  hint: keep one of them
gateway.toml:9:8: `service.b.quic`: QUIC is UDP
  hint: add protocol = "udp"
gateway.toml:10:1: `service.b.health`: `send` and `answer` are of a udp check
  hint: add udp = true, or drop them
gateway.toml:14:1: `service.c.health`: `expect` lists status codes, and a udp check has none
  hint: add a `path`, or drop `expect`
gateway.toml:15:17: `service.c.limit.new`: expected a rate such as "100/s", found "5"
  hint: write what it is per: "100/s", "20k/s", "5/m" or "200k/h"
gateway.toml:15:30: `service.c.limit.bytes`: expected a rate of bytes such as "10MiB/s", found "10M/s"
  hint: did you mean "10MiB"?
gateway.toml:19:1: `service.d.health`: it does not say what to check
  hint: add tcp = true, udp = true or path = "/healthz"
gateway.toml:23:31: `service.e.health.send`: expected a datagram such as "hex:0a0b", found "hex:0g"
  hint: after "hex:" come pairs of hexadecimal digits"#,
    );
}

fn first_problem(text: &str) -> String {
    let errors = config::parse(text, Path::new("gateway.toml")).expect_err("it is wrong");
    assert_eq!(errors.problems.len(), 1, "{errors}");
    errors.problems[0].message.clone()
}

#[test]
fn too_many_targets_or_services_are_told_once() {
    let targets = |n: usize| {
        let targets: Vec<String> =
            (0..n).map(|n| format!("\"10.0.{}.{}:1\"", n / 250, n % 250 + 1)).collect();
        targets.join(", ")
    };
    let one = format!("[service.a]\nbind = \":1\"\nto = [{}]\n", targets(1025));
    assert_eq!(first_problem(&one), "`service.a.to`: 1025 targets, at most 1024 are allowed");
    let mut many = String::new();
    for n in 0..7 {
        let _ = writeln!(many, "[service.s{n}]\nbind = \":{}\"\nto = [{}]", n + 1, targets(1000));
    }
    let message = "with service `s4` there are 5000 targets in all, at most 4096 are allowed";
    assert_eq!(first_problem(&many), message);
    let addresses: Vec<String> = (0..8192).map(|n| format!("\"10.1.{}.{}:1\"", n / 250, n % 250)).collect();
    let one = format!("[service.a]\nbind = [{}]\nto = \"10.0.0.1:1\"\n", addresses.join(", "));
    let message = "with service `a` there are 8192 addresses in all, at most 8191 are allowed";
    assert_eq!(first_problem(&one), message);
    let mut many = String::new();
    for n in 0..4096 {
        let _ = writeln!(many, "[service.s{n}]\nbind = \":{}\"\nto = \"10.0.0.1:1\"", n + 1);
    }
    let errors = config::parse(&many, Path::new("gateway.toml")).expect_err("it is wrong").to_string();
    assert!(errors.contains("there are 4096 services, at most 4095 are allowed"), "{errors}");
}

#[test]
fn a_prefix_belongs_to_one_class_of_at_most_15() {
    says(
        r#"[kernel.class.office]
from = ["10.0.0.0/8", "192.0.2.0/24", "10.0.0.0/8"]
packets = "1k/s"
[kernel.class.vpn]
from = ["10.1.0.0/16", "192.0.2.0/24"]
[kernel.class.none]
new = "5/s"
[kernel.limit]
mode = "sof"
bytes = { rate = "1MB/s", burst = "1KB" }
[kernel]
syn_cookies = "10k/s"
flows = 100
[service.a]
bind = ":1"
to = "10.0.0.1:1"
"#,
        r#"
gateway.toml:5:24: 192.0.2.0/24 is in class `vpn` and in class `office`, at gateway.toml:2:23
  hint: a source has the limits of one class: leave it in one of them
gateway.toml:6:15: `kernel.class.none.from` is missing
  hint: for example: from = ["10.0.0.0/8"]
gateway.toml:9:8: `kernel.limit.mode`: expected "hard" or "soft", found "sof"
  hint: did you mean "soft"?
gateway.toml:10:35: `kernel.limit.bytes.burst`: must be from 2KiB to 1TiB, found "1KB"
gateway.toml:12:15: `kernel.syn_cookies`: expected "off" or a table { above }, found "10k/s"
gateway.toml:13:9: `kernel.flows`: must be from 1024 to 16777216, found 100"#,
    );
    let mut classes = String::from("[service.a]\nbind = \":1\"\nto = \"10.0.0.1:1\"\n");
    for n in 0..16 {
        let _ = writeln!(classes, "[kernel.class.c{n}]\nfrom = \"10.{n}.0.0/16\"");
    }
    assert_eq!(first_problem(&classes), "there are 16 classes, at most 15 are allowed");
}

#[test]
fn services_alone_are_a_config_but_half_of_the_rest_is_not() {
    let service = "[service.a]\nbind = \":1\"\nto = \"10.0.0.1:1\"\n";
    assert!(config::parse(service, Path::new("gateway.toml")).is_ok());
    assert_eq!(first_problem(&format!("{service}[listener.web]\nbind = \":80\"\n")), "there is no route");
}
