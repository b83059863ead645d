//! Whatever is fed to it, the config reader answers: with a config, or with problems that have places in the text.

use std::{path::Path, sync::LazyLock, time::Instant};

use gateway::config;
use proptest::prelude::*;

const SEED: &str = include_str!("config_testdata/gateway.example.toml");

/// A config without what is not supported yet: mutations of it get further.
const VALID: &str = r#"
[gateway]
workers = 2
log = { level = "info" }
[kernel]
interfaces = ["eth0"]
[kernel.limit]
packets = { rate = "20k/s", burst = 40_000 }
exempt = ["10.0.0.0/8", "2001:db8:aa::/48"]
[listener.http]
bind = ":80"
max = { connections = 100, header = "32KiB", body = "unlimited" }
[upstream.items]
to = [{ addr = "10.0.0.1:80", weight = 3 }, "10.0.0.2:80"]
balance = "ip-hash"
bounded_load = 1.25
health = { path = "/healthz", every = "5s", expect = [200] }
[route.items]
host = ["api.example.com", "*.api.example.com"]
path = "/items/{id}/*"
methods = ["GET", "POST"]
headers = { x-canary = "1", x-old = false, x-user = { regex = "^[a-m]" } }
query = { debug = true }
to = "items"
rewrite = { path = "/v2/*", set = { x-id = "${param.id}", host = "a.test" }, remove = ["server"], response = { add = { x-a = "$${b" } } }
[route.rest]
to = ["127.0.0.1:3000"]
rewrite = { path = { regex = "^/a(.*)$", to = "/b${1}" } }
[route.canary]
path = "/canary"
to = { items = 95, other = 5 }
sticky = "cookie:uid"
mirror = { to = "other", share = "1.5%", body = "1KiB" }
compress = { codings = ["gzip"], min = 10, types = "text/*" }
cors = { origins = ["https://a.test", "https://*.b.test:81"], headers = "*", credentials = true, max_age = "1h" }
[upstream.other]
to = "10.0.0.3:80"
[route.gone]
path = "/gone"
respond = { status = 410, body = "gone", headers = { x-path = "${path}" } }
[route.moved]
path = "/moved/*"
redirect = { to = "https://b.test${uri}", status = 308 }
[kernel.class.office]
from = ["10.1.0.0/16"]
bytes = "10MiB/s"
[service.dns]
bind = ["192.0.2.1:53", "192.0.2.2:53"]
protocol = "udp"
to = [{ addr = "10.0.0.1:53", weight = 3 }, "10.0.0.2:53"]
health = { udp = true, send = "hex:00ff", answer = true }
limit = { packets = "1k/s" }
"#;

static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let plain = format!("{SEED}\n{VALID}");
    let mut words: Vec<String> = plain.split([' ', '\n', ',']).map(str::to_owned).collect();
    for odd in [
        "", "\"", "[", "]", "{", "}", "=", ".", "\n", "\"\"\"", "''", "-1", "1e999", "nan", "\u{0}", "é",
        "[[a]]",
    ] {
        words.push(odd.to_owned());
    }
    words
});

fn answers(text: &str) -> Result<(), TestCaseError> {
    match config::parse(text, Path::new("gateway.toml")) {
        Ok(config) => {
            let again = config::parse(&config::show(&config), Path::new("gateway.toml"));
            let again = again
                .map_err(|errors| TestCaseError::fail(format!("{errors}\n{}", config::show(&config))))?;
            prop_assert_eq!(config::diff(&config, &again), vec![]);
        }
        Err(errors) => {
            prop_assert!(!errors.problems.is_empty());
            let raw = errors.to_string().contains(|c: char| c.is_control() && c != '\n');
            prop_assert!(!raw, "control characters in {:?}", errors);
            let lines = text.split('\n').count() as u32;
            let in_text = errors.problems.iter().filter(|problem| problem.file == "gateway.toml");
            in_text.for_each(|problem| assert!(problem.line <= lines, "{problem}"));
        }
    }
    Ok(())
}

/// Some words of `text` replaced by others, cut at byte positions that may be anywhere.
fn mutate(text: &str, changes: &[(prop::sample::Index, prop::sample::Index, u8)]) -> String {
    let mut text = text.to_owned();
    for (at, with, take) in changes {
        let mut start = at.index(text.len() + 1);
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (start + usize::from(*take) % 12).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        text.replace_range(start..end, &WORDS[with.index(WORDS.len())]);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn changed_configs(changes in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index, u8)>(), 0..6)) {
        answers(&mutate(VALID, &changes))?;
        answers(&mutate(SEED, &changes))?;
    }

    /// One value of a valid config replaced: these get through the TOML parser.
    #[test]
    fn changed_values(line in any::<prop::sample::Index>(), with in any::<prop::sample::Index>(), text in "\\PC{0,12}") {
        let lines: Vec<&str> = VALID.lines().collect();
        let keys: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].contains(" = ")).collect();
        let chosen = keys[line.index(keys.len())];
        for value in [WORDS[with.index(WORDS.len())].clone(), format!("{text:?}"), format!("[{text:?}]")] {
            let mut lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
            let key = lines[chosen].split(" = ").next().unwrap_or_default().to_owned();
            lines[chosen] = format!("{key} = {value}");
            answers(&lines.join("\n"))?;
        }
    }

    #[test]
    fn any_text(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        answers(&text)?;
        answers(&String::from_utf8_lossy(&bytes))?;
    }
}

#[test]
fn what_a_problem_quotes_cannot_reach_the_terminal() {
    for text in ["[listener.web]\n1 = A\u{1b}\r\0", "a = A\u{1b}[2J", "\"\u{9b}2J\" = 1", "a = A\u{202e}b"] {
        let errors = config::parse(text, Path::new("gateway.toml")).unwrap_err().to_string();
        assert!(!errors.contains(['\u{1b}', '\u{9b}', '\r', '\0', '\u{202e}']), "{errors:?}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("a.", "")] {
        let text = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        for text in [format!("gateway = {text}"), text.clone(), format!("[{text}]"), format!("{text} = 1")] {
            assert!(config::parse(&text, Path::new("gateway.toml")).is_err());
        }
    }
    // Each level of its own is allowed.
    let keys = vec!["a"; 79].join(".");
    let text = (0..79).fold("1".to_owned(), |inner, _| format!("{{ {keys} = {inner} }}"));
    assert!(config::parse(&format!("gateway = {text}"), Path::new("gateway.toml")).is_err());
}

#[test]
fn large_files_take_time_in_proportion() {
    let began = Instant::now();
    let many = |count: usize, line: fn(usize) -> String| (0..count).map(line).collect::<String>();
    for text in [
        many(20_000, |n| format!("key{n} = 1\n")),
        many(20_000, |_| "a = 1\n".into()),
        many(20_000, |_| "[listener.a]\nbind = \":80\"\n".into()),
        many(20_000, |_| "= = =\n".into()),
        format!("x = {{ {} }}", many(20_000, |n| format!("key{n} = 1, "))),
        format!("gateway = {{ {} }}", many(20_000, |n| format!("key{n} = 1, "))),
        many(5_000, |n| format!("[listener.l{n}]\nbind = \"10.{}.{}.1:80\"\n", n / 250, n % 250)),
        many(5_000, |n| format!("[route.r{n}]\npath = \"/a/{n}\"\nto = [\"10.0.0.1:80\"]\n")),
    ] {
        let _ = config::parse(&text, Path::new("gateway.toml"));
    }
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
