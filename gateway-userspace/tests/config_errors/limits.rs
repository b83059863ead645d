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
"#,
    );
}
