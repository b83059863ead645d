use gateway_common::maps::{Access, access};

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn rules(list: &[(&str, u8)]) -> Rules {
    list.iter().map(|(text, action)| (prefix(text), *action)).collect()
}

fn bans(list: &[(&str, u64)]) -> Bans {
    let record = |until_ns| Record { until_ns, since_ns: 1, code: 0, why: String::new() };
    list.iter().map(|(text, until)| (prefix(text), record(*until))).collect()
}

#[test]
fn a_ban_that_is_over_leaves_the_rule_around_it() {
    let rules = rules(&[("10.0.0.0/8", access::BLOCK), ("10.1.0.0/16", access::ALLOW)]);
    let desired = desired(&rules, &bans(&[("10.1.2.0/24", 100)]), 64, 50);
    let entry = desired.access[&prefix("10.1.2.0/24")];
    assert_eq!((entry.action_at(99), entry.action_at(100)), (access::BAN, access::ALLOW));
    let outside = super::desired(&rules, &bans(&[("10.9.0.0/16", 100)]), 64, 50);
    assert_eq!(outside.access[&prefix("10.9.0.0/16")].after, access::BLOCK);
}

#[test]
fn a_hole_inside_a_banned_prefix_is_banned_with_it_and_an_exemption_is_not() {
    let rules = rules(&[("10.1.0.0/16", access::ALLOW), ("10.2.0.0/16", access::EXEMPT)]);
    let desired = desired(&rules, &bans(&[("10.0.0.0/8", 0)]), 64, 50);
    assert_eq!(desired.access[&prefix("10.1.0.0/16")].action, access::BAN);
    assert_eq!(desired.access[&prefix("10.1.0.0/16")].derived, 1);
    assert_eq!(desired.access[&prefix("10.2.0.0/16")], Access::rule(access::EXEMPT));
}

#[test]
fn a_short_ban_inside_a_long_one_does_not_open_early() {
    let desired = desired(&Rules::new(), &bans(&[("10.0.0.0/8", 900), ("10.1.0.0/16", 100)]), 64, 50);
    assert_eq!(desired.access[&prefix("10.1.0.0/16")].until_ns, 900);
}

#[test]
fn single_sources_go_to_the_hash_and_prefixes_to_the_trie() {
    let all = bans(&[("192.0.2.1/32", 0), ("2001:db8::/64", 0), ("2001:db8:1::1/128", 0), ("fe80::/64", 0)]);
    let desired = desired(&Rules::new(), &all, 64, 50);
    assert_eq!(desired.sources.len(), 2);
    assert_eq!(desired.access.len(), 2);
    assert!(desired.access.contains_key(&prefix("2001:db8:1::1/128")));
    let wider = super::desired(&Rules::new(), &all, 48, 50);
    assert_eq!(wider.sources.len(), 1, "a /64 is no longer one source");
}

#[test]
fn bans_that_are_over_and_bans_of_exempt_sources_leave_nothing() {
    let rules = rules(&[("10.0.0.0/8", access::EXEMPT)]);
    let desired = desired(&rules, &bans(&[("192.0.2.1/32", 40), ("10.1.2.3/32", 0)]), 64, 50);
    assert!(desired.sources.is_empty());
}

#[test]
fn holes_are_made_before_blocks_and_closed_after_them() {
    let block = Access::rule(access::BLOCK);
    let hole = Access::rule(access::ALLOW);
    let table: HashMap<Prefix, Access> =
        [(prefix("0.0.0.0/0"), block), (prefix("10.0.0.0/8"), hole)].into_iter().collect();
    let (write, remove) = changes(&HashMap::new(), &table);
    assert_eq!(write.iter().map(|(p, _)| p.len).collect::<Vec<_>>(), [8, 0]);
    assert!(remove.is_empty());
    let (write, remove) = changes(&table, &HashMap::new());
    assert!(write.is_empty());
    assert_eq!(remove.iter().map(|p| p.len).collect::<Vec<_>>(), [0, 8]);
}

#[test]
fn nothing_changes_nothing() {
    let rules = rules(&[("10.0.0.0/8", access::BLOCK)]);
    let bans = bans(&[("10.1.0.0/16", 100)]);
    let one = desired(&rules, &bans, 64, 50);
    let (write, remove) = changes(&one.access, &desired(&rules, &bans, 64, 60).access);
    assert!(write.is_empty() && remove.is_empty());
}
