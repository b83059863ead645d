use super::says;

#[test]
fn limits_that_cannot_be_meant_are_refused_with_their_place_and_cure() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["10.0.0.1:1"]
limit = ["per-client", "per-clent"]
[limit.per-client]
rate = "100"
key = ["ip", "user", "ip"]
[limit.bytes]
rate = "10MiB/s"
[limit.none]
unit = "connections"
[limit.both]
unit = "connections"
max = 5
rate = "5/s"
[limit.soft]
rate = "5/s"
shed = "150%"
[limit.less]
rate = "5/s"
mode = "soft"
shed = "50%"
[limit.dynamic]
rate = "5/s"
mode = "dynamic"
[limit.down]
rate = { from = "5/s", to = "1/s" }
mode = "dynamic"
target = { p99 = "1s" }
[limit.window]
rate = "5/s"
algorithm = "fixed-window"
burst = 5
[limit.cost]
rate = "5/s"
cost = "body"
"#,
        r#"
gateway.toml:5:24: limit "per-clent" is not defined
  hint: did you mean "per-client"?
gateway.toml:7:8: `limit.per-client.rate`: expected a rate such as "100/s", found "100"
  hint: write what it is per: "100/s", "1000/15m" or "10MiB/s"
gateway.toml:8:14: `limit.per-client.key`: expected a part of a key, found "user"
  hint: it is ip, consumer, route, host, version, method, path, header:NAME, query:NAME, cookie:NAME or claim:NAME
gateway.toml:10:8: `limit.bytes`: 10MiB/s is not a rate of requests
  hint: a rate of bytes goes with unit = "bytes"
gateway.toml:11:8: `limit.none.rate` is missing
  hint: for example: rate = "100/s"
gateway.toml:16:8: `limit.both.rate` does not go with unit = "connections"
  hint: how many there may be at once says `max`
gateway.toml:19:8: `limit.soft.shed` only works with mode = "soft"
  hint: write mode = "soft", or drop it
gateway.toml:23:8: `limit.less.shed` is 50%, less than the rate itself
  hint: it is a share of the rate, at least "100%"
gateway.toml:24:8: `limit.dynamic.target` says nothing that is to be kept
  hint: for example: target = { p99 = "250ms", errors = "2%" }
gateway.toml:25:8: `limit.dynamic` is dynamic: between what does it move?
  hint: write rate = { from = "200/s", to = "5000/s" }
gateway.toml:28:1: `limit.down.rate`: `from` is more than `to`
  hint: `from` is the least, `to` the most
gateway.toml:34:9: `limit.window.burst` only works with token buckets
  hint: a window's rate is all that passes in it
gateway.toml:37:8: `limit.cost.cost`: expected a field of the answer, found "body"
  hint: it is "header:x-cost" or "json:/usage/total_tokens""#,
    );
}

#[test]
fn a_store_that_cannot_be_one_is_named_without_its_secret() {
    let of = |redis: &str| {
        format!(
            "[listener.web]\nbind = \":80\"\n[route.all]\nto = [\"10.0.0.1:1\"]\n[shared]\nredis = {redis}\nbudget = \"2s\"\n"
        )
    };
    let budget = "gateway.toml:7:10: `shared.budget`: must be from 1ms to 1s, found \"2s\"";
    for (redis, told) in [
        (
            "\"redis://:word@10.0.0.5\"",
            "a secret does not belong into the config\n  hint: write redis = { env = \"REDIS_URL\" }",
        ),
        (
            "\"http://10.0.0.5\"",
            "expected a place such as \"redis://10.0.0.5:6379\"\n  hint: it begins with redis://, or rediss:// with TLS",
        ),
        (
            "\"redis://\"",
            "expected a place such as \"redis://10.0.0.5:6379\"\n  hint: it is redis://HOST:PORT or redis://HOST:PORT/DATABASE",
        ),
    ] {
        says(&of(redis), &format!("\ngateway.toml:6:9: `shared.redis`: {told}\n{budget}"));
    }
}

#[test]
fn limits_that_cannot_be_shared_are_named_when_they_are_asked_to_be() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["10.0.0.1:1"]
[shared]
redis = "redis://10.0.0.5:6379"
on_error = "open"
[limit.at-once]
unit = "connections"
max = 5
shared = true
[limit.dynamic]
mode = "dynamic"
rate = { from = "1/s", to = "5/s" }
target = { p99 = "1s" }
shared = true
[limit.paced]
unit = "bytes"
rate = "1MiB/s"
pace = true
shared = true
[limit.own]
unit = "connections"
max = 5
"#,
        r#"
gateway.toml:7:12: `shared.on_error`: expected "local", "pass" or "refuse", found "open"
gateway.toml:11:10: `limit.at-once.shared`: requests at once are each gateway's own
  hint: leave it out: every gateway has as much for itself
gateway.toml:16:10: `limit.dynamic.shared`: a dynamic limit follows what its own gateway sees
  hint: leave it out: every gateway has as much for itself
gateway.toml:21:10: `limit.paced.shared`: what is sent waits for its turn at its own gateway
  hint: leave it out: every gateway has as much for itself"#,
    );
}

#[test]
fn limits_that_the_kernel_half_or_a_pace_cannot_hold_are_named() {
    says(
        r#"[listener.web]
bind = ":80"
[route.all]
to = ["10.0.0.1:1"]
[kernel]
limit = { new = "7/s" }
[limit.consumers]
rate = "5/s"
key = "consumer"
kernel = true
[limit.clients]
rate = "5/s"
key = "ip"
kernel = true
[limit.paced]
rate = "5/s"
pace = true
"#,
        r#"
gateway.toml:10:10: `limit.consumers.kernel`: the kernel half cannot hold such a limit
  hint: it is hard, by "ip" (`ipv4_prefix` 32, `ipv6_prefix` as in kernel.limit), of requests a second, each of cost 1
gateway.toml:14:10: `limit.clients.kernel`: `kernel.limit.new` says something else
  hint: leave `kernel.limit.new` out
gateway.toml:17:8: `limit.paced.pace` only works with hard token buckets of bytes
  hint: write unit = "bytes", and no `mode`, `algorithm` or `ban`"#,
    );
}
