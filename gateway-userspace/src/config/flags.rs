//! A config without a file: `gateway run --listen :8080 --to 127.0.0.1:3000`.

use std::{fmt::Write, path::Path};

use super::{error::ConfigErrors, model::Config, parse};

/// One listener for each of `listen`, and one route that takes every request to `to`.
pub fn from_flags(listen: &[impl AsRef<str>], to: &[impl AsRef<str>]) -> Result<Config, ConfigErrors> {
    // One line for each flag, so that a problem's line names its flag.
    let mut text = String::new();
    let mut flags = Vec::new();
    for (index, bind) in listen.iter().map(AsRef::as_ref).enumerate() {
        let name = if index == 0 { "web".to_owned() } else { format!("web-{}", index + 1) };
        let _ = writeln!(text, "listener.{name}.bind = {}", toml_string(bind));
        flags.push(format!("--listen {bind}"));
    }
    text.push_str("route.all.to = [ # --to\n");
    flags.push("--to".into());
    for target in to.iter().map(AsRef::as_ref) {
        let _ = writeln!(text, "{},", toml_string(target));
        flags.push(format!("--to {target}"));
    }
    text.push_str("]\n");

    let parsed = parse(&text, Path::new("command line")).map(|config| Config { files: Vec::new(), ..config });
    parsed.map_err(|mut errors| {
        for problem in &mut errors.problems {
            let flag = (problem.line as usize).checked_sub(1).and_then(|line| flags.get(line));
            problem.file = flag.map_or("command line", |flag| flag).escape_debug().to_string();
            (problem.line, problem.column) = (0, 0);
            if let Some((_, message)) = problem.message.split_once("`: ") {
                problem.message = message.to_owned();
            }
        }
        errors
    })
}

/// A TOML basic string, whatever is in it.
pub(super) fn toml_string(text: &str) -> String {
    // JSON's escapes are all TOML's too; only DEL must be escaped besides.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_a_whole_config() {
        let config =
            from_flags(&[":8080", "127.0.0.1:81"], &["127.0.0.1:3000", "127.0.0.1:3001"]).expect("valid");
        assert_eq!(config.listeners.keys().collect::<Vec<_>>(), ["web", "web-2"]);
        assert_eq!(config.upstreams["all"].targets.len(), 2);
        assert_eq!(config.routes["all"].to.upstreams(), ["all"]);
    }

    #[test]
    fn a_wrong_flag_is_named() {
        let errors = from_flags(&["80"], &["app:3000", "127.0.0.1"]).expect_err("invalid").to_string();
        assert_eq!(
            errors,
            "--listen 80: expected an address such as \":80\", found \"80\"\n  \
             hint: write \":80\" for every address of the host\n\
             --to 127.0.0.1: expected a target such as \"10.0.0.1:8080\", found \"127.0.0.1\"\n  \
             hint: add the port: \"127.0.0.1:80\""
        );
    }

    #[test]
    fn no_flags_are_an_error() {
        assert!(from_flags(&[] as &[&str], &["127.0.0.1:1"]).is_err());
        assert!(from_flags(&[":80"], &[] as &[&str]).is_err());
    }

    #[test]
    fn odd_flags_are_errors_and_not_toml() {
        for odd in ["\"", "\"]\n[x]", "'''", "\\", "\0", "a\r\nb", ""] {
            assert!(from_flags(&[":80"], &[odd]).is_err());
        }
    }
}
