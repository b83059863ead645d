//! How problems are told.

use std::path::Path;

use gateway::config;

use super::says;

#[test]
fn everything_is_told_in_one_go() {
    says(
        r#"
[listener.web]
bind = "80"
real_ip = { from = "10.0.0.0/8", header = "a b" }

[upstream.users]
to = ["10.0.0.1"]
timeout = { connect = 5, conect = "1s" }

[route.a]
path = "a"
to = "user"
"#,
        r#"
gateway.toml:3:8: `listener.web.bind`: expected an address such as ":80", found "80"
  hint: write ":80" for every address of the host
gateway.toml:4:43: `listener.web.real_ip.header`: expected a header field's name such as "x-version", found "a b"
gateway.toml:7:7: `upstream.users.to`: expected a target such as "10.0.0.1:8080", found "10.0.0.1"
  hint: add the port: "10.0.0.1:80"
gateway.toml:8:23: `upstream.users.timeout.connect`: expected a duration such as "250ms", found 5
  hint: give a unit: "5s" or "5ms"
gateway.toml:8:26: unknown key `upstream.users.timeout.conect`
  hint: did you mean `connect`?
gateway.toml:11:8: `route.a.path`: expected a path such as "/items/*", found "a"
  hint: a path starts with a slash: "/a"
gateway.toml:12:6: upstream "user" is not defined
  hint: did you mean "users"?"#,
    );
}

#[test]
fn problems_are_data_too() {
    let errors =
        config::parse("[gateway]\ndrain = 5\nx = 1\n", Path::new("gateway.toml")).expect_err("wrong");
    let json = serde_json::to_value(&errors).expect("serialises");
    assert_eq!(json["more"], 0);
    assert_eq!(
        json["problems"][2],
        serde_json::json!({
            "file": "gateway.toml",
            "line": 2,
            "column": 9,
            "message": "`gateway.drain`: expected a duration such as \"250ms\", found 5",
            "hint": "give a unit: \"5s\" or \"5ms\"",
            "kind": "value",
        })
    );
    assert_eq!(serde_json::from_value::<config::ConfigErrors>(json).expect("reads back"), errors);
}

#[test]
fn past_a_thousand_problems_are_only_counted() {
    let text: String = (0..1500).map(|n| format!("key{n} = 1\n")).collect();
    let errors = config::parse(&text, Path::new("gateway.toml")).expect_err("wrong");
    assert_eq!((errors.problems.len(), errors.more), (1000, 500));
    assert!(errors.to_string().ends_with("\nand 500 more problems"));
}

#[test]
fn control_characters_of_a_config_do_not_reach_the_terminal() {
    let text = "\"a\\u001b[31m\" = 1\n[gateway]\nname = \"\\u001b[2J\\n\"\n";
    let errors = config::parse(text, Path::new("gateway.toml")).expect_err("wrong").to_string();
    assert!(!errors.contains('\u{1b}'), "{errors}");
}
