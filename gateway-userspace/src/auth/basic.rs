//! Names and passwords (RFC 7617). A password is slow to check by design: that is done beside the workers, so many at
//! once and no more, and what was found is remembered a while.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, LazyLock},
};

use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    Caller, Check, Outcome,
    consumers::Consumers,
    gate::Asking,
    memory::{Owner, Remembered},
    place::Place,
};
use crate::{
    config::model::{self, KeyHash},
    observe::stats::AuthResult,
};

/// Of name and password, as they are sent.
const LONGEST: usize = 1024;
/// How long a good password is remembered, in seconds.
const REMEMBERED: u64 = 300;
/// Checks that may wait, over all workers; more are refused at once.
const WAITING: usize = 64;
/// Memory that one check may take, in KiB.
const MOST_MEMORY: u32 = 256 << 10;

#[derive(Debug)]
pub struct Basic {
    users: HashMap<String, User>,
    owner: Owner,
    pub places: [Place; 1],
}

#[derive(Debug)]
struct User {
    caller: Arc<Caller>,
    hashes: Arc<[String]>,
}

/// All workers' checks together.
struct Work {
    running: Semaphore,
    places: Semaphore,
}

static WORK: LazyLock<Work> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = (cores / 2).max(1);
    Work { running: Semaphore::new(at_once), places: Semaphore::new(at_once + WAITING) }
});

/// What a name that nobody has is checked against, so that it takes as long as any.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$3lwBtIO3SLSZQ3zqNFmpDIZKlXY7H3MPoGiqmXtkMSg";

impl Basic {
    pub fn new(config: &BTreeMap<String, model::Consumer>, consumers: &Consumers) -> Self {
        let users = config.iter().filter(|(_, consumer)| !consumer.passwords.is_empty());
        let users = users.filter_map(|(name, consumer)| {
            let caller = consumers.named(name)?.clone();
            Some((name.clone(), User { caller, hashes: consumer.passwords.clone().into() }))
        });
        Basic { users: users.collect(), owner: Owner::fresh(), places: [Place::Scheme("basic")] }
    }

    pub fn check<'a>(&'a self, asking: &'a Asking<'a>) -> Check<'a> {
        let sent = match self.places[0].find(asking.head) {
            Ok(Some(sent)) if sent.len() <= LONGEST => sent,
            Ok(None) => return Check::Done(Err(AuthResult::Missing.into())),
            _ => return Check::Done(Err(AuthResult::Malformed.into())),
        };
        let name = asking.memory.name(self.owner, &sent);
        if let Some(caller) = asking.memory.recall(&name, asking.now.seconds, 0) {
            return Check::Done(Ok(caller));
        }
        match parse(&sent) {
            Some((user, password)) => Check::Later(self.verify(user, password, name, asking)),
            None => Check::Done(Err(AuthResult::Malformed.into())),
        }
    }

    fn verify<'a>(
        &'a self,
        user: String,
        password: Zeroizing<Vec<u8>>,
        name: KeyHash,
        asking: &'a Asking<'a>,
    ) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
        Box::pin(async move {
            let user = self.users.get(&user);
            let hashes = user.map_or_else(|| Arc::from([NOBODY.to_owned()]), |user| user.hashes.clone());
            let _place = WORK.places.try_acquire().map_err(|_| AuthResult::Unavailable)?;
            let permit = WORK.running.acquire().await.map_err(|_| AuthResult::Unavailable)?;
            // The permit goes along: a client that went away does not make room for more than there is.
            let check = move || {
                let _permit = permit;
                hashes.iter().any(|hash| is_of(hash, &password))
            };
            let good = tokio::task::spawn_blocking(check).await.map_err(|_| AuthResult::Unavailable)?;
            let caller = user.filter(|_| good).map(|user| user.caller.clone()).ok_or(AuthResult::Unknown)?;
            let until = asking.now.seconds + REMEMBERED;
            asking.memory.remember(name, Remembered { caller: caller.clone(), until, epoch: 0 });
            Ok(caller)
        })
    }
}

/// `user:password` in base64.
pub fn parse(sent: &[u8]) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let text = Zeroizing::new(STANDARD.decode(sent).ok()?);
    let colon = text.iter().position(|byte| *byte == b':')?;
    let user = std::str::from_utf8(&text[..colon]).ok()?;
    if user.is_empty() || text.iter().any(u8::is_ascii_control) {
        return None;
    }
    Some((user.to_owned(), Zeroizing::new(text[colon + 1..].to_vec())))
}

fn is_of(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Whether a text is a hash that passwords can be checked against, with bounded effort.
///
/// # Errors
/// Why not. The text is not in it.
pub fn check_password_hash(text: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(text).map_err(|_| "it is no PHC string")?;
    if hash.algorithm != argon2::ARGON2ID_IDENT {
        return Err("it is by another algorithm");
    }
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err("it has no salt, or no hash");
    }
    let params = Params::try_from(&hash).map_err(|_| "its parameters are none of argon2id's")?;
    match params.m_cost() <= MOST_MEMORY && params.t_cost() <= 16 && params.p_cost() <= 16 {
        true => Ok(()),
        false => Err("it would take too much: at most m=262144, t=16, p=16"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_password_are_told_apart_at_the_first_colon() {
        let of = |text: &str| {
            parse(STANDARD.encode(text).as_bytes()).map(|(user, password)| (user, password.to_vec()))
        };
        assert_eq!(of("ann:a:b"), Some(("ann".into(), b"a:b".to_vec())));
        assert_eq!(of("ann:"), Some(("ann".into(), Vec::new())));
        assert_eq!(of("ann:pässword").map(|(_, password)| password.len()), Some(9));
        for wrong in ["", ":", ":x", "ann", "ann:a\n", "a\0n:x"] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        for wrong in ["YW5uOng", "YW5uOng=x", "YW5u Ong=", "%%"] {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn hashes_are_of_argon2id_and_bounded() {
        assert_eq!(check_password_hash(NOBODY), Ok(()));
        for wrong in [
            "",
            "secret",
            "$2y$10$abcdefghijklmnopqrstuuUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUU",
            &NOBODY.replace("argon2id", "argon2i"),
            &NOBODY.replace("m=19456", "m=999999999"),
            &NOBODY.replace("t=2", "t=1000"),
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0",
        ] {
            assert!(check_password_hash(wrong).is_err(), "{wrong}");
        }
    }
}
