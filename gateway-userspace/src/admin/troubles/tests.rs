use super::{targets::Out, *};
use crate::{kernel::Fill, tls::Facts};

fn found(say: impl FnOnce(&mut Found)) -> Vec<Trouble> {
    let mut found = Found::default();
    say(&mut found);
    found.0
}

fn one(say: impl FnOnce(&mut Found)) -> (Level, String) {
    let all = found(say);
    let [trouble] = &all[..] else { panic!("{all:?}") };
    assert!(!trouble.cure.is_empty(), "{trouble:?}");
    (trouble.level, format!("{}: {}", trouble.of, trouble.what))
}

fn out(addr: &str, by_operator: bool) -> (String, Out) {
    (addr.to_owned(), Out { why: "refused".into(), by_operator })
}

#[test]
fn targets_that_take_no_part_are_told_and_who_can_bring_them_back() {
    let all = [out("a:1", true), out("a:2", false), out("a:3", false), out("a:4", false)];
    assert!(found(|f| f.targets("upstream", "app", 4, &[])).is_empty());
    assert_eq!(
        one(|f| f.targets("upstream", "app", 5, &all)),
        (
            Level::Warn,
            "upstream app: 4 of 5 targets take no part: a:1 (refused), a:2 (refused), a:3 (refused) and 1 more".into()
        )
    );
    assert_eq!(one(|f| f.targets("upstream", "app", 4, &all)).0, Level::Fail);
    assert_eq!(one(|f| f.targets("upstream", "app", 0, &[])).0, Level::Fail);
    let cures = |all: &[_]| found(|f| f.targets("service", "db", 9, all)).remove(0).cure;
    assert_eq!(cures(&all), "`gateway target up db/a:1` takes it up again");
    assert!(cures(&all[1..]).contains("gateway service show db"));
}

#[test]
fn certificates_are_told_of_before_they_expire() {
    let cert = |days: i64, state: &str| CertStatus {
        facts: Facts { not_after: days * 86_400 + 60, ..Facts::default() },
        state: state.into(),
        expires: "then".into(),
        chain: "/etc/own.pem".into(),
        key: String::new(),
        listeners: Vec::new(),
        error: None,
    };
    assert!(found(|f| f.cert("own", &cert(14, "valid"), 0)).is_empty());
    assert_eq!(
        one(|f| f.cert("own", &cert(13, "valid"), 0)),
        (Level::Warn, "cert own: it expires in 13 days, on then".into())
    );
    assert_eq!(one(|f| f.cert("own", &cert(-1, "expired"), 0)).0, Level::Fail);
    assert_eq!(one(|f| f.cert("acme:a", &cert(0, "awaited"), 0)).0, Level::Fail);
    let bad = CertStatus { error: Some("no key".into()), ..cert(99, "valid") };
    assert_eq!(
        one(|f| f.cert("own", &bad, 0)),
        (Level::Warn, "cert own: what is there now is not used: no key".into())
    );
}

#[test]
fn what_is_nearly_used_up_is_told() {
    let bans = |entries| Fill { map: "BANS", entries, capacity: 100 };
    for (entries, level) in [(80, Level::Warn), (95, Level::Fail)] {
        let told = one(|f| f.fill(&bans(entries)));
        assert_eq!(told, (level, format!("kernel half: BANS is {entries}% full: {entries} of 100 entries")));
    }
    assert!(found(|f| f.fill(&bans(79))).is_empty());
    assert!(found(|f| f.descriptors(79, 100)).is_empty());
    assert_eq!(one(|f| f.descriptors(80, 100)).1, "descriptors: 80 of 100 file descriptors are open");
}

#[test]
fn busy_workers_are_told_and_whether_it_is_all_of_them() {
    assert!(found(|f| f.workers(&[0.89, 0.0])).is_empty() && found(|f| f.workers(&[])).is_empty());
    assert_eq!(
        one(|f| f.workers(&[0.2, 0.97])).1,
        "workers: 1 of 2 workers are busy, worker 1 97% of the last ten seconds"
    );
    assert!(one(|f| f.workers(&[0.95, 0.97])).1.contains("all 2 workers"));
}

#[test]
fn what_was_lost_lately_is_told_by_what_lost_it() {
    let lost = Losses {
        lines_dropped: 1,
        lines_failed: 2,
        spans: 3,
        overflowed: [("web".to_owned(), 4)].into(),
        over_limit: [("service/db".to_owned(), 5)].into(),
    };
    assert!(found(|f| f.lost(&Losses::default())).is_empty());
    let told: Vec<_> = found(|f| f.lost(&lost)).into_iter().map(|trouble| trouble.of).collect();
    assert_eq!(told, ["access log", "access log", "tracing", "listener web", "service db"]);
}
