//! Keys of `[upstream.NAME]` about balancing and surviving targets.

use std::{collections::BTreeMap, time::Duration};

use super::{rewrite, route::defined};

use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{
        Balance, Breaker, Eject, Fallback, FallbackOn, HashOn, PathPattern, Retry, RetryOn, StickyCookie,
    },
    node::Fields,
    units::Percent,
};

/// At most 100 %, as a fraction. `path`: the key, for messages.
pub(super) fn share(fields: &Fields, key: &str, path: &str, problems: &mut Problems) -> f64 {
    let Percent(share) = fields.or_default(key);
    if share > 1.0 {
        let message = format!("`{path}`: must be from 0% to 100%");
        problems.push(Problem::new(ProblemKind::Value, &fields.place(key), message));
    }
    share
}

pub(super) fn share_or_off(fields: &Fields, key: &str, path: &str, problems: &mut Problems) -> Option<f64> {
    fields.or_default::<Option<Percent>>(key)?;
    Some(share(fields, key, path, problems))
}

pub(super) fn retry(name: &str, parent: &Fields, problems: &mut Problems) -> Retry {
    let fields = parent.table("retry");
    let words: Vec<&'static str> = fields.or_default("on");
    Retry {
        on: RetryOn::from_words(&words),
        tries: if words.is_empty() { 0 } else { fields.or_default("tries") },
        budget: share_or_off(&fields, "budget", &format!("upstream.{name}.retry.budget"), problems),
        per_try: fields.or_default("per_try"),
    }
}

pub(super) fn hash_on(name: &str, fields: &Fields, balance: Balance, problems: &mut Problems) -> Vec<HashOn> {
    let Some(node) = fields.node("hash_on") else { return vec![HashOn::Ip] };
    // A balance that could not be read may have been meant as this one.
    if balance != Balance::Maglev && !fields.broken {
        let message = format!("`upstream.{name}.hash_on` only works with balance = \"maglev\"");
        let problem = Problem::new(ProblemKind::Conflict, &node.at, message);
        problems.push(problem.hint("write balance = \"maglev\", or drop it".to_owned()));
    }
    let texts: Vec<String> = fields.get("hash_on").unwrap_or_default();
    let on: Vec<HashOn> = texts.iter().filter_map(|text| HashOn::parse(text).ok()).collect();
    let always = |on: &HashOn| matches!(on, HashOn::Path | HashOn::Ip | HashOn::Random);
    if let Some(at) = on.iter().position(always).filter(|at| at + 1 < on.len()) {
        let (first, next) = (on[at].show(), on[at + 1].show());
        let message = format!("`upstream.{name}.hash_on`: \"{next}\" is never used");
        let problem = Problem::new(ProblemKind::Conflict, &node.at, message);
        problems.push(problem.hint(format!("every request has \"{first}\": put it last")));
    }
    on
}

pub(super) fn sticky(name: &str, parent: &Fields, problems: &mut Problems) -> Option<StickyCookie> {
    parent.node("sticky")?;
    let fields = parent.table("sticky");
    let same_site: &'static str = fields.or_default("same_site");
    let secure: bool = fields.or_default("secure");
    // draft-ietf-httpbis-rfc6265bis section 5.7: such a cookie is thrown away.
    if same_site == "none" && !secure {
        let message = format!(
            "`upstream.{name}.sticky`: browsers take no cookie with same_site = \"none\" and not secure"
        );
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("same_site"), message);
        problems.push(problem.hint("add secure = true".to_owned()));
    }
    Some(StickyCookie { cookie: fields.get("cookie")?, lasts: fields.or_default("lasts"), same_site, secure })
}

pub(super) fn eject(name: &str, parent: &Fields, problems: &mut Problems) -> Option<Eject> {
    parent.node("eject")?;
    let fields = parent.table("eject");
    Some(Eject {
        errors: fields.or_default("errors"),
        within: fields.or_default("within"),
        base: fields.or_default::<Duration>("for"),
        at_most: share(&fields, "at_most", &format!("upstream.{name}.eject.at_most"), problems),
    })
}

pub(super) fn breaker(name: &str, parent: &Fields, problems: &mut Problems) -> Option<Breaker> {
    parent.node("breaker")?;
    let fields = parent.table("breaker");
    Some(Breaker {
        errors: share(&fields, "errors", &format!("upstream.{name}.breaker.errors"), problems),
        least: fields.or_default("least"),
        within: fields.or_default("within"),
        open_for: fields.or_default("open_for"),
        probes: fields.or_default("probes"),
        slow: fields.get("slow"),
    })
}

pub(super) fn fallback(name: &str, parent: &Fields, problems: &mut Problems) -> Option<Fallback> {
    parent.node("fallback")?;
    let fields = parent.table("fallback");
    let on = FallbackOn::from_words(&fields.or_default::<Vec<&'static str>>("on"));
    if on.breaker && parent.node("breaker").is_none() && !parent.broken && !fields.broken {
        let message = format!("`upstream.{name}.fallback` is for an open breaker, and there is none");
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("on"), message);
        problems.push(problem.hint("add `breaker`, or write on = [\"unhealthy\"]".to_owned()));
    }
    // An upstream is asked for by many routes: none of them is whose parameters there are.
    let anywhere = PathPattern { segments: Vec::new(), rest: true };
    Some(Fallback { on, to: fields.get("to"), respond: rewrite::respond(&fields, &anywhere, problems) })
}

/// Those that others stand in for must be there, and be others.
pub(super) fn fallbacks(declared: &BTreeMap<String, Fields>, problems: &mut Problems) {
    for (name, fields) in declared.iter().filter(|(_, fields)| fields.node("fallback").is_some()) {
        let fallback = fields.table("fallback");
        let Some(to) = fallback.get::<String>("to") else { continue };
        defined(&to, &fallback.place("to"), declared, problems);
        if to == *name {
            let message = format!("`upstream.{name}.fallback.to` is the upstream itself");
            problems.push(Problem::new(ProblemKind::Conflict, &fallback.place("to"), message));
        }
    }
}
