//! Signed requests: S5 (RFC 9421, RFC 9530).

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn digest_of(body: &str) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes())))
}

/// What is signed, and how.
#[derive(Clone)]
struct Signer {
    secret: &'static str,
    keyid: &'static str,
    created: u64,
    path: &'static str,
    digest: Option<String>,
    nonce: String,
}

impl Signer {
    fn new(nonce: &str) -> Signer {
        let (secret, keyid, path) = (SECRET, "acme/s1", "/echo-body");
        Signer { secret, keyid, created: now(), path, digest: None, nonce: nonce.into() }
    }

    /// The fields of a request.
    fn fields(&self, method: &str) -> String {
        let digest = self.digest.as_ref().map(|digest| format!("\"content-digest\": {digest}\n"));
        let named = if self.digest.is_some() { " \"content-digest\"" } else { "" };
        let params = format!(
            "(\"@method\" \"@authority\" \"@path\"{named});created={};keyid=\"{}\";alg=\"hmac-sha256\";nonce=\"{}\"",
            self.created, self.keyid, self.nonce
        );
        let base = format!(
            "\"@method\": {method}\n\"@authority\": shop.test\n\"@path\": {}\n{}\"@signature-params\": {params}",
            self.path,
            digest.unwrap_or_default()
        );
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes()), base.as_bytes());
        let sent =
            self.digest.as_ref().map(|digest| format!("content-digest: {digest}\r\n")).unwrap_or_default();
        format!("{sent}signature-input: sig1={params}\r\nsignature: sig1=:{}:\r\n", STANDARD.encode(tag))
    }
}

fn start() -> Result<Rig> {
    let mut rig = rig("[route.all]\nto = \"app\"\n")?;
    let secret = rig.gateway.file("signing.key");
    std::fs::write(&secret, SECRET)?;
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    rig.gateway.write(&format!(
        r#"
[gateway]
workers = 4
[listener.web]
bind = ":80"
timeout = {{ body = "1s" }}
[upstream.app]
to = "{}"
[auth.signed]
type = "hmac"
window = "1m"
[consumer.acme]
secrets = [{{ id = "s1", secret = {{ file = "signing.key" }} }}, {{ id = "old", secret = {{ file = "signing.key" }}, until = 2020-01-01 }}]
[route.all]
to = "app"
auth = "signed"
"#,
        rig.backends[0].addr
    ))?;
    rig.gateway.stop()?;
    rig.gateway.run()?;
    Ok(rig)
}

fn post(rig: &Rig, signer: &Signer, body: &str) -> Result<Response> {
    let length = body.len();
    ask(
        rig,
        "POST /echo-body",
        &format!("{}content-length: {length}\r\n\r\n{body}", signer.fields("POST"))
            .replace("\r\n\r\n\r\n", "\r\n\r\n"),
    )
}

fn is_refused(rig: &Rig, result: &str, answer: &Response) -> Result<()> {
    answer.refused(401, "unauthorized").with_context(|| result.to_owned())?;
    ensure!(answer.header("www-authenticate") == Some("Signature realm=\"gateway\""), "{:?}", answer.headers);
    ensure!(counted(rig, "signed", result)? >= 1.0, "{result}");
    Ok(())
}

// S5
#[test]
fn a_signed_request_passes_once_and_only_as_it_was_signed() -> Result<()> {
    lab_test!();
    let rig = start()?;
    let get = |signer: &Signer, method: &str, target: &str| {
        ask(&rig, &format!("{method} {target}"), &signer.fields("GET"))
    };
    assert_eq!(get(&Signer::new("a"), "GET", "/echo-body")?.status, 200);
    // A copy, on whatever connection and worker it comes.
    for _ in 0..8 {
        is_refused(
            &rig,
            "replayed",
            &get(&Signer { created: now() - 1, ..Signer::new("a") }, "GET", "/echo-body")?,
        )
        .or_else(|_| {
            is_refused(
                &rig,
                "replayed",
                &get(&Signer { created: now() - 1, ..Signer::new("a") }, "GET", "/echo-body")?,
            )
        })?;
    }
    // Another method, path or query than was signed.
    is_refused(&rig, "signature", &get(&Signer::new("b"), "PUT", "/echo-body")?)?;
    is_refused(&rig, "signature", &get(&Signer::new("c"), "GET", "/other")?)?;
    is_refused(&rig, "claims", &get(&Signer::new("d"), "GET", "/echo-body?admin=1")?)?;
    // Another secret, another's name, one that is no more, another time.
    let wrong = Signer { secret: "another secret of thirty-two byte", ..Signer::new("e") };
    is_refused(&rig, "signature", &get(&wrong, "GET", "/echo-body")?)?;
    is_refused(
        &rig,
        "unknown",
        &get(&Signer { keyid: "acme/s2", ..Signer::new("f") }, "GET", "/echo-body")?,
    )?;
    is_refused(
        &rig,
        "expired",
        &get(&Signer { keyid: "acme/old", ..Signer::new("g") }, "GET", "/echo-body")?,
    )?;
    is_refused(
        &rig,
        "expired",
        &get(&Signer { created: now() - 61, ..Signer::new("h") }, "GET", "/echo-body")?,
    )?;
    is_refused(
        &rig,
        "early",
        &get(&Signer { created: now() + 90, ..Signer::new("i") }, "GET", "/echo-body")?,
    )?;
    is_refused(&rig, "missing", &ask(&rig, "GET /echo-body", "")?)?;
    is_refused(&rig, "malformed", &ask(&rig, "GET /echo-body", "signature: sig1=:AAAA:\r\n")?)?;
    let fields = Signer::new("j").fields("GET");
    is_refused(&rig, "malformed", &ask(&rig, "GET /echo-body", &format!("{fields}{fields}"))?)
}

// S5
#[test]
fn a_body_goes_on_only_when_all_of_it_is_what_was_signed() -> Result<()> {
    lab_test!();
    let rig = start()?;
    let signer = |nonce: &str, digest: Option<String>| Signer { digest, ..Signer::new(nonce) };
    let good = post(&rig, &signer("a", Some(digest_of("hello"))), "hello")?;
    assert_eq!((good.status, good.text().as_str()), (200, "hello"));
    let before = rig.backends[0].stats()?.requests;
    post(&rig, &signer("b", Some(digest_of("hello"))), "HELLO")?.refused(401, "unauthorized")?;
    post(&rig, &signer("c", None), "hello")?.refused(401, "unauthorized")?;
    post(&rig, &signer("d", Some("md5=:AAAA:".into())), "hello")?.refused(401, "unauthorized")?;
    // The upstream has seen nothing of them.
    assert_eq!(rig.backends[0].stats()?.requests, before);
    let large = "x".repeat(300_000);
    assert_eq!(post(&rig, &signer("e", Some(digest_of(&large))), &large)?.text().len(), large.len());
    // In pieces, with the signed one's digest.
    let chunked = format!(
        "{}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        signer("f", Some(digest_of("hello"))).fields("POST")
    );
    let answer = ask(&rig, "POST /echo-body", &chunked)?;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    Ok(())
}

// S5, T8
#[test]
fn a_signed_body_that_stops_coming_is_timed_out() -> Result<()> {
    lab_test!();
    let rig = start()?;
    let signer = Signer { digest: Some(digest_of("hello")), ..Signer::new("a") };
    let mut client = rig.client()?;
    client.send(format!(
        "POST /echo-body HTTP/1.1\r\nhost: shop.test\r\n{}content-length: 5\r\n\r\nhel",
        signer.fields("POST")
    ))?;
    let began = Instant::now();
    client.response()?.refused(408, "body_timeout")?;
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    client.closed(Duration::from_secs(3))?;
    assert_eq!(rig.gateway.log_of_path("/echo-body")?["why"], "body_timeout");
    // One that comes slowly, but comes.
    let mut client = rig.client()?;
    let signer = Signer { digest: Some(digest_of("hello")), ..Signer::new("b") };
    client.send(format!(
        "POST /echo-body HTTP/1.1\r\nhost: shop.test\r\n{}content-length: 5\r\n\r\n",
        signer.fields("POST")
    ))?;
    for byte in "hello".chars() {
        std::thread::sleep(Duration::from_millis(300));
        client.send(byte.to_string())?;
    }
    assert_eq!(client.response()?.text(), "hello");
    assert_eq!(rig.backends[0].stats()?.requests, 1);
    Ok(())
}

// S5
#[test]
fn a_signature_that_was_used_stays_so_over_restarts_kills_and_upgrades() -> Result<()> {
    lab_test!();
    let mut rig = start()?;
    let fields = Signer::new("a").fields("GET");
    let get = |rig: &Rig, fields: &str| ask(rig, "GET /echo-body", fields);
    assert_eq!(get(&rig, &fields)?.status, 200);
    is_refused(&rig, "replayed", &get(&rig, &fields)?)?;
    rig.gateway.cli(&["reload"])?.ok()?;
    is_refused(&rig, "replayed", &get(&rig, &fields)?)?;
    rig.gateway.stop()?;
    rig.gateway.run()?;
    is_refused(&rig, "replayed", &get(&rig, &fields)?)?;
    let second = Signer::new("b").fields("GET");
    assert_eq!(get(&rig, &second)?.status, 200);
    rig.gateway.kill();
    rig.gateway.run()?;
    for used in [&fields, &second] {
        is_refused(&rig, "replayed", &get(&rig, used)?)?;
    }
    let third = Signer::new("c").fields("GET");
    assert_eq!(get(&rig, &third)?.status, 200);
    rig.gateway.upgrade(&[])?.ok()?;
    is_refused(&rig, "replayed", &get(&rig, &third)?)?;
    assert_eq!(get(&rig, &Signer::new("d").fields("GET"))?.status, 200);
    Ok(())
}
