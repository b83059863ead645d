//! A request of a route with versions: which one takes it, or why none does.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request};
use serde_json::json;

use super::{body::ResponseBody, exchange::Exchange, handler::asked, own, problem, strict};
use crate::{
    config::units::Moment,
    observe::Why,
    policy::Policies,
    request::without_parameters,
    runtime::Route,
    upstream::http1::Outgoing,
    version::{Picked, Refused, Standing, Version, Versions, path_with, path_without},
};

/// Who takes a request.
pub struct Chosen {
    pub route: Arc<Route>,
    /// `None`: the route itself, whatever the version.
    pub picked: Option<Picked>,
    pub exchange: Exchange,
}

/// The version that takes the request, whose path loses its version. An answer: none does.
pub fn choose(
    base: Arc<Route>,
    versions: &Versions,
    exchange: Exchange,
    head: &mut request::Parts,
) -> Result<Chosen, Box<Response<ResponseBody>>> {
    exchange.set_route(&base);
    let picked = match versions.chooser.choose(&asked(head)) {
        Ok(picked) => picked,
        // A browser asks without the fields that it is going to send.
        Err(Refused::Required) if base.preflights(head) => {
            return Ok(Chosen { route: base, picked: None, exchange });
        }
        Err(refused) => {
            hide(&base, versions, &exchange, head);
            return Err(Box::new(refuse(versions, refused, exchange, head)));
        }
    };
    let picked = canary(versions, picked, |canary| {
        canary.of(picked, &head.headers, exchange.state.client().addr, true)
    });
    let Some(route) = versions.routes.get(usize::from(picked.version)).cloned() else {
        return Err(Box::new(problem::response(exchange, Why::NoRoute)));
    };
    exchange.set_route(&route);
    exchange.set_agent(head.headers.get(header::USER_AGENT));
    if picked.in_path {
        let path = path_without(head.uri.path(), versions.chooser.segment);
        match strict::with_path(&head.uri, path) {
            Ok(uri) => head.uri = uri,
            Err(why) => return Err(Box::new(problem::response(exchange, why))),
        }
    }
    let Some(version) = &route.version else { return Ok(Chosen { route, picked: Some(picked), exchange }) };
    if version.life.is_open() {
        return Ok(Chosen { route, picked: Some(picked), exchange });
    }
    let now = Moment::of(exchange.state.worker.wall_clock(exchange.started()));
    match version.life.at(now) {
        Standing::Serves => Ok(Chosen { route, picked: Some(picked), exchange }),
        standing => {
            hide(&base, versions, &exchange, head);
            Err(Box::new(ended(version, versions, standing, picked, exchange, head)))
        }
    }
}

/// Nobody asks who calls what is not there, but credentials are not logged.
fn hide(base: &Route, versions: &Versions, exchange: &Exchange, head: &request::Parts) {
    let routes = std::iter::once(base).chain(versions.routes.iter().map(|route| &**route));
    let gates = routes.filter_map(|route| route.policies.as_ref()?.gate.as_ref());
    let mut clean = None;
    for gate in gates {
        clean = gate.clean_query(clean.as_ref().unwrap_or(&head.uri)).or(clean);
    }
    if let Some(clean) = clean {
        exchange.log_query(clean.query());
    }
}

/// One step at most: canaries of canaries would be hard to follow.
pub fn canary(
    versions: &Versions,
    picked: Picked,
    of: impl FnOnce(&crate::version::Canary) -> Option<Picked>,
) -> Picked {
    let route = versions.routes.get(usize::from(picked.version));
    let canary = route.and_then(|route| route.version.as_ref()?.canary.as_ref());
    canary.and_then(of).unwrap_or(picked)
}

/// A version that a request goes to because of who calls.
pub struct Next {
    route: Arc<Route>,
    picked: Picked,
}

impl Next {
    pub fn parts(&self) -> Option<(&Arc<Route>, Picked, &Policies)> {
        Some((&self.route, self.picked, self.route.policies.as_deref()?))
    }
}

/// The version that the caller's canary leads to, if it serves.
pub fn of_caller(route: &Route, picked: Option<Picked>, exchange: &Exchange) -> Option<Next> {
    let canary = route.version.as_ref()?.canary.as_ref()?;
    let (route, picked) = canary.of_caller(picked?, &*exchange.caller()?)?;
    let now = Moment::of(exchange.state.worker.wall_clock(exchange.started()));
    let serves = route.version.as_ref().is_none_or(|version| version.life.at(now) == Standing::Serves);
    serves.then_some(Next { route, picked })
}

/// Why it is refused, and with which status: where the version is a part of the URL, there is no such resource.
pub fn status_of(versions: &Versions, refused: Refused) -> (Why, StatusCode) {
    match refused {
        Refused::Required => (Why::VersionRequired, StatusCode::BAD_REQUEST),
        Refused::Conflict { .. } => (Why::VersionConflict, StatusCode::BAD_REQUEST),
        Refused::Unknown { by } if versions.chooser.is_in_url(by) => {
            (Why::VersionUnknown, StatusCode::NOT_FOUND)
        }
        Refused::Unknown { .. } => (Why::VersionUnknown, StatusCode::BAD_REQUEST),
    }
}

/// For the client to read.
pub fn detail(versions: &Versions, refused: Refused, head: &request::Parts) -> String {
    let chooser = &versions.chooser;
    let said = |by: u8| -> String {
        let text: Cow<'_, str> = chooser.shown(by, &asked(head));
        format!("{} says {text:?}", chooser.source(by))
    };
    match refused {
        Refused::Required => {
            let places: Vec<&str> = (0..chooser.sources())
                .filter_map(|by| u8::try_from(by).ok())
                .map(|by| chooser.source(by))
                .collect();
            format!("the request names no version; it may in: {}", places.join(", "))
        }
        Refused::Unknown { by } => format!("{}, which is none of the versions", said(by)),
        Refused::Conflict { one, two } if one == two => format!("{} and something else", said(one)),
        Refused::Conflict { one, two } => format!("{} and {}", said(one), said(two)),
    }
}

fn refuse(
    versions: &Versions,
    refused: Refused,
    exchange: Exchange,
    head: &request::Parts,
) -> Response<ResponseBody> {
    let (why, status) = status_of(versions, refused);
    let names: Vec<&str> = versions.chooser.names().collect();
    let more = json!({ "detail": detail(versions, refused, head), "versions": names });
    problem::detailed(exchange, why, status, more, HeaderMap::new())
}

/// The version does not answer, for now or for good.
fn ended(
    version: &Version,
    versions: &Versions,
    standing: Standing,
    picked: Picked,
    exchange: Exchange,
    head: &request::Parts,
) -> Response<ResponseBody> {
    let mut fields = HeaderMap::new();
    let (why, status) = match standing {
        Standing::BrownOut(left) => {
            fields.insert(header::RETRY_AFTER, HeaderValue::from(left));
            (Why::BrownOut, StatusCode::SERVICE_UNAVAILABLE)
        }
        _ => (Why::Sunset, StatusCode::GONE),
    };
    version.tell.of(picked, head).apply(status, &mut fields);
    let to = version.tell.successor_target(&head.uri).filter(|_| standing == Standing::Redirects);
    if let Some(to) = to.and_then(|to| HeaderValue::try_from(to).ok()) {
        fields.insert(header::LOCATION, to);
        exchange.answers(StatusCode::PERMANENT_REDIRECT);
        return own::last_answer(exchange, StatusCode::PERMANENT_REDIRECT, fields, Default::default());
    }
    let names: Vec<&str> = versions.chooser.names().filter(|name| *name != &*version.name).collect();
    let detail = match standing {
        Standing::BrownOut(_) => {
            format!("version {} is switched off for a while, as it soon will be for good", version.name)
        }
        _ => format!("version {} is no longer there", version.name),
    };
    problem::detailed(exchange, why, status, json!({ "detail": detail, "versions": names }), fields)
}

/// The request as the version's upstream is to see it. `rewritten`: it has a path of its own already.
pub fn to_upstream(
    version: &Version,
    picked: Picked,
    rewritten: bool,
    request: &mut Outgoing,
) -> Result<(), Why> {
    let head = &mut request.head;
    if let Some(at) = version.strip.kept_segment.filter(|_| picked.in_path && !rewritten) {
        head.uri = strict::with_path(&head.uri, path_with(head.uri.path(), at, &version.name))?;
    }
    if let Some(target) = without_parameters(&head.uri, &version.strip.query) {
        head.uri = target.into();
    }
    for name in &version.strip.headers {
        head.headers.remove(name);
    }
    Ok(())
}
