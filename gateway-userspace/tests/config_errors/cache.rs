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
disk = { path = "/x", size = "1GiB" }
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
"#,
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
[route.b]
respond = {}
cache = "public"
[route.a]
path = "/a"
to = ["127.0.0.1:1"]
cache = "pubilc"
"#,
        r#"
"#,
    );
}
