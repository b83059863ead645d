//! One request as a story: check it, find its route, send it on, bring the answer back.

use std::{rc::Rc, sync::Arc};

use http::{HeaderValue, Method, Response, StatusCode, Version, header, request};
use http_body::Body;

use super::{
    body::{RequestBody, ResponseBody, Sent},
    connection::ClientState,
    exchange::Exchange,
    fallback,
    forward::{self, Answer},
    grpc, headers, hops, http2,
    incoming::Incoming,
    policed, problem, real_ip, redirect, strict,
    tunnel::Tunnel,
    versioned,
    websocket::Extended,
};
use crate::{
    observe::Why,
    route::Asked,
    runtime::{Route, Snapshot},
    upstream::{
        Upstream,
        http1::{self, Framing, Head, Outgoing, Switch},
    },
};

/// What becomes of a request, as far as that is known when it is here.
#[allow(clippy::large_enum_variant, reason = "it is moved once; a box would cost more")]
pub enum Begun {
    /// Nothing has to be waited for: no future is made for it.
    Answered(Response<ResponseBody>),
    Onward(Onward),
}

/// What is left to be done of a request that was not answered at once.
#[allow(clippy::large_enum_variant, reason = "as above")]
pub enum Onward {
    Plain(Plain),
    /// Of a route with policies; in a box, so that the future of requests without stays small.
    Policed(policed::Answering),
}

/// To the upstream of a route without policies.
pub struct Plain {
    snapshot: Arc<Snapshot>,
    route: Arc<Route>,
    exchange: Exchange,
    request: Outgoing,
    body: RequestBody,
}

impl From<Response<ResponseBody>> for Begun {
    fn from(response: Response<ResponseBody>) -> Self {
        Begun::Answered(response)
    }
}

impl Onward {
    pub async fn finish(self) -> Response<ResponseBody> {
        match self {
            Onward::Plain(Plain { snapshot, route, exchange, request, body }) => match &route.upstream {
                Some(upstream) => forward(&snapshot, &route, upstream, exchange, request, body).await,
                None => problem::response(exchange, Why::NoRoute),
            },
            Onward::Policed(finish) => finish.await,
        }
    }
}

/// Takes a request to its answer.
pub async fn handle(state: Rc<ClientState>, head: request::Parts, body: Incoming) -> Response<ResponseBody> {
    match begin(state, head, body) {
        Begun::Answered(response) => response,
        Begun::Onward(onward) => onward.finish().await,
    }
}

/// Does what can be done of a request at once.
pub fn begin(state: Rc<ClientState>, mut head: request::Parts, body: Incoming) -> Begun {
    let snapshot = state.worker.snapshot();
    state.body_unread.set(!body.is_end_stream());
    state.last_request.set(headers::closes(&head));
    if let Some(real_ip) = &state.listener.config.real_ip {
        real_ip::apply(&state, real_ip, &mut head.headers);
    }
    let exchange = Exchange::begin(state, Some(&head));
    if let Some(tracer) = &snapshot.tracer {
        let mut trace = tracer.begin(&mut head);
        // Only of a connection's first request.
        if let Some(shaken) = exchange.state.client().shaken.take() {
            trace.shaken("tls", &shaken);
        }
        exchange.set_trace(trace);
    }
    let client = exchange.state.client().addr;
    if snapshot.limit_store.bans.check(client).is_some() {
        exchange.state.body_unread.set(true);
        return problem::response(exchange, Why::Banned).into();
    }
    if let Err(why) = check(&mut head, &body, &exchange) {
        // Somebody else may take what is behind it for a part of it: the connection ends with it.
        exchange.state.body_unread.set(true);
        return problem::response(exchange, why).into();
    }
    if let Some(acceptor) = &exchange.state.listener.tls
        && acceptor.goes_by_name()
        && acceptor.rules_for(Some(asked(&head).host)) != exchange.state.client().rules
    {
        // Its client certificate was not asked for, or checked by others' authorities.
        return problem::response(exchange, Why::Misdirected).into();
    }
    if let Some(challenges) = &exchange.state.listener.challenges
        && let Some(proof) = challenges.at(head.uri.path())
    {
        return redirect::prove(exchange, &proof).into();
    }
    if let Some(port) = exchange.state.listener.config.redirect {
        return redirect::to_https(exchange, &head, port).into();
    }
    if matches!(head.method, Method::OPTIONS | Method::TRACE) {
        match hops::count_down(&mut head) {
            Ok(true) => {}
            Ok(false) => return hops::last(exchange, &head.method).into(),
            Err(why) => return problem::response(exchange, why).into(),
        }
    }
    let asked = asked(&head);
    let Some(route) = snapshot.router.find(&asked).cloned() else {
        return no_route(&snapshot, exchange, &head).into();
    };
    if snapshot.is_confusing(&asked, &route) {
        exchange.state.body_unread.set(true);
        return problem::response(exchange, Why::BadRequest).into();
    }
    let (route, picked, exchange) = match &route.versions {
        None => {
            exchange.set_route(&route);
            (route, None, exchange)
        }
        Some(versions) => match versioned::choose(route.clone(), versions, exchange, &mut head) {
            Ok(versioned::Chosen { route, picked, exchange }) => (route, picked, exchange),
            Err(response) => return (*response).into(),
        },
    };
    let upgrades = || matches!(headers::switch(&head, &route.upgrade), Switch::Upgrade(_));
    if head.extensions.get::<Extended>().is_some() && !upgrades() {
        return problem::response(exchange, Why::MethodNotAllowed).into();
    }
    if route.policies.is_some() {
        // Policies see it as if the client had said so.
        if let Some(trace) = exchange.take_unsaid_trace() {
            trace.put(&mut head.headers);
        }
        return policed::begin(snapshot, (route, picked), exchange, head, body);
    }
    // A route without policies has an upstream.
    let Some(upstream) = &route.upstream else {
        return problem::response(exchange, Why::NoRoute).into();
    };
    let (request, body) = prepare(&snapshot, &route, upstream, &exchange, head, body);
    Begun::Onward(Onward::Plain(Plain { snapshot, route, exchange, request, body }))
}

/// Sends the request on and brings the answer back.
pub async fn forward(
    snapshot: &Snapshot,
    route: &Route,
    upstream: &Upstream,
    exchange: Exchange,
    request: Outgoing,
    mut body: RequestBody,
) -> Response<ResponseBody> {
    let hints = forward::hinted(route, &exchange, &request.head);
    let answer = match forward::send(upstream, &exchange, &request, &mut body, hints).await {
        Ok(answer) => Ok(answer),
        Err(why) => match snapshot.fallback(upstream, why) {
            // Boxed: it is rare.
            Some(other) => {
                Box::pin(fallback::ask(other, (upstream, why), &exchange, &request, &mut body, hints)).await
            }
            None => Err(why.into()),
        },
    };
    let upgrade = matches!(request.switch, Switch::Upgrade(_));
    let extended = request.head.extensions.get::<Extended>().cloned();
    http1::recycle(request.head.headers);
    match answer {
        Ok(answer) => match (answer.head.status, upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, true) => self::upgrade(snapshot, answer, exchange, extended),
            (StatusCode::SWITCHING_PROTOCOLS, false) => problem::response(exchange, Why::UpstreamBadResponse),
            // It would be taken for an open WebSocket.
            (status, _) if extended.is_some() && status.is_success() => {
                problem::response(exchange, Why::UpstreamBadResponse)
            }
            _ => deliver(snapshot, answer, exchange),
        },
        Err(unanswered) => unanswered.response(exchange),
    }
}

/// What hyper lets through and an intermediary must not: RFC 9112 section 3.2 and RFC 9110 section 9.3.6.
fn check(head: &mut request::Parts, body: &Incoming, exchange: &Exchange) -> Result<(), Why> {
    strict::check_host(head)?;
    if head.version == Version::HTTP_2 {
        http2::check(&head.headers, body.is_end_stream())?;
    } else {
        let mut inbound = exchange.state.inbound.borrow_mut();
        let length = strict::check_framing(head, inbound.head())?;
        inbound.begin_body(length, framing(body));
    }
    strict::normalise_path(head)?;
    // RFC 9110 section 9.3.8: TRACE has no content.
    if head.method == Method::CONNECT || head.method == Method::TRACE && !body.is_end_stream() {
        return Err(Why::BadRequest);
    }
    let limit = exchange.state.listener.config.max.body;
    if limit.is_some_and(|limit| body.size_hint().lower() > limit) {
        return Err(Why::BodyTooLarge);
    }
    Ok(())
}

/// How a body's end is known.
fn framing(body: &Incoming) -> Framing {
    match body.size_hint().exact() {
        _ if body.is_end_stream() => Framing::Length(0),
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// `check` made sure that the host is text.
pub(super) fn asked(head: &request::Parts) -> Asked<'_> {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    Asked {
        host: host.unwrap_or_default(),
        path: head.uri.path(),
        method: &head.method,
        headers: &head.headers,
        query: head.uri.query(),
    }
}

/// 405 where another method would have found a route (RFC 9110 section 15.5.6), 404 else.
fn no_route(snapshot: &Snapshot, exchange: Exchange, head: &request::Parts) -> Response<ResponseBody> {
    let Some(allow) = snapshot.router.allowed(&asked(head)) else {
        return problem::response(exchange, Why::NoRoute);
    };
    let mut response = problem::response(exchange, Why::MethodNotAllowed);
    response.headers_mut().extend(HeaderValue::try_from(allow).ok().map(|allow| (header::ALLOW, allow)));
    response
}

/// The request as it goes upstream.
pub fn prepare(
    snapshot: &Snapshot,
    route: &Route,
    upstream: &Upstream,
    exchange: &Exchange,
    mut head: request::Parts,
    body: impl Into<Sent>,
) -> (Outgoing, RequestBody) {
    let state = &exchange.state;
    let deadline = exchange.grpc().and_then(|_| grpc::deadline(&head.headers));
    if let Some(total) = route.total(upstream).into_iter().chain(deadline).min() {
        state.timer.set_total(Some(exchange.started() + total));
    }
    let switch = headers::switch(&head, &route.upgrade);
    headers::remove_listed(&mut head.headers);
    let about = headers::about(&state.client(), head.headers.get(header::HOST), snapshot);
    if head.version < Version::HTTP_11 {
        strict::name_host(&mut head.headers, &upstream.name);
    }
    let body = body.into().into_upstream(state, route.first_byte(upstream));
    (Outgoing { head, switch, about, id: exchange.id(), trace: exchange.take_unsaid_trace() }, body)
}

/// Streams the upstream's answer to the client.
pub(super) fn deliver(snapshot: &Snapshot, answer: Answer, exchange: Exchange) -> Response<ResponseBody> {
    let Answer { head, connection } = answer;
    exchange.answered(head.status);
    let head = response(snapshot, head, None, &exchange);
    head.map(|()| ResponseBody::upstream(connection, exchange))
}

/// An upstream's head, fit for the client.
fn response(
    snapshot: &Snapshot,
    head: Head,
    upgrade: Option<&HeaderValue>,
    exchange: &Exchange,
) -> Response<()> {
    let via = if head.http2 { &snapshot.via_http2 } else { &snapshot.via };
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    headers::to_client(response.headers_mut(), upgrade, exchange, via);
    response
}

/// Passes a 101 on and leaves both sockets to a tunnel, which the connection starts once the 101 is written.
fn upgrade(
    snapshot: &Snapshot,
    answer: Answer,
    exchange: Exchange,
    extended: Option<Extended>,
) -> Response<ResponseBody> {
    let Answer { head, connection } = answer;
    if extended.as_ref().is_some_and(|extended| !extended.accepted(&head.headers)) {
        return problem::response(exchange, Why::UpstreamBadResponse);
    }
    exchange.answered(if extended.is_some() { StatusCode::OK } else { head.status });
    let protocol = head.headers.get(header::UPGRADE).cloned();
    let response = response(snapshot, head, protocol.as_ref(), &exchange);
    let state = exchange.state.clone();
    *state.tunnel.borrow_mut() = Tunnel::new(*connection, exchange);
    response.map(|()| ResponseBody::Nothing)
}
