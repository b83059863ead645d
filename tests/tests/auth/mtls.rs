//! Client certificates: S9.

use std::io::{Read, Write};

use lab::{
    certs::{Authority, Issued},
    tls::TlsClient,
};

use super::*;

/// The answer to one who shows this certificate.
fn get(rig: &Rig, authority: &Authority, shown: Option<&Issued>) -> Result<String> {
    let client = TlsClient::new(&authority.pem, shown, &[])?;
    let mut stream = client.connect(rig.net.client(1), SocketAddr::from((VIP4, 443)), "shop.test")?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

// S9
#[test]
fn a_certificate_says_who_calls() -> Result<()> {
    lab_test!();
    let authority = Authority::new()?;
    let files = lab::cleanup::scratch()?;
    std::fs::write(files.path().join("ca.pem"), &authority.pem)?;
    authority.issue(&["shop.test"])?.write(files.path(), "server")?;
    let at = files.path().display();
    let (acme, other) = (authority.issue(&["app.acme.test"])?, authority.issue(&["other.test"])?);
    let both = authority.issue(&["app.acme.test", "b.test"])?;
    let rig = Rig::start(1, |backends| {
        format!(
            r#"
[cert.server]
chain = "{at}/server.pem"
key = {{ file = "{at}/server.key" }}
[listener.web]
bind = ":443"
tls = {{ cert = "server", client_ca = "{at}/ca.pem", client = "request" }}
[upstream.app]
to = "{}"
[auth.cert]
type = "mtls"
[consumer.acme]
certs = "dns:app.acme.test"
[consumer.b]
certs = ["uri:spiffe://b.test/app", "dns:b.test"]
[route.all]
to = "app"
auth = "cert"
rewrite.path = "/echo"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
"#,
            backends[0].addr
        )
    })?;
    let get = |shown| get(&rig, &authority, shown);
    let answer = get(Some(&acme))?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("acme"), "{answer}");
    for (result, shown) in [("unknown", Some(&other)), ("missing", None), ("malformed", Some(&both))] {
        let answer = get(shown)?;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("unauthorized"), "{result}: {answer}");
        assert_eq!(counted(&rig, "cert", result)?, 1.0, "{result}");
    }
    Ok(())
}

// S9: SPIFFE ids, subjects, fingerprints, and those that are revoked
#[test]
fn a_certificate_is_known_by_its_spiffe_id_subject_or_fingerprint_until_it_is_revoked() -> Result<()> {
    lab_test!();
    let authority = Authority::new()?;
    let files = lab::cleanup::scratch()?;
    std::fs::write(files.path().join("ca.pem"), &authority.pem)?;
    authority.issue(&["shop.test"])?.write(files.path(), "server")?;
    let spiffe = authority.issue_client("any", Some("spiffe://mesh.test/ns/shop/sa/cart"))?;
    let near = authority.issue_client("any", Some("spiffe://mesh.test/ns/shop/sa/cart2"))?;
    let subject = authority.issue_client("batch.mesh.test", None)?;
    let pinned = authority.issue_client("pinned", None)?;
    let stranger = Authority::new()?.issue_client("any", Some("spiffe://mesh.test/ns/shop/sa/cart"))?;
    let print = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &lab::tls::der(&pinned.chain)?);
    let print: String = print.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let crl = |revoked: &[&Issued]| -> Result<()> {
        Ok(std::fs::write(files.path().join("crl.pem"), authority.revoke(revoked, 4000)?)?)
    };
    crl(&[])?;
    let at = files.path().display();
    let rig = Rig::start(1, |backends| {
        format!(
            r#"
[cert.server]
chain = "{at}/server.pem"
key = {{ file = "{at}/server.key" }}
[listener.web]
bind = ":443"
tls = {{ cert = "server", client_ca = "{at}/ca.pem", client_crl = "{at}/crl.pem", client = "request" }}
[upstream.app]
to = "{}"
[auth.cert]
type = "mtls"
[consumer.cart]
certs = "uri:spiffe://mesh.test/ns/shop/sa/cart"
[consumer.batch]
certs = "subject:CN=batch.mesh.test"
[consumer.pinned]
certs = "sha256:{print}"
[route.all]
to = "app"
auth = "cert"
rewrite.path = "/echo"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
"#,
            backends[0].addr
        )
    })?;
    // `None`: no connection.
    let get = |shown| get(&rig, &authority, Some(shown)).ok();
    for (consumer, shown) in [("cart", &spiffe), ("batch", &subject), ("pinned", &pinned)] {
        let answer = get(shown).context("no answer")?;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(consumer), "{consumer}: {answer}");
    }
    let answer = get(&near).context("no answer")?;
    assert!(answer.starts_with("HTTP/1.1 401"), "another's id is another's: {answer}");
    assert_eq!(get(&stranger), None, "the id alone says nothing: who signed it counts");
    // Revoked while the gateway runs.
    crl(&[&spiffe])?;
    eventually("it is let in no more", || Ok(get(&spiffe).is_none()))?;
    assert!(get(&subject).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")), "others are");
    Ok(())
}
