use super::says;

#[test]
fn balancing_that_cannot_be_meant_is_refused_with_its_place_and_cure() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.a]
to = [{ addr = "10.0.0.1:1", backup = true, priority = 2 }, { addr = "10.0.0.2:1", priority = 16 }]
balance = "p2"
hash_on = "header:x"
sticky = { cookie = "a b" }
[upstream.b]
to = "10.0.0.1:1"
balance = "maglev"
hash_on = ["ip", "header:x-user", "user"]
panic = "150%"
sticky = { cookie = "at", same_site = "none" }
slow_start = 30
[upstream.c]
to = "10.0.0.1:1"
balance = "maglev"
hash_on = ["ip", "header:x-user"]
[route.all]
to = "a"
"#,
        r#"
gateway.toml:4:56: `backup` and `priority` of a target say the same
  hint: keep one: backup = true is priority = 1
gateway.toml:4:95: `upstream.a.to[1].priority`: must be from 0 to 15, found 16
gateway.toml:5:11: `upstream.a.balance`: expected "round-robin", "least-conn", "ip-hash", "p2c", "maglev" or "random", found "p2"
gateway.toml:7:21: `upstream.a.sticky.cookie`: expected a cookie's name such as "target", found "a b"
  hint: a name is letters, digits and !#$%&'*+-.^_`|~
gateway.toml:11:11: `upstream.b.hash_on`: "header:x-user" is never used
  hint: every request has "ip": put it last
gateway.toml:11:35: `upstream.b.hash_on`: expected what to hash, such as "header:x-user", found "user"
  hint: it is "header:NAME", "cookie:NAME", "query:NAME", "path", "consumer", "ip" or "random"
gateway.toml:12:9: `upstream.b.panic`: must be from 0% to 100%
gateway.toml:13:39: `upstream.b.sticky`: browsers take no cookie with same_site = "none" and not secure
  hint: add secure = true
gateway.toml:14:14: `upstream.b.slow_start`: expected "off" or a duration such as "250ms", found 30
  hint: give a unit: "30s" or "30ms"
gateway.toml:18:11: `upstream.c.hash_on`: "header:x-user" is never used
  hint: every request has "ip": put it last"#,
    );
}

#[test]
fn surviving_that_cannot_be_meant_is_refused_with_its_place_and_cure() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.a]
to = "10.0.0.1:1"
eject = { errors = 0, at_most = "101%", fo = "1s" }
breaker = { errors = "half", least = 0 }
retry = { on = ["505", "conect"], budget = "200%", per_try = "0s" }
[route.all]
to = "a"
"#,
        r#"
gateway.toml:5:20: `upstream.a.eject.errors`: must be from 1 to 1000, found 0
gateway.toml:5:33: `upstream.a.eject.at_most`: must be from 0% to 100%
gateway.toml:5:41: unknown key `upstream.a.eject.fo`
  hint: known here: errors, within, for, at_most
gateway.toml:6:22: `upstream.a.breaker.errors`: expected a percentage such as "5%", found "half"
gateway.toml:6:38: `upstream.a.breaker.least`: must be from 1 to 1000000, found 0
gateway.toml:7:17: `upstream.a.retry.on`: expected "connect", "reset", "timeout", "500", "502", "503" or "504", found "505"
  hint: did you mean "500"?
gateway.toml:7:24: `upstream.a.retry.on`: expected "connect", "reset", "timeout", "500", "502", "503" or "504", found "conect"
  hint: did you mean "connect"?
gateway.toml:7:44: `upstream.a.retry.budget`: must be from 0% to 100%
gateway.toml:7:62: `upstream.a.retry.per_try`: must be from 1ms to 1d, found "0s""#,
    );
}

#[test]
fn a_key_needs_the_algorithm_that_uses_it() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.a]
to = "10.0.0.1:1"
hash_on = "path"
[route.all]
to = "a"
"#,
        r#"
gateway.toml:5:11: `upstream.a.hash_on` only works with balance = "maglev"
  hint: write balance = "maglev", or drop it"#,
    );
}

#[test]
fn a_queue_needs_something_that_is_limited() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.a]
to = "10.0.0.1:1"
pool = { queue = 10, queue_timeout = "1s" }
[upstream.b]
to = { addr = "10.0.0.1:1", max = 0 }
pool = { max = "none", queue = 100000 }
[upstream.c]
to = { addr = "10.0.0.1:1", max = 10 }
pool = { queue = 0 }
[route.all]
to = "a"
"#,
        r#"
gateway.toml:5:18: `upstream.a.pool.queue`: nobody waits where nothing is limited
  hint: add `max`, here or to a target
gateway.toml:5:38: `upstream.a.pool.queue_timeout`: nobody waits where nothing is limited
  hint: add `max`, here or to a target
gateway.toml:7:35: `upstream.b.to.max`: must be from 1 to 1000000, found 0
gateway.toml:8:16: `upstream.b.pool.max`: expected "off" or a whole number from 1 to 1000000, found "none"
gateway.toml:8:32: `upstream.b.pool.queue`: must be from 0 to 65536, found 100000"#,
    );
}

#[test]
fn names_that_cannot_be_looked_up_are_refused() {
    says(
        r#"[gateway]
resolver = ["127.0.0.1:53", "ns"]
[listener.web]
bind = ":80"
[upstream.a]
to = "app:80"
dns = "app:80"
[upstream.b]
dns = "srv:http.app"
[upstream.c]
dns = "10.0.0.1:80"
[route.all]
to = "a"
"#,
        r#"
gateway.toml:2:29: `gateway.resolver`: expected a name server's address such as "127.0.0.1:53", found "ns"
gateway.toml:7:7: `upstream.a` has both `to` and `dns`
  hint: write the name among `to`, or drop one of them
gateway.toml:9:7: `upstream.b.dns`: expected a name such as "carts.internal:8080", found "srv:http.app"
  hint: write "srv:_http._tcp.carts.internal"
gateway.toml:11:7: `upstream.c.dns`: expected a name such as "carts.internal:8080", found "10.0.0.1:80"
  hint: addresses belong to `to`; names are of letters, digits, "-" and "_", with a port"#,
    );
}

#[test]
fn a_fallback_that_falls_back_on_nothing_is_refused() {
    says(
        r#"[listener.web]
bind = ":80"
[upstream.a]
to = "10.0.0.1:1"
fallback = { respond = { status = 204, body = "x" } }
[upstream.b]
to = "10.0.0.1:1"
fallback = { on = "unhealthy", to = "b" }
[upstream.c]
to = "10.0.0.1:1"
fallback = { on = ["connect", "reset"], to = "aa", respond = { headers = { x-item = "${param.id}" } } }
[upstream.d]
to = "10.0.0.1:1"
fallback = { on = "connect" }
[route.all]
to = "a"
"#,
        r#"
gateway.toml:5:1: `upstream.a.fallback` is for an open breaker, and there is none
  hint: add `breaker`, or write on = ["unhealthy"]
gateway.toml:5:47: an answer with status 204 has no body
gateway.toml:8:37: `upstream.b.fallback.to` is the upstream itself
gateway.toml:11:31: `upstream.c.fallback.on`: expected "breaker", "unhealthy" or "connect", found "reset"
gateway.toml:11:46: upstream "aa" is not defined
  hint: defined: "a", "b", "c", "d"
gateway.toml:11:76: `headers.x-item`: the route's path "/*" has no parameter "id"
  hint: a parameter is a segment of the route's path: "/items/{id}"
gateway.toml:14:1: `upstream.d.fallback.to` is missing
  hint: for example: to = "items""#,
    );
}
