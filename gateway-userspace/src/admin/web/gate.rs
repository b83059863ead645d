//! Who is let in: by the token, or by a session that the token has opened.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{config::model::AdminHttp, seal};

const SHORTEST: usize = 16;
/// A session ends, however it is used.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);
/// The oldest makes room for another.
const MOST_SESSIONS: usize = 64;
/// Wrong tokens of an address before the next one has to wait, and for how long.
const MOST_FAILURES: u32 = 5;
const WAIT: Duration = Duration::from_secs(60);
/// Addresses that failed. With so many of them, one of them is everybody.
const MOST_ADDRESSES: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Unreadable(#[from] seal::SecretError),
    #[error(
        "it has {0} characters, and must have at least {SHORTEST}; make one with: openssl rand -base64 24"
    )]
    Short(usize),
}

/// Secrets are kept and compared as digests, so that how long a comparison takes tells nothing of them.
type Digest = [u8; 32];

pub struct Gate {
    token: Digest,
    pub dashboard: bool,
    /// Cookies are sent by TLS only.
    pub secure: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The oldest first.
    sessions: Vec<Session>,
    failures: HashMap<IpAddr, Failures>,
}

struct Session {
    id: Digest,
    csrf: String,
    ends: Instant,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

/// What a browser gets.
#[derive(Debug, Clone)]
pub struct Opened {
    /// In its cookie.
    pub id: String,
    /// What the page sends with everything that changes something.
    pub csrf: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Wrong,
    /// By a session, and perhaps from another page than ours.
    Elsewhere,
    /// Too many were wrong: not before so many seconds.
    Wait(u64),
}

impl Gate {
    pub fn open(config: &AdminHttp) -> Result<Gate, TokenError> {
        let token = seal::read(&config.token)?;
        let token = token.trim_ascii();
        if token.len() < SHORTEST {
            return Err(TokenError::Short(token.len()));
        }
        Ok(Gate {
            token: hash(token),
            dashboard: config.dashboard,
            secure: config.tls.is_some(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the token.
    pub fn token(&self, offered: &[u8], from: IpAddr, now: Instant) -> Result<(), Refused> {
        let mut state = self.state();
        state.may_try(from, now)?;
        if same(&hash(offered), &self.token) {
            state.failures.remove(&from);
            return Ok(());
        }
        state.failed(from, now);
        Err(Refused::Wrong)
    }

    /// Opens a session for whoever has the token.
    pub fn log_in(&self, offered: &[u8], from: IpAddr, now: Instant) -> Result<Opened, Refused> {
        self.token(offered, from, now)?;
        let opened = Opened { id: random(), csrf: random() };
        let mut state = self.state();
        state.sessions.retain(|session| session.ends > now);
        if state.sessions.len() >= MOST_SESSIONS {
            state.sessions.remove(0);
        }
        state.sessions.push(Session {
            id: hash(opened.id.as_bytes()),
            csrf: opened.csrf.clone(),
            ends: now + SESSION,
        });
        Ok(opened)
    }

    /// What the page of a session has to send, if there is such a session.
    pub fn session(&self, id: &str, now: Instant) -> Option<String> {
        let id = hash(id.as_bytes());
        let state = self.state();
        let found = state.sessions.iter().find(|session| session.ends > now && same(&session.id, &id))?;
        Some(found.csrf.clone())
    }

    pub fn log_out(&self, id: &str) {
        let id = hash(id.as_bytes());
        self.state().sessions.retain(|session| !same(&session.id, &id));
    }
}

impl State {
    fn may_try(&self, from: IpAddr, now: Instant) -> Result<(), Refused> {
        let Some(failures) = self.failures.get(&from).filter(|failures| failures.count >= MOST_FAILURES)
        else {
            return Ok(());
        };
        let waited = now.saturating_duration_since(failures.last);
        match WAIT.checked_sub(waited) {
            Some(left) if left > Duration::ZERO => Err(Refused::Wait(left.as_secs() + 1)),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, from: IpAddr, now: Instant) {
        if self.failures.len() >= MOST_ADDRESSES {
            self.failures.retain(|_, failures| now.saturating_duration_since(failures.last) < WAIT);
        }
        if self.failures.len() >= MOST_ADDRESSES && !self.failures.contains_key(&from) {
            return;
        }
        let failures = self.failures.entry(from).or_insert(Failures { count: 0, last: now });
        if now.saturating_duration_since(failures.last) >= WAIT {
            failures.count = 0;
        }
        *failures = Failures { count: failures.count + 1, last: now };
    }
}

/// Whether both are the same text, in the same time wherever they differ.
pub fn same_text(one: &str, other: &str) -> bool {
    same(&hash(one.as_bytes()), &hash(other.as_bytes()))
}

fn same(one: &Digest, other: &Digest) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

fn hash(bytes: &[u8]) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// 256 bits that nobody guesses.
fn random() -> String {
    let mut bytes = [0; 32];
    #[expect(clippy::expect_used, reason = "without random numbers nothing here is safe")]
    rand::fill(&mut bytes).expect("the system has random numbers");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const TOKEN: &[u8] = b"a token of some length";

    fn gate() -> Gate {
        Gate { token: hash(TOKEN), dashboard: true, secure: false, state: Mutex::default() }
    }

    #[test]
    fn a_session_lasts_until_it_ends_or_is_ended() {
        let (gate, now) = (gate(), Instant::now());
        let opened = gate.log_in(TOKEN, ME, now).unwrap();
        assert_eq!(gate.session(&opened.id, now), Some(opened.csrf.clone()));
        assert_eq!(gate.session(&opened.csrf, now), None);
        assert_eq!(gate.session(&opened.id, now + SESSION), None);
        gate.log_out(&opened.id);
        assert_eq!(gate.session(&opened.id, now), None);
    }

    #[test]
    fn wrong_tokens_make_an_address_wait_and_no_other() {
        let (gate, now) = (gate(), Instant::now());
        for _ in 0..MOST_FAILURES {
            assert_eq!(gate.token(b"wrong", ME, now), Err(Refused::Wrong));
        }
        assert!(matches!(gate.token(TOKEN, ME, now), Err(Refused::Wait(1..=61))));
        assert_eq!(gate.token(TOKEN, IpAddr::from([192, 0, 2, 1]), now), Ok(()));
        assert_eq!(gate.token(TOKEN, ME, now + WAIT), Ok(()));
    }

    #[test]
    fn neither_sessions_nor_failures_grow_without_end() {
        let (gate, now) = (gate(), Instant::now());
        let first = gate.log_in(TOKEN, ME, now).unwrap();
        for _ in 0..MOST_SESSIONS {
            gate.log_in(TOKEN, ME, now).unwrap();
        }
        assert_eq!(gate.session(&first.id, now), None);
        for n in 0..2 * MOST_ADDRESSES as u32 {
            let _ = gate.token(b"wrong", IpAddr::from(n.to_be_bytes()), now);
        }
        let state = gate.state();
        assert_eq!((state.sessions.len(), state.failures.len()), (MOST_SESSIONS, MOST_ADDRESSES));
    }
}
