//! Certificates by ACME, from a real authority (pebble): S10.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio};

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    curl::Curl,
    prelude::*,
    process::Process,
    tls::{TlsClient, shown},
    tools,
};
use tempfile::TempDir;

const DIRECTORY: &str = "https://127.0.0.1:14000/dir";
/// Orders take pebble some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// An authority in the gateway's namespace, and the DNS that it asks, by which every name is there as well.
struct Pebble {
    dir: TempDir,
    _processes: [Process; 2],
}

/// Where pebble looks for answers, and for how many seconds its certificates are good.
struct Wanted {
    tls: u16,
    http: u16,
    seconds: u64,
}

const USUAL: Wanted = Wanted { tls: 443, http: 80, seconds: 86_400 };

impl Pebble {
    fn start(net: &Net, wanted: &Wanted) -> Result<Pebble> {
        let dir = lab::cleanup::scratch()?;
        let authority = Authority::new()?;
        authority.issue(&["127.0.0.1"])?.write(dir.path(), "pebble")?;
        std::fs::write(dir.path().join("ca.pem"), &authority.pem)?;
        let file = |name: &str| dir.path().join(name).display().to_string();
        let config = json!({ "pebble": {
            "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
            "certificate": file("pebble.pem"), "privateKey": file("pebble.key"),
            "httpPort": wanted.http, "tlsPort": wanted.tls, "ocspResponderURL": "",
            "certificateValidityPeriod": wanted.seconds,
        }});
        std::fs::write(dir.path().join("pebble.json"), config.to_string())?;
        let run = |program: &str, arguments: &[&str]| -> Result<Process> {
            let found = tools::find(program).context("not installed; `cargo xtask setup` installs it")?;
            let mut command = net.gateway.command(found)?;
            let log = std::fs::File::create(dir.path().join(program))?;
            command.args(arguments).env("PEBBLE_VA_NOSLEEP", "1");
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            Process::start(command)
        };
        let dns = ["-dns01", "127.0.0.1:8053", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""];
        let off = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:8055"];
        let dns = run("pebble-challtestsrv", &[&dns[..], &off].concat())?;
        let pebble =
            run("pebble", &["-config", &file("pebble.json"), "-dnsserver", "127.0.0.1:8053", "-strict"])?;
        let at = SocketAddr::from(([127, 0, 0, 1], 14000));
        eventually("pebble listens", || {
            let connected =
                net.gateway.run(|| std::net::TcpStream::connect_timeout(&at, Duration::from_secs(1)))?;
            Ok(connected.is_ok())
        })?;
        Ok(Pebble { dir, _processes: [dns, pebble] })
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The authority that its certificates are from; another each time that it starts.
    fn root(&self, net: &Net) -> Result<String> {
        let inside = lab::net::Node::of_namespace(net.gateway.clone());
        let (ca, url) = (self.ca().display().to_string(), "https://127.0.0.1:15000/roots/0");
        Ok(Curl::run(&inside, &["--cacert", &ca, url])?.text())
    }
}

/// Which of the lab's tools this needs and does not find.
fn missing() -> Option<&'static str> {
    ["pebble", "pebble-challtestsrv"].into_iter().find(|program| tools::missing(program))
}

/// The gateway's config; the names of its routes are a.test and b.test.
fn config(pebble: &Pebble, gateway_dir: &str, backends: &[Backend], acme: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\n\
         [acme]\nemail = \"ops@a.test\"\ndirectory = \"{DIRECTORY}\"\nca = \"{}\"\nstorage = \"{gateway_dir}acme\"\n{acme}\n\
         [listener.plain]\nbind = \":80\"\nredirect = \"https\"\n\
         [listener.secure]\nbind = \":443\"\ntls = {{ cert = \"auto\" }}\n\
         [route.a]\nhost = [\"a.test\", \"b.test\", \"*.c.test\"]\nto = {}\n",
        pebble.ca().display(),
        targets(backends)
    )
}

struct Rig {
    gateway: Gateway,
    pebble: Pebble,
    _backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(wanted: &Wanted, acme: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let pebble = Pebble::start(&net, wanted)?;
    let gateway = Gateway::prepare(&net, "", Default::default())?;
    let dir = gateway.file("").display().to_string();
    gateway.write(&config(&pebble, &dir, &backends, acme))?;
    let mut rig = Rig { gateway, pebble, _backends: backends, net, _turn: turn };
    rig.gateway.run()?;
    Ok(rig)
}

impl Rig {
    fn cert(&self, name: &str) -> Result<Value> {
        let all = self.gateway.cli(&["cert", "list", "-o", "json"])?.json()?;
        Ok(all[name].clone())
    }

    fn valid(&self, name: &str) -> Result<Value> {
        within(PATIENCE, "the certificate is there", || {
            let cert = self.cert(name)?;
            Ok((cert["state"] == "valid").then_some(cert))
        })
        .with_context(|| format!("{:?}", self.cert(name)))
    }

    fn get(&self, host: &str) -> Result<u16> {
        let client = TlsClient::new(&self.pebble.root(&self.net)?, None, &["http/1.1"])?;
        client.get(self.net.client(1), SocketAddr::from((VIP4, 443)), host)?;
        Ok(200)
    }
}

// S10
#[test]
fn certificates_come_by_tls_alpn_01_and_are_kept_over_a_restart() -> Result<()> {
    lab_test!();
    if let Some(program) = missing() {
        lab::skip("certificates_come_by_tls_alpn_01_and_are_kept_over_a_restart", program);
        return Ok(());
    }
    let mut rig = rig(&USUAL, "")?;
    let first = rig.valid("acme:a.test")?;
    rig.valid("acme:b.test")?;
    assert!(rig.cert("acme:*.c.test")?.is_null(), "no challenge over HTTP or TLS is for wildcards");
    assert_eq!((rig.get("a.test")?, rig.get("b.test")?), (200, 200));
    // A client that offers it without a challenge gets nothing.
    let curious = TlsClient::new(&rig.pebble.root(&rig.net)?, None, &["acme-tls/1"])?;
    assert!(curious.connect(rig.net.client(1), SocketAddr::from((VIP4, 443)), "a.test").is_err());
    let mode = |name: &str| {
        Ok::<_, anyhow::Error>(std::fs::metadata(rig.gateway.file(name))?.permissions().mode() & 0o777)
    };
    assert_eq!(mode("acme")?, 0o700);
    for file in ["acme/account.json", "acme/a.test.pem"] {
        assert_eq!(mode(file)?, 0o600, "{file}");
    }
    let expiry = rig.gateway.metrics()?.sum("cert_expiry_timestamp_seconds", &[("cert", "acme:a.test")]);
    assert!(expiry > 1e9, "{expiry}");
    rig.gateway.stop()?;
    rig.gateway.run()?;
    assert_eq!(rig.cert("acme:a.test")?["serial"], first["serial"], "it was there at once");
    assert_eq!(rig.get("a.test")?, 200);
    // On demand.
    rig.gateway.cli(&["cert", "renew", "acme:a.test"])?.ok()?;
    within(PATIENCE, "another certificate", || {
        let cert = rig.cert("acme:a.test")?;
        Ok((cert["serial"] != first["serial"] && cert["state"] == "valid").then_some(()))
    })?;
    Ok(())
}

/// The rig's config again, with another `[state]`.
fn rewrite(rig: &Rig, state: &str) -> Result<()> {
    let dir = rig.gateway.file("").display().to_string();
    let state = format!("[state]\ndirectory = \"{dir}state\"\n{state}\n");
    let config = config(&rig.pebble, &dir, &rig._backends, "");
    rig.gateway.write(&format!("{config}{state}"))
}

fn write_secret(rig: &Rig, name: &str) -> Result<()> {
    let path = rig.gateway.file(name);
    std::fs::write(&path, format!("the secret of {name}, long enough"))?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
}

// S17
#[test]
fn what_came_by_acme_is_sealed_rotated_and_refused_with_the_wrong_key() -> Result<()> {
    lab_test!();
    if let Some(program) = missing() {
        lab::skip("what_came_by_acme_is_sealed_rotated_and_refused_with_the_wrong_key", program);
        return Ok(());
    }
    let mut rig = rig(&USUAL, "")?;
    let first = rig.valid("acme:a.test")?;
    rig.valid("acme:b.test")?;
    let files = ["acme/account.json", "acme/a.test.pem", "acme/b.test.pem"];
    let read = |rig: &Rig| -> Result<Vec<Vec<u8>>> {
        files.iter().map(|file| Ok(std::fs::read(rig.gateway.file(file))?)).collect()
    };
    let clear =
        |bytes: &Vec<u8>| bytes.windows(11).any(|part| part == b"PRIVATE KEY" || part == b"key_pkcs8\":");
    assert!(read(&rig)?.iter().all(clear), "there is no key to seal with");
    // With one, what is there is sealed, and what comes is.
    write_secret(&rig, "one.key")?;
    write_secret(&rig, "two.key")?;
    rewrite(&rig, "key = { file = \"one.key\" }")?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let sealed = |rig: &Rig| -> Result<bool> {
        Ok(read(rig)?.iter().all(|bytes| bytes.starts_with(b"GWSEAL") && !clear(bytes)))
    };
    eventually("all is sealed", || sealed(&rig))?;
    assert_eq!(rig.get("a.test")?, 200);
    rig.gateway.cli(&["cert", "renew", "acme:a.test"])?.ok()?;
    let second = within(PATIENCE, "another certificate", || {
        let cert = rig.cert("acme:a.test")?;
        Ok((cert["serial"] != first["serial"] && cert["state"] == "valid").then_some(cert))
    })?;
    assert!(sealed(&rig)?);
    rig.gateway.stop()?;
    rig.gateway.run()?;
    assert_eq!(rig.cert("acme:a.test")?["serial"], second["serial"], "it was there at once");
    // Another key alone opens nothing, and none opens nothing either: both are refused, and say what to do.
    let before = read(&rig)?;
    for (state, hint) in [("key = { file = \"two.key\" }", "`old_keys`"), ("", "`key` in [state]")] {
        rewrite(&rig, state)?;
        let refused = rig.gateway.cli(&["reload"])?;
        assert!(refused.code != 0 && refused.stderr.contains(hint), "{refused:?}");
        assert!(refused.stderr.contains("a.test.pem"), "{refused:?}");
    }
    rig.gateway.stop()?;
    let (status, said) = rig.gateway.run_to_end()?;
    assert!(!status.success() && said.contains("it is sealed, and there is no key"), "{said}");
    assert_eq!(read(&rig)?, before, "nothing is lost by it");
    // With the one before beside it all is sealed anew, and that one may go.
    rewrite(&rig, "key = { file = \"two.key\" }\nold_keys = { file = \"one.key\" }")?;
    rig.gateway.run()?;
    eventually("all is sealed anew", || Ok(read(&rig)?.iter().zip(&before).all(|(now, then)| now != then)))?;
    rewrite(&rig, "key = { file = \"two.key\" }")?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!((rig.get("a.test")?, rig.get("b.test")?), (200, 200));
    Ok(())
}

// S10
#[test]
fn certificates_come_by_http_01_before_redirects_and_are_renewed_in_time() -> Result<()> {
    lab_test!();
    if let Some(program) = missing() {
        lab::skip("certificates_come_by_http_01_before_redirects_and_are_renewed_in_time", program);
        return Ok(());
    }
    let rig = rig(&Wanted { seconds: 24, ..USUAL }, "challenge = \"http-01\"")?;
    let first = rig.valid("acme:a.test")?;
    let root = rig.pebble.root(&rig.net)?;
    let client = TlsClient::new(&root, None, &["http/1.1"])?;
    let at = SocketAddr::from((VIP4, 443));
    let der = shown(&client.connect(rig.net.client(1), at, "a.test")?);
    // Nobody is turned away while it changes.
    within(PATIENCE, "the certificate is renewed", || {
        let connection = client.connect(rig.net.client(1), at, "a.test").expect("handshake");
        Ok((shown(&connection) != der).then_some(()))
    })?;
    let second = rig.valid("acme:a.test")?;
    assert!(second["serial"] != first["serial"]);
    assert!(second["not_before"].as_i64() < first["not_after"].as_i64(), "before the first one had expired");
    // What is no challenge at hand is redirected.
    let answer = Client::connect(rig.net.client(1), SocketAddr::from((VIP4, 80)))?
        .get("/.well-known/acme-challenge/none")?;
    assert_eq!(answer.status, 301);
    Ok(())
}

// S10
#[test]
fn what_the_authority_refuses_is_told_and_the_rest_goes_on() -> Result<()> {
    lab_test!();
    if let Some(program) = missing() {
        lab::skip("what_the_authority_refuses_is_told_and_the_rest_goes_on", program);
        return Ok(());
    }
    // Nobody is there.
    let rig = rig(&Wanted { http: 81, ..USUAL }, "challenge = \"http-01\"")?;
    let error = within(PATIENCE, "the failure is told", || {
        Ok(rig.cert("acme:a.test")?["error"].as_str().map(str::to_owned))
    })?;
    assert!(error.contains("connection refused") && error.contains("next try is in 60 s"), "{error}");
    assert_eq!(rig.cert("acme:a.test")?["state"], "awaited");
    let list = rig.gateway.cli(&["cert", "list"])?;
    assert!(list.stdout.contains("awaited") && list.stdout.contains("acme:a.test: "), "{}", list.stdout);
    let answer = Client::connect(rig.net.client(1), SocketAddr::from((VIP4, 80)))?.get("/")?;
    assert_eq!(answer.status, 301, "the gateway serves what it can");
    Ok(())
}
