use std::net::SocketAddr;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn proxied(source: &str, destination: &str) -> Says {
    Says::Proxied { source: addr(source), destination: addr(destination) }
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), body].concat()
}

const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0, 80];

fn says(bytes: &[u8]) -> Result<Says, Malformed> {
    Ok(parse(bytes)?.expect("whole").0.says)
}

#[test]
fn lines_of_version_1_are_read() {
    let table: [(&str, Says); 6] = [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n", proxied("192.0.2.1:4711", "198.51.100.1:80")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", proxied("255.255.255.255:65535", "0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", proxied("[2001:db8::1]:1", "[::1]:2")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:10.0.0.1 1 2\r\n", proxied("192.0.2.1:1", "10.0.0.1:2")),
        ("PROXY UNKNOWN\r\n", Says::Unknown),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff 65535 anything\r\n", Says::Unknown),
    ];
    for (line, expected) in table {
        let whole = format!("{line}GET / HTTP/1.1\r\n");
        let (header, length) = parse(whole.as_bytes()).unwrap().unwrap();
        assert_eq!((header.version, header.says, length), (Version::V1, expected, line.len()), "{line}");
    }
}

#[test]
fn malformed_lines_of_version_1_are_refused() {
    for line in [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
        "PROXY UNKNOWNX\r\n",
    ] {
        let error = parse(line.as_bytes()).expect_err(line);
        assert!(matches!(error, Malformed::Line | Malformed::Absent), "{line}: {error}");
    }
    assert_eq!(parse(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat()), Err(Malformed::TooLong));
    for other in ["GET / HTTP/1.1\r\n", "proxy TCP4", "PROXX", "\r\n\r\nGET", "\u{16}\u{3}\u{1}"] {
        assert_eq!(parse(other.as_bytes()), Err(Malformed::Absent), "{other:?}");
    }
}

#[test]
fn headers_of_version_2_are_read_and_their_extensions_skipped() {
    let six: Vec<u8> = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 1, 0, 2]].concat();
    let noop = [4, 0, 2, 9, 9];
    let table = [
        (v2(0x21, 0x11, &ADDRESSES), proxied("192.0.2.1:4711", "198.51.100.1:80")),
        (v2(0x21, 0x11, &[&ADDRESSES[..], &noop].concat()), proxied("192.0.2.1:4711", "198.51.100.1:80")),
        (v2(0x21, 0x21, &six), proxied("[2001:db8::1]:1", "[::1]:2")),
        (v2(0x20, 0x00, &[]), Says::Local),
        (v2(0x20, 0xff, b"whatever"), Says::Local),
        (v2(0x21, 0x00, &[]), Says::Unknown),
        (v2(0x21, 0x00, &noop), Says::Unknown),
        (v2(0x21, 0x12, &ADDRESSES), Says::Unknown),
        (v2(0x21, 0x31, &[0; 216]), Says::Unknown),
    ];
    for (bytes, expected) in table {
        let whole = [&bytes[..], b"behind"].concat();
        let (header, length) = parse(&whole).unwrap().unwrap();
        assert_eq!((header.version, header.says, length), (Version::V2, expected, bytes.len()), "{bytes:x?}");
    }
}

#[test]
fn malformed_headers_of_version_2_are_refused() {
    let with = |more: &[u8]| v2(0x21, 0x11, &[&ADDRESSES[..], more].concat());
    for (bytes, expected) in [
        (v2(0x11, 0x11, &ADDRESSES), Malformed::Command),
        (v2(0x22, 0x11, &ADDRESSES), Malformed::Command),
        (v2(0x21, 0x41, &ADDRESSES), Malformed::Family),
        (v2(0x21, 0x13, &ADDRESSES), Malformed::Family),
        (v2(0x21, 0x11, &ADDRESSES[..11]), Malformed::Short),
        (v2(0x21, 0x21, &ADDRESSES), Malformed::Short),
        (v2(0x21, 0x31, &ADDRESSES), Malformed::Short),
        (with(&[4]), Malformed::Extension),
        (with(&[4, 0, 1]), Malformed::Extension),
        (with(&[4, 0xff, 0xff, 0]), Malformed::Extension),
        (with(&[3, 0, 3, 1, 2, 3]), Malformed::Extension),
        (with(&[3, 0, 4, 1, 2, 3, 4]), Malformed::Checksum),
    ] {
        assert_eq!(parse(&bytes), Err(expected), "{bytes:x?}");
    }
    let long = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    assert_eq!(parse(&long), Err(Malformed::TooLong));
}

/// A header with a checksum in front of another extension.
fn checked() -> Vec<u8> {
    let zeroed = v2(0x21, 0x11, &[&ADDRESSES[..], &[3, 0, 4, 0, 0, 0, 0, 4, 0, 1, 7]].concat());
    let sum = crate::crc32c::crc32c(zeroed.iter().copied()).to_be_bytes();
    let mut bytes = zeroed;
    bytes[31..35].copy_from_slice(&sum);
    bytes
}

#[test]
fn a_checksum_is_checked() {
    let right = checked();
    assert_eq!(says(&right), Ok(proxied("192.0.2.1:4711", "198.51.100.1:80")));
    for bit in 16 * 8..28 * 8 {
        let mut wrong = right.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(says(&wrong), Err(Malformed::Checksum), "bit {bit}");
    }
}

#[test]
fn a_header_cut_at_any_byte_waits_for_more() {
    let six = write(Version::V2, addr("[2001:db8::1]:1"), addr("[2001:db8::2]:2"));
    let line = write(Version::V1, addr("[2001:db8::1]:1"), addr("[2001:db8::2]:2"));
    for whole in [checked(), six, line, own(Version::V1), own(Version::V2), v2(0x21, 0x31, &[0; 216])] {
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Ok(None), "{length} of {whole:x?}");
        }
        assert_eq!(parse(&whole).unwrap().unwrap().1, whole.len());
    }
}

#[test]
fn what_is_written_is_read_as_it_was_meant() {
    for version in [Version::V1, Version::V2] {
        for (source, destination, read) in [
            ("192.0.2.1:4711", "198.51.100.1:80", proxied("192.0.2.1:4711", "198.51.100.1:80")),
            ("[2001:db8::1]:1", "[::1]:65535", proxied("[2001:db8::1]:1", "[::1]:65535")),
            // A client of IPv6, told by a proxy that is reached over IPv4.
            ("[2001:db8::1]:1", "10.0.0.1:2", proxied("[2001:db8::1]:1", "10.0.0.1:2")),
            ("[::ffff:192.0.2.1]:1", "10.0.0.1:2", proxied("192.0.2.1:1", "10.0.0.1:2")),
        ] {
            let bytes = write(version, addr(source), addr(destination));
            let (header, length) = parse(&bytes).unwrap().unwrap();
            assert_eq!(header, Header { version, says: read });
            assert_eq!(length, bytes.len());
        }
    }
    assert_eq!(says(&own(Version::V1)), Ok(Says::Unknown));
    assert_eq!(says(&own(Version::V2)), Ok(Says::Local));
    assert_eq!(own(Version::V2).len(), 16);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some((_, length))) = parse(&bytes) {
            prop_assert!(length <= bytes.len());
        }
    }

    #[test]
    fn any_bytes_behind_a_signature_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        line in any::<bool>(),
    ) {
        let start: &[u8] = if line { WORD } else { &SIGNATURE };
        let whole = [start, &bytes].concat();
        // What is read of a part is what is read of the whole: more bytes never change it.
        let read = parse(&whole);
        for length in 0..whole.len() {
            match parse(&whole[..length]) {
                Ok(None) => {}
                early => prop_assert_eq!(early, read),
            }
        }
    }

    #[test]
    fn a_damaged_header_is_read_or_refused(at in 0usize..64, byte in any::<u8>()) {
        let mut bytes = checked();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = parse(&bytes);
    }
}

/// A client's socket and the server's.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn not_a_byte_behind_the_header_is_taken_however_it_comes() {
    let long = v2(0x21, 0x11, &[&ADDRESSES[..], &[4, 1, 0], &[0; 256]].concat());
    for header in [b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(), own(Version::V1), checked(), long] {
        for piece in [1, 7, header.len(), header.len() + 4] {
            let (mut client, mut server) = sockets().await;
            let whole = [&header[..], b"hello\nworld"].concat();
            let sending = async {
                for part in whole.chunks(piece) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let reading = async {
                read(&mut server).await.unwrap();
                let mut rest = Vec::new();
                server.read_to_end(&mut rest).await.unwrap();
                rest
            };
            let ((), rest) = tokio::join!(sending, reading);
            assert_eq!(rest, b"hello\nworld", "in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_early_or_says_something_else_is_refused() {
    for (sent, absent) in
        [("PROXY TCP4 192.", false), ("", false), ("GET / HTTP/1.1\r\n", true), ("P", false)]
    {
        let (mut client, mut server) = sockets().await;
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        match read(&mut server).await {
            Err(Refused::Malformed(Malformed::Absent)) => assert!(absent, "{sent}"),
            Err(Refused::Ended) => assert!(!absent, "{sent}"),
            other => panic!("{sent}: {other:?}"),
        }
    }
}
