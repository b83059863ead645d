//! What testssl.sh finds.

use std::net::IpAddr;

use rcgen::KeyPair;

use super::*;

/// Of severities. WARN: it could not find out.
const ABOVE_LOW: [&str; 5] = ["MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN"];

/// Checks of each kind that must have been made.
const MADE: [&str; 12] = [
    "SSLv3",
    "TLS1_3",
    "ALPN",
    "PFS",
    "cert_chain_of_trust",
    "HSTS_time",
    "heartbleed",
    "CCS",
    "ticketbleed",
    "ROBOT",
    "secure_client_renego",
    "LUCKY13",
];

/// All findings of one listener, whose certificate has this key.
fn findings(key: KeyPair, checks: &[&str]) -> Result<Vec<Value>> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[listener.secure]\nbind = \":{PORT}\"\ntls = {{ cert = \"main\" }}\nhsts = \"365d\"\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n\
         [route.all]\nto = {}\nrewrite = {{ response = {{ set = {{ \
         x-frame-options = \"DENY\", x-content-type-options = \"nosniff\", \
         content-security-policy = \"default-src 'self'\", referrer-policy = \"no-referrer\" }} }} }}\n",
        targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    let authority = Authority::new()?;
    authority.issue_public(key, &["shop.test"])?.write(&gateway.file(""), "main")?;
    let (ca, found) = (gateway.file("ca.pem"), gateway.file("found.json"));
    std::fs::write(&ca, &authority.pem)?;
    gateway.run()?;
    without_names(net.client(1))?;
    let mut command = net.client(1).namespace.command("testssl")?;
    command.args([
        "--quiet",
        "--warnings",
        "off",
        "--color",
        "0",
        "--nodns",
        "none",
        "--ip",
        &VIP4.to_string(),
    ]);
    command.args(["--connect-timeout", "60", "--openssl-timeout", "60", "--add-ca"]).arg(&ca);
    command.arg("--jsonfile").arg(&found).args(checks).arg(format!("https://shop.test:{PORT}"));
    let output = command.stdin(Stdio::null()).output()?;
    let text = std::fs::read_to_string(&found).unwrap_or_default();
    drop(turn);
    serde_json::from_str(&text).with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stdout)))
}

/// testssl.sh asks for a name that does not exist again and again: what cannot be reached says no at once.
fn without_names(node: &Node) -> Result<()> {
    let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for server in config.lines().filter_map(|line| line.strip_prefix("nameserver ")) {
        if server.trim().parse::<IpAddr>().is_ok_and(|server| !server.is_loopback()) {
            node.namespace.output("ip", &["route", "add", "unreachable", server.trim()])?;
        }
    }
    Ok(())
}

/// What it could not find out on a machine that has too much to do is asked again.
fn judged(key: impl Fn() -> Result<KeyPair>, checks: &[&str], made: &[&str]) -> Result<()> {
    for _ in 0..2 {
        let found = findings(key()?, checks)?;
        if !found.iter().any(|finding| finding["severity"] == "WARN" && finding["id"] != "engine_problem") {
            return judge(&found, made);
        }
    }
    judge(&findings(key()?, checks)?, made)
}

fn judge(findings: &[Value], made: &[&str]) -> Result<()> {
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    for made in made {
        ensure!(
            findings.iter().any(|finding| of(finding, "id") == *made),
            "{made} was not looked at: {findings:#?}"
        );
    }
    let bad = |finding: &&Value| {
        // That is of the openssl here.
        of(finding, "id") != "engine_problem" && ABOVE_LOW.contains(&of(finding, "severity").as_str())
    };
    let bad: Vec<&Value> = findings.iter().filter(bad).collect();
    ensure!(bad.is_empty(), "{bad:#?}");
    Ok(())
}

fn there() -> bool {
    let there = !tools::missing("testssl");
    if !there {
        lab::skip("testssl.sh", "`testssl` is not installed; `cargo xtask setup` installs it");
    }
    there
}

// S8
#[test]
fn testssl_finds_nothing_above_low() -> Result<()> {
    lab_test!();
    match there() {
        true => judged(|| Ok(KeyPair::generate()?), &[], &MADE),
        false => Ok(()),
    }
}

// S8: what depends on the key.
#[test]
fn testssl_finds_nothing_above_low_with_a_key_of_rsa() -> Result<()> {
    lab_test!();
    let checks = ["--protocols", "--standard", "--fs", "--server-defaults", "--server-preference", "--robot"];
    let made = ["TLS1_3", "PFS", "cert_keySize", "cert_chain_of_trust", "cipher_negotiated", "ROBOT"];
    match there() {
        true => judged(|| Ok(KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?), &checks, &made),
        false => Ok(()),
    }
}
