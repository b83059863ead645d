use gateway_common::maps::{Access, access};

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn rules(list: &[(&str, u8)]) -> Rules {
    let actions = list.iter().map(|(text, action)| (prefix(text), *action)).collect();
    Rules { actions, ..Rules::default() }
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
    let desired = desired(&Rules::default(), &bans(&[("10.0.0.0/8", 900), ("10.1.0.0/16", 100)]), 64, 50);
    assert_eq!(desired.access[&prefix("10.1.0.0/16")].until_ns, 900);
}

#[test]
fn single_sources_go_to_the_hash_and_prefixes_to_the_trie() {
    let all = bans(&[("192.0.2.1/32", 0), ("2001:db8::/64", 0), ("2001:db8:1::1/128", 0), ("fe80::/64", 0)]);
    let desired = desired(&Rules::default(), &all, 64, 50);
    assert_eq!(desired.sources.len(), 2);
    assert_eq!(desired.access.len(), 2);
    assert!(desired.access.contains_key(&prefix("2001:db8:1::1/128")));
    let wider = super::desired(&Rules::default(), &all, 48, 50);
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

/// The rules of a config with these prefixes, and classes of these.
fn of_config(block: &[&str], except: &[&str], exempt: &[&str], classes: &[&[&str]]) -> Rules {
    let list = |list: &[&str]| list.iter().map(|text| prefix(text)).collect::<Vec<_>>();
    let mut source =
        String::from("[listener.web]\nbind = \":80\"\n[route.all]\nto = [\"127.0.0.1:3000\"]\n[kernel]\n");
    let quoted = |list: &[&str]| format!("{list:?}");
    source += &format!("limit = {{ exempt = {} }}\n", quoted(exempt));
    source += &format!("block = {{ cidrs = {}, except = {} }}\n", quoted(block), quoted(except));
    for (number, from) in classes.iter().enumerate() {
        source += &format!("[kernel.class.c{number}]\nfrom = {}\npackets = \"1/s\"\n", quoted(from));
    }
    let config = crate::config::parse(&source, std::path::Path::new("gateway.toml")).expect("a config");
    assert_eq!(config.kernel.block.prefixes, list(block));
    crate::kernel::settings::rules(&config.kernel)
}

/// The entry that decides about an address.
fn entry(desired: &Desired, address: &str) -> Option<Access> {
    around(prefix(address)).find_map(|wider| desired.access.get(&wider).copied())
}

#[test]
fn a_class_changes_limits_and_nothing_else() {
    let rules = of_config(
        &["10.0.0.0/8", "20.3.0.0/16"],
        &["10.1.0.0/16"],
        &["20.1.0.0/16", "30.0.0.0/8"],
        &[&["10.0.0.0/9", "20.0.0.0/8", "30.1.0.0/16"], &["10.1.2.0/24", "20.2.0.0/16", "20.3.1.0/24"]],
    );
    let desired = desired(&rules, &Bans::new(), 64, 50);
    for (address, action, class) in [
        ("10.0.0.1", access::BLOCK, None),
        ("10.1.9.9", access::ALLOW, Some(1)),
        ("10.1.2.3", access::ALLOW, Some(2)),
        ("20.9.9.9", access::ALLOW, Some(1)),
        ("20.1.1.1", access::EXEMPT, None),
        ("20.2.1.1", access::ALLOW, Some(2)),
        ("20.3.1.1", access::BLOCK, None),
        ("30.1.1.1", access::EXEMPT, None),
    ] {
        let entry = entry(&desired, &format!("{address}/32")).expect("an entry");
        assert_eq!(entry.action_at(1), action, "{address}");
        assert!(class.is_none_or(|class| entry.class == class), "{address}: {entry:?}");
    }
    assert_eq!(entry(&desired, "40.0.0.1/32"), None);
}

#[test]
fn a_ban_that_is_over_leaves_the_class_around_it() {
    let rules = of_config(&[], &[], &[], &[&["20.0.0.0/8"], &["20.2.0.0/16"]]);
    let desired = desired(&rules, &bans(&[("20.2.1.0/24", 100), ("20.0.0.0/9", 200)]), 64, 50);
    for (address, until, class) in [("20.2.1.1", 200, 2), ("20.2.9.1", 200, 2), ("20.9.0.1", 200, 1)] {
        let entry = entry(&desired, &format!("{address}/32")).expect("an entry");
        assert_eq!((entry.action_at(until - 1), entry.action_at(until)), (access::BAN, access::ALLOW));
        assert_eq!(entry.class, class, "{address}");
    }
    assert_eq!(entry(&desired, "20.200.0.1/32").map(|entry| (entry.action, entry.class)), Some((0, 1)));
}
