//! Clients that say all they will and then wait, as `nc -N` does (RFC 9293 section 3.6): answers still come whole.
//! Connections of `[service.NAME]` are in splice.rs.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
};

use lab::{
    backend::start_all,
    certs::Authority,
    prelude::*,
    tls::{TlsClient, TlsConnection},
};

fn rig() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            "[listener.web]\nbind = \":80\"\n[route.all]\nto = [\"{}\"]\nearly_hints = true\n",
            backends[0].addr
        )
    })
}

/// The answers to what is sent before the end.
fn answers(rig: &Rig, requests: &[u8], n: usize) -> Result<Vec<Response>> {
    let mut client = rig.client()?;
    client.send(requests)?;
    client.stream.shutdown(Shutdown::Write)?;
    let answers = (0..n).map(|_| client.response()).collect::<Result<_>>()?;
    assert_eq!(client.until_closed()?, 0, "the connection ends with the answer");
    Ok(answers)
}

fn whole(answer: &Response) -> Result<()> {
    assert_eq!(answer.header("x-hash"), Some(&*blake3::hash(&answer.body).to_hex().to_string()));
    Ok(())
}

// P1
#[test]
fn an_answer_comes_whole_to_who_has_closed_one_side() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let made = |more: &str| format!("GET /made HTTP/1.1\r\nhost: a\r\nx-hash: 1\r\n{more}\r\n");
    for more in [
        "x-size: 100\r\n",
        "x-size: 5000000\r\n",
        "x-size: 100\r\nx-ms: 700\r\n",
        "x-size: 3000000\r\nx-pieces: 5\r\nx-ms: 200\r\n",
        "x-size: 100\r\nconnection: close\r\n",
    ] {
        let [answer] = &*answers(&rig, made(more).as_bytes(), 1)? else { bail!("not one answer") };
        assert_eq!(answer.status, 200, "{more}");
        whole(answer)?;
        let line = rig.gateway.log_of(answer)?;
        assert_eq!((&line["status"], &line["why"]), (&json!(200), &Value::Null), "{line}");
    }
    // Several at once, each with its own.
    let two = made("x-size: 200000\r\nx-ms: 300\r\n") + &made("x-size: 70\r\nx-ms: 300\r\n");
    for answer in answers(&rig, two.as_bytes(), 2)? {
        whole(&answer)?;
    }
    // With a body, and interim answers before the last.
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let head = format!("POST /echo-body HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    let echoed = &answers(&rig, &[head.as_bytes(), &body].concat(), 1)?[0];
    assert_eq!(blake3::hash(&echoed.body), blake3::hash(&body));
    let hinted = &answers(&rig, b"GET /103?ms=300 HTTP/1.1\r\nhost: a\r\n\r\n", 1)?[0];
    assert_eq!((hinted.status, hinted.interim.len()), (200, 1));
    // By an older version, and where the gateway answers itself.
    let old = &answers(&rig, b"GET /slow-header?ms=300 HTTP/1.0\r\nhost: a\r\n\r\n", 1)?[0];
    assert_eq!((old.status, old.body.len()), (200, 128));
    rig.backends[0].down()?;
    answers(&rig, made("").as_bytes(), 1)?[0].refused(502, "upstream_connect_refused")
}

// P1, S8
#[test]
fn an_answer_comes_whole_to_who_has_closed_one_side_of_tls() -> Result<()> {
    lab_test!();
    let (rig, client) = tls_rig("")?;
    for ms in [0, 600] {
        let mut connection = client.connect(rig.net.client(1), secure(), "shop.test")?;
        let fields = format!("x-hash: 1\r\nx-size: 400000\r\nx-ms: {ms}\r\n");
        write!(connection, "GET /made HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n")?;
        connection.shut()?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no head")? + 4;
        let (head, body) = answer.split_at(end);
        let head = String::from_utf8_lossy(head);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&*blake3::hash(body).to_hex()), "{head}");
    }
    Ok(())
}

/// Half of an answer is there when a side is closed; the rest comes as it would have, but for a zero before a size.
fn closes_between_chunks(client: &mut impl HalfCloses) -> Result<()> {
    write!(client, "GET /sse?n=3&ms=600 HTTP/1.1\r\nhost: shop.test\r\n\r\n")?;
    client.flush()?;
    head(client)?;
    let mut chunk = [0; b"9\r\ndata: 0\n\n\r\n".len()];
    client.read_exact(&mut chunk)?;
    client.shut()?;
    let mut rest = String::new();
    client.read_to_string(&mut rest)?;
    assert_eq!(rest, "09\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n");
    Ok(())
}

// P1, P7, S8
#[test]
fn an_answer_in_chunks_comes_whole_to_who_closes_one_side_in_the_middle_of_it() -> Result<()> {
    lab_test!();
    let (rig, trust) = tls_rig("")?;
    closes_between_chunks(&mut rig.client()?.stream)?;
    closes_between_chunks(&mut trust.connect(rig.net.client(1), secure(), "shop.test")?)?;
    for _ in 0..2 {
        let line = rig.gateway.log_line("an answer", |line| line["path"] == "/sse")?;
        assert_eq!((&line["status"], &line["why"]), (&json!(200), &Value::Null), "{line}");
    }
    // Its end alone is left.
    let mut client = rig.client()?;
    client.send("GET /sse?n=1&ms=0 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    client.head()?;
    client.chunk()?;
    client.stream.shutdown(Shutdown::Write)?;
    assert_eq!(client.chunk()?, None);
    Ok(())
}

// P7
#[test]
fn who_has_closed_both_sides_is_gone_whatever_the_answer_is_at() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let leave = |target: &str, reads: &dyn Fn(&mut Client) -> Result<()>| -> Result<()> {
        let mut client = rig.client()?;
        let asked = rig.backends[0].stats()?.requests;
        client.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"))?;
        // Nothing is left unread: the close is no reset.
        reads(&mut client)?;
        rig.backends[0].until(target, |stats| stats.requests > asked)?;
        drop(client);
        Ok(())
    };
    let ended = |limit, n| {
        within(Duration::from_secs(limit), "it is ended", || {
            Ok((rig.backends[0].stats()?.aborted == n).then_some(()))
        })
    };
    // Before the answer, and between chunks of it: known at once.
    leave("/hang", &|_| Ok(()))?;
    ended(3, 1)?;
    leave("/hang-chunked", &|client| {
        client.head()?;
        client.chunk().map(drop)
    })?;
    ended(3, 2)?;
    // In the middle of one whose length is told and that goes on no more: after a while.
    leave("/hang-body", &|client| {
        client.head()?;
        client.exactly(128).map(drop)
    })?;
    ended(12, 3)?;
    for line in rig.gateway.log()? {
        assert_eq!(line["why"], "client_gone", "{line}");
    }
    Ok(())
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A connection whose one side can be closed.
trait HalfCloses: Read + Write {
    fn shut(&mut self) -> Result<()>;
}

impl HalfCloses for TcpStream {
    fn shut(&mut self) -> Result<()> {
        Ok(self.shutdown(Shutdown::Write)?)
    }
}

impl HalfCloses for TlsConnection {
    fn shut(&mut self) -> Result<()> {
        self.conn.send_close_notify();
        Ok(self.flush()?)
    }
}

fn noise(seed: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 5_000_000];
    blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
    bytes
}

fn head(from: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8(head)?)
}

/// Takes an upgrade, and answers to what comes when all of it is here; the hash of that.
fn serve(listener: &TcpListener) -> Result<blake3::Hash> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    head(&mut stream)?;
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    stream.write_all(&noise(b"down"))?;
    Ok(blake3::hash(&received))
}

/// Sends noise through an upgraded connection, closes that side, and reads what comes then.
fn carries(listener: &TcpListener, client: &mut impl HalfCloses) -> Result<()> {
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(listener));
        client.write_all(UPGRADE.as_bytes())?;
        let head = head(client)?;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client.write_all(&noise(b"up"))?;
        client.flush()?;
        client.shut()?;
        let mut received = Vec::new();
        client.read_to_end(&mut received)?;
        let up = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        assert_eq!(up, blake3::hash(&noise(b"up")));
        assert_eq!(blake3::hash(&received), blake3::hash(&noise(b"down")));
        Ok(())
    })
}

// P6
#[test]
fn an_upgraded_connection_may_be_closed_on_one_side() -> Result<()> {
    lab_test!();
    let (rig, client) =
        tls_rig("[route.ws]\npath = \"/ws\"\nto = [\"10.77.2.2:9000\"]\nupgrade = \"websocket\"\n")?;
    let server = rig.net.backend(1);
    assert_eq!(server.at(9000).to_string(), "10.77.2.2:9000");
    let listener = server.namespace.run(|| TcpListener::bind(server.at(9000)))??;
    let mut plain = rig.net.client(1).connect(rig.gateway.at4(), None)?;
    plain.set_read_timeout(Some(Duration::from_secs(20)))?;
    carries(&listener, &mut plain)?;
    carries(&listener, &mut client.connect(rig.net.client(1), secure(), "shop.test")?)?;
    for _ in 0..2 {
        rig.gateway.log_line("an upgrade", |line| line["path"] == "/ws" && line["bytes_in"] == 5_000_000)?;
    }
    Ok(())
}

fn secure() -> SocketAddr {
    SocketAddr::from((VIP4, 443))
}

/// In clear and by TLS; and a client that trusts it.
fn tls_rig(routes: &str) -> Result<(Rig, TlsClient)> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[listener.web]\nbind = \":80\"\n[listener.secure]\nbind = \":443\"\ntls = {{ cert = \"main\" }}\n\
         [cert.main]\nchain = \"main.pem\"\nkey = {{ file = \"main.key\" }}\n[route.all]\nto = [\"{}\"]\n{routes}",
        backends[0].addr
    );
    let mut gateway = Gateway::prepare(&net, &config, Default::default())?;
    let authority = Authority::new()?;
    authority.issue(&["shop.test"])?.write(&gateway.file(""), "main")?;
    gateway.run()?;
    let client = TlsClient::new(&authority.pem, None, &["http/1.1"])?;
    Ok((Rig::of(gateway, backends, net, turn), client))
}
