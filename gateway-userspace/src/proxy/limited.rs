//! The limits of a route, asked about one request.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Response, request};
use serde_json::Value;

use super::{
    body::ResponseBody, connection::ClientState, exchange::Exchange, metered::Metered, paced::Paced, problem,
    worker::Worker,
};
use crate::{
    limit::{Admission, Facts, Misdeed, RouteLimits},
    observe::Why,
    policy::caller::Caller,
    runtime::{Listener, Route, Snapshot},
};

/// Soft limits that a request is over, told to the upstream.
const OVER: HeaderName = HeaderName::from_static("x-limit-over");

/// What the limits say of it. They may have to ask others first.
pub async fn admit(
    limits: &RouteLimits,
    exchange: &Exchange,
    route: &Route,
    head: &request::Parts,
) -> Admission {
    let caller = exchange.caller();
    let claim = claim(caller.as_deref());
    let facts = facts(exchange, route, head, caller.as_deref(), &claim);
    settled(exchange, limits.admit_shared(exchange.state.worker.index, &facts).await)
}

/// As [`admit`], where nobody else has to be asked. `None`: it is let in, and there is nothing to tell.
pub fn admit_now(
    limits: &RouteLimits,
    exchange: &Exchange,
    route: &Route,
    head: &request::Parts,
) -> Option<Admission> {
    let caller = exchange.caller();
    let claim = claim(caller.as_deref());
    let facts = facts(exchange, route, head, caller.as_deref(), &claim);
    let admission = limits.admit(exchange.state.worker.index, &facts, exchange.now())?;
    Some(settled(exchange, admission))
}

fn claim(caller: Option<&Caller>) -> impl Fn(&str) -> Option<String> {
    move |name| match caller?.claim(name)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn facts<'a>(
    exchange: &Exchange,
    route: &'a Route,
    head: &'a request::Parts,
    caller: Option<&'a Caller>,
    claim: &'a dyn Fn(&str) -> Option<String>,
) -> Facts<'a> {
    let client = exchange.state.client();
    Facts {
        head,
        client: client.addr,
        direct: client.is_direct(),
        route: &route.name,
        version: route.version.as_ref().map(|version| &*version.name),
        consumer: caller.map(|caller| &*caller.consumer),
        tier: caller.and_then(|caller| caller.tier.as_deref()),
        claim,
    }
}

/// What is to be remembered of it goes with the request.
fn settled(exchange: &Exchange, mut admission: Admission) -> Admission {
    if let Some(said) = admission.said.take() {
        exchange.set_limit(said);
    }
    if let Some(passage) = admission.passage.take() {
        exchange.set_passage(passage);
    }
    admission
}

/// Who misbehaves earns points.
pub fn note(state: &ClientState, why: Why, presented: bool) {
    let misdeed = match why {
        Why::BadRequest => Misdeed::Malformed,
        Why::HeaderTimeout | Why::BodyTimeout | Why::WriteTimeout => Misdeed::Slow,
        Why::HeaderTooLarge | Why::UriTooLong | Why::Json => Misdeed::Flood,
        Why::Unauthorized if presented => Misdeed::Login,
        _ => return,
    };
    let client = state.client();
    penalise(&state.worker.snapshot(), client.addr, client.is_direct(), misdeed);
}

/// `direct`: the connection is the client's own.
pub fn penalise(snapshot: &Snapshot, client: IpAddr, direct: bool, misdeed: Misdeed) {
    if let Some(penalties) = &snapshot.penalties {
        penalties.penalty(&snapshot.limit_store, client, direct, misdeed);
    }
}

/// A connection is refused or ended for what its source takes.
pub fn flooded(listener: &Listener, worker: &Worker, (source, direct): (IpAddr, bool), why: Why) {
    listener.stats.shards.of(worker.index).error(why);
    penalise(&worker.snapshot(), source, direct, Misdeed::Flood);
}

/// The answer to a request that a limit refused.
pub fn refuse(exchange: Exchange, admission: Admission) -> Response<ResponseBody> {
    let why = admission.refused.map_or(Why::Limited, |refused| refused.why);
    let mut response = problem::response(exchange, why);
    if let Some(refused) = admission.refused {
        response.headers_mut().insert(http::header::RETRY_AFTER, refused.retry_after.into());
    }
    admission.fields.apply(response.headers_mut());
    response
}

/// Tells the upstream which soft limits a request is over; what a client says of that is taken away.
pub fn mark(admission: &Admission, headers: &mut HeaderMap) {
    headers.remove(&OVER);
    for name in &admission.marks {
        if let Ok(name) = HeaderValue::from_str(name) {
            headers.append(OVER, name);
        }
    }
}

/// Reads what the request cost out of the answer.
pub fn meter(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let Some(exchange) = response.body().exchange() else { return response };
    exchange.answer_heads(response.headers());
    let pointers = exchange.cost_pointers();
    if pointers.is_empty() {
        return response;
    }
    let (head, body) = response.into_parts();
    let metered = Metered::new(body, pointers, &head.headers);
    Response::from_parts(head, ResponseBody::Metered(Box::new(metered)))
}

/// Sends the answer no faster than it may be.
pub fn pace(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let paces = response.body().exchange().map(Exchange::paces).unwrap_or_default();
    if paces.is_empty() {
        return response;
    }
    response.map(|body| ResponseBody::Paced(Box::new(Paced::new(body, paces))))
}
