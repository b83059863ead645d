//! One request as a story: check it, find its route, send it on, bring the answer back.

use std::{convert::Infallible, rc::Rc};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use hyper::body::{Body, Incoming};

use super::{
    body::{RequestBody, ResponseBody},
    connection::ClientState,
    exchange::Exchange,
    forward::{self, Answer},
    headers, problem, redirect,
    tunnel::Tunnel,
};
use crate::{
    observe::Why,
    route::Asked,
    runtime::{Route, Snapshot},
};

pub async fn handle(
    state: Rc<ClientState>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let snapshot = state.worker.snapshot();
    let (mut head, body) = request.into_parts();
    state.body_unread.set(!body.is_end_stream());
    let exchange = Exchange::begin(state, Some(&head));
    if let Err(why) = check(&mut head, &body, &exchange) {
        return Ok(problem::response(exchange, why));
    }
    if let Some(port) = exchange.state.listener.config.redirect {
        return Ok(redirect::to_https(exchange, &head, port));
    }
    let Some(route) = snapshot.router.find(&asked(&head)).cloned() else {
        return Ok(no_route(&snapshot, exchange, &head));
    };
    exchange.set_route(&route);
    let (mut request, upgrade) = prepare(&snapshot, &route, &exchange, head, body);
    let answer = forward::send(&route.upstream, &exchange, &mut request).await;
    Ok(match answer {
        Ok(answer) => match (answer.response.status(), upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, true) => self::upgrade(&snapshot, answer, exchange),
            (StatusCode::SWITCHING_PROTOCOLS, false) => problem::response(exchange, Why::UpstreamBadResponse),
            _ => deliver(&snapshot, answer, exchange),
        },
        Err(why) => problem::response(exchange, why),
    })
}

/// What hyper lets through and an intermediary must not: RFC 9112 section 3.2 and RFC 9110 section 9.3.6.
fn check(head: &mut request::Parts, body: &Incoming, exchange: &Exchange) -> Result<(), Why> {
    headers::check_host(head)?;
    headers::normalise_path(head)?;
    headers::check_framing(head, &exchange.state.raw_head())?;
    if head.method == Method::CONNECT {
        return Err(Why::BadRequest);
    }
    let limit = exchange.state.listener.config.max.body;
    if limit.is_some_and(|limit| body.size_hint().lower() > limit) {
        return Err(Why::BodyTooLarge);
    }
    Ok(())
}

/// `check` made sure that the host is text.
fn asked(head: &request::Parts) -> Asked<'_> {
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

/// The request as it goes upstream, and whether it asks for another protocol. `None` once it is sent.
fn prepare(
    snapshot: &Snapshot,
    route: &Route,
    exchange: &Exchange,
    mut head: request::Parts,
    body: Incoming,
) -> (Option<Request<RequestBody>>, bool) {
    let state = &exchange.state;
    let timeout = &route.upstream.config.timeout;
    if let Some(total) = timeout.total {
        state.timer.set_total(Some(exchange.started() + total));
    }
    let upgrade = headers::wanted_upgrade(&head, &route.upgrade);
    headers::to_upstream(&mut head, upgrade.as_ref(), state, exchange, snapshot);
    let takes_interim = head.version == Version::HTTP_11;
    head.version = Version::HTTP_11;
    // What hyper attached for its own upgrades is of no use upstream.
    head.extensions.clear();
    let body = RequestBody::new(body, state, timeout.first_byte);
    let mut request = Request::from_parts(head, body);
    if route.early_hints && takes_interim {
        forward::collect_early_hints(&mut request);
    }
    (Some(request), upgrade.is_some())
}

/// Streams the upstream's answer to the client.
fn deliver(snapshot: &Snapshot, answer: Answer, exchange: Exchange) -> Response<ResponseBody> {
    let (mut head, body) = answer.response.into_parts();
    exchange.answered(head.status);
    headers::to_client(&mut head, None, &exchange, snapshot);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Response::from_parts(head, ResponseBody::upstream(body, answer.connection, exchange))
}

/// Passes a 101 on and leaves both sockets to a tunnel, which the connection starts once the 101 is written.
fn upgrade(snapshot: &Snapshot, answer: Answer, exchange: Exchange) -> Response<ResponseBody> {
    let (mut head, _) = answer.response.into_parts();
    exchange.answered(head.status);
    let protocol = head.headers.get(http::header::UPGRADE).cloned();
    headers::to_client(&mut head, protocol.as_ref(), &exchange, snapshot);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let state = exchange.state.clone();
    *state.tunnel.borrow_mut() = Some(Tunnel::new(*answer.connection, exchange));
    Response::from_parts(head, ResponseBody::Nothing)
}
