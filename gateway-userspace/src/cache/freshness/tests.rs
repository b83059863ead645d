use super::*;

const NOW: u64 = 1_800_000_000;

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

fn date(second: u64) -> String {
    httpdate::fmt_http_date(at(second))
}

fn rules() -> Rules {
    Rules {
        ttl: None,
        override_ttl: false,
        negative: None,
        heuristic: false,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        store_set_cookie: false,
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn stored(
    asked: &Asked,
    status: u16,
    lines: &[(&'static str, &str)],
    rules: &Rules,
) -> Result<Terms, Refused> {
    storable(asked, StatusCode::from_u16(status).unwrap(), &headers(lines), rules, at(NOW), at(NOW))
}

fn terms(lines: &[(&'static str, &str)]) -> Result<Terms, Refused> {
    stored(&Asked::default(), 200, lines, &rules())
}

fn lifetime(lines: &[(&'static str, &str)]) -> i64 {
    terms(lines).unwrap().lifetime / 1000
}

#[test]
fn s_maxage_stands_above_max_age_above_expires() {
    let expires = date(NOW + 30);
    let all = [("cache-control", "max-age=20, s-maxage=10"), ("expires", &*expires)];
    assert_eq!(lifetime(&all), 10);
    assert_eq!(lifetime(&[("cache-control", "max-age=20"), ("expires", &expires)]), 20);
    assert_eq!(lifetime(&[("expires", &expires), ("date", &date(NOW))]), 30);
    assert_eq!(lifetime(&[("expires", &expires), ("date", &date(NOW - 5))]), 35);
    assert_eq!(terms(&[("expires", "0")]), Err(Refused("stale")));
    assert_eq!(terms(&[("expires", &expires), ("expires", &expires)]), Err(Refused("stale")));
}

#[test]
fn what_is_forbidden_is_not_stored() {
    let refused = |lines: &[(&'static str, &str)]| terms(lines).err().map(|refused| refused.0);
    assert_eq!(refused(&[("cache-control", "no-store, max-age=60")]), Some("no-store"));
    assert_eq!(refused(&[("cache-control", "private, max-age=60")]), Some("private"));
    assert_eq!(refused(&[("cache-control", "private=\"x\", max-age=60")]), Some("private"));
    assert_eq!(refused(&[("cache-control", "max-age=60"), ("set-cookie", "a=b")]), Some("set-cookie"));
    assert_eq!(refused(&[]), Some("no-lifetime"));
    let fresh = [("cache-control", "max-age=60")];
    assert!(stored(&Asked::default(), 206, &fresh, &rules()).is_err());
    assert!(stored(&Asked::default(), 304, &fresh, &rules()).is_err());
    assert!(stored(&Asked { no_store: true, ..Default::default() }, 200, &fresh, &rules()).is_err());
    assert!(
        stored(&Asked::default(), 599, &[("cache-control", "max-age=60, must-understand")], &rules())
            .is_err()
    );
    let understood = [("cache-control", "max-age=60, must-understand, no-store")];
    assert!(stored(&Asked::default(), 200, &understood, &rules()).is_ok());
}

#[test]
fn answers_to_those_who_say_who_they_are_need_leave_or_a_key_of_their_own() {
    let with = Asked { authorization: true, ..Default::default() };
    let store = |asked: &Asked, text: &str| stored(asked, 200, &[("cache-control", text)], &rules()).is_ok();
    assert!(!store(&with, "max-age=60"));
    for leave in ["public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"] {
        assert!(store(&with, leave), "{leave}");
    }
    let known = Asked { identified: true, ..Default::default() };
    assert!(!store(&known, "max-age=60") && !store(&known, "max-age=60, must-revalidate"));
    assert!(store(&known, "max-age=60, public"));
    assert!(store(&Asked { separated: true, authorization: true, ..known }, "max-age=60"));
    assert!(!store(&Asked { separated: true, ..known }, "private, max-age=60"));
}

#[test]
fn the_policy_s_time_is_for_where_nothing_is_said_and_not_for_what_may_be_a_user_s_own() {
    let policy =
        Rules { ttl: Some(Duration::from_secs(30)), negative: Some(Duration::from_secs(5)), ..rules() };
    let of = |status, lines: &[(&'static str, &str)]| {
        stored(&Asked::default(), status, lines, &policy).map(|terms| terms.lifetime)
    };
    assert_eq!(of(200, &[]), Ok(30_000));
    assert_eq!(of(200, &[("cache-control", "max-age=9")]), Ok(9_000));
    assert_eq!(of(404, &[]), Ok(5_000));
    assert_eq!(of(500, &[]), Err(Refused("no-lifetime")));
    let cookie = Asked { cookie: true, ..Default::default() };
    assert_eq!(stored(&cookie, 200, &[], &policy), Err(Refused("cookie")));
    assert!(stored(&cookie, 200, &[("cache-control", "max-age=9")], &policy).is_ok());
    assert!(stored(&Asked { cookies_keyed: true, ..cookie }, 200, &[], &policy).is_ok());
    let above = Rules { override_ttl: true, ..policy };
    let found = stored(&Asked::default(), 200, &[("cache-control", "max-age=9")], &above);
    assert_eq!(found.unwrap().lifetime, 30_000);
    assert!(stored(&Asked::default(), 200, &[("cache-control", "no-store")], &above).is_err());
}

#[test]
fn heuristics_are_a_tenth_of_what_the_content_is_old_and_only_where_asked_for() {
    let old = date(NOW - 1000);
    let lines = [("last-modified", &*old), ("date", &*date(NOW))];
    assert_eq!(terms(&lines), Err(Refused("no-lifetime")));
    let heuristic = Rules { heuristic: true, ..rules() };
    assert_eq!(stored(&Asked::default(), 200, &lines, &heuristic).unwrap().lifetime, 100_000);
    assert!(stored(&Asked::default(), 201, &lines, &heuristic).is_err());
}

#[test]
fn age_counts_from_when_the_answer_was_made() {
    let age = |lines: &[(&'static str, &str)]| terms(lines).unwrap().age(at(NOW + 5)) / 1000;
    assert_eq!(age(&[("cache-control", "max-age=60")]), 5);
    assert_eq!(age(&[("cache-control", "max-age=60"), ("age", "10")]), 15);
    assert_eq!(age(&[("cache-control", "max-age=60"), ("date", &date(NOW - 20)), ("age", "10")]), 25);
    assert_eq!(age(&[("cache-control", "max-age=60"), ("age", "10,7200")]), 15);
    for odd in ["old", "-1", "1.0", "0, 0", "0,", ",0", "7200,0", "7200;foo=bar"] {
        assert_eq!(terms(&[("cache-control", "max-age=60"), ("age", odd)]), Err(Refused("stale")), "{odd}");
    }
    assert!(terms(&[("cache-control", "max-age=60"), ("age", "0"), ("age", "0")]).is_err());
    let delayed = storable(
        &Asked::default(),
        StatusCode::OK,
        &headers(&[("cache-control", "max-age=60"), ("age", "10")]),
        &rules(),
        at(NOW - 3),
        at(NOW),
    );
    assert_eq!(delayed.unwrap().age(at(NOW)), 13_000);
}

#[test]
fn a_client_may_ask_for_more_and_take_less() {
    let terms = terms(&[("cache-control", "max-age=60")]).unwrap();
    let use_at = |text: &str, second| {
        let asked = RequestDirectives::of(&headers(&[("cache-control", text)]));
        terms.judge(Some(&asked), None, at(NOW + second))
    };
    assert_eq!(terms.judge(None, None, at(NOW + 59)), Use::Fresh);
    assert_eq!(terms.judge(None, None, at(NOW + 60)), Use::Validated);
    assert_eq!(use_at("no-cache", 1), Use::Validated);
    assert_eq!(use_at("max-age=10", 10), Use::Fresh);
    assert_eq!(use_at("max-age=10", 11), Use::Validated);
    assert_eq!(use_at("min-fresh=30", 29), Use::Fresh);
    assert_eq!(use_at("min-fresh=30", 31), Use::Validated);
    assert_eq!(use_at("max-stale=10", 65), Use::Stale);
    assert_eq!(use_at("max-stale=10", 75), Use::Validated);
    assert_eq!(use_at("max-stale", 7500), Use::Stale);
}

#[test]
fn stale_is_served_only_where_nothing_forbids_it() {
    let lenient =
        Rules { while_revalidate: Duration::from_secs(10), if_error: Duration::from_secs(100), ..rules() };
    let of = |text: &str| {
        stored(&Asked::default(), 200, &[("cache-control", text), ("etag", "\"a\"")], &lenient).unwrap()
    };
    let plain = of("max-age=60");
    assert_eq!(plain.judge(None, None, at(NOW + 65)), Use::WhileRevalidating);
    assert_eq!(plain.judge(None, None, at(NOW + 71)), Use::Validated);
    assert!(plain.if_error(at(NOW + 159)) && !plain.if_error(at(NOW + 161)));
    let said = of("max-age=60, stale-while-revalidate=1, stale-if-error=2");
    assert_eq!((said.while_revalidate, said.if_error), (1000, 2000));
    for text in ["max-age=60, must-revalidate", "max-age=60, proxy-revalidate", "s-maxage=60", "no-cache"] {
        let strict = of(text);
        assert_eq!(strict.judge(None, None, at(NOW + 61)), Use::Validated, "{text}");
        assert!(!strict.if_error(at(NOW + 61)), "{text}");
        let takes = RequestDirectives { max_stale: Some(None), ..Default::default() };
        assert_eq!(strict.judge(Some(&takes), None, at(NOW + 61)), Use::Validated, "{text}");
    }
    assert_eq!(of("s-maxage=60, stale-while-revalidate=5").while_revalidate, 5000);
    assert_eq!(of("no-cache").judge(None, None, at(NOW)), Use::Validated);
}

#[test]
fn what_is_purged_softly_is_stale_from_then_on() {
    let lenient = Rules { while_revalidate: Duration::from_secs(10), ..rules() };
    let terms = stored(&Asked::default(), 200, &[("cache-control", "max-age=600")], &lenient).unwrap();
    let since = Some(millis(at(NOW + 5)));
    assert_eq!(terms.judge(None, since, at(NOW + 6)), Use::WhileRevalidating);
    assert_eq!(terms.judge(None, since, at(NOW + 16)), Use::Validated);
}
