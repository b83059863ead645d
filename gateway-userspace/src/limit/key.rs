//! What of a request has a quota of its own.

use std::net::IpAddr;

use gateway_common::source::Address;
use http::{HeaderValue, header, request};

use super::{Store, hash::Hasher};
use crate::{
    config::model::{self, LimitKeyPart},
    request::{cookie, parameter},
};

/// What is known of a request.
pub struct Facts<'a> {
    pub head: &'a request::Parts,
    pub client: IpAddr,
    /// Its connection is its own.
    pub direct: bool,
    pub route: &'a str,
    pub version: Option<&'a str>,
    pub consumer: Option<&'a str>,
    pub tier: Option<&'a str>,
    /// The value of a claim of the caller's token.
    pub claim: &'a dyn Fn(&str) -> Option<String>,
}

/// How keys of one limit are made.
#[derive(Debug)]
pub struct Keyed {
    parts: Vec<LimitKeyPart>,
    v4_mask: u32,
    v6_mask: u128,
    /// Has the limit's name in it already, and what else keeps its words apart from those of another config.
    seed: Hasher,
}

impl Keyed {
    pub fn new(name: &str, config: &model::Limit, store: &Store) -> Self {
        Keyed::of(name, &config.key, config, store)
    }

    /// Of those who share a limit evenly.
    pub fn of_shares(name: &str, parts: &[LimitKeyPart], config: &model::Limit, store: &Store) -> Self {
        let mut keyed = Keyed::of(name, parts, config, store);
        keyed.seed.part(b"shares");
        keyed
    }

    fn of(name: &str, parts: &[LimitKeyPart], config: &model::Limit, store: &Store) -> Self {
        // Over several gateways keys have to be the same.
        let shared = store.shared.key().filter(|_| config.shared);
        let mut seed = Hasher::new(shared.unwrap_or_else(|| store.hash_key()));
        seed.part(name.as_bytes());
        let (unit, algorithm) = match &config.measure {
            model::Measure::Connections { .. } => ("connections", ""),
            model::Measure::Rate { unit, algorithm, .. } => (unit.word(), algorithm.word()),
        };
        seed.part(unit.as_bytes());
        seed.part(algorithm.as_bytes());
        for part in parts {
            seed.part(part.to_string().as_bytes());
        }
        Keyed {
            parts: parts.to_vec(),
            v4_mask: u32::MAX << (32 - u32::from(config.ipv4_prefix.clamp(1, 32))),
            v6_mask: u128::MAX << (128 - u32::from(config.ipv6_prefix.clamp(1, 128))),
            seed,
        }
    }

    pub fn hash(&self, facts: &Facts<'_>) -> u128 {
        let mut hasher = self.seed.clone();
        for part in &self.parts {
            match part {
                LimitKeyPart::Ip => self.client(facts, &mut hasher),
                LimitKeyPart::Consumer if facts.consumer.is_none() => {
                    hasher.absent();
                    self.client(facts, &mut hasher);
                }
                LimitKeyPart::Claim(name) => match (facts.claim)(name) {
                    Some(value) => hasher.part(value.as_bytes()),
                    None => hasher.absent(),
                },
                part => match bytes(part, facts) {
                    Some(value) => hasher.part(value),
                    None => hasher.absent(),
                },
            }
        }
        hasher.finish()
    }

    #[inline]
    fn client(&self, facts: &Facts<'_>, hasher: &mut Hasher) {
        let Address { hi, lo } = Address::from(self.masked(facts.client));
        hasher.word(hi);
        hasher.word(lo);
    }

    /// The client's address, as far as it counts, where it is a part of the key.
    pub fn source(&self, facts: &Facts<'_>) -> Option<IpAddr> {
        let is_one = |part: &LimitKeyPart| match part {
            LimitKeyPart::Ip => true,
            LimitKeyPart::Consumer => facts.consumer.is_none(),
            _ => false,
        };
        self.parts.iter().any(is_one).then(|| self.masked(facts.client))
    }

    fn masked(&self, client: IpAddr) -> IpAddr {
        match client.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & self.v4_mask).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & self.v6_mask).into()),
        }
    }

    /// For people. What may be a secret is told by its hash only.
    pub fn label(&self, facts: &Facts<'_>) -> String {
        let parts = self.parts.iter().map(|part| match part {
            LimitKeyPart::Ip => format!("ip={}", self.show_client(facts.client)),
            LimitKeyPart::Consumer => match facts.consumer {
                Some(consumer) => format!("consumer={consumer}"),
                None => format!("ip={}", self.show_client(facts.client)),
            },
            LimitKeyPart::Claim(name) => format!("claim:{name}={}", (facts.claim)(name).unwrap_or_default()),
            LimitKeyPart::Header(_) | LimitKeyPart::Query(_) | LimitKeyPart::Cookie(_) => {
                match bytes(part, facts) {
                    Some(value) => format!("{part}=#{:08x}", self.short(value)),
                    None => format!("{part}="),
                }
            }
            part => {
                let value = bytes(part, facts).unwrap_or_default();
                let value: String = String::from_utf8_lossy(value).chars().take(80).collect();
                format!("{part}={}", value.escape_default())
            }
        });
        let label = parts.collect::<Vec<_>>().join(" ");
        if label.is_empty() { "everybody".into() } else { label }
    }

    fn short(&self, value: &[u8]) -> u32 {
        let mut hasher = self.seed.clone();
        hasher.part(value);
        hasher.finish() as u32
    }

    fn show_client(&self, client: IpAddr) -> String {
        let client = self.masked(client);
        let bits = match client {
            IpAddr::V4(_) => self.v4_mask.count_ones(),
            IpAddr::V6(_) => self.v6_mask.count_ones(),
        };
        match (client, bits) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => client.to_string(),
            _ => format!("{client}/{bits}"),
        }
    }
}

fn bytes<'a>(part: &LimitKeyPart, facts: &Facts<'a>) -> Option<&'a [u8]> {
    let head = facts.head;
    match part {
        LimitKeyPart::Consumer => facts.consumer.map(str::as_bytes),
        LimitKeyPart::Route => Some(facts.route.as_bytes()),
        LimitKeyPart::Version => facts.version.map(str::as_bytes),
        LimitKeyPart::Host => head.headers.get(header::HOST).map(HeaderValue::as_bytes),
        LimitKeyPart::Method => Some(head.method.as_str().as_bytes()),
        LimitKeyPart::Path => Some(head.uri.path().as_bytes()),
        LimitKeyPart::Header(name) => head.headers.get(name.as_str()).map(HeaderValue::as_bytes),
        LimitKeyPart::Query(name) => parameter(head.uri.query()?, name).map(str::as_bytes),
        LimitKeyPart::Cookie(name) => cookie(&head.headers, name),
        LimitKeyPart::Ip | LimitKeyPart::Claim(_) => None,
    }
}
