//! The access list and the bans as the kernel should have them: pure functions from rules and bans to entries.
//!
//! A longest-prefix table gives one answer, the most specific entry, so what must hold for a wider prefix is
//! written into the entries inside it: a hole inside a banned prefix is banned with it, and a ban that is over
//! leaves behind the action of the rule around it.

use std::collections::{BTreeMap, HashMap};

use gateway_common::{
    maps::{self as layout, Access, access, is_over},
    source::{Address, ipv6_mask},
};

use crate::config::units::Prefix;

/// A ban as userspace remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds of CLOCK_MONOTONIC; zero: for ever.
    pub until_ns: u64,
    pub since_ns: u64,
    pub code: u8,
    pub why: String,
}

/// What the config says of prefixes.
#[derive(Debug, Default)]
pub struct Rules {
    /// One of [`access`]; the longest prefix wins.
    pub actions: HashMap<Prefix, u8>,
    /// The class of limits, among prefixes of classes the longest. It counts where the action is to allow, and each of
    /// these prefixes that is let in has an action of its own.
    pub classes: HashMap<Prefix, u8>,
}

pub type Bans = BTreeMap<Prefix, Record>;

/// What the maps should hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub access: HashMap<Prefix, Access>,
    pub sources: HashMap<u64, layout::Ban>,
}

/// The rule that decides about the whole of `prefix`, and the prefix it stands at.
pub fn rule_around(rules: &Rules, prefix: Prefix) -> Option<(Prefix, u8)> {
    around(prefix).find_map(|wider| rules.actions.get(&wider).map(|action| (wider, *action)))
}

/// The class of limits of the sources in `prefix`; zero: none.
pub fn class_around(rules: &Rules, prefix: Prefix) -> u8 {
    if rules.classes.is_empty() {
        return 0;
    }
    around(prefix).find_map(|wider| rules.classes.get(&wider).copied()).unwrap_or(0)
}

/// The ban around `prefix` (or on it) that holds longest.
pub fn ban_around(bans: &Bans, prefix: Prefix, now: u64) -> Option<(Prefix, &Record)> {
    if bans.is_empty() {
        return None;
    }
    around(prefix)
        .filter_map(|wider| bans.get(&wider).map(|ban| (wider, ban)))
        .filter(|(_, ban)| !is_over(ban.until_ns, now))
        .max_by_key(|(_, ban)| if ban.until_ns == 0 { u64::MAX } else { ban.until_ns })
}

/// `prefix` and all that cover it, the most specific first.
fn around(prefix: Prefix) -> impl Iterator<Item = Prefix> {
    (0..=prefix.len).rev().map(move |len| Prefix { addr: mask(prefix, len), len })
}

fn mask(prefix: Prefix, len: u8) -> std::net::IpAddr {
    use std::net::IpAddr;
    match prefix.addr {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & kept).into())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & kept).into())
        }
    }
}

/// The key in `BANS` for a prefix that is exactly one source; others go into the access list.
pub fn source_key(prefix: Prefix, ipv6_prefix: u8) -> Option<u64> {
    let address = Address::from(prefix.addr);
    let link_local = address.hi >> 54 == 0xfe80 >> 6;
    let single =
        if prefix.addr.is_ipv4() { prefix.len == 32 } else { prefix.len == ipv6_prefix && !link_local };
    single.then(|| address.key(ipv6_mask(ipv6_prefix)))
}

/// Everything the maps should hold at `now`.
pub fn desired(rules: &Rules, bans: &Bans, ipv6_prefix: u8, now: u64) -> Desired {
    let mut desired = Desired { access: HashMap::with_capacity(rules.actions.len()), ..Desired::default() };
    let of_class = |entry: Access, prefix: Prefix| {
        // The rest are not limited.
        if entry.after == access::ALLOW { entry.of_class(class_around(rules, prefix)) } else { entry }
    };
    for (&prefix, &action) in &rules.actions {
        let ban = if action == access::ALLOW { ban_around(bans, prefix, now) } else { None };
        let entry = match ban {
            Some((_, ban)) => Access { derived: 1, ..banned(ban, action) },
            None => Access::rule(action),
        };
        desired.access.insert(prefix, of_class(entry, prefix));
    }
    for (&prefix, record) in bans.iter().filter(|(_, ban)| !is_over(ban.until_ns, now)) {
        let rule = rule_around(rules, prefix);
        if rule.is_some_and(|(_, action)| action == access::EXEMPT) {
            continue;
        }
        if let Some(key) = source_key(prefix, ipv6_prefix) {
            let ban = layout::Ban {
                until_ns: record.until_ns,
                since_ns: record.since_ns,
                code: record.code,
                len: prefix.len,
                _pad: [0; 6],
            };
            desired.sources.insert(key, ban);
            continue;
        }
        let longest = ban_around(bans, prefix, now).map_or(record, |(_, ban)| ban);
        let after = rule.map_or(access::ALLOW, |(_, action)| action);
        let entry = Access { since_ns: record.since_ns, ..banned(longest, after) };
        desired.access.insert(prefix, of_class(entry, prefix));
    }
    desired
}

fn banned(ban: &Record, after: u8) -> Access {
    Access {
        until_ns: ban.until_ns,
        since_ns: ban.since_ns,
        action: access::BAN,
        after,
        code: ban.code,
        derived: 0,
        class: 0,
        _pad: [0; 3],
    }
}

/// Entries to write and to remove, each in an order in which no packet finds a door open or shut that is neither
/// in the old table nor in the new one: holes before what they are holes in, and out again after it.
pub fn changes(
    old: &HashMap<Prefix, Access>,
    new: &HashMap<Prefix, Access>,
) -> (Vec<(Prefix, Access)>, Vec<Prefix>) {
    let shuts = |entry: &Access| matches!(entry.action, access::BLOCK | access::BAN);
    let mut write: Vec<(Prefix, Access)> = new
        .iter()
        .filter(|(prefix, entry)| old.get(prefix) != Some(entry))
        .map(|(prefix, entry)| (*prefix, *entry))
        .collect();
    write.sort_by_key(|(_, entry)| shuts(entry));
    let mut remove: Vec<(bool, Prefix)> = old
        .iter()
        .filter(|(prefix, _)| !new.contains_key(prefix))
        .map(|(prefix, entry)| (!shuts(entry), *prefix))
        .collect();
    remove.sort_by_key(|(opens, _)| *opens);
    (write, remove.into_iter().map(|(_, prefix)| prefix).collect())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
