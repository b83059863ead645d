use http::{Request, request};

use super::*;
use crate::{config, observe::stats::Registry};

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

/// How many of `n` requests of a consumer of a tier are let in.
fn passed(limits: &RouteLimits, n: usize, consumer: Option<&str>, tier: Option<&str>, org: &str) -> usize {
    let head = head();
    let facts = Facts {
        head: &head,
        client: "192.0.2.1".parse().unwrap(),
        direct: true,
        route: "all",
        version: None,
        consumer,
        tier,
        claim: &|name| (name == "org").then(|| org.to_owned()),
    };
    (0..n).filter(|_| limits.admit(0, &facts).refused.is_none()).count()
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

#[test]
fn when_a_dynamic_limit_is_short_the_less_important_are_refused_first() {
    let limits = route(
        "[limit.a]\nmode = \"dynamic\"\nrate = { from = \"1/h\", to = \"100/h\" }\ntarget = { p99 = \"1s\" }\npriority = [\"gold\", \"silver\"]",
        "\"a\"",
    );
    assert_eq!(passed(&limits, 200, None, None, ""), 50);
    assert_eq!(passed(&limits, 200, None, Some("silver"), ""), 25);
    assert_eq!(passed(&limits, 200, None, Some("gold"), ""), 25);
}
