//! What one source may take of a listener: connections at once, and TLS handshakes. It is judged before a byte of a
//! connection is read, so that a flood costs no more than accepting it.

use std::{net::IpAddr, sync::Arc};

use super::{
    Store,
    hash::Hasher,
    meter::{Meter, Now},
    offence::source,
    table::{Kind, Owner, Word},
};
use crate::config::{
    model::{Algorithm, ListenerMax},
    units::Prefixes,
};

#[derive(Debug)]
pub struct Sources {
    connections: Option<(Hasher, u32)>,
    handshakes: Option<(Hasher, Meter)>,
    /// Proxies, behind which there are many, and who is exempt from limits.
    spared: Prefixes,
}

/// A connection's place among those of its source; given back when dropped.
#[derive(Debug)]
pub struct Held {
    store: Arc<Store>,
    owner: Owner,
}

/// The source has all the connections that it may have.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Sources {
    /// `None`: the listener has no such limits.
    pub fn new(store: &Store, listener: &str, max: &ListenerMax, spared: Prefixes) -> Option<Box<Sources>> {
        if max.connections_per_source.is_none() && max.handshakes_per_source.is_none() {
            return None;
        }
        let seed = |what: &[u8]| {
            let mut seed = Hasher::new(store.hash_key());
            seed.part(what);
            seed.part(listener.as_bytes());
            seed
        };
        let connections = max.connections_per_source.map(|most| (seed(b"connections of a source"), most));
        let handshakes = max
            .handshakes_per_source
            .map(|quota| (seed(b"handshakes of a source"), Meter::new(Algorithm::TokenBucket, quota, None)));
        Some(Box::new(Sources { connections, handshakes, spared }))
    }

    /// Takes a place for a connection. `None`: it needs none.
    ///
    /// # Errors
    /// There is none left.
    pub fn enter(&self, store: &Arc<Store>, client: IpAddr) -> Result<Option<Box<Held>>, TooMany> {
        let Some((seed, most)) = &self.connections else { return Ok(None) };
        if self.spared.contain(client) {
            return Ok(None);
        }
        let owner = owner(seed, client, Kind::Count);
        let mut counted = true;
        let took = store.active().update(&owner, Now::read().steady, |word, shared| {
            // A count that others share could not be given back.
            counted = !shared;
            match (shared, word < u64::from(*most)) {
                (true, _) => Ok(Word { value: word, until: 0 }),
                (false, true) => Ok(Word { value: word + 1, until: 0 }),
                (false, false) => Err(TooMany),
            }
        });
        took.map(|_| counted.then(|| Box::new(Held { store: store.clone(), owner })))
    }

    /// Whether there is a handshake left for it.
    pub fn may_shake(&self, store: &Store, client: IpAddr) -> bool {
        let Some((seed, meter)) = &self.handshakes else { return true };
        if self.spared.contain(client) {
            return true;
        }
        let (owner, now) = (owner(seed, client, Kind::Time), Now::read());
        store.rates().update(&owner, now.steady, |word, shared| meter.take(word, now, 1, shared)).is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.active().change(&self.owner, |open| open.saturating_sub(1));
    }
}

fn owner(seed: &Hasher, client: IpAddr, kind: Kind) -> Owner {
    let mut hasher = seed.clone();
    hasher.part(&source(client).to_bits().to_le_bytes());
    Owner { key: hasher.finish(), kind, group: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn sources(max: &str) -> (Arc<Store>, Box<Sources>) {
        let text = format!(
            "[gateway]\nlimit_keys = 1024\nlimit_state = \"off\"\n[listener.web]\nbind = \":1\"\n\
             tls = {{ cert = \"a\" }}\nmax = {{ {max} }}\n[cert.a]\nchain = \"a\"\nkey = {{ env = \"A\" }}\n\
             [route.all]\nto = [\"127.0.0.1:1\"]\n"
        );
        let config = config::parse(&text, std::path::Path::new("/test.toml")).unwrap();
        let store = Arc::new(Store::new(&config, &Arc::default(), 1));
        let spared = Prefixes::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let sources = Sources::new(&store, "web", &config.listeners["web"].max, spared).unwrap();
        (store, sources)
    }

    #[test]
    fn a_source_has_so_many_connections_and_gets_them_back() {
        let (store, sources) = sources("connections_per_source = 2");
        let enter = |from: &str| sources.enter(&store, addr(from));
        let held = (enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap());
        assert_eq!(enter("192.0.2.1").unwrap_err(), TooMany);
        assert!(enter("192.0.2.2").unwrap().is_some());
        drop(held);
        assert!(enter("192.0.2.1").unwrap().is_some());
        // IPv6 by /64.
        let _six = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::3").is_err() && enter("2001:db8:0:1::1").is_ok());
        assert!((0..100).all(|_| matches!(enter("10.1.2.3"), Ok(None))), "it is a proxy");
        assert!((0..100).all(|_| sources.may_shake(&store, addr("192.0.2.1"))), "there is no budget");
    }

    #[test]
    fn a_source_has_a_budget_of_handshakes() {
        let (store, sources) = sources("handshakes_per_source = \"5/m\"");
        let shakes = |from: &str| (0..20).filter(|_| sources.may_shake(&store, addr(from))).count();
        assert_eq!((shakes("192.0.2.1"), shakes("192.0.2.2"), shakes("10.0.0.1")), (5, 5, 20));
        assert!(sources.enter(&store, addr("192.0.2.1")).unwrap().is_none());
    }
}
