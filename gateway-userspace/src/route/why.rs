//! Why a route does not take a request.

use super::{Asked, Router, Takes};
use crate::config::model::{PathPattern, Predicates, Route};

/// The first thing that speaks against it. `None`: the route would take the request, unless a more specific one does.
pub fn why_not(asked: &Asked<'_>, route: &Route) -> Option<String> {
    let any_path = PathPattern { segments: Vec::new(), rest: true };
    let nothing = Predicates::default();
    let takes = |takes: Takes<'_>| Router::new([(takes, ())]).find(asked).is_some();
    let cors = route.cors.is_some();
    let some = |as_if: &dyn Fn(Takes<'_>) -> bool| Takes::all_of(route).any(as_if);
    if some(&|all| takes(all)) {
        return None;
    }
    if !some(&|all| takes(Takes { path: &any_path, when: &nothing, ..all })) {
        let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
        return Some(format!("is for the host {}", hosts.join(" or ")));
    }
    if !some(&|all| takes(Takes { hosts: &[], when: &nothing, ..all })) {
        return Some(format!("is for the path {}", route.path));
    }
    let only = |when: &Predicates| takes(Takes { hosts: &[], path: &any_path, when, cors });
    let when = &route.when;
    if !only(&Predicates { methods: when.methods.clone(), ..Predicates::default() }) {
        return Some(format!("is for {}", when.methods.join(", ")));
    }
    let header = when
        .headers
        .iter()
        .find(|one| !only(&Predicates { headers: vec![(*one).clone()], ..Predicates::default() }));
    if let Some((name, _)) = header {
        return Some(format!("asks for another header field {name}"));
    }
    let query = when
        .query
        .iter()
        .find(|one| !only(&Predicates { query: vec![(*one).clone()], ..Predicates::default() }));
    query.map(|(name, _)| format!("asks for another query parameter {name}"))
}
