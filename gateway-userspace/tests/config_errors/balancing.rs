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
TO BE FILLED"#,
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
TO BE FILLED"#,
    );
}
