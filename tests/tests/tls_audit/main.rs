//! TLS as an auditor looks at it, with hellos made by hand: what is spoken, and how what should not be is met. S8, S13.

use std::{io::Write, net::TcpStream, process::Stdio};

use lab::{
    backend::{start_all, targets},
    certs::Authority,
    prelude::*,
    tools,
};

mod hello;
mod testssl;

use hello::{Answer, Hello, TLS10, TLS11, TLS12, TLS13};

const PORT: u16 = 443;
/// TLS alerts (RFC 8446 section 6).
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;
const NO_APPLICATION_PROTOCOL: u8 = 120;

struct Rig {
    gateway: Gateway,
    net: Net,
    _backends: Vec<Backend>,
    _turn: lab::lock::Turn,
}

/// `main` for shop.test has a P-256 key, `rsa` for rsa.test one of RSA; `more` goes to the listener.
fn rig(more: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.secure]\nbind = \":{PORT}\"\ntls = {{ cert = [\"main\", \"rsa\"] }}\n{more}\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n\
         [cert.rsa]\nchain = \"rsa.pem\"\nkey = {{ file = \"rsa.key\" }}\n[route.all]\nto = {}\n",
        targets(&backends)
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    Authority::new()?.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    Authority::new()?.issue_rsa(&["rsa.test"])?.write(&gateway.file(""), "rsa")?;
    gateway.run()?;
    Ok(Rig { gateway, net, _backends: backends, _turn: turn })
}

impl Rig {
    fn at(&self) -> SocketAddr {
        SocketAddr::from((VIP4, PORT))
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = self.net.client(1).connect(self.at(), None)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(stream)
    }

    fn answer(&self, hello: &Hello) -> Result<Answer> {
        self.answer_to(&hello.record())
    }

    fn answer_to(&self, bytes: &[u8]) -> Result<Answer> {
        let mut stream = self.connect()?;
        // It may be refused before all of it is sent.
        let _ = stream.write_all(bytes);
        Answer::read(&mut stream)
    }

    /// `openssl s_client`, told this on its input; all that it says.
    fn openssl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.net.client(1).namespace.command("openssl")?;
        command
            .args(["s_client", "-connect", &self.at().to_string(), "-servername", "shop.test"])
            .args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may have ended by itself.
            let _ = stdin.write_all(input.as_bytes());
            std::thread::sleep(Duration::from_millis(500));
        }
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(text(&output.stdout) + &text(&output.stderr))
    }

    fn still_serves(&self) -> Result<()> {
        let answer = self.answer(&Hello::new("shop.test"))?;
        ensure!(matches!(answer, Answer::Hello { .. }), "{answer:?}");
        Ok(())
    }
}

#[test]
fn only_suites_with_forward_secrecy_and_authenticated_encryption_are_spoken() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let taken = |name: &str| -> Result<Vec<u16>> {
        // All that TLS 1.2 and older ever had numbers for, in IANA's blocks.
        let blocks = [0x0000..=0x00c7, 0xc001..=0xc0b7, 0xcca8..=0xccae, 0xd001..=0xd005];
        let mut taken = Vec::new();
        for suite in blocks.into_iter().flatten() {
            let hello = Hello { suites: vec![suite], versions: vec![], ..Hello::new(name) };
            match rig.answer(&hello)? {
                Answer::Hello { suite: chosen, version, .. } => {
                    ensure!(chosen == suite && version == TLS12, "{chosen:04x} for {suite:04x}");
                    taken.push(suite);
                }
                Answer::Alert(alert) => ensure!(alert == HANDSHAKE_FAILURE, "{suite:04x}: alert {alert}"),
                Answer::Closed => bail!("{suite:04x}: closed without a word"),
            }
        }
        Ok(taken)
    };
    // ECDHE with AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305.
    assert_eq!(taken("shop.test")?, [0xc02b, 0xc02c, 0xcca9]);
    assert_eq!(taken("rsa.test")?, [0xc02f, 0xc030, 0xcca8]);
    for suite in 0x1301..=0x1307 {
        let answer =
            rig.answer(&Hello { suites: vec![suite], versions: vec![TLS13], ..Hello::new("shop.test") })?;
        assert_eq!(
            matches!(answer, Answer::Hello { version: TLS13, .. }),
            suite <= 0x1303,
            "{suite:04x}: {answer:?}"
        );
    }
    Ok(())
}

#[test]
fn nothing_older_than_tls_1_2_is_spoken_and_a_fallback_shows() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let all = Hello {
        suites: (1..=0xc7).chain(0xc001..=0xc0b7).collect(),
        versions: vec![],
        ..Hello::new("shop.test")
    };
    for version in [0x0200, 0x0300, TLS10, TLS11] {
        let answer = rig.answer(&Hello { version, ..all.clone() })?;
        assert_eq!(answer, Answer::Alert(PROTOCOL_VERSION), "{version:04x}");
        let answer = rig.answer(&Hello { versions: vec![version], ..all.clone() })?;
        assert!(!matches!(answer, Answer::Hello { .. }), "{version:04x}: {answer:?}");
    }
    // SSL 2 has a hello of its own.
    let ssl2 = [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[7; 0x25]].concat();
    assert!(!matches!(rig.answer_to(&ssl2)?, Answer::Hello { .. }));
    // RFC 8446 section 4.1.3: who was made to speak 1.2 with a server of 1.3 can tell. The suite 0x5600 says that it was.
    let fallback = Hello { suites: vec![0x5600, 0xc02b], versions: vec![], ..Hello::new("shop.test") };
    match rig.answer(&fallback)? {
        Answer::Hello { random, version, .. } => {
            assert!(version == TLS12 && random.ends_with(b"DOWNGRD\x01"))
        }
        Answer::Alert(alert) => assert_eq!(alert, 86),
        Answer::Closed => bail!("closed without a word"),
    }
    rig.still_serves()
}

#[test]
fn the_server_chooses_the_suite_and_never_compresses() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    for (versions, suites, chosen) in
        [(vec![], vec![0xcca9, 0xc02c, 0xc02b], 0xc02b), (vec![TLS13], vec![0x1303, 0x1302, 0x1301], 0x1301)]
    {
        let answer = rig.answer(&Hello { suites, versions, ..Hello::new("shop.test") })?;
        assert!(matches!(answer, Answer::Hello { suite, .. } if suite == chosen), "{answer:?}");
    }
    let deflate = Hello { compression: vec![1, 0], versions: vec![], ..Hello::new("shop.test") };
    let answer = rig.answer(&deflate)?;
    assert!(matches!(answer, Answer::Hello { compression: 0, .. }), "{answer:?}");
    let only = rig.answer(&Hello { compression: vec![1], versions: vec![], ..Hello::new("shop.test") })?;
    assert!(!matches!(only, Answer::Hello { .. }), "{only:?}");
    Ok(())
}

#[test]
fn renegotiation_is_announced_as_secure_and_then_refused() -> Result<()> {
    lab_test!();
    if tools::missing("openssl") {
        lab::skip("renegotiation", "`openssl` is not installed");
        return Ok(());
    }
    let rig = rig("")?;
    let said = rig.openssl(&["-tls1_2", "-status"], "")?;
    assert!(
        said.contains("Secure Renegotiation IS supported") && said.contains("Compression: NONE"),
        "{said}"
    );
    assert!(said.contains("OCSP response: no response sent"), "{said}");
    // A line that is "R" asks for it.
    let said = rig.openssl(&["-tls1_2"], "R\n")?;
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    rig.still_serves()
}

#[test]
fn names_protocols_and_tickets_that_are_not_known_do_no_harm() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    for (alpn, answer) in [
        (&b"\x04spdy"[..], Some(NO_APPLICATION_PROTOCOL)),
        (b"\x04spdy\x08http/1.1", None),
        (b"\x02h2", None),
    ] {
        let told = rig.answer(&Hello {
            versions: vec![],
            more: vec![(16, [&[0, alpn.len() as u8][..], alpn].concat())],
            ..Hello::new("shop.test")
        })?;
        match answer {
            Some(alert) => assert_eq!(told, Answer::Alert(alert)),
            None => assert!(matches!(told, Answer::Hello { .. }), "{alpn:?}: {told:?}"),
        }
    }
    for name in ["unknown.test", "shop.test.", "SHOP.TEST", "xn--a", "a..b", "", "192.0.2.1", "a\0b", "é"] {
        // Served with some certificate, or refused by an alert.
        let told = rig.answer(&Hello::new(name))?;
        assert_ne!(told, Answer::Closed, "{name:?}");
    }
    // Tickets (35), resumed sessions (41), early data (42), OCSP (5), heartbeat (15), all of them nonsense.
    for (kind, body) in [
        (35, vec![7; 200]),
        (42, vec![]),
        (5, vec![1, 0, 0, 0, 0]),
        (15, vec![1]),
        (0xfafa, vec![0]),
        (21, vec![0; 700]),
    ] {
        let hello = Hello { more: vec![(kind, body)], versions: vec![], ..Hello::new("shop.test") };
        let told = rig.answer(&hello)?;
        assert!(matches!(told, Answer::Hello { .. }), "extension {kind}: {told:?}");
    }
    let twice = Hello { more: vec![(35, vec![]), (35, vec![])], ..Hello::new("shop.test") };
    assert!(!matches!(rig.answer(&twice)?, Answer::Hello { .. }));
    rig.still_serves()
}

#[test]
fn a_hello_in_pieces_is_put_together_and_one_without_end_is_not_waited_for() -> Result<()> {
    lab_test!();
    let rig = rig("timeout = { header = \"500ms\" }")?;
    let hello = Hello::new("shop.test");
    // In records of one byte, and in many segments.
    assert!(matches!(rig.answer_to(&hello.in_records(1))?, Answer::Hello { .. }));
    let mut stream = rig.connect()?;
    for piece in hello.record().chunks(9) {
        stream.write_all(piece)?;
    }
    assert!(matches!(Answer::read(&mut stream)?, Answer::Hello { .. }));
    // A handshake message of 16 MiB is announced; a record longer than any.
    let huge = [&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 0x3ffc]].concat();
    assert!(!matches!(rig.answer_to(&huge)?, Answer::Hello { .. }));
    let long = [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 0xffff]].concat();
    assert!(!matches!(rig.answer_to(&long)?, Answer::Hello { .. }));
    // Out of turn: heartbeats (CVE-2014-0160), change of cipher (CVE-2014-0224), data, an alert, nothing at all.
    for record in [
        &[24, 3, 3, 0, 3, 1, 0x40, 0][..],
        &[20, 3, 3, 0, 1, 1],
        &[23, 3, 3, 0, 1, 0],
        &[21, 3, 3, 0, 2, 1, 0],
        &[22, 3, 3, 0, 0],
    ] {
        assert!(!matches!(rig.answer_to(&record.repeat(40))?, Answer::Hello { .. }), "{record:?}");
    }
    // Drop by drop: cut in time.
    let mut stream = rig.connect()?;
    let began = Instant::now();
    for byte in hello.record() {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        if began.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    assert!(!matches!(Answer::read(&mut stream)?, Answer::Hello { .. }));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    rig.still_serves()
}

#[test]
fn a_flood_of_handshakes_takes_no_more_places_than_there_are() -> Result<()> {
    lab_test!();
    let rig = rig("max = { connections = 20 }\ntimeout = { header = \"1s\" }")?;
    // Half of a hello each.
    let half = Hello::new("shop.test").record();
    let open: Vec<TcpStream> = (0..60)
        .filter_map(|_| {
            let mut stream = rig.connect().ok()?;
            stream.write_all(&half[..half.len() / 2]).ok()?;
            Some(stream)
        })
        .collect();
    eventually("no more than allowed are open", || {
        let active = rig.gateway.metrics()?.sum("connections_active", &[]);
        ensure!(active <= 20.0, "{active}");
        Ok(active > 0.0)
    })?;
    eventually("their time is over", || Ok(rig.gateway.metrics()?.sum("connections_active", &[]) == 0.0))?;
    drop(open);
    rig.still_serves()
}
