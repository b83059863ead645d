//! Caches.

use super::says;

#[test]
fn caches_that_cannot_work_are_named() {
    says(
        r#"
[listener.web]
bind = ":80"
[cache.public]
memory = "2MiB"
max_body = "1MiB"
override = true
key = ["hots", "query", "query:a", "header:x y"]
bypass = ["path"]
ttl = "0s"
[cache.other]
disk = { path = "/x", size = "1MiB" }
variants = 0
[route.a]
path = "/a"
to = ["127.0.0.1:1"]
cache = "pubilc"
[route.b]
path = "/b"
respond = {}
cache = "public"
"#,
        r#"
gateway.toml:8:7: "query" is all parameters, "query:a" too
  hint: leave one of them out
gateway.toml:8:8: `cache.public.key`: "hots" is no part of a key
  hint: did you mean "host"?
gateway.toml:8:36: `cache.public.key`: "header:x y" is no part of a key
  hint: it is host, path, query, query:NAME, header:NAME, cookie:NAME, consumer or body
gateway.toml:9:11: `cache.public.bypass`: expected what a request has, such as "cookie:session", found "path"
  hint: it is query:NAME, header:NAME or cookie:NAME
gateway.toml:10:7: `cache.public.ttl`: must be from 1ms to 366d, found "0s"
gateway.toml:12:30: `cache.other.disk.size`: must be from 4MiB to 64TiB, found "1MiB"
gateway.toml:13:12: `cache.other.variants`: must be from 1 to 1000, found 0
gateway.toml:17:9: cache "pubilc" is not defined
  hint: did you mean "public"?
gateway.toml:21:9: `cache` keeps what an upstream answers, and this route has none"#,
    );
}

#[test]
fn a_cache_that_contradicts_itself_is_named() {
    says(
        r#"
[listener.web]
bind = ":80"
[cache.public]
memory = "2MiB"
max_body = "1MiB"
override = true
key = ["query", "query:a"]
disk = { path = "/x", size = "4MiB" }
[route.b]
respond = {}
cache = "public"
[route.a]
path = "/a"
to = ["127.0.0.1:1"]
cache = "pubilc"
"#,
        r#"
gateway.toml:6:12: `cache.public.max_body`: one response may take a quarter of `memory` at most, 512KiB
  hint: set max_body lower, or memory higher
gateway.toml:7:12: `cache.public.override` needs a `ttl` that holds instead
  hint: add ttl = "30s"
gateway.toml:8:7: "query" is all parameters, "query:a" too
  hint: leave one of them out
gateway.toml:9:30: `cache.public.disk.size`: with a `max_body` of 1MiB it must be 5MiB or more
  hint: set size higher, or max_body lower
gateway.toml:12:9: `cache` keeps what an upstream answers, and this route has none
gateway.toml:16:9: cache "pubilc" is not defined
  hint: did you mean "public"?"#,
    );
}
