//! What callers prove who they are with.

use http::request;

use crate::{
    auth::{
        keys::KeySet,
        place::Place,
        signature::{BodyDigest, Input, signature_of},
        token::{Algorithm, Token},
    },
    config::model::{State, Whence},
    seal::Sealer,
};

/// A token is what its parts say, and nothing that is not in it is believed.
pub fn jwt(bytes: &[u8]) {
    let all: Vec<Algorithm> = Algorithm::ALL.iter().map(|(algorithm, _)| *algorithm).collect();
    if let Ok(keys) = KeySet::published(bytes, &all) {
        // No key of a set that anybody can read is a secret.
        let token = b"eyJhbGciOiJIUzI1NiJ9.e30.AAAA";
        assert_eq!(Token::parse(token).and_then(|token| keys.verify(&token)), None);
    }
    let Some(token) = Token::parse(bytes) else { return };
    assert_eq!(bytes.iter().filter(|byte| **byte == b'.').count(), 2);
    assert!(bytes.starts_with(token.signed) && bytes[token.signed.len()] == b'.');
    let _ = token.claims();
    assert_eq!(
        KeySet::secret(b"0123456789abcdef0123456789abcdef", &all).verify(&token),
        match token.algorithm {
            algorithm if algorithm.is_symmetric() => Some(false),
            _ => None,
        }
    );
}

/// Fields of signatures are read to their ends, or not at all.
pub fn signature(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(input) = Input::parse(text) {
        assert_eq!(Input::parse(text), Some(input));
        assert_eq!(Input::parse(&format!("{text}, other=()")), None);
    }
    let _ = signature_of(text, "sig1");
    if let Some(digest) = BodyDigest::parse(text) {
        assert!(!digest.is_of(b"something that hashes to this was never found"));
    }
}

/// What was taken out is not there any more, and the rest still is: the first line is the target, the others are fields.
pub fn credentials(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut request = http::Request::get(lines.next().unwrap_or_default());
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        request = request.header(&line[..at], line.get(at + 1..).unwrap_or_default());
    }
    let Ok(request) = request.body(()) else { return };
    let (head, ()) = request.into_parts();
    let places = [
        Whence::Bearer,
        Whence::Header("x-key".into()),
        Whence::Query("key".into()),
        Whence::Cookie("key".into()),
    ];
    for place in places.iter().map(Place::new) {
        let mut stripped: request::Parts = head.clone();
        place.strip(&mut stripped);
        assert_eq!(place.find(&stripped), Ok(None));
        assert_eq!((stripped.uri.path(), stripped.uri.scheme()), (head.uri.path(), head.uri.scheme()));
        if place.find(&head) == Ok(None) {
            assert_eq!((&stripped.uri, &stripped.headers), (&head.uri, &head.headers));
        }
    }
}

/// Nothing opens but what was sealed.
pub fn sealed(bytes: &[u8]) {
    thread_local! {
        static SEALER: Option<Sealer> = sealer();
    }
    SEALER.with(|sealer| {
        let Some(sealer) = sealer else { return };
        assert!(sealer.open("fuzz", bytes).is_err());
        let Ok(good) = sealer.seal("fuzz", bytes) else { return };
        assert_eq!(
            sealer.open("fuzz", &good).ok().as_ref().map(|opened| opened.plain.as_slice()),
            Some(bytes)
        );
    });
}

fn sealer() -> Option<Sealer> {
    let dir = tempfile::tempdir().ok()?;
    let path = dir.path().join("key");
    crate::seal::write(&path, b"a secret of the fuzzer's own").ok()?;
    let key = Some(crate::config::model::Secret::File(path));
    Sealer::new(&State { key, ..State::default() }).ok()?
}
