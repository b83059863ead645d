//! Who does what it should not: refused again and again, failed logins, malformed and slow requests. Each earns points, which
//! leak away with time; who has too many is banned.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::{
    Now, Store,
    hash::Hasher,
    meter::Meter,
    table::{Kind, Owner},
};
use crate::config::{
    model::{Algorithm, BanRule, Penalty},
    units::{Prefix, Quota, Span, SpanUnit},
};

/// What earns penalty points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// Credentials that are none.
    Login,
    /// A request that two parsers could read differently, or none.
    Malformed,
    /// A head or a body that did not come in time, an answer that was not taken.
    Slow,
    /// More than one source may have: connections, TLS handshakes, streams taken back, too large heads.
    Flood,
}

impl Misdeed {
    fn says(self) -> &'static str {
        match self {
            Misdeed::Login => "failed logins",
            Misdeed::Malformed => "malformed requests",
            Misdeed::Slow => "slow requests",
            Misdeed::Flood => "floods",
        }
    }
}

/// Somebody has earned a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offence {
    pub client: IpAddr,
    /// The client's own connection: no proxy stands between.
    pub direct: bool,
    /// "limit NAME" or "penalty".
    pub by: String,
    pub why: String,
    /// The first time.
    pub duration: Duration,
    /// In the kernel half, where that can be.
    pub kernel: bool,
}

/// How much a source may do within some time.
#[derive(Debug)]
pub struct Rule {
    meter: Meter,
    seed: Hasher,
    group: u32,
    duration: Duration,
    kernel: bool,
    by: String,
}

/// `[penalty]`, compiled.
#[derive(Debug)]
pub struct Penalties {
    rule: Rule,
    points: [u64; 4],
}

impl Rule {
    fn new(store: &Store, by: String, (after, within): (u64, Duration), rule: (Duration, bool)) -> Self {
        let seconds = u32::try_from(within.as_secs()).unwrap_or(u32::MAX).max(1);
        let span = Span { count: seconds, unit: SpanUnit::Second };
        let quota = Quota { amount: after.max(1), span, bytes: false };
        let mut seed = Hasher::new(store.hash_key());
        seed.part(b"offences");
        seed.part(by.as_bytes());
        let meter = Meter::new(Algorithm::TokenBucket, quota, None);
        Rule { meter, seed, group: 0, duration: rule.0, kernel: rule.1, by }
    }

    pub fn of_limit(store: &Store, name: &str, rule: &BanRule) -> Self {
        let by = format!("limit {name}");
        Rule::new(store, by, (u64::from(rule.after), rule.within), (rule.duration, rule.kernel))
    }

    /// Adds `points`: whether that was the last straw.
    fn add(&self, store: &Store, client: IpAddr, points: u64) -> bool {
        if points == 0 {
            return false;
        }
        let mut hasher = self.seed.clone();
        hasher.part(&source(client).to_bits().to_le_bytes());
        let owner = Owner { key: hasher.finish(), kind: Kind::Time, group: self.group };
        let now = Now::read();
        let table = store.rates();
        match table.update(&owner, now.steady, |word, shared| self.meter.take(word, now, points, shared)) {
            Ok(word) if self.meter.left(word.value, now).units > 0 => false,
            _ => {
                // It begins anew when it comes back.
                table.forget(&owner);
                true
            }
        }
    }

    pub fn offend(&self, store: &Store, client: IpAddr, direct: bool, points: u64, why: &str) -> bool {
        let banned = self.add(store, client, points);
        if banned {
            store.tell(Offence {
                client,
                direct,
                by: self.by.clone(),
                why: why.to_owned(),
                duration: self.duration,
                kernel: self.kernel,
            });
        }
        banned
    }
}

impl Penalties {
    pub fn new(store: &Store, config: &Penalty) -> Self {
        let rule = Rule::new(
            store,
            "penalty".into(),
            (config.threshold, config.within),
            (config.duration, config.kernel),
        );
        Penalties { rule, points: [config.login, config.malformed, config.slow, config.flood] }
    }

    /// A source did something: it may be banned for it.
    pub fn penalty(&self, store: &Store, client: IpAddr, direct: bool, misdeed: Misdeed) {
        let points = self.points[misdeed as usize];
        self.rule.offend(store, client, direct, points, misdeed.says());
    }
}

/// Whom a ban is for: an IPv4 address, or an IPv6 prefix of 64 bits.
pub fn prefix(client: IpAddr) -> Prefix {
    match client.to_canonical() {
        v4 @ IpAddr::V4(_) => Prefix::host(v4),
        IpAddr::V6(_) => Prefix::new_masked(client, 64),
    }
}

pub(super) fn source(client: IpAddr) -> Ipv6Addr {
    match prefix(client).addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
