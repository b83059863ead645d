//! What testssl.sh finds.

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
    "HSTS",
    "heartbleed",
    "CCS",
    "ticketbleed",
    "ROBOT",
    "secure_client_renego",
    "LUCKY13",
];

/// All findings of one listener, whose certificate has this key.
fn findings(key: KeyPair) -> Result<Vec<Value>> {
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
    command.args(["--connect-timeout", "10", "--openssl-timeout", "10", "--add-ca"]).arg(&ca);
    command.arg("--jsonfile").arg(&found).arg(format!("https://shop.test:{PORT}"));
    let output = command.stdin(Stdio::null()).output()?;
    let text = std::fs::read_to_string(&found).unwrap_or_default();
    drop(turn);
    serde_json::from_str(&text).with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stdout)))
}

fn judge(findings: &[Value]) -> Result<()> {
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    for made in MADE {
        ensure!(
            findings.iter().any(|finding| of(finding, "id") == made),
            "{made} was not looked at: {findings:#?}"
        );
    }
    let bad: Vec<&Value> =
        findings.iter().filter(|finding| ABOVE_LOW.contains(&of(finding, "severity").as_str())).collect();
    ensure!(bad.is_empty(), "{bad:#?}");
    Ok(())
}

// S8
#[test]
fn testssl_finds_nothing_above_low_with_a_key_of_p_256() -> Result<()> {
    lab_test!();
    if tools::missing("testssl") {
        lab::skip("testssl.sh", "`testssl` is not installed; `cargo xtask setup` installs it");
        return Ok(());
    }
    judge(&findings(KeyPair::generate()?)?)
}
