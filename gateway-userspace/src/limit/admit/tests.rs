use http::{Request, request};

use super::*;
use crate::{config, limit::Health, observe::stats::Registry};

mod overload;

/// The limits of the route `all`, of a config in which they are.
fn route(limits: &str, names: &str) -> RouteLimits {
    let text = format!(
        "[gateway]\nlimit_state = \"off\"\nlimit_keys = 1024\n[listener.web]\nbind = \":80\"\n\
         [route.all]\nto = [\"127.0.0.1:1\"]\nlimit = [{names}]\n{limits}"
    );
    let config = config::parse(&text, std::path::Path::new("gateway.toml")).unwrap();
    let (store, registry) = (Arc::new(Store::new(&config, &Arc::default(), 1)), Registry::new(1));
    let limit = |name: &String| Arc::new(Limit::new(name, &config.limits[name], &store, &registry));
    let limits = config.routes["all"].limits.iter().map(limit).collect();
    RouteLimits::new(&store, limits).unwrap()
}

fn head() -> request::Parts {
    Request::get("/").body(()).unwrap().into_parts().0
}

/// Of nobody in particular.
fn facts(head: &request::Parts) -> Facts<'_> {
    Facts {
        head,
        client: "192.0.2.1".parse().unwrap(),
        direct: true,
        route: "all",
        version: None,
        consumer: None,
        tier: None,
        claim: &|_| None,
    }
}

/// How many of `n` requests of a consumer of a tier are let in.
fn passed(limits: &RouteLimits, n: usize, consumer: Option<&str>, tier: Option<&str>, org: &str) -> usize {
    let head = head();
    let claim = |name: &str| (name == "org").then(|| org.to_owned());
    let facts = Facts { consumer, tier, claim: &claim, ..facts(&head) };
    let admit = |_: &usize| limits.admit(0, &facts, Now::read()).is_none_or(|said| said.refused.is_none());
    (0..n).filter(admit).count()
}

/// Of several limits, costs and callers: who has something left of each passes, and nobody else.
#[test]
fn what_is_left_always_agrees_with_what_happens_next() {
    let limits = route(
        "[limit.org]\nkey = \"claim:org\"\nrate = \"4/h\"\nburst = 4\n[limit.all]\nrate = \"40/h\"\nalgorithm = \"sliding-window\"\n\
         [limit.day]\nkey = \"claim:org\"\nrate = \"9/d\"\nalgorithm = \"fixed-window\"\n[limit.at-once]\nunit = \"connections\"\nmax = 1",
        "\"org\", \"all\", \"day\", \"at-once\"",
    );
    let (mut random, mut counts) = (fastrand::Rng::with_seed(5), [0; 2]);
    for _ in 0..400 {
        let head = head();
        let org = format!("org {}", random.u8(0..14));
        let claim = |name: &str| (name == "org").then(|| org.clone());
        let facts = Facts { claim: &claim, ..facts(&head) };
        let told = limits.foresee(&facts);
        let admission = limits.admit(0, &facts, Now::read()).unwrap();
        let passes = admission.refused.is_none();
        assert_eq!(told.iter().all(|one| one.left > 0), passes, "{told:?}");
        if let Some(refused) = admission.refused {
            let waits = told.iter().map(|one| one.wait_seconds).fold(0.0, f64::max);
            assert!(refused.retry_after as f64 + 0.001 >= waits.min(1.0), "{refused:?} {told:?}");
        }
        counts[usize::from(passes)] += 1;
        if let Some(passage) = admission.passage {
            passage.end(crate::limit::Ending { bytes_in: 0, bytes_out: 0 });
        }
    }
    assert_eq!(counts, [360, 40], "as many as all together may");
}

/// One bucket that nobody is told of is asked in fewer steps: the same requests pass.
#[test]
fn a_plain_limit_lets_in_what_any_other_does() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..30 {
        let (burst, cost) = (random.u64(1..20), random.u64(1..4));
        let of = |more: &str| {
            let text = format!("key = \"ip\"\nrate = \"100/s\"\nburst = {burst}\ncost = {cost}\n{more}");
            route(&format!("[limit.a]\n{text}"), "\"a\"")
        };
        let (plain, told) = (of("headers = []"), of(""));
        assert!(plain.limits[0].plain && !told.limits[0].plain);
        let (head, mut now) = (head(), Now::read());
        for n in 0..200 {
            let client = format!("192.0.2.{}", random.u8(1..4)).parse().unwrap();
            let facts = Facts { client, ..facts(&head) };
            let passes =
                [&plain, &told].map(|limits| limits.admit(0, &facts, now)?.refused.map(|no| no.retry_after));
            assert_eq!(passes[0], passes[1], "request {n}, burst {burst}, cost {cost}");
            now.steady += random.u64(0..20_000_000);
        }
        let counts = [&plain, &told].map(|limits| {
            let shard = limits.limits[0].stats.shards.of(0);
            [Decided::Allow, Decided::Deny].map(|decided| shard.decisions(decided))
        });
        assert_eq!(counts[0], counts[1]);
        assert!(counts[0][0] > 0 && counts[0][0] + counts[0][1] == 200);
    }
}

#[test]
fn consumers_have_quotas_of_their_own_by_tier() {
    let limits = route("[limit.a]\nkey = \"consumer\"\nrate = \"2/h\"\nper = { gold = \"5/h\" }", "\"a\"");
    assert_eq!(passed(&limits, 9, Some("rich"), Some("gold"), ""), 5);
    assert_eq!(passed(&limits, 9, Some("poor"), Some("free"), ""), 2);
    assert_eq!(passed(&limits, 9, Some("other"), None, ""), 2);
    assert_eq!(passed(&limits, 9, None, None, ""), 2, "without a consumer by address");
    assert_eq!(passed(&limits, 9, Some("rich"), Some("gold"), ""), 0);
}

#[test]
fn claims_have_quotas_of_their_own() {
    let limits = route("[limit.a]\nkey = \"claim:org\"\nrate = \"2/h\"", "\"a\"");
    let orgs = ["one", "two", "one"].map(|org| passed(&limits, 5, Some("c"), None, org));
    assert_eq!(orgs, [2, 2, 0]);
}

#[test]
fn a_request_that_one_limit_refuses_takes_nothing_of_the_others() {
    let limits = route(
        "[limit.few]\nkey = \"claim:org\"\nrate = \"1/h\"\n[limit.all]\nrate = \"10/h\"\n[limit.at-once]\nunit = \"connections\"\nmax = 20",
        "\"all\", \"at-once\", \"few\"",
    );
    assert_eq!(passed(&limits, 50, None, None, "one"), 1);
    let others: usize = (0..20).map(|n| passed(&limits, 3, None, None, &format!("org {n}"))).sum();
    assert_eq!(others, 9, "ten in all");
}

const DYNAMIC: &str = "[limit.a]\nmode = \"dynamic\"\nrate = { from = \"1/h\", to = \"100/h\" }\nburst = 100\ntarget = { p99 = \"1s\" }\n";

#[test]
fn when_a_dynamic_limit_is_short_the_less_important_are_refused_first() {
    let limits = route(&format!("{DYNAMIC}fair = []\npriority = [\"gold\", \"silver\"]"), "\"a\"");
    assert_eq!(passed(&limits, 200, None, None, ""), 50);
    assert_eq!(passed(&limits, 200, None, Some("silver"), ""), 25);
    assert_eq!(passed(&limits, 200, None, Some("gold"), ""), 25);
}

/// So many callers that the share of each is one.
fn shares_of_one(limits: &RouteLimits) {
    for _ in 0..20 {
        limits.limits[0].dial().unwrap().tick(&Health { within: 1_000_000, refused: 1, ..Health::default() });
    }
}

#[test]
fn of_each_tier_those_within_their_even_shares_go_first() {
    let limits = route(&format!("{DYNAMIC}priority = [\"gold\"]"), "\"a\"");
    shares_of_one(&limits);
    // Whoever is over leaves half, or a sixth if gold; the least important within their shares leave a third.
    assert_eq!(passed(&limits, 200, Some("greedy"), None, ""), 50);
    let others: usize = (0..100).map(|n| passed(&limits, 2, Some(&format!("honest {n}")), None, "")).sum();
    assert_eq!(others, 66 - 50, "one each, while there is any");
    assert_eq!(passed(&limits, 200, Some("rich"), Some("gold"), ""), 83 - 66);
}

#[test]
fn what_is_left_is_told_as_it_is_for_that_caller() {
    let limits = route(DYNAMIC, "\"a\"");
    shares_of_one(&limits);
    let left = |consumer: &str| {
        let head = head();
        let facts = Facts { consumer: Some(consumer), ..facts(&head) };
        limits.foresee(&facts)[0].left as usize
    };
    for (consumer, least) in [("one", 40), ("two", 1), ("three", 1)] {
        let told = left(consumer);
        assert!(told >= least, "{consumer}: {told}");
        assert_eq!(passed(&limits, 200, Some(consumer), None, ""), told, "{consumer}");
    }
}
