//! Values of the wrong type, form or range.

use super::says;

#[test]
fn unknown_keys_name_the_nearest() {
    says(
        r#"[listener.web]
bind = ":80"
timout = { header = "1s" }
foo = 1
[route.all]
to = ["127.0.0.1:1"]
[listeners.x]
bind = ":1"
"#,
        r#"
gateway.toml:3:1: unknown key `listener.web.timout`
  hint: did you mean `timeout`?
gateway.toml:4:1: unknown key `listener.web.foo`
  hint: known here: bind, max, timeout, protocols, tls, redirect, hsts, proxy_protocol, real_ip
gateway.toml:7:2: unknown key `listeners`
  hint: did you mean `listener`?"#,
    );
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    says(
        r#"[gateway]
workers = "4"
drain = 30
log = "info"
[kernel]
required = "yes"
interfaces = 5
[listener.web]
bind = 80
max = { connections = 1.5, header = true }
[listener.x]
bind = [":81"]
[route.a]
to = 5
"#,
        r#"
gateway.toml:2:11: `gateway.workers`: expected "auto" or a whole number from 1 to 1024, found "4"
  hint: write 4 without quotes
gateway.toml:3:9: `gateway.drain`: expected a duration such as "250ms", found 30
  hint: give a unit: "30s" or "30ms"
gateway.toml:4:7: `gateway.log`: expected a table { level, format }, found "info"
gateway.toml:6:12: `kernel.required`: expected true or false, found "yes"
  hint: write true without quotes
gateway.toml:7:14: `kernel.interfaces`: expected a network interface such as "eth0", found 5
gateway.toml:9:8: `listener.web.bind`: expected an address such as ":80", found 80
  hint: write ":80" for every address of the host
gateway.toml:10:23: `listener.web.max.connections`: expected a whole number from 1 to 10000000, found 1.5
gateway.toml:10:37: `listener.web.max.header`: expected a size such as "512MiB", found true
gateway.toml:12:8: `listener.x.bind`: expected an address such as ":80", found a list
gateway.toml:14:6: `route.a.to`: expected an upstream's name such as "items" or a list such as ["10.0.0.1:8080"] or a table such as { items = … }, each a whole number from 0 to 1000, found 5"#,
    );
}

#[test]
fn a_number_out_of_range_says_the_range() {
    says(
        r#"[gateway]
workers = 0
[kernel.limit]
packets = { rate = "0/s", burst = 0 }
ipv6_prefix = 65
[listener.web]
bind = ":80"
max = { header = "1KiB", connections = -1 }
timeout.idle = "0s"
[upstream.a]
to = [{ addr = "10.0.0.1:80", weight = 0 }]
bounded_load = 1
retry.tries = 11
[upstream.b]
to = "10.0.0.1:80"
balance = "ip-hash"
bounded_load = "90%"
health = { tcp = true, rise = 0, every = "1ms" }
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:2:11: `gateway.workers`: must be from 1 to 1024, found 0
gateway.toml:4:20: `kernel.limit.packets.rate`: a rate is never zero
  hint: leave the limit out to have none
gateway.toml:4:35: `kernel.limit.packets.burst`: must be from 1 to 1000000000, found 0
gateway.toml:5:15: `kernel.limit.ipv6_prefix`: must be from 32 to 64, found 65
gateway.toml:8:18: `listener.web.max.header`: must be from 8KiB to 1MiB, found "1KiB"
gateway.toml:8:40: `listener.web.max.connections`: must be from 1 to 10000000, found -1
gateway.toml:9:16: `listener.web.timeout.idle`: must be from 1ms to 1d, found "0s"
gateway.toml:11:40: `upstream.a.to[0].weight`: must be from 1 to 1000, found 0
gateway.toml:12:16: `upstream.a.bounded_load`: must be above 1, at most 100, found 1
gateway.toml:13:15: `upstream.a.retry.tries`: must be from 0 to 10, found 11
gateway.toml:17:16: `upstream.b.bounded_load`: must be above 100%, at most 10000%
gateway.toml:18:31: `upstream.b.health.rise`: must be from 1 to 1000, found 0
gateway.toml:18:42: `upstream.b.health.every`: must be from 10ms to 1d, found "1ms""#,
    );
}

#[test]
fn a_value_without_its_unit_says_how_it_is_written() {
    says(
        r#"[gateway]
drain = "30"
[kernel.limit]
packets = "100"
new = { rate = "10/w" }
exempt = ["10.1.0.0/8"]
[listener.web]
bind = "80"
max.body = "10M"
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:2:9: `gateway.drain`: expected a duration such as "250ms", found "30"
  hint: give a unit: "30s" or "30ms"
gateway.toml:4:11: `kernel.limit.packets`: expected a rate such as "100/s", found "100"
  hint: write what it is per: "100/s", "20k/s", "5/m" or "200k/h"
gateway.toml:5:16: `kernel.limit.new.rate`: expected a rate such as "100/s", found "10/w"
  hint: it is per s, m, h or d: "100/s"
gateway.toml:6:11: `kernel.limit.exempt`: 10.1.0.0/8 has host bits set
  hint: write "10.0.0.0/8", or "10.1.0.0" for the one address
gateway.toml:8:8: `listener.web.bind`: expected an address such as ":80", found "80"
  hint: write ":80" for every address of the host
gateway.toml:9:12: `listener.web.max.body`: expected a size such as "512MiB", found "10M"
  hint: did you mean "10MiB"?"#,
    );
}

#[test]
fn a_wrong_word_lists_the_right_ones() {
    says(
        r#"[kernel]
mode = "natve"
steer = true
[gateway.log]
level = "warning"
[access_log]
to = "stdot"
[metrics]
bind = false
[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:2:8: `kernel.mode`: expected "auto", "native", "generic" or "off", found "natve"
  hint: did you mean "native"?
gateway.toml:3:9: `kernel.steer`: expected "ip-hash" or "off", found true
gateway.toml:5:9: `gateway.log.level`: expected "error", "warn", "info", "debug" or "trace", found "warning"
  hint: did you mean "warn"?
gateway.toml:7:6: `access_log.to`: expected "stdout", "stderr", "off" or a file's path, found "stdot"
  hint: did you mean "stdout"?
gateway.toml:9:8: `metrics.bind`: expected "off" or an address such as ":80", found false
  hint: write "off""#,
    );
}

#[test]
fn hosts_and_paths_teach_their_form() {
    says(
        r#"[listener.web]
bind = ":80"
[route.a]
host = ["api.*.com", "ok.example", "https://x.com"]
path = "items"
to = ["127.0.0.1:1"]
[route.b]
host = []
path = "/a/{x}/{x}"
to = ["127.0.0.1:1"]
[route.c]
host = "a:80"
path = "/a?x"
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:4:9: `route.a.host`: expected a host name such as "api.example.com", found "api.*.com"
  hint: `*` stands for whole labels, and only in front: "*.example.com"
gateway.toml:4:36: `route.a.host`: expected a host name such as "api.example.com", found "https://x.com"
  hint: leave the scheme out: "x.com"
gateway.toml:5:8: `route.a.path`: expected a path such as "/items/*", found "items"
  hint: a path starts with a slash: "/items"
gateway.toml:8:8: `route.b.host`: expected a list such as ["api.example.com"], found an empty one
gateway.toml:9:8: `route.b.path`: expected a path such as "/items/*", found "/a/{x}/{x}"
  hint: the parameter `x` is there twice
gateway.toml:12:8: `route.c.host`: expected a host name such as "api.example.com", found "a:80"
  hint: leave the port out: "a"
gateway.toml:13:8: `route.c.path`: expected a path such as "/items/*", found "/a?x"
  hint: a path has no query and no fragment"#,
    );
}

#[test]
fn targets_teach_their_form() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.a]
to = ["10.0.0.1", "app.ab", "https://10.0.0.2", "ftp://10.0.0.3:1", "0.0.0.0:80", "10.0.0.4:80", "http://10.0.0.4"]
[route.a]
to = []
[route.b]
path = "/b"
to = "127.0.0.1:3000"
[route.c]
path = "/c"
to = { a = 95, b = 5 }
"#,
        r#"
gateway.toml:4:7: `upstream.a.to`: expected a target such as "10.0.0.1:8080", found "10.0.0.1"
  hint: add the port: "10.0.0.1:80"
gateway.toml:4:19: `upstream.a.to`: expected a target such as "10.0.0.1:8080", found "app.ab"
  hint: add the port: "app.ab:80"
gateway.toml:4:49: `upstream.a.to`: expected a target such as "10.0.0.1:8080", found "ftp://10.0.0.3:1"
  hint: write "10.0.0.1:8080" or "http://10.0.0.1:8080"
gateway.toml:4:69: `upstream.a.to`: "0.0.0.0:80" is no host's address
  hint: for this host write "127.0.0.1:80"
gateway.toml:4:83: `upstream.a.to`: some targets have https:// and this one has not
  hint: write https:// before each, or make two upstreams
gateway.toml:4:98: target "10.0.0.4:80" is there twice, first at gateway.toml:4:83
  hint: to send it more, give it a weight: { addr = "10.0.0.4:80", weight = 2 }
gateway.toml:6:6: `route.a.to`: expected a list such as ["10.0.0.1:8080"], found an empty one
gateway.toml:9:6: `route.b.to`: "127.0.0.1:3000" is an address, not an upstream's name
  hint: write a list: to = ["127.0.0.1:3000"]
gateway.toml:12:16: upstream "b" is not defined
  hint: defined: "a""#,
    );
}

#[test]
fn a_missing_key_comes_with_an_example() {
    says(
        r#"[listener.web]
[upstream.a]
balance = "least-conn"
[upstream.b]
to = [{ weight = 2 }]
[kernel.limit]
new = { burst = 5 }
[route.a]
path = "/"
"#,
        r#"
gateway.toml:1:11: `listener.web.bind` is missing
  hint: for example: bind = ":80"
gateway.toml:2:11: `upstream.a.to` is missing
  hint: for example: to = ["10.0.0.1:8080"]
gateway.toml:5:7: `upstream.b.to[0].addr` is missing
  hint: for example: addr = "10.0.0.1:8080"
gateway.toml:7:1: `kernel.limit.new.rate` is missing
  hint: for example: rate = "20k/s"
gateway.toml:8:8: `route.a.to` is missing
  hint: for example: to = "items""#,
    );
}

#[test]
fn words_of_later_versions_are_known() {
    says(
        r#"[access_log]
format = "logfmt"
on_full = "block"
[upstream.a]
to = "unix:/run/a.sock"
[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:2:10: `access_log.format = "logfmt"` is not supported yet
gateway.toml:3:11: `access_log.on_full = "block"` is not supported yet
gateway.toml:5:6: `upstream.a.to`: a target on a unix socket is not supported yet"#,
    );
}

#[test]
fn columns_count_characters() {
    says(
        r#"[gateway]
log = { "é" = "ü", level = "x" }
[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:2:9: unknown key `gateway.log."é"`
  hint: known here: level, format
gateway.toml:2:28: `gateway.log.level`: expected "error", "warn", "info", "debug" or "trace", found "x""#,
    );
}

#[test]
fn values_of_types_that_no_key_has() {
    says(
        r#"[gateway]
drain = 2026-01-01
name = 1.5
workers = 99999999999999999999
[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:2:9: `gateway.drain`: expected a duration such as "250ms", found a date
gateway.toml:3:8: `gateway.name`: expected a name such as "edge-1", found 1.5
  hint: write "edge-1"
gateway.toml:4:11: `gateway.workers`: must be from 1 to 1024, found 99999999999999999999"#,
    );
}

#[test]
fn values_where_tables_should_be() {
    says(
        r#"listener = 5
route = [1]
[[upstream]]
to = "10.0.0.1:1"
"#,
        r#"
gateway.toml:1:12: `listener`: expected a table of tables, each with a name of your own, found 5
gateway.toml:2:9: `route`: expected a table of tables, each with a name of your own, found a list
gateway.toml:3:1: `upstream`: expected a table of tables, each with a name of your own, found a list"#,
    );
}

#[test]
fn an_access_log_that_makes_no_sense_is_explained() {
    says(
        r#"[access_log]
to = "stderr"
format = "${status} ${pth}"
keep = { ok = "150%" }
redact = ["authorization"]
rotate = { size = "1MiB" }
events = true
[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:3:10: `access_log.format`: a line has no field `pth`; did you mean `path`?
gateway.toml:4:15: `access_log.keep.ok` is at most 100%
gateway.toml:5:11: `access_log.redact`: expected "header:NAME" or "query:NAME", such as "query:token", found "authorization"
gateway.toml:6:1: `access_log.rotate` is for a file: what else `to` can be has nothing to rotate"#,
    );
}

#[test]
fn an_alert_that_makes_no_sense_is_explained() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
[alert.a]
when = "errors"
route = "al"
above = "250ms"
[alert.b]
when = "limited"
notify = "op"
[alert.c]
when = "cert-expiry"
above = "7d"
clear = "1d"
[notify.ops]
webhook = "example.com"
"#,
        r#"
gateway.toml:7:9: `alert.a.route`: route "al" is not defined
gateway.toml:8:9: `alert.a.above`: "errors" is measured as a percentage such as "5%"
gateway.toml:9:8: `alert.b.above` is missing
  hint: for example: above = "100/s"
gateway.toml:11:10: `alert.b.notify`: notify "op" is not defined
  hint: add [notify.op] with webhook = "https://…"
gateway.toml:14:9: `alert.c.above` is not for "cert-expiry"
gateway.toml:15:9: `alert.c.clear` is on the bad side of `below`
gateway.toml:17:11: `notify.ops.webhook`: expected a URL such as "http://127.0.0.1:4318", found "example.com": it does not begin with http:// or https:// and a host"#,
    );
}
