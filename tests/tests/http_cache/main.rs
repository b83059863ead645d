//! The public suite of HTTP caching, https://cache-tests.fyi (npm package http-cache-tests), with its own origin server
//! behind the gateway.

use std::{path::PathBuf, process::Stdio};

use lab::{peers, prelude::*, tools};

/// Required tests that the suite counts neither as passed nor as failed, and why.
const NOT_COUNTED: [&str; 5] = [
    // The origin breaks off, so there is no answer to pass on; that of the suite's "stale-close", on which they depend, is
    // not served stale without a word of the origin.
    "stale-close-must-revalidate",
    "stale-close-proxy-revalidate",
    "stale-close-no-cache",
    "stale-close-s-maxage=2",
    // Content-Length beside Transfer-Encoding: two readers would take it differently, so it is refused, and what the test
    // begins with does not work.
    "headers-store-Transfer-Encoding",
];

fn package() -> Option<PathBuf> {
    let modules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/http-cache-tests/node_modules");
    let package = modules.join("http-cache-tests").canonicalize().ok()?;
    package.join("tests/index.mjs").exists().then_some(package)
}

#[test]
fn the_public_suite_finds_a_cache_that_is_correct() -> Result<()> {
    lab_test!();
    if tools::missing("node") {
        return Ok(());
    }
    let Some(package) = package() else {
        eprintln!("skipped: http-cache-tests is not installed; `cargo xtask setup` installs it");
        return Ok(());
    };
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backend = net.backend(1);
    let at = backend.at(8000);
    let dir = peers::folder()?;
    let pid = dir.path().join("pid").display().to_string();
    let server = package.join("server/server.mjs").display().to_string();
    let variables =
        ["npm_config_protocol=http", "npm_config_port=8000", &format!("npm_config_pidfile={pid}")];
    let arguments = [&variables[..], &["node", &server]].concat();
    let _origin = peers::run(&backend.namespace, "env", &arguments, dir, at, None)?;
    let config = format!(
        "[listener.web]\nbind = \":80\"\n[cache.c]\nheuristic = true\nstore_set_cookie = true\n\
         [route.all]\nto = [\"{at}\"]\ncache = \"c\"\n"
    );
    let gateway = Gateway::start(&net, &config)?;
    let runner = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http_cache/run.mjs");
    let base = format!("http://{}", gateway.at4());
    let mut command = net.client(1).namespace.command("node")?;
    command.args(["--no-warnings", runner, &package.display().to_string(), &base]).stdin(Stdio::null());
    let output = command.output().context("cannot run node")?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    println!("{told}");
    let of = |which: &str| -> Vec<&str> {
        told["required"][which].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    assert_eq!(of("failed"), [""; 0], "{told}");
    assert!(of("uncounted").iter().all(|id| NOT_COUNTED.contains(id)), "{told}");
    assert!(told["required"]["passed"].as_u64() >= Some(152), "{told}");
    assert!(told["optimal"]["passed"].as_u64() >= Some(78), "{told}");
    Ok(())
}
