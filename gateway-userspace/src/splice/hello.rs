//! The host name that a client asks for, from the first bytes of its TLS handshake (RFC 8446 section 4.1.2, RFC 6066
//! section 3).

/// A ClientHello that is larger is refused: those in use have some hundred bytes, with post-quantum key shares two
/// thousand.
const MOST: usize = 16 * 1024;
/// A record that carries less than a whole message is no mistake, but so many are an attack.
const MOST_RECORDS: usize = 64;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotHello {
    #[error("that is no TLS handshake")]
    NotTls,
    #[error("the ClientHello is too large")]
    TooLarge,
    #[error("the ClientHello is malformed")]
    Malformed,
}

/// The name that is asked for, in lower case; the inner `None`: none is. The outer `None`: more bytes are needed.
pub fn asked_name(bytes: &[u8]) -> Result<Option<Option<String>>, NotHello> {
    let Some(hello) = message(bytes)? else { return Ok(None) };
    name(&hello).map(Some).ok_or(NotHello::Malformed)
}

/// The body of the ClientHello, put together from its records (RFC 8446 section 5.1).
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, NotHello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    for _ in 0..MOST_RECORDS {
        let (kind, major) = (rest.first(), rest.get(1));
        if kind.is_some_and(|kind| *kind != HANDSHAKE) || major.is_some_and(|major| *major != 3) {
            return Err(NotHello::NotTls);
        }
        let &[_, _, _, high, low, ref behind @ ..] = rest else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        // An empty fragment of a handshake message is forbidden.
        if length == 0 {
            return Err(NotHello::Malformed);
        }
        let part = behind.get(..length);
        message.extend_from_slice(part.unwrap_or(behind));
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NotHello::NotTls);
        }
        if let &[_, a, b, c, ref body @ ..] = message.as_slice() {
            let whole = u32::from_be_bytes([0, a, b, c]) as usize;
            if whole > MOST {
                return Err(NotHello::TooLarge);
            }
            if let Some(body) = body.get(..whole) {
                return Ok(Some(body.to_vec()));
            }
        }
        match part {
            Some(_) => rest = behind.get(length..).unwrap_or_default(),
            None => return Ok(None),
        }
    }
    Err(NotHello::TooLarge)
}

/// `None`: malformed.
fn name(hello: &[u8]) -> Option<Option<String>> {
    let mut fields = Fields(hello);
    // legacy_version, random, legacy_session_id, cipher_suites, legacy_compression_methods.
    fields.take(2 + 32)?;
    fields.short()?;
    fields.long()?;
    fields.short()?;
    if fields.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Fields(fields.long()?);
    if !fields.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.long()?;
        if kind == SERVER_NAME && found.replace(host_name(content)?).is_some() {
            return None;
        }
    }
    Some(found)
}

/// The one host name of a `server_name` extension.
fn host_name(content: &[u8]) -> Option<String> {
    let mut content = Fields(content);
    let mut names = Fields(content.long()?);
    if !content.0.is_empty() || names.take(1)? != [HOST_NAME] {
        return None;
    }
    let name = names.long()?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    if !names.0.is_empty() || name.is_empty() || name.len() > 255 || !name.iter().all(plain) {
        return None;
    }
    std::str::from_utf8(name).ok().map(str::to_ascii_lowercase)
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    /// With a length of one byte in front.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(length.into())
    }

    /// With a length of two bytes in front.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};

    use super::*;

    /// The first flight of a real client.
    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of `length` bytes.
    fn fragmented(hello: &[u8], length: usize) -> Vec<u8> {
        let records = hello[5..].chunks(length);
        records
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[HANDSHAKE, 3, 1], &length[..], part].concat()
            })
            .collect()
    }

    fn asked(bytes: &[u8]) -> Option<String> {
        asked_name(bytes).unwrap().expect("whole")
    }

    #[test]
    fn the_name_is_read_in_lower_case() {
        assert_eq!(asked(&hello("Shop.Example.com")).as_deref(), Some("shop.example.com"));
        assert_eq!(asked(&hello("192.0.2.1")), None, "an address is never asked for by name");
    }

    #[test]
    fn a_hello_cut_at_any_byte_waits_for_more() {
        let whole = hello("shop.test");
        for length in 0..whole.len() {
            assert_eq!(asked_name(&whole[..length]), Ok(None), "{length} of {}", whole.len());
        }
        assert_eq!(asked(&[&whole, &b"more"[..]].concat()).as_deref(), Some("shop.test"));
    }

    #[test]
    fn a_hello_in_many_records_is_put_together() {
        let whole = hello("shop.test");
        for length in [100, 101, 512, 1000] {
            let records = fragmented(&whole, length);
            assert_eq!(asked(&records).as_deref(), Some("shop.test"), "{length}");
            for cut in 0..records.len() {
                assert_eq!(asked_name(&records[..cut]), Ok(None), "{cut} in records of {length}");
            }
        }
        assert_eq!(asked_name(&fragmented(&whole, 1)), Err(NotHello::TooLarge), "so many records");
    }

    #[test]
    fn what_is_no_hello_is_refused_as_soon_as_it_shows() {
        for (bytes, expected) in [
            (&b"G"[..], NotHello::NotTls),
            (&b"SSH-2.0"[..], NotHello::NotTls),
            (&[22, 2][..], NotHello::NotTls),
            (&[21, 3, 1, 0, 2, 1, 0][..], NotHello::NotTls),
            (&[22, 3, 1, 0, 4, 2][..], NotHello::NotTls),
            (&[22, 3, 1, 0, 0][..], NotHello::Malformed),
            (&[22, 3, 1, 0, 4, 1, 1, 0, 0][..], NotHello::TooLarge),
            (&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], NotHello::Malformed),
        ] {
            assert_eq!(asked_name(bytes), Err(expected), "{bytes:?}");
        }
    }

    /// A hello with these extensions and nothing else.
    fn with_extensions(extensions: &[u8]) -> Vec<u8> {
        let mut body = [&[3, 3], &[0; 32][..], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let message = [&[1, 0], &u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
        [&[22, 3, 1], &u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
    }

    #[test]
    fn only_one_well_formed_name_is_taken() {
        let good = [0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'];
        assert_eq!(asked(&with_extensions(&good)).as_deref(), Some("a"));
        assert_eq!(asked(&with_extensions(&[])), None);
        for bad in [
            [&good[..], &good[..]].concat(),
            vec![0, 0, 0, 6, 0, 4, 1, 0, 1, b'a'],
            vec![0, 0, 0, 6, 0, 4, 0, 0, 1, b'/'],
            vec![0, 0, 0, 5, 0, 3, 0, 0, 0],
            vec![0, 0, 0, 6, 0, 5, 0, 0, 1, b'a'],
            vec![0, 0, 0, 7, 0, 4, 0, 0, 1, b'a', 0],
            vec![0, 0, 0],
        ] {
            assert_eq!(asked_name(&with_extensions(&bad)), Err(NotHello::Malformed), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), behind in any::<bool>()) {
            let start: &[u8] = if behind { &[22, 3, 1, 0, 190, 1, 0, 0, 186, 3, 3] } else { &[] };
            let _ = asked_name(&[start, &bytes].concat());
        }

        #[test]
        fn a_damaged_hello_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = hello("shop.test");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = asked_name(&bytes);
        }
    }
}
