//! What does not fit together, and what is no config at all.

use super::says;

#[test]
fn an_undefined_upstream_names_the_nearest() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.users]
to = "10.0.0.1:80"
[route.a]
path = "/a"
to = "user"
[route.b]
to = "nothing"
"#,
        r#"
gateway.toml:7:6: upstream "user" is not defined
  hint: did you mean "users"?
gateway.toml:9:6: upstream "nothing" is not defined
  hint: defined: "users""#,
    );
}

#[test]
fn with_no_upstream_at_all_the_hint_is_how_to_add_one() {
    says(
        r#"[listener.web]
bind = ":80"
[route.a]
to = "app"
"#,
        r#"
gateway.toml:4:6: upstream "app" is not defined
  hint: add [upstream.app], or write the targets here: to = ["127.0.0.1:3000"]"#,
    );
}

#[test]
fn two_listeners_at_one_address_show_both_places() {
    says(
        r#"[listener.a]
bind = ":80"
[listener.b]
bind = "127.0.0.1:80"
[listener.c]
bind = ":81"
[route.all]
to = ["127.0.0.1:1"]
"#,
        r#"
gateway.toml:4:8: listener `b` binds 127.0.0.1:80, which listener `a` (:80) has already, at gateway.toml:2:8"#,
    );
}

#[test]
fn routes_that_tie_show_both_places() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.u]
to = "10.0.0.1:1"
[route.a]
path = "/x/{id}"
to = "u"
[route.b]
path = "/x/{name}"
to = "u"
[route.c]
host = ["A.com", "b.com"]
path = "/x"
to = "u"
[route.d]
host = "a.com"
path = "/x"
to = "u"
[route.e]
path = "/x/*"
to = "u"
"#,
        r#"
gateway.toml:8:8: route `b` takes the same requests (any host, path "/x/{name}") as route `a` at gateway.toml:5:8
  hint: the most specific route wins, so give one of them another host or path, or one more of `methods`, `headers` and `query`
gateway.toml:15:8: route `d` takes the same requests (host "a.com", path "/x") as route `c` at gateway.toml:11:8
  hint: the most specific route wins, so give one of them another host or path, or one more of `methods`, `headers` and `query`"#,
    );
}

#[test]
fn a_routes_own_upstream_may_not_have_anothers_name() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.a]
to = "10.0.0.1:1"
[route.a]
to = ["10.0.0.2:1"]
"#,
        r#"
gateway.toml:6:6: the targets of `route.a` would make an upstream "a", which is defined already, at gateway.toml:3:11
  hint: write to = "a" to use that one, or rename the route"#,
    );
}

#[test]
fn a_health_check_is_of_one_kind() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
[upstream.a]
to = "10.0.0.1:1"
health = { every = "1s" }
[upstream.b]
to = "10.0.0.1:1"
health = { path = "/", tcp = true }
[upstream.c]
to = "10.0.0.1:1"
health = { tcp = true, expect = 200 }
[upstream.d]
to = "10.0.0.1:1"
health = { path = "x", expect = ["200"] }
"#,
        r#"
gateway.toml:7:1: `upstream.a.health`: it does not say what to check
  hint: add path = "/healthz", tcp = true or grpc = true
gateway.toml:10:1: `upstream.b.health`: `path` and `tcp` are two kinds of checks
  hint: keep one of them
gateway.toml:13:1: `upstream.c.health`: `expect` lists status codes, and a tcp check has none
  hint: add a `path`, or drop `expect`
gateway.toml:16:19: `upstream.d.health.path`: expected a path such as "/items/*", found "x"
  hint: a path starts with a slash: "/x"
gateway.toml:16:34: `upstream.d.health.expect`: expected a whole number from 100 to 599, found "200"
  hint: write 200 without quotes"#,
    );
}

#[test]
fn bounded_load_needs_hashing() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
[upstream.a]
to = "10.0.0.1:1"
bounded_load = 1.5
"#,
        r#"
gateway.toml:7:16: `upstream.a.bounded_load` only works with balance = "ip-hash" or "maglev""#,
    );
}

#[test]
fn names_that_cannot_be_labels_are_refused() {
    says(
        r#"[listener."a/b"]
bind = ":80"
[listener.x]
bind = ":81"
[upstream]
a = 5
[route.r]
to = "a"
"#,
        r#"
gateway.toml:1:11: "a/b" cannot be the name of a listener
  hint: a name is 1 to 63 letters, digits, `-`, `_` or `.`
gateway.toml:6:5: `upstream.a`: expected a table [upstream.a], found 5"#,
    );
}

#[test]
fn things_that_are_there_twice() {
    says(
        r#"[listener.web]
bind = ":80"
[kernel]
interfaces = ["eth0", "eth0", "a/b"]
[route.r]
host = ["a.com", "A.com"]
to = ["127.0.0.1:1"]
upgrade = ["websocket", "h2c"]
"#,
        r#"
gateway.toml:4:23: interface "eth0" is there twice, first at gateway.toml:4:15
gateway.toml:4:31: `kernel.interfaces`: expected a network interface such as "eth0", found "a/b"
  hint: `ip link` lists them; names have at most 15 bytes, without spaces, `/` or `:`
gateway.toml:6:18: host "a.com" is there twice, first at gateway.toml:6:9
gateway.toml:8:25: `route.r.upgrade`: an upgrade to "h2c" is not supported yet"#,
    );
}

#[test]
fn syntax_errors_are_all_told() {
    says(
        r#"[listener.web
bind = :80

[route.all]
to = ["127.0.0.1:1"
"#,
        r#"
gateway.toml:1:14: not TOML: unclosed table, expected `]`
gateway.toml:5:20: not TOML: unclosed array, expected `]`"#,
    );
}

#[test]
fn text_without_quotes_is_recognised() {
    says(
        r#"[listener.web]
bind = :80
[kernel]
mode = auto
"#,
        r#"
gateway.toml:2:8: not TOML: string values must be quoted, expected literal string
  hint: text stands in quotes: bind = ":80"
gateway.toml:4:8: not TOML: string values must be quoted, expected literal string
  hint: text stands in quotes: mode = "auto""#,
    );
}

#[test]
fn a_table_or_key_twice_in_one_file() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:1"]
[listener.web]
bind = ":80"
[kernel]
mode = "off"
mode = "auto"
"#,
        r#"
gateway.toml:5:11: `[listener.web]` is defined twice
  hint: the first is at gateway.toml:1:1
gateway.toml:9:1: `mode` is defined twice"#,
    );
}

#[test]
fn an_empty_file_says_what_is_missing() {
    says(
        r#""#,
        r#"
gateway.toml: there is no listener
  hint: add [listener.web] with bind = ":80"
gateway.toml: there is no route
  hint: add [route.all] with to = ["127.0.0.1:3000"]"#,
    );
}
