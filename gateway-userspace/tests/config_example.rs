//! The whole example of the config that is planned: what this version does not do yet is said by name and place, and
//! nothing else is wrong with it.

use std::path::Path;

use gateway::config::{self, ProblemKind};

const NOT_YET: &str = r#"
33:26 `listener.https.protocols = "h3"` is not supported yet
116:1 `route.chat.ai` is not supported yet"#;

#[test]
fn the_example_gives_nothing_but_what_is_not_supported_yet() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_testdata/gateway.example.toml");
    let errors = config::load(&file).expect_err("it names what is planned");
    let other: Vec<_> = errors.problems.iter().filter(|p| p.kind != ProblemKind::NotSupported).collect();
    assert!(other.is_empty(), "{other:#?}");
    let said: Vec<String> =
        errors.problems.iter().map(|p| format!("{}:{} {}", p.line, p.column, p.message)).collect();
    assert_eq!(said.join("\n"), NOT_YET.trim_start());
}
