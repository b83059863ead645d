//! Whether a caller may.

use http::Method;

use super::Caller;
use crate::config::model::{self, Demand, Right};

#[derive(Debug)]
pub struct Allow(model::Allow);

impl Allow {
    pub fn new(config: &model::Allow) -> Self {
        Allow(config.clone())
    }

    pub fn allows(&self, caller: &Caller, method: &Method) -> bool {
        match &self.0 {
            model::Allow::Always(demand) => meets(caller, demand),
            model::Allow::ByMethod(methods) => {
                let of = |name: &str| methods.iter().find(|(method, _)| method == name);
                // As `methods` of a route has it, GET takes HEAD too.
                let found =
                    of(method.as_str()).or_else(|| if *method == Method::HEAD { of("GET") } else { None });
                found.is_some_and(|(_, demand)| meets(caller, demand))
            }
        }
    }
}

fn meets(caller: &Caller, demand: &Demand) -> bool {
    let mut rights = demand.rights.iter();
    match demand.all {
        true => rights.all(|right| has(caller, right)),
        false => demand.rights.is_empty() || rights.any(|right| has(caller, right)),
    }
}

fn has(caller: &Caller, right: &Right) -> bool {
    match right {
        Right::Grant(grant) => caller.granted(grant) || caller.has_scope(grant),
        Right::Tier(tier) => caller.tier.as_deref() == Some(tier),
        Right::Consumer(name) => &*caller.consumer == name.as_str(),
        Right::Scope(scope) => caller.has_scope(scope),
        Right::Claim(name, value) => caller.claims(name, value),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn any_or_all_rights_are_asked_for_and_methods_that_are_not_named_are_not_allowed() {
        let caller = Caller {
            consumer: "acme".into(),
            tier: Some("gold".into()),
            grants: ["items:read".into(), "items:write".into()].into(),
            scopes: ["mail".into()].into(),
            claims: serde_json::from_str(r#"{"org":"acme","roles":["a","b"],"n":7,"o":{}}"#)
                .ok()
                .map(Arc::new),
            ..Caller::default()
        };
        let demand = |all, rights: &[Right]| Demand { rights: rights.to_vec(), all };
        let grant = |text: &str| Right::Grant(text.into());
        let claim = |name: &str, value: &str| Right::Claim(name.into(), value.into());
        let tier = |text: &str| Right::Tier(text.into());
        for (expected, demand) in [
            (true, demand(false, &[])),
            (true, demand(false, &[grant("other"), grant("items:read")])),
            (true, demand(false, &[grant("other"), tier("gold")])),
            (false, demand(false, &[grant("other"), tier("free"), grant("gold")])),
            (true, demand(true, &[grant("items:write"), tier("gold"), Right::Consumer("acme".into())])),
            (false, demand(true, &[grant("items:write"), tier("free")])),
            (false, demand(false, &[Right::Scope("items:read".into())])),
            (true, demand(true, &[Right::Scope("mail".into()), grant("mail")])),
            (true, demand(true, &[claim("org", "acme"), claim("roles", "b"), claim("n", "7")])),
            (
                false,
                demand(false, &[claim("org", "acm"), claim("roles", "ab"), claim("o", "{}"), claim("x", "")]),
            ),
        ] {
            let always = Allow(model::Allow::Always(demand.clone()));
            assert_eq!(always.allows(&caller, &Method::GET), expected, "{demand:?}");
        }
        let by_method = Allow(model::Allow::ByMethod(vec![
            ("GET".into(), demand(false, &[])),
            ("PUT".into(), demand(false, &[grant("admin")])),
        ]));
        let allowed = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE]
            .map(|method| by_method.allows(&caller, &method));
        assert_eq!(allowed, [true, true, false, false]);
    }
}
