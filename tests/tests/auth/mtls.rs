//! Client certificates: S9.

use std::io::{Read, Write};

use lab::{certs::Authority, tls::TlsClient};

use super::*;

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
    let get = |shown| -> Result<String> {
        let client = TlsClient::new(&authority.pem, shown, &[])?;
        let mut stream = client.connect(rig.net.client(1), SocketAddr::from((VIP4, 443)), "shop.test")?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = get(Some(&acme))?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("acme"), "{answer}");
    for (result, shown) in [("unknown", Some(&other)), ("missing", None), ("malformed", Some(&both))] {
        let answer = get(shown)?;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("unauthorized"), "{result}: {answer}");
        assert_eq!(counted(&rig, "cert", result)?, 1.0, "{result}");
    }
    Ok(())
}
