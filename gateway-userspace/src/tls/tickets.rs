//! Keys of session tickets. One seals new tickets for a while, then opens old ones for as long again, and is gone.
//!
//! rustls has a rotator too. It goes a key further at most each time it is asked, so that where few clients come a key
//! opens tickets long after its time.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use rustls::{crypto::aws_lc_rs, server::ProducesTickets};

pub struct Rotating {
    /// How long a key seals.
    span: Duration,
    keys: RwLock<Keys>,
}

struct Keys {
    since: Instant,
    current: Arc<dyn ProducesTickets>,
    previous: Option<Arc<dyn ProducesTickets>>,
}

impl Rotating {
    pub fn new(span: Duration) -> Result<Self, rustls::Error> {
        let current = aws_lc_rs::Ticketer::new()?;
        Ok(Rotating { span, keys: RwLock::new(Keys { since: Instant::now(), current, previous: None }) })
    }

    /// The key that seals now, and the one that still opens.
    fn keys(&self, now: Instant) -> (Arc<dyn ProducesTickets>, Option<Arc<dyn ProducesTickets>>) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(keys.since) < self.span {
            return (keys.current.clone(), keys.previous.clone());
        }
        drop(keys);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(keys.since);
        if age >= self.span {
            // Without a new key there is none at all: handshakes are whole ones then.
            let next = aws_lc_rs::Ticketer::new().unwrap_or_else(|_| Arc::new(NoKey));
            let last = std::mem::replace(&mut keys.current, next);
            keys.previous = (age < 2 * self.span).then_some(last);
            keys.since = now;
        }
        (keys.current.clone(), keys.previous.clone())
    }
}

impl fmt::Debug for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotating").field("span", &self.span).finish_non_exhaustive()
    }
}

impl ProducesTickets for Rotating {
    fn enabled(&self) -> bool {
        true
    }

    /// What clients are told: so long is every ticket good.
    fn lifetime(&self) -> u32 {
        self.span.as_secs().try_into().unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys(Instant::now()).0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (current, previous) = self.keys(Instant::now());
        current.decrypt(cipher).or_else(|| previous?.decrypt(cipher))
    }
}

/// Seals nothing.
#[derive(Debug)]
struct NoKey;

impl ProducesTickets for NoKey {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_seals_for_its_span_and_opens_for_one_more() {
        let span = Duration::from_secs(60);
        let keys = Rotating::new(span).unwrap();
        let start = keys.keys.read().unwrap().since;
        let opens = |at: Duration, ticket: &[u8]| {
            let (current, previous) = keys.keys(start + at);
            current.decrypt(ticket).or_else(|| previous?.decrypt(ticket)).is_some()
        };
        let first = keys.keys(start).0.encrypt(b"session").unwrap();
        assert!(opens(Duration::ZERO, &first) && opens(span / 2, &first) && opens(span, &first));
        let second = keys.keys(start + span).0.encrypt(b"session").unwrap();
        assert!(opens(span * 3 / 2, &first) && opens(span * 3 / 2, &second));
        assert!(!opens(span * 2, &first) && opens(span * 2, &second));
        // Nobody came for long: neither key is one any more.
        assert!(!opens(span * 5, &second));
    }
}
